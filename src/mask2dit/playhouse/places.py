"""The eight places under three lights: sky, landmarks and ground behind the actors.

Owns what stands still in the world; the camera and the weather are `render`'s. Coordinates are heights of the frame,
x to the right from the middle, y up; actors stand at y = GROUND.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from mask2dit.playhouse.shapes import Number, Painter, box, capsule, circle, ellipse, noise_of_cells, triangle, union

GROUND = -0.36
"""Where feet touch the ground."""

Colour = tuple[float, float, float]

# Rows: day, sunset, night. The ground is multiplied by TINT, actors by the milder ACTOR_LIGHT so that colours stay readable.
TINT: tuple[Colour, ...] = ((1.0, 1.0, 1.0), (1.0, 0.74, 0.66), (0.34, 0.39, 0.62))
ACTOR_LIGHT: tuple[Colour, ...] = ((1.0, 1.0, 1.0), (1.0, 0.90, 0.82), (0.86, 0.88, 1.0))
SKY_TOP: tuple[Colour, ...] = ((0.36, 0.66, 0.95), (0.47, 0.30, 0.62), (0.04, 0.05, 0.17))
SKY_LOW: tuple[Colour, ...] = ((0.80, 0.92, 0.99), (1.0, 0.64, 0.38), (0.14, 0.18, 0.40))


@dataclass(slots=True)
class Scenery:
    """A batch of views of one place: coordinates [M, Y, X], numbers [M, 1, 1], colours [M, 3, 1, 1]."""

    x: Tensor
    y: Tensor
    light: Tensor
    """0 day, 1 sunset, 2 night, [M]."""
    phase: Tensor
    height: Tensor
    frequency: Tensor
    landmark: Tensor
    painter: Painter

    def by_light(self, rows: tuple[Colour, ...]) -> Tensor:
        return torch.tensor(rows, device=self.x.device)[self.light].view(-1, 3, 1, 1)

    def tone(self, red: float, green: float, blue: float) -> Tensor:
        """A colour of the day as it looks under this light."""
        return self.by_light(TINT) * torch.tensor([red, green, blue], device=self.x.device).view(1, 3, 1, 1)

    def is_light(self, index: int) -> Tensor:
        return (self.light == index).float().view(-1, 1, 1)

    def hill(self, offset: float) -> Tensor:
        """A gentle line of hills, about -0.1..0.1."""
        angle = self.frequency * (self.x + offset)
        return self.height * (0.05 * torch.sin(4.1 * angle + self.phase) + 0.025 * torch.sin(9.3 * angle + 2.1 * self.phase))

    def grain(self, amount: float) -> Tensor:
        """A little texture that keeps its look at any size, to add to a ground's brightness."""
        warp = 2.0 * torch.sin(5.0 * self.x + self.phase)
        return amount * torch.sin(31.0 * self.y + warp) * torch.sin(13.0 * self.x + 9.0 * self.y)

    def land(self, top: Number, upper: Tensor, lower: Tensor, grain: float = 0.04) -> None:
        """Ground below a line, from one colour at the line to another at the lower edge of the frame."""
        depth = ((top - self.y) / 0.42).clamp(0.0, 1.0).unsqueeze(1)
        colour = torch.lerp(upper, lower, depth) * (1.0 + self.grain(grain)).unsqueeze(1)
        self.painter.blend(self.painter.mask(self.y - top), colour)

    def scatter(self, columns: float, rows: float, salt: int, below: float, share: float) -> tuple[Tensor, Tensor, Tensor]:
        """Cells of a grid: (x, y inside a cell around a random spot, 1 where the cell has something and lies below a line)."""
        grid_x, grid_y = self.x * columns, self.y * rows
        column, row = grid_x.floor(), grid_y.floor()
        spot_x = 0.3 + 0.4 * noise_of_cells(column, row, salt)
        spot_y = 0.3 + 0.4 * noise_of_cells(column, row, salt + 1)
        present = (noise_of_cells(column, row, salt + 2) < share) & (row / rows < below)
        return (grid_x - column - spot_x) / columns, (grid_y - row - spot_y) / rows, present.float()

    def stars(self, strength: Number) -> None:
        x, y, present = self.scatter(11.0, 11.0, 40, 9.0, 0.36)
        twinkle = (1.0 - (x * x + y * y).sqrt() / 0.013).clamp(0.0, 1.0) * present
        self.painter.blend(twinkle * strength, torch.ones(1, 3, 1, 1, device=x.device))

    def sky(self, top: tuple[Colour, ...] = SKY_TOP, low: tuple[Colour, ...] = SKY_LOW) -> None:
        """Gradient, stars by night, and the sun or the moon."""
        share = ((self.y + 0.10) / 0.6).clamp(0.0, 1.0).unsqueeze(1)
        self.painter.rgb = torch.lerp(self.by_light(low), self.by_light(top), share).expand(-1, 3, *self.x.shape[1:])
        self.stars(self.is_light(2))
        side = 0.42 * torch.where(self.landmark > 0.0, -1.0, 1.0)
        day, dusk, night = (self.is_light(index) for index in range(3))
        height = 0.36 * day + 0.04 * dusk + 0.33 * night
        radius = 0.075 * day + 0.15 * dusk + 0.065 * night
        distance = circle(self.x, self.y, side, height, radius)
        glow = (1.0 - distance / 0.22).clamp(0.0, 1.0) ** 2 * (0.35 - 0.15 * night)
        body = self.by_light(((1.0, 0.95, 0.62), (1.0, 0.83, 0.42), (0.96, 0.95, 0.84)))
        self.painter.blend(glow, body)
        bite = torch.maximum(distance, -circle(self.x, self.y, side + 0.045, height + 0.02, radius)) * night + distance * (1.0 - night)
        self.painter.fill(bite, body)

    def clouds(self) -> None:
        puffs = [
            ellipse(self.x, self.y, self.landmark * 0.3 + dx, 0.36 + dy, 0.13 * size, 0.045 * size)
            for dx, dy, size in ((0.0, 0.0, 1.0), (0.08, 0.02, 0.8), (-0.52, -0.07, 0.8), (-0.46, -0.05, 0.6))
        ]
        self.painter.fill(union(*puffs), self.by_light(((1.0, 1.0, 1.0), (1.0, 0.72, 0.62), (0.22, 0.25, 0.44))), 0.85)


