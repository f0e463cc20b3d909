"""The loop on a tiny model: stages, resuming, dealing out of samples, the cache, adapters, and what a person sees."""

import json
import os
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

import tiny
from mask2dit import load_pipeline
from mask2dit.errors import InputError, ModelError, OutputError
from mask2dit.storyboard import Storyboard
from mask2dit.training import loop
from mask2dit.training.checkpoints import RunFolder
from mask2dit.training.config import DiffusionRecipe
from mask2dit.training.data.playhouse import PlayhouseScenes
from mask2dit.training.data.scenes import ClipSettings
from mask2dit.training.precompute import precompute
from mask2dit.training.stopping import TrainingStopped

CPU = torch.device("cpu")
KNOWN = {"none": 0.4, "all-but-last": 0.3, "random": 0.3}

pytestmark = pytest.mark.slow  # whole runs


class Paper:
    """A screen that remembers."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def line(self, text: str) -> None:
        self.lines.append(text)

    live = line


@pytest.fixture(scope="module")
def model(model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model with latents of about unit size, as a trained autoencoder makes them."""
    folder = shutil.copytree(model_folder, tmp_path_factory.mktemp("unit") / "model")
    pipeline = load_pipeline(folder)
    frames = PlayhouseScenes("A", 1, 0.0).groups[0][0].frames(ClipSettings(16, 24, 9, 8), 0.0)
    latents = pipeline.encode_scene(frames.astype("float32") / 255)
    config = folder / "vae" / "config.json"
    scaled = json.loads(config.read_text())
    config.write_text(json.dumps(scaled | {"scaling_factor": scaled["scaling_factor"] / latents.std().item()}))
    return folder


def recipe(model: Path, **changes: object) -> DiffusionRecipe:
    values = {
        "kind": "diffusion",
        "stage": "sft",
        "start_from": str(model),
        "num_scenes": 3,
        "data": {"source": "playhouse", "level": "A", "num_stories": 3, "by_reference": 0.5},
        "known_sets": KNOWN,
        "num_steps": 4,
        "batch_size": 4,
        "learning_rate": 1e-3,
        "warmup_steps": 1,
        "save_every_minutes": None,
        "log_every_steps": 1,
    }
    return DiffusionRecipe(**(values | changes))


def losses(run: Path) -> list[float]:
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == list(range(1, len(lines) + 1))
    return [line["loss"] for line in lines]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_pipeline(folder).transformer.state_dict()


@pytest.mark.parametrize("stage", ["base", "pretrain", "sft"])
def test_every_stage_learns_and_ends_in_a_model(model: Path, tmp_path: Path, stage: str) -> None:
    single = {"num_scenes": 1, "known_sets": {"none": 1.0}} if stage == "base" else {}
    made = loop.train_diffusion(recipe(model, stage=stage, export_dtype="float16", **single), tmp_path, Paper())
    pipeline = load_pipeline(made)
    scenes = pipeline(["a red fox jumps on the beach"], num_inference_steps=1, output_type="latent").scenes
    assert scenes[0].shape == (3, 4, 4, 6) and scenes[0].isfinite().all()
    before, after = weights(model), weights(made)
    assert any(not torch.equal(before[key], after[key]) for key in before)
    assert len(losses(tmp_path)) == 4
    assert not [file for file in made.rglob("*.json") if str(tmp_path) in file.read_text() or str(model) in file.read_text()]


def test_training_brings_the_loss_down(model: Path, tmp_path: Path) -> None:
    loop.train_diffusion(recipe(model, num_steps=30, learning_rate=1e-2, empty_caption=0.0), tmp_path, Paper())
    found = losses(tmp_path)
    assert sum(found[-10:]) < 0.8 * sum(found[:10])


@pytest.mark.slow  # processes
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_run_that_is_stopped_goes_on_as_if_it_never_was(model: Path, tmp_path: Path, number: int) -> None:
    wanted = recipe(model, num_steps=5, decay=0.5)
    whole = loop.train_diffusion(wanted, tmp_path / "whole", Paper())

    class Impatient(Paper):
        def live(self, text: str) -> None:
            if text.startswith("step 2/"):
                os.kill(os.getpid(), number)

    with pytest.raises(TrainingStopped, match=r"stopped after step 3; the same command goes on") as stop:
        loop.train_diffusion(wanted, tmp_path / "halves", Impatient())
    assert stop.value.status == 128 + number
    paper = Paper()
    halves = loop.train_diffusion(wanted, tmp_path / "halves", paper)
    assert "going on after step 3" in paper.lines
    assert losses(tmp_path / "whole") == losses(tmp_path / "halves")
    for key, value in weights(whole).items():
        assert torch.equal(value, weights(halves)[key]), key


