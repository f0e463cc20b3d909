"""Every attention backend is exactly the dense masked softmax, in both directions, without a mask and without any tensor of N × N."""

import logging
from typing import Any

import pytest
import torch
from diffusers.models.attention_dispatch import AttentionBackendName, _AttentionBackendRegistry
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

import mask2dit.attention
import tiny
from mask2dit import SceneLayout
from mask2dit.attention import GroupedAttnProcessor, SceneAttention, SceneAttnProcessor
from mask2dit.attention_backends import BACKENDS, choose_attention
from mask2dit.compiling import allow_kernels
from mask2dit.errors import InputError
from mask2dit.flex_attention import BLOCK, block_mask, flex_attend
from mask2dit.merged_attention import KERNELS, MergedAttnProcessor, find_kernel
from mask2dit.plans import PLANS, AttentionPattern, get_plan
from mask2dit.rope import joint_table, rotary_table
from reference import dense_attention, dense_mask, layer_norm, rotary_angles, rotate

LAYOUTS = [
    SceneLayout((3, 5, 2), (6, 18, 12)),
    SceneLayout((0, 4), (12, 6)),
    SceneLayout((4, 4, 4, 4), (6, 6, 6, 6)),
    SceneLayout((3,), (12,)),
]
GRID = (2, 3)
CPU = torch.device("cpu")
ON_CPU = {"grouped": GroupedAttnProcessor, "merged": MergedAttnProcessor}


def attention(backend: str = "grouped", seed: int = 0) -> SceneAttention:
    attn = tiny.randomise(SceneAttention(dim=32, heads=2, head_dim=16, bias=True), seed)
    attn.set_processor(BACKENDS[backend]())
    return attn


