"""`mask2dit remake`, `insert`, `skip` and `extend`: what they change, what they leave alone, what they say."""

import json
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from mask2dit.cli.main import app
from mask2dit.storyboard import Storyboard
from mask2dit.video_files import read_video, write_video
from production.filming import files_in

Command = Callable[..., Result]
STORY = "a red fox walks; the fox jumps; a bear sleeps"


@pytest.fixture(scope="module")
def made(model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("films") / "my fox"
    words = ["generate", STORY, "-o", folder, "--model", model_folder, "--frames", 5, "--display-scale", 1]
    assert CliRunner().invoke(app, [str(word) for word in words]).exit_code == 0
    return folder


@pytest.fixture
def film(command: Command, made: Path) -> Path:
    """A copy of a film to go on with, in the folder that the commands run in."""
    return shutil.copytree(made, Path("my fox"))


def takes(folder: Path) -> list[int]:
    return [scene["take"] for scene in json.loads((folder / "run.json").read_text())["scenes"]]


def test_a_scene_again_with_a_new_prompt(command: Command, film: Path) -> None:
    before = files_in(film / "scenes")
    result = command("remake", film, "--scene", 2, "--prompt", "the fox spins", "--seed", 4)
    assert result.exit_code == 0, result.output
    assert (
        "scene 2: is made again: another caption, seed 0 → 4" in result.stderr
        and "make scene 2, with scenes 1 and 3 known" in result.stderr
    )
    now = files_in(film / "scenes")
    assert {name for name in now if now[name] != before[name]} == {"scene-02.mp4"} and takes(film) == [1, 2, 1]
    scene = Storyboard.read(film / "storyboard.yaml").scenes[1]
    assert (scene.prompt, scene.seed) == ("the fox spins", 4)


def test_takes_are_laid_side_by_side_and_chosen(command: Command, film: Path) -> None:
    result = command("remake", film, "--scene", 3, "--seeds", 2)
    assert result.exit_code == 0, result.output
    assert (
        "Made takes 2, 3 of scene 3" in result.stdout and (film / "takes" / "scene-03" / "takes.png").exists() and takes(film) == [1, 1, 1]
    )
    choose = [line.split("#")[0].strip() for line in result.stdout.splitlines() if line.startswith("  mask2dit remake ")]
    chosen = command(*shlex.split(choose[1])[1:])
    assert chosen.exit_code == 0 and "loading" not in chosen.stderr and takes(film) == [1, 1, 3]


def test_scenes_come_go_and_return(command: Command, film: Path) -> None:
    assert command("insert", film, "--after", 1, "--prompt", "an owl", "--prompt", "a fish").exit_code == 0
    assert len(read_video(film / "film.mp4")) == 25
    assert "loading" not in command("skip", film, "--scene", 2).stderr and len(read_video(film / "film.mp4")) == 20
    assert command("skip", film, "--scene", 2, "--back").exit_code == 0 and len(read_video(film / "film.mp4")) == 25
    result = command("extend", film, "--prompt", "a robot")
    assert "make scene 6, with scenes 4 and 5 known" in result.stderr and len(read_video(film / "film.mp4")) == 30
    dry = command("remake", film, "--scene", 1, "--dry-run")
    assert dry.stdout.splitlines()[-1] == "  1. make scene 1, with scenes 2 and 3 known" and takes(film) == [1] * 6


MISTAKES = [
    ("remake FILM --scene 9", "--scene: got 9, expected a scene of my fox from 1 to 3"),
    ("remake FILM --scene 0", "--scene: got 0"),
    ("remake FILM", "--scene"),
    ("remake FILM --scene 1 --take 7", "--take: got 7, expected a take of scene 1 (1)"),
    ("remake FILM --scene 1 --take 1 --seed 3", "--take: got it with --seed"),
    ("remake FILM --scene 1 --seeds 2 --seed 3", "--seeds: got it with --seed"),
    ("remake FILM --scene 1 --prompt ' '", "scene 1, prompt: got an empty text"),
    ("insert FILM --after 4 --prompt x", "--after: got 4"),
    ("extend FILM --prompt x --seed 5", "--seed: is for a video"),
    ("extend FILM --prompt x --inp", "--inp: is for a video"),
    ("extend nowhere --prompt x", "nowhere: there is no such file"),
    ("skip FILM --scene 4", "--scene: got 4"),
    ("remake nowhere --scene 1", "nowhere: holds no run.json, expected a film folder"),
    ("extend FILM --prompt x --steps 3", "--steps: is for a video"),
    ("extend nothing.mp4 --prompt x --captions y", "nothing.mp4: there is no such file"),
]


@pytest.mark.parametrize(("words", "message"), MISTAKES, ids=[words for words, _ in MISTAKES])
def test_mistakes_are_one_line_and_change_nothing(words: str, message: str, command: Command, film: Path) -> None:
    before = files_in(film)
    result = command(*[str(film) if word == "FILM" else word for word in shlex.split(words)])
    line = result.stderr.splitlines()[-1]
    assert result.exit_code == 2 and line.startswith("error: ") and message in line and "Traceback" not in result.output
    assert files_in(film) == before


def test_a_skipped_scene_is_not_remade_and_takes_are_those_of_the_film(command: Command, film: Path) -> None:
    command("skip", film, "--scene", 2)
    for words in (["--seed", "4"], ["--seeds", "2"]):
        assert "scene 2: is skipped" in command("remake", film, "--scene", 2, *words).stderr
    board = film / "storyboard.yaml"
    board.write_text(board.read_text().replace("a bear", "an owl"))
    assert "has changed since the film was made" in command("remake", film, "--scene", 1, "--take", 1).stderr


def test_a_model_in_a_folder_is_found_from_anywhere(
    command: Command, model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("model").symlink_to(model_folder)
    assert command("generate", "a fox", "-o", "fox", "--model", "model", "--frames", 1, "--display-scale", 1).exit_code == 0
    film = Path("fox").resolve()
    monkeypatch.chdir(tmp_path)
    assert command("remake", film, "--scene", 1).exit_code == 0


def test_all_scenes_cannot_be_skipped(command: Command, film: Path) -> None:
    for number in (1, 2):
        assert command("skip", film, "--scene", number).exit_code == 0
    result = command("skip", film, "--scene", 3)
    assert result.exit_code == 2 and "scenes: all are skipped, expected at least one to show" in result.stderr


# Footage that was not made here


def footage(path: Path, colours: list[int], fps: int = 12, size: tuple[int, int] = (48, 60), count: int = 12) -> Path:
    frames = [np.full((*size, 3), colour, np.uint8) for colour in colours for _ in range(count)]
    write_video(path, frames, fps)
    return path


def test_a_video_goes_on(command: Command, model_folder: Path) -> None:
    video = footage(Path("walk.mp4"), [40, 200])
    result = command("extend", video, "--captions", "a fox; a bear", "--prompt", "an owl", "--model", model_folder, "--display-scale", 1)
    assert result.exit_code == 0, result.output
    folder = Path("films/walk")
    assert [len(read_video(folder / "scenes" / f"scene-0{number}.mp4")) for number in (1, 2, 3)] == [5, 5, 9]
    assert "denoising scene 3 (2)" in result.stderr and "denoising scene 1" not in result.stderr
    assert (
        abs(read_video(folder / "scenes/scene-01.mp4").mean() - 40) < 4 and abs(read_video(folder / "scenes/scene-02.mp4").mean() - 200) < 4
    )
    again = command("extend", folder, "--prompt", "a fish")
    assert again.exit_code == 0 and len(read_video(folder / "film.mp4")) == 28
    assert "Nothing changed" in command("generate", folder).stdout


@pytest.mark.parametrize(
    ("colours", "options", "message"),
    [
        ([90], "--captions 'a;b'", "--captions: got 2, expected 1, one for each scene of the video (0.00 to 1.00 s)"),
        ([40, 200], "--captions a", "--captions: got 1, expected 2, one for each scene of the video (0.00 to 1.00 s; 1.00 to 2.00 s)"),
        ([90], "--captions a --cuts 7", "--cuts: got 7, expected rising times inside the video's 1.00 s"),
        ([90], "--captions a --cuts x", "--cuts: got 'x', expected seconds"),
        ([90], "--captions a --cuts nan", "--cuts: got 'nan', expected seconds"),
        ([90], "", "--captions: got none"),
        ([90], "--captions a --height 17", "height: got 17"),
    ],
)
def test_mistakes_with_footage_are_one_line(colours: list[int], options: str, message: str, command: Command, model_folder: Path) -> None:
    video = footage(Path("walk.mp4"), colours)
    result = command("extend", video, "--prompt", "an owl", "--model", model_folder, *shlex.split(options))
    line = result.stderr.splitlines()[-1]
    assert result.exit_code == 2 and line.startswith("error: ") and message in line, result.output
    assert not Path("films").exists()


def test_footage_without_cuts_is_one_scene(command: Command, model_folder: Path) -> None:
    video = footage(Path("walk.mp4"), [90], fps=30, count=90)
    result = command("extend", video, "--captions", "a fox", "--prompt", "an owl", "--model", model_folder, "--display-scale", 1)
    assert result.exit_code == 0 and "note: scene 1: 9 of 24 frames are taken, its end" in result.stderr
