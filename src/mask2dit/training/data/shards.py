"""Webdataset shards of ours: tar files in which key.json holds {"scenes": [{"caption": …}, …]} and key.0.mp4, key.1.mp4 … their videos.

Owns reading the tar files; `mask2dit.shards` writes them. They are indexed once and then read by offset, each time through a handle of the
moment, so that any process can read any clip. What a key's videos show is not looked at here.
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
from mask2dit.shards import expand
from mask2dit.training.data.decoding import Stated, Stretch, clip_fingerprint, decode_clip, file_signature
from mask2dit.training.data.scenes import BadClip, ClipError, ClipSettings, FixedScenes

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
