"""Step 1, pieces: which videos there are, and where each may be cut into pieces of about ten minutes that are worked at side by side.

A piece begins at a keyframe, so that no frame before it has to be decoded. Nothing is decoded here but each video's first picture. A
file of which nothing can be made is a row with its problem; two files of the same bytes count once.
"""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from hashlib import file_digest
from pathlib import Path

from mask2dit.curation.rows import VideoRow
from mask2dit.errors import InputError, Mask2DiTError
from mask2dit.video_files import TIMESTAMP_TOLERANCE, open_video

SUFFIXES = (
    *(".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".ts", ".mts", ".m2ts", ".vob"),
    *(".flv", ".wmv", ".mxf", ".3gp", ".ogv", ".mjpeg"),
)
"""Files of a folder that are taken for videos; a file that is named itself may have any."""

OF_A_SET = frozenset({"clips", "work", "steps", "shards", "captions"})
"""Folders in a set's folder that hold what we have written."""

SHORTEST_LAST = 0.1  # of a piece; a shorter rest belongs to the piece before


@dataclass(frozen=True, slots=True)
class Footage:
    """A file to be looked at, or a place that cannot be: `problem` says why."""

    path: Path
    name: str
    problem: str = ""


def find_footage(places: Sequence[Path], without: Path | None = None) -> list[Footage]:
    """Files as they are named, and all videos in folders and in folders of those, sorted by name; no two have one name.

    What a set holds of its own, its clips above all, is no footage, wherever it lies. without: the folder of a set to be, whose own
    folders are left out as those of a set. Raises InputError where there is no footage.
    """
    own = "" if without is None else os.path.realpath(without)
    found: dict[Path, tuple[Footage, str]] = {}
    for place in places:
        if not os.path.lexists(place):
            raise InputError(f"{place}: there is no such file or folder, expected footage; check the name")
        path = Path(os.path.abspath(place))
        if _is_of_a_set(path, own):
            continue
        for each in _inside(path, own) if path.is_dir() else [Footage(path, path.name)]:
            found.setdefault(each.path, (each, path.name if path.is_dir() else path.parent.name))
    if not found:
        named = ", ".join(map(str, places))
        raise InputError(f"{named}: holds no footage, expected videos ({', '.join(SUFFIXES[:5])} …); name another folder")
    return sorted(_named_apart(list(found.values())), key=lambda each: each.name)


def _inside(folder: Path, own: str) -> Iterator[Footage]:
    refused: list[OSError] = []
    for place, folders, names in os.walk(folder, onerror=refused.append):
        left_out = OF_A_SET if _is_set(place, own) else ()
        folders[:] = sorted(each for each in folders if not each.startswith(".") and each not in left_out)
        for name in sorted(names):
            path = Path(place, name)
            if not name.startswith(".") and path.suffix.lower() in SUFFIXES:
                yield Footage(path, _name(path, folder))
    for error in refused:
        path = Path(os.fsdecode(error.filename))
        yield Footage(path, _name(path, folder), f"the folder cannot be read ({error.strerror}); allow it, or leave it out")


def _name(path: Path, folder: Path) -> str:
    return str(path.relative_to(folder)) if path != folder else path.name


def _is_set(folder: str | Path, own: str) -> bool:
    return os.path.isfile(os.path.join(folder, "steps", VideoRow.FILE)) or os.path.realpath(folder) == own


def _is_of_a_set(path: Path, own: str) -> bool:
    """Whether it is one of a set's own folders, or in one; links are followed, and are not."""
    for whole in {path, Path(os.path.realpath(path))}:
        inner = whole
        for folder in whole.parents:
            if inner.name in OF_A_SET and _is_set(folder, own):
                return True
            inner = folder
    return False


def _named_apart(found: Sequence[tuple[Footage, str]]) -> Iterator[Footage]:
    """Where names are alike, the given folder's name is put in front, and where that is not enough, the whole path."""
    short = Counter(each.name for each, _ in found)
    longer = [each.name if short[each.name] == 1 else str(Path(given, each.name)) for each, given in found]
    count = Counter(longer)
    for (each, _), name in zip(found, longer, strict=True):
        yield replace(each, name=name if count[name] == 1 else str(each.path))


def look_into(footage: Sequence[Footage], piece_seconds: float, known: Sequence[VideoRow], step: Callable[[], None]) -> list[VideoRow]:
    """A row for each file, in order. known: rows of an earlier run; a file that has not changed since is not read again."""
    # A digest is of a video that can be used, though it may have been left out as the second of its bytes.
    before = {(row.video, row.stamp): replace(row, problem="") for row in known if row.digest}
    rows: list[VideoRow] = []
    first_of: dict[str, VideoRow] = {}
    for each in footage:
        row = _row(each, piece_seconds, before)
        if not row.problem:
            twin = first_of.setdefault(row.digest, row)
            if twin is not row:
                row = replace(row, problem=f"holds the same bytes as {twin.name}, which counts")
        rows.append(row)
        step()
    return rows


def _row(footage: Footage, piece_seconds: float, known: dict[tuple[str, str], VideoRow]) -> VideoRow:
    path = footage.path
    try:
        str(path).encode()
    except UnicodeEncodeError:
        shown = str(path).encode("utf-8", "backslashreplace").decode()
        return _problem(shown, footage.name.encode("utf-8", "backslashreplace").decode(), "its name is not UTF-8; rename it")
    if footage.problem:
        return _problem(str(path), footage.name, footage.problem)
    try:
        status = path.stat()
        stamp = f"{status.st_size}/{status.st_mtime_ns}/{piece_seconds:g}"
        if (row := known.get((str(path), stamp))) is not None:
            return replace(row, name=footage.name)
        if not status.st_size:
            return _problem(str(path), footage.name, "the file is empty; get it again", stamp)
        with path.open("rb") as file:
            digest = file_digest(file, "sha256").hexdigest()[:16]
        with open_video(path) as video:
            facts, rate, stated = video.facts, video.rate, video.stated_seconds
            if min(facts.height, facts.width) < 1 or not facts.duration_seconds > 0:
                return _problem(str(path), footage.name, "has no size or no length, expected a video; get it again", stamp)
            starts = _starts(video.keyframes(piece_seconds), rate, facts.duration_seconds, piece_seconds)
    except OSError as error:
        return _problem(str(path), footage.name, f"cannot be read ({error.strerror or error}); allow it, or leave it out")
    except Mask2DiTError as error:
        return _problem(str(path), footage.name, str(error).removeprefix(f"{path}: "))
    num_frames = round(stated * rate)
    return VideoRow(str(path), footage.name, digest, stamp, float(rate), facts.height, facts.width, num_frames, starts)


def _starts(keyframes: Sequence[float], rate: Fraction, seconds: float, piece_seconds: float) -> tuple[int, ...]:
    """First frames of pieces: the first frame that shows each keyframe, but for those too near to another or to the end."""
    starts = [0]
    for key in keyframes[1:]:
        start = math.ceil((key - TIMESTAMP_TOLERANCE) * rate)
        if min(start - starts[-1], seconds * rate - start) >= SHORTEST_LAST * piece_seconds * rate:
            starts.append(start)
    return tuple(starts)


def _problem(video: str, name: str, problem: str, stamp: str = "") -> VideoRow:
    return VideoRow(video, name, "", stamp, 0.0, 0, 0, 0, (), problem)
