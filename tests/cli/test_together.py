"""Commands under torchrun: one film, whatever the number of processes; and what happens when one of them is gone."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

import team_failing
from production.filming import files_in

STORY = "a red fox walks; the fox jumps; a bear sleeps; an owl"
ALONE = [sys.executable, "-m", "mask2dit"]
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
TEAM = [*TORCHRUN, "-m", "mask2dit"]

pytestmark = pytest.mark.slow


def command(model: Path, name: str, *more: str) -> list[str]:
    return ["generate", STORY, "-o", name, "--model", str(model), "--frames", "1", "--display-scale", "1", *more]


def run(program: list[str], words: list[str], place: Path, **more: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"OMP_NUM_THREADS": "2"} | more  # not 1, which torchrun says by itself
    return subprocess.run([*program, *words], cwd=place, capture_output=True, text=True, timeout=300, env=environment)


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ((), "guidance branches side by side"),
        (("--steps", "10", "--step-cache", "first-block:1e9"), "guidance branches side by side"),
        (("--steps", "10", "--guidance", "1", "--step-cache", "pyramid"), "each sequence over 2 processes"),
    ],
)
def test_several_processes_make_one_film(more: tuple[str, ...], words: str, model_folder: Path, tmp_path: Path) -> None:
    """Files are those of one process to the byte, but for times; it is told how the work is shared out."""
    alone, team = (run(program, command(model_folder, name, *more), tmp_path) for program, name in ((ALONE, "alone"), (TEAM, "team")))
    assert (alone.returncode, team.returncode) == (0, 0), alone.stderr + team.stderr
    assert f"several devices: 2 processes: {words}" in team.stderr
    assert team.stdout.count("Made in ") == 1
    first, second = files_in(tmp_path / "alone"), files_in(tmp_path / "team")
    assert {name for name in first if first[name] != second.get(name)} == {"run.json"} and first.keys() == second.keys()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([*command(Path("nowhere"), "film")], "expected a model folder"),
        (["generate", "--paint"], "No such option: --paint"),
        (["train", "nowhere.yaml"], "nowhere.yaml: "),
        ([*command(Path("nowhere"), "film", "--device", "toaster")], "--device: got 'toaster'"),
        (["batch", "."], "several devices: got 2 processes, expected one for this command; torchrun is for generate"),
    ],
)
def test_mistakes_are_told_once(words: list[str], message: str, tmp_path: Path) -> None:
    """Also where the first process, which says it, is slow; what torchrun prints last says it again."""
    slow = tmp_path / "slow"
    slow.mkdir()
    (slow / "sitecustomize.py").write_text("import os, time\ntime.sleep(2 if os.environ.get('RANK') == '0' else 0)\n")
    ended = run(TEAM, words, tmp_path, PYTHONPATH=os.pathsep.join(filter(None, (str(slow), os.environ.get("PYTHONPATH")))))
    assert ended.returncode != 0
    lines = ended.stderr.splitlines()
    (own,) = [line for line in lines if line.startswith("error: ")]
    assert message in own and f"traceback : {own.removeprefix('error: ')}" in " ".join(lines), ended.stderr
    assert ended.stderr.count(message) == 2 and "To enable traceback" not in ended.stderr, ended.stderr
    assert list(tmp_path.iterdir()) == [slow]


@pytest.mark.parametrize("said", [{"WORLD_SIZE": "2"}, {"WORLD_SIZE": "2", "RANK": "1"}, {"WORLD_SIZE": "many", "LOCAL_WORLD_SIZE": "x"}])
def test_half_of_what_torchrun_says_is_other_peoples(said: dict[str, str], model_folder: Path, tmp_path: Path) -> None:
    ended = subprocess.run(
        [*ALONE, *command(model_folder, "film")], cwd=tmp_path, capture_output=True, text=True, env=os.environ | said, check=False
    )
    assert ended.returncode == 0 and "several devices" not in ended.stderr, ended.stderr


@pytest.mark.parametrize(
    ("where", "rank", "message"),
    [
        ("loading", 0, "error: out of memory while loading the model"),
        ("loading", 1, "error: several devices: process 1: out of memory while loading the model"),
        ("denoising", 0, "error: out of memory while denoising"),
        ("denoising", 1, "error: several devices: process 1 is out of memory"),
        ("mistaken", 1, "error: a mistake that process 1 alone meets"),
        ("crowded", 0, "error: memory: got 5 MiB, expected at least"),
        ("crowded", 1, "error: memory: got 5 MiB, expected at least"),
    ],
)
def test_whoever_fails_all_end_and_somebody_says_why(where: str, rank: int, message: str, model_folder: Path, tmp_path: Path) -> None:
    program = [*TORCHRUN, str(Path(team_failing.__file__)), where, str(rank)]
    began = time.monotonic()
    ended = run(program, command(model_folder, "film", "--weights", "fp8-storage"), tmp_path)
    assert ended.returncode != 0 and message in ended.stderr, ended.stderr
    assert time.monotonic() - began < 60


def test_who_is_told_to_end_says_so(model_folder: Path, tmp_path: Path) -> None:
    """As torchrun tells all when one has ended, and a cluster when time is up."""
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    words = command(model_folder, "film", "--steps", "400")
    process = subprocess.Popen([*TEAM, *words], cwd=tmp_path, stderr=subprocess.PIPE, text=True, env=environment)
    began = time.monotonic()
    while process.poll() is None and not (tmp_path / "film" / "latents" / "denoising.safetensors").exists():
        assert time.monotonic() - began < 120
        time.sleep(0.01)
    process.terminate()
    assert "told to end" in process.communicate(timeout=60)[1] and process.returncode != 0


def test_a_killed_process_ends_the_others_and_nothing_is_lost(model_folder: Path, tmp_path: Path) -> None:
    words = command(model_folder, "film", "--steps", "400")
    process = subprocess.Popen([*TEAM, *words], cwd=tmp_path, stderr=subprocess.PIPE, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
    made = tmp_path / "film" / "takes" / "scene-03" / "take-1.mp4"
    while process.poll() is None and not made.exists():
        time.sleep(0.01)
    (follower,) = [child for child in psutil.Process(process.pid).children(recursive=True) if child.environ().get("RANK") == "1"]
    follower.send_signal(signal.SIGKILL)
    said = process.communicate(timeout=120)[1]
    assert process.returncode != 0
    assert "another process ended before the film was made; its own message says why, or it was killed, as where memory runs out" in said
    assert "what is made is on disk, and the same command goes on from there" in said
    kept = files_in(tmp_path / "film" / "takes")
    assert kept

    again = run(ALONE, words, tmp_path)
    assert again.returncode == 0, again.stderr
    assert files_in(tmp_path / "film" / "takes").items() >= kept.items()
    assert json.loads((tmp_path / "film" / "run.json").read_text())["status"] == "complete"
