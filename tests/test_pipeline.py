"""The pipeline's laws: one loop for every set of known scenes, noise by scene, and errors before anything is computed."""

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import CogVideoXDDIMScheduler, CogVideoXDPMScheduler, CogVideoXPipeline, CogVideoXTransformer3DModel
from PIL import Image
from torch import Tensor

import tiny
from mask2dit import Mask2DiTPipeline, Storyboard
from mask2dit.errors import InputError, StoryboardError
from mask2dit.storyboard import Scene

CAPTIONS = ["a red fox walks", "the fox jumps", "a blue bear sleeps"]
LATENT = (4, 4, 6)  # channels, rows, columns


@pytest.fixture(scope="module")
def shared() -> Mask2DiTPipeline:
    return tiny.pipeline()


@pytest.fixture
def pipeline(shared: Mask2DiTPipeline) -> Iterator[Mask2DiTPipeline]:
    """The tiny pipeline; a test may change its plan and its scheduler."""
    scheduler = shared.scheduler
    yield shared
    shared.scheduler = scheduler
    shared.transformer.set_attention_plan("symmetric")


def seeds(*numbers: int) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(number) for number in numbers]


def film(pipeline: Mask2DiTPipeline, captions: Any = CAPTIONS, **options: Any) -> list[Tensor]:
    """Latents per scene, from seeds 0, 1, 2 … unless told otherwise."""
    if "generator" not in options and "latents" not in options:
        options["generator"] = seeds(*range(len(captions.scenes if isinstance(captions, Storyboard) else captions)))
    return pipeline(captions, output_type="latent", **options).scenes


def same(one: Sequence[Tensor], other: Sequence[Tensor]) -> bool:
    return len(one) == len(other) and all(torch.equal(mine, theirs) for mine, theirs in zip(one, other, strict=True))


def close(one: Tensor, other: Tensor) -> bool:
    return one.shape == other.shape and torch.allclose(one, other, atol=1e-4, rtol=1e-4)


def known_latents(num_latent_frames: int = 3, seed: int = 99) -> Tensor:
    return torch.randn(num_latent_frames, *LATENT, generator=torch.Generator().manual_seed(seed))


