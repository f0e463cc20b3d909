"""Moving averages, the learning rate, and the state file of the small single-process trainings (autoencoder, text encoder, judge)."""

import pickle
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from mask2dit.errors import InputError, one_line
from mask2dit.files import written_aside


class EMA:
    """Exponential moving average of the parameters that train, in float32; warms up so that early weights do not linger."""

    def __init__(self, modules: Mapping[str, nn.Module], decay: float) -> None:
        self.decay = decay
        self._parameters = {
            f"{name}.{key}": p for name, module in modules.items() for key, p in module.named_parameters() if p.requires_grad
        }
        self.shadow = {key: p.detach().float().clone() for key, p in self._parameters.items()}

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take in the parameters after optimiser step number `step` (from 0)."""
        keep = min(self.decay, (step + 1) / (step + 10))
        averages = [_local(value) for value in self.shadow.values()]
        torch._foreach_lerp_(averages, [_local(p.detach()).float() for p in self._parameters.values()], 1 - keep)

    @torch.no_grad()
    def swap(self) -> None:
        """Exchange the parameters with their averages; twice is as before."""
        for key, parameter in self._parameters.items():
            held = parameter.detach().clone()
            parameter.copy_(self.shadow[key])
            self.shadow[key] = held


@contextmanager
def averaged(ema: EMA | None) -> Iterator[None]:
    """Within it, the parameters are their averages; without one, they are as they are."""
    if ema is not None:
        ema.swap()
    try:
        yield
    finally:
        if ema is not None:
            ema.swap()


def _local(tensor: Tensor) -> Tensor:
    """This device's share of a sharded tensor."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


class StateFile:
    """`state.pt` in the folder of a run, rewritten as it goes: written aside and renamed."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.mkdir(parents=True, exist_ok=True)

    def save(self, modules: Mapping[str, nn.Module], ema: EMA, optimizers: list[torch.optim.Optimizer], step: int) -> None:
        """Write the whole state after `step` finished steps."""
        state = {
            "step": step,
            "modules": {name: module.state_dict() for name, module in modules.items()},
            "ema": ema.shadow,
            "optimizers": [optimizer.state_dict() for optimizer in optimizers],
        }
        with written_aside(self.path / "state.pt") as part:
            try:
                torch.save(state, part)
            except RuntimeError as error:  # torch's writer hides what the system said
                raise OSError(one_line(error)) from error

    def resume(self, modules: Mapping[str, nn.Module], ema: EMA, optimizers: list[torch.optim.Optimizer]) -> int:
        """Load the state if there is one; the number of finished steps."""
        if not (self.path / "state.pt").exists():
            return 0
        try:
            state: dict[str, Any] = torch.load(self.path / "state.pt", weights_only=True)
            for name, module in modules.items():
                module.load_state_dict(state["modules"][name])
            for key, value in state["ema"].items():
                ema.shadow[key].copy_(value)
            for optimizer, saved in zip(optimizers, state["optimizers"], strict=True):
                optimizer.load_state_dict(saved)
            return int(state["step"])
        except (RuntimeError, KeyError, ValueError, OSError, EOFError, pickle.UnpicklingError) as error:
            raise InputError(
                f"{self.path}: holds the state of another run, or a damaged one ({one_line(error)}); choose another --output"
            ) from None


def learning_rate_factor(step: int, num_steps: int, warmup_steps: int, decay: float) -> float:
    """Linear warm-up, constant, then linear to zero over the last `decay` share of the run."""
    rising = (step + 1) / max(warmup_steps, 1)
    falling = (num_steps - step) / max(decay * num_steps, 1)
    return min(1.0, rising, falling)
