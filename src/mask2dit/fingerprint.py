"""Short names for weights: two models that differ by a training step have two names."""

import hashlib
from collections.abc import Mapping
from typing import Any

from torch import nn

VALUES_PER_TENSOR = 16  # enough to tell two trainings apart, and cheap at 5 billion parameters


def fingerprint(modules: Mapping[str, nn.Module | None], **facts: str) -> str:
    """16 hex digits that follow from a few values of every tensor, its type and shape, and from `facts`."""
    total = hashlib.sha256(repr(sorted(facts.items())).encode() if facts else b"")
    for part, module in modules.items():
        for name, tensor in module.state_dict().items() if module is not None else ():
            total.update(f"{part}.{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
            for values in _plain(tensor):
                if values.device.type != "meta":  # offloaded layer by layer: its values are out of reach
                    total.update(values.detach().flatten()[:VALUES_PER_TENSOR].float().cpu().numpy().tobytes())
    return total.hexdigest()[:16]


def _plain(tensor: Any) -> list[Any]:
    """A tensor, or what a quantized one is made of."""
    return [part for name in getattr(tensor, "tensor_data_names", ()) if (part := getattr(tensor, name)) is not None] or [tensor]
