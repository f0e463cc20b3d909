"""Diversity: how much the films of a set differ. Beside every consistency, for a generator that always makes one film is consistent.

1 − the mean cosine between the features of scenes of different films. Source: the usual mean pairwise distance; ours takes pairs across
films only.
"""

from collections import Counter
from collections.abc import Sequence

import numpy as np

from mask2dit.evaluation.facts import Features
from mask2dit.evaluation.metrics.base import VIDEO, Scenes, SetMetric


def diversity(films: Scenes, drawn: Sequence[int] | None = None) -> float:
    """Of the scene features [S, D] of each film. drawn: films that count, by index, as often as they are there; None: each once.

    A film that counts twice is not paired with itself. NaN where fewer than two different films count.
    """
    # The mean cosine of all pairs across films, by sums: of everything with everything, less each film with itself.
    times = Counter(range(len(films)) if drawn is None else drawn)
    sums, counts = [], []
    with np.errstate(invalid="ignore", divide="ignore"):
        for index, weight in times.items():
            units = np.asarray(films[index], np.float64) / np.linalg.norm(films[index], axis=1, keepdims=True)
            sums.append(weight * units.sum(axis=0))
            counts.append(weight * len(units))
        whole, total = np.sum(sums, axis=0), sum(counts)
        num_pairs = np.float64(total**2 - sum(count**2 for count in counts))
        return float(1 - (whole @ whole - sum(each @ each for each in sums)) / num_pairs)


def _statistic(films: Scenes, drawn: Sequence[int], reference: Features | None) -> float:
    return diversity(films, drawn)


def _missing(films: Scenes, reference: Features | None) -> str:
    return "one film: there is no other to differ from" if len(films) < 2 else ""


METRIC = SetMetric(
    "diversity",
    "Diversity between films",
    "%",
    "neither",
    _statistic,
    _missing,
    needs=("scene",),
    prefers=VIDEO,
    scale=100,
    about="1 − mean cosine between scenes of different films",
)
