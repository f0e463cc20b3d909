"""One piece of a video, looked at once: its frames are decoded, its shots found and measured, and some pictures of each kept.

Memory does not grow with the piece: frames wait only until the detector has decided about them, and a stretch longer than a shot may be,
and than a dissolve in it could last, is divided. The shots at a border between two pieces stay open: they are kept as they are, and `sew`
makes of the two halves what they would be had the video been one piece; only where a long take is split depends on the borders.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import av
import numpy as np

from mask2dit.curation.measures import black_bars, dissolves, is_blank, lightness, longest_still, text_overlay, thumbnail
from mask2dit.curation.rows import ShotRow
from mask2dit.curation.stretches import Frame, Sample, Seam, Stretch
from mask2dit.cut_detectors import CutDetector
from mask2dit.errors import InputError, one_line
from mask2dit.motion import motion
from mask2dit.video_files import open_video

PICTURES_PER_SECOND = 8.0
SHORT_SIDE = 336  # pixels, or a third more: what the largest of the extractors' networks sees
MOST_PICTURES = 16  # of a shot that are kept: as many as the networks for video look at
LOOK_AHEAD = 3.5  # seconds by which a stretch may be too long before it is divided: a dissolve lasts less
TEXT_PICTURES = 8  # of these that are searched for text, which takes most of the time


@dataclass(frozen=True, slots=True)
class Shot:
    """A finished shot: its row, but for its place in the video, and the pictures to be kept."""

    row: ShotRow
    pictures: tuple[Frame, ...]


@dataclass(frozen=True, slots=True)
class Scan:
    """What was found in a piece [start, stop). `head` and `tail`: at its borders with other pieces; None at the video's own ends."""

    start: int
    stop: int
    shots: tuple[Shot, ...]
    cuts: tuple[int, ...]
    dissolves: tuple[tuple[int, int], ...]
    head: Seam | None
    tail: Seam | None
    num_decoded: int
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Video:
    """Whose shots they are."""

    path: Path
    name: str
    digest: str
    fps: float


@dataclass(frozen=True, slots=True)
class Found:
    """Shots out of stretches, with the cuts and dissolves between them."""

    shots: tuple[Shot, ...]
    cuts: tuple[int, ...]
    dissolves: tuple[tuple[int, int], ...]


def scan_piece(video: Video, start: int, stop: int | None, detector: CutDetector, max_seconds: float) -> Scan:
    """Decode frames [start, stop) of a video; None: to its end. What cannot be decoded ends the piece, and is its problem."""
    cutter = _Cutter(video, start, stop, detector, max_seconds)
    problem, num_decoded = "", 0
    try:
        with open_video(video.path) as opened:
            try:
                frames = opened.frames(start_seconds=float(start / opened.rate), short_side=SHORT_SIDE)
                for number, frame in enumerate(frames, start):
                    if number == stop:
                        break
                    cutter.add(frame, opened.num_damaged)
            except (av.error.FFmpegError, InputError) as error:
                problem = f"breaks off at {cutter.number / video.fps:.1f} s ({one_line(error, 80)}); what lies before it counts"
            num_decoded = opened.num_decoded
    except InputError as error:
        problem = str(error).removeprefix(f"{video.path}: ")
    return cutter.finished(num_decoded, problem)


