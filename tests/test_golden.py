"""The vectors recorded from the released classes. Tolerances are those of their index: 1e-5, exact, 1e-4."""

import json
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKLCogVideoX, CogVideoXDDIMScheduler, CogVideoXDPMScheduler
from torch import Tensor

import tiny
from mask2dit import Mask2DiTPipeline, Mask2DiTTransformer3DModel, SceneLayout
from mask2dit.attention import GroupedAttnProcessor, SceneAttention, SceneAttnProcessor
from mask2dit.latents import decode_latents, encode_frames
from mask2dit.merged_attention import MergedAttnProcessor
from mask2dit.plans import get_plan
from mask2dit.rope import joint_table, rotary_table
from mask2dit.training.objective import scene_loss
from reference import dense_mask

CASES = json.loads((tiny.GOLDEN / "forward_cases.json").read_text())


@pytest.fixture(scope="module")
def transformer() -> Mask2DiTTransformer3DModel:
    return tiny.released_transformer()


@pytest.fixture(scope="module")
def vae() -> AutoencoderKLCogVideoX:
    return tiny.released_vae()


def check_near(ours: Tensor, recorded: Tensor, tolerance: float = 1e-5) -> None:
    torch.testing.assert_close(ours, recorded, rtol=0, atol=tolerance)


def layout_of(num_scenes: int) -> SceneLayout:
    return SceneLayout((6,) * num_scenes, (72,) * num_scenes)


@pytest.mark.parametrize("name", CASES)
@torch.no_grad()
def test_forward_with_every_value_on_the_way(name: str, transformer: Mask2DiTTransformer3DModel) -> None:
    vectors, case = tiny.golden(name), CASES[name]
    num_scenes = case["scenes"]
    timestep = vectors["timestep"]
    if case["generated_scene"] is not None:
        known = torch.tensor([index != case["generated_scene"] for index in range(num_scenes)])
        timestep = torch.where(known, vectors["timestep_conditioning"], timestep[:, None])
    taps: dict[str, Tensor] = {}
    hooks = [
        transformer.patch_embed.register_forward_hook(
            lambda _, __, joint: taps.update({"embed.text": joint[:, : 6 * num_scenes], "embed.video": joint[:, 6 * num_scenes :]})
        ),
        transformer.time_embedding.register_forward_hook(lambda _, __, temb: taps.update({"temb": temb})),
    ]
    for index, block in enumerate(transformer.transformer_blocks):
        hooks.append(
            block.register_forward_hook(
                lambda _, __, joint, index=index: taps.update(
                    {f"block{index}.text": joint[:, : 6 * num_scenes], f"block{index}.video": joint[:, 6 * num_scenes :]}
                )
            )
        )
    transformer.set_attention_plan(case["plan"])
    inputs = vectors["hidden_states"], vectors["encoder_hidden_states"], timestep, layout_of(num_scenes)
    output = transformer(*inputs, image_rotary_emb=(vectors["rope_cos"], vectors["rope_sin"])).sample
    for hook in hooks:
        hook.remove()

    check_near(output, vectors["output"])
    assert torch.equal(transformer(*inputs).sample, output)  # and with the table that it builds itself
    assert output.mean().item() == pytest.approx(case["out_mean"], abs=1e-5) and output.std().item() == pytest.approx(
        case["out_std"], abs=1e-5
    )
    recorded = {key.removeprefix("tap."): value for key, value in vectors.items() if key.startswith("tap.")}
    temb = taps.pop("temb").unflatten(0, (2, num_scenes))
    scene = case["generated_scene"] or 0
    check_near(temb[:, scene], recorded.pop("temb"))
    assert taps.keys() == recorded.keys()
    for key, value in recorded.items():
        check_near(taps[key], value)


@pytest.mark.parametrize("processor", [GroupedAttnProcessor, MergedAttnProcessor])
@torch.no_grad()
def test_attention_of_block_0(transformer: Mask2DiTTransformer3DModel, processor: type[SceneAttnProcessor]) -> None:
    vectors = tiny.golden("attention_block0")
    attn = transformer.transformer_blocks[0].attn1
    layout = layout_of(3)
    attn.set_processor(processor())
    joint = torch.cat([vectors["text_in"], vectors["video_in"]], dim=1)
    table = joint_table((vectors["rope_cos"], vectors["rope_sin"]), layout.num_text_tokens)
    text, video = attn(joint, get_plan("symmetric").pattern(layout), table).split([layout.num_text_tokens, layout.num_video_tokens], dim=1)
    check_near(video, vectors["video_out"])
    check_near(text, vectors["text_out"])


