"""The storyboard that a command is given: a file, or captions; and how its mistakes name it."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from mask2dit.storyboard import Storyboard

SUFFIXES = (".yaml", ".yml", ".json")

StoryboardArgument = Annotated[str, typer.Argument(help="A storyboard file, or captions with ';' between scenes.", show_default=False)]


def read_storyboard(text: str) -> tuple["Storyboard", Path | None]:
    """The storyboard, and its file if it has one."""
    from mask2dit.storyboard import Storyboard

    path = Path(text)
    try:
        is_file = path.suffix.lower() in SUFFIXES or path.exists()
    except OSError:  # captions too long for a file name
        is_file = False
    return (Storyboard.read(path), path) if is_file else (Storyboard.from_text(text), None)


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
