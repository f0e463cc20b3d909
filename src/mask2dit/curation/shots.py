"""Step 2, shots: every piece scanned, the borders between pieces sewn, and features of all shots; in one process or on Ray's workers.

What was found lies in the set's folder, in `work`: per unit (a piece, or the seams of a video) a JSON file of its shots and one zip file of
their pictures, under the digests of the video and of what they depend on; and an npz file of features per unit and extractor. Files are
written aside and renamed, so a run that was killed goes on with what is missing, and another extractor needs no decoding.
"""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from mask2dit.curation.rows import ScanRow, ShotRow, VideoRow
from mask2dit.curation.running import Place, Work
from mask2dit.curation.scanning import (
    MOST_PICTURES,
    PICTURES_PER_SECOND,
    SHORT_SIDE,
    Scan,
    Shot,
    Video,
    scan_piece,
    sew,
)
from mask2dit.curation.settings import ShotSettings
from mask2dit.curation.stretches import Seam, from_arrays, from_jpeg, to_arrays, to_jpeg
from mask2dit.cut_detectors import CutDetector, detector_named
from mask2dit.errors import InputError
from mask2dit.extractors.base import Frames
from mask2dit.files import written_aside

FORMAT = 2  # raised by any change of what a unit's files are
SEAMS = "seams"
BATCH = 16  # shots whose features are computed at a time

Features = NDArray[np.float32]


class Looks(Protocol):
    """What is needed of an extractor here."""

    def scenes(self, scenes: Sequence[Frames]) -> Features:
        """N shots → [N, D]"""


@dataclass(frozen=True, slots=True)
class Unit:
    """A piece of a video, or its seams: what one worker does in one go. Frames [start, stop); None: to the end."""

    video: Video
    unit: str
    start: int = 0
    stop: int | None = None
    num_pieces: int = 0


class UnitFiles:
    """Where a unit's files are, and what they hold."""

    def __init__(self, folder: Path, unit: Unit) -> None:
        self._base = folder / unit.video.digest / unit.unit

    @property
    def rows(self) -> Path:
        return self._base.with_suffix(".json")

    @property
    def pictures(self) -> Path:
        return self._base.with_suffix(".zip")

    def seam(self, side: str) -> Path:
        return self._base.with_name(f"{self._base.name}-{side}.npz")

    @property
    def is_done(self) -> bool:
        return self.rows.exists()

    def write(self, shots: Sequence[Shot], facts: Mapping[str, Any], root: Path) -> None:
        """The pictures, then the rows: where these are, all is."""
        if shots:
            with written_aside(self.pictures) as part, zipfile.ZipFile(part, "w", zipfile.ZIP_STORED) as archive:
                for shot in shots:
                    for number, picture in enumerate(shot.pictures):
                        # A date of its own would make two equal files differ.
                        archive.writestr(zipfile.ZipInfo(f"{shot.row.shot}/{number:02d}.jpg"), to_jpeg(picture))
        where = str(self.pictures.relative_to(root))
        rows = [asdict(replace(shot.row, pictures=where)) for shot in shots]
        with written_aside(self.rows) as part:
            part.write_text(json.dumps({**facts, "shots": rows}), encoding="utf-8")

    def read(self) -> dict[str, Any]:
        """What `write` was given. Raises InputError where a failing disk has left something else."""
        try:
            found: dict[str, Any] = json.loads(self.rows.read_text(encoding="utf-8"))
            return {**found, "shots": list(found["shots"])}
        except (OSError, ValueError, KeyError, TypeError):
            raise self.damaged(self.rows) from None

    def damaged(self, path: Path) -> InputError:
        """What to raise for a file that cannot be read; takes the unit's rows away, so that the next run finds them again."""
        self.rows.unlink(missing_ok=True)
        return InputError(f"{path.name}: was damaged or taken away; run the same command again, which looks at this part anew")


def read_pictures(root: Path, row: ShotRow) -> tuple[bytes, ...]:
    """The JPEG files of a shot's pictures; none where they are gone."""
    try:
        path = root / row.pictures
        archive = _archive(path, path.stat().st_mtime_ns)
        return tuple(archive.read(f"{row.shot}/{number:02d}.jpg") for number in range(row.num_pictures))
    except (OSError, KeyError, zipfile.BadZipFile):
        return ()


@lru_cache(maxsize=4)
def _archive(path: Path, changed_ns: int) -> zipfile.ZipFile:
    """Open for the next shots, which are mostly in the same one: its index takes longer to read than a shot's pictures."""
    return zipfile.ZipFile(path)


