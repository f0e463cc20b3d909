"""A curated set as its steps write it, made up: every kind of reason, every verdict, every fate, and names that mean harm."""

from __future__ import annotations

import random
import zlib
from pathlib import Path

from PIL import Image

from mask2dit.curation.rows import (
    CaptionRow,
    CheckRow,
    ClipRow,
    GroupRow,
    PairRow,
    ReviewRow,
    ScanRow,
    ShotRow,
    StepSummary,
    VideoRow,
    write_rows,
    write_summary,
)

EVIL = "<script>alert('x')</script> \"quoted\" & </title></p>--> ' onload='x' $title ${film} 🦊 漢字 <img src=http://example.com/a.png>"
CHECKS = {
    "min_seconds": 1.0,
    "max_seconds": 20.0,
    "min_lightness": 8.0,
    "min_contrast": 4.0,
    "min_motion": 0.5,
    "max_text": 0.02,
    "min_picture": 0.6,
    "max_still_share": 0.5,
    "max_damaged": 0,
}
CAST = (("Actor1", "a small orange fox with a green scarf"), ("Actor2", "a round blue robot with one antenna"))


def video_row(name: str, num_frames: int = 2500, problem: str = "") -> VideoRow:
    usual = {"fps": 0.0, "height": 0, "width": 0, "num_frames": 0, "piece_starts": ()} if problem else {}
    facts = {"fps": 25.0, "height": 1080, "width": 1920, "num_frames": num_frames, "piece_starts": (0, 1250)}
    return VideoRow(video=f"/footage/{name}", name=name, digest=name, stamp="1", problem=problem, **{**facts, **usual})  # type: ignore[arg-type]


def shot_row(name: str, index: int, start: int, stop: int, **other: object) -> ShotRow:
    usual = {
        "fps": 25.0,
        "begins": "cut" if index else "edge",
        "ends": "cut",
        "pictures": "a",
        "num_pictures": 4,
        "lightness": 45.0,
        "contrast": 15.0,
    }
    usual |= {"motion": 6.0, "still_seconds": 0.0, "bars": (0.0, 0.0, 0.0, 0.0), "text": 0.0, "num_damaged": 0}
    shot = f"{zlib.crc32(name.encode()):08x}-{index + 1:04}"
    return ShotRow(shot=shot, name=name, digest=name, index=index, start=start, stop=stop, **{**usual, **other})  # type: ignore[arg-type]


AMISS = {
    "short": ({}, "0.4 s, at least 1 s"),
    "damaged": ({"num_damaged": 7}, "7 pictures"),
    "black": ({"lightness": 2.0}, "lightness 2.0, at least 8"),
    "flat": ({"contrast": 1.0}, "contrast 1.0, at least 4"),
    "frozen": ({"still_seconds": 1.0}, "nothing changes for 1.0 of 1.2 s, expected at most 50%"),
    "still": ({"motion": 0.1}, "motion 0.10 % per second, expected at least 0.5"),
    "text": ({"text": 0.06}, "6.0 % of the picture"),
    "bars": ({"bars": (0.25, 0.25, 0.1, 0.1)}, "40 % of the picture is left"),
    "duplicate": ({}, "of another shot, 0.99 alike"),
}


