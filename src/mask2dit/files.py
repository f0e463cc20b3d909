"""Files that are whole or not there: written aside and renamed. No torch."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from mask2dit.errors import OutputError


@contextmanager
def written_aside(path: Path) -> Iterator[Path]:
    """Give a name to write to beside `path`; it takes the place of `path` when the block ends well, and vanishes otherwise.

    Raises OutputError, naming `path`, where the system refuses.
    """
    # The suffix stays, for writers choose the format by it; the process is in the name, for several may write one file.
    part = path.with_name(f".{path.stem}.{os.getpid()}.part{path.suffix}")
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
