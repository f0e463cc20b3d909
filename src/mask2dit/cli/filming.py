"""From a checked storyboard to a film folder, for every command that makes one: plan, load the model if it is needed, make, tell."""

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from mask2dit.cli import model_options as options
from mask2dit.cli.film_options import note_unknown_words
from mask2dit.cli.machine import started_together
from mask2dit.cli.together import load, shares_sequence

if TYPE_CHECKING:
    from rich.console import Console

    from mask2dit.memory import Choice
    from mask2dit.pipeline import Mask2DiTPipeline
    from mask2dit.production import Directions, FilmRecord, FilmSettings, ModelAsked, Progress
    from mask2dit.production.directing import Film
    from mask2dit.production.preparing import Prepared
    from mask2dit.production.record import Take
    from mask2dit.storyboard import Storyboard

Result = TypeVar("Result")
FolderArgument = Annotated[Path, typer.Argument(help="A film's folder.", show_default=False)]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would be made and why; write nothing.")]
Subtitles = Annotated[bool, typer.Option("--subtitles", help="Write film.srt with the captions.")]
RetryBelow = Annotated[
    float | None, typer.Option(help="Try other seeds while the cuts' accuracy (SCA) is below this.", show_default=False, min=0, max=1)
]
Retries = Annotated[int, typer.Option(help="At most so many other seeds.", min=1, max=100)]


@dataclass
class Filming:
    """One command's film: the model that was asked for, loaded when something is to be made with it."""

    chosen: options.ModelChoice
    asked: "ModelAsked"
    console: "Console"
    pipeline: "Mask2DiTPipeline | None" = field(default=None, init=False)
    found_complete: bool = field(default=False, init=False)
    """Whether the film made last was there already."""

    def prepare(self, board: "Storyboard", folder: Path, settings: "FilmSettings", directions: "Directions", base: Path) -> "Prepared":
        """Set what is asked beside what is there; raises for a mistake. No weights are read."""
        from mask2dit.film_request import check_interval_matters
        from mask2dit.loading import check_film
        from mask2dit.model_folder import load_config, model_values
        from mask2dit.production.preparing import assumed_made_with, prepare
        from mask2dit.step_caches import check_step_cache

        plan = load_config(self.chosen.folder, "transformer")["attention_plan"]
        prepared = prepare(
            board,
            folder,
            settings,
            directions,
            self.asked,
            base,
            model_values(self.chosen.folder),
            lambda whole: check_film(self.chosen.folder, whole, **settings.asked()),
            lambda request, earlier: assumed_made_with(request, earlier, self.asked, plan),
        )
        interval, earlier = settings.guidance_interval, prepared.earlier
        if earlier is None or earlier.settings.guidance_interval != interval:  # films that have it go on as they are
            check_interval_matters(interval, prepared.is_guided)
        cache, compiled = prepared.record.made_with.step_cache, self.chosen.computing.compiled
        if cache is not None and prepared.plan.calls:
            check_step_cache(cache, compiled=compiled, shares_sequence=shares_sequence(prepared.is_guided))
        return prepared

    def make(self, board: "Storyboard", folder: Path, settings: "FilmSettings", directions: "Directions", base: Path) -> "FilmRecord":
        """The film of a storyboard in a folder, with a plan shown where something was there before."""
        from mask2dit.production import arrange_film, make_film

        prepared = self.prepare(board, folder, settings, directions, base)
        self.found_complete = prepared.is_complete
        if prepared.earlier is not None and not self.found_complete:
            self.show(prepared.lines())
        if not prepared.needs_model:
            return self._shown(lambda progress: arrange_film(prepared, progress))
        if prepared.earlier is not None:
            with prepared.folder.locked():  # who cannot have it finds out before the model is loaded
                pass
        pipeline = self.load(prepared)
        if prepared.plan.calls and not self.chosen.built_in:
            self.show([f"preview while it denoises: {prepared.folder.denoising_preview}"])
        return self._shown(
            lambda progress: make_film(pipeline, board, folder, settings, directions, asked=self.asked, base=base, progress=progress)
        )

    def candidates(self, film: "Film", board: "Storyboard", index: int, seeds: Sequence[int]) -> "list[Take]":
        """Takes of one scene, one per seed."""
        from mask2dit.production import Directions, make_candidates

        folder, settings = film.folder.path, film.record.settings
        pipeline = self.load(self.prepare(board, folder, settings, Directions(stay=True, again=frozenset({index})), folder))
        return self._shown(
            lambda progress: make_candidates(pipeline, board, folder, index, seeds, settings, asked=self.asked, progress=progress)
        )

    def load(self, prepared: "Prepared") -> "Mask2DiTPipeline":
        """The pipeline, kept in memory as the largest call of this film needs it; once for a command."""
        if self.pipeline is None:
            shared = replace(prepared.kept, processes=started_together().get("WORLD_SIZE", 1))
            kept = self.chosen.choose_memory(prepared.fullest_call, shared)
            self.show(kept.lines() if kept else ())
            self.pipeline = self._shown(lambda progress: self.load_as(kept, texts_of(prepared), progress, guided=prepared.is_guided))
        return self.pipeline

    def load_as(self, kept: "Choice | None", texts: "Sequence[str]", progress: "Progress", *, guided: bool = True) -> "Mask2DiTPipeline":
        """The pipeline kept so, ready for these captions and negative prompts. guided: as the first film is."""
        progress.start("loading", 1)
        pipeline = load(self.chosen, guided, kept, texts, self.asked.plan, self.asked.lora)
        progress.done()
        return pipeline

    def retry(self, record: "FilmRecord", folder: Path, limit: float, retries: int) -> "FilmRecord":
        """Other seeds for the scenes whose cuts are amiss, the best film kept."""
        from mask2dit.production.directing import retry_cuts

        settings = record.settings
        return retry_cuts(record, folder, limit, retries, lambda board, how: self.make(board, folder, settings, how, folder), self._say)

    def _say(self, line: str) -> None:
        self.show([line])

    def show(self, lines: Sequence[str]) -> None:
        """Lines for the person, beside what the command prints."""
        for line in lines:
            self.console.print(line, highlight=False, markup=False, soft_wrap=True)

    def _shown(self, work: "Callable[[Progress], Result]") -> "Result":
        from mask2dit.cli.progress import shown_progress

        with shown_progress(self.console) as progress:
            return work(progress)


