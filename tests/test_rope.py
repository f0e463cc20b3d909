"""The rotary table: diffusers' on the base grid, the definition everywhere, time without a reset."""

import pytest
import torch
from diffusers.models.embeddings import apply_rotary_emb, get_3d_rotary_pos_embed

from mask2dit.rope import rotary_table
from reference import rotary_angles, rotate

GRIDS = [(30, 45), (2, 3), (4, 4), (45, 30), (3, 20), (20, 3), (48, 80), (1, 1)]


@pytest.mark.parametrize("grid", GRIDS)
def test_the_table_is_its_definition(grid: tuple[int, int]) -> None:
    cos, sin = rotary_table(2, grid, (30, 45), head_dim=16)
    angles = rotary_angles(2, grid, (30, 45), head_dim=16)
    assert cos.dtype == sin.dtype == torch.float32
    assert torch.allclose(cos.double(), angles.cos().repeat_interleave(2, -1), atol=1e-5, rtol=0)
    assert torch.allclose(sin.double(), angles.sin().repeat_interleave(2, -1), atol=1e-5, rtol=0)


def test_on_the_base_grid_it_is_the_table_of_diffusers() -> None:
    theirs = get_3d_rotary_pos_embed(embed_dim=64, crops_coords=((0, 0), (30, 45)), grid_size=(30, 45), temporal_size=4)
    ours = rotary_table(4, (30, 45), (30, 45), head_dim=64)
    assert torch.equal(ours[0], theirs[0]) and torch.equal(ours[1], theirs[1])


def test_time_runs_on() -> None:
    short, long = rotary_table(2, (2, 3), (2, 3), 16)[0], rotary_table(5, (2, 3), (2, 3), 16)[0]
    assert torch.equal(long[: len(short)], short)
    frames = long.unflatten(0, (5, 6))
    assert all(not torch.equal(frames[index], frames[index + 1]) for index in range(4))


def test_it_turns_adjacent_channels() -> None:
    states = torch.randn(2, 6, 3, 16, generator=torch.Generator().manual_seed(0))
    turned = apply_rotary_emb(states, rotary_table(1, (2, 3), (2, 3), 16), sequence_dim=1)
    assert torch.allclose(turned.double(), rotate(states.double(), rotary_angles(1, (2, 3), (2, 3), 16)), atol=1e-6)
