"""Draw scenes of stories: places, actors, weather and camera put together, on any device and at any size.

Deterministic: the same story and scene give the same frames, alone or in a batch. The shapes are in `actors` and
`places`, the movements in `motion`, who stands where in `staging`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from mask2dit.errors import InputError
from mask2dit.playhouse import actors, places
from mask2dit.playhouse.actors import ACCESSORY_COLOURS, BELOW, BUILDS, WEAR, Figure, dream
from mask2dit.playhouse.facts import LEVELS, LIGHTS, Stage, Story
from mask2dit.playhouse.motion import Pose, camera_view
from mask2dit.playhouse.places import ACTOR_LIGHT, TINT, Scenery
from mask2dit.playhouse.shapes import Painter, capsule, ellipse, noise_of_cells
from mask2dit.playhouse.staging import Placement, place_actor, share_of

COLOUR_VALUES = {
    "red": (0.88, 0.15, 0.17),
    "orange": (1.0, 0.54, 0.08),
    "yellow": (1.0, 0.90, 0.22),
    "green": (0.20, 0.72, 0.28),
    "blue": (0.15, 0.46, 0.95),
    "purple": (0.54, 0.20, 0.76),
    "pink": (1.0, 0.58, 0.78),
    "white": (0.97, 0.97, 0.97),
}

OUTLINE = 0.016
"""Width of an outline in frame heights: one pixel at the smallest level."""


@torch.no_grad()
def render_scenes(
    scenes: Sequence[tuple[Story, int]],
    *,
    num_frames: int | None = None,
    height: int | None = None,
    width: int | None = None,
    device: str | torch.device = "cpu",
) -> Tensor:
    """Frames [B, T, Y, X, 3] in 0..1 of scenes given as (story, index from 0); a size left out is the level's own."""
    if not scenes:
        raise InputError("there is nothing to render: got no scenes, expected at least one (story, index)")
    level = LEVELS[scenes[0][0].level]
    frames, y_size, x_size = num_frames or level.num_frames, height or level.height, width or level.width
    stages = [story.stages[index] for story, index in scenes]
    canvas = torch.empty(len(scenes), frames, y_size, x_size, 3, device=device)
    _draw_places(canvas, scenes, stages)
    _draw_haze(canvas, stages)
    placements = [
        [place_actor(story, stage, role, frame, frames, x_size / y_size, number * frames) for frame in range(frames)]
        for number, ((story, _), stage) in enumerate(zip(scenes, stages, strict=True))
        for role in stage.roles
    ]
    _draw_actors(canvas.flatten(0, 1), placements, [position for stage in stages for position in range(len(stage.roles))])
    _draw_weather(canvas, scenes, stages, level.fps)
    return canvas


def pixel_grid(height: int, width: int, device: str | torch.device) -> tuple[Tensor, Tensor]:
    """Coordinates of pixel middles, x [X] and y [Y], in frame heights from the middle, y up."""
    x = (torch.arange(width, device=device, dtype=torch.float32) + 0.5 - width / 2.0) / height
    y = 0.5 - (torch.arange(height, device=device, dtype=torch.float32) + 0.5) / height
    return x, y


def _draw_places(canvas: Tensor, scenes: Sequence[tuple[Story, int]], stages: Sequence[Stage]) -> None:
    """Fill the canvas with backgrounds, one place at a time; with a still camera once per scene."""
    frames, device = canvas.shape[1], canvas.device
    groups: dict[tuple[str, bool], list[int]] = {}
    for number, stage in enumerate(stages):
        groups.setdefault((stage.place, stage.camera == "still"), []).append(number)
    for (place, still), members in groups.items():
        moments = [(number, frame) for number in members for frame in range(1 if still else frames)]
        views = [camera_view(stages[number].camera, share_of(frame, frames)) for number, frame in moments]
        picture = _draw_place(place, [scenes[number][0] for number, _ in moments], [stages[number] for number, _ in moments], views, canvas)
        picture = picture.view(len(members), -1, *picture.shape[1:])
        canvas[torch.tensor(members, device=device)] = picture.expand(-1, frames, -1, -1, -1)


