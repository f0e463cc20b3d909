"""Attention over all scenes at once, exact and without a mask.

`SceneAttention` holds CogVideoX's projections; its processor computes the softmax of a plan. Who may meet whom is decided in plans. Three
processors compute the same: "grouped" calls whatever kernel diffusers dispatches to, once for each group of a plan; "merged" (module
merged_attention) needs few calls, whatever the number of scenes; "flex" (module flex_attention) compiles one kernel for the plan.
"""

from collections.abc import Callable, Sequence

import torch
from diffusers.models.attention import AttentionModuleMixin
from diffusers.models.attention_dispatch import AttentionBackendName, dispatch_attention_fn
from diffusers.models.embeddings import apply_rotary_emb
from torch import Tensor, nn

from mask2dit.errors import InputError
from mask2dit.plans import AttentionPattern
from mask2dit.sequence_parallel import SequenceParallel

QK_NORM_EPS = 1e-6  # not the blocks' norm_eps: so are the released weights

KeyValueHook = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


class SceneAttnProcessor:
    """What all processors do around the softmax; `attend` is theirs."""

    _attention_backend: AttentionBackendName | None = None
    _parallel_config = None

    def __call__(
        self,
        attn: "SceneAttention",
        hidden_states: Tensor,
        pattern: AttentionPattern,
        image_rotary_emb: tuple[Tensor, Tensor] | None,
        context: KeyValueHook | None = None,
    ) -> Tensor:
        query, key, value = (torch.unflatten(states, 2, (attn.heads, -1)) for states in attn.project(hidden_states))  # [B, N, h, d]
        query, key = attn.norm_q(query), attn.norm_k(key)
        if image_rotary_emb is not None:
            query = apply_rotary_emb(query, image_rotary_emb, sequence_dim=1)  # in float32
            key = apply_rotary_emb(key, image_rotary_emb, sequence_dim=1)
        query, key = query.to(value.dtype), key.to(value.dtype)  # under autocast, norms give float32
        sequence = attn.sequence
        if sequence is not None:  # from here on all tokens, and this process's heads
            query, key, value = sequence.to_heads((query, key, value), pattern.num_queries)
        if context is not None:
            key, value = context(key, value)
        attended = self.attend(query, key, value, pattern)  # [B, N, h, d]
        if sequence is not None:
            attended = sequence.to_tokens(attended)
        attended = attn.to_out[0](attended.flatten(2, 3))
        return attn.to_out[1](attended)  # type: ignore[no-any-return]

    def prepare(self, pattern: AttentionPattern, device: torch.device, dtype: torch.dtype, head_dim: int) -> None:
        """What attention there, in these numbers, needs once for all layers; blocks may be compiled, which this is not part of."""

    def attend(self, query: Tensor, key: Tensor, value: Tensor, pattern: AttentionPattern) -> Tensor:
        """Softmax attention; query [B, N, h, d], key and value [B, M, h, d] → [B, N, h, d]."""
        raise NotImplementedError

    def dispatch(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """One softmax over all keys, by the kernel that was set for the model."""
        options = {"backend": self._attention_backend, "parallel_config": self._parallel_config}
        return dispatch_attention_fn(query, key, value, **options)  # type: ignore[no-any-return]


class GroupedAttnProcessor(SceneAttnProcessor):
    """One softmax per group of the plan; the keys of one group are gathered at a time."""

    def attend(self, query: Tensor, key: Tensor, value: Tensor, pattern: AttentionPattern) -> Tensor:
        """See the base class."""
        pieces: list[Tensor] = []
        for group in pattern.groups:
            attended = self.dispatch(_gather(query, group.queries), _gather(key, group.keys), _gather(value, group.keys))
            pieces += torch.split(attended, [segment.stop - segment.start for segment in group.queries], dim=1)
        return torch.cat([pieces[index] for index in pattern.order], dim=1) if len(pieces) > 1 else pieces[0]


class SceneAttention(nn.Module, AttentionModuleMixin):  # type: ignore[misc]
    """CogVideoX's joint attention (same parameter names): q, k, v and output projections, LayerNorm on q and k."""

    _default_processor_cls = GroupedAttnProcessor
    _available_processors = [GroupedAttnProcessor]  # noqa: RUF012 - the mixin's protocol
    to_qkv: nn.Linear  # made by `fuse_projections`

    def __init__(self, dim: int, heads: int, head_dim: int, bias: bool) -> None:
        super().__init__()
        self.heads = heads
        self.use_bias = bias
        self.to_q = nn.Linear(dim, heads * head_dim, bias=bias)
        self.to_k = nn.Linear(dim, heads * head_dim, bias=bias)
        self.to_v = nn.Linear(dim, heads * head_dim, bias=bias)
        self.norm_q = nn.LayerNorm(head_dim, eps=QK_NORM_EPS)
        self.norm_k = nn.LayerNorm(head_dim, eps=QK_NORM_EPS)
        self.to_out = nn.ModuleList([nn.Linear(heads * head_dim, dim), nn.Dropout(0.0)])
        self.processor: SceneAttnProcessor = GroupedAttnProcessor()
        self.sequence: SequenceParallel | None = None

    def project(self, joint: Tensor) -> Sequence[Tensor]:
        """[B, N, D] → query, key, value, each [B, N, h·d]; one matmul after `fuse_projections`, which knows nothing of adapters."""
        if self.fused_projections:
            if not isinstance(self.to_q, nn.Linear):
                raise InputError(
                    "adapters: got them with one projection for q, k and v, which knows nothing of them, expected one or the other; "
                    "unfuse_qkv_projections(), or before it fuse_lora() and unload_lora_weights()"
                )
            return torch.chunk(self.to_qkv(joint), 3, dim=-1)
        return self.to_q(joint), self.to_k(joint), self.to_v(joint)

    def forward(
        self,
        hidden_states: Tensor,
        pattern: AttentionPattern,
        image_rotary_emb: tuple[Tensor, Tensor] | None,
        context: KeyValueHook | None = None,
    ) -> Tensor:
        """The joint sequence [B, N, D] → the same, attended.

        image_rotary_emb: (cos, sin), each [N, d], that turn nothing for text. context: given the new keys and values [B, N, h, d], returns
        those to attend to, of as many tokens as the pattern has keys.
        """
        return self.processor(self, hidden_states, pattern, image_rotary_emb, context)


def _gather(states: Tensor, positions: tuple[slice, ...]) -> Tensor:
    """Tokens at `positions`; a view if they lie in one piece."""
    pieces = [states[:, piece] for piece in positions]
    return pieces[0] if len(pieces) == 1 else torch.cat(pieces, dim=1)
