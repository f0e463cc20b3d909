"""What the trainer reads: clips, the sources that hold them in groups, and which runs of them are good.

Owns the interface and the choice of usable runs. Where clips come from is the sources' (`files`, `shards`, `playhouse`); which of them
make a sample, and what becomes of their frames, is the trainer's.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, NoReturn, Protocol

import numpy as np
from numpy.typing import NDArray

from mask2dit.errors import InputError, Mask2DiTError
from mask2dit.training.data.report import ClipReport

Kind = Literal["missing", "unreadable", "short", "mis-described"]


@dataclass(frozen=True, slots=True)
class ClipSettings:
    """What the model reads of every clip."""

    height: int
    width: int
    num_frames: int
    fps: float


class ClipError(Mask2DiTError, ValueError):
    """A clip cannot be used. The text is the reason, in one line, without the clip's name."""

    def __init__(self, kind: Kind, reason: str) -> None:
        super().__init__(kind, " ".join(reason.split()))

    @property
    def kind(self) -> Kind:
        kind: Kind = self.args[0]
        return kind

    def __str__(self) -> str:
        return str(self.args[1])


class Clip(Protocol):
    """The frames of one scene, somewhere. Clips pickle, and hold no open file."""

    @property
    def name(self) -> str:
        """What a report calls it; no two clips of a source share a name."""
        ...

    def check(self) -> None:
        """Look at the clip's description and whether its file is there, without opening a video. Raises ClipError."""
        ...

    @property
    def signature(self) -> str:
        """What tells at a glance that the content may have changed: size and date of a file."""
        ...

    def fingerprint(self) -> str:
        """Identify the content: the same for the same bytes under another name or date. Raises ClipError if they are gone."""
        ...

    def frames(self, settings: ClipSettings, position: float) -> NDArray[np.uint8]:
        """A window of `num_frames` at `fps`, [T, Y, X, 3]; `position` 0..1: from its first possible start to its last. Raises ClipError."""
        ...


class CaptionedClip(Clip, Protocol):
    """A clip that has one caption for good."""

    @property
    def caption(self) -> str: ...


class SceneSource(Protocol):
    """Clips in groups of consecutive scenes that belong together; a group of one where clips stand alone."""

    @property
    def name(self) -> str:
        """What an error calls it."""
        ...

    @property
    def groups(self) -> Sequence[Sequence[Clip]]: ...

    @property
    def fixed_captions(self) -> bool:
        """Whether `captions` gives the same each time; otherwise they are drawn anew."""
        ...

    def captions(self, group: int, rng: random.Random) -> list[str]:
        """One caption per scene of a group."""
        ...


@dataclass(frozen=True, slots=True)
class FixedScenes:
    """A source whose clips carry their captions."""

    name: str
    groups: tuple[tuple[CaptionedClip, ...], ...]

    @property
    def fixed_captions(self) -> bool:
        return True

    def captions(self, group: int, rng: random.Random) -> list[str]:
        return [clip.caption for clip in self.groups[group]]


@dataclass(frozen=True, slots=True)
class BadClip:
    """A clip that is known to be of no use from its list already; it keeps its place, so that it parts the scenes around it."""

    name: str
    kind: Kind
    reason: str
    caption: str = ""

    @property
    def signature(self) -> str:
        return ""

    def check(self) -> None:
        self._refuse()

    def fingerprint(self) -> str:
        self._refuse()

    def frames(self, settings: ClipSettings, position: float) -> NDArray[np.uint8]:
        self._refuse()

    def _refuse(self) -> NoReturn:
        raise ClipError(self.kind, self.reason)


class SceneRun(NamedTuple):
    """Consecutive good clips of one group: `num_scenes` of them from index `first` on."""

    group: int
    first: int
    num_scenes: int


def usable(
    source: SceneSource,
    num_scenes: int,
    *,
    needs_groups: bool,
    report: ClipReport,
    min_groups: int = 1,
    report_is_complete: bool = False,
) -> list[SceneRun]:
    """Check every clip, and give the longest runs of good ones, in order.

    A bad clip splits its group; so does what the report knows as bad, if `report_is_complete`. With `needs_groups` a run must have
    `num_scenes` clips to count, and `min_groups` such runs are needed; without, that many good clips, and at least
    `num_scenes`. Raises InputError, with the counts, when there are fewer.
    """
    report.num_clips = sum(len(group) for group in source.groups)
    runs = [run for group in range(len(source.groups)) for run in _good_runs(source, group, report, report_is_complete)]
    if needs_groups:
        for run in runs:
            if run.num_scenes < num_scenes:
                _report_short_group(run, num_scenes, report)
        runs = [run for run in runs if run.num_scenes >= num_scenes]
        if len(runs) < min_groups:
            got = f"{len(runs)} usable runs of {num_scenes} scenes in {len(source.groups)} groups"
            raise _too_few(source, got, min_groups, report)
    elif (good := sum(run.num_scenes for run in runs)) < (least := max(num_scenes, min_groups)):
        raise _too_few(source, f"{good} usable of {report.num_clips} clips", least, report)
    return runs


def _good_runs(source: SceneSource, group: int, report: ClipReport, report_is_complete: bool) -> Iterator[SceneRun]:
    first = count = 0
    for index, clip in enumerate(source.groups[group]):
        if not (report_is_complete and report.is_bad(clip.name)) and _is_good(clip, report):
            count += 1
            continue
        if count:
            yield SceneRun(group, first, count)
        first, count = index + 1, 0
    if count:
        yield SceneRun(group, first, count)


def _is_good(clip: Clip, report: ClipReport) -> bool:
    try:
        clip.check()
    except ClipError as error:
        report.add(clip.name, error.kind, str(error))
        return False
    return True


def _report_short_group(run: SceneRun, num_scenes: int, report: ClipReport) -> None:
    name = f"group {run.group + 1}, scenes {run.first + 1} to {run.first + run.num_scenes}"
    reason = (
        f"got {run.num_scenes} good scenes in a row, expected at least {num_scenes}; mend the clips around them or train on fewer scenes"
    )
    report.add(name, "short group", reason)


def _too_few(source: SceneSource, got: str, least: int, report: ClipReport) -> InputError:
    counts = report.counted()
    remedy = f"see {report.path.name}" if counts and report.path else "mend the list"
    return InputError(f"{source.name}: got {got}{f' ({counts})' if counts else ''}, expected at least {least}; {remedy}")
