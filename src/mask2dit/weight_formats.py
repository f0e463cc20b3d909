"""How the linear layers of a transformer are kept: as they are, in bfloat16 on the CPU, or in 8 bits, which changes films a little."""

import time
from typing import Any, Literal

import torch
from torch import nn

from mask2dit.errors import InputError, is_out_of_memory

Weights = Literal["plain", "bf16", "fp8-storage", "fp8", "int8"]
WEIGHTS: tuple[Weights, ...] = ("plain", "bf16", "fp8-storage", "fp8", "int8")
FLOAT8 = torch.float8_e4m3fn
BF16_TRIAL = 512  # rows and columns of the matrices that say whether a processor gains by bfloat16


def num_weight_bytes(network: nn.Module, weights: Weights = "plain") -> int:
    """Bytes of all parameters and buffers, where a transformer's linear layers are kept in `weights`."""
    total = sum(value.numel() * value.element_size() for value in (*network.parameters(), *network.buffers()))
    for layer in eligible_layers(network) if weights != "plain" else ():
        size = layer.weight.element_size()
        if weights in ("bf16", "fp8-storage"):
            kept = min(size, 2 if weights == "bf16" else 1)
            total -= (layer.weight.numel() + (layer.bias is not None) * layer.out_features) * (size - kept)
        else:
            total -= layer.weight.numel() * (size - 1) - layer.out_features * size  # one scale for each row
    return total


def eligible_layers(transformer: Any) -> list[nn.Linear]:
    """The linear layers that may be kept in 8 bits: those of the blocks, but not in norms."""
    named = transformer.transformer_blocks.named_modules()
    return [layer for name, layer in named if isinstance(layer, nn.Linear) and "norm" not in name]


def apply_weights(transformer: Any, weights: Weights, device: torch.device) -> None:
    """Keep the transformer's linear layers in fewer bits. Raises InputError where the device or the installation cannot."""
    if weights == "plain":
        return
    if weights == "bf16":
        if device.type == "cpu" and not multiplies_bfloat16(BF16_TRIAL):
            raise InputError(
                "--weights bf16: this processor multiplies bfloat16 no faster than float32, so nothing would be gained; use plain"
            )
        for layer in eligible_layers(transformer):
            _compute_in_bfloat16(layer)
        return
    if weights in ("fp8-storage", "fp8"):
        try:
            torch.ones(1, device=device).to(FLOAT8).to(transformer.dtype)
        except (RuntimeError, TypeError, NotImplementedError, AssertionError) as error:
            if is_out_of_memory(error):
                raise
            raise InputError(f"--weights {weights}: {device} cannot convert 8-bit floats; use int8 or plain") from None
    if weights == "fp8-storage":
        from diffusers.hooks import apply_layerwise_casting

        compute = transformer.dtype
        for layer in eligible_layers(transformer):
            apply_layerwise_casting(layer, storage_dtype=FLOAT8, compute_dtype=compute)
        return
    try:
        from torchao.quantization import Float8WeightOnlyConfig, Int8WeightOnlyConfig, quantize_
    except ImportError:
        raise InputError(f"--weights {weights}: needs torchao; pip install torchao, or use fp8-storage or plain") from None
    chosen = {id(layer) for layer in eligible_layers(transformer)}
    config = Float8WeightOnlyConfig() if weights == "fp8" else Int8WeightOnlyConfig()
    quantize_(transformer, config, filter_fn=lambda layer, _: id(layer) in chosen)


def multiplies_bfloat16(size: int) -> bool:
    """Whether this processor multiplies matrices of `size` × `size` in bfloat16 faster than in float32: tried, for that says it surest."""
    taken: dict[torch.dtype, list[float]] = {torch.float32: [], torch.bfloat16: []}
    for _ in range(5):
        for dtype, times in taken.items():
            matrix = torch.ones(size, size, dtype=dtype)
            began = time.perf_counter()
            matrix @ matrix
            times.append(time.perf_counter() - began)
    return min(taken[torch.bfloat16]) < min(taken[torch.float32])


def _compute_in_bfloat16(layer: nn.Linear) -> None:
    """What goes in and what comes out has the layer's own format still."""
    own = layer.weight.dtype
    layer.to(torch.bfloat16)
    layer.register_forward_pre_hook(lambda _, inputs: (inputs[0].bfloat16(),))
    layer.register_forward_hook(lambda _, inputs, output: output.to(own))
