"""CogVideoX-2b's positions: sines and cosines that are added to the video tokens once, before the first block.

A token's channels are time (1/4), column (3/8), row (3/8), so three small tables hold what the product of their lengths would: 70,000
numbers instead of 100 million for three scenes of the released size. Text has no positions.

That time runs on without a reset from scene to scene, as in rope, is our own definition: the paper's model is rotary. The released weights
know the 13 latent frames of one scene; the frames after them extrapolate.
"""

import torch
from torch import Tensor

THETA = 10000

Tables = tuple[Tensor, Tensor, Tensor]


def sinusoidal_tables(
    num_latent_frames: int, grid: tuple[int, int], dim: int, spatial_scale: float = 1.0, temporal_scale: float = 1.0
) -> Tables:
    """Frames [F, D / 4], columns [columns, 3D / 8] and rows [rows, 3D / 8], in float64 on the CPU.

    `num_latent_frames`: of all scenes. `grid`: patches (rows, columns) of this video. Positions are divided by the scales.
    """
    rows, columns = grid
    return (
        _waves(num_latent_frames, dim // 4, temporal_scale),
        _waves(columns, dim // 8 * 3, spatial_scale),
        _waves(rows, dim // 8 * 3, spatial_scale),
    )


def add_positions(joint: Tensor, num_text_tokens: int, tables: Tables) -> Tensor:
    """Add the tables to the video of [B, ΣL + ΣV, D], each to its own channels and in the dtype of the tokens."""
    # CogVideoX rounds once, from float64; and not every device has float64.
    time, columns, rows = (table.to(joint.dtype).to(joint.device) for table in tables)
    video = torch.unflatten(joint[:, num_text_tokens:], 1, (len(time), len(rows), len(columns)))  # [B, F, rows, columns, D]
    of_time, of_columns, of_rows = torch.split(video, [time.shape[1], columns.shape[1], rows.shape[1]], dim=-1)
    # Not in place: sharded training hands out views of a layer's output, and those must not change.
    video = torch.cat([of_time + time[:, None, None], of_columns + columns, of_rows + rows[:, None]], dim=-1)
    return torch.cat([joint[:, :num_text_tokens], video.flatten(1, 3)], dim=1)


def _waves(count: int, num_channels: int, scale: float) -> Tensor:
    """[count, num_channels]: sines, then cosines, fastest first."""
    positions = torch.arange(count, dtype=torch.float32) / scale
    frequencies = 1.0 / THETA ** (torch.arange(num_channels // 2, dtype=torch.float64) / (num_channels / 2.0))
    angles = torch.outer(positions.double(), frequencies)
    return torch.cat([angles.sin(), angles.cos()], dim=1)