def meadow(scene: Scenery) -> None:
    scene.sky()
    scene.clouds()
    scene.land(0.03 + scene.hill(0.0), scene.tone(0.52, 0.74, 0.56), scene.tone(0.40, 0.64, 0.46), 0.0)
    scene.land(-0.13 + 0.6 * scene.hill(1.7), scene.tone(0.70, 0.86, 0.40), scene.tone(0.42, 0.68, 0.27))
    x, y, present = scene.scatter(7.0, 12.0, 3, -0.20, 0.5)
    scene.painter.fill(circle(x, y, 0.0, 0.0, 0.019), scene.tone(1.0, 0.98, 0.90), present)
    scene.painter.fill(circle(x, y, 0.0, 0.0, 0.008), scene.tone(1.0, 0.72, 0.15), present)


def beach(scene: Scenery) -> None:
    scene.sky()
    scene.clouds()
    x, y = scene.x, scene.y
    scene.land(0.03, scene.tone(0.20, 0.55, 0.78), scene.tone(0.28, 0.78, 0.82), 0.0)
    ripple = (torch.sin(70.0 * y) * torch.sin(14.0 * x + 20.0 * y) - 0.55).clamp(min=0.0)
    scene.painter.blend(ripple * scene.painter.mask(y - 0.02), scene.tone(0.85, 0.97, 1.0))
    shore = -0.16 + 0.5 * scene.hill(0.6)
    scene.painter.fill(y - shore - 0.022, scene.tone(0.97, 1.0, 1.0))
    scene.land(shore, scene.tone(0.99, 0.92, 0.72), scene.tone(0.93, 0.80, 0.55))
    side = torch.where(scene.landmark > 0.0, 1.0, -1.0)
    foot = side * (0.58 + 0.06 * scene.landmark.abs())
    crown_x, crown_y = foot - 0.08 * side, 0.22
    trunk = capsule(x, y, (foot, -0.24), (crown_x, crown_y), 0.024)
    scene.painter.fill(trunk, scene.tone(0.58, 0.40, 0.26))
    leaves = [
        torch.maximum(circle(x, y, crown_x + dx, crown_y + dy - 0.07, 0.12), -circle(x, y, crown_x + 1.1 * dx, crown_y + dy - 0.12, 0.125))
        for dx, dy in ((-0.10, 0.02), (0.10, 0.02), (-0.06, 0.07), (0.07, 0.07))
    ]
    scene.painter.fill(union(*leaves), scene.tone(0.16, 0.55, 0.30))


