"""`mask2dit storyboard`: write one to start from, or check one."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from mask2dit.cli.words import BUILT_IN_LEVEL


class Style(StrEnum):
    """How captions name characters."""

    SELF_CONTAINED = "self-contained"
    BY_REFERENCE = "by-reference"


def storyboard(
    file: Annotated[Path | None, typer.Argument(help="A storyboard to check.", show_default=False)] = None,
    random: Annotated[bool, typer.Option("--random", help="Write a new one in the built-in model's words.")] = False,
    seed: Annotated[int | None, typer.Option(help="Which random story.", min=0, show_default="a new one each time")] = None,
    scenes: Annotated[int, typer.Option(help="How many scenes.", min=1, max=100)] = 3,
    style: Annotated[Style, typer.Option(help="Every caption in full, or later ones by name.")] = Style.SELF_CONTAINED,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Write to this file.", show_default="show it")] = None,
) -> None:
    """Check a storyboard, or write a random one to start from."""
    from mask2dit.errors import InputError

    if random == (file is not None):
        raise InputError(
            "storyboard: expected a file to check, or --random to write one; for example `mask2dit storyboard --random -o story.yaml`"
        )
    if file is not None:
        _check(file)
        return
    _write_random(seed, scenes, style, output)


def _check(file: Path) -> None:
    from mask2dit.playhouse.captions import unknown_words
    from mask2dit.storyboard import Storyboard

    board = Storyboard.read(file)
    typer.echo(f"{file}: {len(board.scenes)} scenes are well written")
    for number, caption in enumerate(board.captions, start=1):
        typer.echo(f"  {number}. {' '.join(caption.split())}")
        unknown = unknown_words(caption)
        if unknown:
            typer.echo(f"     the built-in model does not know: {', '.join(dict.fromkeys(unknown))}")


def _write_random(seed: int | None, scenes: int, style: Style, output: Path | None) -> None:
    from secrets import randbelow

    from mask2dit.errors import InputError
    from mask2dit.playhouse.captions import random_storyboard
    from mask2dit.storyboard import Storyboard

    if output is not None and output.exists():
        raise InputError(f"{output}: exists already, expected a new file; choose another name")
    board = Storyboard.from_data(random_storyboard(randbelow(10_000) if seed is None else seed, BUILT_IN_LEVEL, style.value, scenes))
    if output is None:
        typer.echo(board.to_yaml(), nl=False)
        return
    board.write(output)
    typer.echo(f"Wrote {output}. Make its film:\n  mask2dit generate {output}")