def states(layout: SceneLayout) -> tuple[Tensor, tuple[Tensor, Tensor] | None]:
    joint = torch.randn(2, layout.num_tokens, 32, generator=torch.Generator().manual_seed(1))
    return joint, joint_table(rotary_table(layout.num_video_tokens // 6, GRID, GRID, 16), layout.num_text_tokens)


def known_of(layout: SceneLayout) -> set[int]:
    return set(range(0, layout.num_scenes - 1, 2))


def dense_twin(attn: SceneAttention, joint: Tensor, plan: str, layout: SceneLayout) -> Tensor:
    """The module in float64 with a dense mask."""
    num_text = layout.num_text_tokens
    query, key, value = (layer(joint).unflatten(2, (2, 16)) for layer in (attn.to_q, attn.to_k, attn.to_v))
    angles = rotary_angles(layout.num_video_tokens // 6, GRID, GRID, 16)

    def prepared(states: Tensor, norm: torch.nn.LayerNorm) -> Tensor:
        states = layer_norm(states, norm.weight, norm.bias, 1e-6)
        return torch.cat([states[:, :num_text], rotate(states[:, num_text:], angles)], dim=1)

    mask = dense_mask(plan, layout, known_of(layout))
    joint = dense_attention(prepared(query, attn.norm_q), prepared(key, attn.norm_k), value, mask)
    return attn.to_out[0](joint.flatten(2))


@pytest.mark.parametrize("backend", ON_CPU)
@pytest.mark.parametrize("plan", PLANS)
@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
def test_it_is_the_dense_softmax_forward_and_backward(backend: str, plan: str, layout: SceneLayout) -> None:
    attn, slow = attention(backend), attention().double()
    joint, rotary = states(layout)
    fast_input, slow_input = joint.requires_grad_(), joint.detach().double().requires_grad_()

    fast = attn(fast_input, get_plan(plan).pattern(layout, known_of(layout)), rotary)
    dense = dense_twin(slow, slow_input, plan, layout)
    torch.testing.assert_close(fast.double(), dense, rtol=0, atol=5e-6)

    wish = torch.randn(fast.shape, generator=torch.Generator().manual_seed(2))
    fast.backward(wish)
    dense.backward(wish.double())
    torch.testing.assert_close(fast_input.grad.double(), slow_input.grad, rtol=0, atol=5e-6)
    for mine, exact in zip(attn.parameters(), slow.parameters(), strict=True):
        torch.testing.assert_close(mine.grad.double(), exact.grad, rtol=5e-6, atol=5e-6 * exact.grad.abs().max().item())


def softmax_inputs(pattern: AttentionPattern, dtype: torch.dtype, spread: float = 1.0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    lengths = (pattern.num_queries, pattern.num_keys, pattern.num_keys)
    return [(spread * torch.randn(2, count, 2, 16, generator=generator, dtype=torch.float64)).to(dtype) for count in lengths]


@pytest.mark.parametrize("num_context", [0, 7])
@pytest.mark.parametrize("plan", PLANS)
def test_merging_is_exact_also_where_one_part_outweighs_the_other(plan: str, num_context: int) -> None:
    """In float64, with keys of a known context, and scores so large that most weights are 0 or 1."""
    layout = LAYOUTS[0]
    pattern = get_plan(plan).pattern(layout, {1}, num_context)
    mask = torch.zeros(pattern.num_queries, pattern.num_keys, dtype=torch.bool)
    for group in pattern.groups:
        for queries in group.queries:
            for keys in group.keys:
                mask[queries, keys] = True
    for spread in (1.0, 30.0):
        mine, exact = ([each.requires_grad_() for each in softmax_inputs(pattern, torch.float64, spread)] for _ in range(2))
        merged, dense = MergedAttnProcessor().attend(*mine, pattern), dense_attention(*exact, mask)
        rounding = 1e-13 * spread**2  # of the scores, whose size goes with its square
        torch.testing.assert_close(merged, dense, rtol=0, atol=rounding)
        wish = torch.randn(merged.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
        merged.backward(wish)
        dense.backward(wish)
        for one, other in zip(mine, exact, strict=True):
            torch.testing.assert_close(one.grad, other.grad, rtol=0, atol=10 * spread * rounding)


@pytest.mark.parametrize("num_context", [0, 7])
@pytest.mark.parametrize("plan", PLANS)
def test_gradients_are_added_up_alike_in_place_and_for_a_compiler(plan: str, num_context: int, monkeypatch: pytest.MonkeyPatch) -> None:
    pattern = get_plan(plan).pattern(LAYOUTS[0], {1}, num_context)
    found = []
    for compiling in (False, True):
        inputs = [each.requires_grad_() for each in softmax_inputs(pattern, torch.float64)]
        made = MergedAttnProcessor().attend(*inputs, pattern)
        monkeypatch.setattr(torch.compiler, "is_compiling", lambda is_so=compiling: is_so)
        made.square().sum().backward()
        monkeypatch.undo()
        found.append([each.grad for each in inputs])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-13)


@pytest.mark.parametrize("backend", ON_CPU)
@pytest.mark.parametrize("layout", [SceneLayout((20,) * 3, (90,) * 3), SceneLayout((20, 30, 10), (90, 60, 150))], ids=str)
def test_bfloat16_is_no_worse_than_the_dense_mask(backend: str, layout: SceneLayout) -> None:
    pattern, mask = get_plan("symmetric").pattern(layout), dense_mask("symmetric", layout)
    inputs = softmax_inputs(pattern, torch.bfloat16)
    exact = dense_attention(*(each.double() for each in inputs), mask)
    query, key, value = (each.transpose(1, 2) for each in inputs)
    masked = torch.nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=mask).transpose(1, 2)
    mine = ON_CPU[backend]().attend(*inputs, pattern)
    assert (mine - exact).square().mean().sqrt() <= 1.3 * (masked - exact).square().mean().sqrt()


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
@pytest.mark.parametrize("plan", PLANS)
@pytest.mark.parametrize("layout", [LAYOUTS[0], SceneLayout((140, 200), (300, 150)), SceneLayout((128, 128), (256, 256))], ids=str)
def test_flex_knows_its_blocks(plan: str, layout: SceneLayout) -> None:
    """Which blocks are looked at is what the dense mask says, and uncompiled, the result is the dense softmax."""
    from torch.nn.attention.flex_attention import flex_attention

    pattern, mask = get_plan(plan).pattern(layout, known_of(layout)), dense_mask(plan, layout, known_of(layout))
    inputs = softmax_inputs(pattern, torch.float32)
    made = flex_attend(flex_attention, *inputs, pattern)
    torch.testing.assert_close(made.double(), dense_attention(*(each.double() for each in inputs), mask), rtol=0, atol=5e-6)

    blocks = block_mask(pattern, CPU).to_dense()[0, 0].bool()
    padded = torch.zeros(len(blocks) * BLOCK, len(blocks) * BLOCK, dtype=torch.bool)
    padded[: layout.num_tokens, : layout.num_tokens] = mask
    assert torch.equal(blocks, padded.unflatten(0, (-1, BLOCK)).unflatten(2, (-1, BLOCK)).any(3).any(1))


@pytest.mark.slow
def test_flex_compiled_is_the_dense_softmax() -> None:
    """As it is used, but for the device: compilers write kernels for the CPU too, forward only."""
    from torch.nn.attention.flex_attention import flex_attention

    layout = SceneLayout((140, 200), (300, 150))
    allow_kernels()
    compiled = torch.compile(flex_attention, dynamic=False, fullgraph=True)
    for plan in PLANS:
        pattern, mask = get_plan(plan).pattern(layout, known_of(layout)), dense_mask(plan, layout, known_of(layout))
        inputs = softmax_inputs(pattern, torch.float32)
        exact = dense_attention(*(each.double() for each in inputs), mask)
        torch.testing.assert_close(flex_attend(compiled, *inputs, pattern).double(), exact, rtol=0, atol=5e-6)


@pytest.mark.parametrize("plan", PLANS)
def test_no_mask_is_passed_and_the_keys_are_of_one_group_at_a_time(plan: str, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[int, int, dict[str, Any]]] = []
    real = mask2dit.attention.dispatch_attention_fn

    def watch(query: Tensor, key: Tensor, value: Tensor, **options: Any) -> Tensor:
        assert key.shape == value.shape
        calls.append((query.shape[1], key.shape[1], options))
        return real(query, key, value, **options)

    monkeypatch.setattr(mask2dit.attention, "dispatch_attention_fn", watch)
    layout = SceneLayout((3, 5, 2), (6, 18, 12))
    joint, rotary = states(layout)
    attention()(joint, get_plan(plan).pattern(layout), rotary)

    rows = dense_mask(plan, layout).sum(dim=1)  # how many keys each token reads
    assert sum(queries for queries, _, _ in calls) == layout.num_tokens
    assert sorted(rows.tolist()) == sorted(keys for queries, keys, _ in calls for _ in range(queries))
    assert all(options.keys() == {"backend", "parallel_config"} for _, _, options in calls)


class Operations(TorchDispatchMode):
    """Remembers the most elements of any tensor that an operation made, and how often attention was called."""

    elements = 0
    attention_calls = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        self.attention_calls += "flash_attention_for_cpu" in func.name() and "backward" not in func.name()
        for each in made if isinstance(made, tuple | list) else [made]:
            if isinstance(each, Tensor):
                self.elements = max(self.elements, each.numel())
        return made


@pytest.mark.parametrize("backend", ON_CPU)
@pytest.mark.parametrize("plan", PLANS)
def test_no_tensor_has_a_row_and_a_column_per_token(backend: str, plan: str) -> None:
    """Not even one group's: its queries times its keys are many more numbers than the widest of activations."""
    layout = SceneLayout((60, 40, 80), (240, 180, 300))
    pattern = get_plan(plan).pattern(layout, {0})
    query, key, value = (each[:1].requires_grad_() for each in softmax_inputs(pattern, torch.float32))
    fewest = min(_length(group.queries) * _length(group.keys) for group in pattern.groups if group.queries[-1].stop > 180)
    assert fewest > query.numel()  # else it would say nothing
    with Operations() as seen:
        ON_CPU[backend]().attend(query, key, value, pattern).sum().backward()
    assert seen.elements <= query.numel()

    if backend == "grouped":
        math = GroupedAttnProcessor()
        math._attention_backend = AttentionBackendName("_native_math")  # does make them: so the measure can see it
        with Operations() as seen, torch.no_grad():
            math.attend(query, key, value, pattern)
        assert seen.elements > query.numel()


def _length(pieces: tuple[slice, ...]) -> int:
    return sum(piece.stop - piece.start for piece in pieces)


@pytest.mark.parametrize("backend", ON_CPU)
def test_norms_may_give_other_numbers_than_projections(backend: str) -> None:
    """As under CUDA's autocast, which computes LayerNorm in float32."""
    layout = LAYOUTS[0]
    joint, rotary = states(layout)
    attn = attention(backend).to(torch.bfloat16)
    attn.norm_q.float(), attn.norm_k.float()
    attn.norm_q.register_forward_pre_hook(lambda _, given: (given[0].float(),))
    attn.norm_k.register_forward_pre_hook(lambda _, given: (given[0].float(),))
    assert attn(joint.bfloat16(), get_plan("symmetric").pattern(layout), rotary).dtype == torch.bfloat16


def test_a_whole_model_with_auto_builds_nothing_of_that_size(caplog: pytest.LogCaptureFixture) -> None:
    model = tiny.transformer(sample_width=24, sample_height=16)
    with caplog.at_level(logging.INFO, "mask2dit"):
        assert model.set_attention("auto") == "merged"
    assert caplog.messages == ["attention: merged on cpu in float32, by torch's CPU flash"]
    inputs = tiny.inputs(model, (16,) * 3, (3,) * 3, batch=1)
    with Operations() as seen, torch.no_grad():
        model(**inputs)
    assert seen.attention_calls == 3 * model.config.num_layers
    assert seen.elements < inputs["layout"].num_tokens ** 2 / 3


def test_backends_are_chosen_by_name_and_by_device(monkeypatch: pytest.MonkeyPatch) -> None:
    assert choose_attention("grouped", CPU, torch.float32, 16) == "grouped"
    with pytest.raises(InputError, match=r"attention: got 'mergd', expected auto, grouped, merged, flex"):
        tiny.transformer().set_attention("mergd")
    with pytest.raises(InputError, match="attention: got flex on cpu, expected a CUDA device; use auto, merged or grouped"):
        tiny.transformer().set_attention("flex")
    with pytest.raises(InputError, match=r"^attention: got _flash_3 on cpu, expected an exact kernel that works there \(.*\); use auto$"):
        tiny.transformer().set_attention("_flash_3")
    with pytest.raises(InputError, match=r"^attention: got sage_hub on cpu, expected .*\(it rounds to 8 bits\); use auto$"):
        tiny.transformer().set_attention("sage_hub")
    monkeypatch.setattr("mask2dit.attention_backends.find_spec", lambda _: None)
    with pytest.raises(InputError, match="attention: got flex without triton, which compiles it; install triton, or use auto, merged"):
        choose_attention("flex", torch.device("cuda"), torch.bfloat16, 64)
    monkeypatch.setitem(KERNELS, "cpu", ())
    monkeypatch.setattr("mask2dit.merged_attention._found", {})
    assert choose_attention("auto", CPU, torch.float32, 16) == "grouped"
    with pytest.raises(InputError, match="where no kernel tells its log-sum-exp; use auto or grouped"):
        choose_attention("merged", CPU, torch.float32, 16)


def test_a_model_that_moves_where_no_kernel_is_goes_on_in_groups(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """As from the CPU to CUDA in float32."""
    model = tiny.transformer()
    assert model.set_attention("auto") == "merged"
    inputs = tiny.inputs(model, (3, 5, 4), (2, 1, 3))
    with torch.no_grad():
        merged = model(**inputs).sample
    monkeypatch.setitem(KERNELS, "cpu", ())
    monkeypatch.setattr("mask2dit.merged_attention._found", {})
    with torch.no_grad(), caplog.at_level(logging.INFO, "mask2dit"):
        torch.testing.assert_close(model(**inputs).sample, merged, rtol=0, atol=1e-5)
    assert caplog.messages == ["attention: no kernel on cpu in float32 tells its log-sum-exp"]


def test_a_kernel_that_tells_something_else_is_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    (good,) = KERNELS["cpu"]
    wrong = type(good)("wrong", lambda *states: (good.forward(*states)[0], good.forward(*states)[1] + 0.1, ()), good.backward)
    absent = type(good)("absent", lambda *states: torch.ops.aten.no_such_attention(*states), good.backward)

    def backward_of_its_own(grad: Tensor, query: Tensor, key: Tensor, value: Tensor, *_: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return good.backward(grad, query, key, value, *good.forward(query, key, value)[:2])

    selfish = type(good)("selfish", good.forward, backward_of_its_own)
    monkeypatch.setitem(KERNELS, "cpu", (wrong, absent, selfish, good))
    monkeypatch.setattr("mask2dit.merged_attention._found", {})
    with torch.device("meta"), torch.inference_mode():  # whatever else is at work
        assert find_kernel(CPU, torch.float32, 16) is find_kernel(CPU, torch.float64, 16) is good


def test_diffusers_kernels_are_called_whatever_the_backend_was() -> None:
    model = tiny.transformer()
    model.set_attention("merged")
    model.set_attention_backend("_native_math")
    try:
        processor = model.transformer_blocks[0].attn1.processor
        assert type(processor) is GroupedAttnProcessor and processor._attention_backend == "_native_math"
        inputs = tiny.inputs(model, (3, 5, 4), (2, 1, 3))
        with torch.no_grad():
            made = model(**inputs).sample
            for name in ("grouped", "native", "grouped", "merged", "native"):
                assert model.set_attention(name) == name
                kernel = model.transformer_blocks[0].attn1.processor._attention_backend
                assert kernel == ("native" if name == "native" else None)
                torch.testing.assert_close(model(**inputs).sample, made, rtol=0, atol=1e-5)
        with pytest.raises(InputError):
            model.set_attention("_flash_3")
        assert _AttentionBackendRegistry.get_active_backend()[0] == "_native_math"  # as it was asked of diffusers, for all of its models
    finally:
        tiny.transformer().set_attention_backend("native")  # diffusers keeps the last choice for models that made none


def test_another_processor_takes_over() -> None:
    class Silence(SceneAttnProcessor):
        def __call__(self, attn: SceneAttention, hidden_states: Tensor, *rest: Any) -> Tensor:
            return torch.zeros_like(hidden_states)

    layout = LAYOUTS[0]
    joint, rotary = states(layout)
    attn = attention()
    attn.set_processor(Silence())
    assert not attn(joint, get_plan("symmetric").pattern(layout), rotary).any()