class _Cutter:
    """Cuts a piece into stretches as its frames come by, and makes shots of them."""

    def __init__(self, video: Video, start: int, stop: int | None, detector: CutDetector, max_seconds: float) -> None:
        self.number = start
        """The next frame."""
        self._video, self._start, self._stop, self._detector = video, start, stop, detector
        self._most_frames = max(1, round(max_seconds * video.fps))
        self._finder = detector.start()
        self._waiting: deque[tuple[int, Frame, int]] = deque()
        self._head: list[Frame] = []
        self._tail: deque[Frame] = deque(maxlen=2 * detector.reach)
        self._open = _Builder(start, "edge" if start == 0 else "border", 0, video.fps)
        self._first: Stretch | None = None
        self._found: list[Found] = []
        self._cuts: list[int] = []

    def add(self, frame: Frame, num_damaged: int) -> None:
        seen = self._detector.prepare(frame)
        self._finder.add(seen)
        if len(self._head) < 2 * self._detector.reach:
            self._head.append(seen)
        self._tail.append(seen)
        self._waiting.append((self.number, frame, num_damaged))
        self.number += 1
        while self._waiting[0][0] < self.number - self._detector.reach:
            self._take(*self._waiting.popleft())

    def finished(self, num_decoded: int, problem: str) -> Scan:
        self._finder.finish()
        while self._waiting:
            self._take(*self._waiting.popleft())
        at_end = self._stop is None or self.number < self._stop
        last = self._open.stretch(self.number, "edge" if at_end else "border", self._transitions())
        is_through = self._first is None and self._start > 0
        first = last if is_through else self._first
        if at_end and not is_through:
            self._found.append(shots_of(self._video, last, self._most_frames))
        tail = Seam(last, tuple(self._tail)) if not at_end and last.stop > last.start else None
        head = Seam(first, tuple(self._head)) if first is not None and first.stop > first.start else None
        shots = tuple(shot for each in self._found for shot in each.shots)
        gone = tuple(dissolve for each in self._found for dissolve in each.dissolves)
        return Scan(self._start, self.number, shots, tuple(self._cuts), gone, head, tail, num_decoded, problem)

    def _take(self, number: int, frame: Frame, num_damaged: int) -> None:
        """A frame about which the detector has decided."""
        if self._is_cut(number):
            self._cuts.append(number)
            self._end_stretch(number, "cut")
        elif number - self._open.start >= self._most_frames + round(LOOK_AHEAD * self._video.fps):
            self._divide(number)
        self._open.add(number, frame, num_damaged)

    def _transitions(self) -> list[tuple[int, int]]:
        return [(self._start + first, self._start + clean) for first, clean in self._finder.transitions]

    def _is_cut(self, number: int) -> bool:
        """Whether a cut was found that is this piece's to find: what lies within the detector's reach of a border is for `sew`."""
        reach = self._detector.reach
        mine = (self._start == 0 or number >= self._start + reach) and (self._stop is None or number <= self._stop - reach)
        return mine and number > self._open.start and number - self._start in self._finder.cuts[-2 * reach :]

    def _end_stretch(self, number: int, how: str) -> None:
        self._keep(self._open.stretch(number, how, self._transitions()))
        self._open = _Builder(number, how, self._open.num_damaged, self._video.fps)

    def _divide(self, number: int) -> None:
        """What is open has become too long: all but its end is done with."""
        parts, gone, rest = divided(self._video, self._open.stretch(number, "open", self._transitions()), self._most_frames)
        if parts and parts[0].begins == "border":
            self._first = parts.pop(0)
        self._found.append(found_in(self._video, parts, gone))
        self._open = _Builder.of(rest, self._open.num_damaged, self._video.fps)

    def _keep(self, ended: Stretch) -> None:
        if ended.begins == "border":
            self._first = ended
        else:
            self._found.append(shots_of(self._video, ended, self._most_frames))


class _Builder:
    """A stretch in the making."""

    def __init__(self, start: int, begins: str, num_damaged: int, fps: float) -> None:
        self.start, self.num_damaged = start, num_damaged
        self._begins, self._damaged = begins, list[int]()
        self._frames_per_picture = max(1.0, fps / PICTURES_PER_SECOND)
        self._first_picture = start
        self._samples: list[Sample] = []
        self._thumbnails: list[Frame] = []

    @classmethod
    def of(cls, stretch: Stretch, num_damaged: int, fps: float) -> _Builder:
        """One that goes on from a stretch; its pictures keep their time."""
        builder = cls(stretch.start, stretch.begins, num_damaged, fps)
        builder._samples, builder._thumbnails, builder._damaged = list(stretch.samples), list(stretch.thumbnails), list(stretch.damaged)
        builder._first_picture = stretch.samples[0].frame if stretch.samples else stretch.stop
        return builder

    def add(self, number: int, frame: Frame, num_damaged: int) -> None:
        # The k-th picture is the frame that is shown after k ticks of the stretch's own clock.
        if number - self._first_picture >= int(len(self._samples) * self._frames_per_picture + 1e-6):
            self._samples.append(Sample(number, frame))
        self._thumbnails.append(thumbnail(frame))
        if num_damaged > self.num_damaged:
            self._damaged.append(number)
        self.num_damaged = num_damaged

    def stretch(self, stop: int, ends: str, transitions: Iterable[tuple[int, int]] = ()) -> Stretch:
        thumbnails = np.stack(self._thumbnails) if self._thumbnails else np.zeros((0, 1, 1, 3), np.uint8)
        inside = tuple(each for each in transitions if self.start < each[0] and each[1] < stop)
        return Stretch(self.start, stop, self._begins, ends, tuple(self._samples), thumbnails, tuple(self._damaged), inside)


