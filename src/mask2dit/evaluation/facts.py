"""What is known of a film before any metric is computed, and what a metric answers.

`Look` is what frames alone tell, `FilmFacts` adds captions, characters and features. Both are values: they are read once from the video and
kept (`looking`, `features`), and a metric is a function of them.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from mask2dit.cuts import FilmCheck

Features = NDArray[np.float32]
CutSource = Literal["asked", "detected"]


class SceneLook(BaseModel):
    """One scene as it was looked at: its frames [start, stop), the pictures taken of it, and how much moves between those.

    `motion`: see `mask2dit.motion`; None where there is one picture only.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    start: int
    stop: int
    num_pictures: int
    motion: float | None


class Look(BaseModel):
    """A film as it was looked at. `cuts_are`: whether the scenes lie where somebody asked for them, or where cuts were detected."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    digest: str
    cuts_are: CutSource
    fps: float
    height: int
    width: int
    check: FilmCheck
    scenes: tuple[SceneLook, ...]
    num_damaged: int = 0
    """Frames that the decoder had to guess in part."""
    num_stated: int = 0
    """Frames that the file says it has."""

    def notes(self) -> tuple[str, ...]:
        """What a reader of the numbers must know."""
        found = list(self.check.notes())
        if self.num_damaged:
            found.append(f"{self.num_damaged} frames are damaged")
        if self.check.num_frames < 0.9 * self.num_stated:
            found.append(f"ends after {self.check.num_frames} of the {self.num_stated} frames that the file says it has")
        return tuple(found)


@dataclass(frozen=True, slots=True)
class Value:
    """One metric of one film: the mean of `count` parts (pairs of scenes, scenes, cuts), or the reason why there is none."""

    value: float | None
    count: int = 0
    reason: str = ""

    @classmethod
    def mean(cls, parts: Iterable[float], if_none: str) -> Value:
        """The mean of the parts, or `if_none` as the reason."""
        listed = [float(part) for part in parts]
        return cls(float(np.mean(listed)), len(listed)) if listed else cls(None, reason=if_none)


@dataclass(frozen=True, slots=True)
class FilmFacts:
    """All that is known of a film. Features are by extractor's name: [S, D] of scenes and captions, [T, D] per scene of its pictures.

    `captions`, `characters`: one per scene; None where nobody says, or says it of another number of scenes; `amiss` is then what is wrong.
    """

    name: str
    look: Look
    captions: tuple[str, ...] | None = None
    characters: tuple[frozenset[str], ...] | None = None
    amiss: str = ""
    scenes: dict[str, Features] = field(default_factory=dict)
    texts: dict[str, Features] = field(default_factory=dict)
    pictures: dict[str, tuple[Features, ...]] = field(default_factory=dict)

    @property
    def num_scenes(self) -> int:
        return len(self.look.scenes)


def cosines(ones: Features, others: Features) -> NDArray[np.float64]:
    """[N, D], [N, D] → [N]: cosines row by row, in float64; a zero vector has none (NaN)."""
    one, other = np.asarray(ones, np.float64), np.asarray(others, np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        return (one * other).sum(-1) / (np.linalg.norm(one, axis=-1) * np.linalg.norm(other, axis=-1))  # type: ignore[no-any-return]


def pairs(count: int) -> tuple[list[int], list[int]]:
    """Both sides of all pairs of different numbers below `count`."""
    ones, others = np.triu_indices(count, k=1)
    return ones.tolist(), others.tolist()
