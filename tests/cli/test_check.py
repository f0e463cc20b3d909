"""`mask2dit check`: the table, the result as a file, an exit status; or one clear line."""

import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from typer.testing import Result

from mask2dit.cuts import FilmCheck
from mask2dit.video_files import write_video

Command = Callable[..., Result]


@pytest.fixture(autouse=True)
def video(command: Command) -> Path:
    """Three scenes of nine frames, eight per second, in the empty folder."""
    colours = ((200, 60, 40), (40, 90, 180), (60, 160, 70))
    write_video("a.mp4", (np.full((32, 48, 3), colour, np.uint8) for colour in colours for _ in range(9)), 8)
    return Path("a.mp4")


def record(*lengths: int) -> str:
    """What run.json says of the film that was joined; a take that it does not show comes last."""
    takes = [{"scene": number, "number": 2, "inputs": {"num_frames": length}} for number, length in enumerate(lengths, start=1)]
    joined = [[number, number, 2, 1] for number in range(1, len(lengths) + 1)]
    return json.dumps({"format": 2, "takes": [*takes, {"scene": 1, "number": 1, "inputs": {"num_frames": 5}}], "joined": joined})


def folder(video: Path, *lengths: int) -> Path:
    """A film's folder."""
    path = Path("film")
    path.mkdir()
    (path / "run.json").write_text(record(*lengths))
    (path / "film.mp4").write_bytes(video.read_bytes())
    return path


def the_error(result: Result) -> str:
    assert result.exit_code == 2, result.output
    assert result.stdout == "" and result.stderr.count("\n") == 1 and result.stderr.startswith("error: ")
    return result.stderr


def sca(result: Result) -> str:
    assert result.exit_code == 0 and result.stderr == "", result.output
    (line,) = (line for line in result.stdout.splitlines() if line.startswith("SCA "))
    return line.split()[1]


def test_the_table_of_any_video(command: Command) -> None:
    result = command("check", "a.mp4", "--cuts", "9,18")
    assert sca(result) == "1.000" and result.stdout.startswith("a.mp4: 27 frames at 8 per second, 48 by 32 pixels\n\nscene ")
    assert "2 of 2 cuts found" in result.stdout and "PySceneDetect" in result.stdout
    assert max(map(len, result.stdout.splitlines())) <= 100
    assert [path.name for path in Path().iterdir()] == ["a.mp4"]


@pytest.mark.parametrize(
    "words",
    [
        ["--cuts", "9, 18"],
        ["--cuts", "9;18"],
        ["--lengths", "9,9,9"],
        ["--cuts", "1.125,2.25", "--seconds"],
        ["--lengths", "1.1,1.15,1.1", "--seconds"],
        ["--cuts", "cuts.txt"],
        ["--cuts", "cuts.json"],
        ["--cuts", "truth.json"],
        ["--lengths", "truth.json"],
        ["--lengths", "lengths.json"],
        ["--cuts", "run.json"],
    ],
    ids=" ".join,
)
def test_cuts_are_named_in_many_ways(words: list[str], command: Command) -> None:
    Path("cuts.txt").write_text("# by hand\n9  # the beach\n18\n")
    Path("cuts.json").write_text("[9, 18]")
    Path("truth.json").write_text('{"fps": 8, "cuts": [9, 18]}')
    Path("lengths.json").write_text('{"lengths": [9, 9, 9]}')
    Path("run.json").write_text(record(9, 9, 9))
    assert sca(command("check", "a.mp4", *words)) == "1.000"


def test_a_films_folder_says_what_was_asked(command: Command, video: Path) -> None:
    path = folder(video, 9, 9, 9)
    assert sca(command("check", path)) == sca(command("check", path / "film.mp4")) == "1.000"
    assert sca(command("check", path, "--cuts", "9")) == f"{math.exp(-0.5):.3f}"


def test_no_cut_may_be_asked_for(command: Command) -> None:
    result = command("check", "a.mp4", "--cuts", "none")
    assert sca(result) == sca(command("check", "a.mp4", "--lengths", 27)) == f"{math.exp(-2):.3f}"
    assert "no cut was asked for\nunwanted cuts: 9 in scene 1, 18 in scene 1\n" in result.stdout


def test_times_are_shown_as_they_are_given(command: Command) -> None:
    result = command("check", "a.mp4", "--cuts", "1,2.25", "--seconds")
    assert "1.00 s   1.12 s       +1" in result.stdout and "2.25 s" in result.stdout


def test_the_result_is_written(command: Command) -> None:
    result = command("check", "a.mp4", "--cuts", "8", "--json", "out/check.json")
    assert sca(result) == f"{math.exp(-14.5 / 27):.3f}" and result.stdout.endswith("Wrote out/check.json\n")
    found = FilmCheck.model_validate_json(Path("out/check.json").read_bytes())
    assert (found.pairs, found.extra, found.unwanted_scenes) == (((8, 9),), (18,), (2,))
    assert "exists already" in the_error(command("check", "a.mp4", "--cuts", "9,18", "--json", "out/check.json"))
    assert sca(command("check", "a.mp4", "--cuts", "9,18", "--json", "out/check.json", "--overwrite")) == "1.000"
    assert FilmCheck.model_validate_json(Path("out/check.json").read_bytes()).sca == 1


