"""`mask2dit generate`: a storyboard becomes a film folder."""

import re
import shlex
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mask2dit.cli import film_options as film
from mask2dit.cli import model_options as options

if TYPE_CHECKING:
    from mask2dit.production import FilmRecord
    from mask2dit.storyboard import Storyboard

SLUG_LENGTH = 40


def generate(
    storyboard: film.StoryboardArgument,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="The film's folder.", show_default="films/<title>")] = None,
    steps: film.Steps = None,
    guidance: film.Guidance = None,
    seed: Annotated[int, typer.Option(help="Another seed, another film.", min=0)] = 0,
    frames: film.Frames = None,
    height: film.Size = None,
    width: film.Size = None,
    negative_prompt: film.NegativePrompt = None,
    display_scale: Annotated[
        int | None, typer.Option(help="Enlarge by this factor.", show_default="to 480 pixels of height", min=1)
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace whatever film the folder holds.")] = False,
    model: options.Model = None,
    revision: options.Revision = None,
    offline: options.Offline = False,
    inp: options.Inp = False,
    lora: options.Lora = None,
    memory: options.Memory = None,
    weights: options.Weights = "plain",
    device: options.Device = None,
    dtype: options.Dtype = None,
    plan: options.Plan = None,
) -> None:
    """Make a film from a storyboard.

    The same command goes on with a film that was interrupted.
    """
    began = time.perf_counter()
    board, source = film.read_storyboard(storyboard)
    folder = output or Path("films") / _slug(board.title or (source.stem if source else board.scenes[0].prompt))
    if model is None:
        _note_unknown_words(board)

    from mask2dit.cli.progress import shown_notes, shown_progress

    with shown_notes() as console, film.naming(source):
        from mask2dit.production import FilmFolder, FilmSettings

        settings = FilmSettings(seed, height, width, steps, guidance, frames, negative_prompt, display_scale)
        earlier = FilmFolder(folder).check(board, overwrite)
        chosen = options.chosen_model(model, revision, offline, inp, memory, weights, device, dtype)
        from mask2dit.loading import check_film
        from mask2dit.production import make_film

        request = check_film(chosen.folder, board, **settings.asked())
        kept = chosen.choose_memory(request)
        for line in kept.lines() if kept else ():
            console.print(line, highlight=False, markup=False, soft_wrap=True)
        with shown_progress(console) as progress:
            progress.start("loading", 1)
            pipeline = chosen.load(kept, (*request.captions, *request.negative_prompts), plan, lora, offline)
            progress.done()
            record = make_film(pipeline, board, folder, settings, model=model or "built-in", overwrite=overwrite, progress=progress)
    made = f"Made in {time.perf_counter() - began:.1f} s" if record != earlier else "Already made (--overwrite makes it again)"
    typer.echo(f"\n{made}: {folder}")
    _tell(record, folder, storyboard, source)


def _slug(text: str) -> str:
    words = re.sub(r"[\W_]+", "-", re.sub("['’]", "", text.lower())).strip("-")
    return words[:SLUG_LENGTH].rstrip("-") or "film"


def _note_unknown_words(board: "Storyboard") -> None:
    from mask2dit.playhouse.captions import tell_unknown, unknown_words

    unknown = [word for caption in board.captions for word in unknown_words(caption)]
    if unknown:
        typer.echo(f"note: {tell_unknown(unknown)}", err=True)


def _tell(record: "FilmRecord", folder: Path, asked: str, source: Path | None) -> None:
    count = len(record.scenes)
    size = f"{record.width * record.display_scale} by {record.height * record.display_scale} pixels"
    files = (
        ("film.mp4", f"{count} scene{'s' * (count > 1)}, {record.duration_seconds:.1f} s, {size}"),
        ("contact_sheet.png", "the scenes at a glance"),
        ("film.webp", "the film as a moving picture, for a page or a message"),
        ("scenes/", f"{record.scenes[0].video}" + (f" to {record.scenes[-1].video}" if count > 1 else "")),
        ("storyboard.yaml", "what was asked for; run.json: how it was made"),
    )
    for name, what in files:
        typer.echo(f"  {name:<18} {what}")
    seed = max(scene.seed for scene in record.scenes) + 1
    again, written = shlex.quote(asked if source else str(folder / "storyboard.yaml")), shlex.quote(str(folder / "storyboard.yaml"))
    other, edited = shlex.quote(f"{folder}-seed-{seed}"), shlex.quote(f"{folder}-edited")
    typer.echo("\nTry next:")
    typer.echo(f"  mask2dit generate {again} --seed {seed} -o {other}    # another take")
    typer.echo(f"  mask2dit generate {written} -o {edited}    # after you changed that file")
    typer.echo("  mask2dit storyboard --random -o story.yaml    # a new story")