@pytest.mark.slow
def test_a_longer_run_goes_on_from_a_finished_one(model: Path, tmp_path: Path) -> None:
    loop.train_diffusion(recipe(model, num_steps=2), tmp_path / "a", Paper())
    loop.train_diffusion(recipe(model, num_steps=4), tmp_path / "a", Paper())
    loop.train_diffusion(recipe(model, num_steps=4), tmp_path / "b", Paper())
    assert losses(tmp_path / "a") == losses(tmp_path / "b")


@pytest.mark.slow
def test_averages_are_what_is_exported(model: Path, tmp_path: Path) -> None:
    made = {
        decay: weights(
            loop.train_diffusion(recipe(model, learning_rate=1e-2, ema_decay=decay, export_dtype="float32"), tmp_path / str(decay), Paper())
        )
        for decay in (None, 0.0, 0.9)
    }
    assert all(torch.equal(value, made[0.0][key]) for key, value in made[None].items()), "an average of the last step alone"
    assert all(not torch.equal(value, made[0.9][key]) for key, value in made[None].items() if value.ndim > 1)


@pytest.mark.slow
def test_micro_batches_change_nothing_but_rounding(model: Path, tmp_path: Path) -> None:
    for micro in (None, 1, 3):
        loop.train_diffusion(recipe(model, micro_batch_size=micro), tmp_path / str(micro), Paper())
    for micro in (1, 3):
        assert losses(tmp_path / str(micro)) == pytest.approx(losses(tmp_path / "None"), rel=1e-4)


@pytest.mark.slow
def test_checkpointing_changes_nothing_and_bfloat16_little(model: Path, tmp_path: Path) -> None:
    for name, changes in {"plain": {}, "checkpointed": {"gradient_checkpointing": True}, "bf16": {"precision": "bfloat16"}}.items():
        loop.train_diffusion(recipe(model, **changes), tmp_path / name, Paper())
    assert losses(tmp_path / "checkpointed") == pytest.approx(losses(tmp_path / "plain"), rel=1e-6)
    assert losses(tmp_path / "bf16") == pytest.approx(losses(tmp_path / "plain"), rel=0.02)
    assert losses(tmp_path / "bf16") != losses(tmp_path / "plain")


