"""Transition confidence: how sure the detector is of a cut at each place where one was asked for.

1 − 1 / r, r being the change of the picture at the asked frame over the mean change just before and after it (`cuts.cut_confidence`): 0 for
no cut, towards 1 for a sudden one between still pictures; the detector calls it a cut from 0.6 on. The mean over asked cuts
with two frames and more on either side: beside a single frame it cannot say. Our own
definition of the detector's score at the asked cut: published ones use other detectors and are not comparable.
"""

from mask2dit.cuts import detector
from mask2dit.evaluation.facts import FilmFacts, Value
from mask2dit.evaluation.metrics.base import FilmMetric
from mask2dit.evaluation.metrics.shot_cut_accuracy import NOT_ASKED


def _measure(film: FilmFacts, extractor: str) -> Value:
    if film.look.cuts_are == "detected":
        return Value(None, reason=NOT_ASKED)
    if not film.look.check.asked:
        return Value(None, reason="one scene: no cut was asked for")
    sure = [each for each in film.look.check.confidences if each is not None]
    return Value.mean(sure, "beside every asked cut is a scene of one frame")


METRIC = FilmMetric(
    "transition-confidence",
    "Transition confidence",
    "",
    "higher",
    _measure,
    parts="cuts",
    instrument=lambda: str(detector()),
    about="the detector's score at the asked cuts, 0 to 1",
)
