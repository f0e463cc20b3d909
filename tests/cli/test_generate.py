"""`mask2dit generate`: a film, or one clear line and nothing written."""

import json
import os
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import Result

from mask2dit.video_files import read_video

Command = Callable[..., Result]
STORY = "a red fox walks; the fox jumps; a bear sleeps"
FILES = ["contact_sheet.png", "film.edl", "film.mp4", "film.otio", "film.webp", "index.html", "latents", "run.json", "scenes"]
FILES += ["storyboard.yaml", "takes"]
EXAMPLE = Path(__file__).parents[2] / "storyboards" / "fox.yaml"


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def the_error(result, status: int = 2) -> str:
    """The one line of a failed command, after progress and notes."""
    assert result.exit_code == status, result.output
    lines = [line for line in result.stderr.splitlines() if line and not line.startswith(("note: ", "loading"))]
    assert len(lines) == 1 and "Traceback" not in result.output and result.stdout == ""
    return lines[0]


def test_text_becomes_a_film(command: Command, model_folder: Path) -> None:
    result = command("generate", STORY, "--model", model_folder, "--display-scale", 2)
    assert result.exit_code == 0, result.output
    folder = Path("films/a-red-fox-walks")
    assert names(folder) == FILES
    assert read_video(folder / "film.mp4").shape == (27, 32, 48, 3)
    for stage in ("loading", "encoding", "denoising (2)", "decoding (3)", "joining"):
        assert f"{stage}" in result.stderr
    assert "films/a-red-fox-walks" in result.stdout and "contact_sheet.png" in result.stdout
    assert result.stdout.count("  mask2dit ") == 3 and "SCA " in result.stdout and "detector: PySceneDetect" in result.stdout


def test_a_file_becomes_a_film(command: Command, model_folder: Path) -> None:
    result = command("generate", EXAMPLE, "-o", "films/fox", "--model", model_folder, "--display-scale", 1)
    assert result.exit_code == 0, result.output
    assert names(Path("films/fox")) == FILES
    assert result.stderr.count("note: ") == 0


def test_commands_to_try_next_work(command: Command, model_folder: Path) -> None:
    result = command("generate", STORY, "-o", "my films/fox", "--model", model_folder, "--display-scale", 1)
    suggested = [line.split("#")[0].strip() for line in result.stdout.splitlines() if line.startswith("  mask2dit ")]
    assert [shlex.split(line)[1] for line in suggested] == ["remake", "extend", "generate"]
    for line in suggested:
        words = shlex.split(line)[1:]
        again = command(*words, *(("--model", model_folder, "--display-scale", 1) if words[0] == "generate" else ()))
        assert again.exit_code == 0, again.output
    assert names(Path("my films")) == ["fox", "fox-seed-1"]
    assert len(json.loads(Path("my films/fox/run.json").read_text())["scenes"]) == 4


def test_options_reach_the_film(command: Command, model_folder: Path) -> None:
    numbers = {"steps": 3, "guidance": 1.5, "seed": 7, "height": 24, "width": 32, "frames": 1, "display-scale": 3}
    numbers |= {"solver": "dpm++", "guidance-interval": "0.0-0.5", "step-cache": "pyramid"}
    others = {"plan": "isolated", "dtype": "bfloat16", "device": "cpu", "negative-prompt": "a bear", "output": "fox", "model": model_folder}
    result = command("generate", STORY, *(word for name, value in (numbers | others).items() for word in (f"--{name}", value)))
    assert result.exit_code == 0, result.output
    record = json.loads(Path("fox/run.json").read_text())
    made_with, inputs = record["made_with"], [scene["inputs"] for scene in record["scenes"]]
    assert (made_with["num_inference_steps"], made_with["attention_plan"], record["display_scale"]) == (3, "isolated", 3)
    assert [(each["seed"], each["guidance_scale"], each["num_frames"]) for each in inputs] == [(7, 1.5, 1)] * 3
    assert (made_with["solver"], made_with["guidance_interval"], made_with["step_cache"]) == ("dpm++", [0.0, 0.5], "pyramid:2")
    assert made_with["model"] == record["asked"]["model"] == str(model_folder)
    assert read_video("fox/film.mp4").shape == (3, 72, 96, 3)


