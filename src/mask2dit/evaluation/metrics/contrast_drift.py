"""Contrast drift: how far the contrast of a film wanders from that of its first scene.

|difference| of the mean standard deviation of lightness (CIELAB L*, 0 to 100) of a scene from the first one's, the mean over all scenes but
the first. Repeated extension is known to raise it.
"""

from mask2dit.evaluation.facts import FilmFacts, Value
from mask2dit.evaluation.metrics.base import FilmMetric
from mask2dit.evaluation.metrics.colour_drift import colour_instrument


def _measure(film: FilmFacts, extractor: str) -> Value:
    return Value.mean([abs(scene.contrast_drift) for scene in film.look.check.scenes[1:]], "one scene: nothing to compare with the first")


METRIC = FilmMetric(
    "contrast-drift",
    "Contrast drift",
    "L*",
    "neither",
    _measure,
    instrument=colour_instrument,
    about="of a scene's spread of lightness from the first scene's",
)
