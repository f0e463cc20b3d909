"""Result files of the small commands: none is replaced unless that was asked for, and none is left half written."""

from pathlib import Path
from typing import Annotated

import typer

Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace the file if it exists.")]


def check_new(path: Path | None, overwrite: bool) -> None:
    """Raise InputError if a result would replace a file unasked; call before the work."""
    from mask2dit.errors import InputError

    if path is not None and path.is_dir():
        raise InputError(f"{path}: is a folder, expected a file to write; name a file in it")
    if path is not None and path.exists() and not overwrite:
        raise InputError(f"{path}: exists already, expected a new file; choose another name, or add --overwrite")


def write_text(path: Path, text: str) -> None:
    """Write a whole file or none; half characters are written as escapes."""
    from mask2dit.files import written_aside

    with written_aside(path) as part:
        part.write_text(text, encoding="utf-8", errors="backslashreplace")
