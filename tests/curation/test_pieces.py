"""Which videos there are, and where they may be cut into pieces."""

import os
from pathlib import Path

import numpy as np
import pytest

from mask2dit.curation import pieces
from mask2dit.curation.pieces import find_footage, look_into
from mask2dit.curation.rows import VideoRow
from mask2dit.errors import InputError
from mask2dit.video_files import open_video
from small_footage import moving, of_no_use, rotate, shots, write


def rows_of(*places: Path, seconds: float = 600.0, known: tuple[VideoRow, ...] = ()) -> list[VideoRow]:
    return look_into(find_footage(places), seconds, known, lambda: None)


def test_videos_are_found_in_folders_by_name(tmp_path: Path) -> None:
    names = ["a.mp4", "b/c/🦊.webm", "b/two words 'quoted' \"x\".MKV", ".hidden.mp4", "b/notes.txt", ".cache/d.mp4"]
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    assert [each.name for each in find_footage([tmp_path])] == names[:3]
    assert [each.name for each in find_footage([tmp_path / "b" / "notes.txt", tmp_path / "a.mp4", tmp_path / "a.mp4"])] == [
        "a.mp4",
        "notes.txt",
    ]


def made(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"x")


def names_of(*places: Path, without: Path | None = None) -> list[str]:
    return [each.name for each in find_footage(places, without)]


def test_what_a_set_holds_of_its_own_is_no_footage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made(tmp_path, "a.mp4", "set/clips/b.mp4", "set/mine.mp4", "other/c.mp4", "old/clips/d/d.mp4", "old/steps/1-pieces.jsonl", "old/e.mp4")
    made(tmp_path, "other/clips/f.mp4")  # of no set
    (tmp_path / "link").symlink_to(tmp_path / "old" / "clips")
    expected = ["a.mp4", "old/e.mp4", "other/c.mp4", "other/clips/f.mp4", "set/mine.mp4"]
    assert names_of(tmp_path, without=tmp_path / "set") == expected
    assert names_of(*(tmp_path / "old").iterdir()) == ["e.mp4"]  # a shell's *
    assert names_of(tmp_path / "old" / "clips" / "d" / "d.mp4", tmp_path / "link", tmp_path / "a.mp4") == ["a.mp4"]
    assert names_of(tmp_path / "set", without=tmp_path / "set") == ["mine.mp4"]
    monkeypatch.chdir(tmp_path / "set")
    assert names_of(Path("."), without=Path(".")) == names_of(Path("clips"), Path("mine.mp4"), without=Path(".")) == ["mine.mp4"]
    with pytest.raises(InputError, match="holds no footage"):
        find_footage([tmp_path / "old" / "clips"])


def test_no_two_videos_have_one_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made(tmp_path, "a/x.mp4", "a/y.mp4", "b/x.mp4", "c/a/x.mp4", "c/a/z.mp4")
    assert names_of(tmp_path / "a", tmp_path / "b") == ["a/x.mp4", "b/x.mp4", "y.mp4"]
    assert names_of(tmp_path / "a" / "x.mp4", tmp_path / "b" / "x.mp4") == ["a/x.mp4", "b/x.mp4"]
    whole = sorted(str(tmp_path / name) for name in ("a/x.mp4", "c/a/x.mp4"))
    assert names_of(tmp_path / "a", tmp_path / "c" / "a", tmp_path / "b") == [*whole, "b/x.mp4", "y.mp4", "z.mp4"]
    monkeypatch.chdir(tmp_path / "a")
    assert names_of(Path("x.mp4"), Path("../a/x.mp4"), Path("..", "a")) == ["x.mp4", "y.mp4"]


def test_a_place_that_is_not_there_or_empty_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"there is no such file or folder, expected footage; check the name$"):
        find_footage([tmp_path / "none"])
    with pytest.raises(InputError, match=r"holds no footage, expected videos"):
        find_footage([tmp_path])


