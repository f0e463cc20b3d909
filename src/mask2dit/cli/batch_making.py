"""A process that makes films of a batch: this one, or a worker's. It loads the model once, and again only to keep it in another way."""

import gc
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from mask2dit.cli.film_options import naming
from mask2dit.cli.filming import Filming, start
from mask2dit.errors import Mask2DiTError

if TYPE_CHECKING:
    from mask2dit.cli.model_options import Computing
    from mask2dit.memory import Choice, Kept
    from mask2dit.production import Directions, FilmRecord, FilmSettings, ModelAsked, Progress
    from mask2dit.production.batch import Job, Outcome
    from mask2dit.production.preparing import Prepared
    from mask2dit.storyboard import Storyboard
    from mask2dit.video_shape import VideoShape


@dataclass(frozen=True, slots=True)
class Task:
    """What all films of a batch have in common. `texts`: captions and negative prompts of all that are to be made."""

    asked: "ModelAsked"
    settings: "FilmSettings"
    directions: "Directions"
    computing: "Computing"
    texts: tuple[str, ...] = ()


@dataclass
class FilmMaker:
    """Makes films, one after the other; see `production.batch.Maker`. say: takes what a person should know, as soon as it is known.

    room: bytes on the device and in main memory, before anything was loaded.
    """

    work: Filming
    task: Task
    room: tuple[int, int | None]
    progress: "Progress"
    say: Callable[[str], None]
    _steps: int = field(default=0, init=False)
    _choices: "dict[tuple[VideoShape, Kept], Choice | None]" = field(default_factory=dict, init=False)

    def take_texts(self, texts: tuple[str, ...]) -> None:
        """Load the model ready for these, when it is loaded."""
        self.task = replace(self.task, texts=texts)

    def look(self, job: "Job") -> "Prepared | Outcome":
        """What is to be done for a job; or its outcome, where that is nothing."""
        from mask2dit.production.batch import Outcome, differs, failed, sca_of

        try:
            board = self._read(job)
            if not differs(board, job.variant):
                return Outcome(job, "left out", "every scene has a seed of its own, so it would be the first variant again")
            prepared = self._prepare(job, board)
        except Mask2DiTError as error:
            return failed(job, error)
        return Outcome(job, "unchanged", sca=sca_of(prepared.earlier)) if prepared.is_complete else prepared

    def make(self, job: "Job") -> "Outcome":
        from mask2dit.production.batch import attempt

        self._steps = 0
        outcome = attempt(job, lambda: self._make(job))
        if outcome.status == "failed":
            _sweep()
        return replace(outcome, steps=self._steps)

    def _make(self, job: "Job") -> "FilmRecord":
        from mask2dit.production import arrange_film, make_film

        board = self._read(job)
        prepared, counted = self._prepare(job, board), _Counted(self.progress, self._count)
        if not prepared.needs_model:
            return arrange_film(prepared, counted)
        self._load(prepared)
        pipeline = self.work.pipeline
        assert pipeline is not None
        settings, base = self._settings(job), job.storyboard.parent
        with naming(job.storyboard):
            return make_film(
                pipeline, board, job.folder, settings, self.task.directions, asked=self.task.asked, base=base, progress=counted
            )

    def _read(self, job: "Job") -> "Storyboard":
        from mask2dit.storyboard import Storyboard

        return Storyboard.read(job.storyboard)

    def _settings(self, job: "Job") -> "FilmSettings":
        return replace(self.task.settings, seed=job.seed)

    def _prepare(self, job: "Job", board: "Storyboard") -> "Prepared":
        with naming(job.storyboard):
            return self.work.prepare(board, job.folder, self._settings(job), self.task.directions, job.storyboard.parent)

    def _load(self, prepared: "Prepared") -> None:
        """Have the model, kept as this film by itself would have it kept: large films first, that is once for each way.

        Raises InputError for a film that is too large, BatchStopped where the model cannot be loaded.
        """
        from mask2dit.production.batch import BatchStopped

        largest = (prepared.fullest_call, prepared.kept)
        if largest not in self._choices:
            self._choices[largest] = self.work.chosen.choose_memory(*largest, self.room)
        kept = self._choices[largest]
        loaded = self.work.pipeline
        if loaded is not None and (kept is None or (loaded.memory and loaded.memory.mode == kept.mode)):
            return
        if loaded is not None:
            self.work.pipeline = loaded = None
            _sweep()
        for line in kept.lines() if kept else ():
            self.say(line)
        try:
            self.work.pipeline = self.work.load_as(kept, self.task.texts, self.progress)
        except Mask2DiTError as error:
            raise BatchStopped(str(error)) from error

    def _count(self) -> None:
        self._steps += 1


class _Counted:
    """Passes progress on, and counts the steps of denoising."""

    def __init__(self, progress: "Progress", count: Callable[[], None]) -> None:
        self._progress, self._count = progress, count
        self._counts = False

    def start(self, stage: str, total: int) -> None:
        self._counts = stage.startswith("denoising")
        self._progress.start(stage, total)

    def step(self) -> None:
        if self._counts:
            self._count()
        self._progress.step()

    def done(self) -> None:
        self._progress.done()


def _sweep() -> None:
    """Give back what a film or a model has left behind."""
    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


@dataclass
class WorkerMaker:
    """A maker in a worker's process: nobody sees what it prints, so that goes along with the outcome."""

    maker: FilmMaker
    said: list[str]

    def make(self, job: "Job") -> "Outcome":
        from mask2dit.cli.progress import shown_notes

        with shown_notes():
            warnings.showwarning = lambda message, *_: self.said.append(f"note: {message}")
            outcome = self.maker.make(job)
        notes = tuple(dict.fromkeys(self.said))
        self.said.clear()
        return replace(outcome, notes=notes)


def start_worker(task: Task, sharing: int) -> WorkerMaker:
    """Get ready in a worker's process; `sharing`: how many of them share the machine's main memory. Raises Mask2DiTError."""
    from rich.console import Console

    from mask2dit.cli.model_options import memory_room
    from mask2dit.production.progress import Silent

    work = start(task.asked, Console(quiet=True), task.computing)
    work.asked = task.asked  # with the stamp of the model where the batch was begun, which is where the films are looked at again
    limit, main = memory_room(task.computing.memory, work.chosen.device)
    if work.chosen.device.type == "cpu" and task.computing.memory is None:
        limit //= sharing
    said: list[str] = []
    return WorkerMaker(FilmMaker(work, task, (limit, main and main // sharing), Silent(), said.append), said)
