"""The clips are the shots, frame by frame, and the lists are what training reads."""

import json
import shutil
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
from test_choosing import shot

from mask2dit.curation import export
from mask2dit.curation.export import ClipUnit, ClipWriter, clip_path, clip_rows, inside, split_of, write_lists
from mask2dit.curation.rows import ClipRow, GroupRow
from mask2dit.curation.scanning import Video
from mask2dit.errors import InputError
from mask2dit.training.data.files import read_clips_csv, read_groups_json, read_groups_jsonl
from mask2dit.training.data.report import ClipReport
from mask2dit.training.data.scenes import ClipSettings, usable
from mask2dit.training.data.shards import read_shards
from mask2dit.video_files import open_video, read_video
from small_footage import moving, write

SPANS = ((0, 30), (30, 55), (70, 100), (900, 930), (930, 960))
SETTINGS = ClipSettings(num_frames=9, fps=12, height=32, width=48)


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, np.ndarray, list]:
    """A set's folder with the clips of one video, the video's frames, and the shots."""
    root = tmp_path_factory.mktemp("set")
    video = write(root / "long.mp4", moving(960, 2), fps=24, keyframes=48)
    shots = [shot(index, "ab" * 8, start=start, stop=stop, fps=24.0) for index, (start, stop) in enumerate(SPANS)]
    shots[1] = replace(shots[1], bars=(0.25, 0.0, 0.1, 0.1))
    unit = ClipUnit(Video(video, "long.mp4", "ab" * 8, 24.0), tuple(shots))
    writer = ClipWriter(root)
    assert not writer.is_done(unit) and writer.write(unit) == "" and writer.is_done(unit)
    return root, read_video(video), shots


def test_a_clip_is_its_shot(exported: tuple[Path, np.ndarray, list]) -> None:
    root, frames, shots = exported
    for each in shots:
        clip, true = read_video(root / clip_path(each)), np.stack([inside(frame, each.bars) for frame in frames[each.start : each.stop]])
        assert clip.shape == true.shape and np.abs(clip.astype(int) - true).mean() < 2
    assert read_video(root / clip_path(shots[1])).shape == (25, 36, 64, 3)
    with open_video(root / clip_path(shots[0])) as video:
        assert video.facts.fps == 24


def test_bars_leave_even_sizes() -> None:
    frame = np.zeros((101, 75, 3), np.uint8)
    for bars in ((0, 0, 0, 0), (0.1, 0.13, 0.07, 0), (0.5, 0.5, 0.5, 0.5)):
        height, width, _ = inside(frame, bars).shape
        assert height >= 1 and width >= 1 and (height == 1 or height % 2 == 0) and (width == 1 or width % 2 == 0)


def test_only_what_is_missing_is_written(exported: tuple[Path, np.ndarray, list]) -> None:
    root, _, shots = exported
    times = {each.shot: (root / clip_path(each)).stat().st_mtime_ns for each in shots}
    (root / clip_path(shots[2])).unlink()
    unit = ClipUnit(Video(root / "long.mp4", "long.mp4", "ab" * 8, 24.0), tuple(shots))
    assert ClipWriter(root).write(unit) == ""
    again = {each.shot: (root / clip_path(each)).stat().st_mtime_ns for each in shots}
    assert {name for name in times if times[name] != again[name]} == {shots[2].shot}


def test_a_video_that_is_gone_is_a_problem_and_no_more(tmp_path: Path) -> None:
    unit = ClipUnit(Video(tmp_path / "gone.mp4", "gone.mp4", "ab", 24.0), (shot(0),))
    assert "there is no such file" in ClipWriter(tmp_path).write(unit)


def grouped(shots: list) -> tuple[list[GroupRow], dict[str, tuple[str, ...]]]:
    groups = [
        GroupRow("g1", "long.mp4", "ab" * 8, tuple(each.shot for each in shots[:3]), (0.7, 0.7)),
        GroupRow("g2", "long.mp4", "ab" * 8, tuple(each.shot for each in shots[3:]), (0.7,)),
    ]
    captions = {"g1": ('One, "quoted".', "Two\nlines, and 🦊.", "Three."), "g2": ("Four.", "Five.")}
    return groups, captions


def rows_of(root: Path, shots: list) -> list[ClipRow]:
    rows, notes = clip_rows(*grouped(shots), {each.shot: each for each in shots}, root, 0.0)
    assert not notes
    return rows


def copied(root: Path, folder: Path) -> Path:
    shutil.copytree(root / "clips", folder / "clips")
    return folder


