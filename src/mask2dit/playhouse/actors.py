"""The eight species: their shapes, faces and what they wear, in the actor's own coordinates.

The actor stands on y = 0, about 1 high, and looks towards positive x. Where it stands and how it moves is `render`'s.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from mask2dit.playhouse.shapes import Number, Painter, box, capsule, circle, ellipse, melt, triangle, turned, union


@dataclass(slots=True)
class Figure:
    """A batch of actors of one species, one per frame: coordinates [N, Y, X], numbers [N, 1, 1], colours [N, 3, 1, 1]."""

    x: Tensor
    y: Tensor
    lit: Tensor
    """Brightness by place on the body, [N, Y, X]: light comes from above and ahead."""
    colour: Tensor
    light: Tensor
    width: Tensor
    head: Tensor
    ears: Tensor
    swing: Tensor
    flap: Tensor
    gaze: Tensor
    face: Tensor
    asleep: Tensor
    sigh: Tensor
    facing: Tensor
    outline_width: Tensor
    painter: Painter

    def tone(self, red: float, green: float, blue: float) -> Tensor:
        """A fixed colour under this scene's light."""
        return self.light * torch.tensor([red, green, blue], device=self.x.device).view(1, 3, 1, 1)

    @property
    def outline(self) -> Tensor:
        return self.colour * 0.26

    def shaded(self, colour: Tensor, inner: Tensor) -> Tensor:
        """The colour with light from the upper front and a darker edge, [N, 3, Y, X]; `inner` is the part's distance."""
        shade = self.lit - 0.14 * (1.0 + inner / 0.09).clamp(0.0, 1.0)
        return colour * shade.unsqueeze(1)

    def body(self, distance: Tensor, colour: Tensor | None = None) -> None:
        colour = self.colour if colour is None else colour
        self.painter.part(distance, self.shaded(colour, distance), self.outline, self.outline_width)

    def pale(self) -> Tensor:
        """A lighter tint of the actor's own colour, for bellies and muzzles."""
        return torch.lerp(self.colour, self.light, 0.55)

    def on_face(self, distance: Tensor, colour: Tensor) -> None:
        self.painter.fill(distance, colour, self.face)

    def eye(self, centre_x: Number, centre_y: Number, radius: float) -> None:
        """An eye that looks ahead; a sleeper's is a dark line."""
        x = self.x - self.gaze
        awake = self.face * (1.0 - self.asleep)
        dark = self.tone(0.08, 0.07, 0.12)
        self.painter.fill(circle(x, self.y, centre_x, centre_y, radius + 0.016), dark, awake)
        self.painter.fill(circle(x, self.y, centre_x, centre_y, radius), self.tone(1.0, 1.0, 1.0), awake)
        pupil = circle(x, self.y, centre_x + 0.38 * radius + 0.4 * self.gaze, centre_y, 0.58 * radius)
        self.painter.fill(pupil, dark, awake)
        lid = capsule(x, self.y, (centre_x - radius, centre_y - 0.01), (centre_x + radius, centre_y - 0.01), 0.024)
        self.painter.fill(lid, dark, self.face * self.asleep)

    def legs(self, spread: float, top: float, radius: float, colour: Tensor | None = None) -> None:
        for side in (-1.0, 1.0):
            step = side * self.swing
            foot = (side * spread + 0.10 * step, 0.05 + 0.06 * step.clamp(min=0.0))
            leg = capsule(self.x, self.y, (side * spread, top), foot, radius)
            self.body(leg, colour)

    def arms(self, spread: Number, shoulder: float, reach: float, radius: float, colour: Tensor | None = None) -> None:
        for side in (-1.0, 1.0):
            lifted = self.flap.clamp(-0.3, 1.4)
            hand = (side * (spread + reach * (0.55 + 0.35 * lifted)), shoulder - reach * (0.8 - 1.5 * lifted) - 0.04 * side * self.swing)
            self.body(capsule(self.x, self.y, (side * spread, shoulder), hand, radius), colour)


