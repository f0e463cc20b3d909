"""Every capability that diffusers' base classes promise, called on the tiny model, with its effect seen."""

import copy
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import FirstBlockCacheConfig
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict
from torch import Tensor, nn

import mask2dit.attention
import tiny
from mask2dit import Mask2DiTPipeline, Mask2DiTTransformer3DModel
from mask2dit.errors import InputError
from mask2dit.transformer import Mask2DiTBlock

TEXT, FRAMES = (3, 5, 4), (2, 1, 3)
CAPTIONS = ["a red fox walks", "the fox jumps", "a blue bear sleeps"]


@pytest.fixture
def model() -> Mask2DiTTransformer3DModel:
    return tiny.transformer()


def forward(model: nn.Module, **options: Any) -> Tensor:
    with torch.no_grad():
        return model(**tiny.inputs(tiny.transformer(), TEXT, FRAMES), **options).sample


def film(pipeline: Mask2DiTPipeline, **options: Any) -> Tensor:
    return torch.cat(pipeline(CAPTIONS, generator=torch.Generator().manual_seed(0), output_type="latent", **options).scenes)


# LoRA


def add_adapter(model: Mask2DiTTransformer3DModel) -> None:
    model.add_adapter(LoraConfig(r=2, lora_alpha=4, target_modules=["to_q", "to_k", "to_v", "to_out.0"]))
    tiny.randomise(nn.ModuleList(each for name, each in model.named_modules() if "lora_" in name and isinstance(each, nn.Linear)), seed=5)


def test_lora_scaled_through_attention_kwargs(model: Mask2DiTTransformer3DModel) -> None:
    base = forward(model)
    add_adapter(model)
    none, half, whole = (forward(model, attention_kwargs={"scale": scale}) for scale in (0.0, 0.5, 1.0))
    assert torch.equal(none, base)
    assert torch.equal(forward(model), whole)
    assert 0 < (half - base).norm() < (whole - base).norm()
    assert torch.equal(forward(model, attention_kwargs={}), whole)
    model.disable_adapters()
    assert torch.equal(forward(model), base)


def test_only_the_adapter_learns(model: Mask2DiTTransformer3DModel) -> None:
    model.requires_grad_(False)
    add_adapter(model)
    model(**tiny.inputs(model, TEXT, FRAMES)).sample.square().mean().backward()
    moved = {name for name, parameter in model.named_parameters() if parameter.grad is not None and parameter.grad.any()}
    assert moved and all("lora_" in name for name in moved)


def test_a_lora_file_goes_through_the_pipeline(tmp_path: Path) -> None:
    pipeline = tiny.pipeline()
    base = film(pipeline)
    add_adapter(pipeline.transformer)
    adapted = film(pipeline)
    layers = get_peft_model_state_dict(pipeline.transformer)
    Mask2DiTPipeline.save_lora_weights(tmp_path, transformer_lora_layers=layers)

    other = tiny.pipeline()
    other.load_lora_weights(tmp_path, adapter_name="style")
    loaded = get_peft_model_state_dict(other.transformer, adapter_name="style")
    assert loaded.keys() == layers.keys() and all(torch.equal(loaded[key], layers[key]) for key in layers)
    scaled = film(other)
    assert not torch.equal(scaled, base)
    other.set_adapters("style", 0.0)
    assert torch.equal(film(other), base)
    other.set_adapters("style", 2.0)  # a file without lora_alpha counts as r; ours was 2 · r
    assert torch.allclose(film(other), adapted, atol=1e-4)
    other.unload_lora_weights()
    assert torch.equal(film(other), base)


def test_a_lora_can_be_fused(model: Mask2DiTTransformer3DModel) -> None:
    add_adapter(model)
    adapted = forward(model)
    model.fuse_lora()
    assert torch.allclose(forward(model), adapted, atol=1e-5)


# Training and memory


