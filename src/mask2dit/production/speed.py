"""How fast a device computes: FLOP per second of what networks mostly do, and the time of whole small networks.

Both take a moment and need no trained weights: numbers are random.
"""

import time
from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import dataclass
from functools import partial
from math import isqrt
from statistics import median
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import linear, scaled_dot_product_attention

from mask2dit.errors import InputError
from mask2dit.footprint import footprint
from mask2dit.framewise import use_framewise_convolutions
from mask2dit.latents import decode_latents
from mask2dit.text import encode_tokens
from mask2dit.video_shape import VideoShape

ROUNDS = 3
LONG_ENOUGH = 0.03  # seconds of one call: clocks and starting costs no longer count, and all rates together take about a second
SPREAD = 0.05  # of random weights: nothing overflows, and nothing is so small that the processor slows down

Call = Callable[[], Tensor]


@dataclass(frozen=True, slots=True)
class Speed:
    """FLOP per second. `decoding`: of a block of the VAE, which is convolutions and what goes with them."""

    linear: float
    attention: float
    decoding: float


def measure_speed(transformer: Any, vae: Any, shape: VideoShape, device: torch.device, dtype: torch.dtype) -> Speed:
    """Compute layers of the widths of these networks, at growing sizes up to those of a film, till one call takes long enough.

    The networks lie on the meta device. Raises InputError where the device has no room even for that.
    """
    try:
        return _measure(transformer, vae, shape, device, dtype)
    except torch.OutOfMemoryError:
        raise InputError(f"{device}: out of memory while its speed was measured; free some of it, or take another --device") from None


def _measure(transformer: Any, vae: Any, shape: VideoShape, device: torch.device, dtype: torch.dtype) -> Speed:
    config, decoder = transformer.config, _DecoderBlock(vae, device, dtype)
    heads, width = config.num_attention_heads, config.num_attention_heads * config.attention_head_dim
    num_tokens = shape.layout(config.max_text_seq_length).num_tokens

    def numbers(*sizes: int) -> Tensor:
        return torch.empty(sizes, dtype=dtype, device=device).uniform_(-SPREAD, SPREAD)

    weight = numbers(width, width)

    def project(count: int) -> tuple[Call, int]:
        tokens = numbers(count, width)
        return lambda: linear(tokens, weight), 2 * count * width**2

    def attend(count: int) -> tuple[Call, int]:
        tokens = numbers(1, heads, count, config.attention_head_dim)
        return lambda: scaled_dot_product_attention(tokens, tokens, tokens), 4 * count**2 * width

    largest = isqrt(shape.height * shape.width)
    return Speed(_rate(project, num_tokens), _rate(attend, num_tokens), _rate(decoder.prepare, largest))


class _DecoderBlock:
    """The last residual block of a VAE's decoder: where it spends most of its time, at the film's full size."""

    def __init__(self, vae: Any, device: torch.device, dtype: torch.dtype) -> None:
        if device.type == "cpu":
            use_framewise_convolutions(vae)
        block = vae.decoder.up_blocks[-1].resnets[-1].to(dtype)
        self._counted, self._real = block, _random(deepcopy(block), device, dtype)
        self._channels = int(vae.config.block_out_channels[0]), int(vae.config.latent_channels)

    def prepare(self, side: int) -> tuple[Call, int]:
        """A call for two latent frames, which become eight, and its arithmetic."""

        def call(block: Any) -> Tensor:
            weight = next(block.parameters())
            frames = weight.new_zeros(1, self._channels[0], 8, side, side)
            latents = weight.new_zeros(1, self._channels[1], 2, max(1, side // 8), max(1, side // 8))
            return block(frames, None, latents)[0]  # type: ignore[no-any-return]

        return partial(call, self._real), footprint(lambda: call(self._counted)).flop


@torch.no_grad()
def _rate(prepare: Callable[[int], tuple[Call, int]], largest: int) -> float:
    """FLOP per second at the first size of which a call takes long enough, else at the largest that there is room for."""
    measured: tuple[Call, int] | None = None
    for size in _doubled(16, largest):
        try:
            call, flop = prepare(size)
            is_long = _seconds(call) >= LONG_ENOUGH and _seconds(call) >= LONG_ENOUGH  # a first call may be slow by itself
        except torch.OutOfMemoryError:
            if measured is None:
                raise
            break
        measured = call, flop
        if is_long:
            break
    assert measured is not None  # there is always a largest size
    return measured[1] / median_seconds(measured[0])


def _doubled(first: int, last: int) -> Iterator[int]:
    while first < last:
        yield first
        first *= 2
    yield last


@torch.no_grad()
def median_seconds(call: Call) -> float:
    """How long a call takes, once it has been made."""
    _seconds(call)
    return median(_seconds(call) for _ in range(ROUNDS))


def _seconds(call: Call) -> float:
    began = time.perf_counter()
    result = call()
    result[(0,) * result.ndim].item()  # a device works on after the call; it has to be done now
    return time.perf_counter() - began


def try_networks(
    transformer: Any, vae: Any, text_encoder: Any | None, shape: VideoShape, device: torch.device, dtype: torch.dtype
) -> tuple[float, float, float]:
    """Seconds of one prediction, of decoding the longest scene, and of encoding one caption, with these networks, from the meta device."""
    config, frames = transformer.config, shape.num_latent_frames
    layout, (rows, columns) = shape.layout(config.max_text_seq_length), shape.latent_size
    latents = torch.zeros(1, sum(frames), config.in_channels, rows, columns, dtype=dtype, device=device)
    captions = torch.zeros(1, layout.num_text_tokens, config.text_embed_dim, dtype=dtype, device=device)
    timestep = torch.ones(1, layout.num_scenes, device=device)
    denoiser, decoder = _random(transformer, device, dtype), _random(vae, device, dtype)
    predicting = median_seconds(lambda: denoiser(latents, captions, timestep, layout).sample)
    decoding = median_seconds(lambda: decode_latents(decoder, latents[0, : max(frames)], device))
    if text_encoder is None:
        return predicting, decoding, 0.0
    encoder, tokens = _random(text_encoder, device, dtype), torch.zeros(1, config.max_text_seq_length, dtype=torch.long)
    return predicting, decoding, median_seconds(lambda: encode_tokens(tokens, encoder, device))


def _random(network: Any, device: torch.device, dtype: torch.dtype) -> Any:
    network = network.to(dtype).to_empty(device=device)
    generator = torch.Generator(device).manual_seed(0)
    for value in network.parameters():
        value.data.uniform_(-SPREAD, SPREAD, generator=generator)
    return network
