"""A film is decoded once: its cuts and colours are checked, what moves is measured, and every scene's pictures go to the extractors.

Pictures of a scene are taken eight a second from its first frame on, by time and not by frame, so that a film at twice the rate gives the
same ones; their short side is made 256 pixels where it is longer. A scene is held in memory by itself, at most `MOST_PICTURES` of it: of a
longer one every second picture is dropped, again and again. Where nobody says where the cuts are, they are detected in a pass before.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import file_digest
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mask2dit.cuts import FilmCheck, check_cuts, detect_cuts
from mask2dit.errors import InputError
from mask2dit.evaluation.facts import CutSource, Look, SceneLook
from mask2dit.evaluation.films import FilmSource
from mask2dit.motion import motion
from mask2dit.video_files import open_video

PICTURES_PER_SECOND = 8.0
SHORT_SIDE = 256  # pixels: what the extractors' networks see is smaller
MOST_PICTURES = 96

Frame = NDArray[np.uint8]
OnScene = Callable[["ScenePictures"], None]


@dataclass(frozen=True, slots=True)
class ScenePictures:
    """What is handed out of one scene: its number from 0, its frames [start, stop), and its pictures [T, Y, X, 3], so many a second."""

    index: int
    start: int
    stop: int
    pictures: Frame
    per_second: float


def digest_of_video(path: Path) -> str:
    """A short name for a file's bytes."""
    with path.open("rb") as file:
        return file_digest(file, "sha256").hexdigest()[:16]


def look_at(film: FilmSource, digest: str, on_scene: OnScene) -> Look:
    """Decode a whole film, hand out each scene's pictures, and say what was seen. Raises InputError."""
    with open_video(film.video) as opened:
        facts = opened.facts
        source: CutSource = "detected" if film.cut_list is None else "asked"
        cuts = detect_cuts(opened.frames()) if film.cut_list is None else film.cut_list.cuts(facts.fps)
        looks: list[SceneLook] = []

        def seen(scene: ScenePictures) -> None:
            moved = motion(scene.pictures, scene.per_second)
            looks.append(SceneLook(start=scene.start, stop=scene.stop, num_pictures=len(scene.pictures), motion=moved))
            on_scene(scene)

        opened.num_damaged = 0
        sampler = _Sampler(cuts, facts.fps, seen)
        check = _checked(film, sampler.passed_on(opened.frames()), cuts)
        if film.cut_list is not None:
            film.cut_list.check_end(check.num_frames, facts.fps)
        return Look(
            digest=digest,
            cuts_are=source,
            fps=facts.fps,
            height=facts.height,
            width=facts.width,
            check=check,
            scenes=tuple(looks),
            num_damaged=opened.num_damaged,
            num_stated=round(facts.duration_seconds * facts.fps),
        )


def _checked(film: FilmSource, frames: Iterable[Frame], cuts: Sequence[int]) -> FilmCheck:
    try:
        return check_cuts(frames, cuts)
    except InputError as error:
        if film.cut_list is None or not str(error).startswith("cuts: "):
            raise
        raise InputError(f"{film.cut_list.source}: {str(error).removeprefix('cuts: ')}") from None


def take_pictures(film: FilmSource, look: Look, on_scene: OnScene) -> None:
    """Decode a film that was looked at before, and hand out each scene's pictures."""
    with open_video(film.video) as opened:
        for _ in _Sampler(look.check.asked, look.fps, on_scene).passed_on(opened.frames()):
            pass


class _Sampler:
    """Takes pictures of a film as its frames pass by."""

    def __init__(self, cuts: Iterable[int], fps: float, on_scene: OnScene) -> None:
        self._starts, self._on_scene = frozenset(cuts), on_scene
        self._fps, self._frames_per_picture = fps, max(1.0, fps / PICTURES_PER_SECOND)
        self._pictures: list[Frame] = []
        self._scene = self._start = self._number = self._taken = 0
        self._every = 1

    def passed_on(self, frames: Iterable[Frame]) -> Iterator[Frame]:
        for frame in frames:
            if self._number in self._starts:
                self._end_scene()
            self._add(frame)
            self._number += 1
            yield frame
        self._end_scene()

    def _add(self, frame: Frame) -> None:
        # The k-th picture is the frame that is shown after k ticks of the scene's own clock.
        if self._number - self._start < math.floor(self._taken * self._frames_per_picture + 1e-6):
            return
        if self._taken % self._every == 0:
            self._pictures.append(_made_small(frame))
            if len(self._pictures) > MOST_PICTURES:
                self._pictures, self._every = self._pictures[::2], self._every * 2
        self._taken += 1

    def _end_scene(self) -> None:
        if self._pictures:
            per_second = self._fps / self._frames_per_picture / self._every
            self._on_scene(ScenePictures(self._scene, self._start, self._number, np.stack(self._pictures), per_second))
        self._scene += 1
        self._start, self._taken, self._every, self._pictures = self._number, 0, 1, []


def _made_small(frame: Frame) -> Frame:
    height, width, _ = frame.shape
    scale = min(height, width) / SHORT_SIDE
    if scale <= 1:
        return frame
    return np.asarray(Image.fromarray(frame).resize((round(width / scale), round(height / scale)), Image.Resampling.LANCZOS))
