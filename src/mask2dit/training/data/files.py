"""Clips in video files, and the three kinds of list that name them: released CSV, released JSON, our own JSON lines.

Owns the lists' formats. A list that cannot be read is an InputError; a row that cannot be true is a bad clip, and the others go on.
"""

from __future__ import annotations

import csv
import hashlib
import json
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mask2dit.errors import InputError
from mask2dit.training.data.decoding import Stated, Stretch, clip_fingerprint, decode_clip, file_signature
from mask2dit.training.data.scenes import BadClip, ClipError, ClipSettings, FixedScenes

Row = Mapping[str, Any]

CSV_COLUMNS = {"num_frames": "num_frame", "fps": "fps", "width": "width", "height": "height"}
JSON_KEYS = {"width": "width", "height": "height", "duration_seconds": "duration", "fps": "fps"}
GROUP_KEYS = {"group", "scenes"}
SCENE_KEYS = {"video", "caption", "start_seconds", "end_seconds"}


@dataclass(frozen=True, slots=True)
class FileClip:
    """A video file, or a stretch of one; `stated` is what its list says of the whole file."""

    name: str
    path: Path
    caption: str
    start_seconds: float = 0.0
    end_seconds: float | None = None
    stated: Stated = field(default_factory=Stated)

    @property
    def _stretch(self) -> Stretch:
        return Stretch(self.start_seconds, self.end_seconds)

    def check(self) -> None:
        if not self.caption.strip():
            raise ClipError("mis-described", "caption: got none, expected some words; mend the list")
        self.stated.check()
        self._stretch.check()
        self._check_file()

    @property
    def signature(self) -> str:
        return f"{file_signature(self.path)}/{self.start_seconds}/{self.end_seconds}"

    def fingerprint(self) -> str:
        self._check_file()
        try:
            status = self.path.stat()
            digest = _file_digest(self.path, status.st_size, status.st_mtime_ns)
        except OSError as error:
            raise ClipError("unreadable", f"{self.path}: cannot be read ({error.strerror or error}); check the file") from error
        return clip_fingerprint(digest, self._stretch)

    def frames(self, settings: ClipSettings, position: float) -> NDArray[np.uint8]:
        self._check_file()
        return decode_clip(self.path, self.name, settings, position, self.stated, self._stretch)

    def _check_file(self) -> None:
        if not os.path.isfile(self.path):  # unlike Path.is_file, False also where the system balks at the name
            raise ClipError("missing", f"{self.path}: there is no such file; mend the list or put it there")