def sew(video: Video, seams: Iterable[tuple[Seam | None, Seam | None]], detector: CutDetector, max_seconds: float) -> Found:
    """The shots at the borders of a video's pieces, from each piece's head and tail, in order.

    A stretch that goes through a whole piece is its head and its tail, and is sewn on either side.
    """
    most = max(1, round(max_seconds * video.fps))
    found: list[Found] = []
    before: Seam | None = None
    for head, tail in seams:
        through = None
        if head is not None and before is not None:
            cuts, parts = _sewn(before, head, detector)
            through = parts.pop() if parts[-1].ends == "border" else None
            if through is not None and through.stop - through.start > most + LOOK_AHEAD * video.fps:
                early, gone, through = divided(video, through, most)
                found.append(found_in(video, early, gone))
            found.append(_joined(cuts, [shots_of(video, part, most) for part in parts]))
        elif head is not None:  # what lies before could not be read
            through = replace(head.stretch, begins="edge") if head.stretch.ends == "border" else None
            found += [] if through else [shots_of(video, replace(head.stretch, begins="edge"), most)]
        elif before is not None:  # what follows could not
            found.append(shots_of(video, replace(before.stretch, ends="edge"), most))
        before = Seam(through, tail.seen) if through is not None and tail is not None else tail
    if before is not None:
        found.append(shots_of(video, replace(before.stretch, ends="edge"), most))
    return _joined((), found)


def _sewn(tail: Seam, head: Seam, detector: CutDetector) -> tuple[tuple[int, ...], list[Stretch]]:
    """The cuts at one border, and the stretches between them: of the last one of a piece, and the first one of the next."""
    left, right = tail.stretch, head.stretch
    whole = Stretch(
        left.start,
        right.stop,
        left.begins,
        right.ends,
        left.samples + right.samples,
        np.concatenate([left.thumbnails, right.thumbnails]),
        left.damaged + right.damaged,
        left.transitions + right.transitions,
    )
    cuts = [cut for cut in _cuts_at(tail, head, detector) if whole.start < cut < whole.stop]
    return tuple(cuts), list(_parts(whole, [(cut, "cut") for cut in cuts]))


def _cuts_at(tail: Seam, head: Seam, detector: CutDetector) -> Iterator[int]:
    """Cuts so near to a border that neither piece could find them."""
    finder, border = detector.start(), head.stretch.start
    for seen in (*tail.seen, *head.seen):
        finder.add(seen)
    finder.finish()
    for cut in finder.cuts:
        number = border - len(tail.seen) + cut
        if border - detector.reach < number < border + detector.reach:
            yield number


def shots_of(video: Video, stretch: Stretch, most_frames: int) -> Found:
    """The shots of a stretch without cuts: one, or several with dissolves between them, none longer than so many frames."""
    gone = _dissolves(video, stretch)
    parts = [even for part in _parts(stretch, gone) for even in _evenly_split(part, most_frames)]
    return found_in(video, parts, gone)


def divided(video: Video, stretch: Stretch, most_frames: int) -> tuple[list[Stretch], list[tuple[int, int]], Stretch]:
    """Of a stretch that goes on after its end: the parts that are done with, the dissolves between them, and the part that goes on."""
    gone = _dissolves(video, stretch)
    *parts, rest = _parts(stretch, gone)
    before = [even for part in parts for even in _evenly_split(part, most_frames)]
    while rest.stop - rest.start > most_frames:
        first, rest = _parts(rest, [(rest.start + most_frames, "split")])
        before.append(first)
    return before, gone, rest