@pytest.mark.parametrize("attention", ["grouped", "merged"])
def test_gradient_checkpointing_gives_the_same_gradients(model: Mask2DiTTransformer3DModel, attention: str) -> None:
    model.set_attention(attention)
    runs: list[int] = []
    hooks = [block.register_forward_pre_hook(lambda *_: runs.append(1)) for block in model.transformer_blocks]

    def gradients() -> dict[str, Tensor]:
        model.zero_grad()
        model.train()(**tiny.inputs(model, TEXT, FRAMES)).sample.square().mean().backward()
        return {name: parameter.grad.clone() for name, parameter in model.named_parameters()}

    plain = gradients()
    assert len(runs) == 3
    model.enable_gradient_checkpointing()
    checkpointed = gradients()
    assert len(runs) == 3 + 6  # each block once more, in the backward pass
    for hook in hooks:
        hook.remove()
    assert all(torch.equal(plain[name], checkpointed[name]) for name in plain)
    assert all(value.any() for value in plain.values())


def test_layerwise_casting_stores_in_half(model: Mask2DiTTransformer3DModel) -> None:
    exact = forward(model)
    model.enable_layerwise_casting(storage_dtype=torch.bfloat16, compute_dtype=torch.float32)
    assert model.transformer_blocks[0].attn1.to_q.weight.dtype == torch.bfloat16
    assert model.transformer_blocks[0].ff.net[2].weight.dtype == torch.bfloat16
    kept = {name.split(".")[0] for name, parameter in model.named_parameters() if parameter.dtype == torch.float32}
    assert "patch_embed" in kept and "norm_out" in kept
    assert all(parameter.dtype == torch.float32 for name, parameter in model.named_parameters() if "norm" in name)
    assert model.dtype == torch.float32
    rough = forward(model)
    assert rough.dtype == torch.float32 and not torch.equal(rough, exact)
    assert (rough - exact).abs().mean() < 0.02 * exact.abs().mean()


def test_model_offload_keeps_the_result_and_decodes_before_it_lets_go(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = tiny.pipeline()(CAPTIONS, generator=torch.Generator().manual_seed(0)).scenes
    pipeline = tiny.pipeline()
    pipeline.enable_model_cpu_offload(device="cpu")
    order: list[str] = []
    for owner, name in ((pipeline.vae, "decode"), (pipeline, "maybe_free_model_hooks")):
        real = getattr(owner, name)
        monkeypatch.setattr(owner, name, lambda *args, name=name, real=real: order.append(name) or real(*args))
    scenes = pipeline(CAPTIONS, generator=torch.Generator().manual_seed(0)).scenes
    assert order == ["decode"] * 3 + ["maybe_free_model_hooks"]
    assert hasattr(pipeline.transformer, "_hf_hook")
    assert all((mine == theirs).all() for mine, theirs in zip(scenes, expected, strict=True))
    latents = pipeline.encode_scene(scenes[0])
    assert pipeline.decode_scene(latents).shape == scenes[0].shape


def test_group_offload_keeps_the_result(model: Mask2DiTTransformer3DModel, tmp_path: Path) -> None:
    exact = forward(model)
    model.enable_group_offload(
        onload_device=torch.device("cpu"), offload_type="block_level", num_blocks_per_group=1, offload_to_disk_path=str(tmp_path)
    )
    assert len(list(tmp_path.glob("*.safetensors"))) >= 3
    assert torch.equal(forward(model), exact)


# Speed


def block_runs(pipeline: Mask2DiTPipeline, **options: Any) -> tuple[list[int], Tensor]:
    """How often each block computes, counted inside of what a cache may skip."""
    runs = [0] * len(pipeline.transformer.transformer_blocks)
    hooks = []
    for index, block in enumerate(pipeline.transformer.transformer_blocks):

        def count(*_: Any, index: int = index) -> None:
            runs[index] += 1

        hooks.append(block.attn1.register_forward_hook(count))
    made = film(pipeline, **options)
    for hook in hooks:
        hook.remove()
    return runs, made


def test_first_block_cache_skips_blocks() -> None:
    pipeline = tiny.pipeline()
    runs, exact = block_runs(pipeline, num_inference_steps=5)
    assert runs == [10, 10, 10]  # five steps, two branches

    pipeline.transformer.enable_cache(FirstBlockCacheConfig(threshold=1e9))
    runs, skipped = block_runs(pipeline, num_inference_steps=5)
    assert runs == [10, 2, 2]  # the first step of each branch
    assert skipped.isfinite().all() and not torch.equal(skipped, exact)

    def stop(*_: Any) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        film(pipeline, num_inference_steps=5, callback_on_step_end=stop)
    again, repeated = block_runs(pipeline, num_inference_steps=5)
    assert again == runs and torch.equal(repeated, skipped)  # nothing is left over from the films before, finished or not
    pipeline.transformer.disable_cache()

    pipeline.transformer.enable_cache(FirstBlockCacheConfig(threshold=0.0))
    runs, careful = block_runs(pipeline, num_inference_steps=5)
    assert runs == [10, 10, 10] and torch.equal(careful, exact)
    pipeline.transformer.disable_cache()
    assert block_runs(pipeline, num_inference_steps=5)[0] == [10, 10, 10]


def test_the_cache_needs_our_entry_in_the_private_registry() -> None:
    from diffusers.hooks._helpers import TransformerBlockRegistry

    metadata = TransformerBlockRegistry.get(Mask2DiTBlock)
    assert (metadata.return_hidden_states_index, metadata.return_encoder_hidden_states_index) == (0, None)


@pytest.fixture
def backends(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Any]]:
    """The backend of every call of the dispatcher."""
    seen: list[Any] = []
    real = mask2dit.attention.dispatch_attention_fn

    def watch(*args: Any, **kwargs: Any) -> Tensor:
        seen.append(kwargs["backend"])
        return real(*args, **kwargs)

    monkeypatch.setattr(mask2dit.attention, "dispatch_attention_fn", watch)
    yield seen
    tiny.transformer().set_attention_backend("native")  # diffusers keeps the last choice for models that made none


