"""From a source of scenes to numbered training samples: which scenes, their pixels or cached latents, their captions.

A sample is a function of (seed, its number), and of which clips can be read: a clip that turns out to be bad is reported once and another
is drawn in its place. Encoding belongs to `encoding`, the random numbers to `draws`.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from mask2dit.errors import InputError, Mask2DiTError
from mask2dit.training.config import DiffusionRecipe
from mask2dit.training.data.report import ClipReport
from mask2dit.training.data.scenes import Clip, ClipError, ClipSettings, SceneSource
from mask2dit.training.draws import ORDER, Draw, draw_for, generator_for
from mask2dit.training.latent_cache import LatentCache

ATTEMPTS = 32  # clips in a row that cannot be read before a run gives up

Pick = tuple[int, int]  # group and scene


@dataclass(frozen=True, slots=True)
class Sample:
    """One training sample of S scenes: `frames` uint8 [S, T, Y, X, 3], or cached moments [S, F, C, H, W] of the scaled posterior.

    `captions` as they are trained on (empty where they are dropped); `prompt_embeds` [S, L, E] where they are cached.
    """

    number: int
    draw: Draw
    captions: tuple[str, ...]
    frames: Tensor | None = None
    mean: Tensor | None = None
    std: Tensor | None = None
    prompt_embeds: Tensor | None = None


class Samples(Dataset[Sample]):
    """The numbered samples of a run; item `number` may be asked for in any order, by any process."""

    def __init__(
        self,
        recipe: DiffusionRecipe,
        source: SceneSource,
        windows: Sequence[tuple[int, int, int]],
        settings: ClipSettings,
        report: ClipReport,
        num_train_timesteps: int,
        cache: LatentCache | None = None,
    ) -> None:
        """windows: (group, first scene, count) of consecutive scenes that can be used."""
        self.recipe, self.source, self.settings, self.report, self.cache = recipe, source, settings, report, cache
        self.num_train_timesteps = num_train_timesteps
        self.windows = windows
        self.singles: list[Pick] = [(group, scene) for group, first, count in windows for scene in range(first, first + count)]

    def __getitem__(self, number: int) -> Sample:
        reason = ""
        for attempt in range(ATTEMPTS):
            rng = random.Random(f"pick/{self.recipe.seed}/{number}/{attempt}")
            picks = self._pick(number, attempt, rng)
            clips = [self.source.groups[group][scene] for group, scene in picks]
            # Tried whatever the report knows: a half-damaged file has good windows, and which sample came first must not matter.
            try:
                return self._read(number, picks, clips, rng)
            except ClipError as error:
                reason = str(error)
        raise InputError(f"data: {ATTEMPTS} samples in a row could not be read ({self.report.summary()}; last: {reason}); check the videos")

    def draw(self, number: int) -> Draw:
        """What the sample learns, without reading it."""
        return draw_for(self.recipe, number, self.num_train_timesteps)

    def _pick(self, number: int, attempt: int, rng: random.Random) -> list[Pick]:
        """Pretrain joins unrelated clips, the other stages take consecutive scenes. First attempts go through the data in random order."""
        count = self.recipe.num_scenes
        alone = self.recipe.stage == "pretrain" or count == 1
        choices = len(self.singles) if alone else len(self.windows)
        place = number % choices
        index = int(_order(self.recipe.seed, number // choices, choices)[place]) if attempt == 0 else rng.randrange(choices)
        if not alone:
            group, first, length = self.windows[index]
            start = first + rng.randint(0, length - count)
            return [(group, start + offset) for offset in range(count)]
        others = rng.sample(range(choices - 1), count - 1)
        return [self.singles[index], *(self.singles[other + (other >= index)] for other in others)]

    def _read(self, number: int, picks: list[Pick], clips: list[Clip], rng: random.Random) -> Sample:
        draw = self.draw(number)
        captions = tuple("" if draw.empty else caption for caption in self._captions(number, picks))
        if self.cache is None:
            frames = [self._frames(clip, rng.random()) for clip in clips]
            return Sample(number, draw, captions, frames=torch.stack(frames))
        means, stds = zip(*(self.cache.moments(clip) for clip in clips), strict=True)
        embeds = torch.stack([self.cache.prompt_embeds(caption) for caption in captions]) if self.cache.has_captions else None
        return Sample(number, draw, captions, mean=torch.stack(means).float(), std=torch.stack(stds).float(), prompt_embeds=embeds)

    def _captions(self, number: int, picks: list[Pick]) -> list[str]:
        # One call per group: captions that are drawn anew may refer to one another.
        told = {
            group: self.source.captions(group, random.Random(f"captions/{self.recipe.seed}/{number}/{group}"))
            for group in dict.fromkeys(group for group, _ in picks)
        }
        return [told[group][scene] for group, scene in picks]

    def _frames(self, clip: Clip, position: float) -> Tensor:
        try:
            return torch.from_numpy(np.ascontiguousarray(clip.frames(self.settings, position)))
        except ClipError as error:
            self.report.add(clip.name, error.kind, str(error))
            raise


class Guarded(Dataset[Sample | Mask2DiTError]):
    """The samples, with our own errors as values: data workers would wrap them in a traceback."""

    def __init__(self, samples: Samples) -> None:
        self._samples = samples

    def __getitem__(self, number: int) -> Sample | Mask2DiTError:
        try:
            return self._samples[number]
        except Mask2DiTError as error:
            return error


@lru_cache(maxsize=2)
def _order(seed: int, epoch: int, count: int) -> Tensor:
    return torch.randperm(count, generator=generator_for(seed, epoch, ORDER))
