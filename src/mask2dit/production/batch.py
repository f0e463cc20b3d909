"""A batch: several storyboards, each in one or more variants, and what came of every film.

Owns which films there are, how they are gone through in one process (ray_batch: in several), and what is left beside them: batch.json
and a picture of all films. How one film is made is making's; where a model comes from and how a person sees progress is the command's.
"""

import errno
import json
import os
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np

from mask2dit import film
from mask2dit.errors import InputError, Mask2DiTError, OutputError
from mask2dit.files import written_aside
from mask2dit.production.folder import FilmFolder
from mask2dit.production.record import FilmRecord
from mask2dit.storyboard import Storyboard
from mask2dit.video_files import read_first_frame

FORMAT = 1
RECORD, OVERVIEW = "batch.json", "overview.png"
LARGEST_OVERVIEW = 100  # films; more make a picture that is hard to open
DISK_IS_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)

Status = Literal["made", "unchanged", "left out", "failed", "interrupted", "not begun"]


class BatchStopped(Mask2DiTError):
    """What ends a film would end every other one in this process, too."""


@dataclass(frozen=True, slots=True)
class Source:
    """A storyboard's file, and what its film is called."""

    name: str
    path: Path


@dataclass(frozen=True, slots=True)
class Job:
    """One film of a batch. `seed`: the film's, so the first variant has that of the command; `variant`: from 1."""

    name: str
    storyboard: Path
    variant: int
    seed: int
    folder: Path


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a job, with a line about it where it was not made.

    `seconds` and `steps` (of denoising) are those of this run. `notes`: what is to be said to the person. `stops`: see BatchStopped.
    """

    job: Job
    status: Status
    line: str = ""
    seconds: float = 0.0
    steps: int = 0
    sca: float | None = None
    notes: tuple[str, ...] = ()
    stops: bool = False
    traceback: str = ""


class Maker(Protocol):
    """Makes films in this process, with a model that it keeps from one to the next."""

    def make(self, job: Job) -> Outcome:
        """The film of a job; a mistake is an outcome, Ctrl-C is not."""


class Watcher(Protocol):
    """Whom a batch tells how far it is."""

    def begun(self, job: Job) -> None: ...

    def ended(self, outcome: Outcome) -> None: ...

    def say(self, line: str) -> None: ...


# Which films


def find_storyboards(paths: Iterable[Path], suffixes: Sequence[str]) -> list[Source]:
    """Files as they are named; of a folder, those with one of `suffixes`, sorted; of a film's folder, the storyboard that lies in it.

    A file that is met again counts once. Raises InputError; whether the files can be read is not looked at.
    """
    found: dict[Path, Source] = {}
    for path in paths:
        for source in _sources(path, suffixes):
            found.setdefault(source.path.resolve(), source)
    return list(found.values())


def _sources(path: Path, suffixes: Sequence[str]) -> Iterator[Source]:
    try:
        if _is_film(path):
            yield Source(path.resolve().name, path / "storyboard.yaml")
        elif path.is_dir():
            named = sorted(each for each in path.iterdir() if each.suffix.lower() in suffixes and not each.name.startswith("."))
            files = [each for each in named if each.is_file() and each.name != RECORD]
            if not files:
                wanted = f"{', '.join(suffixes[:-1])} or {suffixes[-1]}"
                films = (
                    "; for the films in it, name their folders" if any(map(_is_film, path.iterdir())) else "; name the folder they lie in"
                )
                raise InputError(f"{path}: holds no storyboard, expected files that end in {wanted}{films}")
            yield from (Source(each.stem, each) for each in files)
        elif path.is_file():
            yield Source(path.resolve().parent.name if path.name == "storyboard.yaml" and _is_film(path.parent) else path.stem, path)
        else:
            raise InputError(f"{path}: there is no such file, expected a storyboard or a folder of them; check the name")
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}), expected a storyboard or a folder of them; check the name") from None


def _is_film(path: Path) -> bool:
    return (path / "run.json").is_file()


def check_output(path: Path) -> None:
    """Raise InputError unless films' folders may be made in this one."""
    if _is_film(path):
        raise InputError(f"{path}: is a film's folder, expected one for the folders of films; name another one with -o")
    if path.exists() and not path.is_dir():
        raise InputError(f"{path}: is a file, expected a folder for the films; name another one with -o")
    if path.exists() and not os.access(path, os.R_OK | os.W_OK | os.X_OK):
        raise InputError(f"{path}: may not be written to, expected a folder for the films; name another one with -o")


def list_jobs(sources: Iterable[Source], output: Path, variants: int, seed: int) -> list[Job]:
    """Every variant of every storyboard: `fox` with the seed of the command, `fox-variant-2` with the next one, and so on.

    Raises InputError where two would be one folder, or a film would be made over the one that its storyboard is taken from.
    """
    jobs: dict[str, Job] = {}
    for source in sources:
        for variant in range(1, variants + 1):
            name = source.name if variant == 1 else f"{source.name}-variant-{variant}"
            job = Job(name, source.path, variant, seed + variant - 1, output / name)
            other = jobs.setdefault(name.casefold(), job)
            if other is not job:
                raise InputError(f"{job.folder}: would be the film of both {other.storyboard} and {source.path}; rename one of them")
            if job.folder.resolve() == source.path.resolve().parent:
                remedy = f"name another folder with -o, or use `mask2dit generate {job.folder}`"
                raise InputError(f"{job.folder}: its storyboard lies in it, expected another folder for the films; {remedy}")
    return list(jobs.values())