def test_the_attention_backend_is_the_one_that_is_called(model: Mask2DiTTransformer3DModel, backends: list[Any]) -> None:
    exact = forward(model)
    assert set(backends) == {None} and len(backends) == 3 * 6
    backends.clear()
    model.set_attention_backend("_native_math")
    assert torch.allclose(forward(model), exact, atol=1e-5)
    assert {backend.value for backend in backends} == {"_native_math"}
    backends.clear()
    model.set_attention_backend("native")
    assert torch.equal(forward(model), exact) and {backend.value for backend in backends} == {"native"}
    backends.clear()
    model.reset_attention_backend()
    assert torch.equal(forward(model), exact) and set(backends) == {None}


def test_an_unknown_backend_is_refused(model: Mask2DiTTransformer3DModel) -> None:
    with pytest.raises(ValueError, match="must be one of"):
        model.set_attention_backend("nonsense")


@pytest.mark.parametrize("plan", ["symmetric", "isolated"])
def test_fused_projections_keep_the_plan(plan: str) -> None:
    model = tiny.transformer(attention_plan=plan)
    exact = forward(model)
    model.fuse_qkv_projections()
    assert model.transformer_blocks[0].attn1.to_qkv.weight.shape == (96, 32)
    fused = forward(model)
    assert torch.allclose(fused, exact, atol=1e-5)
    assert not torch.allclose(fused, forward(tiny.transformer(attention_plan="full")), atol=1e-2)
    for layer in (model.transformer_blocks[0].attn1.to_q, model.transformer_blocks[0].attn1.to_k):
        with torch.no_grad():
            layer.weight.zero_()
    assert torch.equal(forward(model), fused)  # the single ones are idle
    model.unfuse_qkv_projections()
    assert not torch.allclose(forward(model), fused, atol=1e-2)


@pytest.mark.parametrize("adapters_first", [True, False])
def test_fused_projections_do_not_lose_adapters_in_silence(model: Mask2DiTTransformer3DModel, adapters_first: bool) -> None:
    for change in (add_adapter, Mask2DiTTransformer3DModel.fuse_qkv_projections)[:: 1 if adapters_first else -1]:
        change(model)
    with pytest.raises(InputError, match="adapters: got them with one projection for q, k and v"):
        forward(model)
    model.unfuse_qkv_projections()
    assert not torch.equal(forward(model), forward(tiny.transformer()))


