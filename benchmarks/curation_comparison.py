"""What curation wrote, compared with what is true, video by video: cuts, joins, pairs, captions and checks; see `curation_truth.py`."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from curation_footage import TrueShot, Truth

from mask2dit.curation.rows import CaptionRow, CheckRow, GroupRow, PairRow, Row, ScanRow, ShotRow, read_rows
from mask2dit.cuts import match_cuts

REACH = 1  # frames by which a hard cut may be off
NAMED = ("species", "colour", "action", "place", "light")


@dataclass(frozen=True, slots=True)
class Found:
    """What curation wrote of one video, its shots in order."""

    scan: ScanRow
    shots: tuple[ShotRow, ...]
    checks: Mapping[str, CheckRow]
    pairs: tuple[PairRow, ...]
    groups: tuple[GroupRow, ...]
    captions: Mapping[str, CaptionRow]


def read_found(folder: Path) -> dict[str, Found]:
    """By the video's name, from a set's `steps`."""
    by_video: dict[str, dict[type[Row], list[Any]]] = {}
    shots = read_rows(folder, ShotRow)
    name_of = {row.shot: row.name for row in shots}
    for row in (*read_rows(folder, ScanRow), *shots, *read_rows(folder, GroupRow)):
        by_video.setdefault(row.name, {}).setdefault(type(row), []).append(row)
    for check in read_rows(folder, CheckRow):
        by_video[name_of[check.shot]].setdefault(CheckRow, []).append(check)
    for pair in read_rows(folder, PairRow):
        by_video[name_of[pair.first]].setdefault(PairRow, []).append(pair)
    captions = {row.group: row for row in read_rows(folder, CaptionRow)}
    return {
        name: Found(
            rows[ScanRow][0],
            tuple(rows.get(ShotRow, ())),
            {row.shot: row for row in rows.get(CheckRow, ())},
            tuple(rows.get(PairRow, ())),
            tuple(rows.get(GroupRow, ())),
            captions,
        )
        for name, rows in by_video.items()
    }


# Comparing


def compare_cuts(truth: Truth, found: Found) -> dict[str, Any]:
    """Hard cuts: how many are right, which were missed, and what stands where no cut is."""
    cuts = found.scan.cuts
    pairs = match_cuts(truth.cuts, cuts, [REACH] * len(truth.cuts), price=REACH + 1)
    hits = {there for _, there in pairs}
    false = [cut for cut in cuts if cut not in hits]
    in_span = [cut for cut in false if any(first - 1 <= cut <= clean + 1 for first, clean in truth.spans)]
    at_flash = [cut for cut in false if cut not in in_span and any(flash - 1 <= cut <= flash + 2 for flash in truth.flashes)]
    return {
        "true": len(truth.cuts),
        "hits": len(pairs),
        "one_off": sum(there != asked for asked, there in pairs),
        "missed": sorted({*truth.cuts} - {asked for asked, _ in pairs}),
        "false_in_joins": in_span,
        "false_at_flashes": at_flash,
        "false_elsewhere": sorted({*false} - {*in_span} - {*at_flash}),
    }


def compare_joins(truth: Truth, found: Found) -> dict[str, Any]:
    """Dissolves, and fades through black: which were found, that is touched by a reported span, and how near their ends are."""
    reported = found.scan.dissolves

    def touching(span: tuple[int, int], others: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
        return [other for other in others if min(span[1], other[1]) > max(span[0], other[0])]

    seen = {span: touching(span, reported) for span in truth.spans}
    ends = [max(abs(near[0][0] - span[0]), abs(near[-1][1] - span[1])) for span, near in seen.items() if near]
    return {
        "dissolves": len(truth.dissolves),
        "dissolves_found": sum(bool(seen[span]) for span in truth.dissolves),
        "fades": len(truth.fades),
        "fades_found": sum(bool(seen[span]) for span in truth.fades),
        "missed": [span for span, near in seen.items() if not near],
        "false": [span for span in reported if not touching(span, truth.spans)],
        "frames_off": ends,
    }


def stand_for(truth: Truth, shots: Iterable[ShotRow]) -> dict[str, TrueShot | None]:
    """Each found shot's true one; None for what lies between shots alone."""
    starts = np.array([shot.start for shot in truth.shots])
    found: dict[str, TrueShot | None] = {}
    for row in shots:
        near = truth.shots[max(0, int(np.searchsorted(starts, row.start, side="right")) - 1) : int(np.searchsorted(starts, row.stop))]
        frames, index = max(
            ((min(row.stop, shot.stop) - max(row.start, shot.start), -index) for index, shot in enumerate(near)), default=(0, 0)
        )
        found[row.shot] = near[-index] if frames > 0 else None
    return found


