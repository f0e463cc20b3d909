"""The command as a whole and its small subcommands; one real process per kind of exit."""

import json
import os
import re
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure
from typer.testing import Result

from mask2dit import __version__
from mask2dit.cli.main import app
from mask2dit.errors import InputError
from mask2dit.playhouse.captions import unknown_words
from mask2dit.storyboard import Storyboard

RUN = [sys.executable, "-c", "from mask2dit.cli.main import main; main()"]
Command = Callable[..., Result]
STORY = "a red fox walks; the fox jumps; a bear sleeps"


def run(*words: object, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*RUN, *map(str, words)], cwd=folder, capture_output=True, text=True, timeout=300, env={**os.environ, "COLUMNS": "100"}
    )


def test_without_arguments_it_says_what_to_type(command: Command) -> None:
    result = command()
    assert result.exit_code == 0
    assert "mask2dit generate" in result.stdout and "mask2dit storyboard --random" in result.stdout and len(result.stdout.splitlines()) < 12


def test_version(command: Command) -> None:
    result = command("--version")
    assert (result.exit_code, result.stdout) == (0, f"mask2dit {__version__}\n")


@pytest.mark.parametrize("words", [["paint"], ["--paint"], ["words", "more"]])
def test_unknown_commands_are_one_line(words: list[str], command: Command) -> None:
    result = command(*words)
    assert result.exit_code == 2
    assert result.stderr.startswith("error: ") and result.stderr.count("\n") == 1 and "mask2dit --help" in result.stderr


TOGETHER = ("generate", "remake", "insert", "extend", "train")


