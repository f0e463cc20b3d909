"""A folder of real clips: one mp4 per scene of some playhouse stories, and every kind of list that the trainer reads."""

import csv
import json
from functools import cache
from pathlib import Path

import numpy as np

from mask2dit.playhouse.footage import FootageTruth, footage, plan_footage
from mask2dit.shards import write_shards
from mask2dit.video_files import write_video

NUM_SCENES = 3
HEIGHT, WIDTH, FPS = 64, 96, 8
SHOT_LENGTHS = (9, 13, 17)


@cache
def filmed(num_stories: int) -> tuple[FootageTruth, list[np.ndarray]]:
    """The truth of the stories and the frames of every shot, rendered once per test run."""
    truth = plan_footage(range(num_stories), "A", num_scenes=NUM_SCENES, shot_lengths=SHOT_LENGTHS, height=HEIGHT, width=WIDTH)
    return truth, list(footage(truth))


def write_footage_folder(folder: Path, num_stories: int) -> Path:
    """Write clips/story-0-scene-0.mp4 …, clips.csv, groups.json, groups.jsonl and train-….tar (two stories each); returns the folder.

    Also long.mp4, all shots one after the other, and long.jsonl, which cuts the same groups out of it.
    """
    truth, shots = filmed(num_stories)
    (folder / "clips").mkdir(parents=True, exist_ok=True)
    names = [f"clips/story-{shot.story}-scene-{shot.scene}.mp4" for shot in truth.shots]
    for name, frames in zip(names, shots, strict=True):
        write_video(folder / name, frames, FPS)
    write_video(folder / "long.mp4", (frame for frames in shots for frame in frames), FPS)

    with (folder / "clips.csv").open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["caption", "path", "num_frame", "fps", "width", "height"])
        rows.writerows([shot.caption, name, shot.num_frames, FPS, WIDTH, HEIGHT] for name, shot in zip(names, truth.shots, strict=True))
    released, ours, cut_out = [], [], []
    for number, group in enumerate(truth.groups):
        shots_of = [(names[index], truth.shots[index]) for index in group]
        released.append(
            {
                "prefix": f"story-{number}",
                "values": [
                    {
                        "vid": Path(name).stem,
                        "width": WIDTH,
                        "height": HEIGHT,
                        "duration": shot.num_frames / FPS,
                        "fps": FPS,
                        "url": name,
                        "caption": shot.caption,
                    }
                    for name, shot in shots_of
                ],
            }
        )
        ours.append({"group": f"story-{number}", "scenes": [{"video": name, "caption": shot.caption} for name, shot in shots_of]})
        cut_out.append(
            {
                "group": f"story-{number}",
                "scenes": [
                    {
                        "video": "long.mp4",
                        "caption": shot.caption,
                        "start_seconds": shot.first_frame / FPS,
                        "end_seconds": (shot.first_frame + shot.num_frames) / FPS,
                    }
                    for _, shot in shots_of
                ],
            }
        )
    (folder / "groups.json").write_text(json.dumps(released, indent=1), encoding="utf-8")
    for name, entries in (("groups.jsonl", ours), ("long.jsonl", cut_out)):
        (folder / name).write_text("".join(json.dumps(entry) + "\n" for entry in entries), encoding="utf-8")
    scenes = [[(truth.shots[index].caption, folder / names[index]) for index in group] for group in truth.groups]
    write_shards(shard_pattern(folder, num_stories), scenes, groups_per_shard=2)
    return folder


def shard_pattern(folder: Path, num_stories: int) -> str:
    """The name of all shards of such a folder, for `read_shards`."""
    return str(folder / f"train-{{000000..{(num_stories - 1) // 2:06d}}}.tar")