def texts_of(prepared: "Prepared") -> tuple[str, ...]:
    """A film's captions and negative prompts, each once."""
    inputs = [scene.inputs for scene in prepared.record.scenes]
    return tuple(dict.fromkeys([*(each.caption for each in inputs), *(each.negative_prompt for each in inputs)]))


def start(asked: "ModelAsked", console: "Console", computing: options.Computing) -> Filming:
    """Find and check the model that a film is asked of; downloads it where it must be."""
    from mask2dit.model_folder import stamp_of

    chosen = options.chosen_model(asked, computing)
    local: dict[str, Any] = {
        name: str(Path(value).resolve()) for name in ("model", "lora") if (value := getattr(asked, name)) and Path(value).exists()
    }
    return Filming(chosen, replace(asked, stamp=stamp_of(chosen.folder), **local), console)


def direct(folder: Path, change: "Callable[[Film], tuple[Storyboard, Directions]]", computing: options.Computing, *, dry_run: bool) -> None:
    """Change a film's storyboard and make what that asks for; everything that is made stays."""
    from mask2dit.cli.progress import shown_notes

    began = time.perf_counter()
    with shown_notes() as console, ExitStack() as stack:
        from mask2dit.production import FilmFolder
        from mask2dit.production.directing import open_film

        film = open_film(folder)
        if not dry_run:  # from before the storyboard is read till the film is made
            stack.enter_context(FilmFolder(folder).locked())
            film = open_film(folder)
        board, directions = change(film)
        if film.record.asked.model is None:
            note_unknown_words(board)
        work = start(film.record.asked, console, computing)
        settings = film.record.settings
        if dry_run:
            typer.echo("\n".join(work.prepare(board, folder, settings, directions, folder).lines()))
            return
        record = work.make(board, folder, settings, directions, folder)
    typer.echo(f"\nMade in {time.perf_counter() - began:.1f} s: {folder}")
    tell(record, folder)


def tell(record: "FilmRecord", folder: Path) -> None:
    """The film's files, and how its cuts came out."""
    from mask2dit.cuts import table

    count, made_with = len(record.shown), record.made_with
    size = f"{made_with.width * record.display_scale} by {made_with.height * record.display_scale} pixels"
    names = [f"scenes/scene-{number:02d}.mp4" for number, _ in record.shown]
    files = (
        ("film.mp4", f"{count} scene{'s' * (count > 1)}, {record.duration_seconds:.1f} s, {size}"),
        ("index.html", "the film, its scenes and their takes, to open in a browser"),
        ("contact_sheet.png", "the scenes at a glance; film.webp: as a moving picture"),
        ("scenes/", names[0] + (f" to {names[-1]}" if count > 1 else "") + "; film.edl, film.otio: for an editor"),
        ("storyboard.yaml", "what was asked for; run.json: how it was made"),
    )
    for name, what in files:
        typer.echo(f"  {name:<18} {what}")
    if record.check is not None:
        typer.echo("")
        for line in table(record.check, numbers=[number for number, _ in record.shown]):
            typer.echo(f"  {line}")
