"""What each step writes: one JSON object per line, one line per row, and a summary of a step beside them. No torch.

Frames are counted from 0 at the video's own rate; a stretch is [start, stop). A row says everything that the steps after it need.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, ClassVar, Self, TypeVar

from mask2dit.errors import InputError
from mask2dit.files import written_aside


@dataclass(frozen=True, slots=True)
class Row:
    """A row of a step."""

    FILE: ClassVar[str]

    def to_json(self) -> str:
        return json.dumps(asdict(self), ensure_ascii=False)

    @classmethod
    def from_data(cls, data: Mapping[str, Any]) -> Self:
        return cls(**{each.name: _tupled(data[each.name]) for each in fields(cls)})


R = TypeVar("R", bound=Row)


@dataclass(frozen=True, slots=True)
class VideoRow(Row):
    """Step 1, pieces: one source video. `problem`: why nothing can be made of it, or ""."""

    FILE: ClassVar[str] = "1-pieces.jsonl"

    video: str
    """Its path, absolute."""
    name: str
    """What people read: its path in the folder that was given."""
    digest: str
    """Of its bytes."""
    stamp: str
    """Size and date; while it stays, the digest is not computed again."""
    fps: float
    height: int
    width: int
    num_frames: int
    """As its header has it; how many there are is known after the shots."""
    piece_starts: tuple[int, ...]
    """First frame of each piece, the first one 0; each is a keyframe."""
    problem: str = ""


@dataclass(frozen=True, slots=True)
class ShotRow(Row):
    """Step 2, shots: one shot. `begins` and `ends`: at a "cut", a "dissolve", the film's "edge", or a "split" where it was too long."""

    FILE: ClassVar[str] = "2-shots.jsonl"

    shot: str
    """Its name in all rows and files."""
    name: str
    """The video's."""
    digest: str
    index: int
    """Its place among the video's shots, counted from 0."""
    start: int
    stop: int
    fps: float
    begins: str
    ends: str
    pictures: str
    """The file that holds `num_pictures` of its pictures as JPEG, named `shot/number`; in the folder of the shots' step."""
    num_pictures: int
    lightness: float
    """Mean, 0 to 100."""
    contrast: float
    """Standard deviation of lightness, the mean over pictures."""
    motion: float | None
    """Speed of the fastest 5 % of the picture, in % of its longer side per second; None for one picture."""
    still_seconds: float
    """The longest time in which nothing changed."""
    bars: tuple[float, float, float, float]
    """Shares of the picture that black bars take: top, bottom, left, right."""
    text: float
    """Share of the picture that overlaid text takes."""
    num_damaged: int

    @property
    def seconds(self) -> float:
        return (self.stop - self.start) / self.fps


@dataclass(frozen=True, slots=True)
class ScanRow(Row):
    """Step 2, shots, second file: one video. `problem`: what could not be read of it, or ""; shots may be there all the same."""

    FILE: ClassVar[str] = "2-videos.jsonl"

    name: str
    digest: str
    num_frames: int
    num_decoded: int
    """Frames that were decoded for these, each time that one was."""
    cuts: tuple[int, ...]
    """First frame after each hard cut."""
    dissolves: tuple[tuple[int, int], ...]
    """First mixed and first clean frame of each."""
    problem: str = ""


@dataclass(frozen=True, slots=True)
class CheckRow(Row):
    """Step 3, checks: whether a shot is kept; `reasons`: a kind of `KINDS` each, and what was measured."""

    FILE: ClassVar[str] = "3-checks.jsonl"
    KINDS: ClassVar[tuple[str, ...]] = ("short", "damaged", "black", "flat", "frozen", "still", "text", "bars", "duplicate")

    shot: str
    kept: bool
    reasons: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class PairRow(Row):
    """Step 4, groups, first file: two shots that follow each other in one video.

    `verdict`: "related"; or why they do not stand in one group: "unrelated" (below the lower threshold), "same picture" (above the upper
    one, or parts of one shot), "dropped" (a check dropped one of them; then there is no relevance).
    """

    FILE: ClassVar[str] = "4-pairs.jsonl"
    VERDICTS: ClassVar[tuple[str, ...]] = ("related", "unrelated", "same picture", "dropped")

    first: str
    second: str
    relevance: float | None
    verdict: str


@dataclass(frozen=True, slots=True)
class GroupRow(Row):
    """Step 4, groups: consecutive shots that make one training sample."""

    FILE: ClassVar[str] = "4-groups.jsonl"

    group: str
    name: str
    """The video's."""
    digest: str
    shots: tuple[str, ...]
    relevance: tuple[float, ...]
    """Of each shot and the next."""


