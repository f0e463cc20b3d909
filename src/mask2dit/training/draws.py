"""Every random choice of a training sample, as a function of (seed, the sample's number in the run) alone.

So the number of devices, the batch size, the workers that read data and a restart cannot change what is learned from which sample.
"""

import random
from dataclasses import dataclass

import torch
from torch import Tensor

from mask2dit.training.config import DiffusionRecipe

# What a generator is for: one more draw for one purpose does not shift those of another.
ORDER, POSTERIOR, NOISE, TIMESTEP = range(4)


def generator_for(seed: int, *numbers: int) -> torch.Generator:
    """A CPU generator keyed by the seed and by numbers such as the step; the same on every machine."""
    key = seed
    for number in numbers:
        key = (key * 6364136223846793005 + number + 1442695040888963407) % 2**63
    return torch.Generator().manual_seed(key)


@dataclass(frozen=True, slots=True)
class Draw:
    """`known` scene indices, one `timestep` for all generated scenes, and whether all captions are left empty."""

    known: frozenset[int]
    timestep: int
    empty: bool


def draw_for(recipe: DiffusionRecipe, number: int, num_train_timesteps: int) -> Draw:
    """What sample `number` learns: uniform t (the released trainer's), the known scenes and the caption dropout of the recipe."""
    rng = random.Random(f"draw/{recipe.seed}/{number}")
    timestep = torch.randint(num_train_timesteps, (1,), generator=generator_for(recipe.seed, number, TIMESTEP))
    return Draw(_draw_known(recipe, rng), int(timestep), rng.random() < recipe.empty_caption)


def _draw_known(recipe: DiffusionRecipe, rng: random.Random) -> frozenset[int]:
    """None, all but the last, or a random subset that leaves one to learn."""
    kind = rng.choices(list(recipe.known_sets), weights=list(recipe.known_sets.values()))[0]
    if kind == "none" or recipe.num_scenes == 1:
        return frozenset()
    if kind == "all-but-last":
        return frozenset(range(recipe.num_scenes - 1))
    return frozenset(rng.sample(range(recipe.num_scenes), rng.randint(1, recipe.num_scenes - 1)))


def draw_noise(recipe: DiffusionRecipe, number: int, purpose: int, shape: tuple[int, ...]) -> Tensor:
    """Standard normal numbers of sample `number`, float32 on the CPU."""
    return torch.randn(shape, generator=generator_for(recipe.seed, number, purpose))