@lru_cache(maxsize=64)
def _file_digest(path: Path, size: int, changed_ns: int) -> str:
    """Of the bytes; remembered while size and date stay, since one long file may hold many clips."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_clips_csv(path: str | Path, folder: str | Path | None = None) -> FixedScenes:
    """Read the released pre-training list: a header with caption, path, num_frame and maybe fps, width, height; each row stands alone.

    Here and below, paths are relative to `folder` (None: the list's own).
    """
    path = Path(path)
    listed = _Listed(path, folder)
    with _reading(path), path.open(encoding="utf-8-sig", newline="") as file:
        rows = csv.DictReader(file, strict=True)
        try:
            lacking = [column for column in ("caption", "path", "num_frame") if column not in (rows.fieldnames or ())]
            if lacking:
                got = ", ".join(rows.fieldnames or ()) or "an empty file"
                raise InputError(f"{path}: line 1: got {got}, expected a header with caption, path and num_frame; add {', '.join(lacking)}")
            groups = [(listed.clip(row, "path", lambda row: _csv_values(row)),) for row in rows]
        except csv.Error as error:
            raise InputError(f"{path}: line {rows.reader.line_num}: is not CSV ({error}); mend the line") from error
    return _source(path, groups)


def _csv_values(row: Row) -> dict[str, Any]:
    if None in row or None in row.values():
        raise ClipError("mis-described", "got another number of values than the header has columns; quote captions that hold commas")
    if not row["num_frame"].strip():
        raise ClipError("mis-described", "num_frame: got none, expected a positive number; mend the list")
    return {"stated": _stated(row, CSV_COLUMNS)}


def read_groups_json(path: str | Path, folder: str | Path | None = None) -> FixedScenes:
    """Read the released fine-tuning list: [{prefix, values: [{vid, width, height, duration, fps, url, caption}, …]}, …]."""
    path = Path(path)
    listed = _Listed(path, folder)
    with _reading(path):
        data = json.loads(path.read_text(encoding="utf-8-sig"))
    if not isinstance(data, list):
        raise InputError(f"{path}: line 1: got {_kind(data)}, expected a list of groups; write [{{…}}, …]")
    groups = []
    for number, entry in enumerate(data, 1):
        scenes = _objects(entry, "values", f"{path}: group {number}")
        groups.append(tuple(listed.clip(row, "url", lambda row: {"stated": _stated(row, JSON_KEYS)}) for row in scenes))
    return _source(path, groups)


def read_groups_jsonl(path: str | Path, folder: str | Path | None = None) -> FixedScenes:
    """Read our own list, a group per line: {"group": "name", "scenes": [{"video", "caption", "start_seconds", "end_seconds"}, …]}.

    The seconds may be left out: the clip is then the whole file, or what lies before or after.
    """
    path = Path(path)
    listed = _Listed(path, folder)
    groups = []
    with _reading(path):
        text = path.read_text(encoding="utf-8-sig")
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        where = f"{path}: line {number}"
        try:
            entry = json.loads(line)
        except ValueError as error:
            raise InputError(f"{where}: is not JSON ({getattr(error, 'msg', error)}); mend the line") from error
        scenes = _objects(entry, "scenes", where)
        for keys, known in ((entry, GROUP_KEYS), *((scene, SCENE_KEYS) for scene in scenes)):
            if unknown := sorted(set(keys) - known):
                raise InputError(f"{where}: got {', '.join(unknown)}, expected only {', '.join(sorted(known))}; take it out")
        groups.append(tuple(listed.clip(scene, "video", _seconds) for scene in scenes))
    return _source(path, groups)


def _seconds(row: Row) -> dict[str, Any]:
    return {"start_seconds": _number(row, "start_seconds") or 0.0, "end_seconds": _number(row, "end_seconds")}


class _Listed:
    """Makes the clips of one list, with names that tell them apart."""

    def __init__(self, path: Path, folder: str | Path | None) -> None:
        self._folder = path.parent if folder is None else Path(folder)
        self._names: dict[str, int] = {}

    def clip(self, row: Row, path_key: str, values: Callable[[Row], dict[str, Any]]) -> FileClip | BadClip:
        caption = row.get("caption")
        video = row.get(path_key)
        name = self._name(row, video if isinstance(video, str) and video.strip() else f"row without {path_key}")
        try:
            for key, value in (("caption", caption), (path_key, video)):
                if not isinstance(value, str) or not value.strip():
                    got = "none" if value is None or isinstance(value, str) else _kind(value)
                    raise ClipError("mis-described", f"{key}: got {got}, expected some text; mend the list")
            return FileClip(name=name, path=self._folder / str(video), caption=str(caption), **values(row))
        except ClipError as error:
            return BadClip(name=name, kind=error.kind, reason=str(error), caption=caption if isinstance(caption, str) else "")

    def _name(self, row: Row, video: str) -> str:
        name = f"{video} from {row['start_seconds']} s" if row.get("start_seconds") is not None else video
        self._names[name] = times = self._names.get(name, 0) + 1
        return name if times == 1 else f"{name} (listed for the {times}. time)"


def _stated(row: Row, keys: Mapping[str, str]) -> Stated:
    return Stated(**{name: _number(row, key) for name, key in keys.items()})


def _number(row: Row, key: str) -> float | None:
    value = row.get(key)
    if value is None or (isinstance(value, str) and not value.strip()):
        return None
    try:
        number = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not math.isfinite(number):
        raise ClipError("mis-described", f"{key}: got {value!r}, expected a number; mend the list")
    return number


def _objects(entry: Any, key: str, where: str) -> list[dict[str, Any]]:
    scenes = entry.get(key) if isinstance(entry, dict) else None
    if not isinstance(scenes, list) or not scenes or not all(isinstance(scene, dict) for scene in scenes):
        raise InputError(f'{where}: expected an object with "{key}", a list of at least one scene, each an object; mend it')
    return scenes


def _kind(value: Any) -> str:
    return "an object" if isinstance(value, dict) else f"a {type(value).__name__}"


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    try:
        yield
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise InputError(f"{path}: line {line}: is not UTF-8 text; save the list as UTF-8") from error
    except json.JSONDecodeError as error:
        raise InputError(f"{path}: line {error.lineno}: is not JSON ({error.msg}); mend the line") from error
    except RecursionError as error:
        raise InputError(f"{path}: line 1: is nested too deeply, expected a list of groups; mend it") from error
    except OSError as error:
        raise InputError(f"{path}: line 1: cannot be read ({error.strerror or error}), expected a list of clips; check the name") from error


def _source(path: Path, groups: Sequence[tuple[FileClip | BadClip, ...]]) -> FixedScenes:
    if not groups:
        raise InputError(f"{path}: got no clips, expected at least one; add a row")
    return FixedScenes(path.name, tuple(groups))
