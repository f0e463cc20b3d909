"""Timing by interleaved rounds, and what a call makes on the way: attention calls, copies of keys and values, memory.

Rounds are interleaved (every call once, then every call again), so that whatever else the machine does meets all of them alike; medians
and ratios are taken over rounds. A call that fails does not end the others: what it said stands in the place of its numbers.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from math import ceil
from statistics import median
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from mask2dit.errors import is_out_of_memory, one_line
from mask2dit.footprint import Living

LONG_ENOUGH = 0.02  # seconds: shorter calls are repeated within a round, for clocks and interruptions weigh too much there
MOST_REPEATS = 50
AGAIN = "again"  # the name of a call that is measured twice, to tell noise
SLOW = 0.5  # seconds: a call that took so long when it was counted is warm

Call = Callable[[], Any]


class Progress(Protocol):
    """Who shows how far it is."""

    def start(self, stage: str, total: int) -> None:
        """A stage of `total` steps begins."""

    def step(self) -> None:
        """One step is done."""

    def done(self) -> None:
        """The stage is done."""


@dataclass(frozen=True, slots=True)
class Measured:
    """Seconds of one call in every round, or why there are none.

    `calls`: of attention kernels; `copied_bytes`: of keys and values; both None where they were not counted. `peak_bytes`: of what the call
    makes, at the fullest moment: told by the allocator on CUDA, and by the tensors that are alive elsewhere.
    """

    seconds: tuple[float, ...] = ()
    problem: str | None = None
    calls: int | None = None
    copied_bytes: int | None = None
    peak_bytes: int | None = None

    @property
    def median(self) -> float | None:
        """Median over the rounds."""
        return median(self.seconds) if self.seconds else None

    def over(self, other: "Measured") -> float | None:
        """Median over the rounds of how often the other's time this one takes."""
        if not self.seconds or not other.seconds:
            return None
        return median(mine / theirs for mine, theirs in zip(self.seconds, other.seconds, strict=False))


def fastest(found: Mapping[str, Measured]) -> str | None:
    """The name of the one with the least median; None where nothing was measured."""
    medians = {name: each.median for name, each in found.items() if each.median}
    return min(medians, key=medians.__getitem__, default=None)


def noise_of(one: Measured, other: Measured | None) -> float | None:
    """How far two measurements of the same call are from each other, as a ratio of at least 1."""
    ratio = one.over(other) if other else None
    return None if ratio is None else max(ratio, 1 / ratio)


def measure(
    calls: Mapping[str, Call],
    rounds: int,
    device: torch.device,
    progress: Progress,
    watched: Sequence[Tensor] = (),
    uncounted: Sequence[str] = (),
) -> dict[str, Measured]:
    """Count every call once, then time all of them in interleaved rounds; `rounds` + 1 steps of progress for each.

    watched: the keys and values whose copies are counted. uncounted: names of calls in which torch must not be watched, as
    they are compiled.
    """
    counts: dict[str, Measured] = {}
    repeats: dict[str, int] = {}
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for name, call in calls.items():
        counts[name], repeats[name] = _attempt(partial(_count, call, device, watched, name not in uncounted), device)
        progress.step()
    for _ in range(rounds):
        for name, call in calls.items():
            if counts[name].problem is None:
                taken = _attempt(partial(_timed, call, device, repeats[name]), device)[0]
                seconds[name] += taken.seconds
                if taken.problem:
                    counts[name] = taken
            progress.step()
    return {name: replace(found, seconds=() if found.problem else tuple(seconds[name])) for name, found in counts.items()}


def _attempt(call: Callable[[], tuple[Measured, int]], device: torch.device) -> tuple[Measured, int]:
    """What the call returns, or what it failed with."""
    try:
        return call()
    except Exception as error:  # kernels, compilers and allocators each have errors of their own
        problem = describe(error)
    if device.type == "cuda":
        torch.cuda.empty_cache()  # here, and not above: the error keeps what the call had made
    return Measured(problem=problem), 1


