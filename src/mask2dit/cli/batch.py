"""`mask2dit batch`: many storyboards, several variants of each, one table at the end."""

import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mask2dit.cli import film_options as film
from mask2dit.cli import filming
from mask2dit.cli import model_options as options
from mask2dit.errors import InputError

if TYPE_CHECKING:
    from rich.console import Console

    from mask2dit.cli.batch_making import FilmMaker, Task
    from mask2dit.production.batch import Batch, Job, Outcome
    from mask2dit.production.preparing import Prepared

PANEL = "On several GPUs, CPUs or machines"
LOOKS = {"made": "green", "unchanged": "dim", "left out": "dim", "failed": "red", "interrupted": "yellow", "not begun": "yellow"}


def batch(
    storyboards: Annotated[list[Path], typer.Argument(help="Storyboard files, folders of them, or films' folders.", show_default=False)],
    output: Annotated[Path, typer.Option("--output", "-o", help="The folder of the films.")] = Path("films"),
    variants: Annotated[int, typer.Option(help="Films of each storyboard, with one seed after the other.", min=1, max=10_000)] = 1,
    steps: film.Steps = None,
    guidance: film.Guidance = None,
    seed: Annotated[int, typer.Option(help="Of the first variant.", min=0)] = 0,
    frames: film.Frames = None,
    height: film.Size = None,
    width: film.Size = None,
    negative_prompt: film.NegativePrompt = None,
    display_scale: film.DisplayScale = None,
    window: film.Window = None,
    solver: film.Solver = None,
    guidance_interval: film.GuidanceInterval = None,
    step_cache: film.StepCache = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Make every scene again; earlier takes are kept.")] = False,
    dry_run: filming.DryRun = False,
    subtitles: filming.Subtitles = False,
    model: options.Model = None,
    revision: options.Revision = None,
    offline: options.Offline = False,
    inp: options.Inp = False,
    lora: options.Lora = None,
    memory: options.Memory = None,
    weights: options.Weights = "plain",
    device: options.Device = None,
    attention: options.Attention = "auto",
    compiled: options.Compile = False,
    dtype: options.Dtype = None,
    plan: options.Plan = None,
    ray: Annotated[bool, typer.Option("--ray", help="Make films side by side, with Ray.", rich_help_panel=PANEL)] = False,
    ray_address: Annotated[
        str | None,
        typer.Option(help="Of a Ray cluster; implies --ray.", show_default="RAY_ADDRESS, or this machine", rich_help_panel=PANEL),
    ] = None,
    workers: Annotated[
        int | None, typer.Option(help="With --ray: films at a time.", show_default="the GPUs or the CPUs", rich_help_panel=PANEL, min=1)
    ] = None,
) -> None:
    """Make the films of many storyboards, and several variants of each.

    A storyboard that cannot be made does not stop the others. The same command goes on with a batch that was interrupted and makes what
    changed; films that are made cost nothing. The exit status is 1 if a film could not be made.
    """
    began = time.perf_counter()
    ray = ray or ray_address is not None
    _check_ray(ray, workers, device)

    from mask2dit.cli.progress import shown_notes

    with shown_notes() as console:
        from mask2dit.cli.batch_making import Task
        from mask2dit.loading import check_film
        from mask2dit.production import Directions, FilmSettings, ModelAsked
        from mask2dit.production.batch import Batch, check_output, find_storyboards, list_jobs
        from mask2dit.ray_cluster import imported_ray
        from mask2dit.storyboard import Storyboard

        if ray:
            imported_ray()
        check_output(output)
        jobs = list_jobs(find_storyboards(storyboards, film.SUFFIXES), output, variants, seed)
        FilmSettings(jobs[-1].seed)
        cheaper = film.shortcuts(solver, guidance_interval, step_cache)
        settings = FilmSettings(seed, height, width, steps, guidance, frames, negative_prompt, display_scale, window, **cheaper)
        asked = ModelAsked(model, revision, inp, lora, plan, dtype, weights)
        computing = options.Computing(offline, memory, device, attention, compiled)
        work = filming.start(asked, console, computing)
        # What is wrong even with a film of one word is the command's mistake, and no storyboard's.
        check_film(work.chosen.folder, Storyboard.from_text("x"), **settings.asked())
        task = Task(work.asked, settings, Directions(fresh=fresh, subtitles=subtitles), computing)
        with _shown(console, len(jobs)) as shown:
            maker = _maker(work, task, shown)
            films = Batch(jobs, output, shown)
            looked = {job: maker.look(job) for job in jobs}
            if dry_run:
                typer.echo("\n".join(line for job, found in looked.items() for line in _plan(job, found)))
                return
            stop = _make(films, looked, maker, (ray_address, workers) if ray else None)
            overview = films.write_overview()
    _tell(films, time.perf_counter() - began, overview)
    statuses = {outcome.status for outcome in films.outcomes}
    if stop is not None:
        made = sum(outcome.status in ("made", "unchanged") for outcome in films.outcomes)
        raise KeyboardInterrupt(f"interrupted; {made} of {len(jobs)} films are made; the same command goes on")
    if statuses & {"failed", "not begun"}:
        raise typer.Exit(1)


