"""Attention of a plan in few kernel calls, whatever the number of scenes, exact in both directions.

Softmaxes over parts of the keys are one softmax over all of them, once each part's log-sum-exp is known: the parts' outputs are mixed with
the weights that their sums have in the whole. So all video attends to all video in one call, with no key copied, and what a scene reads
besides is added by calls in which scenes of one length are a batch. Backward, each call is given the merged output and the merged
log-sum-exp in place of its own, which makes its gradients those of the whole softmax.

Kernels that tell their log-sum-exp are no public functions of torch, so each is tried on the device before it is used; where none works,
as in float32 on CUDA, attention is grouped.
"""

import functools
import itertools
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from mask2dit.attention import GroupedAttnProcessor
from mask2dit.errors import is_out_of_memory
from mask2dit.plans import AttentionCall, AttentionGroup, AttentionPattern

logger = logging.getLogger(__name__)
aten = torch.ops.aten
Slices = tuple[slice, ...]


@dataclass(frozen=True, slots=True)
class Kernel:
    """An attention that tells its log-sum-exp.

    forward: query, key, value [B, h, N, d] → output, log-sum-exp [B, h, N] in float32 (float64 for float64), and whatever backward needs
    besides. backward: gradient of the output, query, key, value, output, log-sum-exp, and that → gradients of query, key, value.
    """

    name: str
    forward: Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor, tuple[Any, ...]]]
    backward: Callable[..., tuple[Tensor, Tensor, Tensor]]


def _cpu_forward(query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor, tuple[Any, ...]]:
    output, lse = aten._scaled_dot_product_flash_attention_for_cpu(query, key, value)
    return output, lse, ()


