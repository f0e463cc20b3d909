"""Playhouse stories as training samples: latents encoded once, captions drawn anew each time.

A sample is a function of (seed, its global number) alone, so that batch size and resuming cannot change it.
"""

import os
import random
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from mask2dit.playhouse.captions import caption_story
from mask2dit.playhouse.facts import TRAINING_SEEDS, draw_story
from mask2dit.training.config import DiffusionRecipe
from mask2dit.training.state import generator_for
from mask2dit.training.vae import Report, render_stories

SCENES_PER_STORY = 3


@dataclass(frozen=True, slots=True)
class Sample:
    """One training sample: `latents` [F, C, H, W] drawn from the posterior, one caption per scene, and which scenes are known."""

    latents: Tensor
    noise: Tensor
    captions: list[str]
    timestep: int
    known: frozenset[int]


class StoryLatents:
    """Posterior mean and std of every scene of the training stories, scaled, float16 [N, 3, F, C, H, W]."""

    def __init__(self, vae: Any, recipe: DiffusionRecipe, folder: Path, device: torch.device, report: Report) -> None:
        self.level = recipe.level
        self.seeds = TRAINING_SEEDS[: recipe.num_stories]
        path = folder / f"latents-{recipe.level}-{recipe.num_stories}-{_digest(vae)}.safetensors"
        if not path.exists():
            _encode(vae, self.seeds, recipe.level, path, device, report)
        with safe_open(str(path), framework="pt") as file:
            self.mean, self.std = file.get_tensor("mean"), file.get_tensor("std")

    def draw(self, recipe: DiffusionRecipe, number: int, num_train_timesteps: int) -> Sample:
        """Sample number `number` of the run: every draw comes from a generator keyed by (seed, number)."""
        generator = generator_for(recipe.seed, number, 2)
        rng = random.Random(f"{recipe.seed}/{number}")
        unrelated = recipe.stage == "pretrain"
        if unrelated:
            picks = [(rng.randrange(len(self.seeds)), rng.randrange(SCENES_PER_STORY)) for _ in range(recipe.num_scenes)]
        else:
            story = rng.randrange(len(self.seeds))
            picks = [(story, scene) for scene in rng.sample(range(SCENES_PER_STORY), recipe.num_scenes)]
        style = "by-reference" if rng.random() < recipe.by_reference else "self-contained"
        captions = [self._caption(story, scene, f"{recipe.seed}/{number}/{story}", style) for story, scene in picks]
        if rng.random() < recipe.empty_caption:
            captions = [""] * recipe.num_scenes
        rows = tuple(torch.tensor(column) for column in zip(*picks, strict=True))
        mean, std = self.mean[rows].flatten(0, 1).float(), self.std[rows].flatten(0, 1).float()
        return Sample(
            latents=mean + std * torch.randn(mean.shape, generator=generator),
            noise=torch.randn(mean.shape, generator=generator),
            captions=captions,
            timestep=int(torch.randint(num_train_timesteps, (1,), generator=generator)),
            known=draw_known(recipe, rng),
        )

    def _caption(self, story: int, scene: int, key: str, style: str) -> str:
        # The same key for all scenes of a story: by reference, exactly one of them names each attribute.
        return caption_story(draw_story(self.seeds[story], self.level), random.Random(key), style)[scene]


def draw_known(recipe: DiffusionRecipe, rng: random.Random) -> frozenset[int]:
    """Which scenes are known: none, all but the last, or a random subset that leaves one to learn."""
    kinds = list(recipe.known_sets)
    kind = rng.choices(kinds, weights=list(recipe.known_sets.values()))[0]
    if kind == "none" or recipe.num_scenes == 1:
        return frozenset()
    if kind == "all-but-last":
        return frozenset(range(recipe.num_scenes - 1))
    return frozenset(rng.sample(range(recipe.num_scenes), rng.randint(1, recipe.num_scenes - 1)))


def _digest(vae: Any) -> str:
    """Of the encoder's weights, as they are shipped (float16): another encoder makes other latents, another decoder does not."""
    digest = sha256(repr(vae.config.scaling_factor).encode())
    for key, value in sorted(vae.encoder.state_dict().items()):
        digest.update(key.encode() + value.half().cpu().numpy().tobytes())
    return digest.hexdigest()[:12]


@torch.no_grad()
def _encode(vae: Any, seeds: range, level: str, path: Path, device: torch.device, report: Report) -> None:
    means: list[Tensor] = []
    stds: list[Tensor] = []
    for start in range(0, len(seeds), 16):
        clips = render_stories(seeds[start : start + 16], level, device)
        for part in torch.split(clips, 12):
            posterior = vae.encode(part.to(device).permute(0, 4, 1, 2, 3).float() / 127.5 - 1).latent_dist
            for kept, value in ((means, posterior.mean), (stds, posterior.std)):
                kept.append((value * vae.config.scaling_factor).transpose(1, 2).half().cpu())  # [N, F, C, H, W]
        if start % 480 == 0:
            report(f"encoded {start + 16} of {len(seeds)} stories")
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_suffix(".part")
    tensors = {"mean": torch.cat(means), "std": torch.cat(stds)}
    save_file({key: torch.unflatten(value, 0, (-1, SCENES_PER_STORY)).contiguous() for key, value in tensors.items()}, str(aside))
    os.replace(aside, path)
