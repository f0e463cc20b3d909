"""Looking at films on Ray: workers fill one store, and whoever started them reads it.

A film is a task; Ray gives it to another worker when one dies. On several machines films and store must lie in folders that all of them
see by the same names. Values are computed by the caller from the store, so that they are the same as without Ray.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

from mask2dit.errors import InputError, Mask2DiTError
from mask2dit.evaluation.features import Store, Wanted
from mask2dit.evaluation.films import FilmSource
from mask2dit.evaluation.measuring import Progress, attempt
from mask2dit.extractors.base import Extractor
from mask2dit.ray_cluster import connected, imported_ray, open_workers

Load = Callable[[], Mapping[str, Extractor]]
"""Loads the extractors in a worker's process. To be pickled."""

TRIES = 3


def look_on_ray(
    films: Sequence[FilmSource],
    folder: Path,
    load: Load,
    wanted: Wanted,
    progress: Progress,
    *,
    address: str | None = None,
    workers: int | None = None,
) -> dict[Path, str]:
    """Look at films on workers of Ray, and return what is wrong with those that cannot be measured, by video.

    address: of a cluster; None as in `ray_cluster.connected`. workers: None for one per GPU or, without, per CPU. Raises InputError.
    """
    ray = imported_ray()
    # Workers have other folders; a film of two groups is one.
    there = {film.video.resolve(): replace(film, video=film.video.resolve()) for film in films}
    progress.start("looking", len(there))
    with connected(ray, address, workers):
        problems = _gone_through(ray, list(there.values()), folder.resolve(), load, wanted, progress, workers)
    progress.done()
    found = ((film.video, problems.get(film.video.resolve(), "")) for film in films)
    return {video: problem.replace(str(video.resolve()), str(video)) for video, problem in found if problem}


def _gone_through(
    ray: Any, films: Sequence[FilmSource], folder: Path, load: Load, wanted: Wanted, progress: Progress, workers: int | None
) -> dict[Path, str]:
    count, needs = open_workers(ray, workers, len(films))
    remote = ray.remote(max_restarts=-1, max_task_retries=TRIES - 1, **needs)(_Worker)
    idle = [remote.remote(folder, load, needs.get("num_cpus")) for _ in range(count)]
    for problem in ray.get([worker.begin.remote() for worker in idle]):
        if problem:
            raise InputError(f"--ray: a worker cannot begin: {problem}")
    waiting, problems = list(reversed(films)), dict[Path, str]()
    running: dict[Any, tuple[Any, FilmSource]] = {}
    try:
        while waiting or running:
            while waiting and idle:
                worker, film = idle.pop(), waiting.pop()
                running[worker.look.remote(film, wanted)] = worker, film
            for result in ray.wait(list(running))[0]:
                worker, film = running.pop(result)
                try:
                    problem = ray.get(result)
                except ray.exceptions.RayError:
                    problem = f"{film.video}: the worker that looked at it died {TRIES} times; look at it by itself, without --ray"
                if problem:
                    problems[film.video] = problem
                idle.append(worker)
                progress.step()
    finally:
        for worker in [*idle, *(worker for worker, _ in running.values())]:
            ray.kill(worker)
    return problems


class _Worker:
    """What runs in a worker's process."""

    def __init__(self, folder: Path, load: Load, threads: int | None) -> None:
        import torch

        torch.set_num_threads(int(threads or 1))
        self._folder, self._load = folder, load

    @cached_property
    def _store(self) -> Store:
        return Store(self._folder, self._load())  # a worker in the place of one that died has not begun

    def begin(self) -> str:
        """Load the networks; returns what is wrong with them, or nothing."""
        try:
            _ = self._store
        except Mask2DiTError as error:
            return str(error)
        return ""

    def look(self, film: FilmSource, wanted: Wanted) -> str:
        """Fill the store; returns what is wrong with the film, or nothing."""
        found = attempt(film, self._store, wanted)
        return found if isinstance(found, str) else ""