def compare_pairs(truth: Truth, found: Found) -> dict[str, Any]:
    """Over consecutive shots that were found: which are related, and which are of one story and have nothing planted."""
    true, rows = stand_for(truth, found.shots), {row.shot: row for row in found.shots}
    table: Counter[str] = Counter()
    why: Counter[str] = Counter()
    for pair in found.pairs:
        one, other = true[pair.first], true[pair.second]
        same = one is not None and other is not None and one.story == other.story and not (one.planted or other.planted)
        related = pair.verdict == "related"
        table[("hits" if same else "false") if related else ("missed" if same else "apart")] += 1
        if same and not related:
            assert one is not None and other is not None
            why[_why(truth, one, other, rows[pair.first], rows[pair.second], pair.verdict)] += 1
    neighbours = {(one.start, other.start) for one, other in pairwise(truth.shots) if one.story == other.story}
    neighbours -= {(one.start, other.start) for one, other in pairwise(truth.shots) if one.planted or other.planted}
    related_ones = {
        (getattr(true[pair.first], "start", -1), getattr(true[pair.second], "start", -1))
        for pair in found.pairs
        if pair.verdict == "related"
    }
    pure = [len({getattr(true[shot], "story", None) for shot in group.shots}) == 1 for group in found.groups]
    return {name: table[name] for name in ("hits", "false", "missed", "apart")} | {
        "missed_because": dict(why),
        "neighbours": len(neighbours),
        "neighbours_related": len(neighbours & related_ones),
        "groups": len(pure),
        "groups_of_one_story": sum(pure),
    }


def _why(truth: Truth, one: TrueShot, other: TrueShot, first: ShotRow, second: ShotRow, verdict: str) -> str:
    """What is probably the cause that two shots of a story are not related."""
    if one is other:
        return "one shot in two"
    for true, row in ((one, first), (other, second)):
        if max(true.start - row.start, row.stop - true.stop) > 0.25 * (true.stop - true.start):
            return "a join was missed"
    if verdict == "dropped":
        return verdict
    has_flash = any(true.start <= flash < true.stop for true in (one, other) for flash in truth.flashes)
    return f"{verdict}, with a flash" if has_flash else verdict


def compare_captions(truth: Truth, found: Found) -> dict[str, Any]:
    """How often captions name what is true, by attribute, and how often a group's captions name one character, and the right one."""
    from mask2dit.playhouse.features import facts_named

    true = stand_for(truth, found.shots)
    right: Counter[str] = Counter()
    captions = groups = alike = right_character = 0
    for group in found.groups:
        row = found.captions.get(group.group)
        if row is None or row.problem:
            continue
        named = [facts_named(caption) for caption in row.captions]
        facts = [getattr(true[shot], "facts", {}) for shot in group.shots]
        for said, fact in zip(named, facts, strict=True):
            captions += 1
            right.update(name for name in NAMED if name in fact and said.get(name) == fact[name])
        characters = {(said.get("species"), said.get("colour")) for said in named}
        groups += 1
        alike += len(characters) == 1
        right_character += characters == {(fact.get("species"), fact.get("colour")) for fact in facts} and len(characters) == 1
    return {"captions": captions, "right": {name: right[name] for name in NAMED}, "groups": groups, "alike": alike, "true": right_character}


def compare_checks(truth: Truth, found: Found) -> dict[str, Any]:
    """True shots with a planted fault, by kind, those of them found, and reasons of all else that was dropped."""
    true = stand_for(truth, found.shots)
    planted = Counter(shot.planted for shot in truth.shots if shot.planted)
    hits: set[tuple[str, int]] = set()
    dropped: Counter[str] = Counter()
    for row in found.shots:
        shot, kinds = true[row.shot], {kind for kind, _ in found.checks[row.shot].reasons}
        if shot is not None and shot.planted in kinds:
            hits.add((shot.planted, shot.start))
            kinds.remove(shot.planted)
        dropped.update(kinds)
    hits_of = Counter(kind for kind, _ in hits)
    return {"planted": dict(planted), "found": {kind: hits_of[kind] for kind in planted}, "others": dict(dropped)}


def compared(truths: Iterable[Truth], found: Mapping[str, Found]) -> dict[str, dict[str, Any]]:
    """Everything, by video."""
    results = {}
    for truth in truths:
        rows = found[truth.video]
        results[truth.video] = {
            "fps": truth.fps,
            "frames": truth.num_frames,
            "shots": len(truth.shots),
            "flashes": len(truth.flashes),
            "shots_found": len(rows.shots),
            "decoded_per_frame": rows.scan.num_decoded / truth.num_frames,
            "frames_counted": rows.scan.num_frames,
            "cuts": compare_cuts(truth, rows),
            "joins": compare_joins(truth, rows),
            "pairs": compare_pairs(truth, rows),
            "captions": compare_captions(truth, rows),
            "checks": compare_checks(truth, rows),
        }
    return results
