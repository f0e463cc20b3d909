"""What a metric is: a name, a unit, what it needs, and a function of one film or of a whole set."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from mask2dit.evaluation.facts import Features, FilmFacts, Value
from mask2dit.evaluation.statistics import Interval

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


@dataclass(frozen=True, slots=True)
class SetValue:
    """A number for a set, its interval, and of how many films and parts it was taken."""

    value: float | None
    interval: Interval | None = None
    num_films: int = 0
    count: int = 0
    reason: str = ""


@dataclass(frozen=True, slots=True)
class SetMetric:
    """A number for a set of films as a whole. `measure` takes the films, the extractor's name, and features [N, D] of reference scenes."""

    name: str
    title: str
    unit: str
    better: Better
    measure: Callable[[Sequence[FilmFacts], str, Features | None], SetValue]
    needs: tuple[Need, ...] = ()
    prefers: tuple[str, ...] = ()
    parts: str = "scenes"
    scale: float = 1.0
    about: str = ""
    needs_reference: bool = False


Metric = FilmMetric | SetMetric
