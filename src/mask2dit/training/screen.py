"""What a person sees while a model trains: one live line with step, loss, speed and time left."""

import time
from collections.abc import Mapping
from typing import Protocol

from mask2dit.training.config import DiffusionRecipe


class Screen(Protocol):
    """Where text goes. Only the main process has one that shows anything."""

    def line(self, text: str) -> None:
        """Say something that stays."""

    def live(self, text: str) -> None:
        """Say something that the next one may overwrite."""


class Progress:
    """Counts what the steps say between two lines, and the speed since the last one."""

    def __init__(self, recipe: DiffusionRecipe, first_step: int, screen: Screen) -> None:
        self._recipe, self._screen = recipe, screen
        self._shown = time.monotonic()
        self._losses: list[float] = []
        self._waited = 0.0
        if first_step:
            screen.line(f"going on after step {first_step}")

    def step(self, values: Mapping[str, float], waited: float) -> None:
        """Take in one step; show a line every `log_every_steps`."""
        self._losses.append(values["loss"])
        self._waited += waited
        step, recipe = int(values["step"]), self._recipe
        if step % recipe.log_every_steps and step != recipe.num_steps:
            return
        now = time.monotonic()
        speed = len(self._losses) * recipe.batch_size / max(now - self._shown, 1e-9)
        waiting = self._waited / max(now - self._shown, 1e-9)
        left = (recipe.num_steps - step) * recipe.batch_size / speed
        self._screen.live(
            f"step {step}/{recipe.num_steps}  loss {sum(self._losses) / len(self._losses):.4f}  {speed:.3g} samples/s  "
            f"{waiting:.0%} waiting for data  {_duration(left)} left"
        )
        self._losses.clear()
        self._shown, self._waited = now, 0.0


def _duration(seconds: float) -> str:
    minutes = round(seconds / 60)
    return f"{seconds:.0f} s" if seconds < 90 else f"{minutes} min" if minutes < 120 else f"{minutes / 60:.1f} h"