def test_five_scenes_are_the_window_and_two_extensions(command: Command, model_folder: Path) -> None:
    result = command("generate", "a;b;c;d;e", "--model", model_folder, "--frames", 1, "--display-scale", 1)
    assert result.exit_code == 0 and "note: " not in result.stderr
    assert "denoising scene 4 (2)" in result.stderr and "denoising scene 5 (2)" in result.stderr


def test_many_scenes_and_foreign_words_are_made(command: Command, model_folder: Path) -> None:
    story = ";".join(f"狐 🦊 {number}" for number in range(12))
    result = command("generate", story, "-o", "fox", "--model", model_folder, "--frames", 1, "--steps", 1, "--display-scale", 1)
    assert result.exit_code == 0, result.output
    assert len(names(Path("fox/scenes"))) == 12 and len(read_video("fox/film.mp4")) == 12


def test_the_same_command_says_that_the_film_is_made(command: Command, model_folder: Path) -> None:
    words = ("generate", STORY, "-o", "fox", "--model", model_folder, "--frames", 1, "--display-scale", 1)
    assert "Made in" in command(*words).stdout
    before = Path("fox/run.json").read_text()
    result = command(*words)
    assert "Nothing changed; nothing made" in result.stdout and "loading" not in result.stderr  # not even the model
    assert Path("fox/run.json").read_text() == before
    assert "Made in" in command(*words, "--fresh").stdout


def test_a_dry_run_says_what_and_why_and_writes_nothing(command: Command, model_folder: Path) -> None:
    words = ("--model", model_folder, "--frames", 1, "--display-scale", 1)
    first = command("generate", "a;b;c;d", "-o", "fox", *words, "--dry-run")
    assert first.stdout.splitlines() == [
        "fox: 4 of 4 scenes to make",
        *(f"  scene {number}: is new" for number in (1, 2, 3, 4)),
        "  1. make scenes 1 to 3 jointly",
        "  2. make scene 4, with scenes 2 and 3 known",
    ]
    assert names(Path()) == []
    command("generate", "a;b;c;d", "-o", "fox", *words)
    before = Path("fox/run.json").read_text()
    changed = command("generate", "a;x;c;d", "-o", "fox", *words, "--dry-run").stdout.splitlines()
    assert changed[0] == "fox: 1 of 4 scenes to make" and changed[2] == "  scene 2: is made again: another caption"
    assert changed[1] == "  scene 1: stays as it is (take 1)" and changed[-1] == "  1. make scene 2, with scenes 1 and 3 known"
    steps = command("generate", "a;b;c;d", "-o", "fox", *words, "--steps", 3, "--dry-run").stdout
    assert steps.count("is made again: num inference steps 2 → 3") == 4
    others = ("--solver", "unipc", "--guidance-interval", "0-0.5", "--step-cache", "first-block")
    cheaper = command("generate", "a;b;c;d", "-o", "fox", *words, *others, "--dry-run").stdout
    assert cheaper.count("is made again: another solver, another guidance interval, another step cache") == 4
    assert "nothing changed; nothing to make" in command("generate", "a;b;c;d", "-o", "fox", *words, "--dry-run").stdout
    assert Path("fox/run.json").read_text() == before


def test_a_folder_is_a_storyboard_with_its_options(command: Command, model_folder: Path) -> None:
    command("generate", STORY, "-o", "fox", "--model", model_folder, "--frames", 1, "--display-scale", 1, "--steps", 3)
    assert "Nothing changed" in command("generate", "fox").stdout
    board = Path("fox/storyboard.yaml")
    board.write_text(board.read_text().replace("the fox jumps", "the fox spins"))
    result = command("generate", "fox")
    assert "scene 2: is made again: another caption" in result.stderr and "denoising scene 2 (3)" in result.stderr
    assert [scene["take"] for scene in json.loads(Path("fox/run.json").read_text())["scenes"]] == [1, 2, 1]


def test_an_interval_goes_with_any_guided_scene_and_with_a_film_that_has_it(command: Command, model_folder: Path) -> None:
    story, interval = Path("story.yaml"), ("--guidance", 1, "--guidance-interval", "0-0.5")
    story.write_text("scenes: [{prompt: a fox, guidance_scale: 3}, {prompt: a bear}]")
    words = ("generate", story, "-o", "fox", "--model", model_folder, "--frames", 1, "--display-scale", 1, *interval)
    assert command(*words).exit_code == 0
    story.write_text("scenes: [{prompt: a fox}, {prompt: a bear}]")
    again = command(*words)
    assert again.exit_code == 0 and "Made in" in again.stdout, again.output


