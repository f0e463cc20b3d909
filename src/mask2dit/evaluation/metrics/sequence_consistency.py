"""Sequence consistency: a film's visual and semantic consistency in one number.

Their mean. Source: Mask²DiT (CVPR 2025), table 1, all of whose rows it reproduces; the text does not give the formula.
"""

from mask2dit.evaluation.facts import FilmFacts, Value
from mask2dit.evaluation.metrics import semantic_consistency, visual_consistency
from mask2dit.evaluation.metrics.base import VIDEO, FilmMetric


def sequence_consistency(visual: Value, semantic: Value) -> Value:
    """The mean of both; none where one of them is missing."""
    if visual.value is None or semantic.value is None:
        return Value(None, reason=visual.reason or semantic.reason)
    return Value((visual.value + semantic.value) / 2, visual.count + semantic.count)


def _measure(film: FilmFacts, extractor: str) -> Value:
    return sequence_consistency(visual_consistency.METRIC.measure(film, extractor), semantic_consistency.METRIC.measure(film, extractor))


METRIC = FilmMetric(
    "sequence-consistency",
    "Sequence consistency",
    "%",
    "higher",
    _measure,
    needs=("scene", "text"),
    prefers=VIDEO,
    parts="pairs and scenes",
    scale=100,
    about="mean of visual and semantic consistency",
)