def write_set(folder: Path, num_videos: int = 3, num_shots: int = 20, names: str = "film {}.mp4", steps: int = 7) -> None:
    """Rows and summaries of the first so many steps; as good as equal for equal arguments."""
    rng = random.Random(3)
    bad = [video_row("broken.mp4", problem="is no video (moov atom not found)"), video_row(EVIL, problem=f"no pictures {EVIL}")]
    videos = [*(video_row(names.format(number), 100 * num_shots) for number in range(num_videos)), *bad]
    end = 'ends early, after "frame 9"'
    scans = [ScanRow(video.name, video.digest, 100 * num_shots - 4, 9, (), (), end * (video == videos[0])) for video in videos[:num_videos]]
    shots: list[ShotRow] = []
    checks: list[CheckRow] = []
    pairs: list[PairRow] = []
    groups: list[GroupRow] = []
    for video in videos[:num_videos]:
        of_video, start = [], 0
        for index in range(num_shots):
            kind = rng.choice(CheckRow.KINDS) if rng.random() < 0.2 else ""
            length = 10 if kind == "short" else 31 if kind == "frozen" else rng.randint(30, 160)
            usual = {
                "lightness": rng.gauss(50, 12),
                "contrast": rng.gauss(18, 4),
                "motion": rng.lognormvariate(2, 0.8),
                "text": 0.015 * rng.random(),
            }
            shot = shot_row(video.name, index, start, start + length, **{**usual, **(AMISS[kind][0] if kind else {})})
            start += length
            of_video.append(shot)
            checks.append(CheckRow(shot.shot, not kind, ((kind, AMISS[kind][1]),) if kind else ()))
        kept = {row.shot for row in checks if row.kept}
        run: list[str] = []
        for one, two in zip(of_video, [*of_video[1:], None], strict=True):
            near = rng.betavariate(6, 3)
            run.append(one.shot)
            if two is None or not {one.shot, two.shot} <= kept:
                verdict = "dropped"
            else:
                verdict = "unrelated" if near < 0.55 else "same picture" if near > 0.9 else "related"
            if two:
                pairs.append(PairRow(one.shot, two.shot, None if verdict == "dropped" else near, verdict))
            if verdict != "related" or len(run) == 4:
                if len(run) >= 2 and set(run) <= kept:
                    near_ones = tuple(pair.relevance or 0.0 for pair in pairs[-len(run) :][: len(run) - 1])
                    groups.append(GroupRow(f"group-{len(groups) + 1:05}", video.name, video.digest, tuple(run), near_ones))
                run = []
        shots += of_video
    captions, reviews, clips = [], [], []
    for index, group in enumerate(groups):
        prompts = tuple(f"Actor1 meets Actor2 in the snow, take {number}." for number in range(len(group.shots)))
        full = tuple(prompt.replace("Actor1", f"Actor1, {CAST[0][1]},") for prompt in prompts)
        if index % 11 == 5:
            captions.append(CaptionRow(group.group, "chat:model-1", (), "", (), (), "the answer is not JSON"))
            reviews.append(ReviewRow(group.group, False, 0, (("no captions", "the answer is not JSON"),)))
            continue
        captions.append(CaptionRow(group.group, "chat:model-1", CAST, "a snowy village at dusk", prompts, full))
        kind = ReviewRow.KINDS[1 + index // 7 % 5] if index % 7 == 3 else ""
        reviews.append(ReviewRow(group.group, not kind, 40 + index % 9, ((kind, f"shot 1 has {kind}"),) if kind else ()))
        if not kind:
            split = "validation" if index % 10 == 0 else "train"
            for shot, caption in zip(group.shots, full, strict=True):
                clips.append(ClipRow(shot, group.group, split, f"{split}/{shot}.mp4", caption, 8.0, 480, 720, 33))
    rows = [
        (VideoRow, videos),
        (ScanRow, scans),
        (ShotRow, shots),
        (CheckRow, checks),
        (PairRow, pairs),
        (GroupRow, groups),
        (CaptionRow, captions),
    ]
    for step, (kind, of_step) in zip((1, 2, 2, 3, 4, 4, 5, 6, 7), [*rows, (ReviewRow, reviews), (ClipRow, clips)], strict=True):
        if step <= steps:
            write_rows(folder, kind, of_step)  # type: ignore[arg-type]
    summaries = [
        StepSummary("pieces", {"videos": len(videos)}, {"cannot be read": 2}, {"piece_seconds": 50}),
        StepSummary("shots", {"shots": len(shots)}, {}, {"detector": "pyscenedetect-0.7"}, ["one video ends early"]),
        StepSummary("checks", {"shots": len(shots), "kept": sum(row.kept for row in checks)}, {}, CHECKS),
        StepSummary("groups", {"groups": len(groups)}, {}, {"lower": 0.55, "upper": 0.9, "group_size": 4, "extractor": "clip:vit-b-32"}),
        StepSummary("captions", {"groups": len(groups), "requests": 61, "dollars": 0.42}, {}, {"captioner": "chat:model-1"}),
        StepSummary("reviews", {"kept": sum(row.kept for row in reviews)}, {}, {"most_tokens": 226}),
        StepSummary("export", {"clips": len(clips)}, {}, {"height": 480, "width": 720}),
    ]
    for summary in summaries[:steps]:
        write_summary(folder, summary)


def pictures_in(folder: Path) -> list[Path]:
    """Four small JPEG files of noise, the worst of pictures."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{number}.jpg" for number in range(4)]
    for number, path in enumerate(paths):
        Image.effect_noise((320, 180), 20 + 10 * number).convert("RGB").save(path)
    return paths