MISTAKES = [
    ("--steps 0", "--steps"),
    ("--steps abc", "--steps"),
    ("--steps 2000", "num_inference_steps: got 2000"),
    ("--guidance nan", "guidance scale: got nan"),
    ("--guidance -1", "guidance scale: got -1.0"),
    ("--seed -1", "--seed"),
    ("--seed 99999999999999999999", "seed: got 99999999999999999999"),
    ("--attention dense", "attention: got 'dense', expected auto, grouped, merged, flex"),
    ("--attention flex --device cpu", "attention: got flex on cpu, expected a CUDA device; use auto, merged or grouped"),
    ("--solver euler", "solver: got 'euler', expected ddim, dpm++, sde-dpm++, unipc"),
    ("--guidance-interval 0.5", "--guidance-interval: got '0.5', expected two shares"),
    ("--guidance-interval 0.5-0.1", "guidance interval: got 0.5-0.1, expected two shares"),
    (
        "--guidance-interval 0-0.5 --guidance 1",
        "guidance interval: got 0-0.5 and no scene with guidance above 1, expected one at least; raise",
    ),
    ("--step-cache magic", "step cache: got 'magic', expected first-block:0.05 or pyramid:2"),
    (
        "--step-cache pyramid --compile",
        "step cache: got pyramid:2 with compiled blocks, of which it would",
    ),
    ("--height 0", "--height"),
    ("--height 17", "height: got 17, expected a multiple of 8 pixels; take 16 or 24"),
    ("--width 100000001", "width: got 100000001"),
    ("--frames 10", "take 9 or 13"),
    ("--frames 0", "--frames"),
    ("--device toaster", "--device: got 'toaster'"),
    ("--dtype int8", "--dtype: got 'int8', expected float32, bfloat16 or float16"),
    ("--plan telepathy", "plan: got 'telepathy'"),
    ("--display-scale 0", "--display-scale"),
    ("--display-scale 1000", "display scale: got 1000"),
    ("--model nowhere", "nowhere: no such folder"),
    ("--unknown 3", "--unknown"),
]


@pytest.mark.parametrize(("options", "words"), MISTAKES, ids=[options for options, _ in MISTAKES])
def test_mistakes_in_options_are_one_line(options: str, words: str, command: Command, model_folder: Path) -> None:
    given = options.split()
    result = command("generate", STORY, *(() if "--model" in given else ("--model", model_folder)), *given)
    line = the_error(result)
    assert line.startswith("error: ") and words in line
    assert names(Path()) == []


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is empty"),
        (bytes(range(256)), "is not UTF-8"),
        (b"scenes: []", "at least one scene"),
        (b"scenes:\n  - promt: x", "scene 1: got the unknown key 'promt'"),
        (b"scenes:\n  - prompt: ''", "scene 1, prompt: got an empty text"),
        (b"scenes: [{prompt: a}, {prompt: b, num_frames: 10}]", "scene 2, num_frames: got 10"),
        (b"scenes: [{prompt: a, duration_seconds: -3}]", "scene 1, duration_seconds: got -3"),
        (b"scenes:\n  - prompt: " + b"fox " * 2500, "scene 1, prompt: got 2501 tokens"),
        (b"scenes: [", "line 1"),
    ],
)
def test_mistakes_in_a_file_name_file_and_place(content: bytes, words: str, command: Command, model_folder: Path) -> None:
    Path("story.yaml").write_bytes(content)
    line = the_error(command("generate", "story.yaml", "--model", model_folder))
    assert line.startswith("error: story.yaml: ") and words in line
    assert names(Path()) == ["story.yaml"]


def test_what_is_no_storyboard(command: Command, model_folder: Path) -> None:
    assert "there is no such file" in the_error(command("generate", "absent.yaml"))
    assert "is a folder" in the_error(command("generate", model_folder))
    assert "at least one scene" in the_error(command("generate", " ; "))
    assert "Missing argument" in the_error(command("generate"))
    line = the_error(command("generate", "fox " * 2500, "--model", model_folder))
    assert line.startswith("error: scene 1, prompt: got 2501 tokens") and len(line) < 300
    assert names(Path()) == []


