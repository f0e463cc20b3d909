"""What the time of a call goes into: attention, linear layers, and the rest."""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from statistics import median
from typing import Any

import torch
from torch.autograd import DeviceType  # type: ignore[attr-defined]
from torch.profiler import ProfilerActivity, profile

LINEAR = ("aten::mm", "aten::addmm", "aten::bmm", "aten::baddbmm", "aten::cudnn_convolution", "aten::mkldnn_convolution")


@dataclass(frozen=True, slots=True)
class Times:
    """Seconds. `linear`: matrix products outside of attention; `rest`: norms, modulation, positions, activations, copies."""

    attention: float = 0.0
    linear: float = 0.0
    rest: float = 0.0

    def scaled(self, outside: "Times", factor: float) -> "Times":
        """What is not outside, times a factor, and what is outside."""
        pairs = ((self.attention, outside.attention), (self.linear, outside.linear), (self.rest, outside.rest))
        return Times(*(least + max(0.0, whole - least) * factor for whole, least in pairs))

    def within(self, seconds: float) -> "Times":
        """The same shares of a whole that was measured otherwise."""
        return Times(**{kind: share * seconds for kind, share in self.shares.items()})

    @property
    def shares(self) -> dict[str, float]:
        """Of the whole."""
        whole = self.attention + self.linear + self.rest
        return {"attention": self.attention / whole, "linear": self.linear / whole, "rest": self.rest / whole} if whole else {}


def profiled(call: Callable[[], Any], device: torch.device, rounds: int) -> Times:
    """Medians over the rounds, of a call that was made before. On CUDA, of the device."""
    found = [_profiled(call, device) for _ in range(rounds)]
    return Times(*(median(getattr(each, kind.name) for each in found) for kind in fields(Times)))


def _profiled(call: Callable[[], Any], device: torch.device) -> Times:
    is_cuda = device.type == "cuda"
    with _silent(), profile(activities=[ProfilerActivity.CPU] + ([ProfilerActivity.CUDA] if is_cuda else [])) as record:
        call()
        if is_cuda:
            torch.cuda.synchronize(device)
    sums = {"attention": 0.0, "linear": 0.0, "rest": 0.0}
    for event in record.key_averages():
        if event.device_type == DeviceType.CPU:  # kernels are events of their own, but stand with what started them, too
            sums[_kind(event.key)] += (event.self_device_time_total if is_cuda else event.self_cpu_time_total) / 1e6
    return Times(**sums)


@contextmanager
def _silent() -> Iterator[None]:
    """The profiler says on stderr, below Python, that it starts and stops."""
    sys.stderr.flush()
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def _kind(name: str) -> str:
    return "attention" if "attention" in name else "linear" if name in LINEAR else "rest"