@pytest.mark.parametrize("num_scenes", [2, 3, 4])
@torch.no_grad()
def test_measured_attention_rows(num_scenes: int) -> None:
    """Zero queries and keys, identity values: what comes out of token p is the distribution of its attention."""
    vectors = tiny.golden("mask_matrix")
    layout = SceneLayout((2,) * num_scenes, (3,) * num_scenes)
    mask = dense_mask("symmetric", layout)
    assert torch.equal(mask, vectors[f"mask_{num_scenes}scene"].bool())

    size = layout.num_tokens
    width = size + size % 2  # rotation needs pairs of channels; with zero queries it changes nothing
    attn = SceneAttention(dim=width, heads=1, head_dim=width, bias=False)
    for layer in (attn.to_q, attn.to_k):
        layer.weight.zero_()
    for layer in (attn.to_v, attn.to_out[0]):
        layer.weight.copy_(torch.eye(width))
    attn.to_out[0].bias.zero_()
    joint = torch.eye(size, width)[None]
    rows = attn(joint, get_plan("symmetric").pattern(layout), None)
    check_near(rows[0, :, :size], vectors[f"attn_rows_{num_scenes}scene"])


def test_rotary_table_of_the_released_size_is_exact() -> None:
    vectors = tiny.golden("rope_5b_39x30x45")
    cos, sin = rotary_table(39, (30, 45), (30, 45), head_dim=64)
    rows = vectors["row_index"]
    assert torch.equal(cos[rows], vectors["cos"]) and torch.equal(sin[rows], vectors["sin"])
    check_near(cos.double().sum(0), vectors["cos_sum_per_channel"], 1e-6)
    check_near(sin.double().sum(0), vectors["sin_sum_per_channel"], 1e-6)


@pytest.fixture(scope="module")
def recorded_scheduler() -> dict[str, Any]:
    return json.loads((tiny.GOLDEN / "scheduler.json").read_text())


def test_noise_levels_and_timesteps(recorded_scheduler: dict[str, Any]) -> None:
    vectors, scheduler = tiny.golden("scheduler"), tiny.released_scheduler()
    assert torch.equal(scheduler.alphas_cumprod.float(), vectors["alphas_cumprod"])
    assert torch.equal(scheduler.alphas_cumprod.double(), vectors["alphas_cumprod_f64"])
    shifted = CogVideoXDDIMScheduler.from_config(scheduler.config | {"snr_shift_scale": 3.0})
    assert torch.equal(shifted.alphas_cumprod.float(), vectors["alphas_cumprod_snr_shift3"])
    assert scheduler.init_noise_sigma == recorded_scheduler["init_noise_sigma"]
    assert float(scheduler.final_alpha_cumprod) == recorded_scheduler["final_alpha_cumprod"]
    for steps in (3, 10, 50):
        scheduler.set_timesteps(steps)
        assert scheduler.timesteps.tolist() == recorded_scheduler[f"timesteps{steps}"] == vectors[f"timesteps{steps}"].tolist()


def test_noising_and_target() -> None:
    vectors, scheduler = tiny.golden("scheduler"), tiny.released_scheduler()
    clean, noise, t = vectors["x"], vectors["noise"], vectors["t"]
    check_near(scheduler.add_noise(clean, noise, t), vectors["add_noise"], 1e-6)
    check_near(scheduler.get_velocity(clean, noise, t), vectors["velocity"], 1e-6)


def model_output(vectors: dict[str, Tensor], step: int) -> Tensor:
    return 0.5 * vectors["v"][:1] + 0.1 * step


def test_ddim_steps() -> None:
    vectors, scheduler = tiny.golden("scheduler"), tiny.released_scheduler()
    scheduler.set_timesteps(50)
    latents = vectors["x"][:1]
    for step in range(3):
        latents = scheduler.step(model_output(vectors, step), scheduler.timesteps[step], latents, return_dict=False)[0]
        check_near(latents, vectors[f"ddim50_step{step}"])
    last = scheduler.step(vectors["v"][:1], scheduler.timesteps[-1], vectors["x"][:1], return_dict=False)[0]
    check_near(last, vectors["ddim50_last_from_x"])


def test_dpm_steps() -> None:
    vectors, scheduler = tiny.golden("scheduler"), CogVideoXDPMScheduler.from_config(tiny.released_scheduler().config)
    scheduler.set_timesteps(50)
    latents, original, generator = vectors["x"][:1], None, torch.Generator().manual_seed(9)
    for step in range(4):
        latents, original = scheduler.step(
            model_output(vectors, step),
            original,
            scheduler.timesteps[step],
            scheduler.timesteps[step - 1] if step else None,
            latents,
            generator=generator,
            return_dict=False,
        )
        check_near(latents, vectors[f"dpm50_step{step}"])
        check_near(original, vectors[f"dpm50_x0_{step}"])


