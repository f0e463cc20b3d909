"""Transition deviation: how far the cuts that were found lie from those that were asked for.

Mean |found − asked| in frames, over matched cuts only; what was missed counts in SCA. Source: as in ShotStream (2026) and its predecessors.
"""

from mask2dit.cuts import detector
from mask2dit.evaluation.facts import FilmFacts, Value
from mask2dit.evaluation.metrics.base import FilmMetric
from mask2dit.evaluation.metrics.shot_cut_accuracy import NOT_ASKED


def _measure(film: FilmFacts, extractor: str) -> Value:
    check = film.look.check
    if film.look.cuts_are == "detected":
        return Value(None, reason=NOT_ASKED)
    if not check.asked:
        return Value(None, reason="one scene: no cut was asked for")
    return Value.mean(map(abs, check.deviations), "none of the asked cuts was found")


METRIC = FilmMetric(
    "transition-deviation",
    "Transition deviation",
    "frames",
    "lower",
    _measure,
    parts="cuts",
    instrument=lambda: str(detector()),
    about="mean distance of matched cuts from where they were asked for",
)
