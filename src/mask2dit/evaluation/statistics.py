"""Intervals: how far a mean, or any statistic of a set of films, would move with other films.

By the bootstrap: films are resampled, never scenes, for the scenes of a film are not independent of each other. Source: Efron and
Tibshirani, An Introduction to the Bootstrap, chapters 13 (percentiles) and 10 (bias). Draws have a fixed seed.
Below ten films percentiles are too narrow: a mean then has Student's interval, and other statistics have none below five.
"""

import math
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

RESAMPLES = 2000
LEVEL = 0.95
SEED = 0
FEWEST = 5
STUDENT = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306)  # 97.5 % quantiles for 1, 2 … 8 degrees of freedom

Interval = tuple[float, float]


def mean_interval(values: ArrayLike) -> Interval | None:
    """The 95 % interval of the mean of values [N]; None for fewer than two."""
    array = np.asarray(values, np.float64)
    if len(array) < 2:
        return None
    if len(array) <= len(STUDENT) + 1:
        half = STUDENT[len(array) - 2] * float(array.std(ddof=1)) / math.sqrt(len(array))
        return float(array.mean()) - half, float(array.mean()) + half
    means = array[_draws(len(array), RESAMPLES)].mean(axis=1)
    return _quantiles(means)


def paired_interval(ones: ArrayLike, others: ArrayLike) -> Interval | None:
    """The interval of the mean of ones − others [N], pair by pair; None for fewer than two pairs."""
    return mean_interval(np.asarray(ones, np.float64) - np.asarray(others, np.float64))


def statistic_interval(value: float, count: int, of_films: Callable[[Sequence[int]], float], resamples: int = 200) -> Interval | None:
    """The interval of a statistic that drawing films again shifts, such as a Fréchet distance; None for fewer than five films.

    value: the statistic of all films. of_films: the statistic of some, by their indices, each perhaps more than once. The quantiles of the
    resampled statistic are moved by its bias, mean minus `value`.
    """
    if count < FEWEST:
        return None
    found = np.array([of_films(drawn.tolist()) for drawn in _draws(count, resamples)])
    found = found[np.isfinite(found)]
    if len(found) < 2:
        return None
    return _quantiles(found - (found.mean() - value))


def _draws(count: int, resamples: int) -> NDArray[np.int64]:
    return np.random.default_rng([SEED, count]).integers(count, size=(resamples, count))


def _quantiles(values: NDArray[np.float64]) -> Interval:
    low, high = np.quantile(values, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)
