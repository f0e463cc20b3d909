"""A batch on Ray: a worker per GPU or per share of the CPUs, on this machine or on a cluster; each makes one film after the other.

Films are handed out one by one. A worker that dies is replaced, and its film goes on where it was, for that lies in the film's folder; so
on several machines the folders of storyboards, films and models must be ones that all of them see by the same names.
"""

import os
import platform
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from mask2dit.errors import InputError, Mask2DiTError
from mask2dit.production.batch import Batch, Job, Maker, Outcome
from mask2dit.production.folder import FilmFolder
from mask2dit.ray_cluster import connected, imported_ray, resources, share

ATTEMPTS = 3
PATIENCE_SECONDS = 30.0

Start = Callable[[int], Maker]
"""Makes a worker's maker, in the worker's process; takes the number of workers that share its machine's main memory. To be pickled."""


def make_films_on_ray(
    jobs: Sequence[Job], start: Start, batch: Batch, *, address: str | None = None, workers: int | None = None, gpus: bool | None = None
) -> None:
    """Make films on workers of Ray, handed out in their order. Ends early, with KeyboardInterrupt, when the person wishes so.

    address: of a cluster; None for the one that RAY_ADDRESS names, else for one on this machine, as long as this takes. workers: None for
    one per GPU or, without, per CPU. gpus: None where there are any. Raises InputError.
    """
    ray = imported_ray()
    with connected(ray, address, workers):
        crew = _Crew(ray, jobs, start, batch, workers, gpus)
        try:
            crew.run()
        finally:
            crew.dismiss()


class _Worker:
    """What runs in a worker's process."""

    def __init__(self, start: Start, folder: str, threads: int | None, sharing: int) -> None:
        self._start, self._folder, self._threads, self._sharing = start, folder, threads, sharing
        self._maker: Maker | None = None

    def begin(self) -> str:
        """Get ready; returns what is amiss."""
        try:
            os.chdir(self._folder)
        except OSError as error:
            machine = platform.node()
            return f"{self._folder}: is not there on {machine} ({error.strerror}), expected a folder that all machines see; start from one"
        torch.set_num_threads(self._threads or max(1, len(os.sched_getaffinity(0)) // self._sharing))
        try:
            self._maker = self._start(self._sharing)
        except Mask2DiTError as error:
            return f"{platform.node()}: {error}"
        return ""

    def make(self, job: Job, again: bool) -> Outcome:
        assert self._maker is not None
        if again:
            _wait_for(job.folder)
        return self._maker.make(job)


def _wait_for(folder: Path) -> None:
    """Until a worker that was killed at it is gone for good, and with it its lock."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < deadline:
        with suppress(Mask2DiTError), FilmFolder(folder).locked():
            return
        time.sleep(0.2)


class _Crew:
    """The workers, which job each is at, and what waits."""

    def __init__(self, ray: Any, jobs: Sequence[Job], start: Start, batch: Batch, workers: int | None, gpus: bool | None) -> None:
        self._ray, self._start, self._batch = ray, start, batch
        self._waiting, self._tries = deque(jobs), Counter[Job]()
        self._running: dict[Any, tuple[Any, Job | None]] = {}
        self._idle: list[Any] = []
        self._false_starts = 0
        gpu_counts, cpu_counts = resources(ray, "GPU"), resources(ray, "CPU")
        self._on_gpus = any(gpu_counts) if gpus is None else gpus
        if self._on_gpus and not any(gpu_counts):
            raise InputError("--device: got cuda, and Ray knows of no GPU, expected one; leave it out to use the CPUs")
        counts = gpu_counts if self._on_gpus else cpu_counts
        self._free = workers or max(1, sum(counts))
        self._cpus = 0 if self._on_gpus else share(cpu_counts, self._free)
        self._sharing = max(1, *(count // (self._cpus or 1) for count in counts))

    def run(self) -> None:
        """Until every job has its outcome, or no worker is left."""
        self._hire()
        patience: float | None = PATIENCE_SECONDS
        try:
            while self._running:
                ready, _ = self._ray.wait(list(self._running), num_returns=1, timeout=patience)
                if not ready:
                    self._batch.watcher.say("note: still waiting for Ray to start a worker; `ray status` says what is free")
                patience = None
                for result in ready:
                    self._came_back(result)
                    self._hand_out()
                    self._hire()
        except KeyboardInterrupt:
            for _, job in self._running.values():
                if job is not None:
                    self._batch.end(Outcome(job, "interrupted", "what is finished of it stays"))
            raise

    def dismiss(self) -> None:
        """Let all workers go, whatever they are at."""
        for worker in [*self._idle, *(worker for worker, _ in self._running.values())]:
            self._ray.kill(worker)

    def _hire(self) -> None:
        """As many workers as there is room and work for."""
        needs = {"num_gpus": 1, "num_cpus": 0} if self._on_gpus else {"num_cpus": self._cpus}
        remote = self._ray.remote(max_restarts=0, **needs)(_Worker)
        starting = sum(job is None for _, job in self._running.values())
        for _ in range(min(self._free, len(self._waiting) - starting)):
            worker = remote.remote(self._start, os.getcwd(), self._cpus or None, self._sharing)
            self._running[worker.begin.remote()] = worker, None
            self._free -= 1

    def _hand_out(self) -> None:
        while self._idle and self._waiting:
            worker, job = self._idle.pop(), self._waiting.popleft()
            self._batch.begin(job)
            self._running[worker.make.remote(job, again=self._tries[job] > 0)] = worker, job

    def _came_back(self, result: Any) -> None:
        worker, job = self._running.pop(result)
        try:
            answer = self._ray.get(result)
        except self._ray.exceptions.RayError as error:
            self._ray.kill(worker)
            self._died(job, "OutOfMemory" in type(error).__name__)
            return
        if job is None and not answer:
            self._idle.append(worker)
        elif job is None:
            self._retire(worker, answer)
        elif answer.stops:
            self._retire(worker, answer.line)
            self._again(answer) if self._idle or self._running or self._free else self._batch.end(answer)
        else:
            self._batch.end(answer)
            self._idle.append(worker)

    def _died(self, job: Job | None, of_memory: bool) -> None:
        """Its place is free for another, unless workers die as they start."""
        self._false_starts += job is None
        if self._false_starts < ATTEMPTS:
            self._free += 1
        else:
            self._batch.watcher.say("note: workers die as they start; the rest waits for the same command")
        if job is not None:
            reason = "memory ran out on its worker's machine" if of_memory else "its worker died"
            self._again(Outcome(job, "failed", f"{reason}; `mask2dit generate` with the same options goes on, by itself"))

    def _retire(self, worker: Any, line: str) -> None:
        """Let a worker go that can make no film, and its place with it: another one there could not, either."""
        self._ray.kill(worker)
        self._batch.watcher.say(f"note: a worker stops: {line}")

    def _again(self, outcome: Outcome) -> None:
        """Another try, or, when there were enough, this outcome."""
        job = outcome.job
        self._tries[job] += 1
        if self._tries[job] < ATTEMPTS:
            self._batch.watcher.say(f"note: {job.name}: {outcome.line.partition(';')[0]}; another worker goes on with it")
            self._waiting.appendleft(job)
        else:
            self._batch.end(outcome)
