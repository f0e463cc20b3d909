"""Adaptive norms with one timestep per scene.

A known scene is told apart from a generated one by its time embedding alone (paper, section 3.3; t = 0 means clean), so each scene's
text and video are shifted, scaled and gated by that scene's own row. Rows stay [B, S, …]; they are never spread over tokens.
"""

import torch
from torch import Tensor, nn

from mask2dit.scene_layout import SceneLayout


def modulate(states: Tensor, scale: Tensor, shift: Tensor, lengths: tuple[int, ...]) -> Tensor:
    """states · (1 + scale) + shift; states [B, N, D] in scenes of `lengths`, scale and shift [B, S, D]."""
    if len(set(lengths)) == 1:
        scenes = torch.unflatten(states, 1, (len(lengths), lengths[0]))  # [B, S, N/S, D]
        return (scenes * (1 + scale)[:, :, None] + shift[:, :, None]).flatten(1, 2)
    parts = torch.split(states, list(lengths), dim=1)
    return torch.cat([part * (1 + scale[:, [s]]) + shift[:, [s]] for s, part in enumerate(parts)], dim=1)


def gated(states: Tensor, gate: Tensor, lengths: tuple[int, ...]) -> Tensor:
    """gate · states; states [B, N, D] in scenes of `lengths`, gate [B, S, D]."""
    if len(set(lengths)) == 1:
        scenes = torch.unflatten(states, 1, (len(lengths), lengths[0]))  # [B, S, N/S, D]
        return (gate[:, :, None] * scenes).flatten(1, 2)
    return torch.cat([gate[:, [s]] * part for s, part in enumerate(torch.split(states, list(lengths), dim=1))], dim=1)


class SceneLayerNormZero(nn.Module):
    """CogVideoX's adaptive LayerNorm for both streams, with one row of shift, scale and gate per scene."""

    def __init__(self, time_embed_dim: int, dim: int, elementwise_affine: bool, eps: float) -> None:
        super().__init__()
        self.silu = nn.SiLU()
        self.linear = nn.Linear(time_embed_dim, 6 * dim)
        self.norm = nn.LayerNorm(dim, eps=eps, elementwise_affine=elementwise_affine)

    def forward(
        self, hidden_states: Tensor, encoder_hidden_states: Tensor, temb: Tensor, layout: SceneLayout
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return video [B, ΣV, D], text [B, ΣL, D], video gate and text gate [B, S, D]; temb [B, S, time_embed_dim]."""
        shift, scale, gate, text_shift, text_scale, text_gate = self.linear(self.silu(temb)).chunk(6, dim=-1)
        video = modulate(self.norm(hidden_states), scale, shift, layout.video_lengths)
        text = modulate(self.norm(encoder_hidden_states), text_scale, text_shift, layout.text_lengths)
        return video, text, gate, text_gate


class SceneAdaLayerNorm(nn.Module):
    """CogVideoX's adaptive LayerNorm before the output, with one row of shift and scale per scene."""

    def __init__(self, time_embed_dim: int, dim: int, elementwise_affine: bool, eps: float) -> None:
        super().__init__()
        self.silu = nn.SiLU()
        self.linear = nn.Linear(time_embed_dim, 2 * dim)
        self.norm = nn.LayerNorm(dim, eps, elementwise_affine)

    def forward(self, hidden_states: Tensor, temb: Tensor, layout: SceneLayout) -> Tensor:
        """[B, ΣV, D] → the same shape; temb [B, S, time_embed_dim]."""
        shift, scale = self.linear(self.silu(temb)).chunk(2, dim=-1)
        return modulate(self.norm(hidden_states), scale, shift, layout.video_lengths)
