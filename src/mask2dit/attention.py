"""Attention over all scenes at once, exact and without a mask.

`SceneAttention` holds CogVideoX's projections; its processor computes the softmax of each group of a plan with whatever kernel diffusers
dispatches to. Who may meet whom is decided in plans.
"""

from collections.abc import Sequence

import torch
from diffusers.models.attention import AttentionModuleMixin
from diffusers.models.attention_dispatch import AttentionBackendName, dispatch_attention_fn
from diffusers.models.embeddings import apply_rotary_emb
from torch import Tensor, nn

from mask2dit.plans import AttentionGroup

QK_NORM_EPS = 1e-6  # not the blocks' norm_eps: so are the released weights


class GroupedAttnProcessor:
    """One softmax per group of the plan; the keys of one group are gathered at a time."""

    _attention_backend: AttentionBackendName | None = None
    _parallel_config = None

    def __call__(
        self,
        attn: "SceneAttention",
        hidden_states: Tensor,
        encoder_hidden_states: Tensor,
        groups: tuple[AttentionGroup, ...],
        image_rotary_emb: tuple[Tensor, Tensor] | None,
    ) -> tuple[Tensor, Tensor]:
        num_text_tokens = encoder_hidden_states.shape[1]
        joint = torch.cat([encoder_hidden_states, hidden_states], dim=1)  # [B, N, D]
        query, key, value = (torch.unflatten(states, 2, (attn.heads, -1)) for states in attn.project(joint))  # [B, N, h, d]
        query = _rotate_video(attn.norm_q(query), image_rotary_emb, num_text_tokens)
        key = _rotate_video(attn.norm_k(key), image_rotary_emb, num_text_tokens)

        joint = self._attend(query, key, value, groups)  # [B, N, h, d]
        joint = attn.to_out[0](joint.flatten(2, 3))
        joint = attn.to_out[1](joint)
        return joint[:, num_text_tokens:], joint[:, :num_text_tokens]

    def _attend(self, query: Tensor, key: Tensor, value: Tensor, groups: tuple[AttentionGroup, ...]) -> Tensor:
        positions: list[slice] = []
        pieces: list[Tensor] = []
        for group in groups:
            attended = dispatch_attention_fn(
                _gather(query, group.queries),
                _gather(key, group.keys),
                _gather(value, group.keys),
                backend=self._attention_backend,
                parallel_config=self._parallel_config,
            )
            lengths = [segment.stop - segment.start for segment in group.queries]
            positions += group.queries
            pieces += attended.split(lengths, dim=1)
        order = sorted(range(len(positions)), key=lambda index: positions[index].start)
        return torch.cat([pieces[index] for index in order], dim=1)


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
        self.processor = GroupedAttnProcessor()

    def project(self, joint: Tensor) -> Sequence[Tensor]:
        """[B, N, D] → query, key, value, each [B, N, h·d]; one matmul after `fuse_projections`."""
        if self.fused_projections:
            return torch.chunk(self.to_qkv(joint), 3, dim=-1)
        return self.to_q(joint), self.to_k(joint), self.to_v(joint)

    def forward(
        self,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor,
        groups: tuple[AttentionGroup, ...],
        image_rotary_emb: tuple[Tensor, Tensor] | None,
    ) -> tuple[Tensor, Tensor]:
        """Video [B, ΣV, D] and text [B, ΣL, D] → the same two, attended."""
        return self.processor(self, hidden_states, encoder_hidden_states, groups, image_rotary_emb)


def _rotate_video(states: Tensor, image_rotary_emb: tuple[Tensor, Tensor] | None, num_text_tokens: int) -> Tensor:
    """Rotate the video part of [B, N, h, d], if there is a table; it is applied in float32."""
    if image_rotary_emb is None:
        return states
    video = apply_rotary_emb(states[:, num_text_tokens:], image_rotary_emb, sequence_dim=1)
    return torch.cat([states[:, :num_text_tokens], video], dim=1)


def _gather(states: Tensor, positions: tuple[slice, ...]) -> Tensor:
    """Tokens at `positions`; a view if they lie in one piece."""
    pieces = [states[:, piece] for piece in positions]
    return pieces[0] if len(pieces) == 1 else torch.cat(pieces, dim=1)
