"""Colour drift: how far the colours of a film wander from those of its first scene.

ΔE (CIE 1976, CIELAB, D65) between the mean colours of a scene and of the first one, the mean over all scenes but the first. Scenes in other
places have other colours by right: read it between generators with the same storyboards, or along the scenes of an extension.
"""

from mask2dit.cuts import COLOUR_SIDE
from mask2dit.evaluation.facts import FilmFacts, Value
from mask2dit.evaluation.metrics.base import FilmMetric


def colour_instrument() -> str:
    """What is looked at."""
    return f"CIELAB of all frames, at most {COLOUR_SIDE} pixels"


def _measure(film: FilmFacts, extractor: str) -> Value:
    return Value.mean([scene.colour_drift for scene in film.look.check.scenes[1:]], "one scene: nothing to compare with the first")


METRIC = FilmMetric(
    "colour-drift",
    "Colour drift",
    "ΔE",
    "neither",
    _measure,
    instrument=colour_instrument,
    about="of a scene's mean colour from the first scene's",
)
