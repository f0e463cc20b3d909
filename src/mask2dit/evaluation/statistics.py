"""Intervals by the bootstrap: how far a mean, or any statistic of a set of films, would move with other films.

Films are resampled, never scenes: the scenes of a film are not independent of each other. Source: Efron and Tibshirani, An Introduction to
the Bootstrap, chapters 13 (percentiles) and 10 (bias). Draws are keyed by a fixed seed, so that equal values have equal intervals.
"""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

RESAMPLES = 2000
LEVEL = 0.95
SEED = 0

Interval = tuple[float, float]


def mean_interval(values: ArrayLike) -> Interval | None:
    """The 95 % percentile interval of the mean of values [N]; None for fewer than two."""
    array = np.asarray(values, np.float64)
    if len(array) < 2:
        return None
    means = array[_draws(len(array), RESAMPLES)].mean(axis=1)
    return _quantiles(means)


def paired_interval(ones: ArrayLike, others: ArrayLike) -> Interval | None:
    """The interval of the mean of ones − others [N], pair by pair; None for fewer than two pairs."""
    return mean_interval(np.asarray(ones, np.float64) - np.asarray(others, np.float64))


def statistic_interval(value: float, count: int, of_films: Callable[[Sequence[int]], float], resamples: int = 200) -> Interval | None:
    """The interval of a statistic that drawing films again makes larger, such as a Fréchet distance; None for fewer than two films.

    value: the statistic of all films. of_films: the statistic of some, by their indices, each perhaps more than once. The quantiles of the
    resampled statistic are moved by its bias, mean minus `value`, and cut off at 0.
    """
    if count < 2:
        return None
    found = np.array([of_films(drawn.tolist()) for drawn in _draws(count, resamples)])
    found = found[np.isfinite(found)]
    if len(found) < 2:
        return None
    low, high = _quantiles(found - (found.mean() - value))
    return max(low, 0.0), max(high, 0.0)


def _draws(count: int, resamples: int) -> NDArray[np.int64]:
    return np.random.default_rng([SEED, count]).integers(count, size=(resamples, count))


def _quantiles(values: NDArray[np.float64]) -> Interval:
    low, high = np.quantile(values, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)
