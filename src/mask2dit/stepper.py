"""One scheduler stepped scene by scene, and where a denoising loop is: enough to go on as if it had never stopped.

What is predicted belongs to the pipeline; where a state is kept, to production; which scheduler a name means, to solvers.
"""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

import torch
from diffusers import CogVideoXDPMScheduler, DPMSolverMultistepScheduler, UniPCMultistepScheduler
from torch import Tensor


@dataclass(frozen=True, slots=True)
class DenoisingState:
    """A loop after `step` steps. `latents`: [F_s, C, H, W] per scene; `clean`: scene → its clean latents as predicted in the last step.

    `generators`: the state of each scene's generator, None where it has none of its own. `solver`: scene → what its solver remembers of
    earlier steps, by name.
    """

    step: int
    latents: tuple[Tensor, ...]
    clean: Mapping[int, Tensor] = field(default_factory=dict)
    generators: tuple[Tensor | None, ...] = ()
    solver: Mapping[int, Mapping[str, Tensor]] = field(default_factory=dict)

    def tensors(self) -> dict[str, Tensor]:
        """All of it as named tensors, for a file."""
        named = {f"latents.{index}": each for index, each in enumerate(self.latents)}
        named |= {f"clean.{index}": each for index, each in self.clean.items()}
        named |= {f"generator.{index}": each for index, each in enumerate(self.generators) if each is not None}
        named |= {f"solver.{index}.{name}": each for index, kept in self.solver.items() for name, each in kept.items()}
        return {name: each.detach().cpu().contiguous() for name, each in named.items()} | {"step": torch.tensor(self.step)}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor]) -> Self:
        """The reverse of `tensors`. Raises KeyError or ValueError for other tensors."""
        parts: dict[str, dict[int, Tensor]] = {"latents": {}, "clean": {}, "generator": {}}
        solver: dict[int, dict[str, Tensor]] = {}
        for name, tensor in tensors.items():
            kind, _, rest = name.partition(".")
            if kind == "solver":
                index, what = rest.split(".", maxsplit=1)
                solver.setdefault(int(index), {})[what] = tensor
            elif name != "step":
                parts[kind][int(rest)] = tensor
        count = len(parts["latents"])
        return cls(
            step=int(tensors["step"]),
            latents=tuple(parts["latents"][index] for index in range(count)),
            clean=parts["clean"],
            generators=tuple(parts["generator"].get(index) for index in range(count)),
            solver=solver,
        )


class SceneSteps:
    """The steps of one scene, each following from the one before by its prediction alone. `clean`: the scene, as predicted last."""

    def __init__(self, scheduler: Any, generator: torch.Generator | None) -> None:
        self.scheduler, self.generator = scheduler, generator
        self.clean: Tensor | None = None

    def step(self, prediction: Tensor, scene: Tensor, step: int) -> Tensor:
        """[F_s, C, H, W] one timestep cleaner."""
        cleaner, *clean = self.scheduler.step(prediction, self.scheduler.timesteps[step], scene, return_dict=False)
        self.clean = clean[0] if clean else None
        return cleaner  # type: ignore[no-any-return]

    def memory(self) -> dict[str, Tensor]:
        """What it remembers, beside `clean`."""
        return {}

    def recall(self, step: int, memory: Mapping[str, Tensor]) -> None:
        """Go on after `step` steps; `clean` is set."""


class StochasticSteps(SceneSteps):
    """CogVideoX's SDE solver: it draws noise in every step, and looks back at what was predicted before."""

    def step(self, prediction: Tensor, scene: Tensor, step: int) -> Tensor:
        """See the base class."""
        timesteps = self.scheduler.timesteps
        earlier = timesteps[step - 1] if step > 0 else None
        given = (prediction, self.clean, timesteps[step], earlier, scene)
        cleaner, self.clean = self.scheduler.step(*given, generator=self.generator, return_dict=False)
        return cleaner  # type: ignore[no-any-return]


class MultistepSteps(SceneSteps):
    """A solver that keeps earlier predictions in itself, so each scene has one of its own, which computes in float32."""

    def __init__(self, scheduler: Any, generator: torch.Generator | None) -> None:
        super().__init__(copy.deepcopy(scheduler), generator)

    def step(self, prediction: Tensor, scene: Tensor, step: int) -> Tensor:
        """See the base class."""
        (cleaner,) = self.scheduler.step(prediction, self.scheduler.timesteps[step], scene.float(), return_dict=False)
        self.clean = self.scheduler.model_outputs[-1]
        return cleaner  # type: ignore[no-any-return]

    def memory(self) -> dict[str, Tensor]:
        """See the base class."""
        solver = self.scheduler
        if self.clean is None:  # a known scene
            return {}
        kept = {f"output.{place}": each for place, each in enumerate(solver.model_outputs[:-1]) if each is not None}
        kept["lower_order_nums"] = torch.tensor(solver.lower_order_nums)
        if isinstance(solver, UniPCMultistepScheduler):
            kept |= {"last_sample": solver.last_sample, "this_order": torch.tensor(solver.this_order)}
        return kept

    def recall(self, step: int, memory: Mapping[str, Tensor]) -> None:
        """See the base class."""
        solver, device = self.scheduler, self.scheduler.timesteps.device
        solver.set_begin_index(step)
        if not memory:  # a known scene
            return
        earlier = [memory.get(f"output.{place}") for place in range(len(solver.model_outputs) - 1)]
        solver.model_outputs = [*(None if each is None else each.to(device) for each in earlier), self.clean]
        solver.lower_order_nums = int(memory["lower_order_nums"])
        if isinstance(solver, UniPCMultistepScheduler):
            solver.last_sample = memory["last_sample"].to(device)
            solver.this_order = int(memory["this_order"])


def steps_of(scheduler: Any) -> type[SceneSteps]:
    """How scenes are stepped with a scheduler."""
    if isinstance(scheduler, CogVideoXDPMScheduler):
        return StochasticSteps
    return MultistepSteps if isinstance(scheduler, DPMSolverMultistepScheduler | UniPCMultistepScheduler) else SceneSteps


class Stepper:
    """A scheduler whose timesteps are set, stepped scene by scene, so that a scene's noise depends on its own generator alone."""

    def __init__(self, scheduler: Any, generators: Sequence[torch.Generator | None], state: DenoisingState | None = None) -> None:
        kind = steps_of(scheduler)
        self._scenes = [kind(scheduler, generator) for generator in generators]
        if state is not None:
            for index, (scene, kept) in enumerate(zip(self._scenes, state.generators, strict=True)):
                clean = state.clean.get(index)
                scene.clean = None if clean is None else clean.to(scheduler.timesteps.device)
                scene.recall(state.step, state.solver.get(index, {}))
                if scene.generator is not None and kept is not None:
                    scene.generator.set_state(kept.cpu())

    def step(self, prediction: Tensor, scene: Tensor, step: int, index: int) -> Tensor:
        """[F_s, C, H, W] one timestep cleaner, in the scene's dtype."""
        return self._scenes[index].step(prediction, scene, step).to(scene.dtype)

    def state(self, step: int, scenes: Sequence[Tensor]) -> DenoisingState:
        """After `step` steps."""
        return DenoisingState(
            step=step,
            latents=tuple(scenes),
            clean={index: each.clean for index, each in enumerate(self._scenes) if each.clean is not None},
            generators=tuple(None if each.generator is None else each.generator.get_state() for each in self._scenes),
            solver={index: memory for index, each in enumerate(self._scenes) if (memory := each.memory())},
        )