@pytest.mark.parametrize("name", [each.name for each in app.registered_commands if each.name not in TOGETHER])
def test_one_process_is_enough_for_all_other_commands(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also those that would do no harm: refused before their options are looked at."""
    said = {"RANK": 0, "WORLD_SIZE": 2, "LOCAL_RANK": 0, "LOCAL_WORLD_SIZE": 2, "MASTER_ADDR": "localhost"}
    for each, value in said.items():
        monkeypatch.setenv(each, str(value))
    (command,) = [each.callback for each in app.registered_commands if each.name == name]
    with pytest.raises(InputError, match="got 2 processes, expected one for this command; torchrun is for generate"):
        command()  # type: ignore[misc]


def test_a_mistake_is_told_to_torchrun(command: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """In the file that it reads, as it takes it to pieces."""
    monkeypatch.setenv("TORCHELASTIC_ERROR_FILE", str(tmp_path / "error.json"))
    for words in (["check", "absent.mp4"], ["words", "--paint"]):
        line = command(*words).stderr
        failure = ProcessFailure(local_rank=0, pid=1, exitcode=2, error_file=str(tmp_path / "error.json"))
        last = str(ChildFailedError("mask2dit", {0: failure})).splitlines()[-2]
        assert line.startswith("error: ") and last == f"  traceback : {line.removeprefix('error: ').strip()}"
        assert abs(failure.timestamp - time.time()) < 60
    monkeypatch.setenv("TORCHELASTIC_ERROR_FILE", str(tmp_path / "absent" / "error.json"))
    assert command("words", "--paint").exit_code == 2


def test_help_is_quick_and_needs_no_torch(tmp_path: Path) -> None:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    result = run("--help", folder=tmp_path)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert result.returncode == 0 and all(name in result.stdout for name in ("generate", "doctor", "storyboard", "words", "--version"))
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 1.0  # seconds of work, whatever else the machine does


@pytest.mark.parametrize(
    "words",
    [
        ["--help"],
        ["generate", "--help"],
        ["generate", "absent.yaml"],
        ["doctor", "--help"],
        ["doctor", "absent.yaml"],
        ["remake", "--help"],
        ["extend", "--help"],
        ["words"],
        ["storyboard", "--random"],
        ["storyboard", "absent.yaml"],
        [],
    ],
    ids=" ".join,
)
def test_light_commands_do_not_import_torch(words: list[str], tmp_path: Path) -> None:
    code = f"import sys; from mask2dit.cli.main import app; app({words}, standalone_mode=False); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, timeout=60).returncode == 0


def test_a_real_mistake(tmp_path: Path) -> None:
    result = run("generate", "absent.yaml", folder=tmp_path)
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr.startswith("error: absent.yaml: ") and result.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a_real_film_and_a_real_full_disk(model_folder: Path, tmp_path: Path) -> None:
    words = ("generate", STORY, "-o", "fox", "--model", model_folder, "--frames", 1, "--display-scale", 64)
    limit = (
        "import resource, signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN); "
        "resource.setrlimit(resource.RLIMIT_FSIZE, (48000, 48000)); "
    )
    full = subprocess.run([RUN[0], "-c", limit + RUN[2], *map(str, words)], cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert full.returncode == 1 and "Traceback" not in full.stderr
    last = full.stderr.splitlines()[-1]
    assert last.startswith("error: fox/") and "File too large" in last and "latents of scenes 1 to 3" in last
    fine = run(*words, folder=tmp_path)
    assert fine.returncode == 0 and "denoising" not in fine.stderr


@pytest.mark.slow
def test_a_real_control_c(model_folder: Path, tmp_path: Path) -> None:
    words = ["generate", STORY, "-o", "fox", "--model", str(model_folder), "--steps", "900", "--display-scale", "1"]

    def as_in_a_terminal() -> None:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # a runner in the background may have it ignored

    process = subprocess.Popen([*RUN, *words], cwd=tmp_path, stderr=subprocess.PIPE, text=True, preexec_fn=as_in_a_terminal)
    record = tmp_path / "fox" / "run.json"
    while process.poll() is None and not (record.exists() and json.loads(record.read_text())["stage"] == "denoising"):
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 130
    last = errors.splitlines()[-1]
    assert (last.startswith("interrupted while denoising; in fox: ") and "no scene yet" in last) or (
        "goes on" in last and "Traceback" not in errors
    )
    assert json.loads(record.read_text())["status"] == "interrupted"


@pytest.mark.parametrize("style", ["self-contained", "by-reference"])
def test_random_storyboards_are_in_the_models_words(style: str, command: Command) -> None:
    result = command("storyboard", "--random", "--seed", 5, "--scenes", 4, "--style", style)
    assert result.exit_code == 0
    Path("a.yaml").write_text(result.stdout)
    board = Storyboard.read("a.yaml")
    assert len(board.scenes) == 4 and [word for caption in board.captions for word in unknown_words(caption)] == []
    assert command("storyboard", "--random", "--seed", 5, "--scenes", 4, "--style", style).stdout == result.stdout


def test_a_random_storyboard_is_written_once(command: Command) -> None:
    result = command("storyboard", "--random", "-o", "story.yaml")
    assert result.exit_code == 0 and "mask2dit generate story.yaml" in result.stdout
    before = Path("story.yaml").read_text()
    again = command("storyboard", "--random", "-o", "story.yaml")
    assert (again.exit_code, Path("story.yaml").read_text()) == (2, before)
    assert "exists already" in again.stderr


def test_a_storyboard_is_checked(command: Command) -> None:
    Path("story.yaml").write_text("characters: {Actor1: a red fox}\nscenes: [{prompt: Actor1 jumps}, {prompt: Actor1 yodels}]")
    result = command("storyboard", "story.yaml")
    assert result.exit_code == 0
    assert "1. Actor1 (a red fox) jumps" in result.stdout and re.search("does not know: yodels$", result.stdout, re.M)
    Path("story.yaml").write_text("scenes: []")
    result = command("storyboard", "story.yaml")
    assert result.exit_code == 2 and result.stderr.startswith("error: story.yaml: scenes: got an empty list")


@pytest.mark.parametrize(
    "words",
    [[], ["story.yaml", "--random"], ["--random", "--scenes", "0"], ["--random", "--seed", "-1"], ["--random", "--style", "loud"]],
    ids=str,
)
def test_mistakes_with_storyboards_are_one_line(words: list[str], command: Command) -> None:
    result = command("storyboard", *words)
    assert result.exit_code == 2 and result.stderr.startswith("error: ") and result.stderr.count("\n") == 1


def test_words_are_listed(command: Command) -> None:
    result = command("words")
    assert result.exit_code == 0
    for word in ("fox", "purple", "snowfield", "sunset", "walks left"):
        assert word in result.stdout
