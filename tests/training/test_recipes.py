"""The recipes for the paper's model, at a tiny size: each dry-runs at full size, and trains two steps on real video files."""

import json
import resource
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from mask2dit import load_pipeline
from mask2dit.cli.main import app
from mask2dit.video_files import write_video
from training.footage_folder import write_footage_folder
from training.test_loop import losses, model

__all__ = ["model"]  # the fixture

RECIPES = Path(__file__).parents[2] / "recipes"
LISTS = {"pretrain": "clips.csv", "sft": "groups.json", "lora-24gb": "groups.jsonl"}


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_footage_folder(tmp_path_factory.mktemp("videos"), 3)


def run(*arguments: object) -> str:
    result = CliRunner().invoke(app, ["train", *map(str, arguments)])
    assert result.exit_code == 0, result.output
    return result.output


@pytest.mark.parametrize("name", LISTS)
def test_a_dry_run_at_full_size_trains_nothing(name: str, tmp_path: Path) -> None:
    told = run(RECIPES / f"cogvideox-5b-{name}.yaml", "--dry-run", "--output", tmp_path / "run")
    assert "5,570,283,072" in told and "memory per device" in told and "learning_rate" in told and "time, RTX 4090" in told
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", LISTS)
def test_two_steps_on_real_files(name: str, model: Path, videos: Path, tmp_path: Path) -> None:
    size = ["video={height: 16, width: 24, num_frames: 5, fps: 8}", "batch_size=2", "num_steps=2", "data_workers=0"]
    where = [f"start_from={model}", f"data.file={videos / LISTS[name]}", "data.folder=null", f"latent_cache={tmp_path / 'latents'}"]
    command = [RECIPES / f"cogvideox-5b-{name}.yaml", "--output", tmp_path / "run", *size, *where]
    run(*command, "--precompute")
    told = run(*command)
    assert "step 2/2" in told and "samples/s" in told and "skipped none of 9 clips" in told
    assert len(losses(tmp_path / "run")) == 2
    pipeline = load_pipeline(model, lora=tmp_path / "run" / "lora") if "lora" in name else load_pipeline(tmp_path / "run" / "model")
    assert pipeline(["a red fox"], num_inference_steps=1, num_frames=5, output_type="latent").scenes[0].isfinite().all()


@pytest.mark.slow
def test_bad_clips_are_skipped_counted_and_do_not_disturb_a_resumed_run(model: Path, videos: Path, tmp_path: Path) -> None:
    names = sorted(path.name for path in (videos / "clips").iterdir())
    folder = shutil.copytree(videos, tmp_path / "videos")
    (folder / "clips" / names[0]).write_bytes((folder / "clips" / names[0]).read_bytes()[:900])  # cut short
    write_video(folder / "clips" / names[1], np.zeros((3, 64, 96, 3), np.uint8), 8)  # three frames, and more are stated
    write_video(folder / "clips" / names[2], np.zeros((40, 32, 80, 3), np.uint8), 20)  # not as stated either
    (folder / "clips" / names[3]).unlink()
    size = ["video={height: 16, width: 24, num_frames: 5, fps: 8}", "batch_size=2", "num_steps=6", "latent_cache=null", "precision=float32"]
    where = [f"start_from={model}", f"data.file={folder / 'clips.csv'}", "data.folder=null", "data_workers=0", "sharding=none"]
    command = [RECIPES / "cogvideox-5b-pretrain.yaml", *size, *where]
    told = run(*command, "--output", tmp_path / "whole")
    assert "skipped 4 of 9 clips: " in told
    assert all(kind in told for kind in ("1 missing", "2 mis-described", "1 unreadable"))
    lines = next((tmp_path / "whole").glob("bad_clips-*.jsonl")).read_text().splitlines()
    assert sorted(Path(json.loads(line)["clip"]).name for line in lines) == names[:4]
    run(*command, "num_steps=3", "--output", tmp_path / "halves")
    run(*command, "--output", tmp_path / "halves")
    assert losses(tmp_path / "halves") == losses(tmp_path / "whole")

    for name in names[4:7]:
        (folder / "clips" / name).write_text("no video")
    result = CliRunner().invoke(app, ["train", *map(str, command), "latent_cache=" + str(tmp_path / "latents"), "--precompute"])
    assert result.exit_code == 2
    assert "got 2 usable of 9 clips (4 unreadable, 2 mis-described, 1 missing), expected at least 3" in result.output


