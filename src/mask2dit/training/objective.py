"""The training objective of all stages: v-prediction of the scenes that are not known.

Tensors in, tensors out; no files, no data sets, no launcher.
"""

from collections.abc import Sequence, Set
from typing import Any

import torch
from torch import Tensor

from mask2dit.errors import InputError
from mask2dit.scene_layout import SceneLayout


def scene_loss(
    model: Any,
    latents: Tensor,
    noise: Tensor,
    timestep: Tensor,
    known: Set[int] | Sequence[Set[int]],
    prompt_embeds: Tensor,
    layout: SceneLayout,
    scheduler: Any,
) -> tuple[Tensor, Tensor, Tensor]:
    """Mean squared v-prediction error over the elements of the generated scenes (paper, section 3.3 for the known ones).

    latents, noise [B, F, C, H, W]; timestep [B], shared by a sample's generated scenes; known: scene indices, one set for all samples
    or one per sample; prompt_embeds [B, ΣL, E]. Noise and target are mixed in float32, whatever the model's dtype. A known scene goes
    in clean, at timestep 0, and has no part in the loss. Returns (loss, prediction, target), the last two [B, F, C, H, W] in float32.
    """
    is_known = _known_matrix(known, len(latents), layout.num_scenes).to(latents.device)  # [B, S]
    if bool(is_known.all()):
        raise InputError("known: got every scene of every sample, expected at least one scene to learn")
    latents, noise = latents.float(), noise.float()
    tokens_per_frame = layout.num_video_tokens // latents.shape[1]
    scene_of_frame = torch.repeat_interleave(
        torch.arange(layout.num_scenes), torch.tensor([length // tokens_per_frame for length in layout.video_lengths])
    ).to(latents.device)
    frame_is_known = is_known[:, scene_of_frame][:, :, None, None, None]  # [B, F, 1, 1, 1]

    noisy = torch.where(frame_is_known, latents, scheduler.add_noise(latents, noise, timestep))
    target = scheduler.get_velocity(latents, noise, timestep)
    timestep_per_scene = timestep[:, None] * ~is_known  # [B, S]
    inputs = noisy.to(prompt_embeds.dtype), prompt_embeds, timestep_per_scene, layout
    prediction = model(*inputs, return_dict=False, known_scenes=known)[0].float()

    generated = (~frame_is_known).expand_as(target)
    loss = (prediction - target)[generated].square().mean()
    return loss, prediction, target


def _known_matrix(known: Set[int] | Sequence[Set[int]], batch: int, num_scenes: int) -> Tensor:
    sets = [known] * batch if isinstance(known, Set) else list(known)
    if len(sets) != batch or any(not 0 <= index < num_scenes for scenes in sets for index in scenes):
        raise InputError(f"known: got {known}, expected scene indices 0 to {num_scenes - 1}, one set, or one for each of {batch} samples")
    return torch.tensor([[index in scenes for index in range(num_scenes)] for scenes in sets])