def test_a_processor_of_ones_own_needs_to_be_callable_only(model: Mask2DiTTransformer3DModel) -> None:
    model.set_attn_processor(lambda attn, states, *rest: torch.zeros_like(states))
    assert forward(model).isfinite().all()


def test_processors_can_be_swapped_by_name(model: Mask2DiTTransformer3DModel) -> None:
    assert set(model.attn_processors) == {f"transformer_blocks.{index}.attn1.processor" for index in range(3)}
    before = forward(model)
    model.set_attn_processor(mask2dit.attention.GroupedAttnProcessor())
    assert torch.equal(forward(model), before)


def test_each_layout_is_compiled_once_and_with_lengths_as_numbers(model: Mask2DiTTransformer3DModel) -> None:
    graphs: list[torch.fx.GraphModule] = []

    def collect(graph: torch.fx.GraphModule, _: list[Any]) -> Any:
        graphs.append(graph)
        return graph.forward

    model.set_attention("merged")
    layouts = [(TEXT, FRAMES), ((3, 5), (2, 1)), ((3, 3, 3, 3), (2, 2, 1, 2))]
    exact = [model(**tiny.inputs(model, *layout)).sample for layout in layouts]
    model.compile_repeated_blocks(fullgraph=True, backend=collect)
    with torch.no_grad():
        for layout, expected in zip(layouts * 2, exact * 2, strict=True):
            torch.testing.assert_close(model(**tiny.inputs(model, *layout)).sample, expected.detach(), rtol=0, atol=1e-5)
    assert len(graphs) == len(layouts)
    examples = [node.meta["example_value"] for graph in graphs for node in graph.graph.nodes if node.op == "placeholder"]
    assert examples and all(isinstance(each, Tensor) and all(type(size) is int for size in each.shape) for each in examples)


@pytest.mark.slow
@pytest.mark.parametrize("checkpointing", [False, True])
def test_compiled_blocks_learn_as_plain_ones(checkpointing: bool) -> None:
    """Merged and under autocast, as recipes with `compile: true` train; in seconds, also with many scenes."""

    def gradients(compiled: bool) -> list[Tensor]:
        model = tiny.transformer(num_layers=2)
        assert model.set_attention("merged", dtype=torch.bfloat16) == "merged"
        if checkpointing:
            model.enable_gradient_checkpointing()
        if compiled:
            model.compile_repeated_blocks(fullgraph=True)
        with torch.autocast("cpu", torch.bfloat16):
            loss = model(**tiny.inputs(model, (8,) * 6, (2,) * 6)).sample.float().square().mean()
        loss.backward()
        return [each.grad for each in model.parameters() if each.grad is not None]

    began = time.monotonic()
    for mine, plain in zip(gradients(True), gradients(False), strict=True):
        assert (mine - plain).norm() <= 0.05 * plain.norm() + 1e-6
    assert time.monotonic() - began < 200


@pytest.mark.parametrize("autocast", [False, True])
def test_a_kernel_is_tried_before_blocks_are_compiled(
    autocast: bool, model: Mask2DiTTransformer3DModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Numbers that the model had not when its attention was chosen: those of autocast, or after a move."""
    model.set_attention("merged")
    monkeypatch.setattr("mask2dit.merged_attention._found", {})
    model.compile_repeated_blocks(fullgraph=True, backend="eager")
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        assert forward(model).isfinite().all()


@pytest.mark.parametrize("backend", ["eager", pytest.param("inductor", marks=pytest.mark.slow)])
def test_compiled_blocks_give_the_same_result(model: Mask2DiTTransformer3DModel, backend: str) -> None:
    exact = forward(model)
    model.compile_repeated_blocks(fullgraph=True, backend=backend)
    assert torch.allclose(forward(model), exact, atol=1e-5)
    assert model.is_compiled
    if backend == "eager":
        twin = copy.deepcopy(model)
        for value in twin.parameters():
            value.data.zero_()
        assert not forward(twin).any() and torch.allclose(forward(model), exact, atol=1e-5)
