"""`mask2dit export`: a storyboard of ours becomes one for another tool."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from mask2dit.cli.files import Overwrite, check_new, write_text
from mask2dit.cli.import_ import Format


class Target(StrEnum):
    """Every format but auto."""

    STORYMEM = Format.STORYMEM
    HOLOCINE = Format.HOLOCINE
    HOLOCINE_STRING = Format.HOLOCINE_STRING
    LIST = Format.LIST
    WAN2GP = Format.WAN2GP


def export(
    storyboard: Annotated[Path, typer.Argument(help="A storyboard file.", show_default=False)],
    format: Annotated[Target, typer.Option("--format", help="What to write.", show_default=False)],
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Write to this file.", show_default="show it")] = None,
    fps: Annotated[
        float | None, typer.Option("--fps", help="Frame rate, where frames have to become seconds or seconds frames.", show_default="none")
    ] = None,
    overwrite: Overwrite = False,
) -> None:
    """Write a storyboard as another tool reads it.

    What has no place in that format is told in notes.
    """
    from mask2dit.foreign_storyboards import write_foreign
    from mask2dit.storyboard import Storyboard

    check_new(output, overwrite)
    exported = write_foreign(Storyboard.read(storyboard), format.value, fps)
    for note in exported.notes:
        typer.echo(f"note: {note}", err=True)
    if output is None:
        typer.echo(exported.text, nl=False)
        return
    write_text(output, exported.text)
    typer.echo(f"Wrote {output}")
