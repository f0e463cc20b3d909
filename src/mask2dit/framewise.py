"""The VAE's 3D convolutions on the CPU, as sums of 2D convolutions over frames.

torch's CPU kernel for Conv3d copies its input once for every weight of the filter: 28 times the memory of the output, and an eighth of
the speed of Conv2d (measured: 9 against 72 GFLOP/s on one core in float32). The sum is the same up to the order of additions.
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, pad

_KINDS: dict[type[nn.Conv3d], type[nn.Conv3d]] = {}
HOSTS = ("cpu", "meta")  # meta: what is counted there stands for the CPU


class FramewiseConv3d(nn.Conv3d):
    """A Conv3d without stride or dilation over time; on other devices it is what it was."""

    def forward(self, input: Tensor) -> Tensor:
        """[B, C, T, Y, X] → [B, C', T', Y', X']."""
        if input.device.type not in HOSTS:
            return super().forward(input)
        before_and_after = int(self.padding[0])
        if before_and_after:
            input = pad(input, (0, 0, 0, 0, before_and_after, before_and_after))
        count, kept = input.shape[2] - self.kernel_size[0] + 1, input.dtype
        # Half precision is emulated number by number on most CPUs: thirty times slower than float32.
        frames, weight = input.transpose(1, 2).float(), self.weight.float()  # [B, T, C, Y, X]
        bias = None if self.bias is None else self.bias.float()
        parts = (
            conv2d(frames[:, k : k + count].flatten(0, 1), weight[:, :, k], bias if k == 0 else None, self.stride[1:], self.padding[1:])
            for k in range(self.kernel_size[0])
        )
        total = next(parts)
        for part in parts:
            total.add_(part)
        return torch.unflatten(total.to(kept), 0, (len(input), count)).transpose(1, 2)


def use_framewise_convolutions(network: nn.Module) -> None:
    """Let a network's fitting Conv3d layers compute so on the CPU; their parameters and names stay as they are."""
    for layer in network.modules():
        if isinstance(layer, nn.Conv3d) and not isinstance(layer, FramewiseConv3d) and _fits(layer):
            layer.__class__ = _framewise(type(layer))


def _fits(layer: nn.Conv3d) -> bool:
    plain = layer.padding_mode == "zeros" and not isinstance(layer.padding, str)
    return plain and layer.groups == layer.stride[0] == 1 and set(layer.dilation) == {1}


def _framewise(kind: type[nn.Conv3d]) -> type[nn.Conv3d]:
    if kind not in _KINDS:
        _KINDS[kind] = type(f"Framewise{kind.__name__}", (FramewiseConv3d, kind), {})
    return _KINDS[kind]
