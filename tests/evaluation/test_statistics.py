"""Intervals cover what they should, and do not depend on anything but the values."""

import numpy as np
import pytest

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


def test_one_value_has_no_interval() -> None:
    assert mean_interval([1.0]) is None and paired_interval([1.0], [2.0]) is None
    assert statistic_interval(1.0, 1, lambda drawn: 1.0) is None


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