def _check_ray(ray: bool, workers: int | None, device: str | None) -> None:
    if workers is not None and not ray:
        raise InputError(f"--workers: got {workers} without --ray, expected them together; add --ray")
    if ray and device not in (None, "cpu", "cuda"):
        raise InputError(f"--device: got {device!r} with --ray, which gives each worker a GPU of its own; use cuda or cpu, or leave it out")


def _make(
    films: "Batch", looked: "dict[Job, Prepared | Outcome]", maker: "FilmMaker", cluster: tuple[str | None, int | None] | None
) -> KeyboardInterrupt | None:
    """Make what is to be made, here or on Ray; returns how the person stopped it."""
    from mask2dit.cli.batch_making import start_worker
    from mask2dit.production.batch import Outcome, make_films

    films.end(*(found for found in looked.values() if isinstance(found, Outcome)))
    todo = {job: found for job, found in looked.items() if not isinstance(found, Outcome)}
    # Large ones first: the model is loaded once for each way to keep it, and no worker begins a long film when all others are done.
    jobs = sorted(todo, key=lambda job: -_size(todo[job]))
    texts = tuple(dict.fromkeys(text for prepared in todo.values() for text in filming.texts_of(prepared)))
    if maker.work.asked.model is None:
        film.note_unknown_words(*(prepared.storyboard for prepared in todo.values()))
    maker.take_texts(texts)
    try:
        if cluster is None or not jobs:
            make_films(jobs, maker, films)
        else:
            from mask2dit.production.ray_batch import make_films_on_ray

            address, workers = cluster
            gpus = None if (device := maker.task.computing.device) is None else device == "cuda"
            make_films_on_ray(jobs, partial(start_worker, maker.task), films, address=address, workers=workers, gpus=gpus)
    except KeyboardInterrupt as stop:
        return stop
    return None


def _size(prepared: "Prepared") -> int:
    call = prepared.fullest_call
    return prod((sum(call.num_frames), call.height, call.width))


def _maker(work: filming.Filming, task: "Task", shown: "Shown") -> "FilmMaker":
    from mask2dit.cli.batch_making import FilmMaker

    return FilmMaker(work, task, options.memory_room(task.computing.memory, work.chosen.device), shown, shown.say)


# What a person sees


