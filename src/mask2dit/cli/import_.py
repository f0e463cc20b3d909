"""`mask2dit import`: the storyboard of another tool becomes one of ours."""

import shlex
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from mask2dit.cli.files import Overwrite, check_new


class Format(StrEnum):
    """Names in the foreign formats; a test holds them to `foreign_storyboards.FORMATS`."""

    AUTO = "auto"
    STORYMEM = "storymem"
    HOLOCINE = "holocine"
    HOLOCINE_STRING = "holocine-string"
    LIST = "list"
    WAN2GP = "wan2gp"


def import_(
    file: Annotated[Path, typer.Argument(help="A storyboard of StoryMem, HoloCine or Wan2GP, or a list of prompts.", show_default=False)],
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Write to this file.", show_default="show it")] = None,
    format: Annotated[Format, typer.Option("--format", help="The file's format; auto: by its content.")] = Format.AUTO,
    fps: Annotated[
        float | None,
        typer.Option("--fps", help="Frame rate of the file's frame counts: they become seconds.", show_default="they stay counts"),
    ] = None,
    overwrite: Overwrite = False,
) -> None:
    """Turn the storyboard of another tool into one of ours.

    What cannot be carried over is told in notes.
    """
    from mask2dit.foreign_storyboards import FORMATS, read_foreign

    check_new(output, overwrite)
    imported = read_foreign(file, format.value, fps)
    title, count = FORMATS[imported.format].title, len(imported.storyboard.scenes)
    for note in (f"read as {title}: {count} scene{'s' * (count > 1)}", *imported.notes):
        typer.echo(f"note: {note}", err=True)
    if output is None:
        typer.echo(imported.storyboard.to_yaml(), nl=False)
        return
    imported.storyboard.write(output)
    typer.echo(f"Wrote {output}. Make its film:\n  mask2dit generate {shlex.quote(str(output))}")
