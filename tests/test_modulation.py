"""Adaptive norms: one row per scene is every token with its scene's row; with one scene they are CogVideoX's."""

import pytest
import torch
from diffusers.models.normalization import AdaLayerNorm, CogVideoXLayerNormZero

import tiny
from mask2dit import SceneLayout
from mask2dit.modulation import SceneAdaLayerNorm, SceneLayerNormZero, add_gated, modulate
from reference import layer_norm, scene_of_token

LAYOUTS = [SceneLayout((3,), (5,)), SceneLayout((3, 3), (5, 5)), SceneLayout((2, 3, 1), (4, 6, 5)), SceneLayout((2, 2), (4, 6))]


@pytest.mark.parametrize("lengths", [(4,), (4, 4, 4), (2, 5, 1), (0, 0), (3, 3, 3, 7, 7, 7), (2, 0, 2, 5)])
def test_rows_reach_their_own_scene(lengths: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    states = torch.randn(2, sum(lengths), 6)
    scale, shift = torch.randn(2, len(lengths), 6), torch.randn(2, len(lengths), 6)
    scene = torch.arange(len(lengths)).repeat_interleave(torch.tensor(lengths))
    expected = states * (1 + scale[:, scene]) + shift[:, scene]
    assert torch.equal(modulate(states, scale, shift, lengths), expected)
    with torch.no_grad():  # in place
        written = states.clone()
        assert modulate(written, scale, shift, lengths) is written and torch.equal(written, expected)

    residual, before = torch.randn_like(states), states.clone()
    for grad in (True, False):
        with torch.set_grad_enabled(grad):
            assert torch.equal(add_gated(residual, states, scale, lengths), residual + scale[:, scene] * states)
            assert add_gated(residual, states.bfloat16(), scale.bfloat16(), lengths).dtype == residual.dtype
    assert torch.equal(states, before)  # what attention gave may be kept by a step cache


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
def test_norm_zero_is_its_definition(layout: SceneLayout) -> None:
    norm = tiny.randomise(SceneLayerNormZero(12, 8, elementwise_affine=True, eps=1e-5), seed=0)
    torch.manual_seed(1)
    video, text = torch.randn(2, layout.num_video_tokens, 8), torch.randn(2, layout.num_text_tokens, 8)
    temb = torch.randn(2, layout.num_scenes, 12)
    lengths = (layout.num_text_tokens, layout.num_video_tokens)
    joint, gates = norm(torch.cat([text, video], dim=1), temb, layout.segment_lengths)
    new_text, new_video = joint.split(lengths, dim=1)
    text_gate, gate = gates.chunk(2, dim=1)

    rows = torch.nn.functional.silu(temb) @ norm.linear.weight.T + norm.linear.bias
    shift, scale, expected_gate, text_shift, text_scale, expected_text_gate = rows.chunk(6, dim=-1)
    of_text, of_video = scene_of_token(layout)
    weights = (norm.norm.weight, norm.norm.bias, 1e-5)
    assert torch.allclose(new_video, layer_norm(video, *weights) * (1 + scale[:, of_video]) + shift[:, of_video], atol=1e-5)
    assert torch.allclose(new_text, layer_norm(text, *weights) * (1 + text_scale[:, of_text]) + text_shift[:, of_text], atol=1e-5)
    assert torch.allclose(gate, expected_gate, atol=1e-6) and torch.allclose(text_gate, expected_text_gate, atol=1e-6)


def test_with_one_scene_they_are_cogvideox_bit_for_bit() -> None:
    layout = SceneLayout((3,), (5,))
    torch.manual_seed(0)
    video, text, temb = torch.randn(2, 5, 8), torch.randn(2, 3, 8), torch.randn(2, 12)
    ours = tiny.randomise(SceneLayerNormZero(12, 8, elementwise_affine=True, eps=1e-5), seed=0)
    theirs = CogVideoXLayerNormZero(12, 8, elementwise_affine=True, eps=1e-5)
    theirs.load_state_dict(ours.state_dict())
    joint, gates = ours(torch.cat([text, video], dim=1), temb[:, None], layout.segment_lengths)
    mine = (joint[:, 3:], joint[:, :3], gates[:, 1:], gates[:, :1])
    assert all(torch.equal(*pair) for pair in zip(mine, theirs(video, text, temb), strict=True))

    ours = tiny.randomise(SceneAdaLayerNorm(12, 8, elementwise_affine=True, eps=1e-5), seed=0)
    theirs = AdaLayerNorm(embedding_dim=12, output_dim=16, norm_elementwise_affine=True, norm_eps=1e-5, chunk_dim=1)
    theirs.load_state_dict(ours.state_dict())
    assert torch.equal(ours(video, temb[:, None], layout.video_lengths), theirs(video, temb=temb))
