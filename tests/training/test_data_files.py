"""Clips from lists of files: the frames are those shown at the ticks, and a bad clip is reported once and passed over."""

import json
import os
import pickle
import random
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mask2dit.errors import InputError
from mask2dit.training.data.decoding import Stated
from mask2dit.training.data.files import FileClip, read_clips_csv, read_groups_json, read_groups_jsonl
from mask2dit.training.data.report import ClipReport
from mask2dit.training.data.scenes import ClipError, ClipSettings, FixedScenes, SceneRun, usable
from mask2dit.video_files import read_video, resize_and_crop, write_video
from training.footage_folder import FPS, HEIGHT, WIDTH, filmed, write_footage_folder

STORIES = 3
SETTINGS = ClipSettings(height=HEIGHT, width=WIDTH, num_frames=9, fps=FPS)
READERS = {"clips.csv": read_clips_csv, "groups.json": read_groups_json, "groups.jsonl": read_groups_jsonl, "long.jsonl": read_groups_jsonl}


@pytest.fixture(scope="session")
def clean_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_footage_folder(tmp_path_factory.mktemp("footage"), STORIES)


@pytest.fixture
def footage(clean_folder: Path, tmp_path: Path) -> Path:
    """A copy to spoil."""
    return shutil.copytree(clean_folder, tmp_path / "footage")


def kind_of(clip: FileClip, settings: ClipSettings = SETTINGS) -> str:
    with pytest.raises(ClipError) as caught:
        clip.check()
        clip.frames(settings, 0.0)
    assert "\n" not in str(caught.value) and str(caught.value)
    return caught.value.kind


def levels(count: int, height: int = 32, width: int = 48) -> np.ndarray:
    return np.stack([np.full((height, width, 3), 20 + 4 * index, np.uint8) for index in range(count)])


def clip_of(path: Path, **values: object) -> FileClip:
    return FileClip(name=path.name, path=path, caption="a fox", **values)


@pytest.mark.parametrize("listed", READERS)
def test_every_list_gives_every_clip_with_its_caption_and_frames(listed: str, clean_folder: Path) -> None:
    truth, shots = filmed(STORIES)
    source = READERS[listed](clean_folder / listed)
    clips = [clip for group in source.groups for clip in group]
    assert [len(group) for group in source.groups] == ([1] * 9 if listed == "clips.csv" else [3] * 3)
    captions = [caption for group in range(len(source.groups)) for caption in source.captions(group, random.Random(0))]
    assert source.fixed_captions and captions == [shot.caption for shot in truth.shots]
    assert len({clip.name for clip in clips}) == len(clips)
    for clip, shot in zip(clips, shots, strict=True):
        clip.check()
        frames = clip.frames(SETTINGS, 0.0)
        assert frames.shape == (9, HEIGHT, WIDTH, 3) and frames.dtype == np.uint8
        assert np.abs(frames.astype(int) - shot[:9]).mean() < 5


def test_a_source_pickles(clean_folder: Path) -> None:
    for listed, read in READERS.items():
        source = read(clean_folder / listed)
        again = pickle.loads(pickle.dumps(source))
        assert again == source and np.array_equal(again.groups[0][0].frames(SETTINGS, 1.0), source.groups[0][0].frames(SETTINGS, 1.0))
    error = pickle.loads(pickle.dumps(ClipError("short", "too\nshort")))
    assert (error.kind, str(error)) == ("short", "too short")


def test_the_window_slides_from_the_first_frames_to_the_last(tmp_path: Path) -> None:
    write_video(tmp_path / "a.mp4", levels(17), 8)
    whole = read_video(tmp_path / "a.mp4")
    settings = ClipSettings(height=32, width=48, num_frames=9, fps=8)
    clip = clip_of(tmp_path / "a.mp4")
    for position, first in ((0.0, 0), (0.25, 2), (0.5, 4), (1.0, 8)):
        assert np.array_equal(clip.frames(settings, position), whole[first : first + 9])
    exact = clip_of(tmp_path / "a.mp4", start_seconds=0.5, end_seconds=0.5 + 9 / 8)
    for position in (0.0, 0.3, 1.0):
        assert np.array_equal(exact.frames(settings, position), whole[4:13])


