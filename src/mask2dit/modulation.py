"""Adaptive norms with one timestep per scene, over the joint sequence of all captions and all videos.

A known scene is told apart from a generated one by its time embedding alone (paper, section 3.3; t = 0 means clean), so each scene's
text and video are shifted, scaled and gated by that scene's own row. There is one row per segment, [B, R, …]; rows are never spread over
tokens. Where nothing is differentiated every segment is written in its place, so nothing is joined, either.
"""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn


def modulate(states: Tensor, scale: Tensor, shift: Tensor, lengths: Sequence[int]) -> Tensor:
    """states · (1 + scale) + shift; states [B, N, D] in segments of `lengths`, scale and shift [B, R, D], one row per segment.

    Writes into `states` where nothing is differentiated.
    """
    parts, scales, shifts = _runs(states, lengths), _rows(1 + scale, lengths), _rows(shift, lengths)
    if _joins():
        made = [part * factor + term for part, factor, term in zip(parts, scales, shifts, strict=True)]
        return torch.cat([part.flatten(1, 2) for part in made], dim=1)
    for part, factor, term in zip(parts, scales, shifts, strict=True):
        part.mul_(factor).add_(term)
    return states


def add_gated(residual: Tensor, states: Tensor, gate: Tensor, lengths: Sequence[int]) -> Tensor:
    """residual + gate · states, a new tensor; both [B, N, D] in segments of `lengths`, gate [B, R, D], one row per segment."""
    parts, gates = _runs(states, lengths), _rows(gate, lengths)
    if _joins():
        return residual + torch.cat([(factor * part).flatten(1, 2) for part, factor in zip(parts, gates, strict=True)], dim=1)
    gated = torch.empty_like(states, dtype=torch.promote_types(states.dtype, residual.dtype))
    for part, factor, place in zip(parts, gates, _runs(gated, lengths), strict=True):
        torch.mul(factor, part, out=place)
    return gated.add_(residual)


class SceneLayerNormZero(nn.Module):
    """CogVideoX's adaptive LayerNorm for both streams, with one row of shift, scale and gate per segment."""

    def __init__(self, time_embed_dim: int, dim: int, elementwise_affine: bool, eps: float) -> None:
        super().__init__()
        self.silu = nn.SiLU()
        self.linear = nn.Linear(time_embed_dim, 6 * dim)
        self.norm = nn.LayerNorm(dim, eps=eps, elementwise_affine=elementwise_affine)

    def forward(self, hidden_states: Tensor, temb: Tensor, lengths: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Return the joint sequence [B, N, D] and the gates [B, 2·S, D]; temb [B, S, time_embed_dim], lengths of 2·S segments."""
        rows = torch.unflatten(self.linear(self.silu(temb)), 2, (2, -1))  # [B, S, 2, 3·D]: video's, then text's
        rows = torch.cat([rows[:, :, 1], rows[:, :, 0]], dim=1)  # [B, 2·S, 3·D], in the order of the joint sequence
        shift, scale, gate = rows.chunk(3, dim=-1)
        return modulate(self.norm(hidden_states), scale, shift, lengths), gate


class SceneAdaLayerNorm(nn.Module):
    """CogVideoX's adaptive LayerNorm before the output, with one row of shift and scale per scene."""

    def __init__(self, time_embed_dim: int, dim: int, elementwise_affine: bool, eps: float) -> None:
        super().__init__()
        self.silu = nn.SiLU()
        self.linear = nn.Linear(time_embed_dim, 2 * dim)
        self.norm = nn.LayerNorm(dim, eps, elementwise_affine)

    def forward(self, hidden_states: Tensor, temb: Tensor, lengths: Sequence[int]) -> Tensor:
        """[B, ΣV, D] → the same shape; temb [B, S, time_embed_dim], lengths of S segments of video."""
        shift, scale = self.linear(self.silu(temb)).chunk(2, dim=-1)
        return modulate(self.norm(hidden_states), scale, shift, lengths)


def _joins() -> bool:
    """Whether segments are to be joined: to be differentiated, or by a compiler, which writes them in place by itself."""
    return torch.is_grad_enabled() or torch.compiler.is_compiling()


def _runs(states: Tensor, lengths: Sequence[int]) -> Iterator[Tensor]:
    """[B, N, …] as views [B, count, length, …], one for each run of segments of one length."""
    start = 0
    for count, length in _counted(lengths):
        yield torch.unflatten(states[:, start : start + count * length], 1, (count, length))
        start += count * length


def _rows(rows: Tensor, lengths: Sequence[int]) -> Iterator[Tensor]:
    """[B, R, D] as [B, count, 1, D], to go with `_runs`."""
    start = 0
    for count, _ in _counted(lengths):
        yield rows[:, start : start + count, None]
        start += count


def _counted(lengths: Sequence[int]) -> list[tuple[int, int]]:
    """Runs of one length: (how many, length)."""
    runs: list[tuple[int, int]] = []
    for length in lengths:
        count = runs.pop()[0] if runs and runs[-1][1] == length else 0
        runs.append((count + 1, length))
    return runs