def test_bf16_noising_is_what_the_objective_avoids() -> None:
    """Recorded: alphas cast to bf16, wrong by 100 % of the noise at t = 0. The objective mixes in float32."""
    vectors, scheduler = tiny.golden("scheduler_bf16"), tiny.released_scheduler()
    clean, noise, timesteps = vectors["x"], vectors["noise"], vectors["t"]
    assert torch.equal(tiny.released_scheduler().add_noise(clean, noise, timesteps), vectors["add_noise"])
    assert torch.equal(tiny.released_scheduler().get_velocity(clean, noise, timesteps), vectors["velocity"])

    seen: dict[str, Tensor] = {}

    def model(noisy: Tensor, *_: Any, **__: Any) -> tuple[Tensor]:
        seen["noisy"] = noisy
        return (torch.zeros_like(noisy),)

    layout = SceneLayout((1,), (8,))
    _, _, target = scene_loss(model, clean, noise, timesteps, set(), torch.zeros(6, 1, 4), layout, scheduler)
    alphas = scheduler.alphas_cumprod.double()[timesteps].view(-1, 1, 1, 1, 1)
    check_near(seen["noisy"].double(), alphas.sqrt() * clean.double() + (1 - alphas).sqrt() * noise.double())
    check_near(target.double(), alphas.sqrt() * noise.double() - (1 - alphas).sqrt() * clean.double())
    level = (1 - alphas).sqrt()
    released = (vectors["add_noise"].double() - alphas.sqrt() * clean.double() - level * noise.double()).flatten(1).norm(dim=1)
    exact_noise = (level * noise.double()).flatten(1).norm(dim=1)
    assert (released / exact_noise)[0] > 0.9  # t = 0: no noise at all


def test_vae_with_stock_chunks(vae: AutoencoderKLCogVideoX) -> None:
    vectors = tiny.golden("vae_9")
    posterior = vae.encode(vectors["pixels9"]).latent_dist
    check_near(posterior.mean, vectors["moments_mean9"])
    check_near(posterior.logvar, vectors["moments_logvar9"])
    check_near(vae.decode(vectors["latent3"]).sample, vectors["decoded9_stock_chunking"])


def test_our_encoding_and_decoding_are_the_vae_with_its_scale(vae: AutoencoderKLCogVideoX) -> None:
    vectors = tiny.golden("vae_9")
    device = torch.device("cpu")
    latents = encode_frames(vae, vectors["pixels9"][0].transpose(0, 1), device)
    check_near(latents, vectors["moments_mean9"][0].transpose(0, 1) * 0.7)
    pixels = decode_latents(vae, vectors["latent3"][0].transpose(0, 1) * 0.7, device)
    check_near(pixels, vectors["decoded9_stock_chunking"][0].transpose(0, 1))


def test_released_run_of_three_steps(transformer: Mask2DiTTransformer3DModel, vae: AutoencoderKLCogVideoX) -> None:
    vectors, run = tiny.golden("pipeline_fixed"), json.loads((tiny.GOLDEN / "pipeline_fixed.json").read_text())
    transformer.set_attention_plan("symmetric")
    pipeline = Mask2DiTPipeline(None, None, vae, transformer, tiny.released_scheduler())
    pipeline.set_progress_bar_config(disable=True)
    steps: list[Tensor] = []
    timesteps: list[int] = []

    def keep(_: Mask2DiTPipeline, __: int, timestep: Tensor, values: dict[str, Tensor]) -> None:
        steps.append(values["latents"].clone())
        timesteps.append(int(timestep))

    result = pipeline(
        prompt_embeds=vectors["prompt_embeds"],
        negative_prompt_embeds=vectors["negative_prompt_embeds"],
        latents=vectors["latents_init"],
        num_inference_steps=run["steps"],
        guidance_scale=run["guidance_scale"],
        height=run["height"],
        width=run["width"],
        num_frames=run["num_frames_per_scene"],
        output_type="latent",
        callback_on_step_end=keep,
    )
    assert timesteps == run["timesteps"]
    for index, latents in enumerate(steps):
        check_near(latents, vectors[f"latents_step{index}"], 1e-4)
    check_near(torch.cat(result.scenes)[None], vectors["latents_final"], 1e-4)
