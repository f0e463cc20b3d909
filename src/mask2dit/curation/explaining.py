"""Why a video's shots were kept or dropped, in lines for a terminal; nothing of the names and captions in them acts there."""

from __future__ import annotations

import os
import re
import textwrap
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path, PurePath

from mask2dit.curation.curated_set import CuratedSet, Fate, clock, span
from mask2dit.curation.rows import GroupRow, ShotRow, VideoRow
from mask2dit.errors import InputError

CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def explain(folder: Path, video: str, width: int = 120) -> list[str]:
    """All that is known of one video of a set. video: its name in the set, its path, or its file name where no other has it.

    Raises InputError where it is none of the set's, or several.
    """
    curated = CuratedSet.read(folder)
    row = _find(curated, folder, video)
    shots = curated.shots_of(row.name)
    lines = [f"{row.name} ({row.video})", *_facts(curated, row, shots)]
    columns = [max((len(text(shot)) for shot in shots), default=0) for text in (span, _edges)]
    margin = len(_head(shots[0], columns)) if shots else 0
    for index, shot in enumerate(shots):
        if index:
            lines += [f"       | {curated.verdict(shots[index - 1].shot, shot.shot)}".removesuffix(" | ")]
        lines += [_head(shot, columns) + _told(curated, shot)]
    for group in (group for group in curated.groups if group.name == row.name):
        lines += ["", *_group(curated, group)]
    return [part for line in lines for part in _wrapped(line, width, margin)]


def _find(curated: CuratedSet, folder: Path, video: str) -> VideoRow:
    names = [row.name for row in curated.videos]
    if not names:
        raise InputError(f"{folder}: has no videos yet; run the curation first")
    path = os.path.abspath(video)  # as the rows have it
    found = (
        [row for row in curated.videos if row.name == video]
        or [row for row in curated.videos if row.video in (video, path)]
        or [row for row in curated.videos if PurePath(row.video).name == video]
    )
    if not found:
        ends = {PurePath(name).name: name for name in names}
        near = get_close_matches(video, names, 3) or [ends[end] for end in get_close_matches(PurePath(video).name, ends, 3)]
        remedy = f"close to it: {_listed(near)}" if near else f"expected one of its {len(names)}, such as {_listed(names[:3])}"
        raise InputError(_safe(f"{video!r}: is no video of {folder}; {remedy}"))
    if len(found) > 1:
        raise InputError(_safe(f"{video!r}: {len(found)} videos of {folder} are called so, expected one; name one of {_listed(found[:5])}"))
    return found[0]


def _listed(names: list[str] | list[VideoRow]) -> str:
    return ", ".join(repr(name if isinstance(name, str) else name.name) for name in names)


def _facts(curated: CuratedSet, row: VideoRow, shots: list[ShotRow]) -> list[str]:
    if row.problem:
        return [f"cannot be used: {curated.problem(row)}"]
    pieces = f"{len(row.piece_starts)} piece{'s' * (len(row.piece_starts) != 1)}"
    facts = f"{row.width}×{row.height}, {row.fps:.6g} frames per second, {clock(curated.seconds(row))}, {pieces}"
    facts += f"; {curated.problem(row)}" * bool(curated.problem(row))
    if not shots:
        return [facts, "no shots" if curated.has_run("shots") else "its shots have not been looked for"]
    fates = [curated.shot_fate(shot.shot) for shot in shots]
    counts = {word: sum(fate.kept is kept for fate in fates) for word, kept in (("kept", True), ("dropped", False), ("not checked", None))}
    groups = sum(group.name == row.name for group in curated.groups)
    told = ", ".join(f"{count} {word}" for word, count in counts.items() if count)
    return [facts, f"{len(shots)} shot{'s' * (len(shots) != 1)}: {told}; {groups} group{'s' * (groups != 1)}", ""]


def _edges(shot: ShotRow) -> str:
    return f"{shot.begins} … {shot.ends}"


def _head(shot: ShotRow, columns: Sequence[int]) -> str:
    return f"{shot.index + 1:5}  {span(shot):<{columns[0]}} {shot.seconds:6.1f} s  {_edges(shot):<{columns[1]}}  "


def _told(curated: CuratedSet, shot: ShotRow) -> str:
    fate, groups = curated.shot_fate(shot.shot), curated.groups_of.get(shot.shot, ())
    places = "; ".join(
        f"{group.shots.index(shot.shot) + 1} of {len(group.shots)} in {group.group}: {curated.group_fate(group.group).word}"
        for group in groups
    )
    return f"{fate.word}: {_why(fate)}" if fate.reasons else f"{fate.word}, {places}" if places else fate.word


def _group(curated: CuratedSet, group: GroupRow) -> list[str]:
    fate, captions = curated.group_fate(group.group), curated.captions.get(group.group)
    numbers = [curated.shots[shot].index + 1 if shot in curated.shots else 0 for shot in group.shots]
    relevance = ", ".join(f"{value:.3f}" for value in group.relevance)
    lines = [
        f"group {group.group}: shots {', '.join(map(str, numbers))}; relevance {relevance or 'of one shot: none'}",
        f"    {fate.word}{f': {_why(fate)}' if fate.reasons else ''}",
    ]
    if captions and not captions.problem:
        lines += [f"    captions by {captions.captioner}"]
        lines += [f"    {tag}: {description}" for tag, description in captions.cast]
        lines += [f"    setting: {captions.setting}"] * bool(captions.setting)
        lines += [f"    {number}: {prompt}" for number, prompt in zip(numbers, captions.prompts, strict=False)]
    return lines + [f"    {clip.clip}" for clip in curated.clips_of.get(group.group, ())]


def _why(fate: Fate) -> str:
    return "; ".join(f"{kind} ({what})" if what else kind for kind, what in fate.reasons)


def _safe(text: str) -> str:
    """Without what a terminal would obey."""
    return CONTROL.sub("\ufffd", text)


def _wrapped(line: str, width: int, margin: int) -> list[str]:
    """A line, and where it is too long the rest of it further in."""
    line = _safe(line)
    indent = " " * (margin if line[:5].strip().isdigit() else len(line) - len(line.lstrip()) + 4)
    return textwrap.wrap(line, width, subsequent_indent=indent, drop_whitespace=True, break_on_hyphens=False) or [""]
