"""`mask2dit generate`: a storyboard becomes a film folder."""

import re
import shlex
import time
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mask2dit.cli import film_options as film
from mask2dit.cli import filming
from mask2dit.cli import model_options as options

if TYPE_CHECKING:
    from mask2dit.production import FilmRecord, FilmSettings
    from mask2dit.production.record import ModelAsked

SLUG_LENGTH = 40


def generate(
    storyboard: film.StoryboardArgument,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="The film's folder.", show_default="films/<title>")] = None,
    steps: film.Steps = None,
    guidance: film.Guidance = None,
    seed: Annotated[int | None, typer.Option(help="Another seed, another film.", min=0, show_default="0")] = None,
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
    retry_below: filming.RetryBelow = None,
    retries: filming.Retries = 3,
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
) -> None:
    """Make a film from a storyboard, or go on with one.

    The same command goes on with a film that was interrupted, and makes what changed in its storyboard; the rest stays.
    A film's folder in place of a storyboard means the one in it, with the options that the film was made with.
    """
    began = time.perf_counter()
    board, source = film.read_storyboard(storyboard)
    place = Path(storyboard) if film.is_film_folder(Path(storyboard)) else None
    folder = output or place or Path("films") / slug(board.title or (source.stem if source else board.scenes[0].prompt))

    from mask2dit.cli.progress import shown_notes

    with shown_notes() as console, film.naming(source):
        from mask2dit.production import Directions, FilmSettings, ModelAsked
        from mask2dit.production.directing import open_film

        cheaper = film.shortcuts(solver, guidance_interval, step_cache)
        settings = FilmSettings(seed or 0, height, width, steps, guidance, frames, negative_prompt, display_scale, window, **cheaper)
        asked = ModelAsked(model, revision, inp, lora, plan, dtype, weights)
        if place is not None and not (fresh and output):
            earlier = open_film(place).record
            settings, asked = _merged(earlier.settings, settings, seed), _merged_model(earlier.asked, asked)
        if asked.model is None:
            film.note_unknown_words(board)
        work = filming.start(asked, console, options.Computing(offline, memory, device, attention, compiled))
        directions = Directions(fresh=fresh, subtitles=subtitles)
        base = source.parent if source else Path()
        if dry_run:
            typer.echo("\n".join(work.prepare(board, folder, settings, directions, base).lines()))
            return
        record = work.make(board, folder, settings, directions, base)
        was_there = work.found_complete
        if retry_below is not None:
            record = work.retry(record, folder, retry_below, retries)
    made = "Nothing changed; nothing made (--fresh makes it again)" if was_there else f"Made in {time.perf_counter() - began:.1f} s"
    typer.echo(f"\n{made}: {folder}")
    filming.tell(record, folder)
    _suggest(record, folder, storyboard if source or place else str(folder / "storyboard.yaml"))


def _merged(earlier: "FilmSettings", given: "FilmSettings", seed: int | None) -> "FilmSettings":
    """What was given goes before what the film was made with."""
    changes: dict[str, Any] = {field.name: value for field in fields(given) if (value := getattr(given, field.name)) is not None}
    return replace(earlier, **{**changes, "seed": earlier.seed if seed is None else seed})


def _merged_model(earlier: "ModelAsked", given: "ModelAsked") -> "ModelAsked":
    changes: dict[str, Any] = {name: value for name in ("model", "revision", "lora", "plan", "dtype") if (value := getattr(given, name))}
    changes |= {"inp": True} if given.inp else {}
    changes |= {"weights": given.weights} if given.weights != "plain" else {}
    return replace(earlier, **changes)


def slug(text: str) -> str:
    """A title as the name of a folder."""
    words = re.sub(r"[\W_]+", "-", re.sub("['’]", "", text.lower())).strip("-")
    return words[:SLUG_LENGTH].rstrip("-") or "film"


def _suggest(record: "FilmRecord", folder: Path, source: str) -> None:
    place, seed = shlex.quote(str(folder)), max(scene.inputs.seed for scene in record.scenes) + 1
    last = len(record.scenes)
    typer.echo("\nTry next:")
    typer.echo(f"  mask2dit remake {place} --scene {last} --seeds 3    # other takes of scene {last}, the others stay")
    typer.echo(f"  mask2dit extend {place} --prompt {shlex.quote(record.scenes[0].prompt)}    # one scene more")
    typer.echo(f"  mask2dit generate {shlex.quote(source)} --seed {seed} -o {shlex.quote(f'{folder}-seed-{seed}')}    # another film")
