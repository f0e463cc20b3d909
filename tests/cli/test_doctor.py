"""`mask2dit doctor`: a report and an exit status, or one clear line; nothing is made either way."""

import shlex
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import Result

Command = Callable[..., Result]
STORY = "a red fox walks; the fox jumps; a bear sleeps"
NAMES = ("film", "size", "steps", "at once", "tokens", "captions", "model", "device", "memory", "time")


@pytest.fixture(autouse=True)
def brief(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Speed is measured in a moment, and the Hub's cache is empty."""
    monkeypatch.setattr("mask2dit.production.speed.LONG_ENOUGH", 1e-4)
    monkeypatch.setattr("mask2dit.production.speed.ROUNDS", 1)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))


def the_error(result: Result) -> str:
    assert result.exit_code == 2, result.output
    assert result.stdout == "" and result.stderr.count("\n") == 1 and result.stderr.startswith("error: ")
    return result.stderr


def suggested(result: Result) -> list[str]:
    """The command at the end of the report."""
    return shlex.split(result.stdout.splitlines()[-1])[1:]


def test_the_report_leads_to_the_film(command: Command, model_folder: Path) -> None:
    options = ("--model", model_folder, "--steps", 1, "--frames", 1, "--guidance", 2, "--negative-prompt", "a bear", "--device", "cpu")
    result = command("doctor", STORY, *options)
    assert result.exit_code == 0 and result.stderr == "", result.output
    lines = result.stdout.splitlines()
    assert [name for name in NAMES if not any(line.startswith(f"{name} ") for line in lines)] == []
    assert lines[-3].startswith("It fits, and computes for about ") and lines[-2] == "Make it:"
    assert list(Path().iterdir()) == []
    made = command(*suggested(result), "--display-scale", 1)
    assert made.exit_code == 0 and "Made in" in made.stdout, made.output


def test_a_file_is_read_as_generate_reads_it(command: Command, model_folder: Path) -> None:
    Path("story.yaml").write_text("title: T\nscenes: [{prompt: a fox, num_frames: 5}, {prompt: a bear, num_frames: 1}]")
    result = command("doctor", "story.yaml", "--model", model_folder)
    assert result.exit_code == 0 and "  scene 1          5 frames" in result.stdout
    assert suggested(result) == ["generate", "story.yaml", "--model", str(model_folder)]


def test_problems_are_lines_and_an_exit_status(command: Command, model_folder: Path) -> None:
    long = "fox " * 70
    result = command("doctor", f"{long}; a fox; {long}", "--model", model_folder, "--frames", 1)
    problems = [line for line in result.stdout.splitlines() if line.startswith("problem: ")]
    assert result.exit_code == 1 and [line[:24] for line in problems] == ["problem: scene 1, prompt", "problem: scene 3, prompt"]
    assert "It fits, but 2 problems must be put right first." in result.stdout
    assert list(Path().iterdir()) == []


def test_what_does_not_fit_is_a_problem(command: Command, model_folder: Path) -> None:
    result = command("doctor", STORY, "--model", model_folder, "--frames", 1, "--memory", "100MiB")
    assert result.exit_code == 1 and "problem: memory: got 100 MiB, expected at least " in result.stdout
    assert result.stdout.splitlines()[-1].startswith("It does not fit: ") and "mask2dit generate" not in result.stdout
    refused = command("generate", STORY, "--model", model_folder, "--frames", 1, "--memory", "100MiB")
    told = next(line for line in result.stdout.splitlines() if line.startswith("problem: "))
    assert refused.stderr == told.replace("problem: ", "error: ") + "\n"  # in the same words


def test_a_plan_is_counted_and_goes_into_the_command(command: Command, model_folder: Path) -> None:
    result = command("doctor", f"{STORY}; an owl", "--model", model_folder, "--frames", 1, "--plan", "context-blind")
    assert result.exit_code == 0 and "kept between steps: known scenes" in result.stdout and "context-blind" in result.stdout, result.output
    assert suggested(result)[-2:] == ["--plan", "context-blind"]


def test_a_smaller_window_is_more_calls(command: Command, model_folder: Path) -> None:
    result = command("doctor", STORY, "--model", model_folder, "--frames", 1, "--window", 1)
    assert "note: each scene is made by itself, and knows no others" in result.stdout and "the model was trained on up to" in result.stdout
    assert "--window 1" in result.stdout.splitlines()[-1]


