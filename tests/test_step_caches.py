"""Step caches: what is skipped, that branches, films and known scenes are kept apart, and that nothing stays behind."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from diffusers import FirstBlockCacheConfig
from torch import Tensor

import tiny
from mask2dit import Mask2DiTPipeline
from mask2dit.errors import InputError
from mask2dit.sequence_parallel import SequenceParallel
from mask2dit.step_caches import PYRAMID_HOOK, caching
from mask2dit.stepper import DenoisingState

CAPTIONS = ["a red fox walks", "the fox jumps", "a blue bear sleeps"]
CACHES = ("first-block:1e9", "pyramid:3")
STEPS = 10


@pytest.fixture
def pipeline() -> Mask2DiTPipeline:
    return tiny.pipeline()


def film(pipeline: Mask2DiTPipeline, steps: int = STEPS, **options: Any) -> list[Tensor]:
    generators = [torch.Generator().manual_seed(seed) for seed in range(3)]
    return pipeline(CAPTIONS, num_frames=[5, 1, 1], generator=generators, num_inference_steps=steps, output_type="latent", **options).scenes


def same(one: list[Tensor], other: list[Tensor]) -> bool:
    return all(torch.equal(mine, theirs) for mine, theirs in zip(one, other, strict=True))


@contextmanager
def computed(pipeline: Mask2DiTPipeline) -> Iterator[list[list[int]]]:
    """Per block, how many tokens its attention was computed for, each time that it was."""
    seen: list[list[int]] = [[] for _ in pipeline.transformer.transformer_blocks]
    hooks = [
        block.attn1.to_q.register_forward_pre_hook(lambda _, args, own=own: own.append(args[0].shape[1]))
        for block, own in zip(pipeline.transformer.transformer_blocks, seen, strict=True)
    ]
    yield seen
    for hook in hooks:
        hook.remove()


def hooks_left(pipeline: Mask2DiTPipeline) -> list[str]:
    registries = [each._diffusers_hook for each in pipeline.transformer.modules() if hasattr(each, "_diffusers_hook")]
    return [name for registry in registries for name in registry.hooks]


@pytest.mark.parametrize(
    ("cache", "counts"),
    [("first-block:1e9", [20, 2, 2]), ("pyramid:3", [10, 10, 10]), ("pyramid", [14, 14, 14]), (None, [20, 20, 20])],
)
def test_what_is_computed_is_computed_for_all_scenes(pipeline: Mask2DiTPipeline, cache: str | None, counts: list[int]) -> None:
    """Two branches in 10 steps. Pyramid: of steps 2 to 8 only those that its number divides: 3, 6 or 2, 4, 6, 8."""
    with computed(pipeline) as seen:
        scenes = film(pipeline, step_cache=cache)
    assert [len(each) for each in seen] == counts
    tokens = 3 * 64 + 4 * 6
    assert {count for each in seen for count in each} == {tokens}
    assert all(scene.isfinite().all() for scene in scenes)


@pytest.mark.parametrize("cache", ["first-block:0", "pyramid:1"])
def test_the_smallest_number_is_no_cache(pipeline: Mask2DiTPipeline, cache: str) -> None:
    assert same(film(pipeline, 5, step_cache=cache), film(pipeline, 5))


@pytest.mark.parametrize("cache", CACHES)
def test_nothing_is_left_from_one_film_to_the_next(pipeline: Mask2DiTPipeline, cache: str) -> None:
    exact, cached = film(pipeline), film(pipeline, step_cache=cache)
    assert not same(cached, exact)

    def stop(_: object, step: int, *__: object) -> dict[str, Any]:
        if step == 4:
            raise KeyboardInterrupt
        return {}

    with pytest.raises(KeyboardInterrupt):
        film(pipeline, step_cache=cache, guidance_scale=9, callback_on_step_end=stop)
    assert hooks_left(pipeline) == [] and not pipeline.transformer.is_cache_enabled
    assert same(film(pipeline, step_cache=cache), cached) and same(film(pipeline), exact)


def test_with_compiled_blocks(pipeline: Mask2DiTPipeline) -> None:
    cached = film(pipeline, step_cache="first-block:1e9")
    pipeline.transformer.compile_repeated_blocks(fullgraph=True, backend="eager")
    assert same(film(pipeline, step_cache="first-block:1e9"), cached)
    with pytest.raises(InputError, match="got pyramid:2 with compiled blocks, of which it would be the inside, expected first-block"):
        film(pipeline, step_cache="pyramid")


@pytest.mark.parametrize("cache", CACHES)
def test_known_scenes_come_out_untouched(pipeline: Mask2DiTPipeline, cache: str) -> None:
    given = torch.randn(2, 4, 4, 6, generator=torch.Generator().manual_seed(5))
    scenes = film(pipeline, known_scenes={0: given}, step_cache=cache)
    assert torch.equal(scenes[0], given) and all(scene.isfinite().all() for scene in scenes)


@pytest.mark.parametrize("cache", CACHES)
def test_guidance_branches_are_kept_apart(cache: str) -> None:
    """What one branch predicts is the same, bit for bit, whether the other one is computed between its steps or not."""
    model = tiny.transformer()
    captioned, negative = tiny.inputs(model, (3, 5), (2, 1), seed=1), tiny.inputs(model, (3, 5), (2, 1), seed=2)
    captioned["encoder_hidden_states"], negative["encoder_hidden_states"] = torch.full((2, 8, 20), 3.0), torch.full((2, 8, 20), -3.0)

    def run(*branches: tuple[str, dict[str, Any]]) -> list[Tensor]:
        made = []
        with caching(model, cache, STEPS) as clock, torch.no_grad():
            for clock.step in range(STEPS):
                for name, given in branches:
                    given = given | {"hidden_states": given["hidden_states"] * (1 - clock.step / STEPS)}
                    with model.cache_context(name):
                        prediction = model(**given).sample
                    if name == "cond":
                        made.append(prediction)
        return made

    alone, beside = run(("cond", captioned)), run(("cond", captioned), ("uncond", negative))
    assert same(alone, beside)
    mixed = run(("cond", captioned), ("cond", negative))[::2], run(("cond", negative), ("cond", captioned))[1::2]
    assert not all(same(each, alone) for each in mixed)  # as it would be with one state for both


@pytest.mark.parametrize("cache", CACHES)
def test_a_film_that_goes_on_starts_with_an_empty_cache_and_says_so(pipeline: Mask2DiTPipeline, cache: str) -> None:
    states: list[DenoisingState] = []
    film(pipeline, step_cache=cache, callback_on_step_end=lambda *given: states.append(given[3]["state"]))
    with pytest.warns(UserWarning, match=f"step cache {cache[:5]}.*starts empty where the denoising goes on"), computed(pipeline) as seen:
        scenes = film(pipeline, step_cache=cache, resume=states[6])
    assert all(each for each in seen) and all(scene.isfinite().all() for scene in scenes)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        film(pipeline, step_cache=cache)


def test_what_cannot_be_is_refused(pipeline: Mask2DiTPipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    pipeline.transformer.enable_cache(FirstBlockCacheConfig(threshold=0.1))
    with pytest.raises(InputError, match=r"step cache: got pyramid:2 for a transformer with a cache, expected none; disable_cache\(\) it"):
        film(pipeline, step_cache="pyramid")
    pipeline.transformer.disable_cache()
    monkeypatch.setattr(pipeline.transformer, "_sequence", SequenceParallel(None, 0, 2))
    with pytest.raises(InputError, match=r"step cache: got first-block:0\.05 with a sequence over several processes.*expected pyramid"):
        film(pipeline, step_cache="first-block")


def test_the_hook_is_gone_even_if_attaching_was_all(pipeline: Mask2DiTPipeline) -> None:
    with caching(pipeline.transformer, "pyramid", 4):
        assert hooks_left(pipeline).count(PYRAMID_HOOK) == 3
    assert hooks_left(pipeline) == []
