"""Solvers stay on the model's own noise schedule, step from its timesteps, and are refused by name before anything is computed."""

from typing import Any

import pytest
import torch
from diffusers import CogVideoXDDIMScheduler, CogVideoXDPMScheduler, EulerDiscreteScheduler

import tiny
from mask2dit.errors import InputError
from mask2dit.solvers import SOLVERS, make_scheduler
from mask2dit.stepper import Stepper

STEPS = (1, 2, 7, 12, 20, 25, 50)
SCALES = {"5B": {}, "2B": {"snr_shift_scale": 3.0}, "no zero terminal SNR": {"rescale_betas_zero_snr": False}}


@pytest.fixture(params=SCALES, ids=SCALES.get)
def own(request: pytest.FixtureRequest) -> Any:
    return CogVideoXDDIMScheduler.from_config(tiny.released_scheduler().config, **SCALES[request.param])


@pytest.mark.parametrize("name", SOLVERS)
def test_alphas_and_timesteps_are_those_of_the_model(own: Any, name: str) -> None:
    solver = make_scheduler(name, own)
    ends_in_zero = own.alphas_cumprod[-1] == 0
    count = 999 if ends_in_zero else 1000
    assert torch.allclose(solver.alphas_cumprod[:count].double(), own.alphas_cumprod[:count], rtol=1e-5, atol=0)
    if ends_in_zero:
        assert solver.alphas_cumprod[-1] == (2**-24 if name in ("dpm++", "unipc") else 0)
    assert solver.config.prediction_type == "v_prediction" and solver.init_noise_sigma == 1
    for steps in STEPS:
        own.set_timesteps(steps)
        solver.set_timesteps(steps)
        assert torch.equal(solver.timesteps, own.timesteps), steps
        assert solver.timesteps[0] == 999


@pytest.mark.parametrize("name", SOLVERS)
@pytest.mark.parametrize("steps", [1, 2, 5, 20])
def test_the_true_prediction_leads_to_the_clean_scene(name: str, steps: int) -> None:
    """v = √ᾱ·noise − √(1−ᾱ)·clean, as a model that knows the scene would say: every solver then ends at that scene."""
    own, generator = tiny.released_scheduler(), torch.Generator().manual_seed(0)
    clean, scene = torch.randn(2, 3, 4, 4, 4, generator=generator)
    solver = make_scheduler(name, own)
    solver.set_timesteps(steps)
    stepper = Stepper(solver, [generator])
    for step, t in enumerate(solver.timesteps):
        alpha = own.alphas_cumprod[t].float()
        noise = (scene - alpha.sqrt() * clean) / (1 - alpha).sqrt()
        scene = stepper.step(alpha.sqrt() * noise - (1 - alpha).sqrt() * clean, scene, step, 0)
        assert scene.isfinite().all()
    assert torch.allclose(scene, clean, atol=2e-3)  # one step from 2^-24 in place of 0 adds 2^-12 of the noise


@pytest.mark.parametrize("name", ["dpm++", "unipc"])
def test_more_accurate_than_ddim_with_the_same_steps(name: str) -> None:
    """Normal data of spread 0.5: its best prediction is known, and so is the way of the noise, which is shrunk as the spread is."""
    own = tiny.released_scheduler()

    def error(solver: str) -> float:
        scheduler = make_scheduler(solver, own)
        scheduler.set_timesteps(12)
        start = scene = torch.linspace(-2, 2, 9).reshape(1, 1, 3, 3)
        stepper, error = Stepper(scheduler, [None]), 0.0
        for step, t in enumerate(scheduler.timesteps):  # the last step goes to no noise at all, in one jump, by any solver
            alpha = own.alphas_cumprod[t].float()
            variance = alpha * 0.25 + 1 - alpha
            error = float((scene - variance.sqrt() * start).abs().max())
            clean, noise = alpha.sqrt() * 0.25 * scene / variance, (1 - alpha).sqrt() * scene / variance
            scene = stepper.step(alpha.sqrt() * noise - (1 - alpha).sqrt() * clean, scene, step, 0)
        return error

    assert error(name) < 0.2 * error("ddim")


def test_none_is_the_models_own_and_its_own_name_changes_nothing() -> None:
    own = tiny.released_scheduler()
    assert make_scheduler(None, own) is own
    assert make_scheduler("ddim", own).config == own.config
    other = CogVideoXDPMScheduler.from_config(own.config)
    assert make_scheduler("ddim", other).config == own.config


def test_unknown_names_and_other_models_are_refused() -> None:
    own = tiny.released_scheduler()
    with pytest.raises(InputError, match=r"solver: got 'euler', expected ddim, dpm\+\+, sde-dpm\+\+, unipc; leave it out"):
        make_scheduler("euler", own)
    leading = CogVideoXDDIMScheduler.from_config(own.config, timestep_spacing="leading")
    with pytest.raises(InputError, match="CogVideoXDDIMScheduler of leading spacing, expected"):
        make_scheduler("unipc", leading)
    with pytest.raises(InputError, match="EulerDiscreteScheduler"):
        make_scheduler("dpm++", EulerDiscreteScheduler())