def _draw_place(
    place: str, stories: Sequence[Story], stages: Sequence[Stage], views: Sequence[tuple[float, float]], canvas: Tensor
) -> Tensor:
    """Pictures [M, Y, X, 3] of one place."""
    height, width, device = canvas.shape[2], canvas.shape[3], canvas.device
    columns, rows = pixel_grid(height, width, device)

    def number(values: list[float]) -> Tensor:
        return torch.tensor(values, device=device).view(-1, 1, 1)

    way, zoom = number([view[0] for view in views]), number([view[1] for view in views])
    x = (columns.view(1, 1, -1) / zoom + way).expand(-1, height, -1)
    y = (rows.view(1, -1, 1) / zoom).expand(-1, -1, width)
    painter = Painter(1.0 / (height * zoom), torch.zeros(1, device=device), torch.zeros(1, device=device))
    scenery = Scenery(
        x=x,
        y=y,
        light=torch.tensor([LIGHTS.index(stage.light) for stage in stages], device=device),
        phase=number([story.hills.phase for story in stories]),
        height=number([story.hills.height for story in stories]),
        frequency=number([story.hills.frequency for story in stories]),
        landmark=number([story.hills.landmark for story in stories]),
        painter=painter,
    )
    places.DRAW[place](scenery)
    return painter.rgb.clamp(0.0, 1.0).permute(0, 2, 3, 1)


def _draw_actors(canvas: Tensor, placements: Sequence[Sequence[Placement]], layers: Sequence[int]) -> None:
    """Draw every actor on the canvas [B*T, Y, X, 3]: by layer, so that later roles cover earlier ones, then by species."""
    groups: dict[tuple[int, str], list[Placement]] = {}
    for layer, shot in zip(layers, placements, strict=True):
        groups.setdefault((layer, shot[0].actor.species), []).extend(shot)
    for (_, species), group in sorted(groups.items()):
        _draw_group(canvas, species, group)


@dataclass(slots=True)
class _Window:
    """A rectangle of pixels per actor: where it lies on the canvas, and its coordinates in frame heights."""

    index: tuple[Tensor, Tensor, Tensor]
    x: Tensor
    y: Tensor