def test_clips_that_are_known_are_not_opened_again(
    exported: tuple[Path, np.ndarray, list], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, _, shots = exported
    rows = rows_of(root, shots)
    assert [(row.height, row.width) for row in rows] == [(48, 80), (36, 64), *[(48, 80)] * 3]
    opened = []
    monkeypatch.setattr(export, "open_video", lambda path: opened.append(path) or open_video(path))
    by_name = {each.shot: each for each in shots}
    assert clip_rows(*grouped(shots), by_name, root, 0.0, rows) == (rows, []) and not opened
    assert clip_rows(*grouped(shots), by_name, root, 0.0, rows[1:]) == (rows, []) and len(opened) == 1


def test_a_damaged_clip_is_taken_away_and_its_group_waits(exported: tuple[Path, np.ndarray, list], tmp_path: Path) -> None:
    root, _, shots = exported
    rows, by_name, folder = rows_of(root, shots), {each.shot: each for each in shots}, copied(root, tmp_path)
    empty, half = (clip_path(shot) for shot in shots[:2])
    (folder / empty).write_bytes(b"")
    (folder / half).write_bytes((root / half).read_bytes()[:200])
    found, notes = clip_rows(*grouped(shots), by_name, folder, 0.0, [row for row in rows if row.clip != half.as_posix()])
    assert found == rows[3:] and not (folder / empty).exists() and not (folder / half).exists()
    assert notes == [f"{clip.as_posix()}: the clip was damaged and is gone; run the command again" for clip in (empty, half)]
    assert clip_rows(*grouped(shots), by_name, folder, 0.0, rows) == (rows[3:], [])
    (folder / empty).write_bytes(b"")
    unit = ClipUnit(Video(root / "long.mp4", "long.mp4", "ab" * 8, 24.0), tuple(shots))
    assert not ClipWriter(folder).is_done(unit) and ClipWriter(folder).write(unit) == ""
    assert clip_rows(*grouped(shots), by_name, folder, 0.0, rows) == (rows, [])


def test_every_list_gives_training_the_same_clips_and_captions(exported: tuple[Path, np.ndarray, list]) -> None:
    root, _, shots = exported
    rows = rows_of(root, shots)
    written = write_lists(root, rows, 1)
    assert [path.name for path in written] == ["train.jsonl", "train.json", "train.csv", "train-000000.tar", "train-000001.tar"]
    sources = [read_groups_jsonl(root / "train.jsonl"), read_groups_json(root / "train.json")]
    sources.append(read_shards(str(root / "shards" / "train-{000000..000001}.tar")))
    for source in sources:
        assert [[clip.caption for clip in group] for group in source.groups] == [
            [row.caption for row in rows[:3]],
            [row.caption for row in rows[3:]],
        ]
        report = ClipReport()
        runs = usable(source, 2, needs_groups=True, report=report)
        assert [(run.group, run.num_scenes) for run in runs] == [(0, 3), (1, 2)] and not report.counted()
        pictures = [clip.frames(SETTINGS, 0.5) for group in source.groups for clip in group]
        assert {frames.shape for frames in pictures} == {(9, 32, 48, 3)}
    single = read_clips_csv(root / "train.csv")
    assert [group[0].caption for group in single.groups] == [row.caption for row in rows]
    assert all(clip.frames(SETTINGS, 0.0).shape == (9, 32, 48, 3) for (clip,) in single.groups)


def test_a_split_without_groups_has_no_list(exported: tuple[Path, np.ndarray, list]) -> None:
    root, _, shots = exported
    (root / "validation.json").write_text("[of an earlier run]")
    write_lists(root, rows_of(root, shots), None)
    (root / "validation.csv").write_text("of an earlier run")
    write_lists(root, rows_of(root, shots), None, keep_old=True)
    assert (root / "validation.csv").exists()
    write_lists(root, rows_of(root, shots), None)
    assert not list(root.glob("validation.*")) and json.loads((root / "train.json").read_text())[0]["prefix"] == "g1"


def test_shards_are_those_of_the_lists_and_are_written_once(exported: tuple[Path, np.ndarray, list], tmp_path: Path) -> None:
    root, _, shots = exported
    rows, folder = rows_of(root, shots), copied(root, tmp_path)
    shards = folder / "shards"

    def dates() -> dict[str, int]:
        return {path.name: path.stat().st_mtime_ns for path in shards.glob("*.tar")}

    write_lists(folder, rows, 1)
    for name in ("train-000002.tar", "validation-000000.tar", "train-mine.tar"):
        (shards / name).write_bytes(b"x")
    before = dates()
    write_lists(folder, rows, 1, keep_old=True)
    assert dates() == {name: date for name, date in before.items() if name != "train-000002.tar"}
    write_lists(folder, rows, 1)
    both = ("train-000000.tar", "train-000001.tar")
    assert dates() == {name: before[name] for name in (*both, "train-mine.tar")}
    changes = (
        lambda: (folder / rows[0].clip).touch(),
        lambda: (shards / both[1]).unlink(),
        lambda: (shards / both[0]).write_bytes(b""),
        lambda: rows.__setitem__(0, replace(rows[0], caption="Another.")),
    )
    for change in changes:
        change()
        then = dates()
        write_lists(folder, rows, 1)
        assert all(dates()[name] != then.get(name) for name in both)
    assert read_shards(str(shards / "train-{000000..000001}.tar")).groups[0][0].caption == "Another."
    write_lists(folder, rows, 2)
    assert set(dates()) == {both[0], "train-mine.tar"}
    (shards / "train-mine.tar").unlink()
    write_lists(folder, rows, None)
    assert not shards.exists() and (folder / "train.json").exists()


def test_whole_videos_are_held_out_and_stay_where_they_are() -> None:
    digests = [sha256(str(number).encode()).hexdigest()[:16] for number in range(400)]
    few, many = split_of(digests[:200], 0.1), split_of(digests, 0.1)
    assert all(many[digest] == split for digest, split in few.items())
    assert 0.05 < sum(split == "validation" for split in many.values()) / 400 < 0.15
    assert set(split_of(digests, 0.0).values()) == {"train"} and set(split_of(digests[:1], 0.9).values()) == {"train"}
    with pytest.raises(InputError, match=r"^--validation: got 1.5, expected a share of the videos from 0 to below 1"):
        split_of(digests, 1.5)