class Shown:
    """A line when a film ends; and, where somebody watches, a bar for the films and one for the stage of the one that is made here."""

    def __init__(self, console: "Console", total: int) -> None:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

        self._console, self._total, self._ended = console, total, 0
        self._told: set[str] = set()
        columns = (TextColumn("{task.description:<24}"), BarColumn(bar_width=36), MofNCompleteColumn(), TimeElapsedColumn())
        self.bars = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
        self._films = self.bars.add_task("films", total=total)
        self._stage = self.bars.add_task("", total=1, visible=False)
        self._at_work: list[str] = []

    def begun(self, job: "Job") -> None:
        self._at_work.append(job.name)

    def ended(self, outcome: "Outcome") -> None:
        self._ended += 1
        self._at_work = [name for name in self._at_work if name != outcome.job.name]
        self.bars.update(self._films, completed=self._ended)
        self.bars.update(self._stage, visible=False)
        for note in outcome.notes:
            self.say(note)
        if outcome.status != "unchanged":
            self._print(f"{self._ended} of {self._total}  {outcome.job.name}: {_told(outcome)}")

    def say(self, line: str) -> None:
        """A line, once."""
        if line not in self._told:
            self._told.add(line)
            self._print(line)

    def start(self, stage: str, total: int) -> None:
        name = f"{self._at_work[-1]}: " if self._at_work else ""
        self.bars.reset(self._stage, description=f"{name}{stage}", total=total, completed=0, visible=True)

    def step(self) -> None:
        self.bars.advance(self._stage)

    def done(self) -> None:
        pass

    def _print(self, line: str) -> None:
        self._console.print(line, highlight=False, markup=False, soft_wrap=True, style="yellow" if line.startswith("note: ") else None)


@contextmanager
def _shown(console: "Console", total: int) -> Iterator[Shown]:
    shown = Shown(console, total)
    warnings.showwarning = lambda message, *_: shown.say(f"note: {message}")
    with shown.bars:
        yield shown


def _told(outcome: "Outcome") -> str:
    if outcome.status == "made":
        return f"made in {outcome.seconds:.1f} s{'' if outcome.sca is None else f', SCA {outcome.sca:.3f}'}"
    return f"{outcome.status}{f': {outcome.line}' if outcome.line else ''}"


def _plan(job: "Job", found: "Prepared | Outcome") -> list[str]:
    from mask2dit.production.batch import Outcome

    if isinstance(found, Outcome):
        return [f"{job.folder}: {_told(found)}"]
    return found.lines()


def _tell(films: "Batch", seconds: float, overview: Path | None) -> None:
    """The table, and beneath it why films were not made."""
    from rich.console import Console

    outcomes = films.outcomes
    console = Console()
    typer.echo("")
    if console.is_terminal:
        _print_table(console, outcomes)
    else:
        widths = [max(len(row[column]) for row in map(_cells, outcomes)) for column in range(3)]
        for row in map(_cells, outcomes):
            typer.echo("  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), *row[3:]]).rstrip())
    reasons: dict[str, list[str]] = {}
    for outcome in outcomes:
        if outcome.status == "failed":
            reasons.setdefault(outcome.line, []).append(outcome.job.name)
    counts = {status: sum(outcome.status == status for outcome in outcomes) for status in LOOKS}
    told = ", ".join(f"{count} {status}" for status, count in counts.items() if count)
    typer.echo(f"\n{told} in {seconds:.1f} s: {films.output}")
    if overview is not None:
        typer.echo(f"  {overview.name:<14} every film at a glance")
    typer.echo(f"  {'batch.json':<14} this table, for programs")
    for line, names in reasons.items():
        typer.echo(f"error: {', '.join(names)}: {line}", err=True)


def _cells(outcome: "Outcome") -> tuple[str, str, str, str]:
    sca = "" if outcome.sca is None else f"SCA {outcome.sca:.3f}"
    seconds = f"{outcome.seconds:.1f} s" if outcome.status == "made" else ""
    return outcome.job.name, outcome.status, sca, seconds


def _print_table(console: "Console", outcomes: "Sequence[Outcome]") -> None:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column("film", overflow="fold")
    table.add_column("")
    table.add_column("SCA", justify="right")
    table.add_column("seconds", justify="right")
    for outcome in outcomes:
        name, status, sca, seconds = _cells(outcome)
        table.add_row(name, f"[{LOOKS[outcome.status]}]{status}", sca.removeprefix("SCA "), seconds.removesuffix(" s"))
    console.print(table)
