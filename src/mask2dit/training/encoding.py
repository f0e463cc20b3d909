"""From samples to tensors on the device: the autoencoder and the text encoder, or the cache that stands in for them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from mask2dit.errors import InputError
from mask2dit.text import encode_tokens, tokenize
from mask2dit.training.config import DiffusionRecipe
from mask2dit.training.draws import NOISE, POSTERIOR, draw_noise
from mask2dit.training.samples import Sample


@dataclass(frozen=True, slots=True)
class Batch:
    """What `scene_loss` takes: latents, noise [B, F, C, H, W]; timestep [B]; known sets; prompt_embeds [B, S·L, E]."""

    latents: Tensor
    noise: Tensor
    timestep: Tensor
    known: list[frozenset[int]]
    prompt_embeds: Tensor


@dataclass(slots=True)
class Encoder:
    """`vae` and `text_encoder` are None where the cache holds what they would make. `train_text`: gradients flow into the text encoder."""

    tokenizer: Any
    max_length: int
    device: torch.device
    text_encoder: Any = None
    vae: Any = None
    train_text: bool = False

    def batch(self, recipe: DiffusionRecipe, samples: Sequence[Sample], dtype: torch.dtype) -> Batch:
        """Encode what is not cached and draw the noise of each sample; prompt_embeds come in `dtype`."""
        moments = [self._moments(sample) for sample in samples]
        latents = [
            (mean + std * draw_noise(recipe, sample.number, POSTERIOR, tuple(mean.shape))).flatten(0, 1)  # [F, C, H, W]
            for sample, (mean, std) in zip(samples, moments, strict=True)
        ]
        noise = [draw_noise(recipe, sample.number, NOISE, tuple(one.shape)) for sample, one in zip(samples, latents, strict=True)]
        return Batch(
            latents=torch.stack(latents).to(self.device),
            noise=torch.stack(noise).to(self.device),
            timestep=torch.tensor([sample.draw.timestep for sample in samples], device=self.device),
            known=[sample.draw.known for sample in samples],
            prompt_embeds=self._prompt_embeds(samples).to(dtype),
        )

    def _moments(self, sample: Sample) -> tuple[Tensor, Tensor]:
        """Mean and std of the scaled posterior, [S, F, C, H, W], float32 on the CPU."""
        if sample.mean is not None and sample.std is not None:
            return sample.mean, sample.std
        if sample.frames is None:
            raise AssertionError("a sample has frames or moments")
        return self.encode_frames(sample.frames)

    @torch.no_grad()
    def encode_frames(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        """uint8 [S, T, Y, X, 3] → mean and std of the scaled posterior, [S, F, C, H, W], float32 on the CPU; each scene on its own."""
        if self.vae is None:
            raise InputError("latent_cache: holds no latents for this sample, expected all; run --precompute again")
        kept: tuple[list[Tensor], list[Tensor]] = ([], [])
        for scene in frames:
            pixels = scene[None].to(self.device).permute(0, 4, 1, 2, 3).to(self.vae.dtype) / 127.5 - 1  # [1, 3, T, Y, X]
            posterior = self.vae.encode(pixels).latent_dist
            for values, one in zip(kept, (posterior.mean, posterior.std), strict=True):
                values.append((one * self.vae.config.scaling_factor).transpose(1, 2).float().cpu())
        return torch.cat(kept[0]), torch.cat(kept[1])

    def _prompt_embeds(self, samples: Sequence[Sample]) -> Tensor:
        cached = [sample.prompt_embeds for sample in samples if sample.prompt_embeds is not None]
        if len(cached) == len(samples):
            return torch.stack(cached).flatten(1, 2).to(self.device)
        captions = [caption for sample in samples for caption in sample.captions]
        return torch.unflatten(self.encode_captions(captions), 0, (len(samples), -1)).flatten(1, 2)

    def encode_captions(self, captions: Sequence[str]) -> Tensor:
        """[N, L, E]; equal captions are encoded once."""
        if self.text_encoder is None:
            raise InputError("latent_cache: holds no captions, expected all; run --precompute again")
        once = list(dict.fromkeys(captions))
        with torch.set_grad_enabled(self.train_text):
            rows = encode_tokens(tokenize(once, self.tokenizer, self.max_length), self.text_encoder, self.device)
        return rows[[once.index(caption) for caption in captions]]
