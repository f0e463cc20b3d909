"""One step of a film: which guidance branches are predicted, and how their predictions take its scenes a timestep further.

What predicts is predictor's, how a scheduler is stepped is stepper's, and the loop with what happens between steps is the pipeline's.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from mask2dit.film_request import FilmRequest
from mask2dit.predictor import Predictor
from mask2dit.step_caches import Clock
from mask2dit.stepper import Stepper


@dataclass(frozen=True, slots=True)
class Denoising:
    """A film on its way from noise to clean latents."""

    request: FilmRequest
    predict: Predictor
    stepper: Stepper
    clock: Clock

    def step(self, scenes: Sequence[Tensor], t: Tensor, step: int) -> list[Tensor]:
        """Scenes [F_s, C, H, W] after step `step`, from timestep t; known ones as they are."""
        self.clock.step = step
        predictions = self.predict(scenes, t, ("cond", "uncond") if self.request.guides(step) else ("cond",))
        cleaner = list(scenes)
        for index, guided in predictions["cond"].items():
            if "uncond" in predictions:
                plain = predictions["uncond"][index]
                guided = plain + self.request.effective_guidance(index) * (guided - plain)
            cleaner[index] = self.stepper.step(guided, scenes[index], step, index)
        return cleaner
