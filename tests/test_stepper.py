"""A denoising that goes on from any step ends as if it had never stopped."""

import pytest
import torch
from safetensors.torch import load, save

import tiny
from mask2dit.errors import InputError
from mask2dit.stepper import DenoisingState

STEPS = 4
CAPTIONS = ["a red fox walks", "the fox jumps", "a bear sleeps"]


@pytest.mark.parametrize(("solver", "known"), [(None, False), ("sde-dpm++", True), ("dpm++", False), ("unipc", True)])
def test_going_on_is_the_same_as_not_stopping(solver: str | None, known: bool) -> None:
    pipeline = tiny.pipeline()
    known_scenes = {1: torch.randn(3, 4, 4, 6, generator=torch.Generator().manual_seed(9))} if known else {}
    states: list[DenoisingState] = []

    def film(**options: object) -> list[torch.Tensor]:
        generators = [torch.Generator().manual_seed(seed) for seed in (1, 2, 3)]
        given = {
            "known_scenes": known_scenes,
            "generator": generators,
            "num_inference_steps": STEPS,
            "output_type": "latent",
            "solver": solver,
        }
        return pipeline(CAPTIONS, **given, **options).scenes

    def keep(_: object, step: int, timestep: object, tensors: dict) -> None:
        assert tensors["state"].step == step + 1
        states.append(DenoisingState.from_tensors(load(save(tensors["state"].tensors()))))  # through a file

    whole = film(callback_on_step_end=keep)
    assert len(states) == STEPS
    for state in states:
        again = film(resume=state)
        assert all(torch.equal(one, other) for one, other in zip(whole, again, strict=True)), state.step


@pytest.mark.parametrize("solver", [None, "dpm++"])
def test_what_a_scene_comes_to_is_in_the_state(solver: str | None) -> None:
    """In the last step the prediction of the clean scene is the scene."""
    pipeline, states = tiny.pipeline(), []
    options = {"num_inference_steps": 3, "output_type": "latent", "solver": solver}
    result = pipeline(CAPTIONS, callback_on_step_end=lambda *given: states.append(given[3]["state"]), **options)
    assert set(states[-1].clean) == {0, 1, 2}
    assert all(torch.allclose(states[-1].clean[scene], result.scenes[scene], atol=1e-5) for scene in range(3))


def test_a_state_of_another_call_is_refused() -> None:
    pipeline, states = tiny.pipeline(), []
    pipeline(CAPTIONS, num_inference_steps=2, output_type="latent", callback_on_step_end=lambda *given: states.append(given[3]["state"]))
    with pytest.raises(InputError, match="resume: got 3 scenes of other shapes"):
        pipeline(CAPTIONS, num_frames=5, num_inference_steps=2, resume=states[0])