@dataclass(frozen=True)
class Worker:
    """What runs in a process of its own, or in this one: scans, sews, and computes features. To be pickled.

    `root`: the set's `work` folder. `load`: loads the extractors, by name; called where features are missing.
    """

    root: Path
    settings: ShotSettings
    load: Callable[[], Mapping[str, Looks]]
    keys: Mapping[str, str]
    """For each extractor, what names its features' folder."""
    device: str = "cpu"
    on_gpu: bool = False
    """Whether features want a GPU where there is one."""

    def __getstate__(self) -> dict[str, Any]:
        """Without what this process has loaded."""
        return {each.name: getattr(self, each.name) for each in fields(self)}

    @cached_property
    def detector(self) -> CutDetector:
        return detector_named(self.settings.detector, self.device)

    @cached_property
    def _extractors(self) -> Mapping[str, Looks]:
        return self.load()

    @cached_property
    def folder(self) -> Path:
        return self.root / "shots" / _digest(self.settings, self.detector)

    def files(self, unit: Unit) -> UnitFiles:
        return UnitFiles(self.folder, unit)

    def features_file(self, name: str, unit: Unit) -> Path:
        return self.root / "features" / self.keys[name] / self.folder.name / unit.video.digest / f"{unit.unit}.npz"

    def is_done(self, unit: Unit) -> bool:
        """Whether nothing of a unit is missing."""
        return self.files(unit).is_done and all(self.features_file(name, unit).exists() for name in self.keys)

    def find_shots(self, unit: Unit) -> str:
        """Scan a piece, or sew a video's seams, unless that is done. Returns nothing; raises what goes wrong, as `running` tells."""
        if not self.files(unit).is_done:
            self._sew(unit) if unit.unit == SEAMS else self._scan(unit)
        return ""

    def compute_features(self, unit: Unit) -> str:
        """Compute what features of a unit's shots are missing. Returns nothing; raises what goes wrong."""
        files = self.files(unit)
        rows = [ShotRow.from_data(each) for each in files.read()["shots"]]
        for name in self.keys:
            path = self.features_file(name, unit)
            if not path.exists():
                found = list(self._features(files, self._extractors[name], rows))
                with written_aside(path) as part:
                    np.savez(part, shots=np.array([row.shot for row in rows]), features=np.stack(found) if found else np.zeros((0, 0)))
        return ""

    def _features(self, files: UnitFiles, extractor: Looks, rows: Sequence[ShotRow]) -> Iterator[Features]:
        for first in range(0, len(rows), BATCH):
            batch = [read_pictures(self.root, row) for row in rows[first : first + BATCH]]
            if not all(batch):
                raise files.damaged(files.pictures)
            yield from extractor.scenes([np.stack([from_jpeg(file) for file in pictures]) for pictures in batch])

    def _scan(self, unit: Unit) -> None:
        files = self.files(unit)
        scan = scan_piece(unit.video, unit.start, unit.stop, self.detector, self.settings.max_seconds)
        for side, seam in (("head", scan.head), ("tail", scan.tail)):
            if seam is not None:
                _write_seam(files.seam(side), seam)
        files.write(scan.shots, _facts(scan), self.root)

    def _sew(self, unit: Unit) -> None:
        pieces = [self.files(Unit(unit.video, piece_name(number))) for number in range(unit.num_pieces)]
        seams = [(_read_seam(piece.seam("head")), _read_seam(piece.seam("tail"))) for piece in pieces]
        for piece, sides in zip(pieces, seams, strict=True):
            wanted = piece.read()["seams"]
            if wanted != [side is not None for side in sides]:
                raise piece.damaged(piece.seam("head" if sides[0] is None and wanted[0] else "tail"))
        found = sew(unit.video, seams, self.detector, self.settings.max_seconds)
        self.files(unit).write(found.shots, {"cuts": found.cuts, "dissolves": found.dissolves}, self.root)
        for piece in pieces:
            for side in ("head", "tail"):
                piece.seam(side).unlink(missing_ok=True)


def _digest(settings: ShotSettings, detector: CutDetector) -> str:
    parts = [FORMAT, asdict(settings), detector.name, PICTURES_PER_SECOND, SHORT_SIDE, MOST_PICTURES]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:12]


def piece_name(number: int) -> str:
    return f"piece-{number:04d}"


