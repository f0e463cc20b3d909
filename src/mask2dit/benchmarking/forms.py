"""Attention in all forms that are compared: the package's backends, kernels of diffusers by name, and three that are here to compare with.

"unmasked" is the full softmax over the same tokens, which is the least that a kernel takes for so many. "boolean mask" and "n-fold copy"
are how the plan is computed elsewhere: with a mask of all pairs, and with keys and values copied for every scene and held all at once.
"""

from collections.abc import Callable, Mapping
from functools import lru_cache

import torch
from diffusers.models.attention_dispatch import AttentionBackendName
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from mask2dit.attention import GroupedAttnProcessor, SceneAttnProcessor
from mask2dit.attention_backends import BACKENDS
from mask2dit.plans import AttentionPattern


class UnmaskedAttnProcessor(SceneAttnProcessor):
    """Everything attends to everything."""

    def attend(self, query: Tensor, key: Tensor, value: Tensor, pattern: AttentionPattern) -> Tensor:
        """See the base class."""
        return self.dispatch(query, key, value)


class BooleanMaskAttnProcessor(SceneAttnProcessor):
    """One softmax with a mask of all pairs, which is made once and kept."""

    def attend(self, query: Tensor, key: Tensor, value: Tensor, pattern: AttentionPattern) -> Tensor:
        """See the base class."""
        query, key, value = (each.transpose(1, 2) for each in (query, key, value))
        return scaled_dot_product_attention(query, key, value, attn_mask=_kept_mask(pattern, query.device)).transpose(1, 2)


class NfoldCopyAttnProcessor(SceneAttnProcessor):
    """The keys and values of every segment, copied for all of them before anything is computed."""

    def attend(self, query: Tensor, key: Tensor, value: Tensor, pattern: AttentionPattern) -> Tensor:
        """See the base class."""
        copied = [[torch.cat([states[:, piece] for piece in group.keys], dim=1) for states in (key, value)] for group in pattern.groups]
        output = torch.empty_like(query)
        for group, (keys, values) in zip(pattern.groups, copied, strict=True):
            for piece in group.queries:
                output[:, piece] = self.dispatch(query[:, piece], keys, values)
        return output


UNMASKED, BOOLEAN_MASK, NFOLD_COPY = "unmasked", "boolean mask", "n-fold copy"
COMPARED: Mapping[str, type[SceneAttnProcessor]] = {
    UNMASKED: UnmaskedAttnProcessor,
    BOOLEAN_MASK: BooleanMaskAttnProcessor,
    NFOLD_COPY: NfoldCopyAttnProcessor,
}


def make_processor(form: str) -> SceneAttnProcessor:
    """The processor of a form: one of ours, one to compare with, or groups, or the unmasked softmax, by a kernel of diffusers."""
    if form in COMPARED or form in BACKENDS:
        return (COMPARED.get(form) or BACKENDS[form])()
    kind, _, kernel = form.rpartition(" by ")
    processor = UnmaskedAttnProcessor() if kind == UNMASKED else GroupedAttnProcessor()
    processor._attention_backend = AttentionBackendName(kernel)
    return processor


def boolean_mask(pattern: AttentionPattern, device: torch.device) -> Tensor:
    """[N, M]: may the row's token attend to the column's?"""
    mask = torch.zeros(pattern.num_queries, pattern.num_keys, dtype=torch.bool, device=device)
    for group in pattern.groups:
        for queries in group.queries:
            for keys in group.keys:
                mask[queries, keys] = True
    return mask


_kept_mask: Callable[[AttentionPattern, torch.device], Tensor] = lru_cache(maxsize=1)(boolean_mask)


def forget_mask() -> None:
    """Free the mask that was kept."""
    _kept_mask.cache_clear()  # type: ignore[attr-defined]


def num_pairs(pattern: AttentionPattern) -> int:
    """(Query, key) pairs that meet."""
    return sum(_length(group.queries) * _length(group.keys) for group in pattern.groups)


def extra_bytes(form: str, pattern: AttentionPattern, token_bytes: int, itemsize: int) -> int:
    """About what a form makes on the way; token_bytes: of one token's query, key or value."""
    output = 2 * pattern.num_queries * token_bytes
    if form == BOOLEAN_MASK:
        return output + pattern.num_queries * pattern.num_keys * (1 + itemsize)  # kernels want it as numbers to add
    if form == NFOLD_COPY:
        return output + 2 * token_bytes * sum(_length(group.keys) for group in pattern.groups)
    return output + 2 * pattern.num_keys * token_bytes


def _length(pieces: tuple[slice, ...]) -> int:
    return sum(piece.stop - piece.start for piece in pieces)
