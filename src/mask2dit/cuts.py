"""A finished film looked at: where its cuts are and whether they are those that were asked for, and how its colours drift.

Frames are uint8 [Y, X, 3] in sRGB and come one by one; of each only a few numbers are kept. A cut is named by the first frame after it,
counted from 0; scenes are counted from 1. Who decodes a film, and what follows from the answer, is decided elsewhere.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Collection, Iterable, Iterator, Sequence
from itertools import accumulate, pairwise
from textwrap import wrap
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from mask2dit.cut_detectors import SHORTEST_SCENE, SMALLEST_CHANGE, AdaptiveCuts, Frame, made_small
from mask2dit.cut_detectors import Detector as Detector
from mask2dit.cut_detectors import detector as detector
from mask2dit.cut_detectors import srgb_to_lab as srgb_to_lab
from mask2dit.errors import InputError

PRICE = 1.0
"""What a missed or an unwanted cut costs, in mean scene lengths: as much as a cut that lies a whole scene off."""

COLOUR_SIDE = 128  # pixels of the picture that colours are measured on, so that a film and its enlargement agree


class _Result(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class SceneColours(_Result):
    """Colour and contrast of one scene, in CIELAB: lightness 0 to 100, and means over all its frames.

    `contrast`: standard deviation of lightness in a frame. `colour_drift`, `contrast_drift`: against the first scene, as ΔE of the means
    and as a difference. `inner_drift`: ΔE between the means of its first and its last frame.
    """

    number: int
    num_frames: int
    colour: tuple[float, float, float]
    contrast: float
    colour_drift: float
    contrast_drift: float
    inner_drift: float


class FilmCheck(_Result):
    """The cuts that were asked for and those that were found, what is amiss, and each scene's colours.

    `pairs`: (asked, found), `deviations`: found − asked for each. `extra`: found where none was asked for, `unwanted_scenes`: the scene
    that each lies in. `price_frames`: what each missed or extra cut cost. `mean_deviation`: in frames, over the pairs, without sign.
    `confidences`: how sure the detector is of a cut at each asked place, see `cut_confidence`; None where it cannot say.
    """

    num_frames: int
    asked: tuple[int, ...]
    found: tuple[int, ...]
    pairs: tuple[tuple[int, int], ...]
    deviations: tuple[int, ...]
    missed: tuple[int, ...]
    extra: tuple[int, ...]
    unwanted_scenes: tuple[int, ...]
    price_frames: float
    sca: float
    mean_deviation: float | None
    confidences: tuple[float | None, ...] = ()
    scenes: tuple[SceneColours, ...]
    detector: Detector

    def notes(self, numbers: Sequence[int] | None = None) -> tuple[str, ...]:
        """What a reader of the figures must know. numbers: what the scenes are called, where that is not 1, 2, 3 …"""
        names = numbers or [scene.number for scene in self.scenes]
        shortest = self.detector.shortest_scene
        short = [str(name) for name, scene in zip(names, self.scenes, strict=True) if scene.num_frames < shortest]
        if not short or not self.asked:
            return ()
        return (f"scene{'s' * (len(short) > 1)} {', '.join(short)}: one frame, which no detector can tell from a flash",)


def check_frames(frames: Iterable[Frame], scene_lengths: Sequence[int]) -> FilmCheck:
    """Check a whole film against the lengths of its scenes in frames. Raises InputError, also where they do not add up to the film's."""
    if not scene_lengths or min(scene_lengths) < 1:
        raise InputError(f"scene lengths: got {_listed(scene_lengths)}, expected frames of at least 1 for each scene; for example 9, 9, 9")
    *cuts, whole = accumulate(scene_lengths)
    check = check_cuts(frames, cuts)
    if check.num_frames != whole:
        raise InputError(
            f"scene lengths: got {_listed(scene_lengths)}, {whole} frames in all, but the film has {check.num_frames}; name every scene's"
        )
    return check


def check_cuts(frames: Iterable[Frame], cuts: Sequence[int]) -> FilmCheck:
    """Check a whole film, of any length, against the cuts that were asked for (none: it is one scene). Raises InputError."""
    if any(later <= earlier for earlier, later in pairwise([0, *cuts])):
        raise InputError(f"cuts: got {_listed(cuts)}, expected rising first frames of scenes, counted from 0; for example 9, 18")
    starts = frozenset(cuts)
    finder, scenes = _CutFinder(starts), [_SceneLook()]
    for number, frame in enumerate(frames):
        finder.add(frame)
        if number in starts:
            scenes.append(_SceneLook())
        scenes[-1].add(frame)
    num_frames = finder.num_frames
    if num_frames == 0:
        raise InputError("film: got no frames, expected at least one; make a scene first")
    if cuts and cuts[-1] >= num_frames:
        raise InputError(
            f"cuts: got {cuts[-1]}, but the film's {num_frames} frames are counted from 0 to {num_frames - 1}; name only cuts inside it"
        )
    return _judged(finder, tuple(cuts), _compared(scenes))


