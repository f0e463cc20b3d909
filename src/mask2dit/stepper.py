"""One scheduler stepped scene by scene, and where a denoising loop is: enough to go on as if it had never stopped.

What is predicted belongs to the pipeline; where a state is kept, to production.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

import torch
from diffusers import CogVideoXDPMScheduler
from torch import Tensor


@dataclass(frozen=True, slots=True)
class DenoisingState:
    """A loop after `step` steps. `latents`: [F_s, C, H, W] per scene; `clean`: scene → its clean latents as predicted in the last step.

    `generators`: the state of each scene's generator, None where it has none of its own.
    """

    step: int
    latents: tuple[Tensor, ...]
    clean: Mapping[int, Tensor] = field(default_factory=dict)
    generators: tuple[Tensor | None, ...] = ()

    def tensors(self) -> dict[str, Tensor]:
        """All of it as named tensors, for a file."""
        named = {f"latents.{index}": each for index, each in enumerate(self.latents)}
        named |= {f"clean.{index}": each for index, each in self.clean.items()}
        named |= {f"generator.{index}": each for index, each in enumerate(self.generators) if each is not None}
        return {name: each.detach().cpu().contiguous() for name, each in named.items()} | {"step": torch.tensor(self.step)}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor]) -> Self:
        """The reverse of `tensors`. Raises KeyError or ValueError for other tensors."""
        parts: dict[str, dict[int, Tensor]] = {"latents": {}, "clean": {}, "generator": {}}
        for name, tensor in tensors.items():
            if name != "step":
                kind, index = name.split(".")
                parts[kind][int(index)] = tensor
        count = len(parts["latents"])
        return cls(
            step=int(tensors["step"]),
            latents=tuple(parts["latents"][index] for index in range(count)),
            clean=parts["clean"],
            generators=tuple(parts["generator"].get(index) for index in range(count)),
        )


class Stepper:
    """A scheduler whose timesteps are set, stepped scene by scene, so that a scene's noise depends on its own generator alone."""

    def __init__(self, scheduler: Any, generators: Sequence[torch.Generator | None], state: DenoisingState | None = None) -> None:
        self._scheduler = scheduler
        self._generators = generators
        self.clean: dict[int, Tensor] = {}
        if state is not None:
            device = scheduler.timesteps.device
            self.clean = {index: each.to(device) for index, each in state.clean.items()}
            for generator, kept in zip(generators, state.generators, strict=True):
                if generator is not None and kept is not None:
                    generator.set_state(kept.cpu())

    def step(self, prediction: Tensor, scene: Tensor, step: int, index: int) -> Tensor:
        """[F_s, C, H, W] one timestep cleaner, in the scene's dtype."""
        timesteps = self._scheduler.timesteps
        if isinstance(self._scheduler, CogVideoXDPMScheduler):
            earlier = timesteps[step - 1] if step > 0 else None
            cleaner, self.clean[index] = self._scheduler.step(
                prediction,
                self.clean.get(index),
                timesteps[step],
                earlier,
                scene,
                generator=self._generators[index],
                return_dict=False,
            )
        else:
            cleaner, *clean = self._scheduler.step(prediction, timesteps[step], scene, return_dict=False)
            if clean:
                self.clean[index] = clean[0]
        return cleaner.to(scene.dtype)  # type: ignore[no-any-return]

    def state(self, step: int, scenes: Sequence[Tensor]) -> DenoisingState:
        """After `step` steps."""
        generators = tuple(None if each is None else each.get_state() for each in self._generators)
        return DenoisingState(step, tuple(scenes), dict(self.clean), generators)