@pytest.mark.parametrize("own_fps", [6, 8, 12.5, 24, 30])
def test_frames_are_those_shown_at_the_ticks(own_fps: float, tmp_path: Path) -> None:
    write_video(tmp_path / "a.mp4", levels(55), own_fps)
    settings = ClipSettings(height=32, width=48, num_frames=9, fps=8)
    for position in (0.0, 0.37, 1.0):
        start = position * (55 / own_fps - 9 / 8)
        shown = [int((start + tick / 8) * own_fps + 1e-2) for tick in range(9)]
        means = clip_of(tmp_path / "a.mp4").frames(settings, position).mean(axis=(1, 2, 3))
        assert np.abs(means - [20 + 4 * index for index in shown]).max() < 2


def test_frames_are_fitted_to_the_asked_size(clean_folder: Path) -> None:
    clip = read_clips_csv(clean_folder / "clips.csv").groups[0][0]
    small = clip.frames(ClipSettings(height=40, width=40, num_frames=5, fps=FPS), 0.0)
    assert np.array_equal(small, resize_and_crop(clip.frames(SETTINGS, 0.0)[:5], 40, 40))


def test_clips_of_unlike_size_and_rate_give_the_same_shape(tmp_path: Path) -> None:
    write_video(tmp_path / "a.mp4", levels(40, 64, 48), 24)
    write_video(tmp_path / "b.mp4", levels(30, 36, 96), 12.5)
    scenes = [{"video": name, "caption": "a fox"} for name in ("a.mp4", "b.mp4")]
    (tmp_path / "groups.jsonl").write_text(json.dumps({"scenes": scenes}))
    source = read_groups_jsonl(tmp_path / "groups.jsonl")
    assert {clip.frames(SETTINGS, 0.5).shape for clip in source.groups[0]} == {(9, HEIGHT, WIDTH, 3)}


def test_a_shot_in_a_long_video_shows_nothing_of_its_neighbours(clean_folder: Path) -> None:
    _, shots = filmed(STORIES)
    source = read_groups_jsonl(clean_folder / "long.jsonl")
    clips = [clip for group in source.groups for clip in group]
    for clip, shot in zip(clips, shots, strict=True):
        last = clip.frames(SETTINGS, 1.0)
        assert np.abs(last.astype(int) - shot[-9:]).mean() < 5
        with pytest.raises(ClipError, match="expected at least"):
            clip.frames(ClipSettings(HEIGHT, WIDTH, num_frames=len(shot) + 1, fps=FPS), 0.0)


def test_too_few_frames_are_short(tmp_path: Path) -> None:
    write_video(tmp_path / "a.mp4", levels(3), 8)
    clip = clip_of(tmp_path / "a.mp4")
    assert kind_of(clip) == "short"
    assert clip.frames(ClipSettings(32, 48, num_frames=3, fps=8), 1.0).shape == (3, 32, 48, 3)


