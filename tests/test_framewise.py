"""3D convolutions as sums of 2D ones: the same numbers and gradients, in a fraction of the memory."""

import pytest
import torch
from torch import nn

import tiny
from mask2dit.framewise import FramewiseConv3d, use_framewise_convolutions
from test_footprint import allocated


@pytest.mark.parametrize(
    "options", [{}, {"padding": (0, 1, 1)}, {"padding": 1}, {"stride": (1, 2, 2)}, {"bias": False}, {"kernel_size": 1}]
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_equal_to_conv3d_with_gradients(options: dict, dtype: torch.dtype) -> None:
    layer = nn.Conv3d(**{"in_channels": 5, "out_channels": 7, "kernel_size": 3, "dtype": dtype} | options)
    given = torch.randn(2, 5, 6, 9, 8, dtype=dtype)

    def run() -> list[torch.Tensor]:
        layer.zero_grad()
        read = given.clone().requires_grad_()
        made = layer(read)
        made.float().square().mean().backward()
        return [made.detach(), read.grad, *(value.grad.clone() for value in layer.parameters())]

    expected = run()
    use_framewise_convolutions(layer)
    assert isinstance(layer, FramewiseConv3d)
    for ours, theirs in zip(run(), expected, strict=True):
        assert ours.shape == theirs.shape and ours.dtype == theirs.dtype
        torch.testing.assert_close(
            ours, theirs, rtol=2e-2 if dtype == torch.bfloat16 else 1e-4, atol=1e-2 if dtype == torch.bfloat16 else 1e-5
        )


def test_what_does_not_fit_stays() -> None:
    kept = [nn.Conv3d(2, 2, 3, stride=2), nn.Conv3d(2, 2, 3, dilation=2), nn.Conv3d(2, 2, 3, groups=2), nn.Conv3d(2, 2, 3, padding="same")]
    use_framewise_convolutions(nn.ModuleList(kept))
    assert {type(layer) for layer in kept} == {nn.Conv3d}


def test_a_layer_takes_a_third() -> None:
    layer, frames = nn.Conv3d(16, 16, 3, padding=(0, 1, 1)), torch.randn(1, 16, 9, 32, 32)
    stock = allocated(lambda: layer(frames))
    use_framewise_convolutions(layer)
    assert allocated(lambda: layer(frames)) < stock / 3


def test_the_vae_is_the_same_and_takes_less() -> None:
    stock, ours = tiny.vae(), tiny.vae()
    use_framewise_convolutions(ours)
    use_framewise_convolutions(ours)  # again is nothing more
    assert stock.state_dict().keys() == ours.state_dict().keys()
    latents = torch.randn(1, 4, 3, 8, 8)
    with torch.no_grad():
        torch.testing.assert_close(ours.decode(latents).sample, stock.decode(latents).sample, rtol=0, atol=1e-5)
    assert allocated(lambda: ours.decode(latents)) < 0.8 * allocated(lambda: stock.decode(latents))  # so small, processors differ much
