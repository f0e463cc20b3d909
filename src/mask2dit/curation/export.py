"""Step 7, export: the kept shots as clips, and the lists that name them: as released (CSV, JSON), our JSON lines, and webdataset shards.

Clips are written at the video's own rate, without black bars, their short side at most `SHORT_SIDE`. A video's clips are read in one go, so
that a frame is decoded once more and no oftener. Whole videos are held out for validation, for shots of one video are alike.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mask2dit.curation.rows import ClipRow, GroupRow, ShotRow, write_if_new
from mask2dit.curation.scanning import Video
from mask2dit.errors import InputError, Mask2DiTError, one_line
from mask2dit.shards import expand, write_shards
from mask2dit.video_files import OpenVideo, open_video, write_video

SHORT_SIDE = 720
CLIPS = "clips"
SPLITS = ("train", "validation")
READ_ON_SECONDS = 30.0  # between two shots: a gap that is decoded rather than skipped, since winding may go back further
CSV_COLUMNS = ("caption", "path", "num_frame", "fps", "width", "height")

Frame = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class ClipUnit:
    """Shots of one video, in order, that one worker writes in one go."""

    video: Video
    shots: tuple[ShotRow, ...]


@dataclass(frozen=True)
class ClipWriter:
    """What a worker does. To be pickled. `root`: the set's folder."""

    root: Path

    def is_done(self, unit: ClipUnit) -> bool:
        return all(_is_there(self.root / clip_path(shot)) for shot in unit.shots)

    def write(self, unit: ClipUnit) -> str:
        """Write what clips are missing. Returns what went wrong, or nothing."""
        missing = [shot for shot in unit.shots if not _is_there(self.root / clip_path(shot))]
        try:
            with open_video(unit.video.path) as opened:
                reader = _Reader(opened)
                for shot in missing:
                    write_video(self.root / clip_path(shot), (inside(frame, shot.bars) for frame in reader.read(shot)), opened.rate)
        except (Mask2DiTError, OSError, MemoryError) as error:
            return one_line(error)
        return ""


class _Reader:
    """Reads shots of a video in order, and winds only over long gaps."""

    def __init__(self, opened: OpenVideo) -> None:
        self._opened = opened
        self._next = 0
        self._frames = opened.frames(short_side=SHORT_SIDE)

    def read(self, shot: ShotRow) -> Iterator[Frame]:
        rate = self._opened.rate
        if shot.start - self._next > READ_ON_SECONDS * rate:
            self._frames, self._next = self._opened.frames(start_seconds=float(shot.start / rate), short_side=SHORT_SIDE), shot.start
        for frame in self._frames:
            self._next += 1
            if self._next > shot.start:
                yield frame
            if self._next == shot.stop:
                return


def inside(frame: Frame, bars: Sequence[float]) -> Frame:
    """A frame without its black bars, of even height and width."""
    height, width = frame.shape[:2]
    top, bottom, left, right = bars
    first_row, last_row = _even(round(top * height), height - round(bottom * height))
    first_column, last_column = _even(round(left * width), width - round(right * width))
    return np.ascontiguousarray(frame[first_row:last_row, first_column:last_column])


def _even(first: int, last: int) -> tuple[int, int]:
    return first, max(first + 1, last - (last - first) % 2)


def clip_path(shot: ShotRow) -> Path:
    """In the set's folder."""
    return Path(CLIPS, shot.digest, f"{shot.start:07d}-{shot.stop:07d}.mp4")


def split_of(digests: Sequence[str], share: float) -> dict[str, str]:
    """Which videos are held out, by digest: a video's own digest decides, so that more footage changes nothing for what was there.

    Of few videos that may be none, or more than the share; one is always left to train on.
    """
    if not 0 <= share < 1:
        raise InputError(f"--validation: got {share:g}, expected a share of the videos from 0 to below 1; for example 0.05")
    chance = {digest: int(digest, 16) / 16 ** len(digest) for digest in dict.fromkeys(digests)}
    highest = max(chance, key=chance.__getitem__, default="")
    return {digest: SPLITS[value < share and digest != highest] for digest, value in chance.items()}


def clip_rows(
    groups: Sequence[GroupRow],
    captions: Mapping[str, Sequence[str]],
    shots: Mapping[str, ShotRow],
    root: Path,
    share: float,
    known: Sequence[ClipRow] = (),
) -> tuple[list[ClipRow], list[str]]:
    """A row for each clip of each group all of whose clips are there, and notes of what was damaged.

    known: rows of an earlier run, whose clips need not be opened. A clip that cannot be read is taken away, so that it is written again.
    """
    splits = split_of([group.digest for group in groups], share)
    sizes = {row.clip: (row.height, row.width) for row in known}
    rows: list[ClipRow] = []
    notes: list[str] = []
    for group in groups:
        members = [shots[name] for name in group.shots]
        found = [_size(root, clip_path(shot), sizes, notes) for shot in members]
        for shot, caption, size in zip(members, captions[group.group], found, strict=True):
            if size is not None and None not in found:
                clip, num_frames = clip_path(shot).as_posix(), shot.stop - shot.start
                rows.append(ClipRow(shot.shot, group.group, splits[group.digest], clip, caption, shot.fps, *size, num_frames))
    return rows, notes


