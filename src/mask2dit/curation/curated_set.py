"""A set as its folder has it, whatever steps have run: the rows of all steps, found by shot and by group, and what became of each."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from mask2dit.curation.rows import (
    CaptionRow,
    CheckRow,
    ClipRow,
    GroupRow,
    PairRow,
    ReviewRow,
    ScanRow,
    ShotRow,
    StepSummary,
    VideoRow,
    read_rows,
    read_summaries,
)

K = TypeVar("K")
V = TypeVar("V")


@dataclass(frozen=True, slots=True)
class Fate:
    """What became of a shot or a group. `kept`: None while that is open; `reasons`: kind and what was found."""

    kept: bool | None
    word: str
    reasons: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class CuratedSet:
    """All rows; captions, reviews and clips only of groups that there are.

    By name, or by the names of both; `groups_of` by shot, `clips_of` by group, `scans` by video.
    """

    videos: tuple[VideoRow, ...]
    scans: Mapping[str, ScanRow]
    shots: Mapping[str, ShotRow]
    checks: Mapping[str, CheckRow]
    pairs: Mapping[tuple[str, str], PairRow]
    groups: tuple[GroupRow, ...]
    groups_of: Mapping[str, tuple[GroupRow, ...]]
    captions: Mapping[str, CaptionRow]
    reviews: Mapping[str, ReviewRow]
    clips_of: Mapping[str, tuple[ClipRow, ...]]
    summaries: Mapping[str, StepSummary]

    @classmethod
    def read(cls, folder: Path) -> CuratedSet:
        """Raises InputError for a file that no step has written."""
        groups = tuple(read_rows(folder, GroupRow))
        names = {row.group for row in groups}  # rows of groups that other settings made are no part of the set as it is
        return cls(
            videos=tuple(read_rows(folder, VideoRow)),
            scans={row.name: row for row in read_rows(folder, ScanRow)},
            shots={row.shot: row for row in read_rows(folder, ShotRow)},
            checks={row.shot: row for row in read_rows(folder, CheckRow)},
            pairs={(row.first, row.second): row for row in read_rows(folder, PairRow)},
            groups=groups,
            groups_of=_gathered((shot, group) for group in groups for shot in group.shots),
            captions={row.group: row for row in read_rows(folder, CaptionRow) if row.group in names},
            reviews={row.group: row for row in read_rows(folder, ReviewRow) if row.group in names},
            clips_of=_gathered((row.group, row) for row in read_rows(folder, ClipRow) if row.group in names),
            summaries=read_summaries(folder),
        )

    def has_run(self, step: str) -> bool:
        """Whether a step has left anything: its summary, or rows."""
        rows = {
            "pieces": self.videos,
            "shots": self.shots or self.scans,
            "checks": self.checks,
            "groups": self.groups or self.pairs,
            "captions": self.captions,
            "reviews": self.reviews,
            "export": self.clips_of,
        }
        return step in self.summaries or bool(rows[step])

    def problem(self, video: VideoRow) -> str:
        """Why a video cannot be used, or not the whole of it; or ""."""
        scan = self.scans.get(video.name)
        return "; ".join(dict.fromkeys(part for part in (video.problem, scan.problem if scan else "") if part))

    def seconds(self, video: VideoRow) -> float:
        """How long it is, as far as its frames have been counted; 0 where it cannot be used."""
        scan = self.scans.get(video.name)
        return (scan.num_frames if scan else video.num_frames) / video.fps if video.fps > 0 and not video.problem else 0.0

    def shots_of(self, video: str) -> list[ShotRow]:
        """One video's shots, in order."""
        return sorted((shot for shot in self.shots.values() if shot.name == video), key=lambda shot: shot.index)

    def shot_fate(self, shot: str) -> Fate:
        """What the checks say, and whether a group has it."""
        check = self.checks.get(shot)
        if check is None:
            return Fate(None, "not checked")
        if not check.kept:
            return Fate(False, "dropped", check.reasons)
        alone = self.has_run("groups") and shot not in self.groups_of
        return Fate(True, "kept, in no group" if alone else "kept", check.reasons)

    def group_fate(self, group: str) -> Fate:
        """Where a group is, or why it is left out."""
        captions, review, clips = self.captions.get(group), self.reviews.get(group), self.clips_of.get(group)
        problem = (("no captions", captions.problem),) if captions and captions.problem else ()
        if review and not review.kept:
            return Fate(False, "left out", review.reasons or problem)
        if problem:
            return Fate(False, "left out", problem)
        if clips:
            return Fate(True, " and ".join(sorted({clip.split for clip in clips})))
        if review:
            return Fate(True, "left out of the export" if self.has_run("export") else "kept, not exported")
        return Fate(None, "captions, not reviewed" if captions else "no captions yet")

    def verdict(self, first: str, second: str) -> str:
        """Of two shots that follow each other, in words; "" where they have not been compared."""
        pair = self.pairs.get((first, second))
        if pair is None:
            return ""
        if pair.relevance is None:
            return pair.verdict
        limit = {"unrelated": "lower", "same picture": "upper"}.get(pair.verdict, "")
        settings = self.summaries["groups"].settings if "groups" in self.summaries else {}
        decided = f" ({limit} threshold {settings[limit]:g})" if limit in settings else ""
        return f"{pair.verdict} {pair.relevance:.4g}{decided}"


def clock(seconds: float) -> str:
    """A time in a video: 0:04.2, or 1:02:03.4."""
    minutes, tenths = divmod(round(10 * seconds), 600)
    hours, minutes = divmod(minutes, 60)
    return (f"{hours}:{minutes:02}" if hours else str(minutes)) + f":{tenths / 10:04.1f}"


def span(shot: ShotRow) -> str:
    """From when to when a shot is."""
    return f"{clock(shot.start / shot.fps)}–{clock(shot.stop / shot.fps)}"


def _gathered(pairs: Iterable[tuple[K, V]]) -> dict[K, tuple[V, ...]]:
    found: dict[K, list[V]] = {}
    for key, value in pairs:
        found.setdefault(key, []).append(value)
    return {key: tuple(values) for key, values in found.items()}