def detect_cuts(frames: Iterable[Frame]) -> tuple[int, ...]:
    """The cuts of any film: first frames after each."""
    finder = _CutFinder()
    for frame in frames:
        finder.add(frame)
    return tuple(finder.cuts)


def match_cuts(asked: Sequence[int], found: Sequence[int], reach: Sequence[int], price: float) -> tuple[tuple[int, int], ...]:
    """Pair asked with found cuts, one to one, so that distances and the price of each one left over are least in sum.

    asked, found: rising. reach: how far the found one may be from each asked one, in frames.
    """
    # Of two pairs that cross, the ones that do not are never worse: so it is enough to walk through both lists in order.
    cost = np.zeros((len(asked) + 1, len(found) + 1))
    cost[:, 0], cost[0, :] = price * np.arange(len(asked) + 1), price * np.arange(len(found) + 1)
    for i, (cut, far) in enumerate(zip(asked, reach, strict=True)):
        distances = np.abs(np.asarray(found, np.int64) - cut)
        paired = cost[i, :-1] + np.where(distances <= far, distances, np.inf)
        for j, best in enumerate(np.minimum(paired, cost[i, 1:] + price)):
            cost[i + 1, j + 1] = min(best, cost[i + 1, j] + price)
    pairs: list[tuple[int, int]] = []
    i, j = len(asked), len(found)
    while i and j:
        distance = abs(asked[i - 1] - found[j - 1])
        if distance <= reach[i - 1] and math.isclose(cost[i, j], cost[i - 1, j - 1] + distance):
            i, j = i - 1, j - 1
            pairs.append((asked[i], found[j]))
        elif math.isclose(cost[i, j], cost[i - 1, j] + price):
            i -= 1
        else:
            j -= 1
    return tuple(reversed(pairs))


def shot_cut_accuracy(deviations: Iterable[int], num_left_over: int, price: float, num_frames: int) -> float:
    """SCA = exp(−NSD), NSD = (sum of |deviations| + price × cuts missed or unwanted) / frames of the film: 1 is perfect."""
    return math.exp(-(sum(map(abs, deviations)) + price * num_left_over) / num_frames)


def cut_confidence(change: float, ratio: float) -> float:
    """1 − 1 / ratio, for the `ratio` of the `change` at a place to the one before and after it: from 0, no cut, to 1, a still picture
    before and after. 0 where the change is too small for a cut; the detector's own threshold lies at 0.6.
    """
    return max(0.0, 1 - 1 / ratio) if ratio > 0 and change >= SMALLEST_CHANGE else 0.0