def differs(storyboard: Storyboard, variant: int) -> bool:
    """Whether a variant is another film than the first: not, where every scene has a seed of its own or is given."""
    return variant == 1 or any(scene.seed is None and scene.given is None for scene in storyboard.scenes if not scene.skip)


# Making them


class Batch:
    """The films of one command and what came of them so far; kept in batch.json as they end."""

    def __init__(self, jobs: Sequence[Job], output: Path, watcher: Watcher) -> None:
        self.output, self.watcher = output, watcher
        self._outcomes = {job: Outcome(job, "not begun") for job in jobs}

    @property
    def outcomes(self) -> list[Outcome]:
        """One for each job, in their order."""
        return list(self._outcomes.values())

    def begin(self, job: Job) -> None:
        self.watcher.begun(job)

    def end(self, *outcomes: Outcome) -> None:
        for outcome in outcomes:
            self._outcomes[outcome.job] = outcome
            self.watcher.ended(outcome)
        self.write()

    def write(self) -> None:
        """Write batch.json. A disk that refuses it stops no film: what the films are is in their own folders."""
        content = {"format": FORMAT, "films": [_as_data(outcome) for outcome in self.outcomes]}
        try:
            with written_aside(self.output / RECORD) as part:
                part.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8", errors="backslashreplace")
        except OutputError as error:
            self.watcher.say(f"note: {error}")

    def write_overview(self) -> Path | None:
        """A picture with a row for each film that is there; returns its path, or None where there is none or it cannot be made."""
        films = [outcome for outcome in self.outcomes if outcome.status in ("made", "unchanged")]
        if not films:
            return None
        shown = f"the first {LARGEST_OVERVIEW} of " if len(films) > LARGEST_OVERVIEW else ""
        storyboards = len({outcome.job.storyboard for outcome in films})
        subtitle = f"{shown}{_count(len(films), 'film')}  ·  {_count(storyboards, 'storyboard')}  ·  the beginning of every scene"
        path = self.output / OVERVIEW
        try:
            sheet = film.contact_sheet(self.output.resolve().name, subtitle, [_row(outcome) for outcome in films[:LARGEST_OVERVIEW]])
            with written_aside(path) as part:
                sheet.save(part, "PNG")
        except Mask2DiTError as error:
            self.watcher.say(f"note: {error}")
            return None
        return path


def make_films(jobs: Iterable[Job], maker: Maker, batch: Batch) -> None:
    """Make films one after the other. Ends early, with KeyboardInterrupt, when the person wishes so."""
    for job in jobs:
        batch.begin(job)
        try:
            outcome = maker.make(job)
        except KeyboardInterrupt as stop:
            batch.end(Outcome(job, "interrupted", str(stop)))
            raise
        batch.end(outcome)
        if outcome.stops:
            break


def attempt(job: Job, make: Callable[[], FilmRecord]) -> Outcome:
    """Make one film; whatever goes wrong is an outcome. Ctrl-C goes on."""
    began = time.perf_counter()
    try:
        outcome = Outcome(job, "made", sca=sca_of(make()))
    except Exception as error:
        outcome = failed(job, error)
    return replace(outcome, seconds=time.perf_counter() - began)


def failed(job: Job, error: Exception) -> Outcome:
    """The outcome of a job that ended with an error."""
    line = " ".join(str(error).split())
    if isinstance(error, Mask2DiTError):
        return Outcome(job, "failed", line, stops=isinstance(error, BatchStopped) or _is_disk_full(error))
    told = "".join(traceback.format_exception(error))
    return Outcome(
        job, "failed", f"a mistake of the program, {type(error).__name__}: {line[:200]}; {RECORD} has more of it", traceback=told
    )


def _is_disk_full(error: BaseException | None) -> bool:
    while error is not None:
        if isinstance(error, OSError) and error.errno in DISK_IS_FULL:
            return True
        error = error.__cause__
    return False


def sca_of(record: FilmRecord | None) -> float | None:
    """How well the cuts of a film lie, as far as that was looked at."""
    return record.check.sca if record and record.check else None


# What is left beside the films


def _as_data(outcome: Outcome) -> dict[str, Any]:
    job = outcome.job
    data = {
        "name": job.name,
        "storyboard": job.storyboard.as_posix(),
        "variant": job.variant,
        "seed": job.seed,
        "status": outcome.status,
        "seconds": round(outcome.seconds, 3),
        "denoising_steps": outcome.steps,
        "sca": outcome.sca,
        "line": outcome.line,
    }
    return data | ({"traceback": outcome.traceback} if outcome.traceback else {})


def _row(outcome: Outcome) -> film.SheetRow:
    folder = FilmFolder(outcome.job.folder)
    record = folder.read_record()
    numbers = [number for number, _ in record.shown]
    pictures = [read_first_frame(folder.scene_video(numbers[index])) for index in _spread(len(numbers), film.PICTURES_PER_ROW)]
    seeds = list(dict.fromkeys(str(scene.inputs.seed) for _, scene in record.shown if scene.inputs.given is None))
    facts = [f"seed{'s' * (len(seeds) > 1)} {', '.join(seeds)}"] if seeds else []
    facts += [_count(len(numbers), "scene"), f"{record.duration_seconds:.1f} s"]
    facts += [f"SCA {outcome.sca:.3f}"] if outcome.sca is not None else []
    return film.SheetRow(pictures, f"{outcome.job.name}: {record.title}", "  ·  ".join(facts))


def _spread(count: int, most: int) -> list[int]:
    """At most so many of the numbers below `count`, evenly, the first and the last among them."""
    return sorted(set(np.linspace(0, count - 1, min(count, most)).round().astype(int).tolist()))


def _count(number: int, name: str) -> str:
    return f"{number} {name}{'s' * (number != 1)}"
