"""What a piece of our code takes, counted and not run: bytes alive at its fullest moment, and arithmetic.

The networks are real and lie on torch's meta device, which has shapes and no memory; so the count follows the code, and there is no
formula to go stale. What kernels keep for themselves (workspaces) is not seen.
"""

import math
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry


@dataclass(frozen=True, slots=True)
class Footprint:
    """`peak_bytes`: of all tensors made on the way that are alive at once; arguments and weights are not among them."""

    peak_bytes: int
    linear_flop: int
    """Of linear layers and convolutions."""
    attention_flop: int

    @property
    def flop(self) -> int:
        """All of it."""
        return self.linear_flop + self.attention_flop


def footprint(call: Callable[[], Any]) -> Footprint:
    """Count what `call` makes; whatever it uses must lie on the meta device. Nothing is differentiated."""
    counting, fused = _Counting(), _FusedAttention()
    with torch.no_grad(), fused, counting:
        call()
    return Footprint(counting.living.peak_bytes, counting.flop, fused.flop)


class Living:
    """Bytes of storages that are alive at once; `peak_bytes`: at their most."""

    def __init__(self) -> None:
        self.peak_bytes = 0
        self._alive: dict[int, int] = {}
        self._bytes = 0

    def add(self, storage: torch.UntypedStorage) -> None:
        """One that was made; it counts until nobody has it any more."""
        key = storage._cdata
        if key not in self._alive:
            self._alive[key] = storage.nbytes()
            self._bytes += storage.nbytes()
            self.peak_bytes = max(self.peak_bytes, self._bytes)
            weakref.finalize(storage, self._drop, key)

    def _drop(self, key: int) -> None:
        self._bytes -= self._alive.pop(key, 0)


class _Counting(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """What is made on the meta device, and the arithmetic of matrix products and convolutions."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.living = Living()
        self.flop = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None) -> Any:
        outcome = func(*args, **(kwargs or {}))
        if func._overloadpacket in flop_registry:
            self.flop += flop_registry[func._overloadpacket](*args, **(kwargs or {}), out_val=outcome)
        if any(value.alias_info is not None for value in func._schema.returns):
            return outcome  # a view, or a change in place
        for value in tree_leaves(outcome):
            if isinstance(value, Tensor) and value.device.type == "meta":
                self.living.add(value.untyped_storage())
        return outcome


class _FusedAttention(TorchFunctionMode):
    """On the meta device attention would take the path that builds every score; kernels on real devices do not."""

    def __init__(self) -> None:
        super().__init__()
        self.flop = 0

    def __torch_function__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None) -> Any:
        kwargs = kwargs or {}
        if func is not scaled_dot_product_attention:
            return func(*args, **kwargs)
        named = dict(zip(("query", "key"), args, strict=False)) | kwargs
        query, key = named["query"], named["key"]  # [B, h, N, d]
        self.flop += 4 * math.prod(query.shape) * key.shape[2]
        return torch.empty_like(query)
