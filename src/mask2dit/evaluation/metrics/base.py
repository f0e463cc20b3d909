"""What a metric is: a name, a unit, what it needs, and a function of one film or of a whole set."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from mask2dit.evaluation.facts import Features, FilmFacts, Value

Need = Literal["scene", "text", "frame"]
Better = Literal["higher", "lower", "neither"]

VIDEO = ("viclip", "clip", "siglip2", "judge")
"""Extractors with features of scenes and of text, the paper's first."""
SUBJECT = ("dinov2", "siglip2", "clip")
BACKGROUND = ("clip", "siglip2", "dinov2")
IDENTITY = ("dinov2", "clip", "siglip2", "viclip", "judge")
DISTANCE = ("i3d", "videomae", "viclip", "judge", "clip", "siglip2", "dinov2")


@dataclass(frozen=True, slots=True)
class FilmMetric:
    """A number for each film; that of a set is the mean over its films.

    `measure` takes the film and the name of the extractor, "" where none is needed. `scale`: what the table multiplies values by.
    """

    name: str
    title: str
    unit: str
    better: Better
    measure: Callable[[FilmFacts, str], Value]
    needs: tuple[Need, ...] = ()
    prefers: tuple[str, ...] = ()
    """Extractors, the best first; the first of those at hand is taken."""
    parts: str = "scenes"
    """What a film's value is the mean of."""
    scale: float = 1.0
    about: str = ""
    instrument: Callable[[], str] = str
    """What it is measured with, where that is no extractor."""


Scenes = Sequence[Features]
"""Scene features [S, D] of each film."""


@dataclass(frozen=True, slots=True)
class SetMetric:
    """A number for a set of films as a whole.

    `statistic` takes the scenes of every film, the films to count by their indices (each perhaps more than once), and features [N, D] of
    reference scenes. `missing`: the reason why there is no number, or "".
    """

    name: str
    title: str
    unit: str
    better: Better
    statistic: Callable[[Scenes, Sequence[int], Features | None], float]
    missing: Callable[[Scenes, Features | None], str]
    needs: tuple[Need, ...] = ()
    prefers: tuple[str, ...] = ()
    parts: str = "scenes"
    scale: float = 1.0
    about: str = ""
    needs_reference: bool = False
    lowest: float = -math.inf
    """No value is below it, and so no end of an interval."""


Metric = FilmMetric | SetMetric
