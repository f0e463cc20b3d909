"""From a stretch of video to a clip's frames: is the video as its list says, where the window lies, what identifies the bytes.

Owns the tolerances of a description and the choice of the window. Decoding itself is `video_files`'; where bytes lie is the sources'.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from mask2dit.errors import InputError
from mask2dit.training.data.scenes import ClipError, ClipSettings
from mask2dit.video_files import VideoFacts, open_video, resize_and_crop

FPS_TOLERANCE = 0.05
LENGTH_TOLERANCE = 0.10
FRAMES_TOLERANCE = 2


@dataclass(frozen=True, slots=True)
class Stated:
    """What a list says of a whole video; None where it is silent."""

    width: float | None = None
    height: float | None = None
    fps: float | None = None
    num_frames: float | None = None
    duration_seconds: float | None = None

    def check(self) -> None:
        """Raise ClipError if a value cannot be true of any video."""
        for name in ("width", "height", "fps", "num_frames", "duration_seconds"):
            value: float | None = getattr(self, name)
            if value is not None and not 0 < value < float("inf"):
                raise ClipError("mis-described", f"{name}: got {value:g}, expected a positive number; mend the list")

    def compare(self, facts: VideoFacts) -> None:
        """Raise ClipError if the video is not as stated."""
        num_frames = facts.duration_seconds * facts.fps
        slack_frames = max(FRAMES_TOLERANCE, LENGTH_TOLERANCE * num_frames)
        for name, stated, true, tolerance in (
            ("width", self.width, facts.width, 0.0),
            ("height", self.height, facts.height, 0.0),
            ("fps", self.fps, facts.fps, FPS_TOLERANCE * facts.fps),
            ("num_frames", self.num_frames, round(num_frames), slack_frames),
            ("duration_seconds", self.duration_seconds, facts.duration_seconds, slack_frames / facts.fps),
        ):
            if stated is not None and abs(stated - true) > tolerance:
                raise ClipError("mis-described", f"{name}: the list says {stated:g}, the video has {true:g}; mend the list")


@dataclass(frozen=True, slots=True)
class Stretch:
    """Which part of a video a clip is, in seconds from its first picture; an end of None is the video's own."""

    start_seconds: float = 0.0
    end_seconds: float | None = None

    def check(self) -> None:
        """Raise ClipError if no video can have such a part."""
        end = float("inf") if self.end_seconds is None else self.end_seconds
        if not 0 <= self.start_seconds < end:
            reason = f"start_seconds, end_seconds: got {self.start_seconds:g} and {end:g}, expected 0 or later and an end after the start"
            raise ClipError("mis-described", f"{reason}; mend the list")

    def window_start(self, facts: VideoFacts, settings: ClipSettings, position: float) -> float:
        """Where the window starts, in seconds; it lies whole within the stretch, give or take half a tick. Raises ClipError."""
        end = self.end_seconds if self.end_seconds is not None else facts.duration_seconds
        if self.start_seconds >= facts.duration_seconds or end > facts.duration_seconds + FRAMES_TOLERANCE / facts.fps:
            span = f"{self.start_seconds:g} to {end:g} s"
            raise ClipError("mis-described", f"the list says {span}, the video lasts {facts.duration_seconds:g} s; mend the list")
        length = min(end, facts.duration_seconds) - self.start_seconds
        num_ticks = round(length * settings.fps)
        if num_ticks < settings.num_frames:
            wanted = f"{settings.num_frames} at {settings.fps:g} fps"
            raise ClipError(
                "short", f"got {num_ticks} frames in {length:g} s, expected at least {wanted}; give longer clips or read fewer frames"
            )
        return self.start_seconds + position * max(0.0, length - settings.num_frames / settings.fps)


def decode_clip(
    source: Path | BinaryIO, name: str, settings: ClipSettings, position: float, stated: Stated, stretch: Stretch
) -> NDArray[np.uint8]:
    """The window's frames, [T, Y, X, 3]. Raises ClipError."""
    try:
        with open_video(source, name) as video:
            stated.compare(video.facts)
            start = stretch.window_start(video.facts, settings, position)
            pictures = islice(video.frames(settings.fps, start), settings.num_frames)
            frames = resize_and_crop(pictures, settings.height, settings.width)
            if video.num_damaged:
                raise ClipError("unreadable", f"{video.num_damaged} of {len(frames)} pictures are damaged; make the file again")
    except InputError as error:
        raise ClipError("unreadable", str(error).removeprefix(f"{name}: ")) from error
    if len(frames) < settings.num_frames:
        reason = f"got {len(frames)} of {settings.num_frames} frames before the video broke off; make the file again"
        raise ClipError("unreadable", reason)
    return frames


def clip_fingerprint(content_digest: str, stretch: Stretch) -> str:
    """Identify one stretch of the bytes with this digest."""
    end = None if stretch.end_seconds is None else float(stretch.end_seconds)
    return hashlib.sha256(f"{content_digest}/{float(stretch.start_seconds)!r}/{end!r}".encode()).hexdigest()


def file_signature(path: Path) -> str:
    """Size and date of a file; empty where there is none."""
    try:
        status = path.stat()
    except OSError:
        return ""
    return f"{status.st_size}/{status.st_mtime_ns}"
