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

from production.filming import files_in

STORY = "a red fox walks; the fox jumps; a bear sleeps; an owl"
ALONE = [sys.executable, "-m", "mask2dit"]
TEAM = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "mask2dit"]

pytestmark = pytest.mark.slow


def command(model: Path, name: str, *more: str) -> list[str]:
    return ["generate", STORY, "-o", name, "--model", str(model), "--frames", "1", "--display-scale", "1", *more]


def run(program: list[str], words: list[str], place: Path) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.run([*program, *words], cwd=place, capture_output=True, text=True, timeout=300, env=environment)


def test_several_processes_make_one_film(model_folder: Path, tmp_path: Path) -> None:
    """Files are those of one process to the byte, but for times; it is told how the work is shared out."""
    alone, team = (run(program, command(model_folder, name), tmp_path) for program, name in ((ALONE, "alone"), (TEAM, "team")))
    assert (alone.returncode, team.returncode) == (0, 0), alone.stderr + team.stderr
    assert "several devices: 2 processes: guidance branches side by side" in team.stderr
    assert team.stdout.count("Made in ") == 1
    first, second = files_in(tmp_path / "alone"), files_in(tmp_path / "team")
    assert {name for name in first if first[name] != second.get(name)} == {"run.json"} and first.keys() == second.keys()


def test_mistakes_are_told_once(model_folder: Path, tmp_path: Path) -> None:
    ended = run(TEAM, command(model_folder, "film", "--step-cache", "pyramid"), tmp_path)
    assert ended.returncode != 0
    assert ended.stderr.count("step cache: got pyramid:2 on 2 processes") == 1


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
    assert "another process ended before the film was made" in said
    kept = files_in(tmp_path / "film" / "takes")
    assert kept

    again = run(ALONE, words, tmp_path)
    assert again.returncode == 0, again.stderr
    assert files_in(tmp_path / "film" / "takes").items() >= kept.items()
    assert json.loads((tmp_path / "film" / "run.json").read_text())["status"] == "complete"
