"""Scenes that are given as videos: found, named by their content, read at the film's size and rate."""

from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np

from mask2dit.errors import InputError, StoryboardError
from mask2dit.production.record import FilmRecord, digest_of_file
from mask2dit.storyboard import Scene, Storyboard
from mask2dit.video_files import Frame, open_video, resize_and_crop

TOLERANCE = 0.01  # frames


@dataclass(frozen=True, slots=True)
class Given:
    """A video that is a scene: its file, and a short name for its content."""

    path: Path
    digest: str


def find_given(
    storyboard: Storyboard, base: Path, fps: float, temporal_ratio: int, earlier: FilmRecord | None = None
) -> tuple[Storyboard, dict[int, Given]]:
    """The videos of a storyboard's given scenes by index, and the storyboard with their lengths where it names none.

    base: the folder that their names start from. Lengths are the longest that a model can take of them. A film's own copy that is gone is
    not missed while `earlier` has a take of it. Raises StoryboardError.
    """
    scenes, found = list(storyboard.scenes), {}
    for index, scene in enumerate(scenes):
        if scene.given is not None:
            path = base / scene.given
            if earlier and not path.exists() and any(take.inputs.given == path.stem for take in earlier.takes):
                found[index] = Given(path, path.stem)
                continue
            try:
                found[index] = Given(path, digest_of_file(path))
                with open_video(path) as video:
                    seconds = video.facts.duration_seconds
            except (OSError, InputError) as error:
                reason = error.strerror if isinstance(error, OSError) and error.strerror else error
                raise StoryboardError(f"scene {index + 1}, given: {path} is no video that can be read ({reason}); check the name") from None
            scenes[index] = _measured(scene, index, int(seconds * fps + TOLERANCE), temporal_ratio)
    return (storyboard.with_scenes(scenes) if found else storyboard), found


def _measured(scene: Scene, index: int, there: int, temporal_ratio: int) -> Scene:
    if scene.num_frames is None and scene.duration_seconds is None:
        return scene.model_copy(update={"num_frames": max(0, there - 1) // temporal_ratio * temporal_ratio + 1})
    if scene.num_frames is not None and scene.num_frames > max(there, 1):
        raise StoryboardError(f"scene {index + 1}, given: holds {there} frames, expected {scene.num_frames}; lower num_frames")
    return scene


def read_given(given: Given, num_frames: int, fps: float, height: int, width: int) -> Frame:
    """The first frames of a given video at the film's rate, cut to its proportions: [T, height, width, 3]."""
    with open_video(given.path) as video:
        frames = resize_and_crop(islice(video.frames(fps), num_frames), height, width)
    missing = num_frames - len(frames)  # a length in seconds may round up to a frame that is not there
    return np.concatenate([frames, frames[-1:].repeat(missing, axis=0)])