def describe(error: Exception) -> str:
    """What a failed call says, in a few words."""
    return "out of memory" if is_out_of_memory(error) else f"failed: {one_line(error, 120) or type(error).__name__}"


def _count(call: Call, device: torch.device, watched: Sequence[Tensor], is_counted: bool) -> tuple[Measured, int]:
    """A first call under watch, and how often it is to be repeated in a round."""
    counting = Counting(watched)
    before = 0
    if device.type == "cuda":
        synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
    began = time.perf_counter()
    if is_counted:
        with counting:
            call()
    else:
        call()
    synchronize(device)
    taken = time.perf_counter() - began
    peak = torch.cuda.max_memory_allocated(device) - before if device.type == "cuda" else counting.peak_bytes if is_counted else None
    if taken < SLOW or not is_counted:
        taken = min(_seconds(call, device) for _ in range(2))
    repeats = max(1, min(MOST_REPEATS, ceil(LONG_ENOUGH / max(taken, 1e-9))))
    calls, copied = (counting.calls, counting.copied_bytes) if is_counted and watched else (None, None)
    return Measured((), None, calls, copied, peak), repeats


def _timed(call: Call, device: torch.device, repeats: int) -> tuple[Measured, int]:
    return Measured((_seconds(call, device, repeats),)), repeats


def _seconds(call: Call, device: torch.device, repeats: int = 1) -> float:
    """Of one call, by the mean of `repeats`."""
    clock = time.process_time if uses_processor_time(device) else time.perf_counter
    synchronize(device)
    began = clock()
    for _ in range(repeats):
        call()
    synchronize(device)
    return (clock() - began) / repeats


def uses_processor_time(device: torch.device) -> bool:
    """Whether seconds are those of the processor, which leave out what other programs took of it: only one thread makes them the same."""
    return device.type == "cpu" and torch.get_num_threads() == 1


def left_out(taking: float, limit: float) -> str:
    """Why something was not measured."""
    return f"left out: about {taking:.2g} s, where all may take {limit:.0f}; take fewer --rounds or --scenes, or leave out --quick"


def seconds_of(call: Call, device: torch.device, rounds: int) -> list[float]:
    """Of a call, once it has been made, in each round."""
    call()
    repeats = max(1, min(MOST_REPEATS, ceil(LONG_ENOUGH / max(_seconds(call, device), 1e-9))))
    return [_seconds(call, device, repeats) for _ in range(rounds)]


def median_seconds(call: Call, device: torch.device, rounds: int) -> float:
    """Of a call, once it has been made."""
    return median(seconds_of(call, device, rounds))


def synchronize(device: torch.device) -> None:
    """Wait till the device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


class Counting(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Attention kernels called, bytes copied of the watched tensors, and bytes of all tensors made that are alive at once."""

    def __init__(self, watched: Sequence[Tensor] = ()) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.calls = self.copied_bytes = 0
        self._living = Living()
        self._watched = {each.untyped_storage()._cdata for each in watched}

    @property
    def peak_bytes(self) -> int:
        """Of all tensors made, at the fullest moment."""
        return self._living.peak_bytes

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None) -> Any:
        outcome = func(*args, **(kwargs or {}))
        is_attention = "attention" in func.name()
        self.calls += is_attention and "backward" not in func.name()
        if any(value.alias_info is not None for value in func._schema.returns):
            return outcome  # a view, or a change in place
        is_copy = not is_attention and any(_storage(each) in self._watched for each in tree_leaves((args, kwargs)))
        for value in tree_leaves(outcome):
            if isinstance(value, Tensor):
                self._living.add(value.untyped_storage())
                self.copied_bytes += value.nbytes if is_copy else 0
        return outcome


def _storage(value: Any) -> int | None:
    return value.untyped_storage()._cdata if isinstance(value, Tensor) else None
