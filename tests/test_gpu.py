"""What only a GPU can show: its attention kernels are the dense softmax, and films there are those of the CPU. Skipped without one."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

import tiny
from mask2dit import SceneLayout, load_pipeline
from mask2dit.attention import GroupedAttnProcessor, SceneAttnProcessor
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
def exact_products() -> Iterator[None]:
    """No 19-bit products in place of float32's."""
    switches = (torch.backends.cuda.matmul, torch.backends.cudnn)
    before = [each.allow_tf32 for each in switches]
    for each in switches:
        each.allow_tf32 = False
    yield
    for each, value in zip(switches, before, strict=True):
        each.allow_tf32 = value


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
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_each_kernel_is_merged_alike(dtype: torch.dtype, kernel: object, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whichever comes first, the other one is an honest second choice; forward and backward, with keys of a known context."""
    monkeypatch.setitem(KERNELS, "cuda", (kernel,))
    monkeypatch.setattr("mask2dit.merged_attention._found", {})
    layout = LAYOUTS[0]
    if choose_attention("auto", CUDA, dtype, 64) != "merged":
        pytest.skip("this GPU lacks it")
    pattern = get_plan("symmetric").pattern(layout, frozenset(), 70)
    generator = torch.Generator().manual_seed(0)
    counts = (pattern.num_queries, pattern.num_keys, pattern.num_keys)
    states = [torch.randn(1, count, 2, 64, generator=generator).to(CUDA, dtype) for count in counts]

    def results(processor: SceneAttnProcessor) -> list[Tensor]:
        leaves = [each.clone().requires_grad_() for each in states]
        made = processor.attend(*leaves, pattern)
        made.square().mean().backward()
        return [made.detach(), *(leaf.grad * made.numel() for leaf in leaves)]

    for grouped, merged in zip(results(GroupedAttnProcessor()), results(MergedAttnProcessor()), strict=True):
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


def film(place: str, dtype: torch.dtype, **how: Any) -> Tensor:
    pipeline = load_pipeline(device=place, dtype=dtype, **how)
    generators = [torch.Generator().manual_seed(seed) for seed in range(2)]
    captions = ["a red fox walks right in the meadow by day", "the fox jumps"]
    made = pipeline(captions, generator=generators, num_inference_steps=4, output_type="latent").scenes
    return torch.cat([scene.cpu().float() for scene in made])


WAYS = [
    {},
    {"compile": True},
    {"attention": "flex"},
    {"attention": "flex", "compile": True},
    {"memory": MemoryMode(offload="group")},
    {"memory": MemoryMode(offload="group"), "compile": True},
]


@pytest.mark.parametrize("dtype", [torch.float32, HALF])
@pytest.mark.parametrize("options", WAYS, ids=str)
def test_a_film_is_that_of_the_cpu(options: dict[str, Any], dtype: torch.dtype) -> None:
    """In float32 by groups or flex; in bfloat16 by the kernels that merge, or flex, and within what rounding does on the CPU."""
    exact, made = film("cpu", torch.float32), film("cuda", dtype, **options)
    if dtype == torch.float32:
        torch.testing.assert_close(made, exact, rtol=0, atol=1e-2)
    rounding = (film("cpu", HALF) - exact).square().mean().sqrt()
    assert (made - exact).square().mean().sqrt() <= 1.5 * rounding


@pytest.mark.parametrize("checkpointing", [False, True])
def test_compiled_blocks_learn_as_plain_ones(checkpointing: bool) -> None:
    """As `compile: true` and `attention: auto` train in bfloat16."""

    def gradients(compiled: bool) -> list[Tensor]:
        model = tiny.transformer(num_attention_heads=2, attention_head_dim=64).to(CUDA)
        assert model.set_attention("auto", dtype=HALF) == ("merged" if find_kernel(CUDA, HALF, 64) else "grouped")
        if checkpointing:
            model.enable_gradient_checkpointing()
        if compiled:
            model.compile_repeated_blocks(fullgraph=True)
        inputs = {
            name: each.to(CUDA) if isinstance(each, Tensor) else each for name, each in tiny.inputs(model, (16,) * 3, (3,) * 3).items()
        }
        with torch.autocast("cuda", HALF):
            loss = model(**inputs).sample.float().square().mean()
        loss.backward()
        return [each.grad for each in model.parameters() if each.grad is not None]

    for mine, plain in zip(gradients(True), gradients(False), strict=True):
        assert (mine - plain).norm() <= 0.05 * plain.norm() + 1e-6


def test_a_model_that_was_loaded_for_the_cpu_moves() -> None:
    """What was chosen for the CPU has no kernel there in float32."""

    def latents(pipeline: Any) -> Tensor:
        generator = torch.Generator().manual_seed(0)
        scenes = pipeline(["a red fox walks", "the fox jumps"], num_inference_steps=2, generator=generator, output_type="latent").scenes
        return torch.cat([scene.cpu() for scene in scenes])

    torch.testing.assert_close(latents(load_pipeline().to("cuda")), latents(load_pipeline(device="cpu")), rtol=0, atol=1e-2)


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="there are not two GPUs")
@pytest.mark.parametrize("guidance", ["1", "6"])
def test_several_gpus_make_the_film_of_one(guidance: str, tmp_path: Path) -> None:
    """By NCCL: a sequence over heads, and guidance branches side by side."""
    words = ["generate", "a red fox walks in the meadow; the fox jumps", "--steps", "4", "--guidance", guidance, "--dtype", "float32"]
    together = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    for name, starter in (("one", []), ("two", together)):
        command = [sys.executable, *starter, "-m", "mask2dit", *words, "-o", name]
        subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, timeout=300)
    files = sorted(path.relative_to(tmp_path / "one") for path in (tmp_path / "one").rglob("*.safetensors"))
    assert files
    for file in files:
        one, two = (load_file(tmp_path / name / file) for name in ("one", "two"))
        assert one.keys() == two.keys()
        for key in one:
            torch.testing.assert_close(two[key], one[key], rtol=0, atol=1e-3)