def test_too_low_is_an_exit_status(command: Command) -> None:
    result = command("check", "a.mp4", "--cuts", "8,18", "--at-least", 0.99, "--json", "check.json")
    assert (result.exit_code, result.stderr) == (1, f"SCA {math.exp(-1 / 27):.4f} is below 0.99\n")
    assert "SCA 0.964" in result.stdout and Path("check.json").exists()
    assert command("check", "a.mp4", "--cuts", "8,18", "--at-least", 0.96).exit_code == 0
    assert command("check", "a.mp4", "--cuts", "9,18", "--at-least", 1).exit_code == 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["absent.mp4", "--cuts", "9"], "absent.mp4: there is no such file, expected a video or a film's folder"),
        (["x" * 300, "--cuts", "9"], "there is no such file"),
        ([".", "--cuts", "9"], ".: holds no film.mp4, expected a finished film"),
        (["a.mp4"], "a.mp4: got no cuts to compare with, expected --cuts or --lengths"),
        (["text.mp4", "--cuts", "9"], "text.mp4: cannot be read as a video"),
        (["a.mp4", "--cuts", "9,18", "--lengths", "9,9,9"], "check: got both --cuts and --lengths"),
        (["a.mp4", "--cuts", "9,27"], "cuts: got 27, but the film's 27 frames are counted from 0 to 26"),
        (["a.mp4", "--cuts", "18,9"], "--cuts: got 18, 9, expected first frames of scenes, counted from 0 and rising"),
        (["a.mp4", "--cuts", "9,9"], "--cuts: got 9, 9, expected"),
        (["a.mp4", "--cuts", "0,9"], "--cuts: got 0, 9, expected"),
        (["a.mp4", "--cuts", "9.5"], "--cuts: got 9.5, expected"),
        (["a.mp4", "--cuts", "1e300"], "--cuts: got 1e300, expected"),
        (["a.mp4", "--cuts", "nan"], "--cuts: got 'nan', expected numbers with ',' between, or a file"),
        (["a.mp4", "--cuts", ","], "--cuts: got nothing, expected"),
        (["a.mp4", "--cuts", "9,18", "--seconds"], "cuts: got 144, but"),
        (["a.mp4", "--lengths", "9,0,18"], "--lengths: got 9, 0, 18, expected the frames of every scene, at least 1"),
        (["a.mp4", "--lengths", "9,-9,27"], "--lengths: got 9, -9, 27, expected"),
        (["a.mp4", "--lengths", "9,9"], "--lengths: got 18 frames in all, but the film has 27"),
        (["a.mp4", "--lengths", "1,1", "--seconds"], "--lengths: got 16 frames in all, but the film has 27"),
        (["a.mp4", "--lengths", "none"], "--lengths: got 'none', expected numbers"),
        (["a.mp4", "--cuts", "absent.txt"], "--cuts: got 'absent.txt', expected numbers with ',' between, or a file"),
        (["a.mp4", "--cuts", "x" * 300], "expected numbers with ',' between"),
        (["a.mp4", "--cuts", "words.txt"], "--cuts words.txt: got nine, expected"),
        (["a.mp4", "--cuts", "a.mp4"], "a.mp4: cannot be read (it is no text)"),
        (["a.mp4", "--cuts", "broken.json"], "broken.json: cannot be read as JSON"),
        (["a.mp4", "--cuts", "number.json"], "--cuts number.json: expected a list of numbers"),
        (["a.mp4", "--cuts", "true.json"], "--cuts true.json: got True, expected"),
        (["a.mp4", "--cuts", "board.json"], "board.json: expected the record of a film with its scenes"),
        (["a.mp4", "--cuts", "9", "--at-least", "2"], "--at-least"),
        (["a.mp4", "--cuts", "9", "--json", "."], "is a folder, expected a file to write"),
    ],
    ids=lambda value: " ".join(value)[:60] if isinstance(value, list) else "",
)
def test_mistakes_are_one_line(words: list[str], message: str, command: Command) -> None:
    files = {"text.mp4": "text", "words.txt": "nine", "broken.json": "[9,", "number.json": "9", "true.json": "[true]"}
    for name, text in {**files, "board.json": '{"scenes": [{"prompt": "a fox"}]}'}.items():
        Path(name).write_text(text)
    assert message in the_error(command("check", *words))
    assert len(list(Path().iterdir())) == len(files) + 2


def test_mistakes_about_a_films_folder(command: Command, video: Path) -> None:
    path = folder(video, 9, 9)
    assert f"{path / 'run.json'}: got 18 frames in all, but the film has 27" in the_error(command("check", path))
    assert "--seconds: got no times" in the_error(command("check", path, "--seconds"))
    assert "counts in frames" in the_error(command("check", video, "--lengths", path / "run.json", "--seconds"))
    (path / "run.json").write_text("{}")
    assert "run.json: expected the record of a film with its scenes" in the_error(command("check", path))
    (path / "run.json").unlink()
    assert "film: got no cuts to compare with" in the_error(command("check", path))
    (path / "film.mp4").unlink()
    assert "film: holds no film.mp4, expected a finished film" in the_error(command("check", path))