def test_notes_leave_the_exit_status_alone(command: Command) -> None:
    result = command("doctor", "a red fox jumps; the blue fox yodels; a wombat; a bear sleeps", "--frames", 1)
    notes = [line for line in result.stdout.splitlines() if line.startswith("note: ")]
    assert result.exit_code == 0 and notes == [
        "note: 3 scenes are made jointly, and each further one with 2 known",
        "note: the fox is described in 2 ways: 'a red fox' in scene 1, 'the blue fox' in scene 2",
        "note: scene 2: the built-in model does not know: yodels; `mask2dit words` lists what it knows",
        "note: scene 3: the built-in model does not know: wombat; `mask2dit words` lists what it knows",
    ]


def test_a_model_that_is_not_there_is_counted_and_not_fetched(command: Command, tmp_path: Path) -> None:
    small = ("--frames", 1, "--height", 48, "--width", 48, "--memory", "12GiB", "--device", "cpu")
    result = command("doctor", STORY, "--model", "qth/Mask2DiT", *small)
    assert result.exit_code == 0, result.output
    assert "note: qth/Mask2DiT is not downloaded: counted with its published sizes" in result.stdout
    assert "text encoder let go" in result.stdout and "in bfloat16" in result.stdout
    assert suggested(result)[-6:] == ["--model", "qth/Mask2DiT", "--memory", "12GiB", "--device", "cpu"]
    assert not (tmp_path / "hub").exists()


MISTAKES = [
    ("--model nowhere", "nowhere: no such folder"),
    ("--model somebody/films", "somebody/films: not downloaded, or not all of it"),
    ("--model somebody/films --offline", "somebody/films: not in the cache at "),
    ("--model qth/Mask2DiT --offline", "qth/Mask2DiT: not in the cache at "),
    ("--revision main", "revision: got 'main' with the built-in model"),
    ("--inp", "leave out --inp"),
    ("--memory lots", "--memory: got 'lots', expected a size such as 12GiB"),
    ("--memory 0GiB", "--memory: got '0GiB'"),
    ("--weights heavy", "--weights: got 'heavy', expected plain, bf16, fp8-storage, fp8 or int8"),
    ("--device toaster", "--device: got 'toaster'"),
    ("--dtype int8", "--dtype: got 'int8'"),
    ("--plan telepathy", "plan: got 'telepathy', expected one of isolated, symmetric"),
    ("--guidance-interval 0-0.5 --guidance 0.5", "guidance interval: got 0-0.5 and no scene with guidance above 1"),
    ("--steps 0", "--steps"),
    ("--steps 2000", "num_inference_steps: got 2000, expected 1 to 1000"),
    ("--guidance nan", "guidance scale: got nan"),
    ("--height 17", "height: got 17"),
    ("--frames 10", "take 9 or 13"),
]


@pytest.mark.parametrize(("options", "words"), MISTAKES, ids=[options for options, _ in MISTAKES])
def test_mistakes_in_options_are_one_line(options: str, words: str, command: Command) -> None:
    assert words in the_error(command("doctor", STORY, *options.split()))


def test_what_is_no_storyboard(command: Command, model_folder: Path) -> None:
    assert "there is no such file" in the_error(command("doctor", "absent.yaml"))
    assert "at least one scene" in the_error(command("doctor", " ; "))
    assert "Missing argument" in the_error(command("doctor"))
    Path("story.yaml").write_text("scenes: [{prompt: a, guidance_scale: -1}]")
    assert the_error(command("doctor", "story.yaml")).startswith("error: story.yaml: scene 1, guidance_scale: got -1")


@pytest.mark.parametrize("damage", ["no index", "cut short", "other sizes"])
def test_a_broken_model_is_one_line(damage: str, command: Command, model_folder: Path, tmp_path: Path) -> None:
    broken = shutil.copytree(model_folder, tmp_path / "broken")
    weights = next((broken / "transformer").glob("*.safetensors"))
    if damage == "no index":
        (broken / "model_index.json").unlink()
    elif damage == "cut short":
        weights.write_bytes(weights.read_bytes()[:-100])
    else:
        config = broken / "transformer" / "config.json"
        config.write_text(config.read_text().replace('"num_layers": 3', '"num_layers": 4'))
    assert str(broken) in the_error(command("doctor", STORY, "--model", broken))