def fox(figure: Figure) -> None:
    x, y, painter, head = figure.x, figure.y, figure.painter, figure.head
    tail_x, tail_y = turned(x, y, -0.33, 0.36, 0.55 + 0.12 * figure.swing + 0.3 * figure.flap)
    tail = ellipse(tail_x, tail_y, 0.0, 0.0, 0.13, 0.27)
    figure.body(tail)
    painter.fill(torch.maximum(tail, 0.10 - tail_y), figure.tone(0.97, 0.95, 0.90))
    figure.legs(0.13, 0.2, 0.065)
    figure.body(ellipse(x, y, 0.0, 0.28, 0.21 * figure.width, 0.23))
    painter.fill(ellipse(x, y, 0.06, 0.27, 0.11 * figure.width, 0.16), figure.pale(), figure.face)
    tip = 0.80 + 0.24 * figure.ears
    for middle in (-0.09, 0.20):
        lean = 1.35 * middle - 0.02
        figure.body(triangle(x, y, [(middle - 0.11, 0.70), (middle + 0.11, 0.70), (lean, tip)], 0.015))
        figure.on_face(triangle(x, y, [(middle - 0.04, 0.74), (middle + 0.05, 0.74), (lean, tip - 0.09)]), figure.tone(0.25, 0.16, 0.18))
    skull = ellipse(x, y, 0.05, 0.64, 0.27 * head, 0.195 * head)
    figure.body(melt(skull, ellipse(x, y, 0.24 + 0.5 * figure.gaze, 0.57, 0.16, 0.085), 0.05))
    figure.on_face(ellipse(x - figure.gaze, y, 0.19, 0.55, 0.15, 0.07), figure.tone(0.98, 0.96, 0.92))
    figure.on_face(circle(x - 0.5 * figure.gaze, y, 0.38, 0.59, 0.042), figure.tone(0.1, 0.08, 0.1))
    figure.eye(-0.03, 0.67, 0.06)
    figure.eye(0.16, 0.67, 0.06)


def bear(figure: Figure) -> None:
    x, y, head = figure.x, figure.y, figure.head
    figure.legs(0.17, 0.18, 0.105)
    trunk = ellipse(x, y, 0.0, 0.34, 0.31 * figure.width, 0.29)
    figure.arms(0.25 * figure.width, 0.46, 0.17, 0.085)
    figure.body(trunk)
    figure.painter.fill(ellipse(x, y, 0.03, 0.31, 0.19 * figure.width, 0.19), figure.pale(), figure.face)
    for side in (-1.0, 1.0):
        figure.body(circle(x, y, 0.03 + side * 0.19 * head, 0.89, 0.092 * figure.ears))
        figure.on_face(circle(x, y, 0.03 + side * 0.19 * head, 0.89, 0.045), figure.pale())
    figure.body(ellipse(x, y, 0.03, 0.72, 0.25 * head, 0.21 * head))
    figure.on_face(ellipse(x - figure.gaze, y, 0.10, 0.65, 0.125, 0.09), figure.pale())
    figure.on_face(ellipse(x - figure.gaze, y, 0.13, 0.695, 0.055, 0.038), figure.tone(0.1, 0.08, 0.1))
    figure.eye(-0.06, 0.78, 0.05)
    figure.eye(0.17, 0.78, 0.05)