def test_a_folder_with_other_things_is_left_alone(command: Command, model_folder: Path) -> None:
    Path("mine").mkdir()
    Path("mine/photo.jpg").write_bytes(b"sun")
    words = ("generate", STORY, "-o", "mine", "--model", model_folder, "--frames", 1, "--display-scale", 1)
    assert "--fresh" in the_error(command(*words))
    assert names(Path("mine")) == ["photo.jpg"]
    assert command(*words, "--fresh").exit_code == 0
    assert Path("mine/photo.jpg").read_bytes() == b"sun"


@pytest.mark.parametrize("damage", ["no index", "missing tensor", "cut short"])
def test_a_broken_model_is_one_line(damage: str, command: Command, model_folder: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    broken = shutil.copytree(model_folder, tmp_path / "broken")
    weights = next((broken / "transformer").glob("*.safetensors"))
    if damage == "no index":
        (broken / "model_index.json").unlink()
    elif damage == "missing tensor":
        tensors = load_file(weights)
        tensors.pop(sorted(tensors)[0])
        save_file(tensors, weights)
    else:
        weights.write_bytes(weights.read_bytes()[:-100])
    assert str(broken) in the_error(command("generate", STORY, "--model", broken))
    assert names(Path()) == []


def stop_at(stage: str, error: BaseException, monkeypatch: pytest.MonkeyPatch) -> None:
    """Raise `error` at the first step of a stage."""
    from mask2dit.cli.progress import Lines

    start = Lines.start

    def watch(self: Lines, name: str, total: int) -> None:
        start(self, name, total)
        if name == stage:
            raise error

    monkeypatch.setattr(Lines, "start", watch)


def test_control_c_says_what_is_on_disk(command: Command, model_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = ("generate", STORY, "-o", "fox", "--model", model_folder, "--frames", 1, "--display-scale", 1)
    with monkeypatch.context() as patch:
        stop_at("decoding", KeyboardInterrupt(), patch)
        result = command(*words)
    assert result.exit_code == 130
    last = result.stderr.splitlines()[-1]
    assert last.startswith("interrupted while decoding; in fox: latents of scenes 1 to 3; missing: ") and "the same command goes on" in last
    result = command(*words)
    assert result.exit_code == 0 and "denoising" not in result.stderr and names(Path("fox")) == FILES
    assert "every scene is made; the film is joined again" in result.stderr


def test_control_c_while_loading_leaves_nothing(command: Command, model_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stop_at("loading", KeyboardInterrupt(), monkeypatch)
    result = command("generate", STORY, "--model", model_folder)
    assert (result.exit_code, result.stderr.splitlines()[-1]) == (130, "interrupted; nothing was written")
    assert names(Path()) == []


def test_a_full_disk_is_one_line(command: Command, model_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    replace = os.replace

    def refuse(source: Path, target: Path) -> None:
        if Path(target).name == "film.mp4":
            raise OSError(28, "No space left on device")
        replace(source, target)

    monkeypatch.setattr("os.replace", refuse)
    result = command("generate", STORY, "-o", "fox", "--model", model_folder, "--frames", 1, "--display-scale", 1)
    assert result.exit_code == 1
    last = result.stderr.splitlines()[-1]
    assert last.startswith("error: fox/film.mp4: cannot be written (No space left on device)")
    assert "video of scenes 1 to 3; missing: film.mp4, contact_sheet.png, film.webp" in last
    assert len(names(Path("fox/scenes"))) == 3


def test_libraries_keep_quiet(command: Command, model_folder: Path) -> None:
    result = command("generate", STORY, "--model", model_folder, "--frames", 1, "--display-scale", 1)
    assert [line.split(":")[0].split(" ")[0] for line in result.stderr.splitlines()] == [
        "loading",
        "preview",
        "encoding",
        "denoising",
        "decoding",
        "joining",
    ]


def test_words_that_the_built_in_model_does_not_know_are_named(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    stop_at("loading", KeyboardInterrupt(), monkeypatch)
    result = command("generate", "a red fox meets a Wombat; a wombat 🦊 yodels")
    assert "note: the built-in model does not know: meets, wombat, 🦊, yodels; `mask2dit words`" in result.stderr
