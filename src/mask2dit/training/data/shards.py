"""Webdataset shards of ours: tar files in which key.json holds {"scenes": [{"caption": …}, …]} and key.0.mp4, key.1.mp4 … their videos.

Owns reading and writing the tar files. They are indexed once and then read by offset, each time through a handle of the moment, so
that any process can read any clip. What a key's videos show is not looked at here.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mask2dit.errors import InputError
from mask2dit.files import written_aside
from mask2dit.training.data.decoding import Stated, Stretch, clip_fingerprint, decode_clip, file_signature
from mask2dit.training.data.scenes import BadClip, ClipError, ClipSettings, FixedScenes

_BRACE = re.compile(r"\{(\d+)\.\.(\d+)\}")
_VIDEO = re.compile(r"(\d+)\.\w+")
_WHOLE = Stretch()


@dataclass(frozen=True, slots=True)
class ShardClip:
    """A video in a tar file, from byte `offset` on."""

    name: str
    shard: Path
    offset: int
    num_bytes: int
    caption: str

    def check(self) -> None:
        if not self.caption.strip():
            raise ClipError("mis-described", "caption: got none, expected some words; write the shard again")
        if not self.shard.is_file():
            raise ClipError("missing", f"{self.shard}: there is no such file any more; put it back")

    @property
    def signature(self) -> str:
        return f"{file_signature(self.shard)}/{self.offset}"

    def fingerprint(self) -> str:
        return clip_fingerprint(hashlib.sha256(self._read()).hexdigest(), _WHOLE)

    def frames(self, settings: ClipSettings, position: float) -> NDArray[np.uint8]:
        return decode_clip(io.BytesIO(self._read()), self.name, settings, position, Stated(), _WHOLE)

    def _read(self) -> bytes:
        self.check()
        try:
            with self.shard.open("rb") as file:
                file.seek(self.offset)
                content = file.read(self.num_bytes)
        except OSError as error:
            raise ClipError("unreadable", f"{self.shard}: cannot be read ({error.strerror or error}); check the file") from error
        if len(content) < self.num_bytes:
            raise ClipError(
                "unreadable", f"{self.shard}: got {len(content)} bytes of {self.num_bytes}; the shard is cut off, write it again"
            )
        return content


def read_shards(shards: str | Path | Sequence[str | Path]) -> FixedScenes:
    """Index shards given as a list of paths, or as one pattern such as train-{000000..000003}.tar; a group per key."""
    paths = expand(str(shards)) if isinstance(shards, str | Path) else [Path(shard) for shard in shards]
    if not paths:
        raise InputError("shards: got none, expected at least one tar file; name some")
    for path in paths:
        if not path.is_file():
            raise InputError(f"{path}: there is no such file, expected a shard; check the name")
    groups = [group for path in paths for group in _shard_groups(path)]
    name = str(shards) if isinstance(shards, str | Path) else f"{paths[0]} and {len(paths) - 1} more" if len(paths) > 1 else str(paths[0])
    if not groups:
        raise InputError(f"{name}: got no groups, expected at least one key.json with its videos; write the shards again")
    return FixedScenes(name, tuple(groups))


def expand(pattern: str) -> list[Path]:
    """The paths of a pattern with one numeric brace, {000000..000003}; without one the pattern is a path."""
    braces = list(_BRACE.finditer(pattern))
    if not braces and not {"{", "}"} & set(pattern):
        return [Path(pattern)]
    first, last = (int(text) for text in braces[0].groups()) if len(braces) == 1 else (1, 0)
    if first > last:
        raise InputError(f"shards: got {pattern}, expected one range such as {{000000..000003}}; mend it or list the files")
    width = len(braces[0][1])
    return [Path(f"{pattern[: braces[0].start()]}{number:0{width}d}{pattern[braces[0].end() :]}") for number in range(first, last + 1)]


def _shard_groups(shard: Path) -> Iterator[tuple[ShardClip | BadClip, ...]]:
    """A group per key, in the order of the keys, and one clip of no use for whatever lies behind a break."""
    members, flaw = _index(shard)
    keys: dict[str, dict[str, tarfile.TarInfo]] = {}
    for member in members:
        folder, _, base = member.name.rpartition("/")
        stem, _, ending = base.partition(".")
        keys.setdefault(f"{folder}/{stem}" if folder else stem, {})[ending] = member
    for key, endings in keys.items():
        yield _key_group(shard, key, endings)
    if flaw:
        yield (
            BadClip(str(shard), "unreadable", f"{flaw} after {len(members)} whole members, what follows is lost; write the shard again"),
        )


def _index(shard: Path) -> tuple[list[tarfile.TarInfo], str]:
    """The members that are there whole, and what is wrong with the rest (or nothing)."""
    members: list[tarfile.TarInfo] = []
    end = 0
    try:
        with shard.open("rb") as file, tarfile.open(fileobj=file, mode="r:") as archive:
            num_bytes = shard.stat().st_size
            for member in archive:
                end = member.offset_data + -(-member.size // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE
                if member.isreg() and member.offset_data + member.size <= num_bytes:
                    members.append(member)
            file.seek(end)
            # tarfile takes a break between two members for the end; a whole archive has an empty block there.
            whole = file.read(tarfile.BLOCKSIZE) == bytes(tarfile.BLOCKSIZE)
    except (tarfile.TarError, OSError, ValueError) as error:
        return members, f"{shard.name}: breaks off ({error})"
    return members, "" if whole else f"{shard.name}: breaks off"


def _key_group(shard: Path, key: str, endings: dict[str, tarfile.TarInfo]) -> tuple[ShardClip | BadClip, ...]:
    name = f"{shard}/{key}"
    videos = {int(match[1]): member for ending, member in endings.items() if (match := _VIDEO.fullmatch(ending))}
    try:
        captions = _captions(shard, endings["json"])
    except KeyError:
        return (BadClip(name, "mis-described", f"got no {key}.json, expected one with the captions; write the shard again"),)
    except (OSError, ValueError, TypeError) as error:
        return (
            BadClip(name, "mis-described", f'{key}.json: expected {{"scenes": [{{"caption": …}}, …]}}, got {error}; write the shard again'),
        )
    clips: list[ShardClip | BadClip] = []
    for index, caption in enumerate(captions):
        if index in videos:
            member = videos[index]
            clips.append(ShardClip(f"{shard}/{member.name}", shard, member.offset_data, member.size, caption))
        else:
            clips.append(BadClip(f"{name}.{index}", "missing", f"the shard holds no {key}.{index}.mp4; write it again", caption))
    return tuple(clips)


def _captions(shard: Path, member: tarfile.TarInfo) -> list[str]:
    with shard.open("rb") as file:
        file.seek(member.offset_data)
        data = json.loads(file.read(member.size))
    scenes = data.get("scenes") if isinstance(data, dict) else None
    if not isinstance(scenes, list) or not scenes:
        raise ValueError("no scenes")
    captions = [scene.get("caption") if isinstance(scene, dict) else None for scene in scenes]
    return [caption if isinstance(caption, str) else "" for caption in captions]


def write_shards(pattern: str, groups: Sequence[Sequence[tuple[str, str | Path]]], groups_per_shard: int) -> list[Path]:
    """Pack groups of (caption, video path) into the shards of a pattern, in order; the same input gives the same bytes.

    The pattern must name as many shards as there are groups for, so that the same pattern reads them again.
    """
    if groups_per_shard < 1 or not groups:
        raise InputError(f"shards: got {len(groups)} groups, {groups_per_shard} per shard, expected at least one of each")
    paths = expand(pattern)
    num_shards = -(-len(groups) // groups_per_shard)
    if len(paths) != num_shards:
        needed = f"{len(groups)} groups, {groups_per_shard} per shard, need {num_shards}"
        raise InputError(f"{pattern}: names {len(paths)} shards, {needed}; for example train-{{000000..{num_shards - 1:06d}}}.tar")
    for number, path in enumerate(paths):
        first = number * groups_per_shard
        with written_aside(path) as part, tarfile.open(part, "w", format=tarfile.PAX_FORMAT) as archive:
            for index, group in enumerate(groups[first : first + groups_per_shard], first):
                _add_group(archive, f"{index:08d}", group)
    return paths


def _add_group(archive: tarfile.TarFile, key: str, group: Sequence[tuple[str, str | Path]]) -> None:
    captions = {"scenes": [{"caption": caption} for caption, _ in group]}
    _add(archive, f"{key}.json", json.dumps(captions, ensure_ascii=False).encode())
    for index, (_, video) in enumerate(group):
        try:
            content = Path(video).read_bytes()
        except OSError as error:
            raise InputError(f"{video}: cannot be read ({error.strerror or error}), expected a video; check the name") from error
        _add(archive, f"{key}.{index}{Path(video).suffix or '.mp4'}", content)


def _add(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)  # date, owner and group are 0 unless set
    member.size = len(content)
    archive.addfile(member, io.BytesIO(content))