@pytest.mark.slow
def test_attention_is_the_recipes_and_changes_nothing_but_rounding(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also from one part of a run to the next."""
    real, taken = loop.prepare, []

    def prepare(*given: Any) -> loop.Training:
        training = real(*given)
        taken.append(type(training.modules["transformer"].transformer_blocks[0].attn1.processor).__name__)
        return training

    monkeypatch.setattr(loop, "prepare", prepare)
    for name, attention, steps in (("auto", "auto", 4), ("grouped", "grouped", 4), ("both", "grouped", 2), ("both", "merged", 4)):
        loop.train_diffusion(recipe(model, attention=attention, num_steps=steps), tmp_path / name, Paper())
    assert taken == ["MergedAttnProcessor", "GroupedAttnProcessor", "GroupedAttnProcessor", "MergedAttnProcessor"]
    for name in ("auto", "both"):
        assert losses(tmp_path / name) == pytest.approx(losses(tmp_path / "grouped"), rel=1e-4)


def test_clipping_clips(model: Path, tmp_path: Path) -> None:
    """Plain SGD would show it in the weights; with AdamW, gradients of one direction and a tenth of the size show it in the moments."""
    seen = {}
    for limit in (1e9, 1e-3):
        wanted = recipe(model, num_steps=1, max_grad_norm=limit)
        folder = RunFolder(tmp_path / str(limit), wanted, True, lambda: None)
        training = loop.prepare(wanted, folder, loop.start_accelerator(wanted, tmp_path), Paper())
        norm = loop.take_step(training, 0, [training.samples[number] for number in range(4)])["grad_norm"]
        moments = [training.optimizer.state[p]["exp_avg"] / (1 - wanted.betas[0]) for p in training.trained]
        seen[limit] = norm, torch.cat([moment.flatten() for moment in moments]).norm().item()
    assert seen[1e9][0] == seen[1e-3][0] == pytest.approx(seen[1e9][1], rel=1e-4)
    assert seen[1e-3][1] == pytest.approx(1e-3, rel=1e-3)


def test_the_text_encoder_learns_in_base_and_rests_otherwise(model: Path, tmp_path: Path) -> None:
    base = recipe(model, stage="base", num_scenes=1, known_sets={"none": 1.0}, train_text_encoder=True, export_dtype="float32")
    before = load_pipeline(model).text_encoder.state_dict()
    for wanted, learns in ((base, True), (recipe(model), False)):
        made = loop.train_diffusion(wanted, tmp_path / str(learns), Paper())
        after = load_pipeline(made).text_encoder.state_dict()
        assert any(not torch.equal(before[key], after[key]) for key in before) == learns


def test_a_new_model_starts_from_a_vae_and_a_text_encoder(model: Path, tmp_path: Path) -> None:
    sizes = {"num_attention_heads": 2, "attention_head_dim": 16, "num_layers": 2, "time_embed_dim": 16, "patch_size": 4}
    new = {"transformer": sizes, "vae_from": str(model), "text_from": str(model), "start_from": None}
    wanted = recipe(model, stage="base", num_scenes=1, known_sets={"none": 1.0}, train_text_encoder=True, num_steps=2, **new)
    pipeline = load_pipeline(loop.train_diffusion(wanted, tmp_path / "run", Paper()))
    assert pipeline.values.height == 64 and pipeline.values.known_sets == "any" and pipeline.values.negative_prompt == ""
    assert not list((tmp_path / "run").rglob("*.part"))


def test_cached_latents_train_like_fresh_ones(model: Path, tmp_path: Path) -> None:
    cached = recipe(model, latent_cache=str(tmp_path / "latents"))
    with pytest.raises(InputError, match="there is no latent cache, expected one; run the same command with --precompute first"):
        loop.train_diffusion(cached, tmp_path / "early", Paper())
    precompute(cached, tmp_path / "run", CPU, Paper())
    paper = Paper()
    shards = {path: path.stat().st_mtime_ns for path in (tmp_path / "latents").glob("*.safetensors")}
    precompute(cached, tmp_path / "run", CPU, paper)
    assert shards == {path: path.stat().st_mtime_ns for path in (tmp_path / "latents").glob("*.safetensors")}
    loop.train_diffusion(cached, tmp_path / "run", Paper())
    loop.train_diffusion(recipe(model), tmp_path / "fresh", Paper())
    more = recipe(model, latent_cache=str(tmp_path / "latents"), data={"source": "playhouse", "level": "A", "num_stories": 4})
    with pytest.raises(InputError, match=r"lacks 3 of 12 clips, .*run --precompute"):
        loop.train_diffusion(more, tmp_path / "more", Paper())
    assert losses(tmp_path / "run") == pytest.approx(losses(tmp_path / "fresh"), rel=2e-3)


def test_a_stale_cache_is_noticed(model: Path, tmp_path: Path) -> None:
    cached = recipe(model, latent_cache=str(tmp_path / "latents"), num_steps=1)
    precompute(cached, tmp_path / "run", CPU, Paper())
    other = {"height": 16, "width": 16, "num_frames": 9, "fps": 8}
    with pytest.raises(InputError, match=r"is stale: made with video .*'width': 24.* expected .*'width': 16"):
        loop.train_diffusion(recipe(model, latent_cache=str(tmp_path / "latents"), video=other), tmp_path / "other", Paper())
    again = shutil.copytree(model, tmp_path / "model")
    config = json.loads((again / "vae" / "config.json").read_text())
    (again / "vae" / "config.json").write_text(json.dumps(config | {"scaling_factor": 0.9}))
    with pytest.raises(InputError, match="is stale: made with vae"):
        loop.train_diffusion(recipe(again, latent_cache=str(tmp_path / "latents")), tmp_path / "third", Paper())


def test_only_the_newest_checkpoints_are_kept_and_half_a_checkpoint_is_none(model: Path, tmp_path: Path) -> None:
    wanted = recipe(model, save_every_steps=1, keep_last=2)
    loop.train_diffusion(wanted, tmp_path, Paper())
    folder = tmp_path / "checkpoints"
    assert sorted(path.name for path in folder.iterdir()) == ["step-000003", "step-000004"]
    shutil.copytree(folder / "step-000004", folder / "step-000009.part")
    (folder / "step-000008").mkdir()
    run = RunFolder(tmp_path, wanted, True, lambda: None)
    assert run.finished_steps() == 4 and not (folder / "step-000009.part").exists()


@pytest.mark.slow
def test_a_save_that_fails_loses_no_checkpoint(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from mask2dit.training import checkpoints

    loop.train_diffusion(recipe(model, num_steps=2), tmp_path, Paper())

    def full(state: object, checkpoint_id: str) -> None:
        Path(checkpoint_id).mkdir()
        Path(checkpoint_id, "__0_0.distcp").write_bytes(b"half")
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(checkpoints, "save_checkpoint", full)
        with pytest.raises(OutputError, match=r"cannot be written \(No space left on device\); earlier ones are whole"):
            loop.train_diffusion(recipe(model, num_steps=3), tmp_path, Paper())
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step-000002"]
    loop.train_diffusion(recipe(model, num_steps=3), tmp_path, Paper())
    loop.train_diffusion(recipe(model, num_steps=3), tmp_path / "whole", Paper())
    assert losses(tmp_path) == losses(tmp_path / "whole")


def test_another_recipe_or_another_model_in_the_folder_is_refused(model: Path, tmp_path: Path) -> None:
    loop.train_diffusion(recipe(model, num_steps=1), tmp_path / "run", Paper())
    with pytest.raises(InputError, match=r"holds a run with learning_rate 0.001, got 0.01; choose another folder"):
        loop.train_diffusion(recipe(model, num_steps=2, learning_rate=1e-2), tmp_path / "run", Paper())
    lora = recipe(model, num_steps=1, lora={"rank": 2, "alpha": 2})
    loop.train_diffusion(lora, tmp_path / "lora", Paper())
    shutil.rmtree(tmp_path / "lora" / "checkpoints")
    shutil.copytree(tmp_path / "run" / "checkpoints", tmp_path / "lora" / "checkpoints")
    with pytest.raises(InputError, match="step-000001: is of another model: "):
        loop.train_diffusion(lora.model_copy(update={"num_steps": 2}), tmp_path / "lora", Paper())


def test_a_contact_sheet_and_the_judge_are_shown(model: Path, tmp_path: Path) -> None:
    paper = Paper()
    validation = {"every_steps": 2, "num_stories": 2, "num_inference_steps": 1}
    loop.train_diffusion(recipe(model, num_steps=2, validation=validation, log_with=["tensorboard"]), tmp_path, paper)
    with Image.open(tmp_path / "samples" / "step-000002.png") as sheet:
        assert sheet.width > 500 and sheet.height > 500
    told = next(line for line in paper.lines if "judge:" in line)
    assert all(name in told for name in ("species", "colour", "action", "place", "light"))
    assert list((tmp_path / "logs").rglob("events.out.tfevents*"))
    assert any("samples/s" in line and "left" in line for line in paper.lines)


def test_adapters_train_alone_and_load_here_and_in_diffusers(model: Path, tmp_path: Path) -> None:
    from diffusers import CogVideoXPipeline, CogVideoXTransformer3DModel

    made = loop.train_diffusion(recipe(model, lora={"rank": 2, "alpha": 4}, learning_rate=1e-2), tmp_path / "run", Paper())
    assert made == tmp_path / "run" / "lora"
    ours = load_pipeline(model, lora=made)
    inputs = tiny.inputs(ours.transformer, (64,), (3,))
    with torch.no_grad():
        adapted = ours.transformer(**inputs).sample
        plain = load_pipeline(model).transformer(**inputs).sample
    assert not torch.allclose(adapted, plain, atol=1e-4)

    config = {key: value for key, value in ours.transformer.config.items() if key != "attention_plan"}
    stock = CogVideoXTransformer3DModel.from_config(config)
    stock.load_state_dict(load_pipeline(model).transformer.state_dict())
    theirs = CogVideoXPipeline(ours.tokenizer, ours.text_encoder, ours.vae, stock.eval(), ours.scheduler)
    theirs.load_lora_weights(made)
    rotary = ours.transformer.rotary_table(3, (2, 3))
    with torch.no_grad():
        same = stock(inputs["hidden_states"], inputs["encoder_hidden_states"], inputs["timestep"][:, 0], image_rotary_emb=rotary).sample
    torch.testing.assert_close(same, adapted)

    longer = loop.train_diffusion(recipe(model, lora={"rank": 2, "alpha": 4}, learning_rate=1e-2, num_steps=6), tmp_path / "run", Paper())
    once = loop.train_diffusion(recipe(model, lora={"rank": 2, "alpha": 4}, learning_rate=1e-2, num_steps=6), tmp_path / "once", Paper())
    assert losses(tmp_path / "run") == losses(tmp_path / "once")
    first, second = (load_file(folder / "pytorch_lora_weights.safetensors") for folder in (longer, once))
    assert first.keys() == second.keys() and all(torch.equal(value, second[key]) for key, value in first.items())


def test_adapters_of_another_model_are_refused(model: Path, tmp_path: Path) -> None:
    made = loop.train_diffusion(recipe(model, lora={"rank": 2, "alpha": 4}, num_steps=1), tmp_path / "run", Paper())
    tiny.transformer(num_layers=2, max_text_seq_length=64).save_pretrained(shutil.copytree(model, tmp_path / "small") / "transformer")
    with pytest.raises(ModelError, match=r"adapters .*fit|adapter tensors"):
        load_pipeline(tmp_path / "small", lora=made)
    with pytest.raises(ModelError, match="no such file, expected adapters"):
        load_pipeline(model, lora=tmp_path / "nothing")
    with pytest.raises(InputError, match=r"lora.target_modules: got \['to_x'\]"):
        loop.train_diffusion(recipe(model, lora={"rank": 2, "target_modules": ["to_x"]}, num_steps=1), tmp_path / "bad", Paper())


def test_storyboard_files_are_filmed_without_a_judge(model: Path, tmp_path: Path) -> None:
    Storyboard.from_text("a red fox jumps; the fox sleeps").write(tmp_path / "board.yaml")
    validation = {"every_steps": 2, "storyboards": [str(tmp_path / "board.yaml")], "num_inference_steps": 1}
    loop.train_diffusion(recipe(model, num_steps=2, validation=validation), tmp_path / "run", paper := Paper())
    assert (tmp_path / "run" / "samples" / "step-000002.png").is_file() and not any("judge" in line for line in paper.lines)


def test_a_new_model_of_another_recipe_is_not_taken_for_this_one(model: Path, tmp_path: Path) -> None:
    sizes = {"num_attention_heads": 2, "attention_head_dim": 16, "num_layers": 1, "time_embed_dim": 16, "patch_size": 4}
    single = {
        "stage": "base",
        "num_scenes": 1,
        "known_sets": {"none": 1.0},
        "start_from": None,
        "vae_from": str(model),
        "text_from": str(model),
    }
    wanted = recipe(model, transformer=sizes, latent_cache=str(tmp_path / "latents"), **single)
    precompute(wanted, tmp_path / "run", CPU, Paper())
    with pytest.raises(InputError, match="start: is a new model of another recipe"):
        loop.train_diffusion(wanted.model_copy(update={"seed": 1}), tmp_path / "run", Paper())


def test_a_damaged_checkpoint_and_strange_folders_are_told_apart(model: Path, tmp_path: Path) -> None:
    loop.train_diffusion(recipe(model, num_steps=1), tmp_path, Paper())
    folder = tmp_path / "checkpoints"
    shutil.copytree(folder / "step-000001", folder / "step-000100.bak")
    (folder / "step-000001" / ".metadata").write_bytes(b"half")
    with pytest.raises(InputError, match=r"step-000001: cannot be read as a checkpoint .*delete it to go on from an earlier one"):
        loop.train_diffusion(recipe(model, num_steps=2), tmp_path, Paper())
    (tmp_path / "recipe.yaml").write_text("")
    with pytest.raises(InputError, match=r"recipe.yaml: cannot be read as a recipe"):
        loop.train_diffusion(recipe(model, num_steps=2), tmp_path, Paper())
