"""All steps in order: from a folder of footage to a training set, with a report of what was kept, what was not, and why.

The set's folder: `steps` holds each step's rows and summary, `work` what was found in the footage, `captions` what was asked and answered,
`clips` and the lists beside it what training reads. Every step is done again from the rows before it, which costs little; what costs much,
looking at footage, captions and clips, is kept by content, so that a second run takes up what is missing and nothing else.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from itertools import groupby
from pathlib import Path

import numpy as np
from filelock import FileLock, Timeout

from mask2dit.curation.captioners.base import Captioner, GroupView, ShotView
from mask2dit.curation.captions import PICTURES, TokenLimit, caption_groups, review_captions
from mask2dit.curation.checks import Look, check_shots
from mask2dit.curation.export import CLIPS, ClipUnit, ClipWriter, clip_rows, write_lists
from mask2dit.curation.groups import GroupSettings, group_shots, pair_shots
from mask2dit.curation.pieces import Footage, look_into
from mask2dit.curation.report import report
from mask2dit.curation.rows import (
    STEPS,
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
    forget,
    read_rows,
    write_if_new,
    write_rows,
    write_summary,
)
from mask2dit.curation.running import Place, Work
from mask2dit.curation.scanning import Video
from mask2dit.curation.settings import VALIDATION, CheckSettings, ShotSettings, check_together
from mask2dit.curation.shots import Looks, Progress, Worker, collect, find_all, read_features, read_pictures
from mask2dit.errors import InputError, OutputError
from mask2dit.extractors.base import Extractor, Features
from mask2dit.files import is_aside

REPORT, ROWS, WORK, CAPTIONS = "report.html", "steps", "work", "captions"
LOOK = Look.name


@dataclass(frozen=True)
class Plan:
    """What is to be made of which footage.

    `load`: loads all extractors by name, here or in a worker's process. `relevance`: the one that groups are made by. `captioner`: opened
    when it is needed; None ends before the captions. `until`: the last step.
    """

    folder: Path
    footage: Sequence[Footage]
    load: Callable[[], Mapping[str, Extractor]]
    relevance: str
    groups: GroupSettings
    tokens: TokenLimit
    captioner: Captioner | None = None
    shots: ShotSettings = field(default_factory=ShotSettings)
    checks: CheckSettings = field(default_factory=CheckSettings)
    validation: float = VALIDATION
    groups_per_shard: int | None = None
    until: str = STEPS[-1]
    device: str = "cpu"
    on_gpu: bool = False

    def __post_init__(self) -> None:
        if self.until not in STEPS:
            raise InputError(f"--until: got {self.until!r}, expected one of {', '.join(STEPS)}; choose one of them")
        check_together(self.shots, self.checks, self.validation)

    def reaches(self, step: str) -> bool:
        return STEPS.index(step) <= STEPS.index(self.until)


@dataclass(frozen=True, slots=True)
class Outcome:
    """`lines`: what each step did. `is_whole`: whether nothing was left undone."""

    lines: tuple[str, ...]
    is_whole: bool


def curate(plan: Plan, place: Place, progress: Progress) -> Outcome:
    """Do all steps up to the last that is asked for, and write the report, whatever happens in between.

    Raises InputError where another process is at work on the set.
    """
    run = _Run(plan, place, progress)
    with _alone(plan.folder):
        try:
            run.do()
        finally:
            if run.videos:
                run.write_report()
    return Outcome(tuple(run.lines), run.is_whole)


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """No other process works on the set meanwhile; what a killed one left half written goes."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / ".lock", timeout=0)
        lock.acquire()
    except Timeout:
        raise InputError(f"{folder}: another process is at work on it; wait for its end, or choose another folder") from None
    except OSError as error:
        raise OutputError(f"{folder}: cannot be written to ({error.strerror}); make room or choose another folder") from error
    try:
        for place in (ROWS, WORK, CAPTIONS, CLIPS):
            for part in (folder / place).rglob(".*"):
                if is_aside(part):
                    part.unlink(missing_ok=True)
        yield
    finally:
        lock.release()


