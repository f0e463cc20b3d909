"""Frames ↔ latents scene by scene, and noise that depends on its own generator alone."""

import pytest
import torch

import tiny
from mask2dit.latents import decode_latents, draw_noise, encode_frames, generator_per_scene

CPU = torch.device("cpu")
SHAPES = [(3, 4, 4, 6), (1, 4, 4, 6), (2, 4, 4, 6)]


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("num_frames", [1, 5, 9, 13, 17, 21])
def test_4k_plus_1_frames_are_k_plus_1_latent_frames(num_frames: int) -> None:
    vae = tiny.vae()
    latents = encode_frames(vae, torch.rand(num_frames, 3, 16, 24, generator=seeded(0)) * 2 - 1, CPU)
    assert latents.shape == ((num_frames - 1) // 4 + 1, 4, 4, 6)
    assert decode_latents(vae, latents, CPU).shape == (num_frames, 3, 16, 24)


def test_an_even_count_of_latent_frames_is_the_beginning_of_a_longer_scene() -> None:
    """Without our help diffusers would make 16 frames of 4 latent frames, the first four times as long."""
    torch.manual_seed(0)
    vae, latents = tiny.vae(), torch.randn(5, 4, 4, 6)
    latents[4] = latents[3]
    assert torch.equal(decode_latents(vae, latents[:4], CPU), decode_latents(vae, latents, CPU)[:13])


def test_latents_are_the_scaled_mode_and_nothing_is_drawn() -> None:
    vae = tiny.vae()
    frames = torch.rand(9, 3, 16, 24, generator=seeded(0)) * 2 - 1
    before = torch.get_rng_state()
    latents = encode_frames(vae, frames, CPU)
    assert torch.equal(torch.get_rng_state(), before)
    mode = vae.encode(frames.transpose(0, 1)[None]).latent_dist.mode()
    assert torch.equal(latents, mode[0].transpose(0, 1) * 0.7)
    assert torch.equal(decode_latents(vae, latents, CPU), vae.decode(latents.transpose(0, 1)[None] / 0.7).sample[0].transpose(0, 1))


def test_pixels_are_float32_whatever_the_vae_computes_in() -> None:
    assert decode_latents(tiny.vae().to(torch.bfloat16), torch.zeros(2, 4, 4, 6), CPU).dtype == torch.float32


def test_noise_of_a_scene_depends_on_its_own_generator_alone() -> None:
    alone = draw_noise([SHAPES[2]], [seeded(7)], CPU, torch.float32)[0]
    among = draw_noise(SHAPES, [seeded(1), seeded(2), seeded(7)], CPU, torch.float32)[2]
    beside_known = draw_noise([None, None, SHAPES[2]], [seeded(1), seeded(2), seeded(7)], CPU, torch.float32)
    assert torch.equal(alone, among) and torch.equal(alone, beside_known[2])
    assert beside_known[:2] == [None, None]


def test_one_generator_serves_all_scenes_in_turn_and_known_ones_draw_nothing() -> None:
    generator = seeded(3)
    whole = torch.randn(3 + 2, 4, 4, 6, generator=seeded(3))
    drawn = draw_noise([SHAPES[0], None, SHAPES[2]], generator, CPU, torch.float32)
    assert torch.equal(torch.cat([drawn[0], drawn[2]]), whole)


def test_without_a_generator_the_global_one_draws() -> None:
    torch.manual_seed(5)
    (drawn,) = draw_noise([SHAPES[0]], None, CPU, torch.float32)
    torch.manual_seed(5)
    assert torch.equal(drawn, torch.randn(SHAPES[0]))


def test_half_precision_noise_is_the_same_noise_rounded() -> None:
    exact, rough = (draw_noise([SHAPES[0]], seeded(3), CPU, dtype)[0] for dtype in (torch.float32, torch.bfloat16))
    assert torch.allclose(exact, rough.float(), rtol=1e-2, atol=1e-3)


def test_generator_per_scene() -> None:
    one, other = seeded(0), seeded(1)
    assert generator_per_scene(one, 2) == [one, one]
    assert generator_per_scene([one, other], 2) == [one, other]
    assert generator_per_scene(None, 2) == [None, None]