def test_bad_files_are_rows_with_a_reason(tmp_path: Path) -> None:
    shots(tmp_path / "good.mp4", (30, 30))
    expected = of_no_use(tmp_path, tmp_path / "good.mp4")
    os.link(tmp_path / "good.mp4", tmp_path / "good too.mp4")
    rows = {row.name: row for row in rows_of(tmp_path)}
    assert {name: reason in rows[name].problem for name, reason in expected.items()} == dict.fromkeys(expected, True)
    assert rows["good.mp4"].problem and rows["good too.mp4"].problem == ""  # in the order of names
    assert rows["good.mp4"].problem == "holds the same bytes as good too.mp4, which counts"
    assert all("\n" not in row.problem and str(tmp_path) not in row.problem for row in rows.values())


def test_a_folder_that_cannot_be_read_is_a_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shots(tmp_path / "good.mp4", (30,))
    (tmp_path / "closed").mkdir()
    scan = os.scandir

    def refused(path: str) -> object:
        if str(path).endswith("closed"):
            raise PermissionError(13, "Permission denied", str(path))
        return scan(path)

    monkeypatch.setattr(os, "scandir", refused)  # whoever runs the tests may be allowed everything
    rows = rows_of(tmp_path)
    assert [(row.name, row.problem) for row in rows] == [
        ("closed", "the folder cannot be read (Permission denied); allow it, or leave it out"),
        ("good.mp4", ""),
    ]


def test_pieces_begin_at_keyframes_and_none_is_short(tmp_path: Path) -> None:
    write(tmp_path / "a.mp4", moving(24 * 20 + 12, 0), fps=24, keyframes=30)
    (row,) = rows_of(tmp_path / "a.mp4", seconds=5)
    assert (row.fps, row.num_frames, row.height, row.width) == (24.0, 492, 48, 80)
    # The last keyframes at or before 5, 10, 15 and 20 s; the rest of half a second would be too short a piece with 10 s.
    assert row.piece_starts == (0, 120, 240, 360, 480)
    assert rows_of(tmp_path / "a.mp4", seconds=10)[0].piece_starts == (0, 240)
    with open_video(tmp_path / "a.mp4") as video:
        frames = video.frames(start_seconds=120 / 24)
        before = video.num_decoded
        next(frames)
        assert video.num_decoded - before <= 1  # nothing before the border is decoded


def test_a_video_of_one_keyframe_is_one_piece(tmp_path: Path) -> None:
    write(tmp_path / "a.mp4", moving(120, 0), keyframes=1000)
    assert rows_of(tmp_path / "a.mp4", seconds=1)[0].piece_starts == (0,)


def test_what_has_not_changed_is_not_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shots(tmp_path / "a.mp4", (30, 30))
    (tmp_path / "b.mp4").write_bytes(b"")
    (tmp_path / "c.mp4").write_bytes((tmp_path / "a.mp4").read_bytes())
    first = rows_of(tmp_path)
    assert [bool(row.digest) for row in first] == [True, False, True] and first[2].problem
    opened = []
    monkeypatch.setattr(pieces, "open_video", lambda path: opened.append(path) or open_video(path))
    assert rows_of(tmp_path, known=tuple(first)) == first and not opened
    (only,) = rows_of(tmp_path / "c.mp4", known=tuple(first))
    assert not opened and (only.digest, only.problem) == (first[0].digest, "")
    os.utime(tmp_path / "a.mp4", ns=(1, 1))
    again = rows_of(tmp_path, known=tuple(first))
    assert len(opened) == 1 and again[0].digest == first[0].digest


def test_a_turned_video_is_seen_as_it_is_shown(tmp_path: Path) -> None:
    path = write(tmp_path / "a.mp4", moving(12, 3))
    with open_video(path) as video:
        upright = next(video.frames())
    rotate(path)
    (row,) = rows_of(path)
    assert (row.height, row.width) == (80, 48)
    with open_video(path) as video:
        turned = next(video.frames(short_side=24))
        assert turned.shape == (40, 24, 3)
        np.testing.assert_array_equal(next(video.frames()), np.rot90(upright, -1))