def desert(scene: Scenery) -> None:
    scene.sky(((0.62, 0.80, 0.93), *SKY_TOP[1:]), ((1.0, 0.93, 0.74), *SKY_LOW[1:]))
    x, y = scene.x, scene.y
    far = scene.tone(0.74, 0.42, 0.30)
    for centre, half, top in ((-0.35, 0.16, 0.14), (0.5, 0.12, 0.20), (0.27, 0.10, 0.08)):
        shift = centre + 0.12 * scene.landmark
        butte = box(x, y, shift, top - 0.25, half + 0.10 * (top - y).clamp(0.0, 0.3), 0.25, 0.01)
        scene.painter.fill(butte, far * (1.0 - 0.12 * torch.sin(60.0 * y).clamp(min=0.0).unsqueeze(1)))
    scene.land(-0.05 + scene.hill(0.3), scene.tone(0.95, 0.70, 0.42), scene.tone(0.86, 0.56, 0.34), 0.0)
    scene.land(-0.19 + 0.8 * scene.hill(2.1), scene.tone(0.97, 0.76, 0.50), scene.tone(0.83, 0.52, 0.32), 0.09)
    root = torch.where(scene.landmark > 0.0, 0.58, -0.58)
    cactus = union(
        capsule(x, y, (root, -0.26), (root, 0.06), 0.042),
        capsule(x, y, (root, -0.10), (root - 0.10, -0.10), 0.026),
        capsule(x, y, (root - 0.10, -0.10), (root - 0.10, 0.0), 0.026),
        capsule(x, y, (root, -0.14), (root + 0.10, -0.14), 0.026),
        capsule(x, y, (root + 0.10, -0.14), (root + 0.10, -0.03), 0.026),
    )
    scene.painter.fill(cactus - 0.010, scene.tone(0.10, 0.26, 0.16))
    scene.painter.fill(cactus, scene.tone(0.30, 0.56, 0.30))


def snowfield(scene: Scenery) -> None:
    scene.sky(((0.56, 0.74, 0.92), *SKY_TOP[1:]), ((0.90, 0.95, 1.0), *SKY_LOW[1:]))
    x, y = scene.x, scene.y
    for centre, half, top in ((-0.45, 0.42, 0.28), (0.30, 0.46, 0.34)):
        peak = centre + 0.15 * scene.landmark
        mountain = triangle(x, y, [(peak - half, -0.2), (peak + half, -0.2), (peak, top)])
        scene.painter.fill(mountain, scene.tone(0.55, 0.63, 0.80))
        snow_line = top - 0.13 + 0.025 * torch.sin(40.0 * x)
        scene.painter.fill(torch.maximum(mountain, snow_line - y), scene.tone(0.97, 0.98, 1.0))
    scene.land(-0.10 + 0.7 * scene.hill(0.4), scene.tone(0.86, 0.92, 1.0), scene.tone(0.80, 0.87, 0.98), 0.0)
    for centre, size in ((-0.62, 1.0), (-0.40, 0.7), (0.52, 0.8), (0.70, 1.05)):
        stem = centre + 0.05 * scene.landmark
        tiers = [
            triangle(x, y, [(stem - half * size, low), (stem + half * size, low), (stem, low + 0.17 * size)])
            for half, low in ((0.10, -0.18), (0.08, -0.18 + 0.09 * size), (0.06, -0.18 + 0.18 * size))
        ]
        scene.painter.fill(union(*tiers), scene.tone(0.22, 0.42, 0.42))
    scene.land(-0.20 + 0.4 * scene.hill(2.4), scene.tone(0.95, 0.97, 1.0), scene.tone(0.84, 0.90, 0.98), 0.03)


