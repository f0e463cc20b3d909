"""Seconds and pixels → frames → latent frames → tokens, once.

Owns the arithmetic of compression: 4k + 1 frames ↔ k + 1 latent frames, pixels ↔ latent cells ↔ patches. Every scene is counted on its
own, because every scene is encoded and decoded on its own. The order of the tokens belongs to scene_layout.
"""

import math
from dataclasses import dataclass, replace
from typing import Self

from mask2dit.errors import InputError
from mask2dit.scene_layout import SceneLayout


def nearest_num_frames(count: float, temporal_ratio: int = 4) -> int:
    """The legal frame count (a multiple of `temporal_ratio`, plus one) nearest to `count`; at least one."""
    return max(0, round((count - 1) / temporal_ratio)) * temporal_ratio + 1


def num_frames_for(duration_seconds: float, fps: float, temporal_ratio: int = 4) -> int:
    """The legal frame count nearest to a duration; never less than one group of `temporal_ratio` frames and the first."""
    return max(temporal_ratio + 1, nearest_num_frames(duration_seconds * fps, temporal_ratio))


def check_num_frames(num_frames: int, place: str, temporal_ratio: int = 4) -> None:
    """Raise InputError unless `num_frames` is a positive multiple of `temporal_ratio`, plus one."""
    if num_frames >= 1 and (num_frames - 1) % temporal_ratio == 0:
        return
    below = max(1, (num_frames - 1) // temporal_ratio * temporal_ratio + 1)
    near = f"{below} or {below + temporal_ratio}" if num_frames > below else f"{below}"
    raise InputError(f"{place}: got {num_frames} frames, expected {temporal_ratio}k + 1 (1, {temporal_ratio + 1}, …); take {near}")


@dataclass(frozen=True, slots=True)
class Compression:
    """How much a model shrinks its video before the transformer sees it.

    `spatial` and `temporal`: pixels per latent cell and frames per latent frame (VAE). `patch`: latent cells per token side.
    """

    spatial: int
    temporal: int
    patch: int

    @property
    def size_step(self) -> int:
        """Pixel sizes must be multiples of this."""
        return self.spatial * self.patch


@dataclass(frozen=True, slots=True)
class VideoShape:
    """The shape of one film: pixel size, and frames per scene."""

    height: int
    width: int
    num_frames: tuple[int, ...]
    compression: Compression

    def __post_init__(self) -> None:
        step = self.compression.size_step
        for name, size in (("height", self.height), ("width", self.width)):
            if size < step or size % step:
                near = sorted({max(step, math.floor(size / step) * step), max(step, math.ceil(size / step) * step)})
                raise InputError(f"{name}: got {size}, expected a multiple of {step} pixels; take {' or '.join(map(str, near))}")
        if not self.num_frames:
            raise InputError("scenes: got none, expected at least one; add a scene with a prompt")
        for index, count in enumerate(self.num_frames):
            check_num_frames(count, f"scene {index + 1}, num_frames", self.compression.temporal)

    @property
    def words(self) -> str:
        """What it is, for a person."""
        counts, many = " and ".join(map(str, sorted(set(self.num_frames)))), "s" * (len(self.num_frames) > 1)
        frames = "frame" if counts == "1" else "frames"
        return f"{len(self.num_frames)} scene{many} of {counts} {frames} at {self.height} × {self.width}"

    def largest(self, count: int) -> Self:
        """The shape of the longest `count` scenes: as much as a call with so many can be."""
        return replace(self, num_frames=tuple(sorted(self.num_frames, reverse=True)[:count]))

    @property
    def latent_size(self) -> tuple[int, int]:
        """Latent cells (H, W)."""
        return self.height // self.compression.spatial, self.width // self.compression.spatial

    @property
    def num_latent_frames(self) -> tuple[int, ...]:
        """Latent frames per scene."""
        return tuple((count - 1) // self.compression.temporal + 1 for count in self.num_frames)

    @property
    def tokens_per_latent_frame(self) -> int:
        """Patches in one latent frame."""
        latent_height, latent_width = self.latent_size
        return (latent_height // self.compression.patch) * (latent_width // self.compression.patch)

    def layout(self, text_length: int) -> SceneLayout:
        """The joint sequence of this film, with `text_length` text tokens per scene."""
        return SceneLayout(
            text_lengths=(text_length,) * len(self.num_frames),
            video_lengths=tuple(count * self.tokens_per_latent_frame for count in self.num_latent_frames),
        )
