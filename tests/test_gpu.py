"""What only a GPU can show: its attention kernels are the dense softmax, and films there are those of the CPU. Skipped without one."""

from typing import Any

import pytest
import torch
from torch import Tensor

import tiny
from mask2dit import SceneLayout, load_pipeline
from mask2dit.attention import GroupedAttnProcessor
from mask2dit.attention_backends import BACKENDS, choose_attention
from mask2dit.memory import MemoryMode
from mask2dit.merged_attention import KERNELS, MergedAttnProcessor, find_kernel
from mask2dit.plans import PLANS, get_plan
from reference import dense_attention, dense_mask
from test_attention import Operations, softmax_inputs

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")]

LAYOUTS = [SceneLayout((30, 20, 40), (120, 90, 150)), SceneLayout((16,) * 3, (256,) * 3)]
HALF = torch.bfloat16
CUDA = torch.device("cuda")


@pytest.fixture(autouse=True)
def exact_products(monkeypatch: pytest.MonkeyPatch) -> None:
    """No 19-bit products in place of float32's."""
    monkeypatch.setattr(torch.backends.cuda.matmul, "allow_tf32", False)
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("plan", PLANS)
@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
def test_every_backend_is_the_dense_softmax_forward_and_backward(backend: str, plan: str, layout: SceneLayout) -> None:
    """In bfloat16: no further from float64 than 1.3 times the dense mask in the same numbers; gradients, twice."""
    known = {0}
    pattern, mask = get_plan(plan).pattern(layout, known), dense_mask(plan, layout, known)
    inputs = softmax_inputs(pattern, HALF)
    wish = torch.randn(inputs[0].shape, generator=torch.Generator().manual_seed(2)).to(HALF)

    def results(states: list[Tensor], attend: object, own_wish: Tensor) -> list[Tensor]:
        leaves = [each.clone().requires_grad_() for each in states]
        made = attend(*leaves)  # type: ignore[operator]
        made.backward(own_wish)
        return [each.detach().cpu().double() for each in (made, *(leaf.grad for leaf in leaves))]

    there = [each.to(CUDA) for each in inputs]
    exact = results([each.double() for each in inputs], lambda *states: dense_attention(*states, mask), wish.double())
    masked = results(there, lambda *states: _masked(*states, mask.to(CUDA)), wish.to(CUDA))
    mine = results(there, lambda *states: BACKENDS[backend]().attend(*states, pattern), wish.to(CUDA))
    for most, got, plain, want in zip((1.3, 2, 2, 2), mine, masked, exact, strict=True):
        assert (got - want).square().mean().sqrt() <= most * (plain - want).square().mean().sqrt() + 1e-6


def _masked(query: Tensor, key: Tensor, value: Tensor, mask: Tensor) -> Tensor:
    states = (each.transpose(1, 2) for each in (query, key, value))
    return torch.nn.functional.scaled_dot_product_attention(*states, attn_mask=mask).transpose(1, 2)


def test_in_float32_it_is_the_dense_softmax() -> None:
    layout = LAYOUTS[0]
    pattern = get_plan("symmetric").pattern(layout)
    inputs = softmax_inputs(pattern, torch.float32)
    exact = dense_attention(*(each.double() for each in inputs), dense_mask("symmetric", layout))
    name = choose_attention("auto", CUDA, torch.float32, 16)
    made = BACKENDS[name]().attend(*(each.to(CUDA) for each in inputs), pattern)
    torch.testing.assert_close(made.cpu().double(), exact, rtol=0, atol=5e-6)


@pytest.mark.parametrize("kernel", KERNELS["cuda"], ids=lambda kernel: kernel.name)
def test_each_kernel_is_merged_alike(kernel: object, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whichever comes first, the other one is an honest second choice."""
    monkeypatch.setitem(KERNELS, "cuda", (kernel,))
    monkeypatch.setattr("mask2dit.merged_attention._found", {})
    layout = LAYOUTS[0]
    if choose_attention("auto", CUDA, HALF, 64) != "merged":
        pytest.skip("this GPU lacks it")
    pattern = get_plan("symmetric").pattern(layout)
    generator = torch.Generator().manual_seed(0)
    states = [torch.randn(1, layout.num_tokens, 2, 64, generator=generator).to(CUDA, HALF) for _ in range(3)]
    grouped, merged = (kind().attend(*states, pattern) for kind in (GroupedAttnProcessor, MergedAttnProcessor))
    torch.testing.assert_close(merged, grouped, rtol=2e-2, atol=2e-2)


def test_auto_builds_nothing_of_a_masks_size() -> None:
    model = tiny.transformer(sample_width=24, sample_height=16, num_attention_heads=1, attention_head_dim=64).to(CUDA, HALF)
    has_kernel = find_kernel(CUDA, HALF, 64) is not None
    assert model.set_attention("auto") == ("merged" if has_kernel else "grouped")
    inputs = {
        name: each.to(CUDA, HALF if each.is_floating_point() else each.dtype) if isinstance(each, Tensor) else each
        for name, each in tiny.inputs(model, (16,) * 3, (3,) * 3, batch=1).items()
    }
    with Operations() as seen, torch.no_grad():
        model(**inputs)
    assert seen.elements < inputs["layout"].num_tokens ** 2 / 3


@pytest.mark.parametrize("options", [{}, {"compile": True}, {"attention": "flex"}, {"memory": MemoryMode(offload="group")}], ids=str)
def test_a_film_is_that_of_the_cpu(options: dict[str, Any]) -> None:
    def film(place: str, **how: Any) -> Tensor:
        pipeline = load_pipeline(device=place, dtype=torch.float32, **how)
        generators = [torch.Generator().manual_seed(seed) for seed in range(2)]
        captions = ["a red fox walks right in the meadow by day", "the fox jumps"]
        made = pipeline(captions, generator=generators, num_inference_steps=4, output_type="latent").scenes
        return torch.cat([scene.cpu() for scene in made])

    torch.testing.assert_close(film("cuda", **options), film("cpu"), rtol=0, atol=1e-2)