class _Run:
    """One run: each method is a step, reads what those before it left, and writes its own rows."""

    def __init__(self, plan: Plan, place: Place, progress: Progress) -> None:
        self.plan, self._place, self._progress = plan, place, progress
        self.rows_folder = plan.folder / ROWS
        self.lines: list[str] = []
        self.is_whole = True
        self.videos: list[VideoRow] = []
        self._worker = _worker(plan)
        _ = self._worker.detector  # before anything is done: it may not be there
        self._features: dict[str, dict[str, Features]] = {}
        self._done: list[str] = []

    def do(self) -> None:
        steps = (self._pieces, self._shots, self._checks, self._groups, self._captions, self._reviews, self._export)
        for name, step in zip(STEPS, steps, strict=True):
            if not self.plan.reaches(name):
                break
            if name == "captions" and self.plan.captioner is None:
                self.lines.append("captions: nobody was asked; name a captioner with --captioner")
                break
            summary = step()
            write_summary(self.rows_folder, summary)
            self._done.append(name)
            self.lines.append(_line(summary))

    def write_report(self) -> None:
        """Of what this run has done; rows of an earlier one that it did not come to would tell of other shots."""
        forget(self.rows_folder, [step for step in STEPS[1:] if step not in self._done])
        rows = {row.shot: row for row in read_rows(self.rows_folder, ShotRow)}
        page = report(self.rows_folder, lambda shot: read_pictures(self._worker.root, rows[shot]))
        write_if_new(self.plan.folder / REPORT, page)

    # The steps

    def _pieces(self) -> StepSummary:
        self._progress.start("pieces", len(self.plan.footage))
        known = read_rows(self.rows_folder, VideoRow)
        self.videos = look_into(self.plan.footage, self.plan.shots.piece_seconds, known, self._progress.step)
        self._progress.done()
        write_rows(self.rows_folder, VideoRow, self.videos)
        good = [row for row in self.videos if not row.problem]
        self.is_whole &= all(row.digest for row in self.videos)  # a second copy has one, and lacks nothing
        seconds = sum(row.num_frames / row.fps for row in good)
        counts = {"videos": len(self.videos), "readable": len(good), "minutes": round(seconds / 60, 1)}
        counts["pieces"] = sum(len(row.piece_starts) for row in good)
        return StepSummary("pieces", counts, settings={"piece_seconds": self.plan.shots.piece_seconds})

    def _shots(self) -> StepSummary:
        problems = find_all(self.videos, self._worker, self._place, self._progress)
        scans: list[ScanRow] = []
        self.shots: list[ShotRow] = []
        for row in self.videos:
            if not row.problem:
                scan, shots = collect(row, self._worker, problems.get(row.digest, ()))
                scans.append(scan)
                self.shots += shots
        write_rows(self.rows_folder, ScanRow, scans)
        write_rows(self.rows_folder, ShotRow, self.shots)
        self.is_whole &= not any(scan.problem for scan in scans)
        counts = {
            "videos": len(scans),
            "frames": sum(scan.num_frames for scan in scans),
            "cuts": sum(len(scan.cuts) for scan in scans),
            "dissolves": sum(len(scan.dissolves) for scan in scans),
            "shots": len(self.shots),
        }
        settings = {**asdict(self.plan.shots), "detector": self._worker.detector.name, "extractors": dict(self._worker.keys)}
        return StepSummary("shots", counts, settings=settings)

    def _checks(self) -> StepSummary:
        looks = self._features_of(LOOK)
        checks = check_shots(self.shots, looks, self.plan.checks)
        write_rows(self.rows_folder, CheckRow, checks)
        self.checks = {row.shot: row for row in checks}
        dropped = Counter(kind for row in checks for kind, _ in row.reasons)
        counts = {"shots": len(checks), "kept": sum(row.kept for row in checks)}
        return StepSummary(
            "checks", counts, _ordered(dropped, CheckRow.KINDS), {**asdict(self.plan.checks), "max_seconds": self.plan.shots.max_seconds}
        )

    def _groups(self) -> StepSummary:
        settings = self.plan.groups
        pairs = pair_shots(self.shots, self.checks, self._features_of(self.plan.relevance), settings)
        self.groups = group_shots(self.shots, pairs, settings)
        write_rows(self.rows_folder, PairRow, pairs)
        write_rows(self.rows_folder, GroupRow, self.groups)
        counts = {"pairs": len(pairs), "related": sum(pair.verdict == "related" for pair in pairs), "groups": len(self.groups)}
        counts["shots in groups"] = sum(len(group.shots) for group in self.groups)
        dropped = Counter(pair.verdict for pair in pairs if pair.verdict != "related")
        size = f"{settings.shortest}" if settings.shortest == settings.longest else f"{settings.shortest}–{settings.longest}"
        about = {"extractor": self.plan.relevance, "lower": settings.lower, "upper": settings.upper, "group_size": size}
        return StepSummary("groups", counts, _ordered(dropped, PairRow.VERDICTS), about)

    def _captions(self) -> StepSummary:
        captioner = self.plan.captioner
        assert captioner is not None
        paths = {row.digest: Path(row.video) for row in self.videos if not row.problem}
        shots = {row.shot: row for row in self.shots}
        features = {name: self._features_of(name) for name in captioner.features}

        def view(group: GroupRow) -> GroupView:
            members = [shots[name] for name in group.shots]
            return GroupView(group.group, tuple(self._view(shot, paths[shot.digest], features) for shot in members))

        kept = self.plan.folder / CAPTIONS
        known = read_rows(kept, CaptionRow)
        self._progress.start("captions", len(self.groups))
        found = caption_groups(self.groups, known, captioner, view, self._progress.step)
        self._progress.done()
        # Those of groups that other settings make are kept: they were paid for.
        theirs = {row.group for row in found.rows}
        self._captioned = found.rows
        write_rows(kept, CaptionRow, [*found.rows, *(row for row in known if row.group not in theirs)])
        write_rows(self.rows_folder, CaptionRow, found.rows)
        with_captions = sum(not row.problem for row in found.rows)
        self.is_whole &= not found.stopped and with_captions == len(self.groups)
        counts = {"groups": len(self.groups), "captioned": with_captions}
        dropped = {"problem": len(found.rows) - with_captions} if with_captions < len(found.rows) else {}
        notes = [f"stopped: {found.stopped}"] if found.stopped else []
        return StepSummary("captions", counts, dropped, {"captioner": captioner.name, **captioner.summary()}, notes)

    def _view(self, shot: ShotRow, video: Path, features: Mapping[str, Mapping[str, Features]]) -> ShotView:
        pictures = read_pictures(self._worker.root, shot)
        chosen = np.linspace(0, len(pictures) - 1, min(PICTURES, len(pictures))).round().astype(int)
        read = {name: each[shot.shot] for name, each in features.items()}
        return ShotView(shot.shot, video, shot.start, shot.stop, shot.fps, tuple(pictures[at] for at in chosen), read)

    def _reviews(self) -> StepSummary:
        num_shots = {group.group: len(group.shots) for group in self.groups}
        reviews = review_captions(self._captioned, num_shots, self.plan.tokens)
        write_rows(self.rows_folder, ReviewRow, reviews)
        self._kept = {row.group for row in reviews if row.kept}
        dropped = Counter(kind for row in reviews for kind, _ in row.reasons)
        counts = {"groups": len(reviews), "kept": len(self._kept), "longest caption": max((row.longest for row in reviews), default=0)}
        settings = {"max_tokens": self.plan.tokens.most, "counted_by": self.plan.tokens.counted_by}
        return StepSummary("reviews", counts, _ordered(dropped, ReviewRow.KINDS), settings)

    def _export(self) -> StepSummary:
        groups = [group for group in self.groups if group.group in self._kept]
        shots = {row.shot: row for row in self.shots}
        notes = self._write_clips([shots[name] for group in groups for name in group.shots])
        captions = {row.group: row.captions for row in self._captioned}
        known = read_rows(self.rows_folder, ClipRow)
        rows, damaged = clip_rows(groups, captions, shots, self.plan.folder, self.plan.validation, known)
        notes += damaged
        self.is_whole &= not notes
        write_rows(self.rows_folder, ClipRow, rows)
        # Where footage could not be read for now, what was exported from it before is not thrown away.
        write_lists(self.plan.folder, rows, self.plan.groups_per_shard, keep_old=not self.is_whole)
        train = sum(row.split == "train" for row in rows)
        counts = {"groups": len({row.group for row in rows}), "clips": len(rows), "train": train, "validation": len(rows) - train}
        settings = {"validation": self.plan.validation, "groups_per_shard": self.plan.groups_per_shard}
        return StepSummary("export", counts, settings=settings, notes=notes)

    def _write_clips(self, shots: Iterable[ShotRow]) -> list[str]:
        """What clips are missing. Returns what went wrong."""
        writer = ClipWriter(self.plan.folder)
        units = [unit for unit in self._clip_units(shots) if not writer.is_done(unit)]
        problems: list[str] = []

        def told(unit: ClipUnit, problem: str) -> None:
            if problem:
                problems.append(f"{unit.video.name}: {problem}")
            self._progress.step()

        if units:
            self._progress.start("clips", len(units))
            self._place.run(Work((writer.write,)), units, told)
            self._progress.done()
        return problems

    def _clip_units(self, shots: Iterable[ShotRow]) -> list[ClipUnit]:
        """Shots by the piece that they begin in."""
        rows = {row.digest: row for row in self.videos if not row.problem}

        def place(shot: ShotRow) -> tuple[str, int]:
            return shot.digest, int(np.searchsorted(rows[shot.digest].piece_starts, shot.start, side="right"))

        units = []
        for (digest, _), members in groupby(sorted(shots, key=lambda shot: (place(shot), shot.start)), key=place):
            row = rows[digest]
            units.append(ClipUnit(Video(Path(row.video), row.name, row.digest, row.fps), tuple(members)))
        return units

    def _features_of(self, name: str) -> dict[str, Features]:
        if name not in self._features:
            found = self._features[name] = read_features(self.videos, self._worker, name)
            if lacking := sum(shot.shot not in found for shot in self.shots):
                raise InputError(f"features of {lacking} shots were damaged or could not be computed; run the same command again")
        return self._features[name]


def _worker(plan: Plan) -> Worker:
    extractors = plan.load()
    keys = {name: f"{name}-{_digest(each.weights, each.num_frames)}" for name, each in extractors.items()}
    return Worker(plan.folder / WORK, plan.shots, _WithLook(plan.load), {LOOK: LOOK, **keys}, plan.device, plan.on_gpu)


@dataclass(frozen=True, slots=True)
class _WithLook:
    """The extractors, and what duplicates are found by."""

    load: Callable[[], Mapping[str, Extractor]]

    def __call__(self) -> dict[str, Looks]:
        return {LOOK: Look(), **self.load()}


def _digest(*parts: object) -> str:
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:8]


def _ordered(counts: Mapping[str, int], kinds: Sequence[str]) -> dict[str, int]:
    return {kind: counts[kind] for kind in kinds if counts.get(kind)}


def _line(summary: StepSummary) -> str:
    counts = ", ".join(f"{value:,} {name}" for name, value in summary.counts.items())
    dropped = ", ".join(f"{kind} {count:,}" for kind, count in summary.dropped.items())
    return f"{summary.step}: {counts}{f' ({dropped})' if dropped else ''}{''.join(f'; {note}' for note in summary.notes)}"
