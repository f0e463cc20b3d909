"""`mask2dit extend`: a film, or any video, goes on."""

import tempfile
import time
from dataclasses import dataclass, field
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mask2dit.cli import film_options as film
from mask2dit.cli import filming
from mask2dit.cli import model_options as options
from mask2dit.cli.generate import slug
from mask2dit.errors import InputError

if TYPE_CHECKING:
    from mask2dit.production import Directions, FilmSettings
    from mask2dit.production.directing import Film
    from mask2dit.production.footage import Shot
    from mask2dit.storyboard import Storyboard

FOOTAGE = "For a video that was not made here"


FOR_FILMS = ("source", "prompt", "dry_run", "offline", "memory", "device", "attention", "compiled")


def extend(
    context: typer.Context,
    source: Annotated[Path, typer.Argument(help="A film's folder, or a video.", show_default=False)],
    prompt: Annotated[list[str], typer.Option(help="What a new scene shows; may be given several times.", show_default=False)],
    dry_run: filming.DryRun = False,
    captions: Annotated[
        str | None, typer.Option(help="What the video's scenes show, with ';' between.", show_default=False, rich_help_panel=FOOTAGE)
    ] = None,
    cuts: Annotated[
        str | None, typer.Option(help="Where its scenes begin, as 2.5,4: seconds.", show_default="detected", rich_help_panel=FOOTAGE)
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="The new film's folder.", show_default="films/<video>", rich_help_panel=FOOTAGE)
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Of the new scenes.", min=0, show_default="0", rich_help_panel=FOOTAGE)] = None,
    steps: film.Steps = None,
    guidance: film.Guidance = None,
    height: film.Size = None,
    width: film.Size = None,
    display_scale: film.DisplayScale = None,
    solver: film.Solver = None,
    guidance_interval: film.GuidanceInterval = None,
    step_cache: film.StepCache = None,
    model: options.Model = None,
    revision: options.Revision = None,
    inp: options.Inp = False,
    lora: options.Lora = None,
    plan: options.Plan = None,
    weights: options.Weights = "plain",
    dtype: options.Dtype = None,
    offline: options.Offline = False,
    memory: options.Memory = None,
    device: options.Device = None,
    attention: options.Attention = "auto",
    compiled: options.Compile = False,
) -> None:
    """Add scenes at the end of a film, made with the latest scenes known; those stay as they are.

    A video that was not made here is cut into its scenes, of which each needs a caption, and goes on in a new folder.
    """
    computing = options.Computing(offline, memory, device, attention, compiled)
    if source.is_dir():
        given = [name for name in context.params if name not in FOR_FILMS and film.was_given(context, name)]
        if given:
            option = f"--{given[0].replace('_', '-')}"
            raise InputError(f"{option}: is for a video, and {source} is a film's folder, which goes on as it was made; leave it out")
        _extend_film(source, prompt, computing, dry_run)
        return
    if not source.exists():
        raise InputError(f"{source}: there is no such file, expected a film's folder or a video; check the name")
    if captions is None:
        raise InputError(f"--captions: got none, expected what the scenes of {source} show; write them with ';' between")

    from mask2dit.cli.progress import shown_notes

    with shown_notes() as console:
        from mask2dit.production import FilmSettings, ModelAsked

        footage = Footage(source, [each.strip() for each in captions.split(";") if each.strip()], _seconds(cuts))
        cheaper = film.shortcuts(solver, guidance_interval, step_cache)
        settings = FilmSettings(seed or 0, height, width, steps, guidance, display_scale=display_scale, **cheaper)
        asked = ModelAsked(model, revision, inp, lora, plan, dtype, weights)
        footage.check()
        work = filming.start(asked, console, computing)
        _extend_footage(work, footage, prompt, output or Path("films") / slug(source.stem), settings, dry_run)


def _extend_film(folder: Path, prompts: list[str], computing: options.Computing, dry_run: bool) -> None:
    def change(opened: "Film") -> "tuple[Storyboard, Directions]":
        from mask2dit.production import Directions
        from mask2dit.production.directing import inserted

        return inserted(opened, len(opened.storyboard.scenes), prompts), Directions(stay=True)

    filming.direct(folder, change, computing, dry_run=dry_run)


@dataclass
class Footage:
    """A video that was not made here, what its scenes show, and where they begin if somebody said so."""

    video: Path
    captions: list[str]
    cuts_seconds: list[float] | None
    shots: "list[Shot]" = field(init=False)

    def check(self) -> None:
        """Find its scenes; raises InputError unless each has a caption."""
        from mask2dit.production.footage import check_captions, find_shots

        self.shots = find_shots(self.video, self.cuts_seconds)
        check_captions(self.shots, self.captions)


def _extend_footage(
    work: filming.Filming, footage: Footage, prompts: list[str], folder: Path, settings: "FilmSettings", dry_run: bool
) -> None:
    """A film folder of given scenes and new ones."""
    from mask2dit.model_folder import model_values
    from mask2dit.production import Directions
    from mask2dit.production.footage import cut_footage
    from mask2dit.storyboard import Storyboard
    from mask2dit.video_shape import VideoShape

    began, values = time.perf_counter(), model_values(work.chosen.folder)
    shape = VideoShape(settings.height or values.height, settings.width or values.width, (1,), values.compression)  # checks the size
    with tempfile.TemporaryDirectory() as clips:
        scenes, notes = cut_footage(footage.video, footage.shots, footage.captions, values, shape.height, shape.width, Path(clips))
        work.show([f"note: {note}" for note in notes])
        board = Storyboard.from_captions(prompts, title=footage.video.stem)
        board = board.with_scenes([*scenes, *board.scenes])
        if dry_run:
            typer.echo("\n".join(work.prepare(board, folder, settings, Directions(), Path(clips)).lines()))
            return
        record = work.make(board, folder, settings, Directions(), Path(clips))
    typer.echo(f"\nMade in {time.perf_counter() - began:.1f} s: {folder}")
    filming.tell(record, folder)


def _seconds(text: str | None) -> list[float] | None:
    try:
        found = None if text is None else [float(part) for part in text.split(",") if part.strip()]
        if found is None or all(map(isfinite, found)):
            return found
        raise ValueError
    except ValueError:
        raise InputError(f"--cuts: got {text!r}, expected seconds with ',' between; for example --cuts 2.5,4") from None