@dataclass(frozen=True, slots=True)
class CaptionRow(Row):
    """Step 5, captions: a group in words. `problem`: why there are none, or ""."""

    FILE: ClassVar[str] = "5-captions.jsonl"

    group: str
    captioner: str
    """Which one, with its model and the version of the instruction."""
    cast: tuple[tuple[str, str], ...]
    """Tag and description of each character."""
    setting: str
    """What stays of the background, or ""."""
    prompts: tuple[str, ...]
    """One per shot, with tags alone."""
    captions: tuple[str, ...]
    """One per shot, each tag with its description behind it, as training reads them."""
    problem: str = ""


@dataclass(frozen=True, slots=True)
class ReviewRow(Row):
    """Step 6, reviews: whether a group's captions are as they must be; `reasons`: a kind of `KINDS` each, and what is wrong."""

    FILE: ClassVar[str] = "6-reviews.jsonl"
    KINDS: ClassVar[tuple[str, ...]] = ("no captions", "unknown tag", "other description", "unused character", "too long", "empty")

    group: str
    kept: bool
    longest: int
    """Tokens of its longest caption."""
    reasons: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class ClipRow(Row):
    """Step 7, export: one shot of a kept group as a file of its own."""

    FILE: ClassVar[str] = "7-clips.jsonl"

    shot: str
    group: str
    split: str
    """"train" or "validation"."""
    clip: str
    """Path in the set's folder."""
    caption: str
    fps: float
    height: int
    width: int
    num_frames: int


@dataclass(frozen=True, slots=True)
class StepSummary:
    """What a step did, for people: written beside its rows as JSON, under the name of its file.

    `counts`: numbers by what they count, in the order to be shown. `dropped`: by reason. `settings`: what the rows follow from.
    """

    step: str
    counts: Mapping[str, int | float]
    dropped: Mapping[str, int] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    notes: Sequence[str] = ()


STEPS = ("pieces", "shots", "checks", "groups", "captions", "reviews", "export")


def write_rows(folder: Path, kind: type[Row], rows: Iterable[Row]) -> Path:
    """Write all rows of a step, whole or not at all; a file that says the same already is left as it is."""
    path = folder / kind.FILE
    text = "".join(f"{row.to_json()}\n" for row in rows)
    write_if_new(path, text)
    return path


def write_if_new(path: Path, text: str) -> None:
    """Write a text file aside, unless it holds this already."""
    content = text.encode("utf-8", "backslashreplace")
    try:
        if path.read_bytes() == content:
            return
    except OSError:
        pass
    with written_aside(path) as part:
        part.write_bytes(content)


def read_rows(folder: Path, kind: type[R]) -> list[R]:
    """The rows of a step; none where it has not run. Raises InputError for a file that is not its own."""
    path = folder / kind.FILE
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return []
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read ({error}); take it away, and the step writes it again") from None
    rows = []
    for number, line in enumerate(text.split("\n")[:-1], 1):
        try:
            rows.append(kind.from_data(json.loads(line)))
        except (ValueError, KeyError, TypeError):
            raise InputError(f"{path}: line {number}: is no row of this step; take the file away, and the step writes it again") from None
    return rows


def forget(folder: Path, steps: Iterable[str]) -> None:
    """Take the rows and summaries of steps away."""
    for step in steps:
        for path in folder.glob(f"{STEPS.index(step) + 1}-*.json*"):
            path.unlink(missing_ok=True)


def write_summary(folder: Path, summary: StepSummary) -> None:
    """Write a step's summary beside its rows."""
    number = STEPS.index(summary.step) + 1
    data = {key: value for key, value in asdict(summary).items() if value not in ((), {}, [])}
    write_if_new(folder / f"{number}-{summary.step}.json", json.dumps(data, indent=1, ensure_ascii=False) + "\n")


def read_summaries(folder: Path) -> dict[str, StepSummary]:
    """The summaries that are there, by step."""
    found = {}
    for number, step in enumerate(STEPS, 1):
        path = folder / f"{number}-{step}.json"
        try:
            found[step] = StepSummary(**json.loads(path.read_text(encoding="utf-8")))
        except FileNotFoundError:
            continue
        except (OSError, ValueError, TypeError):
            raise InputError(f"{path}: is no summary of a step; take it away, and the step writes it again") from None
    return found


def _tupled(value: Any) -> Any:
    """JSON's lists as the rows have them."""
    return tuple(map(_tupled, value)) if isinstance(value, list) else value
