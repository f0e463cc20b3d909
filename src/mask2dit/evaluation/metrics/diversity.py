"""Diversity: how much the films of a set differ. Beside every consistency, for a generator that always makes one film is consistent.

1 − the mean cosine between the features of scenes of different films. Source: the usual mean pairwise distance; ours takes pairs across
films only.
"""

from collections.abc import Sequence

import numpy as np

from mask2dit.evaluation.facts import Features, FilmFacts
from mask2dit.evaluation.metrics.base import VIDEO, SetMetric, SetValue
from mask2dit.evaluation.statistics import statistic_interval


def diversity(films: Sequence[Features]) -> float:
    """Of the scene features [S, D] of each of at least two films."""
    # The mean cosine of all pairs across films, by sums: of everything with everything, less each film with itself.
    with np.errstate(invalid="ignore", divide="ignore"):
        units = [np.asarray(film, np.float64) / np.linalg.norm(film, axis=1, keepdims=True) for film in films]
    sums = np.stack([film.sum(axis=0) for film in units])
    counts = np.array([len(film) for film in units], np.float64)
    across = float(sums.sum(axis=0) @ sums.sum(axis=0) - (sums * sums).sum())
    num_pairs = counts.sum() ** 2 - (counts * counts).sum()
    return float(1 - across / num_pairs)


def _measure(films: Sequence[FilmFacts], extractor: str, reference: Features | None) -> SetValue:
    scenes = [film.scenes[extractor] for film in films]
    if len(scenes) < 2:
        return SetValue(None, num_films=len(scenes), reason="one film: there is no other to differ from")
    value = diversity(scenes)

    def of_films(drawn: Sequence[int]) -> float:
        distinct = sorted(set(drawn))  # a film drawn twice would differ from itself by nothing
        return diversity([scenes[index] for index in distinct]) if len(distinct) > 1 else float("nan")

    return SetValue(value, statistic_interval(value, len(scenes), of_films), len(scenes), sum(map(len, scenes)))


METRIC = SetMetric(
    "diversity",
    "Diversity between films",
    "%",
    "neither",
    _measure,
    needs=("scene",),
    prefers=VIDEO,
    scale=100,
    about="1 − mean cosine between scenes of different films",
)
