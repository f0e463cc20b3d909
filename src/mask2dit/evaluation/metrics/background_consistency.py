"""Intra-scene background consistency: whether the surroundings of a scene stay themselves from picture to picture.

The formula of subject consistency with features by CLIP, which describe a picture as a whole. Source: VBench (CVPR 2024), supplementary
section on background consistency.
"""

from mask2dit.evaluation.facts import FilmFacts, Value
from mask2dit.evaluation.metrics.base import BACKGROUND, FilmMetric
from mask2dit.evaluation.metrics.subject_consistency import ONE_PICTURE, steadiness


def _measure(film: FilmFacts, extractor: str) -> Value:
    found = [steadiness(pictures) for pictures in film.pictures[extractor]]
    return Value.mean([value for value in found if value is not None], ONE_PICTURE)


METRIC = FilmMetric(
    "background-consistency",
    "Background consistency in a scene",
    "%",
    "higher",
    _measure,
    needs=("frame",),
    prefers=BACKGROUND,
    scale=100,
    about="the same with features of the picture as a whole",
)
