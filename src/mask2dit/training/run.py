"""From a recipe to the training that it describes."""

import os
from pathlib import Path

import torch

from mask2dit.errors import InputError
from mask2dit.training.config import DiffusionRecipe, JudgeRecipe, Recipe, TextRecipe, VAERecipe
from mask2dit.training.screen import Screen


def train(recipe: Recipe, run: Path, screen: Screen) -> Path:
    """Train, or go on where `run` stopped; returns what was made. The parts of the built-in model train in one process."""
    if isinstance(recipe, DiffusionRecipe):
        from mask2dit.training.loop import train_diffusion

        return train_diffusion(recipe, run, screen)
    device = best_device()
    if isinstance(recipe, VAERecipe):
        from mask2dit.training.vae import train_vae

        return train_vae(recipe, run, device, screen.line)
    if isinstance(recipe, TextRecipe):
        from mask2dit.training.text import train_text_encoder

        return train_text_encoder(recipe, run, device, screen.line)
    assert isinstance(recipe, JudgeRecipe)
    from mask2dit.training.judge import train_judge

    return train_judge(recipe, run, device, screen.line)


def fill_cache(recipe: Recipe, run: Path, screen: Screen) -> Path:
    """`--precompute`: encode the recipe's data once."""
    if not isinstance(recipe, DiffusionRecipe):
        raise InputError(f"--precompute: got a recipe of kind {recipe.kind}, expected diffusion; leave it out")
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise InputError("--precompute: got several processes, expected one, which fills the cache for all; start it without torchrun")
    from mask2dit.training.precompute import precompute

    return precompute(recipe, run, best_device(), screen)


def best_device() -> torch.device:
    """CUDA if there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")
