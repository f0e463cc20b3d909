"""`mask2dit batch`: every film that can be made, a table, and nothing made twice."""

import json
import os
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
import torch
from typer.testing import Result

from mask2dit import loading
from mask2dit.video_shape import Compression, VideoShape
from production.filming import files_in

Command = Callable[..., Result]
FOX = "title: The fox\nscenes: [{prompt: a red fox walks}, {prompt: the fox jumps}]\n"
OWL = "scenes: [{prompt: an owl flies}]\n"


@pytest.fixture
def batch(command: Command, model_folder: Path) -> Command:
    """Run `mask2dit batch …` with the tiny model, small films, and two storyboards in `stories`."""
    Path("stories").mkdir()
    Path("stories/fox.yaml").write_text(FOX)
    Path("stories/owl.yaml").write_text(OWL)
    return lambda *words: command("batch", "--model", model_folder, "--display-scale", 1, "--frames", 1, *words)


def listed(key: str) -> dict[str, object]:
    return {film["name"]: film[key] for film in json.loads(Path("films/batch.json").read_text())["films"]}


def record(name: str) -> dict:
    return json.loads(Path("films", name, "run.json").read_text())


def test_a_bad_storyboard_does_not_stop_the_others(batch: Command) -> None:
    Path("stories/bad.yaml").write_text("scenes: [{prompt: a fox}, {promt: b}]")
    Path("stories/long.json").write_text(json.dumps({"scenes": [{"prompt": "fox " * 2500}]}))
    Path("films/owl").mkdir(parents=True)
    Path("films/owl/photo.jpg").write_bytes(b"sun")
    result = batch("stories")
    assert result.exit_code == 1
    assert listed("status") == {"bad": "failed", "fox": "made", "long": "failed", "owl": "failed"}
    rows = [line.split() for line in result.stdout.splitlines() if line.startswith(("bad ", "fox ", "long ", "owl "))]
    assert [row[:2] for row in rows] == [["bad", "failed"], ["fox", "made"], ["long", "failed"], ["owl", "failed"]]
    assert rows[1][2] == "SCA" and "1 made, 3 failed in " in result.stdout and Path("films/overview.png").exists()
    errors = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert errors[0].startswith("error: bad: stories/bad.yaml: scene 2: got the unknown key 'promt'")
    assert errors[1].startswith("error: long: stories/long.json: scene 1, prompt: got 2501 tokens")
    assert errors[2].startswith("error: owl: films/owl: ") and "--fresh" in errors[2] and len(errors) == 3
    assert Path("films/owl/photo.jpg").read_bytes() == b"sun" and "Traceback" not in result.output


@pytest.mark.slow
def test_variants_have_the_next_seeds_and_the_same_command_makes_nothing_again(batch: Command) -> None:
    Path("stories/owl.yaml").write_text("title: The owl\nscenes: [{prompt: an owl flies, seed: 4}]")
    words = ("stories", "--variants", 2, "--seed", 5)
    result = batch(*words)
    assert result.exit_code == 0, result.output
    assert [record(name)["scenes"][0]["inputs"]["seed"] for name in ("fox", "fox-variant-2", "owl")] == [5, 6, 4]
    assert listed("status")["owl-variant-2"] == "left out" and "3 made, 1 left out in " in result.stdout
    before = files_in(Path("films"))
    assert before["fox/film.mp4"] != before["fox-variant-2/film.mp4"]
    again = batch(*words)
    assert again.exit_code == 0 and "3 unchanged, 1 left out in " in again.stdout and "made in" not in again.output
    after = files_in(Path("films"))
    assert {name for name in before if before[name] != after[name]} == {"batch.json"}
    Path("stories/owl.yaml").write_text("title: The owl\nscenes: [{prompt: an owl sleeps, seed: 4}]")
    assert "1 made, 2 unchanged, 1 left out in " in batch(*words).stdout


@pytest.mark.slow
def test_a_film_of_a_batch_is_the_film_that_generate_makes(batch: Command, command: Command, model_folder: Path) -> None:
    assert batch("stories/owl.yaml", "--steps", 3, "--subtitles").exit_code == 0
    words = ("--model", model_folder, "--display-scale", 1, "--frames", 1, "--steps", 3, "--subtitles")
    assert "Nothing changed" in command("generate", "stories/owl.yaml", "-o", "films/owl", *words).stdout
    assert command("generate", "stories/owl.yaml", "-o", "other/owl", *words).exit_code == 0
    batch_film, film = files_in(Path("films/owl")), files_in(Path("other/owl"))
    assert {name for name in film if film[name] != batch_film[name]} == {"run.json"} and film.keys() == batch_film.keys()


