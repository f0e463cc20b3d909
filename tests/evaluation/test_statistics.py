"""Intervals cover what they should, and do not depend on anything but the values."""

import numpy as np
import pytest

from mask2dit.evaluation.metrics.diversity import diversity
from mask2dit.evaluation.statistics import mean_interval, paired_interval, statistic_interval


def test_the_interval_of_a_mean_is_that_of_the_normal_law() -> None:
    values = np.random.default_rng(1).normal(3.0, 2.0, size=400)
    low, high = mean_interval(values)
    half = 1.96 * values.std(ddof=1) / 20
    assert (low, high) == (pytest.approx(values.mean() - half, abs=0.03), pytest.approx(values.mean() + half, abs=0.03))


def test_intervals_cover_the_truth_about_as_often_as_they_say() -> None:
    random = np.random.default_rng(2)
    hits = 0
    for _ in range(200):
        low, high = mean_interval(random.normal(1.0, 1.0, size=40))
        hits += low <= 1.0 <= high
    assert 0.88 <= hits / 200 <= 0.98


def test_the_same_values_have_the_same_interval() -> None:
    values = [1.0, 4.0, 2.0, 8.0]
    assert mean_interval(values) == mean_interval(values)


def test_few_values_have_students_interval_and_one_has_none() -> None:
    assert mean_interval([1.0]) is None and paired_interval([1.0], [2.0]) is None
    assert mean_interval([1.0, 3.0]) == pytest.approx((2 - 12.706, 2 + 12.706))
    assert mean_interval([1.0, 2.0, 3.0]) == pytest.approx((2 - 4.303 / 3**0.5, 2 + 4.303 / 3**0.5))
    assert statistic_interval(1.0, 4, lambda drawn: 1.0) is None and statistic_interval(1.0, 5, lambda drawn: 1.0) == (1, 1)


def test_the_interval_of_diversity_covers_the_truth() -> None:
    """Directions around a common one, so that the mean cosine across films is 1 / (1 + variance) for many dimensions."""
    random, hits, tries, count = np.random.default_rng(5), 0, 60, 10
    common = np.ones(400)
    truth = 1 - 1 / (1 + 1.0)
    for _ in range(tries):
        films = [common + random.normal(0, 1, 400)[None] * random.uniform(0.7, 1.3) for _ in range(count)]
        value = diversity(films)
        low, high = statistic_interval(value, count, lambda drawn, films=films: diversity(films, drawn), resamples=100)
        hits += low <= truth <= high
    assert hits / tries > 0.7  # the truth is only nearly that of the films drawn


def test_pairs_take_away_what_they_share() -> None:
    random = np.random.default_rng(3)
    shared = random.normal(0, 10, size=50)
    low, high = paired_interval(shared + 1 + random.normal(0, 0.1, 50), shared)
    assert 0.9 < low < 1 < high < 1.1


def test_the_bias_of_drawing_again_is_taken_off() -> None:
    values = np.random.default_rng(4).normal(size=30)

    def smallest(drawn: list[int]) -> float:  # grows when fewer different ones are drawn
        return float(values[drawn].min()) + 10

    whole = smallest(list(range(30)))
    low, high = statistic_interval(whole, 30, smallest)
    assert low <= whole <= high
