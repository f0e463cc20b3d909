"""Which folders a film may be made in, and that other people's files are safe there."""

import os
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from mask2dit.errors import InputError
from mask2dit.pipeline import Mask2DiTPipeline
from mask2dit.production import Directions, FilmFolder, make_film
from mask2dit.storyboard import Storyboard
from production.filming import SETTINGS, Watched, files_in


def refusal(folder: Path, fresh: bool = False) -> str:
    with pytest.raises(InputError) as caught:
        FilmFolder(folder).check(fresh)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_new_and_empty_folders_are_fine(tmp_path: Path) -> None:
    (tmp_path / ".DS_Store").write_bytes(b"")
    assert FilmFolder(tmp_path).check() is None
    assert FilmFolder(tmp_path / "deep" / "down").check() is None
    assert not (tmp_path / "deep").exists()


def test_a_folder_with_other_things_is_refused(tmp_path: Path) -> None:
    (tmp_path / "holiday.jpg").write_bytes(b"sun")
    assert "holds files that are no film" in refusal(tmp_path) and "--fresh" in refusal(tmp_path)
    assert FilmFolder(tmp_path).check(fresh=True) is None


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("{}", "is of another version"),
        ('{"format": 1, "status": "complete"}', "is of another version"),
        ('{"format": 2, "settings"', "is damaged"),
        ("", "is damaged"),
    ],
)
def test_a_record_that_says_nothing_is_one_line(content: str, words: str, finished: Path) -> None:
    (finished / "run.json").write_text(content)
    assert words in refusal(finished) and "--fresh" in refusal(finished)
    assert FilmFolder(finished).check(fresh=True) is None


def test_takes_without_a_record_are_left_alone(pipeline: Mask2DiTPipeline, board: Storyboard, finished: Path) -> None:
    before = files_in(finished / "takes")
    (finished / "run.json").write_text("damaged")
    record = make_film(pipeline, board, finished, SETTINGS, Directions(fresh=True))
    assert {scene.take for scene in record.scenes} == {2}
    assert files_in(finished / "takes").items() >= before.items()


def test_files_in_the_way_are_refused_even_afresh(tmp_path: Path) -> None:
    (tmp_path / "film").write_text("a file")
    for folder in (tmp_path / "film", tmp_path / "film" / "fox"):
        for fresh in (False, True):
            assert "is a file, expected a folder" in refusal(folder, fresh)
    assert "cannot be a folder" in refusal(tmp_path / ("long" * 100))


def test_a_shorter_film_takes_nothing_else_away(pipeline: Mask2DiTPipeline, finished: Path) -> None:
    (finished / "notes.txt").write_text("mine")
    (finished / "scenes" / "sketch.png").write_text("mine too")
    takes = files_in(finished / "takes")
    shorter = Storyboard.from_text("an owl")
    with pytest.raises(InputError, match=r"holds another film \('The fox'\), expected a new folder"):
        make_film(pipeline, shorter, finished, SETTINGS)
    make_film(pipeline, shorter, finished, SETTINGS, Directions(fresh=True))
    files = files_in(finished)
    assert files["notes.txt"] == b"mine" and files["scenes/sketch.png"] == b"mine too"
    assert [name for name in files if name.startswith(("scenes/scene", "latents/"))] == [
        "latents/scene-01.safetensors",
        "scenes/scene-01.mp4",
    ]
    assert Storyboard.read(finished / "storyboard.yaml") == shorter
    assert files_in(finished / "takes").items() > takes.items()


def test_two_runs_do_not_share_a_folder(pipeline: Mask2DiTPipeline, board: Storyboard, tmp_path: Path) -> None:
    """The second is refused while the first is at work, and told who that is."""
    refused: list[str] = []

    def second() -> None:
        try:
            make_film(pipeline, board, tmp_path / "fox", SETTINGS)
        except InputError as error:
            refused.append(str(error))

    def try_too() -> None:  # another thread is another one as much as another process
        thread = threading.Thread(target=second)
        thread.start()
        thread.join()

    make_film(pipeline, board, tmp_path / "fox", SETTINGS, progress=Watched("denoising", 1, try_too))
    assert len(refused) == 1 and f"another run (process {os.getpid()} on " in refused[0] and "is at work on it" in refused[0]


def test_a_storyboard_with_remarks_stays_as_it_was_written(pipeline: Mask2DiTPipeline, board: Storyboard, finished: Path) -> None:
    written = "# mine\n" + (finished / "storyboard.yaml").read_text()
    (finished / "storyboard.yaml").write_text(written)
    make_film(pipeline, board, finished, replace(SETTINGS, seed=3))
    assert (finished / "storyboard.yaml").read_text() == written
    longer = board.with_scenes([*board.scenes, board.scenes[0]])
    make_film(pipeline, longer, finished, SETTINGS)
    assert Storyboard.read(finished / "storyboard.yaml") == longer
    assert (finished / "storyboard.before.yaml").read_text() == written  # what a person wrote is not lost


def test_takes_that_a_record_does_not_know_are_left_alone(pipeline: Mask2DiTPipeline, board: Storyboard, finished: Path) -> None:
    """An older run.json put back, as the messages advise."""
    old = (finished / "run.json").read_bytes()
    make_film(pipeline, board, finished, replace(SETTINGS, seed=3))
    takes = files_in(finished / "takes")
    (finished / "run.json").write_bytes(old)
    make_film(pipeline, board, finished, replace(SETTINGS, seed=4))
    assert files_in(finished / "takes").items() > takes.items()


def test_files_may_be_read_by_others(whole: Path) -> None:
    modes = {path.stat().st_mode & 0o777 for path in whole.rglob("*") if path.is_file()}
    assert len(modes) == 1
