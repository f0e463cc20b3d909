"""Frames without a cut between them, as a scan keeps them, in memory and in a file between two scans."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Frame = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Sample:
    """A picture of a shot, and the frame that it is."""

    frame: int
    picture: Frame


@dataclass(frozen=True, slots=True)
class Stretch:
    """Frames [start, stop) without a cut, as they came by: a picture eight times a second, and a thumbnail of every frame."""

    start: int
    stop: int
    begins: str
    ends: str
    samples: tuple[Sample, ...]
    thumbnails: Frame
    damaged: tuple[int, ...] = ()
    """Frames that the decoder had to guess in part."""
    transitions: tuple[tuple[int, int], ...] = ()
    """Dissolves that the detector tells from cuts, as (first mixed, first clean) frame."""

    def between(self, start: int, stop: int, begins: str, ends: str) -> Stretch:
        """A part of it."""
        return Stretch(
            start,
            stop,
            begins,
            ends,
            tuple(sample for sample in self.samples if start <= sample.frame < stop),
            self.thumbnails[start - self.start : stop - self.start],
            tuple(frame for frame in self.damaged if start <= frame < stop),
            tuple(each for each in self.transitions if start < each[0] and each[1] < stop),
        )


@dataclass(frozen=True, slots=True)
class Seam:
    """What one side of a border between pieces leaves for the other: its open stretch, and the frames as the detector sees them."""

    stretch: Stretch
    seen: tuple[Frame, ...]


def to_jpeg(picture: Frame, quality: int = 92) -> bytes:
    """A picture as a JPEG file's bytes, with all of its colours."""
    buffer = BytesIO()
    Image.fromarray(picture).save(buffer, "JPEG", quality=quality, subsampling=0)
    return buffer.getvalue()


def from_jpeg(content: bytes) -> Frame:
    """And back: [Y, X, 3]."""
    return np.asarray(Image.open(BytesIO(content)).convert("RGB"))


def to_arrays(seam: Seam) -> dict[str, NDArray[Any]]:
    """A seam as arrays of plain numbers and bytes, for a file."""
    stretch = seam.stretch
    files = [to_jpeg(sample.picture, quality=96) for sample in stretch.samples]
    return {
        "bounds": np.array([stretch.start, stretch.stop]),
        "ends": np.array([stretch.begins, stretch.ends]),
        "damaged": np.array(stretch.damaged, np.int64),
        "transitions": np.array(stretch.transitions, np.int64).reshape(-1, 2),
        "frames": np.array([sample.frame for sample in stretch.samples], np.int64),
        "lengths": np.array([len(file) for file in files], np.int64),
        "files": np.frombuffer(b"".join(files), np.uint8),
        "thumbnails": stretch.thumbnails,
        "seen": np.stack(seam.seen),
    }


def from_arrays(arrays: Mapping[str, NDArray[Any]]) -> Seam:
    """The seam that `to_arrays` wrote."""
    start, stop = (int(number) for number in arrays["bounds"])
    begins, ends = (str(word) for word in arrays["ends"])
    files = arrays["files"].tobytes()
    last = np.cumsum(arrays["lengths"])
    pictures = [from_jpeg(files[end - length : end]) for end, length in zip(last, arrays["lengths"], strict=True)]
    samples = tuple(Sample(int(frame), picture) for frame, picture in zip(arrays["frames"], pictures, strict=True))
    damaged = tuple(int(frame) for frame in arrays["damaged"])
    transitions = tuple((int(first), int(clean)) for first, clean in arrays["transitions"])
    return Seam(Stretch(start, stop, begins, ends, samples, arrays["thumbnails"], damaged, transitions), tuple(arrays["seen"]))
