"""Solvers by name: which of diffusers' schedulers steps a film, always on the noise schedule that the model was trained with.

The mathematics are diffusers'. How a scheduler is stepped, scene by scene, is stepper's.
"""

from collections.abc import Callable
from typing import Any

import torch
from diffusers import CogVideoXDDIMScheduler, CogVideoXDPMScheduler, DPMSolverMultistepScheduler, UniPCMultistepScheduler

from mask2dit.errors import InputError


def _same_family(scheduler: Any) -> Callable[[Any], Any]:
    """CogVideoX's schedulers take one another's configuration."""
    return lambda own: scheduler.from_config(own.config)


def _multistep(scheduler: Any) -> Callable[[Any], Any]:
    """A general scheduler knows no shifted signal-to-noise ratio: it is given the betas that lead to the same alphas."""

    def make(own: Any) -> Any:
        config, alphas = own.config, own.alphas_cumprod.double()
        betas = 1 - alphas / torch.cat([alphas.new_ones(1), alphas[:-1]])
        return scheduler(
            num_train_timesteps=config.num_train_timesteps,
            trained_betas=betas.tolist(),
            prediction_type=config.prediction_type,
            timestep_spacing="trailing",
            # Changes nothing in alphas that end in 0, but that their last one becomes 2^-24: else the first sigma is infinite.
            rescale_betas_zero_snr=config.rescale_betas_zero_snr,
        )

    return make


SOLVERS: dict[str, Callable[[Any], Any]] = {
    "ddim": _same_family(CogVideoXDDIMScheduler),
    "dpm++": _multistep(DPMSolverMultistepScheduler),
    "sde-dpm++": _same_family(CogVideoXDPMScheduler),
    "unipc": _multistep(UniPCMultistepScheduler),
}


def check_solver(name: str | None) -> None:
    """Raise InputError for a name that is none."""
    if name is not None and name not in SOLVERS:
        raise InputError(f"solver: got {name!r}, expected {', '.join(SOLVERS)}; leave it out for the model's own")


def make_scheduler(name: str | None, own: Any) -> Any:
    """The scheduler of a name, for a model whose own is `own`; None is that one. Raises InputError for one that does not fit, or is none.

    Its alphas and its timesteps are those of the model's own; with zero terminal signal-to-noise ratio the last alpha of dpm++ and unipc is
    2^-24 in place of 0.
    """
    check_solver(name)
    if name is None:
        return own
    if not isinstance(own, CogVideoXDDIMScheduler | CogVideoXDPMScheduler) or own.config.timestep_spacing != "trailing":
        raise InputError(
            f"solver: got {name} for a model with a {type(own).__name__} of {own.config.get('timestep_spacing')} spacing, expected one of "
            "CogVideoX's, of trailing spacing; leave it out"
        )
    return SOLVERS[name](own)
