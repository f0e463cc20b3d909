"""Attention of a plan as one compiled kernel: torch's FlexAttention, which leaves out the blocks in which nobody meets. CUDA only.

Which blocks of 128 × 128 tokens are whole, partial or empty follows from where segments begin and end, so no mask is ever built.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from mask2dit.attention import SceneAttnProcessor
from mask2dit.compiling import allow_kernels
from mask2dit.errors import InputError
from mask2dit.plans import AttentionPattern

BLOCK = 128
MOST_MASKS = 8  # that are kept: of twelve scenes at 5B's size each has 42 MiB
_recent: list[tuple[AttentionPattern, str]] = []
_compiled: list[Callable[..., Any]] = []  # no lru_cache, which compilers look through


class FlexAttnProcessor(SceneAttnProcessor):
    """One compiled kernel for all groups of a plan."""

    def prepare(self, pattern: AttentionPattern, device: torch.device, dtype: torch.dtype, head_dim: int) -> None:
        """See the base class."""
        block_mask(pattern, device)
        _compile()

    def attend(self, query: Tensor, key: Tensor, value: Tensor, pattern: AttentionPattern) -> Tensor:
        """See the base class. Raises InputError on a device that has no such kernel with both directions."""
        if query.device.type != "cuda":
            raise InputError(f"attention: got flex on {query.device.type}, expected a CUDA device; use merged, grouped or auto")
        return flex_attend(_compile(), query, key, value, pattern)


def flex_attend(flex_attention: Callable[..., Any], query: Tensor, key: Tensor, value: Tensor, pattern: AttentionPattern) -> Tensor:
    """query [B, N, h, d], key and value [B, M, h, d] → [B, N, h, d] by a FlexAttention, compiled or plain."""
    mask = block_mask(pattern, query.device)
    states = (each.transpose(1, 2) for each in (query, key, value))
    return flex_attention(*states, block_mask=mask).transpose(1, 2)  # type: ignore[no-any-return]


def _compile() -> Callable[..., Any]:
    from torch.nn.attention.flex_attention import flex_attention

    if not _compiled:
        allow_kernels()  # each layout has its own; uncompiled, it would make all scores
        _compiled.append(torch.compile(flex_attention, dynamic=False, fullgraph=True))
    return _compiled[0]


def block_mask(pattern: AttentionPattern, device: torch.device) -> Any:
    """The pattern as FlexAttention's block mask, which it keeps while it is one of the last."""
    name = f"flex on {device}"
    if name not in pattern.kept:
        pattern.kept[name] = _make_block_mask(pattern, device)
        _recent.append((pattern, name))
        if len(_recent) > MOST_MASKS:
            earlier, its_name = _recent.pop(0)
            earlier.kept.pop(its_name)
    return pattern.kept[name]


def _make_block_mask(pattern: AttentionPattern, device: torch.device) -> Any:
    from torch.nn.attention.flex_attention import BlockMask

    borders = {border for group in pattern.groups for piece in group.keys for border in (piece.start, piece.stop)}
    key_starts = sorted((borders | {0}) - {pattern.num_keys})
    classes, class_of_query = _classes(pattern, key_starts)
    segment_of_key = torch.bucketize(torch.arange(pattern.num_keys), torch.tensor(key_starts), right=True) - 1
    meets = torch.tensor(classes)  # [classes of queries, segments of keys]
    in_queries = _membership(class_of_query, len(classes))  # [blocks of queries, classes]
    in_keys = _membership(segment_of_key, len(key_starts))  # [blocks of keys, segments]
    some = in_queries @ meets.float() @ in_keys.T > 0
    whole = in_queries @ (~meets).float() @ in_keys.T == 0
    whole &= _is_full(pattern.num_queries)[:, None] & _is_full(pattern.num_keys)[None]

    tables = [each.to(device) for each in (class_of_query, segment_of_key, meets)]

    def mask_mod(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return tables[2][tables[0][query], tables[1][key]]

    partial_blocks, whole_blocks = (_ordered(each.to(device)) for each in (some & ~whole, some & whole))
    lengths = (pattern.num_queries, pattern.num_keys)
    return BlockMask.from_kv_blocks(*partial_blocks, *whole_blocks, BLOCK_SIZE=BLOCK, mask_mod=mask_mod, seq_lengths=lengths)


def _classes(pattern: AttentionPattern, key_starts: list[int]) -> tuple[list[list[bool]], Tensor]:
    """Which segments of keys each group reads, and the group of each query [N]."""
    of_query = torch.zeros(pattern.num_queries, dtype=torch.long)
    rows = []
    for index, group in enumerate(pattern.groups):
        for piece in group.queries:
            of_query[piece] = index
        rows.append([any(piece.start <= start < piece.stop for piece in group.keys) for start in key_starts])
    return rows, of_query


def _membership(kinds: Tensor, count: int) -> Tensor:
    """[blocks, kinds]: 1 where a block has a token of that kind; kinds [N]."""
    blocks = -(-len(kinds) // BLOCK)
    member = torch.zeros(blocks, count)
    member[torch.arange(len(kinds)) // BLOCK, kinds] = 1
    return member


def _is_full(num_tokens: int) -> Tensor:
    """Which blocks have all of their tokens: all but, maybe, the last."""
    return (torch.arange(-(-num_tokens // BLOCK)) + 1) * BLOCK <= num_tokens


def _ordered(blocks: Tensor) -> tuple[Tensor, Tensor]:
    """[rows, columns] of booleans → how many there are in each row, and which columns, these first: [1, 1, rows(, columns)]."""
    counts = blocks.sum(dim=1, dtype=torch.int32)
    indices = torch.argsort(blocks.int(), dim=1, descending=True, stable=True).int()
    return counts[None, None], indices[None, None]
