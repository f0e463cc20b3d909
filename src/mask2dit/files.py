"""Files that are whole or not there: written aside and renamed. No torch."""

import os
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from mask2dit.errors import OutputError

_ASIDE = re.compile(r"\..+\.[0-9a-f]{8}\.part(\..*)?")


def is_aside(path: Path) -> bool:
    """Whether a file has a name of `written_aside`, which a process that was killed leaves."""
    return _ASIDE.fullmatch(path.name) is not None


@contextmanager
def written_aside(path: Path) -> Iterator[Path]:
    """Give a name to write to beside `path`; it takes the place of `path` when the block ends well, and vanishes otherwise.

    Several processes may write one file at a time: each has a name of its own. Raises OutputError, naming `path`, where the system refuses.
    """
    # The suffix stays, for writers choose the format by it.
    part = path.with_name(f".{path.stem}.{secrets.token_hex(4)}.part{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield part
        os.replace(part, path)
    except OSError as error:
        if isinstance(error, OutputError):
            raise
        raise OutputError(f"{path}: cannot be written ({error.strerror or error}); make room or choose another place") from error
    finally:
        with suppress(OSError):
            part.unlink(missing_ok=True)
