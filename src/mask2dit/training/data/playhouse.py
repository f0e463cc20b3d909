"""The playhouse as a source of scenes: rendered when asked for, told in new words each time.

Owns which stories are trained on. Pictures and words are the playhouse's own (`render`, `captions`).
"""

from __future__ import annotations

import hashlib
import random
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from mask2dit.errors import InputError
from mask2dit.playhouse.captions import caption_story
from mask2dit.playhouse.facts import LEVELS, TRAINING_SEEDS, draw_story
from mask2dit.playhouse.render import render_scenes
from mask2dit.training.data.scenes import ClipSettings

SCENES_PER_STORY = 3


@dataclass(frozen=True, slots=True)
class PlayhouseClip:
    """One scene of a story. It has no length of its own: the action always fills the window, wherever that starts and at any rate."""

    level: str
    seed: int
    scene: int

    @property
    def name(self) -> str:
        return f"playhouse {self.level}, story {self.seed}, scene {self.scene + 1}"

    def check(self) -> None:
        """Nothing can be wrong with it."""

    @property
    def signature(self) -> str:
        return self.name

    def fingerprint(self) -> str:
        return hashlib.sha256(f"playhouse/{self.level}/{self.seed}/{self.scene}".encode()).hexdigest()

    def frames(self, settings: ClipSettings, position: float) -> NDArray[np.uint8]:
        story = draw_story(self.seed, self.level, SCENES_PER_STORY)
        scenes = [(story, self.scene)]
        frames = render_scenes(scenes, num_frames=settings.num_frames, height=settings.height, width=settings.width)[0]
        pixels: NDArray[np.uint8] = (frames * 255).round().to(torch.uint8).numpy()
        return pixels


class PlayhouseScenes:
    """The first training stories of a level, three scenes each; captions are by reference with probability `by_reference`."""

    def __init__(self, level: str, num_stories: int, by_reference: float) -> None:
        if level not in LEVELS:
            raise InputError(f"level: got {level!r}, expected one of {', '.join(LEVELS)}")
        if not 1 <= num_stories <= len(TRAINING_SEEDS):
            raise InputError(f"num_stories: got {num_stories}, expected 1 to {len(TRAINING_SEEDS)}")
        if not 0 <= by_reference <= 1:
            raise InputError(f"by_reference: got {by_reference}, expected a probability, 0 to 1")
        self.level, self.by_reference = level, by_reference
        self.groups = tuple(
            tuple(PlayhouseClip(level, seed, scene) for scene in range(SCENES_PER_STORY)) for seed in TRAINING_SEEDS[:num_stories]
        )

    @property
    def name(self) -> str:
        return f"playhouse {self.level}"

    @property
    def fixed_captions(self) -> bool:
        return False

    def captions(self, group: int, rng: random.Random) -> list[str]:
        """All captions of a story come from one telling, so that by reference exactly one of them names each attribute."""
        style = "by-reference" if rng.random() < self.by_reference else "self-contained"
        return caption_story(draw_story(self.groups[group][0].seed, self.level, SCENES_PER_STORY), rng, style)
