"""The account of clips that could not be used: one JSON line each in a file, and counts by kind.

Owns the file and its lines. Whether a clip is bad is decided where it is checked or opened; only one process writes a report.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from mask2dit.errors import OutputError


class ClipReport:
    """Which clips are bad, and why. What an earlier run wrote to `path` is known from the start; None keeps it in memory."""

    def __init__(self, path: str | Path | None = None) -> None:
        self.path = None if path is None else Path(path)
        self.num_clips = 0
        """How many clips there are, good and bad; whoever goes through them sets it."""
        self._kinds: dict[str, str] = {}
        self._line_is_open = False
        if self.path is not None and self.path.exists():
            self._reread(self.path)

    def add(self, name: str, kind: str, reason: str) -> None:
        """Write a bad clip down, unless it is listed already. Raises OutputError."""
        if name in self._kinds:
            return
        self._kinds[name] = kind
        if self.path is None:
            return
        line = json.dumps({"clip": name, "kind": kind, "reason": reason}, ensure_ascii=False)
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("a", encoding="utf-8") as file:
                file.write(("\n" if self._line_is_open else "") + line + "\n")
        except OSError as error:
            raise OutputError(f"{self.path}: cannot be written ({error.strerror or error}); make room or choose another place") from error
        self._line_is_open = False

    def is_bad(self, name: str) -> bool:
        return name in self._kinds

    def counted(self) -> str:
        """Counts by kind, most frequent first: "2 unreadable, 1 short"; empty when nothing is bad."""
        return ", ".join(_count(kind, number) for kind, number in Counter(self._kinds.values()).most_common())

    def summary(self) -> str:
        """One line for people."""
        clips = sum(kind != "short group" for kind in self._kinds.values())
        return f"skipped {clips or 'none'} of {self.num_clips} clips" + (f": {self.counted()}" if self._kinds else "")

    def take_in(self, paths: Iterable[Path]) -> ClipReport:
        """Know also what others have written: data workers to the same file, other devices to theirs."""
        for path in paths:
            self._reread(path)
        return self

    def _reread(self, path: Path) -> None:
        try:
            text = path.read_text(encoding="utf-8", errors="replace")
        except OSError as error:
            raise OutputError(f"{path}: cannot be read ({error.strerror or error}); choose another place for the report") from error
        for line in text.splitlines():
            try:
                entry = json.loads(line)
                self._kinds[str(entry["clip"])] = str(entry["kind"])
            except (ValueError, TypeError, KeyError):
                continue  # half a line, from a run that was killed while it wrote
        self._line_is_open = bool(text) and not text.endswith("\n")


def _count(kind: str, number: int) -> str:
    return f"{number} {kind}{'s' if kind == 'short group' and number > 1 else ''}"
