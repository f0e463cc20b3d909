"""Long footage of many stories with hard cuts, and the truth about it: where the cuts are and which shots belong together.

The truth comes first and is all that is needed to film it; frames are made shot by shot, never all at once.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mask2dit.errors import InputError, OutputError
from mask2dit.playhouse.captions import caption_story
from mask2dit.playhouse.facts import LEVELS, draw_story

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class ShotTruth:
    """One shot: which scene of which story it shows, and where it lies in the footage."""

    story: int
    """Shots of one story carry the same number, counted from 0."""
    seed: int
    scene: int
    first_frame: int
    num_frames: int
    caption: str


@dataclass(frozen=True, slots=True)
class FootageTruth:
    """What a perfect curation would find in one piece of footage."""

    level: str
    scenes_per_story: int
    fps: int
    height: int
    width: int
    shots: tuple[ShotTruth, ...]

    @property
    def num_frames(self) -> int:
        return sum(shot.num_frames for shot in self.shots)

    @property
    def cuts(self) -> tuple[int, ...]:
        """The first frame of every shot but the first."""
        return tuple(shot.first_frame for shot in self.shots[1:])

    @property
    def groups(self) -> tuple[tuple[int, ...], ...]:
        """Indices of the shots of each story, story by story."""
        stories = dict.fromkeys(shot.story for shot in self.shots)
        return tuple(tuple(index for index, shot in enumerate(self.shots) if shot.story == story) for story in stories)

    def to_data(self) -> dict[str, Any]:
        """Plain data for a JSON file; the cuts and groups are written out for readers without this package."""
        return {**asdict(self), "cuts": list(self.cuts), "groups": [list(group) for group in self.groups]}

    @classmethod
    def from_data(cls, data: dict[str, Any]) -> FootageTruth:
        values = {key: value for key, value in data.items() if key not in ("cuts", "groups")}
        return cls(**{**values, "shots": tuple(ShotTruth(**shot) for shot in values["shots"])})


def plan_footage(
    seeds: Sequence[int],
    level: str = "A",
    *,
    num_scenes: int = 3,
    style: str = "self-contained",
    shot_lengths: Sequence[int] | None = None,
    height: int | None = None,
    width: int | None = None,
) -> FootageTruth:
    """Lay out the footage of these stories, in order. Each shot's length is drawn from `shot_lengths` (None: the level's own)."""
    if not seeds:
        raise InputError("footage needs at least one story: got no seeds")
    if shot_lengths is not None and (not shot_lengths or min(shot_lengths) < 1):
        raise InputError(f"shot_lengths: got {list(shot_lengths)}, expected frame counts of at least 1")
    shots: list[ShotTruth] = []
    first_frame = 0
    for number, seed in enumerate(seeds):
        story = draw_story(seed, level, num_scenes)
        rng = random.Random(f"playhouse/footage/{seed}")
        for scene, caption in enumerate(caption_story(story, rng, style)):
            frames = rng.choice(shot_lengths) if shot_lengths else LEVELS[level].num_frames
            shots.append(ShotTruth(story=number, seed=seed, scene=scene, first_frame=first_frame, num_frames=frames, caption=caption))
            first_frame += frames
    world = LEVELS[level]
    return FootageTruth(
        level=level,
        scenes_per_story=num_scenes,
        fps=world.fps,
        height=height or world.height,
        width=width or world.width,
        shots=tuple(shots),
    )


def footage(truth: FootageTruth, *, device: str | torch.device = "cpu") -> Iterator[NDArray[np.uint8]]:
    """Film what the truth says, shot by shot: uint8 [T, Y, X, 3]."""
    import torch

    from mask2dit.playhouse.render import render_scenes

    for shot in truth.shots:
        story = draw_story(shot.seed, truth.level, truth.scenes_per_story)
        frames = render_scenes([(story, shot.scene)], num_frames=shot.num_frames, height=truth.height, width=truth.width, device=device)
        pixels: NDArray[np.uint8] = (frames[0] * 255.0).round().to(torch.uint8).cpu().numpy()
        yield pixels


def write_footage(path: str | Path, truth: FootageTruth, *, device: str | torch.device = "cpu") -> None:
    """Write the footage as a video and the truth beside it, as `<path>.json`."""
    from mask2dit.video_files import write_video

    path = Path(path)
    write_video(path, (frame for shot in footage(truth, device=device) for frame in shot), truth.fps)
    beside = Path(f"{path}.json")
    try:
        beside.write_text(json.dumps(truth.to_data(), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    except OSError as error:
        raise OutputError(f"{beside}: cannot be written ({error.strerror or error}); make room or choose another place") from error


def read_truth(path: str | Path) -> FootageTruth:
    """Read the truth that `write_footage` left beside the video `path`."""
    beside = Path(f"{path}.json")
    try:
        return FootageTruth.from_data(json.loads(beside.read_text(encoding="utf-8")))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{beside}: expected the truth beside its footage, got {error}; write the footage again") from error