def rabbit(figure: Figure) -> None:
    x, y, head = figure.x, figure.y, figure.head
    figure.body(circle(x, y, -0.23 * figure.width, 0.2, 0.09), figure.tone(0.98, 0.97, 0.96))
    for side in (-1.0, 1.0):
        root, tip = 0.04 + 0.085 * side, 0.04 + 0.15 * side - 0.06 * figure.swing
        height = 0.72 + 0.28 * figure.ears
        figure.body(capsule(x, y, (root, 0.66), (tip, height), 0.068))
        figure.on_face(capsule(x, y, (root, 0.70), (tip, height - 0.02), 0.028), figure.tone(1.0, 0.78, 0.80))
    for side in (-1.0, 1.0):
        figure.body(ellipse(x, y, side * 0.12 + 0.04 + 0.09 * side * figure.swing, 0.06, 0.12, 0.065))
    figure.arms(0.13 * figure.width, 0.36, 0.13, 0.05)
    figure.body(ellipse(x, y, 0.0, 0.25, 0.215 * figure.width, 0.215))
    figure.painter.fill(ellipse(x, y, 0.04, 0.23, 0.12 * figure.width, 0.14), figure.pale(), figure.face)
    figure.body(ellipse(x, y, 0.04, 0.56, 0.22 * head, 0.185 * head))
    figure.on_face(ellipse(x - figure.gaze, y, 0.12, 0.49, 0.085, 0.055), figure.tone(1.0, 0.98, 0.97))
    figure.on_face(ellipse(x - figure.gaze, y, 0.13, 0.52, 0.032, 0.022), figure.tone(0.85, 0.3, 0.4))
    figure.eye(-0.03, 0.61, 0.055)
    figure.eye(0.16, 0.61, 0.055)


def owl(figure: Figure) -> None:
    x, y, head = figure.x, figure.y, figure.head
    beak = figure.tone(0.98, 0.66, 0.12)
    for side in (-1.0, 1.0):
        figure.body(ellipse(x, y, side * 0.11 + 0.09 * side * figure.swing, 0.035, 0.075, 0.04), beak)
    tip = 0.84 + 0.16 * figure.ears
    for side in (-1.0, 1.0):
        figure.body(triangle(x, y, [(side * 0.2 - 0.11, 0.68), (side * 0.2 + 0.11, 0.68), (side * 0.31, tip)], 0.01))
    trunk = melt(ellipse(x, y, 0.0, 0.36, 0.31 * figure.width, 0.33), ellipse(x, y, 0.0, 0.65, 0.29 * head, 0.22), 0.08)
    figure.body(trunk)
    figure.painter.fill(ellipse(x, y, 0.02, 0.27, 0.19 * figure.width, 0.20), figure.pale(), figure.face)
    for side in (-1.0, 1.0):
        wing_x, wing_y = turned(x, y, side * 0.27 * figure.width, 0.48, side * (0.12 + 1.35 * figure.flap.clamp(-0.2, 1.4)))
        figure.body(ellipse(wing_x, wing_y, 0.0, -0.17, 0.10, 0.23), figure.colour * 0.82)
    for side in (-1.0, 1.0):
        figure.on_face(circle(x - figure.gaze, y, 0.03 + side * 0.125, 0.66, 0.13), figure.pale())
        figure.eye(0.03 + side * 0.125, 0.66, 0.085)
    down = [(0.03 - 0.055, 0.59), (0.03, 0.48), (0.03 + 0.055, 0.59)]
    figure.on_face(triangle(x - figure.gaze, y, down, 0.008), beak)


def frog(figure: Figure) -> None:
    x, y, head = figure.x, figure.y, figure.head
    for side in (-1.0, 1.0):
        figure.body(ellipse(x, y, side * 0.31 * figure.width, 0.14 + 0.04 * figure.swing * side, 0.17, 0.13))
        figure.body(ellipse(x, y, side * (0.38 + 0.06 * figure.swing), 0.035, 0.14, 0.045))
    for side in (-1.0, 1.0):
        figure.body(circle(x, y, 0.03 + side * 0.19 * head, 0.55 + 0.06 * (figure.ears - 1.0), 0.135))
    figure.body(ellipse(x, y, 0.0, 0.30, 0.38 * figure.width, 0.26))
    figure.painter.fill(ellipse(x, y, 0.03, 0.19, 0.25 * figure.width, 0.13), figure.pale(), figure.face)
    figure.arms(0.17, 0.18, 0.10, 0.05)
    mouth = (ellipse(x - figure.gaze, y, 0.04, 0.42, 0.24, 0.10)).abs() - 0.014
    figure.on_face(torch.maximum(mouth, y - 0.40), figure.tone(0.12, 0.09, 0.12))
    figure.eye(0.03 - 0.19 * head, 0.57, 0.085)
    figure.eye(0.03 + 0.19 * head, 0.57, 0.085)