@contextmanager
def watched(module: torch.nn.Module) -> Iterator[list[dict[str, Any]]]:
    """The arguments of every forward, by place and by name."""
    calls: list[dict[str, Any]] = []

    def keep(_: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        calls.append({**dict(enumerate(args)), **kwargs})

    hook = module.register_forward_pre_hook(keep, with_kwargs=True)
    yield calls
    hook.remove()


# One scene is CogVideoX


@pytest.mark.parametrize("scheduler", [CogVideoXDDIMScheduler, CogVideoXDPMScheduler])
@pytest.mark.parametrize("guidance_scale", [1.0, 4.0])
def test_a_film_of_one_scene_is_the_video_of_the_stock_pipeline(pipeline: Mask2DiTPipeline, scheduler: Any, guidance_scale: float) -> None:
    pipeline.scheduler = scheduler.from_config(pipeline.scheduler.config)
    config = {key: value for key, value in pipeline.transformer.config.items() if key != "attention_plan" and not key.startswith("_")}
    transformer = CogVideoXTransformer3DModel(**config)
    transformer.load_state_dict(pipeline.transformer.state_dict())
    stock = CogVideoXPipeline(pipeline.tokenizer, pipeline.text_encoder, pipeline.vae, transformer.eval(), pipeline.scheduler)
    stock.set_progress_bar_config(disable=True)
    options = {"num_inference_steps": 3, "guidance_scale": guidance_scale, "height": 16, "width": 24, "num_frames": 9}
    noise = torch.randn(1, 3, *LATENT, generator=torch.Generator().manual_seed(0))
    theirs = stock(
        CAPTIONS[0],
        negative_prompt="a bear",
        latents=noise,
        max_sequence_length=64,
        generator=torch.Generator().manual_seed(1),
        output_type="np",
        **options,
    ).frames[0]
    ours = pipeline(CAPTIONS[:1], negative_prompt="a bear", latents=noise, generator=torch.Generator().manual_seed(1), **options).scenes[0]
    assert np.abs(ours - theirs).max() < 1e-4


# Results


def test_every_output_type(pipeline: Mask2DiTPipeline) -> None:
    def make(output_type: str) -> list[Any]:
        return pipeline(CAPTIONS, num_frames=[9, 5, 1], generator=seeds(0, 1, 2), output_type=output_type).scenes

    arrays, tensors, pictures, latents = (make(output_type) for output_type in ("np", "pt", "pil", "latent"))
    for count, array, tensor, frames, latent in zip((9, 5, 1), arrays, tensors, pictures, latents, strict=True):
        assert array.shape == (count, 16, 24, 3) and array.dtype == np.float32
        assert 0 <= array.min() < array.max() <= 1
        assert tensor.shape == (count, 3, 16, 24) and tensor.dtype == torch.float32
        assert np.array_equal(tensor.permute(0, 2, 3, 1).numpy(), array)
        assert len(frames) == count and all(isinstance(frame, Image.Image) and frame.size == (24, 16) for frame in frames)
        assert np.array_equal(np.stack([np.asarray(frame) for frame in frames]), (array * 255).round().astype(np.uint8))
        assert latent.shape == ((count - 1) // 4 + 1, *LATENT)
        assert np.array_equal(pipeline.decode_scene(latent), array)
        assert torch.equal(pipeline.decode_scene(latent, "pt"), tensor)


def test_scenes_are_decoded_one_by_one(pipeline: Mask2DiTPipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    decoded: list[int] = []
    real = pipeline.vae.decode
    monkeypatch.setattr(pipeline.vae, "decode", lambda latents: decoded.append(latents.shape[2]) or real(latents))
    pipeline(CAPTIONS, num_frames=[9, 1, 17])
    assert decoded == [3, 1, 5]
    pipeline(CAPTIONS, output_type="latent")
    assert len(decoded) == 3


def test_encode_scene_takes_floats_and_bytes(pipeline: Mask2DiTPipeline) -> None:
    frames = np.random.default_rng(0).integers(0, 256, (5, 16, 24, 3), dtype=np.uint8)
    latents = pipeline.encode_scene(frames)
    assert latents.shape == (2, *LATENT)
    assert torch.allclose(latents, pipeline.encode_scene(frames.astype(np.float32) / 255), atol=1e-5)
    assert torch.equal(latents, pipeline.encode_scene(torch.from_numpy(frames)))
    posterior = pipeline.vae.encode(torch.from_numpy(frames).permute(3, 0, 1, 2)[None] / 127.5 - 1).latent_dist
    assert torch.allclose(latents, posterior.mode()[0].transpose(0, 1) * 0.7, atol=1e-5)
    assert pipeline.decode_scene(latents).shape == (5, 16, 24, 3)


# Known scenes


@pytest.mark.parametrize("known", [{0}, {1}, {2}, {0, 1}, {0, 2}, {0, 1, 2}], ids=str)
@pytest.mark.parametrize("scheduler", [CogVideoXDDIMScheduler, CogVideoXDPMScheduler])
def test_known_scenes_come_out_untouched(pipeline: Mask2DiTPipeline, known: set[int], scheduler: Any) -> None:
    pipeline.scheduler = scheduler.from_config(pipeline.scheduler.config)
    given = {scene: known_latents(seed=scene) for scene in known}
    before = {scene: latents.clone() for scene, latents in given.items()}
    scenes = film(pipeline, known_scenes=given)
    assert all(torch.equal(scenes[scene], before[scene]) for scene in known)
    assert all(torch.equal(given[scene], before[scene]) for scene in known)
    assert all(scene.isfinite().all() for scene in scenes)


def test_known_scenes_are_exact_in_half_precision_too() -> None:
    pipeline = tiny.pipeline().to(torch.bfloat16)
    given = known_latents()
    scenes = film(pipeline, known_scenes={0: given})
    assert torch.equal(scenes[0], given)
    assert scenes[1].dtype == torch.bfloat16 and scenes[1].isfinite().all()


def test_a_known_scene_has_timestep_0_and_its_clean_latents_at_every_step(pipeline: Mask2DiTPipeline) -> None:
    given = known_latents(2)
    with watched(pipeline.transformer) as calls:
        film(pipeline, known_scenes={1: given}, num_inference_steps=3, guidance_scale=1)
    timesteps = [call[2].tolist() for call in calls]
    assert timesteps == [[[999, 0, 999]], [[666, 0, 666]], [[332, 0, 332]]]
    assert all(torch.equal(call[0][0, 3:5], given) for call in calls)
    assert calls[0][3].video_lengths == (18, 12, 18)  # a known scene keeps its own length


def test_known_scenes_change_the_others_and_so_do_their_captions(pipeline: Mask2DiTPipeline) -> None:
    one = film(pipeline, known_scenes={0: known_latents(seed=1)})
    other = film(pipeline, known_scenes={0: known_latents(seed=2)})
    named = film(pipeline, ["a blue bear sits", *CAPTIONS[1:]], known_scenes={0: known_latents(seed=1)})
    assert not torch.equal(one[2], other[2]) and not torch.equal(one[2], named[2])


def test_known_scenes_draw_nothing(pipeline: Mask2DiTPipeline) -> None:
    pipeline.scheduler = CogVideoXDPMScheduler.from_config(pipeline.scheduler.config)
    generators = seeds(0, 1, 2)
    film(pipeline, known_scenes={1: known_latents()}, generator=generators)
    fresh = [generator.get_state() for generator in seeds(0, 1, 2)]
    assert [torch.equal(mine.get_state(), state) for mine, state in zip(generators, fresh, strict=True)] == [False, True, False]


# Guidance


@pytest.mark.parametrize(("guidance_scale", "per_step"), [(0, 1), (0.5, 1), (1, 1), (1.01, 2), (6.0, 2), ([1, 1, 3], 2), ([1, 0, 1], 1)])
def test_guidance_of_1_or_less_runs_one_branch(pipeline: Mask2DiTPipeline, guidance_scale: Any, per_step: int) -> None:
    with watched(pipeline.transformer) as calls:
        film(pipeline, guidance_scale=guidance_scale, num_inference_steps=3)
    assert len(calls) == 3 * per_step
    assert all(call[0].shape[0] == 1 for call in calls)


def test_guidance_of_1_or_less_is_the_prediction_alone(pipeline: Mask2DiTPipeline) -> None:
    assert same(film(pipeline, guidance_scale=0), film(pipeline, guidance_scale=1))
    assert same(film(pipeline, guidance_scale=1, negative_prompt="a bear"), film(pipeline, guidance_scale=1))


def test_guidance_per_scene(pipeline: Mask2DiTPipeline) -> None:
    pipeline.transformer.set_attention_plan("isolated")
    low, high = film(pipeline, guidance_scale=0.5), film(pipeline, guidance_scale=5)
    mixed = film(pipeline, guidance_scale=[0.5, 5, 5])
    assert close(mixed[0], low[0]) and torch.equal(mixed[1], high[1]) and torch.equal(mixed[2], high[2])
    board = Storyboard(scenes=[Scene(prompt=CAPTIONS[0], guidance_scale=0.5), *(Scene(prompt=caption) for caption in CAPTIONS[1:])])
    assert same(film(pipeline, board, guidance_scale=5), mixed)


def test_guidance_moves_away_from_the_negative_prompt(pipeline: Mask2DiTPipeline) -> None:
    noise = torch.randn(1, 9, *LATENT, generator=torch.Generator().manual_seed(0))

    def first_step(captions: list[str], guidance_scale: float, negative_prompt: str) -> Tensor:
        options = {"num_inference_steps": 1, "latents": noise, "guidance_scale": guidance_scale, "negative_prompt": negative_prompt}
        return torch.cat(film(pipeline, captions, **options))

    positive, negative = first_step(CAPTIONS, 1, ""), first_step(["a bear"] * 3, 1, "")
    assert close(first_step(CAPTIONS, 3, "a bear"), negative + 3 * (positive - negative))


def test_negative_prompts_per_scene(pipeline: Mask2DiTPipeline) -> None:
    pipeline.transformer.set_attention_plan("isolated")
    plain, shunned = film(pipeline), film(pipeline, negative_prompt="a bear")
    board = Storyboard(scenes=[Scene(prompt=CAPTIONS[0]), Scene(prompt=CAPTIONS[1], negative_prompt="a bear"), Scene(prompt=CAPTIONS[2])])
    mixed = film(pipeline, board)
    assert torch.equal(mixed[0], plain[0]) and torch.equal(mixed[1], shunned[1]) and torch.equal(mixed[2], plain[2])


# Frames, sizes, steps: the scene's own value, then the argument, then the model's


def test_frames_per_scene(pipeline: Mask2DiTPipeline) -> None:
    assert [len(scene) for scene in film(pipeline)] == [3, 3, 3]
    assert [len(scene) for scene in film(pipeline, num_frames=5)] == [2, 2, 2]
    assert [len(scene) for scene in film(pipeline, num_frames=[1, 17, 5])] == [1, 5, 2]
    board = Storyboard(scenes=[Scene(prompt="a fox", num_frames=13), Scene(prompt="a fox", duration_seconds=2), Scene(prompt="a fox")])
    assert [len(scene) for scene in film(pipeline, board, num_frames=1)] == [4, 5, 1]


def test_other_sizes(pipeline: Mask2DiTPipeline) -> None:
    scenes = pipeline(CAPTIONS[:2], height=24, width=16, num_inference_steps=1).scenes
    assert [scene.shape for scene in scenes] == [(9, 24, 16, 3)] * 2


def test_what_a_request_resolves_to(pipeline: Mask2DiTPipeline) -> None:
    request = pipeline.check(CAPTIONS)
    assert request.captions == tuple(CAPTIONS) and request.negative_prompts == ("", "", "")
    assert (request.height, request.width, request.num_frames, request.fps) == (16, 24, (9, 9, 9), 8)
    assert (request.num_inference_steps, request.guidance_scale, request.num_scenes, request.is_guided) == (2, (3.0, 3.0, 3.0), 3, True)
    request = pipeline.check(None, num_scenes=2, guidance_scale=[0.5, 1])
    assert request.captions == () and not request.is_guided and request.effective_guidance(0) == 1


def test_the_released_values_are_the_defaults(shared: Mask2DiTPipeline) -> None:
    bare = Mask2DiTPipeline(**shared.components)
    values = bare.values
    assert (values.window, values.known_sets, values.height, values.width, values.num_frames, values.fps) == (3, "last", 480, 720, 49, 8)
    assert (values.num_inference_steps, values.guidance_scale) == (50, 6.0)
    assert values.negative_prompt.startswith("The video is not of a high quality") and values.negative_prompt.endswith("Distortion. ")


# Noise


def test_the_same_generators_make_the_same_film_whatever_was_made_before(pipeline: Mask2DiTPipeline) -> None:
    for scheduler in (CogVideoXDDIMScheduler, CogVideoXDPMScheduler):
        pipeline.scheduler = scheduler.from_config(pipeline.scheduler.config)
        first = film(pipeline)
        film(pipeline, ["a blue bear"], num_inference_steps=5, guidance_scale=1)
        torch.rand(1)
        assert same(film(pipeline), first)
        assert not same(film(pipeline, generator=seeds(3, 4, 5)), first)


@pytest.mark.parametrize("scheduler", [CogVideoXDDIMScheduler, CogVideoXDPMScheduler])
def test_isolated_scenes_do_not_depend_on_others(pipeline: Mask2DiTPipeline, scheduler: Any) -> None:
    pipeline.scheduler = scheduler.from_config(pipeline.scheduler.config)
    pipeline.transformer.set_attention_plan("isolated")
    options = {"num_inference_steps": 4}
    three = film(pipeline, **options)
    two = film(pipeline, CAPTIONS[:2], generator=seeds(0, 1), **options)
    other = film(pipeline, ["a blue bear", CAPTIONS[1]], generator=seeds(8, 1), **options)
    known = film(pipeline, known_scenes={0: known_latents(), 2: known_latents()}, **options)
    assert all(close(scenes, three[1]) for scenes in (two[1], other[1], known[1]))
    assert not close(film(pipeline, generator=seeds(0, 8, 2), **options)[1], three[1])


def test_noise_may_be_given(pipeline: Mask2DiTPipeline) -> None:
    drawn = torch.cat([torch.randn(3, *LATENT, generator=generator) for generator in seeds(0, 1, 2)])[None]
    assert same(film(pipeline, latents=drawn), film(pipeline))
    one = torch.randn(9, *LATENT, generator=torch.Generator().manual_seed(5))[None]
    assert same(film(pipeline, latents=one), film(pipeline, generator=torch.Generator().manual_seed(5)))


@pytest.mark.parametrize("scheduler", [CogVideoXDDIMScheduler, CogVideoXDPMScheduler])
@pytest.mark.parametrize("steps", [1, 2, 7])
def test_few_steps_stay_finite(pipeline: Mask2DiTPipeline, scheduler: Any, steps: int) -> None:
    pipeline.scheduler = scheduler.from_config(pipeline.scheduler.config)
    with watched(pipeline.transformer) as calls:
        assert all(scene.isfinite().all() for scene in film(pipeline, num_inference_steps=steps, guidance_scale=1))
    assert len(calls) == steps


# Callbacks, captions as tensors, warnings


def test_a_callback_sees_every_step_and_may_change_the_latents(pipeline: Mask2DiTPipeline) -> None:
    seen: list[tuple[int, int, tuple[int, ...]]] = []

    def watch(caller: Mask2DiTPipeline, step: int, timestep: Tensor, values: dict[str, Tensor]) -> None:
        assert caller is pipeline
        seen.append((step, int(timestep), tuple(values["latents"].shape)))

    untouched = film(pipeline, callback_on_step_end=watch)
    assert seen == [(0, 999, (1, 9, *LATENT)), (1, 499, (1, 9, *LATENT))]
    assert same(film(pipeline, callback_on_step_end=lambda *_: {}), untouched)

    def zero(_: Any, step: int, __: Tensor, values: dict[str, Tensor]) -> dict[str, Tensor]:
        return {"latents": torch.zeros_like(values["latents"])} if step == 1 else {}

    given = known_latents()
    scenes = film(pipeline, known_scenes={1: given}, callback_on_step_end=zero)
    assert not scenes[0].any() and not scenes[2].any() and torch.equal(scenes[1], given)

    def spoil_the_known_one(_: Any, __: int, ___: Tensor, values: dict[str, Tensor]) -> dict[str, Tensor]:
        return {"latents": torch.cat([values["latents"][:, :3], known_latents(seed=1)[None], values["latents"][:, 6:]], dim=1)}

    options = {"known_scenes": {1: given}, "num_inference_steps": 3}
    assert same(film(pipeline, callback_on_step_end=spoil_the_known_one, **options), film(pipeline, **options))


def test_prompt_embeds_replace_the_encoders(shared: Mask2DiTPipeline) -> None:
    prompt_embeds, negative_prompt_embeds = shared.encode_prompt(CAPTIONS, ["", "a bear", ""])
    assert prompt_embeds.shape == negative_prompt_embeds.shape == (3, 64, 20)
    bare = Mask2DiTPipeline(None, None, shared.vae, shared.transformer, shared.scheduler, **shared.values.saved())
    bare.set_progress_bar_config(disable=True)
    board = Storyboard(scenes=[Scene(prompt=CAPTIONS[0]), Scene(prompt=CAPTIONS[1], negative_prompt="a bear"), Scene(prompt=CAPTIONS[2])])
    both = {"prompt_embeds": prompt_embeds, "negative_prompt_embeds": negative_prompt_embeds, "output_type": "latent"}
    expected = film(shared, board)
    assert same(bare(generator=seeds(0, 1, 2), **both).scenes, expected)
    assert same(bare(board, generator=seeds(0, 1, 2), **both).scenes, expected)  # frames and guidance from the board
    alone = bare(prompt_embeds=prompt_embeds, guidance_scale=1, generator=seeds(0, 1, 2), output_type="latent").scenes
    assert same(alone, film(shared, guidance_scale=1))
    with pytest.raises(InputError, match="no tokenizer or text encoder; give prompt_embeds and negative_prompt_embeds"):
        bare(CAPTIONS)


def test_known_scenes_that_the_weights_were_not_trained_for_warn(pipeline: Mask2DiTPipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    first = pipeline(["a red fox"], output_type="latent", generator=seeds(1)).scenes[0]
    monkeypatch.setitem(vars(pipeline), "values", replace(pipeline.values, known_sets="last"))
    with pytest.warns(UserWarning, match=r"known scenes are 2 of 2; this model was trained with all but the last"):
        pipeline(["a red fox", "the fox"], known_scenes={1: first}, output_type="latent")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pipeline(["a red fox", "the fox"], known_scenes={0: first}, output_type="latent")


def test_more_scenes_than_the_window_warn_and_are_made_jointly(pipeline: Mask2DiTPipeline) -> None:
    message = "4 scenes are more than the 3 that this model was trained on at once"
    with pytest.warns(UserWarning, match=message) as caught, watched(pipeline.transformer) as calls:
        scenes = film(pipeline, ["a red fox"] * 4, guidance_scale=1)
    assert len(scenes) == 4 and calls[0][3].num_scenes == 4
    assert caught[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        film(pipeline)


# Errors


def refused(pipeline: Mask2DiTPipeline, words: str, *arguments: Any, **options: Any) -> None:
    """Refused with these words in one line, before anything is computed."""
    with watched(pipeline.transformer) as calls, pytest.raises((InputError, StoryboardError), match=words) as caught:
        pipeline(*arguments, **options)
    assert not calls and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("words", "options"),
    [
        ("num_inference_steps: got 0, expected a whole number of at least 1", {"num_inference_steps": 0}),
        ("num_inference_steps: got -1", {"num_inference_steps": -1}),
        ("num_inference_steps: got 2.5", {"num_inference_steps": 2.5}),
        ("num_inference_steps: got True", {"num_inference_steps": True}),
        ("num_inference_steps: got 1001, expected 1 to 1000", {"num_inference_steps": 1001}),
        ("height: got 17, expected a multiple of 8 pixels; take 16 or 24", {"height": 17}),
        ("width: got 0, .* take 8", {"width": 0}),
        ("scene 1, num_frames: got 8 frames, expected 4k \\+ 1 .* take 5 or 9", {"num_frames": 8}),
        ("scene 3, num_frames: got 0 frames", {"num_frames": [9, 9, 0]}),
        ("num_frames: got 2 values, expected one, or one for each of 3 scenes", {"num_frames": [9, 9]}),
        ("scene 2, guidance_scale: got -1", {"guidance_scale": [1, -1, 1]}),
        ("scene 1, guidance_scale: got nan", {"guidance_scale": float("nan")}),
        ("scene 1, guidance_scale: got inf", {"guidance_scale": float("inf")}),
        ("guidance_scale: got 4 values", {"guidance_scale": [1, 2, 3, 4]}),
        ("scene 1, negative_prompt: got 101 tokens", {"negative_prompt": "fox " * 100}),
        ("generator: got 2, expected one, or one for each of 3 scenes", {"generator": [None, None]}),
        (r"latents: got shape \(1, 3, 4, 4, 6\), expected \(1, 9, 4, 4, 6\)", {"latents": torch.zeros(1, 3, *LATENT)}),
        ("output_type: got 'gif', expected np, pt, pil or latent", {"output_type": "gif"}),
        ("known_scenes: got index 3, expected 0 to 2", {"known_scenes": {3: torch.zeros(3, *LATENT)}}),
        ("known_scenes: got index -1, expected 0 to 2", {"known_scenes": {-1: torch.zeros(3, *LATENT)}}),
        (r"known_scenes: scene 1 has shape \(3, 4, 4, 4\)", {"known_scenes": {0: torch.zeros(3, 4, 4, 4)}}),
        ("known_scenes: scene 2 has shape .* of torch.int64", {"known_scenes": {1: torch.zeros(3, *LATENT, dtype=torch.long)}}),
        ("known_scenes: scene 1 has shape .*; encode frames of this size", {"known_scenes": {0: torch.zeros(9, 3, 16, 24)}}),
        (r"known_scenes: scene 1 has shape \(0, 4, 4, 6\)", {"known_scenes": {0: torch.zeros(0, *LATENT)}}),
        ("prompt_embeds: got 2 rows, expected one for each of 3 scenes", {"prompt_embeds": torch.zeros(2, 64, 20)}),
        (r"prompt_embeds: got shape \(3, 8, 20\), expected \(3, 64, 20\)", {"prompt_embeds": torch.zeros(3, 8, 20)}),
        ("negative_prompt_embeds: got none", {"prompt_embeds": torch.zeros(3, 64, 20)}),
        ("negative_prompt_embeds: got them without prompt_embeds", {"negative_prompt_embeds": torch.zeros(3, 64, 20)}),
    ],
)
def test_arguments_that_cannot_be_used(pipeline: Mask2DiTPipeline, words: str, options: Mapping[str, Any]) -> None:
    refused(pipeline, words, CAPTIONS, **options)


@pytest.mark.parametrize(
    ("words", "storyboard"),
    [
        ("storyboard: got none, expected a Storyboard, a list of captions, or prompt_embeds", None),
        ("storyboard: got one text, expected a list with one caption per scene", "a red fox"),
        ("scenes: got an empty list", []),
        ("scene 2, prompt: got an empty text", ["a red fox", "  "]),
        ("scene 1, prompt: got nothing", [None]),
        (r"scene 2, prompt: got 10001 tokens \(10000 characters\), expected at most 64 per scene", ["a red fox", "-" * 10_000]),
    ],
)
def test_storyboards_that_cannot_be_made(pipeline: Mask2DiTPipeline, words: str, storyboard: Any) -> None:
    refused(pipeline, words, storyboard)


def test_frames_that_cannot_be_encoded(pipeline: Mask2DiTPipeline) -> None:
    for shape in ((16, 24, 3), (5, 3, 16, 24), (5, 16, 24, 4)):
        with pytest.raises(InputError, match=r"frames: got shape .*, expected \[T, Y, X, 3\]"):
            pipeline.encode_scene(np.zeros(shape, dtype=np.float32))
    with pytest.raises(InputError, match="frames: got 8 frames, expected 4k"):
        pipeline.encode_scene(np.zeros((8, 16, 24, 3), dtype=np.float32))
    with pytest.raises(InputError, match="height: got 18, expected a multiple of 8"):
        pipeline.encode_scene(np.zeros((5, 18, 24, 3), dtype=np.float32))
