"""Two processes on the CPU (gloo) learn what one learns with the same batch; a run may go on with another number of them."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import yaml

from mask2dit.training.config import DiffusionRecipe
from training.footage_folder import write_footage_folder
from training.test_loop import losses, model, recipe, weights

pytestmark = pytest.mark.slow
__all__ = ["model"]  # the fixture

LAUNCHER = Path(__file__).with_name("launched.py")


def environment() -> dict[str, str]:
    return os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[1])}


def write(wanted: DiffusionRecipe, path: Path) -> Path:
    path.write_text(yaml.safe_dump(wanted.model_dump(mode="json")))
    return path


def train(path: Path, run: Path, processes: int, *changes: str) -> subprocess.CompletedProcess[str]:
    several = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)] if processes > 1 else []
    command = [sys.executable, *several, "-m", "mask2dit", "train", str(path), "--output", str(run), *changes]
    return subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=300, check=False)


@pytest.mark.parametrize("sharding", ["none", "fsdp"])
@pytest.mark.parametrize("changes", [{}, {"lora": {"rank": 2}}, {"gradient_checkpointing": True, "micro_batch_size": 1}], ids=str)
def test_two_processes_are_one_with_twice_the_batch(model: Path, tmp_path: Path, sharding: str, changes: dict) -> None:
    wanted = recipe(model, sharding=sharding, export_dtype="float32", **changes)
    path = write(wanted, tmp_path / "recipe.yaml")
    for processes in (1, 2):
        done = train(path, tmp_path / str(processes), processes)
        assert done.returncode == 0, done.stderr[-2000:]
    assert losses(tmp_path / "2") == pytest.approx(losses(tmp_path / "1"), rel=2e-5)
    if "lora" not in changes:
        one, two = (weights(tmp_path / name / "model") for name in "12")
        for key, value in one.items():
            torch.testing.assert_close(two[key], value, rtol=0, atol=2e-4, msg=key)


@pytest.mark.parametrize(("sharding", "kind"), [("none", "whole"), ("fsdp", "sharded")])
def test_parameters_are_dtensors_where_they_are_sharded(model: Path, tmp_path: Path, sharding: str, kind: str) -> None:
    path = write(recipe(model, sharding=sharding), tmp_path / "recipe.yaml")
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(LAUNCHER)]
    done = subprocess.run([*launch, str(path), str(tmp_path / "run"), kind], env=environment(), capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_sharded_run_that_films_on_the_way_goes_on_with_any_number_of_processes(model: Path, tmp_path: Path, precision: str) -> None:
    films = {"every_steps": 2, "num_stories": 1, "num_inference_steps": 1}
    path = write(recipe(model, sharding="fsdp", precision=precision, validation=films), tmp_path / "recipe.yaml")
    assert train(path, tmp_path / "run", 2, "num_steps=2").returncode == 0
    assert len(list((tmp_path / "run" / "checkpoints" / "step-000002").glob("*.distcp"))) == 2
    assert (tmp_path / "run" / "samples" / "step-000002.png").is_file()
    shutil.copytree(tmp_path / "run", tmp_path / "alone")
    for run, processes in (("run", 2), ("alone", 1), ("whole", 2)):
        done = train(path, tmp_path / run, processes)
        assert done.returncode == 0, done.stderr[-2000:]
    assert losses(tmp_path / "run") == losses(tmp_path / "whole")
    assert losses(tmp_path / "alone") == pytest.approx(losses(tmp_path / "whole"), rel=2e-5 if precision == "float32" else 0.02)


def test_a_batch_that_cannot_be_dealt_out_is_one_line(model: Path, tmp_path: Path) -> None:
    path = write(recipe(model, batch_size=3), tmp_path / "recipe.yaml")
    done = train(path, tmp_path / "run", 2)
    assert done.returncode != 0
    assert "error: batch_size: got 3 for 2 devices, expected a multiple of 2" in done.stderr


def test_kill_9_at_any_moment_loses_at_most_what_was_not_saved(model: Path, tmp_path: Path) -> None:
    wanted = recipe(model, num_steps=12, save_every_steps=1)
    path = write(wanted, tmp_path / "recipe.yaml")
    whole = train(path, tmp_path / "whole", 1)
    assert whole.returncode == 0, whole.stderr
    command = [sys.executable, "-m", "mask2dit", "train", str(path), "--output", str(tmp_path / "run")]
    log = tmp_path / "run" / "log.jsonl"
    for moment in (0.0, 0.05, 0.12, 0.3):  # seconds after a step is logged: while it is saved, or in the next one
        process = subprocess.Popen(command, env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        before = len(log.read_text().splitlines()) if log.exists() else 0
        deadline = time.monotonic() + 120
        while (not log.exists() or len(log.read_text().splitlines()) <= before) and process.poll() is None:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        time.sleep(moment)
        process.send_signal(signal.SIGKILL)
        process.wait()
    done = train(path, tmp_path / "run", 1)
    assert done.returncode == 0, done.stderr
    assert losses(tmp_path / "run") == losses(tmp_path / "whole")
    first, second = (weights(tmp_path / name / "model") for name in ("run", "whole"))
    assert all(torch.equal(value, second[key]) for key, value in first.items())


def test_sigterm_ends_a_command_with_a_checkpoint(model: Path, tmp_path: Path) -> None:
    path = write(recipe(model, num_steps=10_000), tmp_path / "recipe.yaml")
    command = [sys.executable, "-m", "mask2dit", "train", str(path), "--output", str(tmp_path / "run")]
    process = subprocess.Popen(command, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while not (tmp_path / "run" / "log.jsonl").exists():
        assert process.poll() is None
        time.sleep(0.05)
    process.terminate()
    out, err = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM and "the same command goes on from there" in out and "Traceback" not in err
    steps = len(losses(tmp_path / "run"))
    assert (tmp_path / "run" / "checkpoints" / f"step-{steps:06d}" / ".metadata").is_file()
    assert json.loads((tmp_path / "run" / "log.jsonl").read_text().splitlines()[-1])["step"] == steps


@pytest.mark.parametrize("stage", [2, 3])
def test_deepspeed_gives_the_losses_of_the_plain_loop(model: Path, tmp_path: Path, stage: int) -> None:
    """With one process: on the CPU, Accelerate does not tell several DeepSpeed processes from one another."""
    pytest.importorskip("deepspeed")
    videos = write_footage_folder(tmp_path / "videos", 3)
    data = {"source": "json", "file": str(videos / "groups.json")}
    size = {"height": 16, "width": 24, "num_frames": 5, "fps": 8}
    wanted = recipe(model, data=data, video=size, latent_cache=str(tmp_path / "latents"), ema_decay=None, micro_batch_size=1)
    path = write(wanted, tmp_path / "recipe.yaml")
    config = {"zero_optimization": {"stage": stage, "stage3_gather_16bit_weights_on_model_save": True}}
    (tmp_path / "zero.json").write_text(json.dumps(config))
    assert train(path, tmp_path / "plain", 1, "--precompute").returncode == 0
    assert train(path, tmp_path / "plain", 1).returncode == 0
    launch = ["--use_deepspeed", "--deepspeed_config_file", str(tmp_path / "zero.json"), "--num_processes", "1", "--num_machines", "1"]
    options = ["--mixed_precision", "no", "--dynamo_backend", "no", "-m", "mask2dit", "train", str(path), "--output", str(tmp_path / "run")]
    for steps in ("num_steps=2", "num_steps=4"):
        command = [sys.executable, "-m", "accelerate.commands.launch", *launch, *options, steps]
        done = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=600)
        assert done.returncode == 0, done.stderr[-2000:]
    assert losses(tmp_path / "run") == pytest.approx(losses(tmp_path / "plain"), rel=1e-5)


def test_sigterm_to_torchrun_ends_two_processes_with_a_checkpoint(model: Path, tmp_path: Path) -> None:
    path = write(recipe(model, num_steps=10_000, sharding="fsdp", data_workers=1), tmp_path / "recipe.yaml")
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "mask2dit", "train"]
    process = subprocess.Popen(
        [*launch, str(path), "--output", str(tmp_path / "run")],
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    while not (tmp_path / "run" / "log.jsonl").exists():
        assert process.poll() is None
        time.sleep(0.05)
    process.terminate()
    out, _ = process.communicate(timeout=120)
    assert "the same command goes on from there" in out
    steps = len(losses(tmp_path / "run"))
    assert (tmp_path / "run" / "checkpoints" / f"step-{steps:06d}" / ".metadata").is_file()
    assert train(path, tmp_path / "run", 2, f"num_steps={steps + 1}").returncode == 0
    assert len(losses(tmp_path / "run")) == steps + 1
