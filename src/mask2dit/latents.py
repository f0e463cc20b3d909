"""Frames ↔ clean latents, scene by scene, and the noise that a film starts from.

Nothing crosses a cut: every scene is encoded and decoded on its own. Latents are frame-first and scaled, [F, C, H, W], everywhere
outside this module; the VAE's channel-first order stays here.
"""

from collections.abc import Sequence
from typing import Any

import torch
from diffusers.utils.torch_utils import randn_tensor
from torch import Tensor

from mask2dit.framewise import use_framewise_convolutions

Generators = torch.Generator | Sequence[torch.Generator | None] | None


@torch.no_grad()
def encode_frames(vae: Any, frames: Tensor, device: torch.device) -> Tensor:
    """Pixels [T, 3, Y, X] in -1..1 → latents [F, C, H, W]: the mode of the posterior, scaled. T is 4k + 1.

    device: where the VAE computes, which is not where its weights are while they are offloaded.
    """
    _prepare(vae, device)
    pixels = frames.to(device, vae.dtype).transpose(0, 1)[None]  # [1, 3, T, Y, X]
    posterior = vae.encode(pixels).latent_dist
    return (posterior.mode()[0] * vae.config.scaling_factor).transpose(0, 1)  # type: ignore[no-any-return]


@torch.no_grad()
def decode_latents(vae: Any, latents: Tensor, device: torch.device) -> Tensor:
    """Latents [F, C, H, W] → pixels [T, 3, Y, X] in -1..1, float32 and not clamped. Chunks over time are diffusers'."""
    _prepare(vae, device)
    num_frames = (len(latents) - 1) * int(vae.config.temporal_compression_ratio) + 1
    if len(latents) % 2 == 0:
        # diffusers' decoder sets the first frame apart only in an odd count: 2 latent frames would become 8 frames and not 5. One more
        # at the end does not reach back, for the decoder is causal in all but the statistics of its norms.
        latents = torch.cat([latents, latents[-1:]])
    scaled = latents.to(device, vae.dtype).transpose(0, 1)[None] / vae.config.scaling_factor  # [1, C, F, H, W]
    return vae.decode(scaled).sample[0].transpose(0, 1)[:num_frames].float()  # type: ignore[no-any-return]


def _prepare(vae: Any, device: torch.device) -> None:
    if device.type == "cpu":
        use_framewise_convolutions(vae)


def use_tiles(vae: Any) -> None:
    """Let the VAE encode and decode frames in overlapping tiles, which costs time and a little exactness and saves most of its memory.

    The tiles are diffusers', where their overlaps are whole latent cells; where not, its result would have another size than the film, and
    tiles overlap by a quarter.
    """
    spatial = 2 ** (len(vae.config.block_out_channels) - 1)
    heights = (vae.tile_sample_min_height, vae.tile_overlap_factor_height)
    widths = (vae.tile_sample_min_width, vae.tile_overlap_factor_width)
    if all(int(size // spatial * (1 - overlap)) * spatial == size - int(size * overlap) for size, overlap in (heights, widths)):
        vae.enable_tiling()
    else:
        tile = [max(1, round(size / spatial / 4)) * 4 * spatial for size, _ in (heights, widths)]
        vae.enable_tiling(*tile, 0.25, 0.25)
    vae.enable_slicing()


def draw_noise(
    shapes: Sequence[tuple[int, ...] | None], generator: Generators, device: torch.device, dtype: torch.dtype
) -> list[Tensor | None]:
    """Noise for each scene, in film order; None, for a known scene, draws nothing.

    `generator`: one per scene, one for all, or None for torch's global one.
    """
    generators = generator_per_scene(generator, len(shapes))
    return [
        None if shape is None else randn_tensor(shape, generator=own, device=device, dtype=dtype)
        for shape, own in zip(shapes, generators, strict=True)
    ]


def generator_per_scene(generator: Generators, num_scenes: int) -> Sequence[torch.Generator | None]:
    """One entry per scene; a single generator serves all in turn."""
    return generator if isinstance(generator, Sequence) else [generator] * num_scenes