def test_two_clips_of_different_size_and_rate_train_in_one_group(model: Path, videos: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(videos, tmp_path / "videos")
    write_video(folder / "clips" / "story-0-scene-1.mp4", np.full((40, 100, 80, 3), 99, np.uint8), 20)
    size = ["video={height: 16, width: 24, num_frames: 5, fps: 8}", "batch_size=2", "num_steps=1", "latent_cache=null", "data_workers=0"]
    where = [f"start_from={model}", f"data.file={folder / 'groups.jsonl'}", "data.source=jsonl", "data.folder=null", "lora=null"]
    told = run(RECIPES / "cogvideox-5b-lora-24gb.yaml", *size, *where, "--output", tmp_path / "run")
    assert "skipped none of 9 clips" in told
    result = CliRunner().invoke(
        app, ["train", str(RECIPES / "cogvideox-5b-sft.yaml"), *size, *where, "num_scenes=4", "--output", str(tmp_path / "b")]
    )
    assert result.exit_code == 2 and "expected at least 1" in result.output and "short group" in result.output


def test_a_full_disk_is_one_line_and_the_run_goes_on_later(model: Path, tmp_path: Path) -> None:
    data = "data={source: playhouse, level: A, num_stories: 2}"
    command = [RECIPES / "playhouse-a" / "pretrain.yaml", f"start_from={model}", data, "latent_cache=null", "compile=false"]
    command += ["validation=null", "batch_size=1", "save_every_steps=1", "--output", tmp_path / "run"]
    run(*command, "num_steps=2")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, before[1]))
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        result = CliRunner().invoke(app, ["train", *map(str, command), "num_steps=3"])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert result.exit_code == 1 and "earlier ones are whole" in result.output
    run(*command, "num_steps=3")
    assert len(losses(tmp_path / "run")) == 3


@pytest.mark.slow
def test_the_built_in_model_is_made_by_its_recipes_one_after_another(tmp_path: Path) -> None:
    """What `make playhouse` runs, with a step or two each."""
    folder, stories = RECIPES / "playhouse-a", "data.num_stories=2"
    vae = ["num_stories=1", "num_steps=2", "image_steps=1", "batch_size=1", "image_batch_size=1", "full_size_steps=1"]
    run(folder / "vae.yaml", "--output", tmp_path / "vae", *vae, "full_size_batch_size=1", "channels=[4, 4, 4]", "norm_num_groups=2")
    run(folder / "text.yaml", "--output", tmp_path / "text", "num_steps=2", "batch_size=2")
    small = [stories, "num_steps=2", "batch_size=2", "compile=false", "validation.every_steps=2", "validation.num_stories=1"]
    small.append("validation.num_inference_steps=1")
    base = ["transformer={num_attention_heads: 1, attention_head_dim: 16, num_layers: 1, time_embed_dim: 8, patch_size: 4}"]
    run(folder / "base.yaml", "--output", tmp_path / "base", *small, *base, "--precompute")
    for stage in ("base", "pretrain", "sft"):
        told = run(folder / f"{stage}.yaml", "--output", tmp_path / stage, *small, *(base if stage == "base" else []))
        assert "step 2/2" in told and "judge: species" in told
        assert (tmp_path / stage / "samples" / "step-000002.png").is_file()
    pipeline = load_pipeline(tmp_path / "sft" / "model")
    assert pipeline.values.known_sets == "any" and pipeline.values.window == 3 and pipeline.values.height == 64
    run(folder / "context-blind.yaml", "--output", tmp_path / "context-blind", *small[:4])
    blind = load_pipeline(tmp_path / "sft" / "model", plan="context-blind", lora=tmp_path / "context-blind" / "lora")
    assert blind.fingerprint() != pipeline.fingerprint() and blind.transformer.is_context_blind
