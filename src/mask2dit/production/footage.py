"""Footage that was not made here as the given scenes of a film: cut into shots, each a video at the model's size and rate."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

import numpy as np

from mask2dit.cuts import detect_cuts
from mask2dit.errors import InputError
from mask2dit.storyboard import Scene
from mask2dit.video_files import open_video, resize_and_crop, write_video

SHORTEST = 1e-3  # seconds


@dataclass(frozen=True, slots=True)
class Shot:
    """A part of a video, in seconds from its first picture."""

    start: float
    end: float

    def __str__(self) -> str:
        return f"{self.start:.2f} to {self.end:.2f} s"


def find_shots(video: str | Path, cuts_seconds: Sequence[float] | None = None) -> list[Shot]:
    """The shots of a video, between cuts that are named or, None, detected. Raises InputError."""
    with open_video(video) as opened:
        facts = opened.facts
        if cuts_seconds is None:
            cuts_seconds = [frame / facts.fps for frame in detect_cuts(opened.frames())]
    ends = [0.0, *cuts_seconds, facts.duration_seconds]
    if any(end - start < SHORTEST for start, end in pairwise(ends)):
        raise InputError(
            f"--cuts: got {', '.join(f'{cut:g}' for cut in cuts_seconds)}, expected rising times inside the video's "
            f"{facts.duration_seconds:.2f} s; for example --cuts {facts.duration_seconds / 2:.1f}"
        )
    return [Shot(start, end) for start, end in pairwise(ends)]


def check_captions(shots: Sequence[Shot], captions: Sequence[str]) -> None:
    """Raise InputError unless there is one caption for each shot."""
    if len(shots) != len(captions):
        found = "; ".join(map(str, shots))
        raise InputError(
            f"--captions: got {len(captions)}, expected {len(shots)}, one for each scene of the video ({found}); "
            "write them with ';' between, or say where the cuts are (--cuts, in seconds)"
        )


def cut_footage(
    video: str | Path, shots: Sequence[Shot], captions: Sequence[str], values: Any, height: int, width: int, into: Path
) -> tuple[list[Scene], list[str]]:
    """Write each shot to `into` as a video of the model's rate; returns the given scenes, and what was left out.

    Of a shot longer than the model's scenes the end is taken, for it is what goes on. values: the model's own (`ModelValues`).
    """
    ratio = values.compression.temporal
    scenes, notes = [], []
    for number, (shot, caption) in enumerate(zip(shots, captions, strict=True), start=1):
        there = max(1, round((shot.end - shot.start) * values.fps))
        count = (min(there, values.num_frames) - 1) // ratio * ratio + 1
        start = shot.end - count / values.fps if there > values.num_frames else shot.start
        with open_video(video) as opened:
            frames = resize_and_crop(islice(opened.frames(values.fps, max(0.0, start)), count), height, width)
        path = into / f"scene-{number:02d}.mp4"
        write_video(path, np.concatenate([frames, frames[-1:].repeat(count - len(frames), axis=0)]), values.fps)
        scenes.append(Scene(prompt=caption, given=path.name, num_frames=count))
        if there - count >= ratio:
            notes.append(f"scene {number}: {count} of {there} frames are taken, {'its end' if there > values.num_frames else 'its start'}")
    return scenes, notes