def robot(figure: Figure) -> None:
    x, y, head = figure.x, figure.y, figure.head
    metal, dark = figure.tone(0.60, 0.63, 0.68), figure.tone(0.13, 0.16, 0.24)
    figure.legs(0.12, 0.18, 0.055, metal)
    figure.arms(0.23 * figure.width, 0.42, 0.18, 0.05, metal)
    top = 0.90 + 0.11 * figure.ears
    figure.body(capsule(x, y, (0.0, 0.8), (0.0, top), 0.018), metal)
    figure.body(circle(x, y, 0.0, top, 0.055))
    figure.body(box(x, y, 0.0, 0.33, 0.24 * figure.width, 0.195, 0.04))
    figure.painter.fill(box(x, y, 0.03, 0.34, 0.12, 0.085, 0.02), figure.pale(), figure.face)
    figure.painter.fill(circle(x, y, -0.02, 0.34, 0.03), dark, figure.face)
    figure.painter.fill(circle(x, y, 0.08, 0.34, 0.03), dark, figure.face)
    figure.body(box(x, y, 0.01, 0.70, 0.27 * head, 0.165 * head, 0.05))
    figure.on_face(box(x - figure.gaze, y, 0.04, 0.71, 0.20, 0.095, 0.04), dark)
    figure.eye(-0.04, 0.71, 0.055)
    figure.eye(0.13, 0.71, 0.055)


def ghost(figure: Figure) -> None:
    x, y, head = figure.x, figure.y, figure.head
    half = 0.29 * figure.width
    figure.arms(half * 0.9, 0.46, 0.13, 0.06)
    sheet = union(circle(x, y, 0.0, 0.66, 0.30 * head), box(x, y, 0.0, 0.34, half, 0.32))
    sheet = melt(sheet, box(x, y, 0.0, 0.15, half + 0.05, 0.11, 0.05), 0.10)
    hem = 0.10 + 0.05 * torch.sin(24.0 * x + 2.2 * figure.swing + 3.0 * figure.flap) - y
    figure.body(torch.maximum(sheet, hem * 0.7))
    mouth = ellipse(x - figure.gaze, y, 0.06, 0.50, 0.05, 0.06)
    figure.on_face(mouth, figure.tone(0.12, 0.09, 0.16))
    figure.on_face(ellipse(x - figure.gaze, y, -0.12, 0.57, 0.05, 0.028), figure.tone(1.0, 0.62, 0.68))
    figure.on_face(ellipse(x - figure.gaze, y, 0.24, 0.57, 0.05, 0.028), figure.tone(1.0, 0.62, 0.68))
    figure.eye(-0.05, 0.68, 0.07)
    figure.eye(0.16, 0.68, 0.07)