def found_in(video: Video, parts: Iterable[Stretch], gone: Sequence[tuple[int, int]]) -> Found:
    """Shots of parts; the black ones between a fade and the next are none."""
    shots = (part for part in parts if part.samples and not ("dissolve" in (part.begins, part.ends) and is_blank(part.thumbnails)))
    return Found(tuple(_shot(video, part) for part in shots), (), tuple(gone))


def _dissolves(video: Video, stretch: Stretch) -> list[tuple[int, int]]:
    """Those that the detector told, and those that the thumbnails show elsewhere."""
    seen = [(stretch.start + first, stretch.start + clean) for first, clean in dissolves(stretch.thumbnails, video.fps)]
    apart = [each for each in seen if all(each[1] < first or each[0] > clean for first, clean in stretch.transitions)]
    return sorted([*stretch.transitions, *apart])


def _evenly_split(part: Stretch, most_frames: int) -> list[Stretch]:
    """Parts of the same length, as few as can be."""
    length = part.stop - part.start
    count = -(-length // most_frames)
    return list(_parts(part, [(part.start + length * number // count, "split") for number in range(1, count)]))


def _parts(stretch: Stretch, ends: Sequence[tuple[int, int | str]]) -> Iterator[Stretch]:
    """Parts of a stretch: each end is a frame and how, or the first and last frame of what is left out as a dissolve."""
    start, begins = stretch.start, stretch.begins
    for stop, how in ends:
        word, following = (how, stop) if isinstance(how, str) else ("dissolve", how)
        if stop > start:
            yield stretch.between(start, stop, begins, word)
        start, begins = following, word
    if stretch.stop > start:
        yield stretch.between(start, stretch.stop, begins, stretch.ends)


def _joined(cuts: tuple[int, ...], found: Sequence[Found]) -> Found:
    return Found(
        tuple(shot for each in found for shot in each.shots),
        cuts + tuple(cut for each in found for cut in each.cuts),
        tuple(dissolve for each in found for dissolve in each.dissolves),
    )


def _shot(video: Video, part: Stretch) -> Shot:
    pictures = np.stack([sample.picture for sample in part.samples])
    per_second = min(video.fps, PICTURES_PER_SECOND)
    kept = _evenly(pictures, MOST_PICTURES)
    light, contrast = lightness(kept)
    bars = black_bars(kept)
    row = ShotRow(
        shot=f"{video.digest}-{part.start:07d}-{part.stop:07d}",
        name=video.name,
        digest=video.digest,
        index=0,
        start=part.start,
        stop=part.stop,
        fps=video.fps,
        begins=part.begins,
        ends=part.ends,
        pictures="",
        num_pictures=len(kept),
        lightness=round(light, 2),
        contrast=round(contrast, 2),
        motion=_rounded(motion(pictures, per_second)),
        still_seconds=round(longest_still(pictures, per_second), 2),
        bars=_four(bars),
        text=round(text_overlay(_evenly(kept, TEXT_PICTURES)), 4),
        num_damaged=len(part.damaged),
    )
    return Shot(row, tuple(_inside(picture, bars) for picture in kept))


def _evenly(pictures: Frame, most: int) -> Frame:
    """At most so many of them, evenly spaced."""
    count = min(len(pictures), most)
    chosen: Frame = pictures[np.linspace(0, len(pictures) - 1, count).round().astype(int)]
    return chosen


def _inside(picture: Frame, bars: Sequence[float]) -> Frame:
    """A picture without its black bars."""
    height, width = picture.shape[:2]
    top, bottom, left, right = bars
    inner = picture[round(top * height) : height - round(bottom * height), round(left * width) : width - round(right * width)]
    return inner if inner.size else picture


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 2)


def _four(bars: Sequence[float]) -> tuple[float, float, float, float]:
    top, bottom, left, right = (round(float(share), 4) for share in bars)
    return top, bottom, left, right
