"""Transformers with random weights for a benchmark: what they take by count, made on the device, and varied without a second copy."""

from dataclasses import replace
from typing import Any

import torch
from torch import nn

from mask2dit.attention import SceneAttention
from mask2dit.benchmarking.forms import make_processor
from mask2dit.benchmarking.measuring import Call
from mask2dit.benchmarking.settings import ROOM, Settings
from mask2dit.errors import InputError
from mask2dit.footprint import Footprint, footprint
from mask2dit.memory import gib
from mask2dit.step_caches import Clock, FirstBlockCache
from mask2dit.transformer import Mask2DiTTransformer3DModel

SPREAD = 0.05  # of random weights: nothing overflows, and nothing is so small that the processor slows down
SPARE = 0.1  # of what is made on the way: workspaces of kernels, and what the allocator cannot use
FUSED, COMPILED, CACHED = "one matmul for q, k, v", "compiled", "a step from the cache"
ALWAYS = 1e9  # a threshold under which every step but the first is taken from the cache
FUSED_SHARE = 3 / 12  # of a block's weights: what the joint projection takes beside those that it was made of


def step_footprint(settings: Settings, scenes: int, blocks: int | None = None) -> Footprint:
    """What a step takes; blocks: all of the model's where it is None."""
    outside, one = (_counted(settings, scenes, count) for count in (0, 1))
    count = settings.model_config["num_layers"] if blocks is None else blocks
    linear = outside.linear_flop + (one.linear_flop - outside.linear_flop) * count
    return Footprint(one.peak_bytes, linear, outside.attention_flop + (one.attention_flop - outside.attention_flop) * count)


def step_flop(settings: Settings, scenes: int, blocks: int | None = None) -> int:
    """Its arithmetic alone."""
    return step_footprint(settings, scenes, blocks).flop


def step_bytes(settings: Settings, scenes: int, blocks: int) -> int:
    """Weights of a network with so many blocks, their joint projections, and what a step makes on the way."""
    outside, one = (_weight_bytes(settings, count) for count in (0, 1))
    working = _counted(settings, scenes, min(blocks, 1)).peak_bytes
    return outside + int((one - outside) * blocks * (1 + FUSED_SHARE) + working * (1 + SPARE))


def choose_blocks(settings: Settings, rate: float, free: float) -> int:
    """How many blocks are measured: all that memory holds, in a step no longer than it may be; rate: FLOP per second."""
    outside, one = (step_flop(settings, settings.scenes, count) for count in (0, 1))
    most = (settings.step_seconds * rate - outside) / (one - outside)
    base, each = step_bytes(settings, settings.scenes, 1), _weight_bytes(settings, 1) - _weight_bytes(settings, 0)
    layers: int = settings.model_config["num_layers"]
    return max(1, min(layers, int(most), 1 + int((free - base) / each / (1 + FUSED_SHARE))))


def check_room(settings: Settings, free: float) -> None:
    """Raise InputError where not even one block fits into what is free."""
    needed = step_bytes(settings, settings.scenes, 1)
    if needed > ROOM * free:
        raise InputError(
            f"memory: got {gib(int(free))} free on {settings.device}, expected about {gib(int(needed / ROOM), up=True)} for one block of "
            f"{settings.size.name} with {settings.shape(settings.scenes).words}; take fewer --scenes or --frames, or a smaller --height"
        )


def random_network(settings: Settings, blocks: int) -> Any:
    """A network on the device; the same numbers each time."""
    network = _on_meta(settings, blocks).to_empty(device=settings.device)
    generator = torch.Generator(settings.device).manual_seed(0)
    for value in network.parameters():
        value.data.uniform_(-SPREAD, SPREAD, generator=generator)
    return network


def variant_of(network: Any, settings: Settings, name: str) -> Any:
    """A network with the same weights in memory; name: a form of attention, then, maybe, what else is different."""
    form, _, change = name.partition(", ")
    weights, blocks = network.state_dict(), len(network.transformer_blocks)
    if change == CACHED and blocks == 1:  # there must be one to skip: the same again, in the same memory
        weights |= {key.replace("transformer_blocks.0.", "transformer_blocks.1."): value for key, value in weights.items()}
        blocks = 2
    twin = _on_meta(settings, blocks)
    twin.load_state_dict(weights, assign=True)
    for module in twin.modules():
        if isinstance(module, SceneAttention):
            module.set_processor(make_processor(form))  # type: ignore[operator]  # a mixin without types
    if change == FUSED:
        twin.fuse_qkv_projections()
    elif change == COMPILED:
        twin.compile_repeated_blocks(fullgraph=True)
    elif change == CACHED:
        FirstBlockCache(ALWAYS).attach(twin, Clock(1))
    return twin


def step_call(settings: Settings, network: Any, scenes: int) -> Call:
    """One prediction for so many scenes."""
    config, shape = settings.model_config, settings.shape(scenes)
    layout, (rows, columns), patch = shape.layout(config["max_text_seq_length"]), shape.latent_size, config["patch_size"]
    frames, channels = sum(shape.num_latent_frames), config["in_channels"]
    generator = torch.Generator().manual_seed(0)

    def numbers(*sizes: int) -> torch.Tensor:
        return torch.randn(sizes, generator=generator).to(settings.device, settings.dtype)

    latents = numbers(1, frames, channels, rows, columns)
    captions = numbers(1, layout.num_text_tokens, config["text_embed_dim"])
    timestep = torch.full((1, scenes), 500.0, device=settings.device)
    rotary = network.rotary_table(frames, (rows // patch, columns // patch), settings.device)  # once for a film

    @torch.no_grad()
    def call() -> Any:
        with network.cache_context("cond"):
            return network(latents, captions, timestep, layout, rotary, return_dict=False)[0]

    return call


def without_blocks(network: Any, call: Call) -> Call:
    """The same call of the network with no blocks."""

    def bare() -> Any:
        blocks, network.transformer_blocks = network.transformer_blocks, nn.ModuleList()
        try:
            return call()
        finally:
            network.transformer_blocks = blocks

    return bare


def _on_meta(settings: Settings, blocks: int) -> Any:
    with torch.device("meta"):
        network = Mask2DiTTransformer3DModel(**{**settings.size.config, "num_layers": blocks})
    return network.eval().to(settings.dtype)


def _weight_bytes(settings: Settings, blocks: int) -> int:
    return sum(value.nbytes for value in _on_meta(settings, blocks).parameters())


def _counted(settings: Settings, scenes: int, blocks: int) -> Footprint:
    """Of a step with grouped attention, on the meta device."""
    meta = replace(settings, device=torch.device("meta"))
    return footprint(step_call(meta, _on_meta(settings, blocks), scenes))