def test_a_dry_run_writes_nothing(batch: Command) -> None:
    Path("stories/bad.yaml").write_text("scenes: []")
    result = batch("stories", "--dry-run")
    assert result.exit_code == 0 and not Path("films").exists()
    assert (
        "films/fox: 2 of 2 scenes to make" in result.stdout and "films/bad: failed: stories/bad.yaml: scenes: got an empty" in result.stdout
    )


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ("absent", "absent: there is no such file, expected a storyboard or a folder of them; check the name"),
        ("stories --height 17", "height: got 17, expected a multiple of 8 pixels; take 16 or 24"),
        ("stories --frames 10", "frames per scene: got 10 frames"),
        ("stories --variants 0", "--variants"),
        ("stories --seed 9223372036854775807 --variants 2", "seed: got 9223372036854775808"),
        ("stories --model nowhere", "nowhere: no such folder"),
        ("stories -o stories/fox.yaml", "stories/fox.yaml: is a file, expected a folder for the films"),
        ("stories -o film", "film: is a film's folder, expected one for the folders of films"),
        ("stories --workers 2", "--workers: got 2 without --ray, expected them together; add --ray"),
        ("stories --ray --device cuda:1", "--device: got 'cuda:1' with --ray"),
        ("", "Missing argument"),
    ],
)
def test_mistakes_of_the_command_are_one_line_and_write_nothing(words: str, line: str, batch: Command) -> None:
    Path("film").mkdir()
    Path("film/run.json").write_text("{}")
    result = batch(*words.split())
    errors = [each for each in result.stderr.splitlines() if each.startswith("error: ")]
    assert result.exit_code == 2 and line in errors[0] and "Traceback" not in result.output
    assert not Path("films").exists()


def test_without_ray_the_line_says_what_to_install(batch: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    Path("stories/bad.yaml").write_text("scenes: []")
    result = batch("stories", "--ray")
    assert result.exit_code == 2 and result.stderr.splitlines()[-1] == (
        "error: --ray: needs Ray, which is not installed; pip install 'mask2dit[ray]'"
    )
    assert not Path("films").exists()


@pytest.mark.slow
def test_control_c_ends_with_the_table_and_the_same_command_goes_on(batch: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    from mask2dit.production.making import _Making

    def stop(self: _Making) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(_Making, "_decode", stop)
        result = batch("stories")
    assert result.exit_code == 130
    assert result.stderr.splitlines()[-1] == "interrupted; 0 of 2 films are made; the same command goes on"
    assert listed("status") == {"fox": "interrupted", "owl": "not begun"} and "1 interrupted, 1 not begun in " in result.stdout
    result = batch("stories")
    assert result.exit_code == 0 and "2 made in " in result.stdout
    assert listed("denoising_steps") == {"fox": 0, "owl": 2}


def test_a_full_disk_ends_the_batch(batch: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    replace = os.replace

    def refuse(source: Path, target: Path) -> None:
        if Path(target).parts[-2:] == ("fox", "film.mp4"):
            raise OSError(28, "No space left on device")
        replace(source, target)

    monkeypatch.setattr("os.replace", refuse)
    result = batch("stories")
    assert result.exit_code == 1 and listed("status") == {"fox": "failed", "owl": "not begun"}
    assert "error: fox: films/fox/film.mp4: cannot be written (No space left on device)" in result.stderr


@pytest.mark.slow
def test_each_film_is_kept_in_memory_as_it_would_be_by_itself(batch: Command, model_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The large one goes first, with less kept; then the model is loaded once more, for the others."""
    monkeypatch.setattr(loading, "folder_needs", cache(loading.folder_needs))  # it counts for a second
    Path("stories/large.yaml").write_text("scenes: [{prompt: a whale, num_frames: 9}]")
    place = {"device": torch.device("cpu"), "dtype": torch.float32}
    shapes = [VideoShape(16, 24, frames, Compression(4, 4, 2)) for frames in ((1,), (9,))]
    (_, small), *_ = loading.choose_memory(model_folder, None, **place, shape=shapes[0]).ladder
    (_, whole), (_, large), *_ = loading.choose_memory(model_folder, None, **place, shape=shapes[1]).ladder
    limit = max(small, large) + 1
    assert limit < whole
    result = batch("stories/owl.yaml", "stories/large.yaml", "--memory", f"{limit / 2**20:.6f}MiB")
    assert result.exit_code == 0, result.output
    told = [line for line in result.stderr.splitlines() if line.startswith("memory: ")]
    assert ["text encoder let go" in line for line in told] == [True, False]
    assert [line.split(":")[0] for line in result.stderr.splitlines() if ": made in" in line] == ["1 of 2  large", "2 of 2  owl"]
