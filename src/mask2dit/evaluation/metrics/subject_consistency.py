"""Intra-scene subject consistency: whether what a scene shows stays itself from picture to picture.

1 / (T − 1) · Σ_{t≥2} (cos(f_1, f_t) + cos(f_{t−1}, f_t)) / 2 over the pictures of a scene, cosines below 0 counting as 0, then the mean
over scenes; features by DINO. Source: VBench (CVPR 2024), supplementary section on subject consistency. Pictures are taken eight a second
(`looking`), where VBench takes every frame.
"""

from mask2dit.evaluation.facts import Features, FilmFacts, Value, cosines
from mask2dit.evaluation.metrics.base import SUBJECT, FilmMetric

ONE_PICTURE = "no scene has two pictures"


def steadiness(pictures: Features) -> float | None:
    """Of a scene's picture features [T, D]: with the first and with the previous picture; None for one picture."""
    if len(pictures) < 2:
        return None
    with_first = cosines(pictures[1:], pictures[:1].repeat(len(pictures) - 1, axis=0)).clip(0)
    with_previous = cosines(pictures[1:], pictures[:-1]).clip(0)
    return float((with_first + with_previous).mean() / 2)


def _measure(film: FilmFacts, extractor: str) -> Value:
    found = [steadiness(pictures) for pictures in film.pictures[extractor]]
    return Value.mean([value for value in found if value is not None], ONE_PICTURE)


METRIC = FilmMetric(
    "subject-consistency",
    "Subject consistency in a scene",
    "%",
    "higher",
    _measure,
    needs=("frame",),
    prefers=SUBJECT,
    scale=100,
    about="mean cosine of a scene's pictures with the first and the previous one",
)