def city(scene: Scenery) -> None:
    scene.sky()
    x, y = scene.x, scene.y
    for columns, salt, low, span, wall in ((5.5, 7, 0.10, 0.26, (0.60, 0.66, 0.76)), (4.0, 8, -0.02, 0.26, (0.46, 0.47, 0.58))):
        place = (x + 0.3 * scene.landmark) * columns
        column = place.floor()
        chance = noise_of_cells(column, torch.zeros_like(column), salt)
        top = low + span * chance * (0.6 + 0.4 * scene.height)
        shade = (0.86 + 0.28 * noise_of_cells(column, torch.ones_like(column), salt)).unsqueeze(1)
        house = torch.maximum(y - top, ((place - column - 0.5).abs() - 0.48) / columns)
        scene.painter.fill(house, scene.tone(*wall) * shade)
        cell_x, cell_y = (place - column) * 4.0, y * 15.0
        pane = torch.maximum((cell_x - cell_x.floor() - 0.5).abs() - 0.26, (cell_y - cell_y.floor() - 0.5).abs() - 0.28)
        lit = (noise_of_cells(column * 4 + cell_x.floor(), cell_y.floor(), salt + 5) < 0.6).float()
        inside = torch.maximum(house + 0.02, pane / 15.0)
        scene.painter.fill(inside, scene.by_light(((0.80, 0.91, 0.97), (1.0, 0.84, 0.50), (1.0, 0.86, 0.42))), 0.35 + 0.6 * lit)
    scene.land(-0.16, scene.tone(0.78, 0.76, 0.74), scene.tone(0.70, 0.68, 0.66), 0.0)
    scene.land(-0.22, scene.tone(0.48, 0.48, 0.53), scene.tone(0.38, 0.38, 0.44), 0.03)
    stripe = torch.maximum((y + 0.44).abs() - 0.013, ((2.6 * x - (2.6 * x).floor() - 0.5).abs() - 0.28) / 2.6)
    scene.painter.fill(stripe, scene.tone(0.95, 0.93, 0.80))


def forest(scene: Scenery) -> None:
    scene.sky(((0.55, 0.80, 0.62), (0.62, 0.36, 0.36), (0.03, 0.07, 0.13)), ((0.86, 0.95, 0.66), (1.0, 0.66, 0.36), (0.10, 0.20, 0.28)))
    x, y = scene.x, scene.y
    for columns, salt, half, bark in ((6.0, 21, 0.13, (0.44, 0.48, 0.36)), (3.6, 22, 0.16, (0.36, 0.25, 0.19))):
        place = (x + 0.2 * scene.landmark) * columns + 0.25 * salt
        column = place.floor()
        lean = 0.25 + 0.5 * noise_of_cells(column, torch.zeros_like(column), salt)
        trunk = ((place - column - lean).abs() - half * (1.0 + 0.6 * (-y - 0.05).clamp(0.0, 0.3) / 0.3)) / columns
        scene.painter.fill(trunk, scene.tone(*bark))
    scene.land(-0.16 + 0.5 * scene.hill(0.0), scene.tone(0.36, 0.44, 0.22), scene.tone(0.24, 0.31, 0.15), 0.10)
    canopy = 0.33 + 0.05 * torch.sin(11.0 * x + scene.phase).abs() + 0.4 * scene.hill(0.9)
    scene.painter.fill(canopy - y, scene.tone(0.20, 0.46, 0.25))
    scene.painter.fill(canopy + 0.07 + 0.03 * torch.sin(17.0 * x).abs() - y, scene.tone(0.13, 0.34, 0.20))
    cap_x = torch.where(scene.landmark > 0.0, 0.60, -0.60)
    scene.painter.fill(box(x, y, cap_x, -0.23, 0.020, 0.05, 0.01), scene.tone(0.93, 0.90, 0.80))
    cap = torch.maximum(ellipse(x, y, cap_x, -0.19, 0.075, 0.065), -0.19 - y)
    scene.painter.fill(cap, scene.tone(0.80, 0.22, 0.20))


