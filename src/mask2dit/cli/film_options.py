"""What film a command is asked for: its storyboard and its numbers, in one place for all commands; and how its mistakes name the file."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from mask2dit.storyboard import Storyboard

SUFFIXES = (".yaml", ".yml", ".json")
PANEL = "Fewer and cheaper steps"

StoryboardArgument = Annotated[
    str, typer.Argument(help="A storyboard file, captions with ';' between scenes, or a film's folder.", show_default=False)
]
Steps = Annotated[int | None, typer.Option(help="Denoising steps.", show_default="the model's", min=1)]
Guidance = Annotated[float | None, typer.Option(help="How strictly captions are followed; 1 or less: plain.", show_default="the model's")]
Frames = Annotated[int | None, typer.Option(help="Frames per scene, 4k+1.", show_default="the model's", min=1)]
Size = Annotated[int | None, typer.Option(help="Pixels.", show_default="the model's", min=1)]
DisplayScale = Annotated[int | None, typer.Option(help="Enlarge by this factor.", show_default="to 480 pixels of height", min=1)]
Window = Annotated[int | None, typer.Option(help="Scenes made together at most; 1: each by itself.", show_default="the model's", min=1)]
NegativePrompt = Annotated[str | None, typer.Option(help="What to keep away from.", show_default="the model's")]
Solver = Annotated[
    str | None, typer.Option(help="ddim, dpm++, sde-dpm++ or unipc.", show_default="the model's scheduler", rich_help_panel=PANEL)
]
GuidanceInterval = Annotated[
    str | None, typer.Option(help="Guide in this share of the run, such as 0.0-0.6.", show_default="all of it", rich_help_panel=PANEL)
]
StepCache = Annotated[
    str | None, typer.Option(help="Reuse earlier steps; not exact: first-block:0.05, pyramid:2.", show_default=False, rich_help_panel=PANEL)
]


def shortcuts(solver: str | None, guidance_interval: str | None, step_cache: str | None) -> dict[str, Any]:
    """These three as `FilmSettings` takes them; raises InputError for an interval that is none."""
    return {"solver": solver, "guidance_interval": _interval(guidance_interval), "step_cache": step_cache}


def _interval(text: str | None) -> tuple[float, float] | None:
    from mask2dit.errors import InputError

    try:
        if text is None:
            return None
        start, end = text.split("-")
        return float(start), float(end)
    except ValueError:
        raise InputError(
            f"--guidance-interval: got {text!r}, expected two shares of the run from 0 to 1; write for example 0.0-0.6"
        ) from None


def read_storyboard(text: str) -> tuple["Storyboard", Path | None]:
    """The storyboard, and its file if it has one."""
    from mask2dit.storyboard import Storyboard

    path = Path(text)
    if is_film_folder(path):
        from mask2dit.production.directing import open_film

        return open_film(path).storyboard, path / "storyboard.yaml"
    try:
        is_file = path.suffix.lower() in SUFFIXES or path.exists()
    except OSError:  # captions too long for a file name
        is_file = False
    return (Storyboard.read(path), path) if is_file else (Storyboard.from_text(text), None)


def was_given(context: typer.Context, name: str) -> bool:
    """Whether an option was typed, and is not its default."""
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


def is_film_folder(path: Path) -> bool:
    """Whether a film was made there."""
    try:
        return (path / "run.json").is_file()
    except OSError:
        return False


@contextmanager
def naming(source: Path | None) -> Iterator[None]:
    """Put the storyboard's file before what is wrong with one of its scenes."""
    from mask2dit.errors import InputError, StoryboardError

    try:
        yield
    except (InputError, StoryboardError) as error:
        if source is not None and str(error).startswith("scene "):
            raise type(error)(f"{source}: {error}") from None
        raise


def note_unknown_words(*boards: "Storyboard") -> None:
    """Say which words the built-in model has not learnt."""
    from mask2dit.playhouse.captions import tell_unknown, unknown_words

    unknown = [word for board in boards for caption in board.captions for word in unknown_words(caption)]
    if unknown:
        typer.echo(f"note: {tell_unknown(unknown)}", err=True)
