"""How each action and each camera moves over a scene, as plain numbers. Owns no pixels."""

from __future__ import annotations

import math
from dataclasses import dataclass

WALK_SPAN = 0.4
"""Share of the frame's width that a walk crosses when the actor is alone on stage."""

GROWTH = 1.6
"""Last size over first size of an actor that grows."""

ZOOM = 1.45
"""Last scale over first scale of a camera that zooms in."""

FLIGHT = 0.38
"""How high an actor flies, in frame heights."""

PAN_SPAN = 0.36
"""Way that a panning camera goes, in frame heights."""


@dataclass(frozen=True, slots=True)
class Pose:
    """One actor at one moment; lengths in heights of the actor unless said otherwise."""

    walk: float = 0.0
    """Way from the middle of its walk, as a share of the walk: -0.5..0.5, positive to the right."""
    lift: float = 0.0
    """Height above the ground, in frame heights."""
    scale: float = 1.0
    squash_x: float = 1.0
    squash_y: float = 1.0
    facing: int = 0
    """1 looks right, -1 left, 0 the way that this actor likes to stand."""
    tilt: float = 0.0
    swing: float = 0.0
    flap: float = 0.0
    gaze: float = 0.0
    face: float = 1.0
    """1 where the face is seen, 0 from behind."""
    asleep: float = 0.0
    sigh: float = 0.0
    """How far the letter over a sleeper has risen, 0..1."""


def pose(action: str, share: float, seconds: float) -> Pose:
    """The pose at `share` (0 = first frame, 1 = last) of a scene, `seconds` after its start."""
    if action in ("walks left", "walks right"):
        way = 1 if action == "walks right" else -1
        step = math.sin(2.0 * math.pi * 1.75 * seconds)
        return Pose(walk=way * (share - 0.5), lift=0.02 * abs(step), facing=way, swing=step, gaze=0.05, tilt=-0.05, flap=0.15 * step)
    if action == "jumps":
        lift = 4.0 * share * (1.0 - share)
        ground = max(0.0, 1.0 - 4.0 * lift)
        return Pose(
            lift=0.28 * lift, squash_x=1.0 + 0.09 * ground - 0.05 * lift, squash_y=1.0 - 0.10 * ground + 0.06 * lift, flap=0.9 * lift
        )
    if action == "spins":
        return _spin(2.0 * math.pi * share)
    if action in ("grows", "shrinks"):
        grown = share if action == "grows" else 1.0 - share
        return Pose(scale=0.76 * GROWTH**grown)
    if action == "flies up":
        beat = math.sin(2.0 * math.pi * 2.0 * seconds)
        return Pose(lift=FLIGHT * share * share * (3.0 - 2.0 * share), tilt=0.16, flap=0.75 + 0.6 * beat, swing=0.5)
    if action == "sleeps":
        breath = math.sin(2.0 * math.pi * 0.8 * seconds)
        return Pose(squash_x=1.14 - 0.02 * breath, squash_y=0.66 + 0.035 * breath, asleep=1.0, sigh=0.7 * seconds % 1.0, flap=-0.2)
    raise AssertionError(f"no motion for action {action!r}")


def _spin(angle: float) -> Pose:
    cos, sin = math.cos(angle), math.sin(angle)
    # Never thinner than this: a paper-thin actor would vanish for a frame.
    width = math.sqrt(cos * cos + 0.42**2 * sin * sin)
    return Pose(squash_x=width if cos >= 0.0 else -width, face=min(max(0.5 + 6.0 * cos, 0.0), 1.0), gaze=0.10 * sin)


def camera_view(camera: str, share: float) -> tuple[float, float]:
    """(way to the right in frame heights, zoom) of a camera at `share` of the scene."""
    if camera in ("pans left", "pans right"):
        return PAN_SPAN * (share - 0.5) * (1.0 if camera == "pans right" else -1.0), 1.0
    if camera == "zooms in":
        return 0.0, ZOOM ** (share - 0.45)
    if camera == "zooms out":
        return 0.0, ZOOM ** (0.55 - share)
    return 0.0, 1.0