def cave(scene: Scenery) -> None:
    scene.sky()
    x, y = scene.x, scene.y
    scene.land(-0.05 + scene.hill(0.0), scene.tone(0.50, 0.66, 0.52), scene.tone(0.40, 0.56, 0.44), 0.0)
    mouth = ellipse(x, y, 0.25 * scene.landmark, 0.02, 0.46, 0.33)
    ragged = mouth + 0.018 * torch.sin(23.0 * x + 3.0 * torch.sin(19.0 * y) + scene.phase)
    depth = (0.75 - 0.9 * ragged).clamp(0.30, 0.75).unsqueeze(1)
    wall = scene.tone(0.60, 0.48, 0.56) * depth * (1.0 + scene.grain(0.12)).unsqueeze(1)
    scene.painter.blend(scene.painter.mask(-ragged), wall)
    place = (x + 0.13 * scene.landmark) * 4.5
    column = place.floor()
    drop = 0.10 + 0.17 * noise_of_cells(column, torch.zeros_like(column), 31)
    spike = (place - column - 0.5).abs() / 4.5 - 0.085 * ((y - 0.5 + drop) / drop).clamp(0.0, 1.0)
    scene.painter.fill(torch.maximum(spike, 0.5 - drop - y), scene.tone(0.30, 0.23, 0.30))
    scene.land(-0.20 + 0.4 * scene.hill(1.1), scene.tone(0.56, 0.47, 0.52), scene.tone(0.36, 0.29, 0.36), 0.10)


def space(scene: Scenery) -> None:
    top = ((0.16, 0.13, 0.42), (0.26, 0.08, 0.30), (0.01, 0.01, 0.05))
    low = ((0.40, 0.34, 0.72), (0.86, 0.36, 0.36), (0.05, 0.04, 0.14))
    scene.sky(top, low)
    scene.stars(0.8 * (1.0 - scene.is_light(2)))
    x, y = scene.x, scene.y
    planet_x, planet_y = 0.40 * torch.where(scene.landmark > 0.0, 1.0, -1.0) + 0.08 * scene.landmark, 0.26
    tilted = y - planet_y - 0.25 * (x - planet_x)
    ring = ellipse(x, tilted, planet_x, 0.0, 0.21, 0.05).abs() - 0.014
    globe = circle(x, y, planet_x, planet_y, 0.115)
    band = (1.0 + 0.16 * torch.sin(38.0 * tilted)).unsqueeze(1)
    scene.painter.fill(torch.maximum(ring, -tilted), scene.by_light(((0.95, 0.88, 0.70), (1.0, 0.76, 0.52), (0.60, 0.58, 0.62))))
    scene.painter.fill(globe, scene.by_light(((0.36, 0.70, 0.72), (0.80, 0.50, 0.48), (0.22, 0.36, 0.48))) * band)
    scene.painter.fill(torch.maximum(ring, tilted), scene.by_light(((0.95, 0.88, 0.70), (1.0, 0.76, 0.52), (0.60, 0.58, 0.62))))
    scene.land(-0.15 + 0.5 * scene.hill(0.7), scene.tone(0.74, 0.73, 0.80), scene.tone(0.52, 0.51, 0.60), 0.03)
    hole_x, hole_y, present = scene.scatter(3.4, 7.0, 51, -0.20, 0.6)
    scene.painter.fill(ellipse(hole_x, hole_y, 0.0, 0.005, 0.085, 0.032), scene.tone(0.86, 0.85, 0.92), present)
    scene.painter.fill(ellipse(hole_x, hole_y, 0.0, 0.0, 0.080, 0.028), scene.tone(0.46, 0.45, 0.55), present)


DRAW: dict[str, Callable[[Scenery], None]] = {
    "meadow": meadow,
    "beach": beach,
    "desert": desert,
    "snowfield": snowfield,
    "city": city,
    "forest": forest,
    "cave": cave,
    "space": space,
}
