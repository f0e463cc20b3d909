"""The machine: what it is, and what it can do at best: how fast it multiplies matrices and copies memory, measured in the same run."""

import os
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil
import torch
from torch.nn.functional import linear

from mask2dit.benchmarking.measuring import Progress, median_seconds, seconds_of, uses_processor_time
from mask2dit.errors import is_out_of_memory

MOST_TOKENS = 16384  # of a matrix product
SQUARES = (512, 1024, 2048)  # widths of products beside those of the model's feed-forward
COPIED_BYTES = {"cpu": 2**27, "cuda": 2**30}  # of the copy: far more than caches hold
SPREAD = 0.05  # of random numbers: nothing overflows, and nothing is so small that the processor slows down
LONG = 0.05  # seconds of a product that is long enough to tell the rate


@dataclass(frozen=True, slots=True)
class Machine:
    """`load`: processes that wanted a core in the last minute, before anything was measured; None where the system does not tell.

    `clock`: what all seconds are of.
    """

    device: str
    name: str
    memory_gib: float
    processor: str
    cores: int
    threads: int
    load: float | None
    clock: str
    system: str
    python: str
    torch: str
    dtype: str
    matmul_flop_per_second: float
    copied_bytes_per_second: float
    """Read and written."""


def describe_machine(device: torch.device, dtype: torch.dtype, width: int, rounds: int, progress: Progress) -> Machine:
    """Measure the rates; width: of the model, whose feed-forward is among the matrix products."""
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    progress.start("machine", 2)
    matmul = matmul_rate(device, dtype, width, rounds)
    progress.step()
    copy = _copy_rate(device, rounds)
    progress.step()
    progress.done()
    is_cuda = device.type == "cuda"
    return Machine(
        device=device.type,
        name=torch.cuda.get_device_name(device) if is_cuda else _processor(),
        memory_gib=round((torch.cuda.get_device_properties(device).total_memory if is_cuda else psutil.virtual_memory().total) / 2**30, 1),
        processor=_processor(),
        cores=os.cpu_count() or 1,
        threads=torch.get_num_threads(),
        load=None if load is None else round(load, 2),
        clock="processor" if uses_processor_time(device) else "wall",
        system=f"{platform.system()} {platform.machine()}",
        python=platform.python_version(),
        torch=torch.__version__,
        dtype=str(dtype).removeprefix("torch."),
        matmul_flop_per_second=matmul,
        copied_bytes_per_second=copy,
    )


@torch.no_grad()
def matmul_rate(device: torch.device, dtype: torch.dtype, width: int, rounds: int) -> float:
    """FLOP per second of matrix products at their best: of the feed-forward's two and of square ones, with enough tokens, the fastest."""
    shapes = ((4 * width, width), (width, 4 * width), *((square, square) for square in SQUARES))
    return max(_product_rate(device, dtype, shape, rounds) for shape in shapes)


def _product_rate(device: torch.device, dtype: torch.dtype, shape: Sequence[int], rounds: int) -> float:
    weight = torch.empty(*shape, device=device, dtype=dtype).uniform_(-SPREAD, SPREAD)
    count = 256
    while True:
        tokens = torch.empty(count, shape[1], device=device, dtype=dtype).uniform_(-SPREAD, SPREAD)
        once = median_seconds(lambda tokens=tokens: linear(tokens, weight), device, 1)  # type: ignore[misc]
        if once >= LONG or count >= MOST_TOKENS:
            return 2 * count * weight.numel() / min(seconds_of(lambda tokens=tokens: linear(tokens, weight), device, rounds))  # type: ignore[misc]
        count *= 2


def _copy_rate(device: torch.device, rounds: int) -> float:
    count = COPIED_BYTES.get(device.type, COPIED_BYTES["cpu"])
    while True:
        try:
            source = torch.zeros(count, dtype=torch.uint8, device=device)
            target = torch.empty_like(source)
            return 2 * count / median_seconds(lambda target=target, source=source: target.copy_(source), device, rounds)  # type: ignore[misc]
        except RuntimeError as error:
            if not is_out_of_memory(error) or count < 2**20:
                raise
        count //= 4


def _processor() -> str:
    """Its name, as the system tells it."""
    table = Path("/proc/cpuinfo")
    lines = table.read_text(encoding="utf-8", errors="replace").splitlines() if table.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
