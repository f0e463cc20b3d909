"""Shards hold the same clips as files, frame by frame, and a broken one gives what is left of it."""

import io
import json
import pickle
import random
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pytest

from mask2dit.errors import InputError
from mask2dit.shards import expand, write_shards
from mask2dit.training.data.files import read_groups_jsonl
from mask2dit.training.data.report import ClipReport
from mask2dit.training.data.scenes import ClipError, ClipSettings, FixedScenes, usable
from mask2dit.training.data.shards import read_shards
from training.footage_folder import FPS, HEIGHT, WIDTH, shard_pattern, write_footage_folder

STORIES = 3
SETTINGS = ClipSettings(height=HEIGHT, width=WIDTH, num_frames=9, fps=FPS)


@pytest.fixture(scope="session")
def shard_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_footage_folder(tmp_path_factory.mktemp("sharded"), STORIES)


@pytest.fixture
def shard(shard_folder: Path, tmp_path: Path) -> Path:
    """A copy of the first shard, of two groups, to spoil."""
    return Path(shutil.copy(shard_folder / "train-000000.tar", tmp_path))


def pack(path: Path, members: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w") as archive:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


def unpack(path: Path) -> dict[str, bytes]:
    with tarfile.open(path) as archive:
        return {member.name: archive.extractfile(member).read() for member in archive}


def kinds(source: FixedScenes) -> list[list[str]]:
    found = []
    for group in source.groups:
        found.append([])
        for clip in group:
            try:
                clip.check()
                clip.frames(SETTINGS, 0.0)
                found[-1].append("good")
            except ClipError as error:
                assert "\n" not in str(error)
                found[-1].append(error.kind)
    return found


def test_shards_hold_what_the_files_hold(shard_folder: Path) -> None:
    files, shards = read_groups_jsonl(shard_folder / "groups.jsonl"), read_shards(shard_pattern(shard_folder, STORIES))
    assert len(list(shard_folder.glob("*.tar"))) == 2 and len(shards.groups) == len(files.groups) == STORIES
    for index, (listed, packed) in enumerate(zip(files.groups, shards.groups, strict=True)):
        assert shards.captions(index, random.Random(0)) == files.captions(index, random.Random(0))
        for file, clip in zip(listed, packed, strict=True):
            clip.check()
            assert clip.fingerprint() == file.fingerprint()
            for position in (0.0, 0.6, 1.0):
                assert np.array_equal(clip.frames(SETTINGS, position), file.frames(SETTINGS, position))


def test_clips_can_be_read_in_any_order_and_process(shard_folder: Path) -> None:
    source = read_shards(shard_pattern(shard_folder, STORIES))
    clips = [clip for group in source.groups for clip in group]
    assert len({clip.name for clip in clips}) == len(clips)
    there = [clip.frames(SETTINGS, 0.0) for clip in clips]
    again = pickle.loads(pickle.dumps(source))
    assert again == source
    for index in random.Random(0).sample(range(len(clips)), len(clips)):
        assert np.array_equal(again.groups[index // 3][index % 3].frames(SETTINGS, 0.0), there[index])


def test_the_same_groups_give_the_same_bytes(shard_folder: Path, tmp_path: Path) -> None:
    groups = [[(clip.caption, clip.path) for clip in group] for group in read_groups_jsonl(shard_folder / "groups.jsonl").groups]
    written = write_shards(str(tmp_path / "train-{000000..000001}.tar"), groups, 2)
    assert [path.name for path in written] == ["train-000000.tar", "train-000001.tar"] == sorted(path.name for path in tmp_path.iterdir())
    for path in written:
        assert path.read_bytes() == (shard_folder / path.name).read_bytes()
    with tarfile.open(written[0]) as archive:
        assert {(member.mtime, member.uid, member.gid, member.uname) for member in archive} == {(0, 0, 0, "")}


def test_members_may_stand_in_any_order(shard: Path) -> None:
    members = unpack(shard)
    mixed = pack(shard.with_name("mixed.tar"), dict(sorted(members.items(), reverse=True)))
    usual, turned = read_shards(shard), read_shards([mixed])
    assert [[clip.fingerprint() for clip in group] for group in turned.groups] == [
        [clip.fingerprint() for clip in group] for group in reversed(usual.groups)
    ]


def test_a_truncated_shard_gives_what_is_left(shard: Path) -> None:
    whole = shard.read_bytes()
    with tarfile.open(shard) as archive:
        members = list(archive)
    second = members[4]  # the second group's json
    cuts = {
        "in a video": members[2].offset_data + 100,
        "in a header": members[2].offset + 100,
        "between members": second.offset,
        "in the second json": second.offset_data + 3,
        "before the end mark": members[-1].offset_data + -(-members[-1].size // 512) * 512,
    }
    good = ["good"] * 3
    expected = {
        "in a video": [["good", "missing", "missing"], ["unreadable"]],
        "in a header": [["good", "missing", "missing"], ["unreadable"]],
        "between members": [good, ["unreadable"]],
        "in the second json": [good, ["unreadable"]],
        "before the end mark": [good, good, ["unreadable"]],
    }
    for place, cut in cuts.items():
        shard.write_bytes(whole[:cut])
        source = read_shards(shard)
        assert kinds(source) == expected[place], place
        report = ClipReport(shard.with_name(f"{place}.jsonl"))
        assert usable(source, 1, needs_groups=True, report=report)
        reasons = [json.loads(line)["reason"] for line in report.path.read_text().splitlines()]
        assert any("breaks off" in reason for reason in reasons)


def test_a_shard_that_is_cut_after_it_was_indexed(shard: Path) -> None:
    source = read_shards(shard)
    shard.write_bytes(shard.read_bytes()[: source.groups[0][1].offset + 10])
    assert kinds(source) == [["good", "unreadable", "unreadable"], ["unreadable"] * 3]
    shard.unlink()
    assert kinds(source) == [["missing"] * 3] * 2


def test_what_is_no_shard(tmp_path: Path) -> None:
    for name, content in (("empty.tar", b""), ("text.tar", b"hello\n" * 500), ("zeros.tar", bytes(100))):
        (tmp_path / name).write_bytes(content)
        source = read_shards(tmp_path / name)
        assert kinds(source) == [["unreadable"]]
        with pytest.raises(InputError, match=r"got 0 usable of 1 clips \(1 unreadable\), expected at least 1"):
            usable(source, 1, needs_groups=False, report=ClipReport())


def test_keys_that_lack_something(shard: Path) -> None:
    members = unpack(shard)
    first, second = "00000000", "00000001"
    video = members[f"{first}.0.mp4"]
    for name, changed, expected in (
        ("no json", {f"{first}.json": None}, ["mis-described"]),
        ("no video", {f"{first}.1.mp4": None}, ["good", "missing", "good"]),
        ("no caption", {f"{first}.json": b'{"scenes": [{"caption": "a fox"}, {}, 3]}'}, ["good", "mis-described", "mis-described"]),
        ("no scenes", {f"{first}.json": b'{"scenes": []}'}, ["mis-described"]),
        ("no object", {f"{first}.json": b"[]"}, ["mis-described"]),
        ("broken json", {f"{first}.json": b'{"scenes"'}, ["mis-described"]),
        ("binary json", {f"{first}.json": video}, ["mis-described"]),
        ("text as video", {f"{first}.2.mp4": b"no video"}, ["good", "good", "unreadable"]),
        ("more videos than captions", {f"{first}.3.mp4": video}, ["good"] * 3),
    ):
        content = {key: value for key, value in {**members, **changed}.items() if value is not None}
        source = read_shards(pack(shard.with_name(f"{name}.tar"), content))
        by_key = {group[0].name.rpartition("/")[2].split(".")[0]: found for group, found in zip(source.groups, kinds(source), strict=True)}
        assert by_key == {first: expected, second: ["good"] * 3}, name


def test_patterns(tmp_path: Path) -> None:
    assert [str(path) for path in expand("a/train-{008..011}.tar")] == [f"a/train-{number}.tar" for number in ("008", "009", "010", "011")]
    assert expand("one.tar") == [Path("one.tar")]
    for pattern in ("{3..1}.tar", "{a..b}.tar", "{0..1}-{0..1}.tar", "{0,1}.tar"):
        with pytest.raises(InputError, match="expected one range"):
            expand(pattern)
    with pytest.raises(InputError, match=r"train-000001\.tar: there is no such file"):
        pack(tmp_path / "train-000000.tar", {})
        read_shards(str(tmp_path / "train-{000000..000001}.tar"))
    with pytest.raises(InputError, match="expected at least one"):
        read_shards([])
    with pytest.raises(InputError, match="got no groups"):
        read_shards(tmp_path / "train-000000.tar")


def test_shards_that_cannot_be_written(shard_folder: Path, tmp_path: Path) -> None:
    video = shard_folder / "clips/story-0-scene-0.mp4"
    groups = [[("a fox", video)]] * 5
    for pattern, given, size, words in (
        ("train-{000000..000001}.tar", groups, 2, "names 2 shards, 5 groups, 2 per shard, need 3; for example .*000002"),
        ("one.tar", groups, 2, "need 3"),
        ("one.tar", [], 2, "got 0 groups"),
        ("one.tar", groups, 0, "0 per shard"),
        ("one.tar", [[("a fox", tmp_path / "gone.mp4")]], 1, "gone.mp4: cannot be read"),
    ):
        with pytest.raises(InputError, match=words):
            write_shards(str(tmp_path / pattern), given, size)
    assert list(tmp_path.iterdir()) == []
