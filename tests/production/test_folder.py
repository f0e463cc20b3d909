"""Which folders a film may be made in, and that other people's files are safe there."""

import json
from pathlib import Path

import pytest

from mask2dit.errors import InputError
from mask2dit.pipeline import Mask2DiTPipeline
from mask2dit.production import FilmFolder, make_film
from mask2dit.storyboard import Storyboard
from production.filming import SETTINGS, files_in


def refusal(folder: Path, board: Storyboard, overwrite: bool = False) -> str:
    with pytest.raises(InputError) as caught:
        FilmFolder(folder).check(board, overwrite)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_new_and_empty_folders_are_fine(board: Storyboard, tmp_path: Path) -> None:
    (tmp_path / ".DS_Store").write_bytes(b"")
    assert FilmFolder(tmp_path).check(board) is None
    assert FilmFolder(tmp_path / "deep" / "down").check(board) is None
    assert not (tmp_path / "deep").exists()


def test_a_folder_with_other_things_is_refused(board: Storyboard, tmp_path: Path) -> None:
    (tmp_path / "holiday.jpg").write_bytes(b"sun")
    assert "holds files that are no film" in refusal(tmp_path, board) and "--overwrite" in refusal(tmp_path, board)
    (tmp_path / "run.json").write_text("{}")
    assert "holds files that are no film" in refusal(tmp_path, board)


def test_a_film_of_another_storyboard_is_refused(board: Storyboard, whole: Path) -> None:
    record = FilmFolder(whole).check(board)
    assert record is not None and record.title == "The fox"
    other = board.model_copy(update={"title": "Another"})
    assert "a film of another storyboard ('The fox')" in refusal(whole, other)
    assert FilmFolder(whole).check(other, overwrite=True) is None


def test_files_in_the_way_are_refused_even_for_overwriting(board: Storyboard, tmp_path: Path) -> None:
    (tmp_path / "film").write_text("a file")
    for folder in (tmp_path / "film", tmp_path / "film" / "fox"):
        for overwrite in (False, True):
            assert "is a file, expected a folder" in refusal(folder, board, overwrite)
    assert "cannot be a folder" in refusal(tmp_path / ("long" * 100), board)


def test_overwriting_replaces_the_film_and_nothing_else(pipeline: Mask2DiTPipeline, finished: Path) -> None:
    (finished / "notes.txt").write_text("mine")
    (finished / "scenes" / "sketch.png").write_text("mine too")
    shorter = Storyboard.from_text("an owl")
    make_film(pipeline, shorter, finished, SETTINGS, overwrite=True)
    files = files_in(finished)
    assert files["notes.txt"] == b"mine" and files["scenes/sketch.png"] == b"mine too"
    assert [name for name in files if name.startswith(("scenes/scene", "latents/"))] == [
        "latents/scene-01.safetensors",
        "scenes/scene-01.mp4",
    ]
    assert Storyboard.read(finished / "storyboard.yaml") == shorter
    assert len(json.loads(files["run.json"])["scenes"]) == 1


def test_files_may_be_read_by_others(whole: Path) -> None:
    modes = {path.stat().st_mode & 0o777 for path in whole.rglob("*") if path.is_file()}
    assert len(modes) == 1