def _cpu_backward(grad: Tensor, query: Tensor, key: Tensor, value: Tensor, output: Tensor, lse: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    made = aten._scaled_dot_product_flash_attention_for_cpu_backward(grad, query, key, value, output, lse, 0.0, False)
    return made  # type: ignore[no-any-return]


def _flash_forward(query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor, tuple[Any, ...]]:
    output, lse, *rest = aten._scaled_dot_product_flash_attention(query, key, value)
    return output, lse, tuple(rest[:6])  # cumulative and longest lengths, the state and the offset of the dropout


def _flash_backward(
    grad: Tensor, query: Tensor, key: Tensor, value: Tensor, output: Tensor, lse: Tensor, *rest: Any
) -> tuple[Tensor, Tensor, Tensor]:
    lengths, dropout = rest[:4], rest[4:]
    made = aten._scaled_dot_product_flash_attention_backward(grad, query, key, value, output, lse, *lengths, 0.0, False, *dropout)
    return made  # type: ignore[no-any-return]


def _cudnn_forward(query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor, tuple[Any, ...]]:
    output, lse, *rest = aten._scaled_dot_product_cudnn_attention(query, key, value, None, True)
    return output, lse.reshape(query.shape[:3]), (lse.shape[3:], *rest[:6])


def _cudnn_backward(
    grad: Tensor, query: Tensor, key: Tensor, value: Tensor, output: Tensor, lse: Tensor, tail: Sequence[int], *rest: Any
) -> tuple[Tensor, Tensor, Tensor]:
    lengths, dropout = rest[:4], rest[4:]
    lse = lse.reshape(*query.shape[:3], *tail)
    made = aten._scaled_dot_product_cudnn_attention_backward(grad, query, key, value, output, lse, *dropout, None, *lengths, 0.0, False)
    return made  # type: ignore[no-any-return]


KERNELS = {
    "cpu": (Kernel("torch's CPU flash", _cpu_forward, _cpu_backward),),
    "cuda": (
        Kernel("cuDNN", _cudnn_forward, _cudnn_backward),
        Kernel("flash", _flash_forward, _flash_backward),
    ),
}


_found: dict[tuple[str, torch.dtype, int], Kernel | None] = {}  # no lru_cache, which compilers look through


def find_kernel(device: torch.device, dtype: torch.dtype, head_dim: int) -> Kernel | None:
    """The first kernel that merges right there, forward and backward; None where there is none. Logs that."""
    key = (device.type, dtype, head_dim)
    if key not in _found:
        _found[key] = next((kernel for kernel in KERNELS.get(device.type, ()) if _works(kernel, device, dtype, head_dim)), None)
        if _found[key] is None:
            logger.info("attention: no kernel on %s in %s tells its log-sum-exp", device.type, str(dtype).removeprefix("torch."))
    return _found[key]


def _works(kernel: Kernel, device: torch.device, dtype: torch.dtype, head_dim: int) -> bool:
    """Try it as it is used, on 70 queries and two parts of the keys, against their softmax in float64."""
    calls = [AttentionCall((AttentionGroup((slice(0, 70),), (keys,)),)) for keys in (slice(0, 60), slice(60, 90))]
    shapes = [(2, count, 2, head_dim) for count in (70, 90, 90, 70)]
    with torch.enable_grad(), torch.inference_mode(False), torch.autocast(device.type, enabled=False):
        generator = torch.Generator().manual_seed(0)
        *states, wish = (torch.randn(shape, generator=generator, dtype=torch.float64, device="cpu") for shape in shapes)
        exact = [each.clone().requires_grad_() for each in states]
        query, key, value = (each.transpose(1, 2) for each in exact)
        output = ((query @ key.transpose(2, 3) * head_dim**-0.5).softmax(-1) @ value).transpose(1, 2)
        output.backward(wish)
        try:
            there = [each.to(device, dtype, copy=True).requires_grad_() for each in states]
            made = _MergedAttention.apply(*there, calls, kernel)  # type: ignore[no-untyped-call]
            made.backward(wish.to(device, dtype))
        except (RuntimeError, NotImplementedError, AttributeError, TypeError) as error:
            if is_out_of_memory(error):
                raise  # says nothing of the kernel
            return False
    tolerance = 1e-4 if dtype in (torch.float32, torch.float64) else 0.05
    pairs = [(made, output), *((mine.grad, each.grad) for mine, each in zip(there, exact, strict=True))]
    return all(torch.allclose(got.detach().cpu().double(), want.detach(), atol=tolerance) for got, want in pairs)


class MergedAttnProcessor(GroupedAttnProcessor):
    """The calls of a plan, merged by their log-sum-exp. Grouped where no kernel tells it, and where a plan has one group."""

    def prepare(self, pattern: AttentionPattern, device: torch.device, dtype: torch.dtype, head_dim: int) -> None:
        """Find a kernel before a compiler looks; see the base class."""
        find_kernel(device, dtype, head_dim)

    def attend(self, query: Tensor, key: Tensor, value: Tensor, pattern: AttentionPattern) -> Tensor:
        """See the base class."""
        kernel = find_kernel(query.device, query.dtype, query.shape[-1]) if len(pattern.groups) > 1 else None
        if kernel is None:
            return super().attend(query, key, value, pattern)
        if not torch.is_grad_enabled():
            return merged_forward(query, key, value, pattern.calls, kernel)[0]
        return _MergedAttention.apply(query, key, value, pattern.calls, kernel)  # type: ignore[no-any-return, no-untyped-call]


class _MergedAttention(torch.autograd.Function):
    """query [B, N, h, d], key, value [B, M, h, d] → [B, N, h, d]."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, calls: tuple[AttentionCall, ...], kernel: Kernel) -> Tensor:
        output, lse, rests = merged_forward(query, key, value, calls, kernel)
        ctx.save_for_backward(query, key, value, output, lse)
        ctx.calls, ctx.kernel, ctx.rests = calls, kernel, rests
        return output

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        query, key, value, output, lse = ctx.saved_tensors
        grads = [_Sum(states) for states in (query, key, value)]
        for call, rest in zip(ctx.calls, ctx.rests, strict=True):
            queries, keys = [group.queries for group in call.groups], [group.keys for group in call.groups]
            parts = (_fold(grad, queries), _fold(query, queries), _fold(key, keys), _fold(value, keys), _fold(output, queries))
            made = ctx.kernel.backward(*parts, _fold(lse.transpose(1, 2)[..., None], queries)[..., 0].contiguous(), *rest)
            for whole, part, pieces in zip(grads, made, (queries, keys, keys), strict=True):
                whole.add(part, pieces)
        return *(each.result() for each in grads), None, None


def merged_forward(
    query: Tensor, key: Tensor, value: Tensor, calls: Sequence[AttentionCall], kernel: Kernel
) -> tuple[Tensor, Tensor, list[tuple[Any, ...]]]:
    """Output [B, N, h, d], its log-sum-exp [B, h, N], and what each call's backward needs besides."""
    output = torch.empty_like(query)
    lse = query.new_full((query.shape[0], query.shape[2], query.shape[1]), -torch.inf, dtype=_exact(query.dtype))
    seen: list[slice] = []
    rests = []
    for call in calls:
        queries, keys = [group.queries for group in call.groups], [group.keys for group in call.groups]
        made, sums, rest = kernel.forward(_fold(query, queries), _fold(key, keys), _fold(value, keys))
        rests.append(rest)
        for (place,), part, own in _unfolded(made, sums, queries, query.shape[0]):
            if any(place.start < done.stop and done.start < place.stop for done in seen):
                _merge(output[:, place], lse[:, :, place], part, own)
            else:
                output[:, place], lse[:, :, place] = part, own
        seen += [piece for pieces in queries for piece in pieces]
    return output, lse, rests


def _merge(output: Tensor, lse: Tensor, other: Tensor, other_lse: Tensor) -> None:
    """Put two softmaxes over different keys together, in place: outputs [B, n, h, d], log-sum-exps [B, h, n]."""
    exact = _exact(output.dtype)
    weight = torch.sigmoid(other_lse - lse).transpose(1, 2)[..., None]  # [B, n, h, 1]: the other's share
    if output.dtype == exact:
        output.lerp_(other, weight)
    else:
        output.copy_(torch.lerp(output.to(exact), other.to(exact), weight))
    lse.copy_(torch.logaddexp(lse, other_lse))


def _exact(dtype: torch.dtype) -> torch.dtype:
    """What softmaxes are merged in."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def _fold(states: Tensor, pieces: Sequence[Slices]) -> Tensor:
    """[B, N, h, d] → [B·G, h, n, d]: the tokens of G groups as a batch; a view for B = 1 where they lie evenly, as scenes do."""
    columns = [_side_by_side(states, column) for column in zip(*pieces, strict=True)]  # each [B, G, n, h, d]
    joined = columns[0] if len(columns) == 1 else torch.cat(columns, dim=2)
    folded: Tensor = joined.flatten(0, 1).transpose(1, 2)
    return folded


def _side_by_side(states: Tensor, pieces: Sequence[slice]) -> Tensor:
    """Pieces of one length as [B, G, n, h, d]; a view where each begins where the one before it ends."""
    start, length = pieces[0].start, pieces[0].stop - pieces[0].start
    if all(piece.start == start + index * length for index, piece in enumerate(pieces)):
        return torch.unflatten(states[:, start : pieces[-1].stop], 1, (len(pieces), length))
    return torch.stack([states[:, piece] for piece in pieces], dim=1)


def _unfolded(output: Tensor, lse: Tensor, queries: Sequence[Slices], batch: int) -> Iterator[tuple[Slices, Tensor, Tensor]]:
    """A folded output and its log-sum-exp, group by group: positions, [B, n, h, d], [B, h, n]."""
    outputs = torch.unflatten(output.transpose(1, 2), 0, (batch, len(queries)))  # [B, G, n, h, d]
    sums = torch.unflatten(lse, 0, (batch, len(queries)))  # [B, G, h, n]
    for index, pieces in enumerate(queries):
        yield pieces, outputs[:, index], sums[:, index]


class _Sum:
    """The reverse of `_fold`: parts of [B, N, h, d] that are added up.

    In place; but a compiler, which would nest each write in all that came before it, gets the parts between any two borders as one sum.
    """

    def __init__(self, like: Tensor) -> None:
        self._like = like
        self._whole = None if torch.compiler.is_compiling() else torch.zeros_like(like)
        self._parts: list[tuple[slice, Tensor]] = []

    def add(self, folded: Tensor, pieces: Sequence[Slices]) -> None:
        """[B·G, h, n, d] at the places of G groups."""
        groups = torch.unflatten(folded.transpose(1, 2), 0, (self._like.shape[0], len(pieces)))  # [B, G, n, h, d]
        start = 0
        for column in zip(*pieces, strict=True):
            length = column[0].stop - column[0].start
            for index, piece in enumerate(column):
                part = groups[:, index, start : start + length]
                if self._whole is None:
                    self._parts.append((piece, part))
                else:
                    self._whole[:, piece] += part
            start += length

    def result(self) -> Tensor:
        """All of it."""
        if self._whole is not None:
            return self._whole
        borders = sorted({0, self._like.shape[1], *(border for place, _ in self._parts for border in (place.start, place.stop))})
        return torch.cat([self._between(*each) for each in itertools.pairwise(borders)], dim=1)

    def _between(self, start: int, stop: int) -> Tensor:
        there = [part[:, start - place.start : stop - place.start] for place, part in self._parts if place.start <= start < place.stop]
        return functools.reduce(torch.add, there) if there else torch.zeros_like(self._like[:, start:stop])
