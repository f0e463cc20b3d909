"""The built-in model's training on a tiny scale: every step runs, resumes as if it had never stopped, and learns."""

import random
from pathlib import Path

import pytest
import torch

from mask2dit import load_pipeline
from mask2dit.errors import InputError
from mask2dit.playhouse.captions import split_words
from mask2dit.training import loop, text, vae
from mask2dit.training.config import DiffusionRecipe, TextRecipe, VAERecipe, read_recipe
from mask2dit.training.state import EMA, generator_for, learning_rate_factor
from mask2dit.training.stories import StoryLatents, draw_known

CPU = torch.device("cpu")
RECIPES = Path(__file__).parents[2] / "recipes" / "playhouse-a"
SMALL_VAE = {"kind": "vae", "level": "A", "num_stories": 1, "num_steps": 2, "image_steps": 1, "image_batch_size": 2, "batch_size": 1}
SMALL_VAE |= {"crop": (16, 24), "learning_rate": 1e-3, "channels": (4, 4, 4), "latent_channels": 4, "norm_num_groups": 2}
SMALL = {"kind": "diffusion", "level": "A", "num_stories": 2, "num_steps": 4, "batch_size": 2, "learning_rate": 1e-3, "warmup_steps": 1}
SMALL |= {"save_every_minutes": 0.0}
SIZES = {"num_attention_heads": 2, "attention_head_dim": 16, "num_layers": 2, "time_embed_dim": 16, "patch_size": 4}
SMALL_TEXT = {"kind": "text", "level": "A", "num_steps": 60, "batch_size": 8, "learning_rate": 1e-2, "warmup_steps": 5}
SMALL_TEXT |= {"text": {"max_length": 32, "dim": 16, "num_layers": 1, "num_heads": 2}}


