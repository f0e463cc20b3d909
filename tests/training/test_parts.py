"""The built-in model's own parts, tiny: autoencoder and text encoder learn, and resume as if they had never stopped."""

from pathlib import Path

import pytest
import torch

from mask2dit.playhouse.captions import split_words
from mask2dit.training import text, vae
from mask2dit.training.config import TextRecipe, VAERecipe
from mask2dit.training.state import EMA, learning_rate_factor

CPU = torch.device("cpu")
SMALL_VAE = {"kind": "vae", "level": "A", "num_stories": 1, "num_steps": 2, "image_steps": 1, "image_batch_size": 2, "batch_size": 1}
SMALL_VAE |= {"crop": (16, 24), "learning_rate": 1e-3, "channels": (4, 4, 4), "latent_channels": 4, "norm_num_groups": 2}
SMALL_TEXT = {"kind": "text", "level": "A", "num_steps": 60, "batch_size": 8, "learning_rate": 1e-2, "warmup_steps": 5}
SMALL_TEXT |= {"text": {"max_length": 32, "dim": 16, "num_layers": 1, "num_heads": 2}}


def quiet(line: str) -> None:
    pass


def test_an_autoencoder_is_trained_measured_and_written(tmp_path: Path) -> None:
    lines: list[str] = []
    folder = vae.train_vae(VAERecipe(**SMALL_VAE), tmp_path, CPU, lines.append)
    assert (folder / "config.json").is_file() and "dB" in lines[-1]


@pytest.mark.slow
def test_an_autoencoder_that_was_stopped_goes_on_as_if_it_never_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = VAERecipe(**(SMALL_VAE | {"num_steps": 3, "save_every_minutes": 0.0}))
    vae.train_vae(recipe, tmp_path / "whole", CPU, quiet)
    draw_batch = vae.draw_batch

    def stopped(recipe: VAERecipe, clips: torch.Tensor, step: int) -> torch.Tensor:
        if step == 2:
            raise KeyboardInterrupt
        return draw_batch(recipe, clips, step)

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(vae, "draw_batch", stopped)
        vae.train_vae(recipe, tmp_path / "halves", CPU, quiet)
    vae.train_vae(recipe, tmp_path / "halves", CPU, quiet)
    whole, halves = (torch.load(tmp_path / name / "state.pt", weights_only=True) for name in ("whole", "halves"))
    assert all(torch.equal(value, halves["ema"][key]) for key, value in whole["ema"].items())


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


def test_the_learning_rate_warms_up_and_ends_near_zero() -> None:
    factors = [learning_rate_factor(step, 100, 10, 0.2) for step in range(100)]
    assert factors[0] == 0.1 and factors[50] == 1.0 and factors[-1] == pytest.approx(0.05)
