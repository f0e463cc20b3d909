"""Solvers and guidance intervals in the loop: who is predicted when, and that nothing else changes."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from diffusers import CogVideoXDPMScheduler
from torch import Tensor

import tiny
from mask2dit import Mask2DiTPipeline
from mask2dit.errors import InputError
from mask2dit.film_request import Shortcuts

CAPTIONS = ["a red fox walks", "the fox jumps", "a blue bear sleeps"]
SOLVERS = ("ddim", "dpm++", "sde-dpm++", "unipc")


@pytest.fixture(scope="module")
def pipeline() -> Mask2DiTPipeline:
    return tiny.pipeline()


@pytest.fixture
def calls(pipeline: Mask2DiTPipeline) -> Iterator[list[float]]:
    """The timestep of every call of the transformer, after the negative prompt's is told by its sign."""
    seen: list[float] = []
    hook = pipeline.transformer.register_forward_pre_hook(lambda _, args: seen.append(float(args[2].max())))
    yield seen
    hook.remove()


def film(pipeline: Mask2DiTPipeline, captions: list[str] = CAPTIONS, **options: Any) -> list[Tensor]:
    generators = [torch.Generator().manual_seed(seed) for seed in range(len(captions))]
    return pipeline(captions, generator=generators, output_type="latent", **options).scenes


def same(one: list[Tensor], other: list[Tensor]) -> bool:
    return all(torch.equal(mine, theirs) for mine, theirs in zip(one, other, strict=True))


# Solvers


def test_the_models_own_solver_by_name_is_the_same_film(pipeline: Mask2DiTPipeline) -> None:
    assert same(film(pipeline, solver="ddim"), film(pipeline))
    named = film(pipeline, solver="sde-dpm++")
    own = pipeline.scheduler
    pipeline.scheduler = CogVideoXDPMScheduler.from_config(own.config)
    assert same(named, film(pipeline))
    pipeline.scheduler = own


@pytest.mark.parametrize("solver", SOLVERS)
def test_a_solver_steps_each_scene_by_itself_and_known_ones_never(pipeline: Mask2DiTPipeline, solver: str) -> None:
    """Under a plan without any meeting of scenes, a scene is what it is beside others, too."""
    given = torch.randn(2, 4, 4, 6, generator=torch.Generator().manual_seed(5))
    pipeline.transformer.set_attention_plan("isolated")
    try:
        three = film(pipeline, known_scenes={1: given}, num_inference_steps=4, solver=solver)
        alone = film(pipeline, CAPTIONS[:1], num_inference_steps=4, solver=solver)
    finally:
        pipeline.transformer.set_attention_plan("symmetric")
    assert torch.equal(three[1], given)
    assert torch.allclose(three[0], alone[0], atol=1e-4)
    assert all(scene.isfinite().all() for scene in three)


def test_multistep_solvers_work_in_half_precision() -> None:
    pipeline = tiny.pipeline().to(torch.bfloat16)
    for solver in ("dpm++", "unipc"):
        scenes = film(pipeline, num_inference_steps=3, solver=solver)
        assert all(scene.dtype == torch.bfloat16 and scene.isfinite().all() for scene in scenes)


# Guidance intervals


def test_the_whole_run_is_no_interval(pipeline: Mask2DiTPipeline) -> None:
    assert same(film(pipeline, guidance_interval=(0.0, 1.0)), film(pipeline))


@pytest.mark.parametrize(
    ("interval", "guided"), [((0.0, 0.6), (0, 1, 2)), ((0.2, 0.8), (1, 2, 3)), ((0.5, 1.0), (3, 4)), ((0.15, 0.19), ()), (None, range(5))]
)
def test_both_branches_run_inside_of_the_interval_only(
    pipeline: Mask2DiTPipeline, calls: list[float], interval: tuple[float, float] | None, guided: tuple[int, ...]
) -> None:
    film(pipeline, CAPTIONS[:1], num_frames=1, num_inference_steps=5, guidance_interval=interval)
    assert [calls.count(t) for t in (999, 799, 599, 399, 199)] == [2 if step in guided else 1 for step in range(5)]


def test_outside_of_the_interval_it_is_the_captioned_prediction_alone(pipeline: Mask2DiTPipeline) -> None:
    plain = film(pipeline, guidance_scale=1, num_inference_steps=3)
    assert same(film(pipeline, guidance_scale=6, num_inference_steps=3, guidance_interval=(0.9, 1.0)), plain)
    assert same(film(pipeline, guidance_scale=1, num_inference_steps=3, guidance_interval=(0.0, 0.5)), plain)


# At the door


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"solver": "euler"}, r"solver: got 'euler', expected ddim, dpm\+\+, sde-dpm\+\+, unipc; leave it out"),
        (
            {"guidance_interval": (0.6, 0.2)},
            "guidance interval: got 0.6-0.2, expected two shares of the run from 0 to 1, the smaller one first",
        ),
        ({"guidance_interval": (0.0, 1.5)}, "guidance interval: got 0-1.5"),
        ({"guidance_interval": (float("nan"), 1.0)}, "guidance interval: got nan-1"),
        ({"step_cache": 3}, "step cache: got 3, expected first-block:0.05 or pyramid:2"),
        ({"step_cache": "magic"}, "step cache: got 'magic', expected first-block:0.05 or pyramid:2, with another number or without"),
        ({"step_cache": "pyramid:1.5"}, "step cache: got 'pyramid:1.5', expected a whole number of at least 1 behind pyramid"),
        ({"step_cache": "first-block:-1"}, "expected a number of at least 0 behind first-block"),
        ({"step_cache": "first-block:"}, "expected a number of at least 0 behind first-block"),
    ],
)
def test_mistakes_are_found_before_anything_is_computed(
    pipeline: Mask2DiTPipeline, calls: list[float], asked: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        film(pipeline, **asked)
    assert calls == []


def test_a_cache_is_written_with_its_number() -> None:
    assert [Shortcuts(step_cache=text).step_cache for text in ("pyramid", "pyramid:3", "first-block", "first-block:0.10")] == [
        "pyramid:2",
        "pyramid:3",
        "first-block:0.05",
        "first-block:0.1",
    ]
    assert Shortcuts(step_cache="pyramid") == Shortcuts(step_cache="pyramid:2")