def _size(root: Path, clip: Path, known: Mapping[str, tuple[int, int]], notes: list[str]) -> tuple[int, int] | None:
    """A clip's height and width; None where there is no such clip, or none any more."""
    path = root / clip
    if clip.as_posix() in known and _is_there(path):
        return known[clip.as_posix()]
    if not path.exists():
        return None
    try:
        with open_video(path) as video:
            return video.facts.height, video.facts.width
    except (Mask2DiTError, OSError):
        path.unlink(missing_ok=True)
        notes.append(f"{clip.as_posix()}: the clip was damaged and is gone; run the command again")
        return None


def _is_there(path: Path) -> bool:
    try:
        return path.stat().st_size > 0
    except OSError:
        return False


# The lists


Groups = Sequence[tuple[str, Sequence[ClipRow]]]


def write_lists(root: Path, rows: Sequence[ClipRow], groups_per_shard: int | None, *, keep_old: bool = False) -> list[Path]:
    """Write all lists of both splits, and the shards where they are asked for; what an earlier run left beside them goes.

    A split without groups has no lists. keep_old: it keeps those that it has, for groups may be missing only for now.
    """
    written = []
    for split in SPLITS:
        groups = [(name, list(clips)) for name, clips in groupby((row for row in rows if row.split == split), key=lambda row: row.group)]
        if not groups and keep_old:
            continue
        texts = {"jsonl": _json_lines(groups), "json": _released_json(groups), "csv": _released_csv(groups)}
        for suffix, text in texts.items():
            path = root / f"{split}.{suffix}"
            if groups:
                write_if_new(path, text)
                written.append(path)
            else:
                path.unlink(missing_ok=True)
        written += _write_shards(root, split, groups, groups_per_shard)
    return written


def _write_shards(root: Path, split: str, groups: Groups, groups_per_shard: int | None) -> list[Path]:
    """Write a split's shards, unless they are there as they would be, and take away all others of it."""
    folder = root / "shards"
    count = -(-len(groups) // groups_per_shard) if groups_per_shard else 0
    pattern = str(folder / f"{split}-{{000000..{count - 1:06d}}}.tar")
    paths = expand(pattern) if count else []
    for old in set(folder.glob(f"{split}-*.tar")) - set(paths):
        if re.fullmatch(rf"{split}-\d{{6}}\.tar", old.name):
            old.unlink()
    note = folder / f".{split}.json"  # of what the shards hold
    if groups_per_shard is None or not paths:
        note.unlink(missing_ok=True)
        with suppress(OSError):  # it is not there, or holds what is not ours
            folder.rmdir()
        return []
    holds = _digest(root, groups, groups_per_shard)
    try:
        is_new = json.loads(note.read_text(encoding="utf-8")) != [holds, _sizes(paths)]
    except (OSError, ValueError):
        is_new = True
    if is_new:
        note.unlink(missing_ok=True)
        write_shards(pattern, [[(row.caption, root / row.clip) for row in clips] for _, clips in groups], groups_per_shard)
        write_if_new(note, json.dumps([holds, _sizes(paths)]) + "\n")
    return paths


def _digest(root: Path, groups: Groups, groups_per_shard: int) -> str:
    """Of captions and clips, these by size and date."""

    def stamp(row: ClipRow) -> tuple[str, str, int, int]:
        status = (root / row.clip).stat()
        return row.caption, row.clip, status.st_size, status.st_mtime_ns

    held = [groups_per_shard, [[stamp(row) for row in clips] for _, clips in groups]]
    return hashlib.sha256(json.dumps(held).encode()).hexdigest()


def _sizes(paths: Sequence[Path]) -> list[int]:
    return [path.stat().st_size for path in paths]


def _json_lines(groups: Groups) -> str:
    lines = ({"group": name, "scenes": [{"video": row.clip, "caption": row.caption} for row in clips]} for name, clips in groups)
    return "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)


def _released_json(groups: Groups) -> str:
    entries = [{"prefix": name, "values": [_released(row) for row in clips]} for name, clips in groups]
    return json.dumps(entries, indent=1, ensure_ascii=False) + "\n"


def _released(row: ClipRow) -> dict[str, Any]:
    return {
        "vid": row.shot,
        "width": row.width,
        "height": row.height,
        "duration": round(row.num_frames / row.fps, 3),
        "fps": row.fps,
        "url": row.clip,
        "caption": row.caption,
    }


def _released_csv(groups: Groups) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(CSV_COLUMNS)
    for _, clips in groups:
        writer.writerows((row.caption, row.clip, row.num_frames, row.fps, row.width, row.height) for row in clips)
    return text.getvalue()