def fish(figure: Figure) -> None:
    x, y = figure.x, figure.y
    wag = 0.10 * figure.swing + 0.05 * figure.flap
    fin = figure.colour * 0.84
    size = 0.15 + 0.10 * figure.ears
    tail: list[tuple[Number, Number]] = [(-0.24, 0.46), (-0.60 + 0.3 * wag, 0.46 + size + wag), (-0.60 - 0.3 * wag, 0.46 - size + wag)]
    figure.body(torch.maximum(triangle(x, y, tail, 0.02), 0.10 - circle(x, y, -0.64, 0.46 + wag, 0.0)), fin)
    figure.body(triangle(x, y, [(-0.20, 0.60), (0.20, 0.62), (-0.16, 0.66 + 0.20 * figure.ears)], 0.025), fin)
    figure.body(triangle(x, y, [(-0.12, 0.30), (-0.10, 0.12), (0.12, 0.28)], 0.025), fin)
    body = ellipse(x, y, 0.02, 0.46, 0.37 * figure.width, 0.255)
    figure.body(body)
    figure.painter.fill(torch.maximum(body + 0.03, y - 0.36), figure.pale())
    for stripe in (-0.15, -0.02):
        figure.painter.fill(torch.maximum(body + 0.03, box(x + 0.4 * (y - 0.46) ** 2, y, stripe, 0.46, 0.022, 0.4)), fin)
    wing_x, wing_y = turned(x, y, 0.02, 0.40, -0.6 - figure.flap)
    figure.body(ellipse(wing_x, wing_y, -0.09, 0.0, 0.11, 0.06), fin)
    figure.on_face(capsule(x, y, (0.27 * figure.width, 0.37), (0.34 * figure.width, 0.39), 0.018), figure.tone(0.12, 0.08, 0.12))
    figure.eye(0.20 * figure.width, 0.53, 0.075)


DRAW: dict[str, Callable[[Figure], None]] = {
    "fox": fox,
    "bear": bear,
    "rabbit": rabbit,
    "owl": owl,
    "frog": frog,
    "robot": robot,
    "ghost": ghost,
    "fish": fish,
}


@dataclass(frozen=True, slots=True)
class Build:
    """Where a species wears things, and how much larger it is drawn to fill its share of the frame."""

    scale: float
    hat: tuple[float, float, float]
    """x, y of the brim and half its width."""
    scarf: tuple[float, float, float]
    """x, y of the neck and half its width."""
    glasses: tuple[tuple[float, float], tuple[float, float], float]
    """The two lenses and their radius."""
    reach: tuple[float, float]
    """All of an actor in any pose and dress lies within this far to each side, and below this height."""
    hover: float = 0.0
    shadow: float = 0.30
    half_width: float = 0.33
    top: float = 1.0


BUILDS: dict[str, Build] = {
    "fox": Build(1.0, (0.05, 0.81, 0.22), (0.02, 0.45, 0.19), ((-0.03, 0.67), (0.16, 0.67), 0.085), reach=(0.76, 1.42)),
    "bear": Build(1.0, (0.03, 0.91, 0.22), (0.02, 0.53, 0.23), ((-0.06, 0.78), (0.17, 0.78), 0.085), reach=(0.68, 1.36), shadow=0.36),
    "rabbit": Build(1.02, (0.04, 0.71, 0.19), (0.02, 0.40, 0.17), ((-0.03, 0.61), (0.16, 0.61), 0.083), reach=(0.56, 1.32)),
    "owl": Build(1.0, (0.0, 0.84, 0.23), (0.0, 0.47, 0.29), ((-0.095, 0.66), (0.155, 0.66), 0.125), reach=(0.85, 1.36), shadow=0.36),
    "frog": Build(
        1.22,
        (0.03, 0.66, 0.20),
        (0.0, 0.30, 0.36),
        ((-0.16, 0.57), (0.22, 0.57), 0.125),
        reach=(0.78, 1.22),
        shadow=0.44,
        half_width=0.46,
        top=0.70,
    ),
    "robot": Build(1.0, (0.01, 0.86, 0.25), (0.0, 0.51, 0.20), ((-0.04, 0.71), (0.13, 0.71), 0.082), reach=(0.74, 1.50)),
    "ghost": Build(1.02, (0.0, 0.90, 0.23), (0.0, 0.42, 0.30), ((-0.05, 0.68), (0.16, 0.68), 0.10), reach=(0.6, 1.28), hover=0.02),
    "fish": Build(
        1.08,
        (0.16, 0.67, 0.19),
        (0.10, 0.30, 0.22),
        ((0.20, 0.53), (0.36, 0.53), 0.105),
        reach=(0.82, 1.1),
        hover=0.02,
        shadow=0.34,
        half_width=0.46,
        top=0.85,
    ),
}