def _facts(scan: Scan) -> dict[str, Any]:
    return {
        "stop": scan.stop,
        "cuts": scan.cuts,
        "dissolves": scan.dissolves,
        "num_decoded": scan.num_decoded,
        "seams": [scan.head is not None, scan.tail is not None],
        "problem": scan.problem,
    }


def _write_seam(path: Path, seam: Seam) -> None:
    with written_aside(path) as part:
        np.savez(part, allow_pickle=False, **to_arrays(seam))


def _read_seam(path: Path) -> Seam | None:
    try:
        with np.load(path) as arrays:
            return from_arrays(arrays)
    except FileNotFoundError:
        return None


# What there is to do, and what was found


def units_of(row: VideoRow) -> tuple[list[Unit], Unit]:
    """A video's pieces, and its seams, to be sewn when these are done."""
    video = Video(Path(row.video), row.name, row.digest, row.fps)
    stops = (*row.piece_starts[1:], None)
    pieces = [
        Unit(video, piece_name(number), start, stop) for number, (start, stop) in enumerate(zip(row.piece_starts, stops, strict=True))
    ]
    return pieces, Unit(video, SEAMS, num_pieces=len(pieces))


class Progress(Protocol):
    """Whom a step tells how far it is."""

    def start(self, stage: str, total: int) -> None: ...

    def step(self) -> None: ...

    def done(self) -> None: ...


def find_all(rows: Iterable[VideoRow], worker: Worker, place: Place, progress: Progress) -> dict[str, list[str]]:
    """Do what is missing of all videos. Returns what went wrong, by the video's digest."""
    pieces, seams = [], []
    for row in rows:
        if not row.problem:
            own, between = units_of(row)
            pieces += own
            seams += [between] if len(own) > 1 else []
    problems: dict[str, list[str]] = {}

    def told(unit: Unit, problem: str) -> None:
        if problem:
            problems.setdefault(unit.video.digest, []).append(f"{unit.unit}: {problem}")
        progress.step()

    work = Work((worker.find_shots, worker.compute_features), on_gpu=worker.on_gpu)
    for stage, units in (("pieces", pieces), ("seams", seams)):
        missing = [unit for unit in units if not worker.is_done(unit) and unit.video.digest not in problems]
        if missing:
            progress.start(stage, len(missing))
            place.run(work, missing, told)
            progress.done()
    return problems


def collect(row: VideoRow, worker: Worker, problems: Sequence[str]) -> tuple[ScanRow, list[ShotRow]]:
    """What is known of a video after its units are done: its shots in order, from all units that could be."""
    pieces, seams = units_of(row)
    units = [*pieces, seams] if len(pieces) > 1 else pieces
    shots: list[ShotRow] = []
    cuts: list[int] = []
    dissolves: list[tuple[int, int]] = []
    said, num_frames, num_decoded = list(problems), 0, 0
    for unit in units:
        files = worker.files(unit)
        if not files.is_done:
            continue
        try:
            found = files.read()
        except InputError as error:
            said.append(str(error))
            continue
        shots += [replace(ShotRow.from_data(each), name=row.name) for each in found["shots"]]
        cuts += found["cuts"]
        dissolves += [(first, last) for first, last in found["dissolves"]]
        num_frames, num_decoded = max(num_frames, found.get("stop", 0)), num_decoded + found.get("num_decoded", 0)
        said += [found["problem"]] if found.get("problem") else []
    if not said and num_frames < 0.9 * row.num_frames - 2:
        said.append(
            f"ends after {num_frames / row.fps:.1f} s, expected {row.num_frames / row.fps:.1f} s as its header has it; get it again"
        )
    ordered = [replace(shot, index=index) for index, shot in enumerate(sorted(shots, key=lambda shot: shot.start))]
    return ScanRow(row.name, row.digest, num_frames, num_decoded, tuple(sorted(cuts)), tuple(sorted(dissolves)), "; ".join(said)), ordered


def read_features(rows: Iterable[VideoRow], worker: Worker, name: str) -> dict[str, Features]:
    """All features of one extractor, by shot; of a damaged file none."""
    features: dict[str, Features] = {}
    for row in rows:
        if row.problem:
            continue
        pieces, seams = units_of(row)
        for unit in (*pieces, seams):
            path = worker.features_file(name, unit)
            if path.exists():
                try:
                    with np.load(path) as arrays:
                        features |= dict(zip(map(str, arrays["shots"]), arrays["features"], strict=True))
                except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
                    path.unlink()  # the next run computes them again
    return features
