"""Names of devices and number formats, as they are typed."""

import os
from pathlib import Path
from typing import TYPE_CHECKING

from mask2dit.errors import InputError, one_line

if TYPE_CHECKING:
    import torch

CGROUP_LIMITS = Path("/sys/fs/cgroup/cpu.max")
DTYPES = ("float32", "bfloat16", "float16")


def checked_device(name: str | None) -> str:
    """The device to use: None is a CUDA device if there is one, else the CPU. Imports torch."""
    import torch

    if name is None:
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(1, device=name).cpu()
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = "no such device" if str(error).startswith("Expected one of") else one_line(error, 80)
        raise InputError(f"--device: got {name!r}, expected one that works here, such as cpu ({reason}); leave it out") from None
    return name


def checked_dtype(name: str | None) -> "torch.dtype | None":
    """The number format to compute in; None leaves the choice to the loader. Imports torch."""
    import torch

    if name is None:
        return None
    if name not in DTYPES:
        raise InputError(f"--dtype: got {name!r}, expected {', '.join(DTYPES[:-1])} or {DTYPES[-1]}; leave it out to have one chosen")
    return {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}[name]


def use_all_cores() -> None:
    """Compute with as many threads as there are cores for this process, where nobody has said how many. Imports torch.

    torchrun says 1 to each of several processes by itself, so a 1 that a person has said to them is not heeded; other numbers are.
    Torch counts the machine's cores; a container that may use two of 64 would be slowed down by 64 threads.
    """
    import torch

    said, own = os.environ.get("OMP_NUM_THREADS"), max(1, usable_cores() // processes_here())
    if said is None:
        torch.set_num_threads(min(torch.get_num_threads(), own))
    elif said == "1" and processes_here() > 1:  # torchrun says so by itself
        torch.set_num_threads(own)


def started_together() -> dict[str, int]:
    """What torchrun, or who starts processes as it does, says to each of several: RANK, WORLD_SIZE and so on; nothing to one alone."""
    try:
        said = {name: int(os.environ[name]) for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")}
    except (KeyError, ValueError):  # half of it is other people's
        return {}
    return said if said["WORLD_SIZE"] > 1 and "MASTER_ADDR" in os.environ else {}


def processes_here() -> int:
    """How many processes of this machine were started together."""
    return max(1, started_together().get("LOCAL_WORLD_SIZE", 1))


def wait_briefly() -> None:
    """Let torch's threads wait awake for some microseconds only, where nobody has said how; call before the first import of torch.

    Waiting awake for long, they take the core from the one that is waited for as soon as anything else runs: beside two busy programs the
    built-in film takes 26 s so, and 16 s like this; asleep at once, its denoising takes 1.4 times as long where nothing else runs
    (`benchmarks/film.py`, with `--busy` and without; two cores).
    """
    if not {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT"} & os.environ.keys():
        os.environ.update(OMP_WAIT_POLICY="PASSIVE", GOMP_SPINCOUNT="3000")  # the second is GNU's, and goes before the first


def usable_cores(limits: Path = CGROUP_LIMITS) -> int:
    """Cores that this process may use: those it is bound to, and what its container grants (Linux's cgroup v2)."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = limits.read_text(encoding="ascii").split()
        return max(1, min(cores, int(int(quota) / int(period))))
    except (OSError, ValueError):  # none, or "max": no limit
        return cores


def free_bytes(device: "torch.device | None") -> int:
    """Memory that is free on a device; None is main memory. Imports torch."""
    import psutil
    import torch

    if device is not None and device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    return int(psutil.virtual_memory().available)


def cache_folder() -> Path:
    """Where this package keeps what it can make again."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mask2dit"
