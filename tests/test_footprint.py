"""What is counted without running is what a run allocates."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.profiler import ProfilerActivity, profile

import tiny
from mask2dit import Mask2DiTTransformer3DModel
from mask2dit.footprint import footprint
from mask2dit.framewise import use_framewise_convolutions
from mask2dit.latents import decode_latents
from mask2dit.plans import get_plan
from mask2dit.scene_layout import SceneLayout
from mask2dit.text import encode_tokens


def allocated(call: Callable[[], Any]) -> int:
    """Bytes at the fullest moment of a real call, as torch's CPU allocator reports them."""
    with torch.no_grad(), profile(activities=[ProfilerActivity.CPU], profile_memory=True) as record:
        call()
    now = most = 0
    for event in sorted(
        (event for event in record.profiler.kineto_results.events() if event.name() == "[memory]"), key=lambda event: event.start_ns()
    ):
        now += event.nbytes()
        most = max(most, now)
    return most


def on_meta(network: torch.nn.Module) -> Any:
    return (
        type(network).from_config(network.config).to("meta")
        if hasattr(network, "from_config")
        else type(network)(network.config).to("meta")
    )


def test_a_known_case() -> None:
    """Two products of 10 × 10 float32 and their sum: three are alive at once, and then one."""
    x = torch.empty(10, 10, device="meta")
    counted = footprint(lambda: (x @ x + x @ x).t().reshape(4, 25).sum())
    assert counted.peak_bytes == 3 * 400
    assert counted.linear_flop == 2 * 2 * 10**3 and counted.attention_flop == 0


def test_attention_is_counted_as_a_kernel_computes_it() -> None:
    """Its scores are never there as a whole."""
    query, key = torch.empty(2, 3, 50, 8, device="meta"), torch.empty(2, 3, 70, 8, device="meta")
    counted = footprint(lambda: torch.nn.functional.scaled_dot_product_attention(query, key, key))
    assert counted.peak_bytes == query.numel() * 4
    assert counted.attention_flop == 2 * (2 * 2 * 3 * 50 * 70 * 8)


@pytest.mark.parametrize("frames", [(3,), (2, 1, 3), (3, 3, 3)])
def test_the_transformer(frames: tuple[int, ...]) -> None:
    changes = {"num_attention_heads": 8, "attention_head_dim": 64, "sample_height": 24, "sample_width": 36}
    model = tiny.transformer(**changes)
    inputs = tiny.inputs(model, (16,) * len(frames), frames, batch=1)
    rotary = model.rotary_table(sum(frames), (12, 18))
    real = allocated(lambda: model(**inputs, image_rotary_emb=rotary))
    there = {name: value.to("meta") if isinstance(value, torch.Tensor) else value for name, value in inputs.items()}
    meta = tuple(table.to("meta") for table in rotary)
    there_model = on_meta(model)
    counted = footprint(lambda: there_model(**there, image_rotary_emb=meta)).peak_bytes
    assert counted == pytest.approx(real, rel=0.1)


def test_the_vae_and_the_text_encoder() -> None:
    pipeline = tiny.pipeline()
    scene = torch.randn(3, 4, 12, 18)
    real = allocated(lambda: decode_latents(pipeline.vae, scene, scene.device))
    vae, meta = on_meta(pipeline.vae), scene.to("meta")
    use_framewise_convolutions(vae)  # as decoding on the CPU does
    assert footprint(lambda: decode_latents(vae, meta, meta.device)).peak_bytes == pytest.approx(real, rel=0.2)
    tokens = torch.zeros(1, 64, dtype=torch.long)
    real = allocated(lambda: encode_tokens(tokens, pipeline.text_encoder))
    text_encoder = on_meta(pipeline.text_encoder)
    assert footprint(lambda: encode_tokens(tokens.to("meta"), text_encoder)).peak_bytes == pytest.approx(real, rel=0.25)


def test_a_real_block_of_the_published_width() -> None:
    """5B's own width, heads and text; one block, and fewer video tokens, so that it takes seconds."""
    with torch.device("meta"):
        published = Mask2DiTTransformer3DModel(num_layers=1, sample_height=12, sample_width=16)
    real_block = published.transformer_blocks[0].to_empty(device="cpu").requires_grad_(False)
    for value in real_block.parameters():
        value.zero_()
    layout = SceneLayout((226,) * 2, (96,) * 2)

    def arguments(device: str) -> tuple[Any, ...]:
        tensors = (torch.zeros(shape, device=device) for shape in ((1, layout.num_tokens, 3072), (1, 2, 512)))
        rotary = tuple(torch.zeros(layout.num_tokens, 64, device=device) for _ in range(2))
        return (*tensors, layout.segment_lengths, get_plan("symmetric").pattern(layout), rotary)

    on_cpu = arguments("cpu")
    real = allocated(lambda: real_block(*on_cpu))
    there = arguments("meta")
    with torch.device("meta"):
        meta_block = Mask2DiTTransformer3DModel(num_layers=1).transformer_blocks[0]
    counted = footprint(lambda: meta_block(*there))
    assert counted.peak_bytes == pytest.approx(real, rel=0.1)
    width, tokens = 3072, layout.num_tokens
    assert counted.linear_flop == 2 * tokens * 12 * width**2 + 2 * 2 * 2 * 512 * 6 * width