BELOW = 0.20
"""How far an actor may reach below its feet, with outlines and leaning."""

ACCESSORY_COLOURS = ((0.15, 0.14, 0.18), (0.42, 0.26, 0.16), (0.12, 0.19, 0.42), (0.45, 0.10, 0.20))


def wear_hat(figure: Figure, build: Build, colour: Tensor, tilt: Tensor) -> None:
    brim_x, brim_y, half = build.hat
    x, y = turned(figure.x, figure.y, brim_x, brim_y, 0.22 * tilt)
    figure.body(box(x, y, 0.0, 0.13, 0.68 * half, 0.14, 0.03), colour)
    figure.painter.fill(box(x, y, 0.0, 0.05, 0.68 * half, 0.03), figure.tone(0.93, 0.90, 0.82))
    figure.body(box(x, y, 0.0, 0.0, 1.25 * half, 0.035, 0.03), colour)


def wear_scarf(figure: Figure, build: Build, colour: Tensor, tilt: Tensor) -> None:
    neck_x, neck_y, half = build.scarf
    end = neck_x - 0.55 * half + 0.10 * tilt
    figure.body(capsule(figure.x, figure.y, (neck_x - 0.5 * half, neck_y - 0.02), (end, neck_y - 0.22), 0.05), colour)
    figure.body(capsule(figure.x, figure.y, (neck_x - 0.85 * half, neck_y), (neck_x + 0.85 * half, neck_y), 0.055), colour)
    stripe = torch.sin(34.0 * figure.x) * 0.03
    band = capsule(figure.x, figure.y, (neck_x - 0.85 * half, neck_y), (neck_x + 0.85 * half, neck_y), 0.045)
    figure.painter.fill(torch.maximum(band, stripe), figure.tone(0.93, 0.90, 0.82))


def wear_glasses(figure: Figure, build: Build, colour: Tensor, tilt: Tensor) -> None:
    left, right, radius = build.glasses
    x, y = figure.x - figure.gaze, figure.y - 0.012 * tilt
    rings = union(circle(x, y, *left, radius).abs(), circle(x, y, *right, radius).abs())
    bridge = capsule(x, y, (left[0] + radius, left[1]), (right[0] - radius, right[1]), 0.0)
    lenses = union(circle(x, y, *left, radius), circle(x, y, *right, radius))
    figure.painter.fill(lenses, figure.tone(0.75, 0.92, 1.0), 0.35 * figure.face)
    # The pale edge keeps the rims in sight on the robot's dark screen.
    figure.painter.fill(rings - 0.040, figure.tone(0.95, 0.93, 0.86), figure.face)
    figure.painter.fill(union(rings, bridge) - 0.022, colour * 0.6, figure.face)


WEAR: dict[str, Callable[[Figure, Build, Tensor, Tensor], None]] = {"hat": wear_hat, "scarf": wear_scarf, "glasses": wear_glasses}


def dream(figure: Figure) -> None:
    """The letter that rises from a sleeper; drawn for all and shown for those asleep."""
    rise = figure.sigh
    # Mirrored actors would write it mirrored.
    x, y = (figure.x - 0.34 - 0.06 * rise) * figure.facing, figure.y - 0.92 - 0.30 * rise
    half = 0.075
    strokes = union(
        capsule(x, y, (-half, half), (half, half), 0.018),
        capsule(x, y, (half, half), (-half, -half), 0.018),
        capsule(x, y, (-half, -half), (half, -half), 0.018),
    )
    shown = figure.asleep * (1.0 - (2.0 * rise - 1.0) ** 4)
    for width, colour in ((0.03, figure.tone(0.10, 0.10, 0.2)), (0.0, figure.tone(1.0, 1.0, 1.0))):
        mask = figure.painter.mask(strokes - width) * shown
        figure.painter.blend(mask, colour)
        figure.painter.cover = torch.maximum(figure.painter.cover, mask)
