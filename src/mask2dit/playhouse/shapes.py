"""Signed distances of plain shapes, and a painter that lays them over each other.

Owns geometry and blending; knows no species, place or story. Every tensor broadcasts to [N, Y, X]; y points up.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

Number = float | Tensor


def length(x: Tensor, y: Tensor) -> Tensor:
    # hypot is several times slower on a CPU, and the sums here neither overflow nor vanish.
    return (x * x + y * y).sqrt()


def ellipse(x: Tensor, y: Tensor, centre_x: Number, centre_y: Number, radius_x: Number, radius_y: Number) -> Tensor:
    """Distance to an ellipse, exact to first order at its edge."""
    dx, dy = (x - centre_x) / radius_x, (y - centre_y) / radius_y
    norm = length(dx, dy)
    gradient = length(dx / radius_x, dy / radius_y)
    return norm * (norm - 1.0) / (gradient + 1e-4)


def circle(x: Tensor, y: Tensor, centre_x: Number, centre_y: Number, radius: Number) -> Tensor:
    return length(x - centre_x, y - centre_y) - radius


def capsule(x: Tensor, y: Tensor, start: tuple[Number, Number], end: tuple[Number, Number], radius: Number) -> Tensor:
    """Distance to a line segment with round ends."""
    along_x, along_y = end[0] - start[0], end[1] - start[1]
    dx, dy = x - start[0], y - start[1]
    share = ((dx * along_x + dy * along_y) / (along_x * along_x + along_y * along_y + 1e-6)).clamp(0.0, 1.0)
    return length(dx - share * along_x, dy - share * along_y) - radius


def box(x: Tensor, y: Tensor, centre_x: Number, centre_y: Number, half_x: Number, half_y: Number, corner: float = 0.0) -> Tensor:
    """Distance to a box with round corners; the half sizes include the corners."""
    dx, dy = (x - centre_x).abs() - (half_x - corner), (y - centre_y).abs() - (half_y - corner)
    return length(dx.clamp(min=0.0), dy.clamp(min=0.0)) + torch.maximum(dx, dy).clamp(max=0.0) - corner


def triangle(x: Tensor, y: Tensor, corners: Sequence[tuple[Number, Number]], round_by: float = 0.0) -> Tensor:
    """Distance to a triangle, its corners given counter-clockwise; outside, beyond a corner, a lower bound."""
    distance: Tensor | None = None
    for (ax, ay), (bx, by) in zip(corners, [*corners[1:], corners[0]], strict=True):
        edge_x, edge_y = bx - ax, by - ay
        size = (edge_x * edge_x + edge_y * edge_y + 1e-8) ** 0.5
        edge = ((x - ax) * edge_y - (y - ay) * edge_x) / size
        distance = edge if distance is None else torch.maximum(distance, edge)
    assert distance is not None
    return distance - round_by


def turned(x: Tensor, y: Tensor, centre_x: Number, centre_y: Number, angle: Number) -> tuple[Tensor, Tensor]:
    """Coordinates around a centre, turned so that a shape drawn upright there appears turned left by `angle` radians."""
    angle = torch.as_tensor(angle, dtype=x.dtype, device=x.device)
    cos, sin = angle.cos(), angle.sin()
    dx, dy = x - centre_x, y - centre_y
    return dx * cos + dy * sin, dy * cos - dx * sin


def union(*distances: Tensor) -> Tensor:
    result = distances[0]
    for distance in distances[1:]:
        result = torch.minimum(result, distance)
    return result


def melt(first: Tensor, second: Tensor, width: float) -> Tensor:
    """Union with a soft seam."""
    near = (0.5 + 0.5 * (second - first) / width).clamp(0.0, 1.0)
    return torch.lerp(second, first, near) - width * near * (1.0 - near)


def noise_of_cells(column: Tensor, row: Tensor, salt: int) -> Tensor:
    """A number in 0..1 per cell of a grid, from integer arithmetic: equal on every device, unlike a hash made of sines."""
    mixed = column.long() * 73856093 + row.long() * 19349663 + salt * 83492791
    mixed = (mixed ^ (mixed >> 13)) * 1274126177
    return ((mixed ^ (mixed >> 16)) & 0xFFFF).float() / 65535.0


class Painter:
    """A stack of painted shapes: colours [N, 3, Y, X] and how much they cover, [N, Y, X]."""

    def __init__(self, pixel: Tensor, base: Tensor, cover: Tensor) -> None:
        self.pixel = pixel
        self.rgb = base
        self.cover = cover

    def mask(self, distance: Tensor) -> Tensor:
        """How much of each pixel lies inside, by the distance at its middle."""
        return (0.5 - distance / self.pixel).clamp(0.0, 1.0)

    def blend(self, mask: Tensor, colour: Tensor) -> None:
        """Lay a colour [N, 3, 1, 1] or [N, 3, Y, X] over what is there."""
        self.rgb = torch.lerp(self.rgb, colour, mask.unsqueeze(1))

    def fill(self, distance: Tensor, colour: Tensor, strength: Number = 1.0) -> None:
        self.blend(self.mask(distance) * strength, colour)

    def part(self, distance: Tensor, colour: Tensor, outline: Tensor, outline_width: Number) -> None:
        """A shape with an outline around it, which also covers what lies behind."""
        rim = self.mask(distance - outline_width)
        self.blend(rim, outline)
        self.fill(distance, colour)
        self.cover = torch.maximum(self.cover, rim)
