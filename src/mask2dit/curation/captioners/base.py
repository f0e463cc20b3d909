"""What every captioner does: look at the shots of a group, and describe each of them, with one cast and one setting for all. No torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from mask2dit.errors import Mask2DiTError

TAG = r"Actor\d+"


class CaptionError(Mask2DiTError):
    """A group has no captions, and why; the others go on."""


class CaptionLaterError(CaptionError):
    """A group has no captions for now, through no fault of its own: the next run should ask again."""


class CaptionerStoppedError(Mask2DiTError):
    """No captions can be had for now: a dead endpoint, a key that is refused, a budget that is spent. What was written is kept."""


@dataclass(frozen=True, slots=True)
class ShotView:
    """One shot, as a captioner gets it."""

    shot: str
    video: Path
    start: int
    stop: int
    fps: float
    pictures: tuple[bytes, ...]
    """JPEG files of some of its pictures, evenly spaced, in order."""
    features: Mapping[str, NDArray[np.float32]]
    """By name of the extractor, for those that the captioner reads."""


@dataclass(frozen=True, slots=True)
class GroupView:
    """Shots that follow each other and belong together."""

    group: str
    shots: tuple[ShotView, ...]


@dataclass(frozen=True, slots=True)
class GroupCaptions:
    """A group in words.

    `cast`: tag (Actor1, Actor2, …) → how that character looks. `setting`: what stays of the background over the group, or "". `prompts`:
    one per shot; a character is named by the tag alone, the description is put behind it afterwards.
    """

    cast: Mapping[str, str]
    setting: str
    prompts: tuple[str, ...]


class Captioner(Protocol):
    """Describes groups. Anything with these members is one; `caption` is called from `at_once` threads."""

    @property
    def name(self) -> str:
        """Kind, model, and version of the instruction: equal names, equal captions of equal pictures."""
        ...

    @property
    def features(self) -> frozenset[str]:
        """Names of the extractors whose features of a shot it reads."""
        ...

    @property
    def at_once(self) -> int:
        """How many groups it takes at a time."""
        ...

    def caption(self, group: GroupView) -> GroupCaptions:
        """Raises CaptionError for this group, CaptionerStoppedError for this and all that follow."""
        ...

    def summary(self) -> Mapping[str, Any]:
        """What it cost so far: requests, tokens, price, where it knows."""
        ...