def quiet(line: str) -> None:
    pass


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs side by side, with an autoencoder and a base model in them."""
    folder = tmp_path_factory.mktemp("runs")
    vae.train_vae(VAERecipe(**SMALL_VAE), folder / "vae", CPU, quiet)
    text.train_text_encoder(TextRecipe(**SMALL_TEXT), folder / "text", CPU, quiet)
    loop.train_diffusion(base_recipe(folder), folder / "base", CPU, quiet)
    return folder


def base_recipe(folder: Path) -> DiffusionRecipe:
    options = {"stage": "base", "start_from": str(folder / "vae"), "text_from": str(folder / "text"), "num_scenes": 1}
    return DiffusionRecipe(**SMALL, **options, transformer=SIZES, train_text_encoder=True)


def sft_recipe(folder: Path, **changes: object) -> DiffusionRecipe:
    known = {"none": 0.4, "all-but-last": 0.3, "random": 0.3}
    options = {"stage": "sft", "start_from": str(folder / "base" / "model"), "num_scenes": 3, "by_reference": 0.5, "known_sets": known}
    return DiffusionRecipe(**(SMALL | options | changes))


def test_every_stage_ends_in_a_model_folder_that_loads(runs: Path) -> None:
    for stage in ("pretrain", "sft"):
        path = loop.train_diffusion(sft_recipe(runs, stage=stage, num_steps=1), runs / stage, CPU, quiet)
        pipeline = load_pipeline(path)
        scenes = pipeline(["a red fox jumps on the beach"], num_inference_steps=1, output_type="latent").scenes
        assert scenes[0].shape == (3, 4, 16, 24) and scenes[0].isfinite().all()
        assert pipeline.values.known_sets == "any" and pipeline.values.negative_prompt == ""
        assert not [file for file in path.rglob("*.json") if str(runs) in file.read_text()], "no path of this machine travels with a model"


def test_resuming_equals_never_having_stopped(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = sft_recipe(runs)
    loop.train_diffusion(recipe, runs / "whole", CPU, quiet)
    take_step = loop.take_step

    def stopped(*arguments: object) -> float:
        if arguments[4] == 2:
            raise KeyboardInterrupt
        return take_step(*arguments)

    monkeypatch.setattr(loop, "take_step", stopped)
    with pytest.raises(KeyboardInterrupt):
        loop.train_diffusion(recipe, runs / "halves", CPU, quiet)
    monkeypatch.setattr(loop, "take_step", take_step)
    loop.train_diffusion(recipe, runs / "halves", CPU, quiet)
    whole, halves = (torch.load(runs / name / "state.pt", weights_only=True) for name in ("whole", "halves"))
    assert whole["step"] == halves["step"] == 4
    for key, value in whole["ema"].items():
        assert torch.equal(value, halves["ema"][key]), key
    for key, value in whole["modules"]["transformer"].items():
        assert torch.equal(value, halves["modules"]["transformer"][key]), key


def test_a_sample_depends_on_its_number_alone(runs: Path) -> None:
    recipe = sft_recipe(runs)
    parts = loop.load_parts(recipe)
    stories = StoryLatents(parts.vae, recipe, runs, CPU, quiet)
    first, again, other = (stories.draw(recipe, number, 1000) for number in (7, 7, 8))
    assert torch.equal(first.latents, again.latents) and torch.equal(first.noise, again.noise)
    assert (first.captions, first.timestep, first.known) == (again.captions, again.timestep, again.known)
    assert not torch.equal(first.noise, other.noise)
    together = loop.sample_loss(parts, recipe, [first, first], CPU)
    torch.testing.assert_close(together, loop.sample_loss(parts, recipe, [first], CPU))


def test_the_text_encoder_learns_in_base_and_rests_afterwards(runs: Path) -> None:
    base = torch.load(runs / "base" / "state.pt", weights_only=True)
    assert any(key.startswith("text_encoder") for key in base["ema"])
    loop.train_diffusion(sft_recipe(runs, num_steps=1), runs / "resting", CPU, quiet)
    later = torch.load(runs / "resting" / "state.pt", weights_only=True)
    assert not any(key.startswith("text_encoder") for key in later["ema"])


def test_every_token_learns_what_its_caption_says(tmp_path: Path) -> None:
    lines: list[str] = []
    text.train_text_encoder(TextRecipe(**(SMALL_TEXT | {"num_steps": 150})), tmp_path, CPU, lines.append)
    first, last = (float(line.split("loss ")[1].split()[0]) for line in (lines[0], lines[-1]))
    assert last < first


def test_captions_and_what_they_say_belong_together() -> None:
    recipe = TextRecipe(**(SMALL_TEXT | {"batch_size": 200}))
    captions, truth = text.draw_captions(recipe, 0)
    assert (captions, truth.tolist()) == (text.draw_captions(recipe, 0)[0], text.draw_captions(recipe, 0)[1].tolist())
    for caption, row in zip(captions, truth.tolist(), strict=True):
        for name, index in zip(text.FACTS, row, strict=True):
            values = text.FACTS[name]
            if name in ("species", "colour"):
                said = [value for value in values if value in split_words(caption)]
                assert said == ([values[index]] if index < len(values) else []), caption
    assert "" in captions


def test_a_step_on_one_batch_lowers_its_loss(runs: Path) -> None:
    recipe = sft_recipe(runs, learning_rate=3e-3)
    parts = loop.load_parts(recipe)
    stories = StoryLatents(parts.vae, recipe, runs, CPU, quiet)
    samples = [stories.draw(recipe, number, 1000) for number in range(2)]
    optimizer = loop.build_optimizer({"transformer": parts.transformer}, recipe)
    before = loop.sample_loss(parts, recipe, samples, CPU)
    for _ in range(5):
        optimizer.zero_grad()
        loop.sample_loss(parts, recipe, samples, CPU).backward()
        optimizer.step()
    assert loop.sample_loss(parts, recipe, samples, CPU) < before


def test_draws_of_known_scenes(runs: Path) -> None:
    rng = random.Random(0)
    drawn = [draw_known(sft_recipe(runs), rng) for _ in range(400)]
    assert {frozenset(), frozenset({0, 1})} <= set(drawn)
    assert all(len(known) < 3 for known in drawn), "one scene is always left to learn"
    assert 0.3 < sum(not known for known in drawn) / 400 < 0.5


def test_the_autoencoder_batches_follow_the_recipe() -> None:
    recipe = VAERecipe(**(SMALL_VAE | {"num_steps": 6, "image_steps": 2, "full_size_steps": 2, "full_size_batch_size": 1}))
    clips = torch.randint(0, 256, (3, 9, 64, 96, 3), dtype=torch.uint8)
    shapes = [tuple(vae.draw_batch(recipe, clips, step).shape) for step in range(6)]
    assert shapes == [(2, 3, 1, 16, 24)] * 2 + [(1, 3, 9, 16, 24)] * 2 + [(1, 3, 9, 64, 96)] * 2
    assert torch.equal(vae.draw_batch(recipe, clips, 3), vae.draw_batch(recipe, clips, 3))


def test_the_average_follows_and_swaps_back() -> None:
    layer = torch.nn.Linear(2, 2)
    ema = EMA({"layer": layer}, decay=0.5)
    start = layer.weight.detach().clone()
    with torch.no_grad():
        layer.weight += 1
    ema.update(step=100)
    ema.swap()
    torch.testing.assert_close(layer.weight, start + 0.5)
    ema.swap()
    torch.testing.assert_close(layer.weight, start + 1)


def test_generators_are_keyed_by_all_numbers() -> None:
    draws = [torch.randn(3, generator=generator_for(*key)).tolist() for key in ((0, 1), (0, 2), (1, 1), (0, 1, 1))]
    assert len({tuple(draw) for draw in draws}) == 4


def test_the_learning_rate_warms_up_and_ends_near_zero() -> None:
    factors = [learning_rate_factor(step, 100, 10, 0.2) for step in range(100)]
    assert factors[0] == 0.1 and factors[50] == 1.0 and factors[-1] == pytest.approx(0.05)


@pytest.mark.parametrize("path", sorted(RECIPES.glob("*.yaml")), ids=lambda path: path.stem)
def test_the_recipes_are_valid(path: Path) -> None:
    assert read_recipe(path, []).level == "A"


@pytest.mark.parametrize(
    ("change", "named"),
    [("num_steps=0", "num_steps"), ("colour=red", "colour"), ("crop=[1]", "crop"), ("num_steps", "key=value"), ("kind=x", "kind")],
)
def test_a_wrong_recipe_is_refused_in_one_line(change: str, named: str) -> None:
    with pytest.raises(InputError) as error:
        read_recipe(RECIPES / "vae.yaml", [change])
    assert named in str(error.value) and "\n" not in str(error.value)
