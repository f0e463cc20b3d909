"""Short calls are repeated within a round, and one that fails late ends only itself."""

from collections.abc import Callable
from itertools import groupby

import pytest
import torch

from mask2dit.benchmarking.measuring import MOST_REPEATS, Measured, describe, measure

CPU = torch.device("cpu")


class Paper:
    def __init__(self) -> None:
        self.steps = 0

    def start(self, stage: str, total: int) -> None: ...

    def step(self) -> None:
        self.steps += 1

    def done(self) -> None: ...


def noting(name: str, seen: list[str]) -> Callable[[], None]:
    return lambda: seen.append(name)


def test_repeats_of_a_short_call_stay_within_its_round() -> None:
    seen: list[str] = []
    measure({name: noting(name, seen) for name in "abc"}, 4, CPU, Paper())
    runs = [(name, len(list(run))) for name, run in groupby(seen)]
    assert [name for name, _ in runs] == list("abc") * 5  # counted once, then four rounds
    assert all(length == MOST_REPEATS for _, length in runs[3:])


def test_a_call_that_fails_in_a_later_round_loses_its_numbers_and_is_not_called_again() -> None:
    seen: list[str] = []

    def fails_later() -> None:
        seen.append("late")
        if len(seen) > 2 * MOST_REPEATS:
            raise ValueError("worn out")

    progress = Paper()
    found = measure({"late": fails_later, "good": noting("good", [])}, 4, CPU, progress)
    assert (found["late"].seconds, found["late"].problem) == ((), "failed: worn out")
    assert len(seen) == 2 * MOST_REPEATS + 1 and progress.steps == 2 * 5
    assert len(found["good"].seconds) == 4 and found["good"].problem is None
    assert found["good"].over(found["late"]) is None and found["late"].over(found["good"]) is None


def test_what_is_counted() -> None:
    key, value = torch.zeros(1000), torch.zeros(500)

    def call() -> None:
        torch.cat([key[:100], value[:50]])
        key.view(10, 100)  # no copy
        torch.zeros(7)  # of neither

    found = measure({"call": call, "unseen": call}, 1, CPU, Paper(), (key, value), uncounted=("unseen",))
    assert (found["call"].copied_bytes, found["call"].calls) == (4 * 150, 0)
    assert (found["unseen"].copied_bytes, found["unseen"].calls, found["unseen"].peak_bytes) == (None, None, None)
    assert measure({"call": call}, 1, CPU, Paper())["call"].copied_bytes is None  # nothing was watched


@pytest.mark.parametrize("seconds", [(3.0,), (5.0, 1.0, 3.0), (2.0, 4.0, 1.0, 9.0)])
def test_medians(seconds: tuple[float, ...]) -> None:
    found = Measured(seconds)
    assert found.median == 3.0
    assert found.over(Measured(tuple(each / 7 for each in seconds))) == pytest.approx(7)


def test_what_an_error_says_is_one_short_line() -> None:
    assert describe(RuntimeError("a\n  b")) == "failed: a b" and describe(KeyError()) == "failed: KeyError"
    assert len(describe(RuntimeError("long " * 100))) <= len("failed: ") + 120
    assert describe(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate")) == "out of memory"
