"""A process that is killed: the folder is whole, and the same command goes on where it was."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from production.filming import files_in

RUN = [sys.executable, "-c", "from mask2dit.cli.main import main; main()"]
STORY = "a red fox walks; the fox jumps; a bear sleeps; an owl"


def in_denoising(folder: Path) -> bool:
    return (folder / "latents" / "denoising.safetensors").exists()


def in_the_second_call(folder: Path) -> bool:
    return (folder / "takes" / "scene-03" / "take-1.mp4").exists() and in_denoising(folder)


@pytest.mark.slow
@pytest.mark.parametrize("moment", [in_denoising, in_the_second_call])
def test_kill_minus_nine(moment: Callable[[Path], bool], model_folder: Path, tmp_path: Path) -> None:
    words = ["--model", str(model_folder), "--steps", "400", "--frames", "1", "--display-scale", "1"]

    def generate(name: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([*RUN, "generate", STORY, "-o", name, *words], cwd=tmp_path, capture_output=True, text=True, timeout=300)

    process = subprocess.Popen([*RUN, "generate", STORY, "-o", "killed", *words], cwd=tmp_path, stderr=subprocess.DEVNULL)
    while process.poll() is None and not moment(tmp_path / "killed"):
        time.sleep(0.002)
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    record = json.loads((tmp_path / "killed" / "run.json").read_text())
    assert record["status"] == "running" and record["process"]["pid"] == process.pid
    made = files_in(tmp_path / "killed" / "takes")

    again = generate("killed")
    assert again.returncode == 0, again.stderr
    steps = [int(line.split("(")[1].split(")")[0]) for line in again.stderr.splitlines() if line.startswith("denoising")]
    assert 0 < sum(steps) < (800 if moment is in_denoising else 400)  # not from the beginning
    assert files_in(tmp_path / "killed" / "takes").items() >= made.items()
    assert generate("whole").returncode == 0
    whole, killed = files_in(tmp_path / "whole"), files_in(tmp_path / "killed")
    assert {name: killed.get(name) for name in whole if name != "run.json"} == {n: c for n, c in whole.items() if n != "run.json"}
