"""Ray, found and connected to: a cluster, or one on this machine for as long as a command takes. Who works at what is decided elsewhere."""

import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mask2dit.errors import InputError, one_line

OBJECT_STORE_BYTES = 80 * 2**20  # next to the least that Ray takes: only names and numbers pass through it
QUIET = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}


def imported_ray() -> Any:
    """The library, which is an extra. Raises InputError without it."""
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    try:
        import ray
    except ImportError:
        raise InputError("--ray: needs Ray, which is not installed; pip install 'mask2dit[ray]'") from None
    return ray


@contextmanager
def connected(ray: Any, address: str | None, workers: int | None) -> Iterator[None]:
    """Use the Ray that runs in this process, or connect to a cluster, or start one here and take it away with its files.

    address: of a cluster; None for the one that RAY_ADDRESS names, else for one on this machine. Raises InputError.
    """
    if ray.is_initialized():
        yield
        return
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
    address, folder = address or os.environ.get("RAY_ADDRESS"), None
    if address is None:
        folder = tempfile.mkdtemp(prefix="mask2dit-ray-", dir="/tmp" if Path("/tmp").is_dir() else None)  # a socket's name has to be short
        slots = max(len(os.sched_getaffinity(0)), workers or 1)
        options |= {"num_cpus": slots, "include_dashboard": False, "object_store_memory": OBJECT_STORE_BYTES, "_temp_dir": folder}
    try:
        try:
            ray.init(address, **options)
        except (OSError, RuntimeError, ValueError) as error:
            where = f"the cluster at {address}" if address else "Ray on this machine"
            raise InputError(f"--ray: {where} cannot be used ({one_line(error)}); check it with `ray status`, or leave --ray out") from None
        yield
    finally:
        ray.shutdown()
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)


def resources(ray: Any, kind: str) -> list[int]:
    """How many of a kind, GPU or CPU, each machine has."""
    return [int(node["Resources"].get(kind, 0)) for node in ray.nodes() if node["Alive"]]


def open_workers(ray: Any, workers: int | None, tasks: int) -> tuple[int, dict[str, int]]:
    """How many workers for so many tasks, and what each needs: a GPU where there are any, else a share of the CPUs."""
    gpus, cpus = resources(ray, "GPU"), resources(ray, "CPU")
    count = max(1, min(tasks, workers or sum(gpus) or sum(cpus)))
    return (count, {"num_gpus": 1, "num_cpus": 0}) if any(gpus) else (count, {"num_cpus": share(cpus, count)})


def share(cpus: Sequence[int], workers: int) -> int:
    """The most CPUs that each of so many workers can have on machines with so many."""
    return next((size for size in range(max(1, *cpus), 0, -1) if sum(count // size for count in cpus) >= workers), 1)
