"""Grouped attention: exactly the dense masked softmax, without a mask and without any tensor of N × N."""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

import mask2dit.attention
import tiny
from mask2dit import SceneLayout
from mask2dit.attention import GroupedAttnProcessor, SceneAttention
from mask2dit.plans import get_plan
from mask2dit.rope import rotary_table
from reference import MEETINGS, dense_attention, dense_mask, layer_norm, rotary_angles, rotate

LAYOUTS = [
    SceneLayout((3, 5, 2), (6, 18, 12)),
    SceneLayout((0, 4), (12, 6)),
    SceneLayout((4, 4, 4, 4), (6, 6, 6, 6)),
    SceneLayout((3,), (12,)),
]
GRID = (2, 3)


def attention(seed: int = 0) -> SceneAttention:
    return tiny.randomise(SceneAttention(dim=32, heads=2, head_dim=16, bias=True), seed)


def states(layout: SceneLayout) -> tuple[Tensor, Tensor, tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(1)
    video = torch.randn(2, layout.num_video_tokens, 32, generator=generator)
    text = torch.randn(2, layout.num_text_tokens, 32, generator=generator)
    return video, text, rotary_table(layout.num_video_tokens // 6, GRID, GRID, 16)


def dense_twin(attn: SceneAttention, video: Tensor, text: Tensor, plan: str, layout: SceneLayout) -> tuple[Tensor, Tensor]:
    """The module in float64 with a dense mask."""
    num_text = text.shape[1]
    joint = torch.cat([text, video], dim=1)
    query, key, value = (layer(joint).unflatten(2, (2, 16)) for layer in (attn.to_q, attn.to_k, attn.to_v))
    angles = rotary_angles(layout.num_video_tokens // 6, GRID, GRID, 16)

    def prepared(states: Tensor, norm: torch.nn.LayerNorm) -> Tensor:
        states = layer_norm(states, norm.weight, norm.bias, 1e-6)
        return torch.cat([states[:, :num_text], rotate(states[:, num_text:], angles)], dim=1)

    joint = dense_attention(prepared(query, attn.norm_q), prepared(key, attn.norm_k), value, dense_mask(plan, layout))
    joint = attn.to_out[0](joint.flatten(2))
    return joint[:, num_text:], joint[:, :num_text]


@pytest.mark.parametrize("plan", MEETINGS)
@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
def test_groups_are_the_dense_softmax_forward_and_backward(plan: str, layout: SceneLayout) -> None:
    attn, slow = attention(), attention().double()
    video, text, rotary = states(layout)
    fast_inputs = [video.requires_grad_(), text.requires_grad_()]
    slow_inputs = [each.detach().double().requires_grad_() for each in fast_inputs]

    fast = torch.cat(attn(*fast_inputs, get_plan(plan).groups(layout), rotary), dim=1)
    dense = torch.cat(dense_twin(slow, *slow_inputs, plan, layout), dim=1)
    torch.testing.assert_close(fast.double(), dense, rtol=0, atol=5e-6)

    wish = torch.randn(fast.shape, generator=torch.Generator().manual_seed(2))
    fast.backward(wish)
    dense.backward(wish.double())
    for mine, exact in zip(fast_inputs, slow_inputs, strict=True):
        torch.testing.assert_close(mine.grad.double(), exact.grad, rtol=0, atol=5e-6)
    for mine, exact in zip(attn.parameters(), slow.parameters(), strict=True):
        torch.testing.assert_close(mine.grad.double(), exact.grad, rtol=5e-6, atol=5e-6 * exact.grad.abs().max().item())


@pytest.mark.parametrize("plan", MEETINGS)
def test_no_mask_is_passed_and_the_keys_are_of_one_group_at_a_time(plan: str, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[int, int, dict[str, Any]]] = []
    real = mask2dit.attention.dispatch_attention_fn

    def watch(query: Tensor, key: Tensor, value: Tensor, **options: Any) -> Tensor:
        assert key.shape == value.shape
        calls.append((query.shape[1], key.shape[1], options))
        return real(query, key, value, **options)

    monkeypatch.setattr(mask2dit.attention, "dispatch_attention_fn", watch)
    layout = SceneLayout((3, 5, 2), (6, 18, 12))
    video, text, rotary = states(layout)
    attention()(video, text, get_plan(plan).groups(layout), rotary)

    rows = dense_mask(plan, layout).sum(dim=1)  # how many keys each token reads
    assert sum(queries for queries, _, _ in calls) == layout.num_tokens
    assert sorted(rows.tolist()) == sorted(keys for queries, keys, _ in calls for _ in range(queries))
    assert all(options.keys() == {"backend", "parallel_config"} for _, _, options in calls)


class LargestTensor(TorchDispatchMode):
    """Remembers the most elements of any tensor that an operation made."""

    elements = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        for each in made if isinstance(made, tuple | list) else [made]:
            if isinstance(each, Tensor):
                self.elements = max(self.elements, each.numel())
        return made


@pytest.mark.parametrize("plan", MEETINGS)
def test_no_tensor_has_a_row_and_a_column_per_token(plan: str) -> None:
    layout = SceneLayout((30, 20, 40), (120, 90, 150))
    video, text, rotary = states(layout)
    attn, groups = attention(), get_plan(plan).groups(layout)
    with LargestTensor() as seen:
        torch.cat(attn(video.requires_grad_(), text, groups, rotary), dim=1).sum().backward()
    assert seen.elements < layout.num_tokens**2 / 3

    attn.set_attention_backend("_native_math")  # does make one, per group: so the measure can see it
    with LargestTensor() as seen, torch.no_grad():
        attn(video, text, groups, rotary)
    assert seen.elements > (layout.num_tokens / 3) ** 2


def test_another_processor_takes_over() -> None:
    class Silence(GroupedAttnProcessor):
        def __call__(self, attn: SceneAttention, hidden_states: Tensor, encoder_hidden_states: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:
            return torch.zeros_like(hidden_states), torch.zeros_like(encoder_hidden_states)

    layout = LAYOUTS[0]
    video, text, rotary = states(layout)
    attn = attention()
    attn.set_processor(Silence())
    assert not torch.cat(attn(video, text, get_plan("symmetric").groups(layout), rotary), dim=1).any()
