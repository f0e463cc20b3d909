"""The 3D rotary table over the joined latent timeline of all scenes.

Time runs on without a reset from scene to scene; rows and columns of another size are letter-boxed into the base grid that the weights
were trained on. Applying the table belongs to attention.
"""

import torch
from torch import Tensor

THETA = 10000.0


def rotary_table(
    num_latent_frames: int, grid: tuple[int, int], base_grid: tuple[int, int], head_dim: int, device: torch.device | str | None = None
) -> tuple[Tensor, Tensor]:
    """Cosines and sines for tokens that run frame, row, column.

    `grid` and `base_grid`: patches (rows, columns) of this video and of the training size. Returns two float32 tensors
    [num_latent_frames · rows · columns, head_dim]; a head's channels are time (1/4), rows (3/8), columns (3/8), in adjacent pairs.
    """
    rows, columns = (_letter_box(count, start, length) for count, start, length in _region(grid, base_grid))
    time = torch.arange(num_latent_frames, dtype=torch.float32)
    num_rows, num_columns = grid
    angles = torch.cat(
        [
            _angles(time, head_dim // 4)[:, None, None].expand(-1, num_rows, num_columns, -1),
            _angles(rows, head_dim // 8 * 3)[None, :, None].expand(num_latent_frames, -1, num_columns, -1),
            _angles(columns, head_dim // 8 * 3)[None, None, :].expand(num_latent_frames, num_rows, -1, -1),
        ],
        dim=-1,
    ).flatten(0, 2)  # [F·rows·columns, head_dim / 2]
    angles = angles.repeat_interleave(2, dim=-1)
    # The table is made on the CPU, so that it is the same on every device.
    return angles.cos().to(device), angles.sin().to(device)


def joint_table(table: tuple[Tensor, Tensor] | None, num_text_tokens: int) -> tuple[Tensor, Tensor] | None:
    """A table of the video tokens, with rows before them that turn nothing, for text: (cos, sin), each [ΣL + ΣV, head_dim]."""
    if table is None:
        return None
    cos, sin = table
    shape = (num_text_tokens, cos.shape[1])
    return torch.cat([cos.new_ones(shape), cos]), torch.cat([sin.new_zeros(shape), sin])


def _region(grid: tuple[int, int], base_grid: tuple[int, int]) -> tuple[tuple[int, int, int], tuple[int, int, int]]:
    """Where the grid lies in the base grid: (count, start, length) for rows and for columns."""
    (height, width), (base_height, base_width) = grid, base_grid
    if height / width > base_height / base_width:
        length_height, length_width = base_height, round(base_height / height * width)
    else:
        length_height, length_width = round(base_width / width * height), base_width
    start_height = round((base_height - length_height) / 2.0)
    start_width = round((base_width - length_width) / 2.0)
    return (height, start_height, length_height), (width, start_width, length_width)


def _letter_box(count: int, start: int, length: int) -> Tensor:
    """`count` even steps over [start, start + length), the end excluded."""
    return torch.linspace(start, start + length * (count - 1) / count, count, dtype=torch.float32)


def _angles(positions: Tensor, num_channels: int) -> Tensor:
    """[N] positions → [N, num_channels / 2] angles, fastest first."""
    frequencies = 1.0 / (THETA ** (torch.arange(0, num_channels, 2, dtype=torch.float32) / num_channels))
    return torch.outer(positions, frequencies)