def _judged(finder: _CutFinder, asked: tuple[int, ...], scenes: tuple[SceneColours, ...]) -> FilmCheck:
    num_frames, found = finder.num_frames, tuple(finder.cuts)
    price = PRICE * num_frames / len(scenes)
    lengths = [scene.num_frames for scene in scenes]
    # Half of the shorter neighbour: no found cut is in the reach of two asked ones, but for the very middle between them.
    pairs = match_cuts(asked, found, [min(two) // 2 for two in pairwise(lengths)], price)
    deviations = tuple(there - wanted for wanted, there in pairs)
    missed = tuple(cut for cut in asked if cut not in dict(pairs))
    hits = {there for _, there in pairs}
    extra = tuple(cut for cut in found if cut not in hits)
    return FilmCheck(
        num_frames=num_frames,
        asked=asked,
        found=found,
        pairs=pairs,
        deviations=deviations,
        missed=missed,
        extra=extra,
        unwanted_scenes=tuple(bisect_right(asked, cut) + 1 for cut in extra),
        price_frames=price,
        sca=shot_cut_accuracy(deviations, len(missed) + len(extra), price, num_frames),
        mean_deviation=sum(map(abs, deviations)) / len(deviations) if deviations else None,
        confidences=tuple(
            finder.confidence(cut) if min(beside) >= SHORTEST_SCENE else None for cut, beside in zip(asked, pairwise(lengths), strict=True)
        ),
        scenes=scenes,
        detector=finder.detector,
    )


class _CutFinder:
    """Finds the cuts of a film as its frames come in. asked: frames of which it keeps how sure it is."""

    def __init__(self, asked: Collection[int] = ()) -> None:
        self.detector = detector()
        self._cuts = AdaptiveCuts()
        self._finder = self._cuts.start(asked)
        self._shape: tuple[int, ...] | None = None

    @property
    def cuts(self) -> list[int]:
        return self._finder.cuts

    @property
    def num_frames(self) -> int:
        return self._finder.num_frames

    def add(self, frame: Frame) -> None:
        self._shape = self._shape or frame.shape
        if frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3 or 0 in frame.shape or frame.shape != self._shape:
            got = f"{frame.dtype} {list(frame.shape)}"
            raise InputError(f"frame {self.num_frames}: got {got}, expected uint8 [Y, X, 3], all of one size; convert it first")
        self._finder.add(self._cuts.prepare(frame))

    def confidence(self, cut: int) -> float | None:
        """At an asked frame; 0 where that was passed over, None where too little comes after it."""
        change, ratio = self._finder.measured(cut)
        return 0.0 if change is None else None if ratio is None else cut_confidence(change, ratio)


class _SceneLook:
    """Sums over the frames of one scene."""

    def __init__(self) -> None:
        self.num_frames = 0
        self.colours = np.zeros(3)
        self.contrasts = 0.0
        self.first = self.last = np.zeros(3)

    def add(self, frame: Frame) -> None:
        lab = srgb_to_lab(made_small(frame, COLOUR_SIDE)).astype(np.float64)
        self.last = lab.mean(axis=(0, 1))
        if self.num_frames == 0:
            self.first = self.last
        self.num_frames += 1
        self.colours = self.colours + self.last
        self.contrasts += float(lab[:, :, 0].std())

    @property
    def colour(self) -> NDArray[np.float64]:
        return self.colours / self.num_frames

    @property
    def contrast(self) -> float:
        return self.contrasts / self.num_frames


def _compared(scenes: Sequence[_SceneLook]) -> tuple[SceneColours, ...]:
    first = scenes[0]
    return tuple(
        SceneColours(
            number=number,
            num_frames=scene.num_frames,
            colour=tuple(scene.colour.tolist()),
            contrast=scene.contrast,
            colour_drift=math.dist(scene.colour, first.colour),
            contrast_drift=scene.contrast - first.contrast,
            inner_drift=math.dist(scene.last, scene.first),
        )
        for number, scene in enumerate(scenes, start=1)
    )


_COLUMNS = 98  # of the table, so that it can be indented
_NAMED = 12  # unwanted cuts; the others are counted
_HEADINGS = ("scene", "starts", "found", "off by", "unwanted", "colour drift", "inside", "contrast", "")


def table(check: FilmCheck, fps: float | None = None, numbers: Sequence[int] | None = None) -> list[str]:
    """The check for a person: a row for each scene, then the figures and what they rest on.

    fps: show times in seconds, not frames. numbers: what the scenes are called, where that is not 1, 2, 3 …
    """
    names = list(map(str, numbers or range(1, len(check.scenes) + 1)))
    rows = [_HEADINGS, *_rows(check, fps, names)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["   ".join(map(str.rjust, row, widths)).rstrip() for row in rows]
    texts = (*_summary(check, fps, names), *(f"note: {note}" for note in check.notes(numbers)))
    return [*lines, "", *(line for text in texts for line in wrap(text, _COLUMNS, subsequent_indent="  "))]


def _rows(check: FilmCheck, fps: float | None, names: Sequence[str]) -> Iterator[tuple[str, ...]]:
    found = dict(check.pairs)
    for name, scene, start in zip(names, check.scenes, (0, *check.asked), strict=True):
        cut, is_first = found.get(start), scene.number == 1
        yield (
            name,
            _time(start, fps),
            "" if is_first else "missed" if cut is None else _time(cut, fps),
            "" if cut is None else "0" if cut == start else f"{cut - start:+d}",
            str(check.unwanted_scenes.count(scene.number) or ""),
            "" if is_first else f"{scene.colour_drift:.1f}",
            f"{scene.inner_drift:.1f}",
            f"{scene.contrast:.1f}",
            "" if is_first else f"{scene.contrast_drift:+.1f}",
        )


def _summary(check: FilmCheck, fps: float | None, names: Sequence[str]) -> Iterator[str]:
    left_over, price = len(check.missed) + len(check.extra), f"{check.price_frames:.4g}"
    nsd = f"({sum(map(abs, check.deviations))} + {left_over} × {price}) / {check.num_frames}"
    yield f"SCA {check.sca:.3f} = exp(-{nsd}): frames off, and {price} for each cut missed or unwanted"
    mean = "" if check.mean_deviation is None else f", {check.mean_deviation:.2f} frames off on average"
    yield f"{len(check.pairs)} of {len(check.asked)} cuts found{mean}" if check.asked else "no cut was asked for"
    if check.extra:
        named = [f"{_time(cut, fps)} in scene {names[scene - 1]}" for cut, scene in zip(check.extra, check.unwanted_scenes, strict=True)]
        more = f" and {len(named) - _NAMED} more" if len(named) > _NAMED else ""
        yield f"unwanted cuts: {', '.join(named[:_NAMED])}{more}"
    yield f"detector: {check.detector}"
    yield f"drift: ΔE from scene {names[0]}; inside: ΔE from first to last frame; contrast: spread of lightness"


def _time(frame: int, fps: float | None) -> str:
    return str(frame) if fps is None else f"{frame / fps:.2f} s"


def _listed(values: Iterable[Any]) -> str:
    return ", ".join(map(str, values)) or "nothing"
