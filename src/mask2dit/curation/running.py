"""Where units of work are done: in this process, or on workers through Ray Data. The work is the same, and so are its results.

A unit's results are files of its own, so nothing but the units' names passes through Ray. Ray Data streams the units through its actors and
holds back what these cannot take yet; where there are GPUs, one pool of actors finds shots on the CPUs and another computes features, side
by side. An actor that dies is started again and its unit given to another; a unit that kills its actors is told as a problem, and the rest
goes on.
"""

from __future__ import annotations

import logging
import pickle
import warnings
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

from mask2dit.errors import InputError, Mask2DiTError, one_line
from mask2dit.ray_cluster import connected, imported_ray, resources

U = TypeVar("U")
Told = Callable[[U, str], None]
"""Hears of each unit, as it ends, what went wrong or nothing."""

TRIES = 3


@dataclass(frozen=True)
class Work(Generic[U]):
    """What is done to each unit: steps in order, each of which returns what went wrong, or nothing. To be pickled.

    `on_gpu`: of the last step, whether it wants a GPU where there is one.
    """

    steps: tuple[Callable[[U], str], ...]
    on_gpu: bool = False


class Place(Protocol):
    """Where work is done."""

    def run(self, work: Work[Any], units: Sequence[Any], told: Told[Any]) -> None:
        """Do all units, in any order."""


class Here:
    """In this process, one after the other."""

    def run(self, work: Work[U], units: Sequence[U], told: Told[U]) -> None:
        for unit in units:
            told(unit, _done(work.steps, unit))


class OnRay:
    """On Ray's workers. workers: how many; None for one per CPU of the cluster."""

    def __init__(self, ray: Any, workers: int | None) -> None:
        self._ray, self._workers = ray, workers

    def run(self, work: Work[U], units: Sequence[U], told: Told[U]) -> None:
        left = self._tried(work, units, told)
        if len(left) > 1:  # some of them only waited for a worker that another one killed: each by itself, then
            left = [unit for each in left for unit in self._tried(work, [each], told)]
        for unit in left:
            told(unit, f"the worker that was at it died {TRIES} times; leave the file out, or try it by itself without workers")

    def _tried(self, work: Work[U], units: Sequence[U], told: Told[U]) -> list[U]:
        """The units whose workers died as often as they may."""
        if not units:
            return []
        from ray import data

        _quieten(data)
        cpus, gpus = sum(resources(self._ray, "CPU")), sum(resources(self._ray, "GPU"))
        count = max(1, min(self._workers or cpus, cpus, len(units)))
        pools: list[tuple[tuple[Callable[[U], str], ...], int, dict[str, Any]]] = [(work.steps, count, {"num_cpus": 1})]
        if work.on_gpu and gpus:
            # The pool of the GPUs needs no CPU of its own to be let in.
            pools = [(work.steps[:-1], count, {"num_cpus": 1}), (work.steps[-1:], min(gpus, len(units)), {"num_gpus": 1, "num_cpus": 0})]
        items = [{"index": index, "unit": self._ray.cloudpickle.dumps(unit), "problem": ""} for index, unit in enumerate(units)]
        rows = data.from_items(items, override_num_blocks=len(units))
        for steps, size, needs in pools:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of a name for the number of tries, which has no other
                rows = rows.map(
                    _Actor, fn_constructor_args=(steps,), compute=data.ActorPoolStrategy(size=size), max_task_retries=TRIES - 1, **needs
                )
        left = dict(enumerate(units))
        for row in rows.iter_rows():
            told(left.pop(row["index"]), row["problem"])
        return list(left.values())


class _Actor:
    """What runs in a worker's process; Ray gives it as many threads as CPUs."""

    def __init__(self, steps: Sequence[Callable[[Any], str]]) -> None:
        import cv2

        cv2.setNumThreads(1)
        self._steps = steps

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        return {**row, "problem": row["problem"] or _done(self._steps, pickle.loads(row["unit"]))}


def _done(steps: Iterable[Callable[[U], str]], unit: U) -> str:
    """Until one goes wrong. Whatever it is that a library raises, it is this unit's problem alone."""
    try:
        return next((problem for step in steps if (problem := step(unit))), "")
    except Mask2DiTError as error:
        return one_line(error)
    except Exception as error:
        return f"{type(error).__name__}: {one_line(error)}; leave the file out, or report this"


def place_for(address: str | None, workers: int | None) -> AbstractContextManager[Place]:
    """This process, unless a cluster's address or several workers are asked for; "auto" is the cluster that RAY_ADDRESS names, or one here.

    Raises InputError where Ray is missing or cannot be reached.
    """
    return _here() if address is None and (workers or 1) == 1 else _on_ray(None if address == "auto" else address, workers)


@contextmanager
def _here() -> Any:
    yield Here()


@contextmanager
def _on_ray(address: str | None, workers: int | None) -> Any:
    ray = imported_ray()
    try:
        from ray import data  # noqa: F401
    except ImportError:
        raise InputError("--workers: needs Ray Data, which is not installed; pip install 'mask2dit[ray]'") from None
    with connected(ray, address, workers):
        yield OnRay(ray, workers)


def _quieten(data: Any) -> None:
    """Ray Data's progress and traces: ours tells what matters. A unit that fails for good does not stop the others."""
    context = data.DataContext.get_current()
    context.enable_progress_bars = False
    context.max_errored_blocks = -1
    for name in ("ray.data", "ray.data.dataset"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
