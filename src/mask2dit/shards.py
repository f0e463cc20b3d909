"""Webdataset shards of ours, written: tar files in which key.json holds {"scenes": [{"caption": …}, …]}, and key.0.mp4, key.1.mp4 … videos.

No torch. Reading them for training is `training.data.shards`.
"""

import io
import json
import re
import tarfile
from collections.abc import Sequence
from pathlib import Path

from mask2dit.errors import InputError
from mask2dit.files import written_aside

_BRACE = re.compile(r"\{(\d+)\.\.(\d+)\}")


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