def test_damaged_files_are_unreadable(clean_folder: Path, tmp_path: Path) -> None:
    whole = (clean_folder / "clips/story-0-scene-0.mp4").read_bytes()
    all_of_it = replace(SETTINGS, num_frames=len(filmed(STORIES)[1][0]))
    wrong = {"empty": b"", "text": b"no video at all\n" * 50, "noise": np.random.default_rng(0).bytes(3000)}
    wrong |= {f"cut-{part}": whole[: len(whole) * part // 100] for part in (1, 10, 30, 50, 70, 90)}
    for name, content in wrong.items():
        (tmp_path / f"{name}.mp4").write_bytes(content)
        assert kind_of(clip_of(tmp_path / f"{name}.mp4"), all_of_it) == "unreadable", name


def test_damaged_pictures_are_unreadable(tmp_path: Path) -> None:
    """The decoder fills holes with grey or with what was there before: nothing to learn from."""
    noise = np.random.default_rng(0).integers(0, 256, (9, HEIGHT, WIDTH, 3)).astype(np.uint8)
    write_video(tmp_path / "a.mp4", noise, FPS)
    content = bytearray((tmp_path / "a.mp4").read_bytes())
    middle = len(content) // 2
    content[middle : middle + 400] = bytes(range(200)) * 2
    (tmp_path / "a.mp4").write_bytes(content)
    assert len(read_video(tmp_path / "a.mp4")) == 9
    assert kind_of(clip_of(tmp_path / "a.mp4")) == "unreadable"


def test_flipped_bytes_raise_nothing_but_clip_errors(clean_folder: Path, tmp_path: Path) -> None:
    whole = (clean_folder / "clips/story-0-scene-1.mp4").read_bytes()
    rng = np.random.default_rng(1)
    for _ in range(40):
        content = np.frombuffer(whole, np.uint8).copy()
        places = rng.integers(0, len(content) if rng.random() < 0.5 else 1500, 12)
        content[places] = rng.integers(0, 256, 12)
        (tmp_path / "a.mp4").write_bytes(content.tobytes())
        try:
            assert clip_of(tmp_path / "a.mp4").frames(SETTINGS, rng.random()).shape == (9, HEIGHT, WIDTH, 3)
        except ClipError as error:
            assert "\n" not in str(error)


def test_a_missing_file_is_missing(tmp_path: Path) -> None:
    for name in ("a.mp4", ".", "a\0b.mp4", "long" * 100):
        clip = clip_of(tmp_path / name)
        assert kind_of(clip) == "missing"
        with pytest.raises(ClipError, match="no such file"):
            clip.fingerprint()


@pytest.mark.parametrize(
    ("stated", "good"),
    [
        ({"width": 48, "height": 32, "fps": 8, "num_frames": 30, "duration_seconds": 3.75}, True),
        ({"fps": 8.3}, True),
        ({"num_frames": 32}, True),
        ({"duration_seconds": 3.5}, True),
        ({"width": 50}, False),
        ({"height": 48}, False),
        ({"fps": 8.5}, False),
        ({"num_frames": 60}, False),
        ({"num_frames": 26}, False),
        ({"duration_seconds": 30}, False),
        ({"width": 0}, False),
        ({"fps": -8}, False),
        ({"fps": float("nan")}, False),
    ],
)
def test_a_video_must_be_as_stated(stated: dict[str, float], good: bool, tmp_path: Path) -> None:
    write_video(tmp_path / "a.mp4", levels(30), 8)
    clip = clip_of(tmp_path / "a.mp4", stated=Stated(**stated))
    if good:
        clip.check()
        clip.frames(SETTINGS, 0.0)
    else:
        assert kind_of(clip) == "mis-described"


@pytest.mark.parametrize(("start", "end"), [(-1.0, None), (2.0, 2.0), (2.0, 1.0), (4.0, None), (0.0, 9.0), (float("nan"), None)])
def test_a_stretch_that_the_video_does_not_have(start: float, end: float | None, tmp_path: Path) -> None:
    write_video(tmp_path / "a.mp4", levels(30), 8)
    assert kind_of(clip_of(tmp_path / "a.mp4", start_seconds=start, end_seconds=end)) == "mis-described"


def test_a_fingerprint_is_of_the_content(footage: Path) -> None:
    source = read_groups_jsonl(footage / "long.jsonl")
    prints = {clip.fingerprint() for group in source.groups for clip in group}
    assert len(prints) == 3 * STORIES
    path = footage / "clips/story-0-scene-0.mp4"
    before = clip_of(path).fingerprint()
    os.utime(path, (1, 1))
    assert clip_of(path).fingerprint() == before
    path = path.rename(footage / "clips/renamed.mp4")
    assert clip_of(path).fingerprint() == before != clip_of(path, start_seconds=0.5).fingerprint()
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    assert clip_of(path).fingerprint() != before


def spoil(footage: Path) -> FixedScenes:
    """Nine rows, of which 2 (short), 4 (missing), 5 (unreadable), 7 (no caption), 8 (no number) and 9 (wide) are bad."""
    write_video(footage / "clips/story-0-scene-1.mp4", levels(3, HEIGHT, WIDTH), FPS)
    (footage / "clips/story-1-scene-0.mp4").unlink()
    (footage / "clips/story-1-scene-1.mp4").write_text("no video")
    lines = (footage / "clips.csv").read_text(encoding="utf-8").splitlines()
    names = [f"clips/story-{number // 3}-scene-{number % 3}.mp4" for number in range(9)]
    lines[2] = f'"a fox",{names[1]},3,8,96,64'
    lines[7] = f"  ,{names[6]},9,8,96,64"
    lines[8] = f"a fox,{names[7]},many,8,96,64"
    lines[9] = f"a fox,{names[8]},{len(filmed(STORIES)[1][8])},8,128,64"
    (footage / "clips.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return read_clips_csv(footage / "clips.csv")


def read_all(source: FixedScenes, report: ClipReport) -> None:
    for group in source.groups:
        for clip in group:
            if not report.is_bad(clip.name):
                try:
                    clip.frames(SETTINGS, 0.0)
                except ClipError as error:
                    report.add(clip.name, error.kind, str(error))


def test_bad_rows_are_passed_over_and_each_listed_once(footage: Path) -> None:
    source, path = spoil(footage), footage / "bad_clips.jsonl"

    def good(report: ClipReport, complete: bool) -> list[int]:
        return [run.group for run in usable(source, 3, needs_groups=False, report=report, report_is_complete=complete)]

    report = ClipReport(path)
    assert good(report, True) == [0, 1, 2, 4, 5, 8]
    assert report.summary() == "skipped 3 of 9 clips: 2 mis-described, 1 missing"
    read_all(source, report)
    assert report.summary() == "skipped 6 of 9 clips: 3 mis-described, 1 missing, 1 short, 1 unreadable"
    for later in (report, ClipReport(path)):  # the same run, and one that resumes
        assert good(later, True) == [0, 2, 5] and good(later, False) == [0, 1, 2, 4, 5, 8]
        read_all(source, later)
        assert later.summary() == report.summary()
    entries = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    assert len(entries) == len({entry["clip"] for entry in entries}) == 6 and all(set(e) == {"clip", "kind", "reason"} for e in entries)


def test_too_few_good_clips_end_it_with_the_counts(footage: Path) -> None:
    source, report = spoil(footage), ClipReport(footage / "bad_clips.jsonl")
    read_all(source, report)
    counts = r"\(3 mis-described, 1 short, 1 missing, 1 unreadable\)"
    with pytest.raises(InputError, match=rf"clips\.csv: got 3 usable of 9 clips {counts}, expected at least 4; see bad_clips\.jsonl"):
        usable(source, 4, needs_groups=False, report=report, report_is_complete=True)


def test_a_bad_clip_splits_its_group(footage: Path) -> None:
    (footage / "clips/story-1-scene-1.mp4").unlink()
    (footage / "clips/story-2-scene-0.mp4").unlink()
    source = read_groups_json(footage / "groups.json")
    whole, ends, tail = SceneRun(0, 0, 3), (SceneRun(1, 0, 1), SceneRun(1, 2, 1)), SceneRun(2, 1, 2)
    assert usable(source, 2, needs_groups=False, report=ClipReport()) == [whole, *ends, tail]
    report = ClipReport(footage / "bad_clips.jsonl")
    assert usable(source, 2, needs_groups=True, report=report) == [whole, tail]
    assert report.summary() == "skipped 2 of 9 clips: 2 missing, 2 short groups"
    assert usable(source, 2, needs_groups=True, report=ClipReport(report.path)) == [whole, tail]
    assert len((footage / "bad_clips.jsonl").read_text().splitlines()) == 4
    with pytest.raises(
        InputError, match=r"groups\.json: got 1 usable runs of 3 scenes in 3 groups \(.*\), expected at least 2; see bad_clips"
    ):
        usable(source, 3, needs_groups=True, report=report, min_groups=2)


def test_all_clips_bad(footage: Path) -> None:
    shutil.rmtree(footage / "clips")
    for listed, needs_groups in (("clips.csv", False), ("groups.jsonl", True)):
        with pytest.raises(InputError, match=r"got 0 usable .*\(9 missing\), expected at least"):
            usable(READERS[listed](footage / listed), 3, needs_groups=needs_groups, report=ClipReport())


def test_half_a_line_in_the_report_is_no_entry(tmp_path: Path) -> None:
    path = tmp_path / "bad_clips.jsonl"
    ClipReport(path).add("a.mp4", "short", "too short")
    with path.open("a") as file:
        file.write('{"clip": "b.mp4", "ki')
    report = ClipReport(path)
    assert report.is_bad("a.mp4") and not report.is_bad("b.mp4")
    report.add("b.mp4", "missing", "gone")
    assert ClipReport(path).is_bad("b.mp4") and ClipReport(path).summary() == "skipped 2 of 0 clips: 1 short, 1 missing"


def test_paths_are_relative_to_the_list_or_the_given_folder(clean_folder: Path, tmp_path: Path) -> None:
    for listed, read in READERS.items():
        shutil.copy(clean_folder / listed, tmp_path / listed)
        read(tmp_path / listed, clean_folder).groups[0][0].check()
        with pytest.raises(ClipError, match="no such file"):
            read(tmp_path / listed).groups[0][0].check()


def test_rows_that_cannot_be_true(tmp_path: Path) -> None:
    write_video(tmp_path / "a.mp4", levels(9), 8)
    rows = [",a.mp4,9", "a fox,a.mp4,", "a fox,a.mp4,0", "a fox,a.mp4,nan", "a fox,,9", "a fox, who runs,a.mp4,9", "a fox", "a fox,a.mp4,9"]
    (tmp_path / "clips.csv").write_text("\n".join(["caption,path,num_frame", *rows]))
    source = read_clips_csv(tmp_path / "clips.csv")
    scenes = [
        {"caption": 3},
        {"caption": ""},
        {"caption": "a", "fps": "fast"},
        {"caption": "a", "fps": True},
        {"caption": "a", "width": []},
    ]
    values = [{"url": "a.mp4", **scene} for scene in scenes] + [{"caption": "a"}, {"caption": "a", "url": "a.mp4", "fps": None}]
    (tmp_path / "groups.json").write_text(json.dumps([{"prefix": "x", "values": values}]))
    scenes = [{"start_seconds": "soon"}, {"end_seconds": [1]}, {"start_seconds": -1}, {"start_seconds": 0.25, "end_seconds": 1}]
    (tmp_path / "groups.jsonl").write_text(json.dumps({"scenes": [{"video": "a.mp4", "caption": "a", **scene} for scene in scenes]}))
    for listed in ("clips.csv", "groups.json", "groups.jsonl"):
        clips = [clip for group in READERS[listed](tmp_path / listed).groups for clip in group]
        assert len({clip.name for clip in clips}) == len(clips)
        for clip in clips[:-1]:
            assert kind_of(clip) == "mis-described", clip
        clips[-1].check()
    assert len(source.groups) == len(rows)


@pytest.mark.parametrize(
    ("listed", "content", "words"),
    [
        ("clips.csv", None, "line 1: cannot be read"),
        ("clips.csv", b"", "line 1: got an empty file"),
        ("clips.csv", b"text,path,num_frame\na,b,9\n", "line 1: got text, path, num_frame, expected a header"),
        ("clips.csv", b"caption,path,num_frame\n", "got no clips"),
        ("clips.csv", b'caption,path,num_frame\na,b,9\n"a,b,9\n', "line 3: is not CSV"),
        ("clips.csv", b"caption,path,num_frame\na\xff,b,9\n", "is not UTF-8"),
        ("groups.json", b'[\n{"values": [}]', "line 2: is not JSON"),
        ("groups.json", b'{"values": []}', "expected a list of groups"),
        ("groups.json", b'[{"values": [{}]}, {"scenes": []}]', 'group 2: expected an object with "values"'),
        ("groups.json", b'[{"values": [3]}]', "group 1: expected"),
        ("groups.json", b"[" * 100_000, "nested too deeply"),
        ("groups.json", b"[]", "got no clips"),
        ("groups.jsonl", b'{"scenes": [{}]}\n\n{"scenes"\n', "line 3: is not JSON"),
        ("groups.jsonl", b"7\n", 'line 1: expected an object with "scenes"'),
        ("groups.jsonl", b'{"scenes": []}\n', "line 1: expected"),
        ("groups.jsonl", b'{"scenes": [{"video": "a", "caption": "a", "start": 1}]}\n', "line 1: got start, expected only caption"),
        ("groups.jsonl", b"\n\n", "got no clips"),
    ],
)
def test_lists_that_cannot_be_read(listed: str, content: bytes | None, words: str, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / listed).write_bytes(content)
    with pytest.raises(InputError, match=words) as caught:
        READERS[listed](tmp_path / listed)
    assert str(caught.value).startswith(str(tmp_path / listed)) and "\n" not in str(caught.value)