def _window(frames: Tensor, x: Tensor, y: Tensor, half_x: float, half_y: float, height: int, width: int) -> _Window:
    """Rectangles around middles, moved to lie inside the frame: what an actor shows inside the frame is still in them."""
    columns, rows = min(2 * int(half_x * height) + 2, width), min(2 * int(half_y * height) + 2, height)
    left = ((x * height + width / 2.0).round().long() - columns // 2).clamp(0, width - columns)
    top = ((0.5 - y) * height).round().long() - rows // 2
    column = left.view(-1, 1) + torch.arange(columns, device=x.device)
    row = top.clamp(0, height - rows).view(-1, 1) + torch.arange(rows, device=x.device)
    return _Window(
        index=(frames.view(-1, 1, 1), row.unsqueeze(2), column.unsqueeze(1)),
        x=((column.float() + 0.5 - width / 2.0) / height).unsqueeze(1),
        y=(0.5 - (row.float() + 0.5) / height).unsqueeze(2),
    )


def _draw_group(canvas: Tensor, species: str, group: Sequence[Placement]) -> None:
    """Draw all actors of one species, at most one per frame of the canvas."""
    device, build = canvas.device, BUILDS[species]
    height, width = canvas.shape[1:3]
    frames = torch.tensor([placement.frame for placement in group], device=device)

    def number(values: list[float]) -> Tensor:
        return torch.tensor(values, device=device).view(-1, 1, 1)

    x, ground = number([p.x for p in group]), number([p.ground for p in group])
    lift, unit = number([p.lift for p in group]), number([p.size * build.scale for p in group])
    largest = max(p.size * build.scale for p in group)
    shade = _window(frames, x, ground, 0.66 * largest, 0.12 * largest, height, width)
    spread = build.shadow * number([p.actor.proportions.width * abs(p.pose.squash_x) for p in group])
    away = (1.0 - 1.4 * lift).clamp(0.4, 1.0)
    pool = ellipse((shade.x - x) / unit, (shade.y - ground) / unit, 0.0, 0.0, spread * away, 0.07 * away)
    dark = 0.42 * away * (0.5 - pool / 0.06).clamp(0.0, 1.0)
    canvas[shade.index] *= (1.0 - dark).unsqueeze(3)

    half_width, top = build.reach
    middle = ground + lift + 0.5 * (top - BELOW) * unit
    window = _window(frames, x, middle, half_width * largest, 0.5 * (top + BELOW) * largest, height, width)
    figure = _figure(window, x, ground + lift, unit, height, group)
    actors.DRAW[species](figure)
    _dress(figure, species, group)
    if any(p.pose.asleep for p in group):
        dream(figure)
    before = canvas[window.index]
    cover = figure.painter.cover.unsqueeze(3)
    canvas[window.index] = torch.lerp(before, figure.painter.rgb.permute(0, 2, 3, 1).clamp(0.0, 1.0), cover)


def _figure(window: _Window, x: Tensor, foot: Tensor, unit: Tensor, height: int, group: Sequence[Placement]) -> Figure:
    """The actors' own coordinates inside their windows, and their traits and poses as tensors."""
    device = x.device

    def number(values: list[float]) -> Tensor:
        return torch.tensor(values, device=device).view(-1, 1, 1)

    poses = [placement.pose for placement in group]
    posed = {field.name: number([float(getattr(pose, field.name)) for pose in poses]) for field in fields(Pose)}
    across, up = (window.x - x) / unit, (window.y - foot) / unit
    facing = number([placement.facing for placement in group])
    tilt = posed["tilt"] * facing
    # Turned around the belly, so that a tilted actor stays where it is.
    cos, sin = tilt.cos(), tilt.sin()
    up = up - 0.4
    across, up = across * cos + up * sin, up * cos - across * sin + 0.4
    squash_x, squash_y = posed["squash_x"] * facing, posed["squash_y"]
    own_x, own_y = across / squash_x, up / squash_y
    light = torch.tensor([ACTOR_LIGHT[placement.light] for placement in group], device=device).view(-1, 3, 1, 1)
    colour = torch.tensor([COLOUR_VALUES[placement.actor.colour] for placement in group], device=device).view(-1, 3, 1, 1)
    # Distances are in squashed units; the smaller squash keeps an edge no softer than a pixel where it matters.
    thin = torch.minimum(squash_x.abs(), squash_y).clamp(min=0.6)
    pixel = 1.0 / (height * unit * thin)
    base = (colour * light).expand(-1, -1, *own_x.shape[1:])
    return Figure(
        x=own_x,
        y=own_y,
        lit=0.80 + 0.26 * own_y.clamp(0.0, 1.0) + 0.10 * own_x.clamp(-0.5, 0.5),
        colour=colour * light,
        light=light,
        width=number([p.actor.proportions.width for p in group]),
        head=number([p.actor.proportions.head for p in group]),
        ears=number([p.actor.proportions.ears for p in group]),
        swing=posed["swing"],
        flap=posed["flap"],
        gaze=posed["gaze"],
        face=posed["face"],
        asleep=posed["asleep"],
        sigh=posed["sigh"],
        facing=facing,
        outline_width=OUTLINE / unit,
        painter=Painter(pixel, base, torch.zeros_like(own_x)),
    )


def _dress(figure: Figure, species: str, group: Sequence[Placement]) -> None:
    """Put on what each actor wears; the others of the group are left as they are."""
    whole = figure.painter
    for accessory, wear in WEAR.items():
        chosen = [number for number, placement in enumerate(group) if placement.actor.accessory == accessory]
        if not chosen:
            continue
        rows = torch.tensor(chosen, device=figure.x.device)
        part = Figure(
            **{field.name: getattr(figure, field.name)[rows] for field in fields(Figure) if field.name != "painter"},
            painter=Painter(whole.pixel[rows], whole.rgb[rows], whole.cover[rows]),
        )
        worn = [group[number].actor for number in chosen]
        colour = torch.tensor([ACCESSORY_COLOURS[actor.accessory_colour] for actor in worn], device=rows.device).view(-1, 3, 1, 1)
        tilt = torch.tensor([actor.accessory_tilt for actor in worn], device=rows.device).view(-1, 1, 1)
        wear(part, BUILDS[species], colour * part.light, tilt)
        whole.rgb = whole.rgb.clone()
        whole.rgb[rows], whole.cover[rows] = part.painter.rgb, part.painter.cover


def _draw_haze(canvas: Tensor, stages: Sequence[Stage]) -> None:
    """Grey the places in bad weather, in place; before the actors, whose colours must stay what they are."""
    for number, stage in enumerate(stages):
        if stage.weather != "clear":
            light = torch.tensor(TINT[LIGHTS.index(stage.light)], device=canvas.device)
            veil = torch.tensor([0.56, 0.61, 0.70], device=canvas.device) * light
            canvas[number] = torch.lerp(canvas[number], veil, 0.40 if stage.weather == "rain" else 0.15)


def _draw_weather(canvas: Tensor, scenes: Sequence[tuple[Story, int]], stages: Sequence[Stage], fps: int) -> None:
    """Lay rain or snow over whole frames, in place."""
    frames, height, width = canvas.shape[1:4]
    columns, rows = pixel_grid(height, width, canvas.device)
    x, y = columns.view(1, 1, -1), rows.view(1, -1, 1)
    seconds = torch.arange(frames, device=canvas.device).view(-1, 1, 1) / fps
    for number, stage in enumerate(stages):
        if stage.weather == "clear":
            continue
        falling = _rain if stage.weather == "rain" else _snow
        mask = falling(x, y, seconds, 1.0 / height, scenes[number][0].seed % 997)
        light = torch.tensor(ACTOR_LIGHT[LIGHTS.index(stage.light)], device=canvas.device)
        drop = torch.tensor([0.80, 0.90, 1.0] if stage.weather == "rain" else [1.0, 1.0, 1.0], device=canvas.device) * light
        canvas[number] = torch.lerp(canvas[number], drop, mask.unsqueeze(3))


def _rain(x: Tensor, y: Tensor, seconds: Tensor, pixel: float, salt: int) -> Tensor:
    slanted, fallen = (x - 0.16 * y) * 11.0, (y + 1.1 * seconds) * 3.6
    column = slanted.floor()
    fallen = fallen + 3.0 * noise_of_cells(column, torch.zeros_like(column), salt)
    row = fallen.floor()
    spot = 0.25 + 0.5 * noise_of_cells(column, row, salt + 1)
    drop = capsule((slanted - column - spot) / 11.0, (fallen - row - 0.5) / 3.6, (0.0, -0.05), (0.0, 0.05), 0.004)
    return (0.5 - drop / max(pixel, 0.008)).clamp(0.0, 1.0) * 0.75


def _snow(x: Tensor, y: Tensor, seconds: Tensor, pixel: float, salt: int) -> Tensor:
    mask = torch.zeros(1, device=x.device)
    for layer, (cells, speed, radius) in enumerate(((4.5, 0.30, 0.021), (6.5, 0.20, 0.015))):
        across, fallen = (x + 0.03 * torch.sin(3.0 * y + 2.0 * seconds)) * cells, (y + speed * seconds) * cells
        column, row = across.floor(), fallen.floor()
        spot_x = 0.3 + 0.4 * noise_of_cells(column, row, salt + 2 * layer)
        spot_y = 0.3 + 0.4 * noise_of_cells(column, row, salt + 2 * layer + 1)
        dx, dy = (across - column - spot_x) / cells, (fallen - row - spot_y) / cells
        flake = (dx * dx + dy * dy).sqrt() - radius
        mask = torch.maximum(mask, (0.5 - flake / pixel).clamp(0.0, 1.0))
    return mask * 0.95
