"""`mask2dit extend`: a film, or any video, goes on."""

import tempfile
import time
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
    from mask2dit.production import Directions
    from mask2dit.production.directing import Film
    from mask2dit.storyboard import Storyboard

FOOTAGE = "For a video that was not made here"


def extend(
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
) -> None:
    """Add scenes at the end of a film, made with the latest scenes known; those stay as they are.

    A video that was not made here is cut into its scenes, of which each needs a caption, and goes on in a new folder.
    """
    if source.is_dir():
        own = {"--captions": captions, "--cuts": cuts, "--output": output, "--seed": seed, "--steps": steps, "--guidance": guidance}
        own |= {"--height": height, "--width": width, "--display-scale": display_scale, "--model": model, "--revision": revision}
        own |= {
            "--inp": inp or None,
            "--lora": lora,
            "--plan": plan,
            "--weights": None if weights == "plain" else weights,
            "--dtype": dtype,
        }
        given = [name for name, value in own.items() if value is not None]
        if given:
            raise InputError(f"{given[0]}: is for a video, and {source} is a film's folder, which goes on as it was made; leave it out")

        def change(opened: "Film") -> "tuple[Storyboard, Directions]":
            from mask2dit.production import Directions
            from mask2dit.production.directing import inserted

            return inserted(opened, len(opened.storyboard.scenes), prompt), Directions(stay=True)

        filming.direct(source, change, offline=offline, memory=memory, device=device, dry_run=dry_run)
        return
    if not source.exists():
        raise InputError(f"{source}: there is no such file, expected a film's folder or a video; check the name")
    if captions is None:
        raise InputError(
            f"--captions: got none, expected what the scenes of {source} show, with ';' between; for example --captions \"a fox walks\""
        )
    began = time.perf_counter()

    from mask2dit.cli.progress import shown_notes

    with shown_notes() as console, tempfile.TemporaryDirectory() as clips:
        from mask2dit.model_folder import model_values
        from mask2dit.production import Directions, FilmSettings, ModelAsked
        from mask2dit.production.footage import check_captions, cut_footage, find_shots
        from mask2dit.storyboard import Storyboard
        from mask2dit.video_shape import VideoShape

        settings = FilmSettings(seed or 0, height, width, steps, guidance, display_scale=display_scale)
        shots = find_shots(source, _seconds(cuts))
        said = [caption.strip() for caption in captions.split(";") if caption.strip()]
        check_captions(shots, said)
        work = filming.start(ModelAsked(model, revision, inp, lora, plan, dtype, weights), console, offline, memory, device)
        values = model_values(work.chosen.folder)
        shape = VideoShape(height or values.height, width or values.width, (1,), values.compression)  # checks the size
        scenes, notes = cut_footage(source, shots, said, values, shape.height, shape.width, Path(clips))
        work.show([f"note: {note}" for note in notes])
        board = Storyboard.from_captions(prompt, title=source.stem)
        board = board.with_scenes([*scenes, *board.scenes])
        folder = output or Path("films") / slug(source.stem)
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
