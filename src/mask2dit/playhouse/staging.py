"""Who stands where, how large, in each frame of a scene, and how much of it can be seen. Numbers only, no pixels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mask2dit.errors import InputError
from mask2dit.playhouse.actors import BUILDS
from mask2dit.playhouse.facts import LEVELS, LIGHTS, Actor, Role, Stage, Story
from mask2dit.playhouse.motion import FLIGHT, WALK_SPAN, Pose, camera_view, pose
from mask2dit.playhouse.places import GROUND

ACTOR_HEIGHT = 0.50
"""Height of an actor of size 1 that is alone in its cast, in frame heights."""

CAST_SCALE = {1: 1.0, 2: 0.84, 3: 0.70}
"""Larger casts are drawn smaller; by the cast and not by who is on stage, so that an actor keeps its size."""


@dataclass(frozen=True, slots=True)
class Placement:
    """One actor in one frame, in frame heights and ready to draw."""

    frame: int
    actor: Actor
    pose: Pose
    light: int
    x: float
    ground: float
    lift: float
    size: float
    """Height of the actor before it is squashed."""
    facing: float
    zoom: float


def share_of(frame: int, frames: int) -> float:
    """How far into a scene a frame lies: 0 the first, 1 the last."""
    return frame / max(frames - 1, 1)


def place_actor(story: Story, stage: Stage, role: Role, frame: int, frames: int, aspect: float, first: int = 0) -> Placement:
    """One role at one frame of a scene that has `frames` and is `aspect` times as wide as high; `first` is added to the frame."""
    actor = story.actors[role.actor]
    level = LEVELS[story.level]
    share = share_of(frame, frames)
    moment = pose(role.action, share, frame / level.fps)
    way, zoom = camera_view(stage.camera, share)
    size = actor_height(story, role.actor) * moment.scale
    span = WALK_SPAN if len(stage.roles) == 1 else 0.5 * WALK_SPAN
    x = (role.position + span * moment.walk) * aspect
    build = BUILDS[actor.species]
    # Large actors rise less, so that their heads stay inside the frame.
    room = max(0.84 - 0.95 * size, 0.1)
    lift = moment.lift * min(1.0, room / FLIGHT) + build.hover
    return Placement(
        frame=first + frame,
        actor=actor,
        pose=moment,
        light=LIGHTS.index(stage.light),
        x=(x - way) * zoom,
        ground=GROUND * zoom,
        lift=lift * zoom,
        size=size * zoom,
        facing=float(moment.facing or (1 if actor.faces_right else -1)),
        zoom=zoom,
    )


def actor_height(story: Story, actor: int) -> float:
    """How high an actor stands, in frame heights, before it moves: a trait that no caption names."""
    return ACTOR_HEIGHT * story.actors[actor].size * CAST_SCALE[len(story.actors)]


@dataclass(frozen=True, slots=True)
class RoleVisibility:
    """How much of one role a scene shows, each a share of 0..1 and a mean over the frames."""

    actor: int
    action: str
    body: float
    """Of the actor's box: inside the frame and not behind an actor in front."""
    accessory: float
    """Of what it wears, from this side: glasses are not seen from behind; 1 where it wears nothing."""


def scene_visibility(story: Story, index: int, *, num_frames: int | None = None, aspect: float | None = None) -> tuple[RoleVisibility, ...]:
    """What can be seen of each role of a scene, in the stage's order, from the boxes around the actors.

    Place, light, weather and camera can always be seen. A box overstates what is covered, so low numbers are cautious.
    """
    if not 0 <= index < len(story.stages):
        raise InputError(f"the story has {len(story.stages)} scenes, there is no scene with index {index}")
    level, stage = LEVELS[story.level], story.stages[index]
    frames = num_frames or level.num_frames
    aspect = aspect or level.width / level.height
    shots = [[place_actor(story, stage, role, frame, frames, aspect) for frame in range(frames)] for role in stage.roles]
    result = []
    for number, (role, shot) in enumerate(zip(stage.roles, shots, strict=True)):
        seen = [_seen(placement, [front[frame] for front in shots[number + 1 :]], aspect) for frame, placement in enumerate(shot)]
        wearing = story.actors[role.actor].accessory
        faces = [placement.pose.face if wearing == "glasses" else 1.0 for placement in shot]
        body = sum(seen) / frames
        worn = 1.0 if wearing == "none" else sum(share * face for share, face in zip(seen, faces, strict=True)) / frames
        result.append(RoleVisibility(actor=role.actor, action=role.action, body=body, accessory=worn))
    return tuple(result)


Box = tuple[float, float, float, float]


def box_of(placement: Placement) -> Box:
    """(left, bottom, right, top) of the box around an actor, in frame heights from the middle."""
    build = BUILDS[placement.actor.species]
    unit = placement.size * build.scale
    half = unit * build.half_width * abs(placement.pose.squash_x) * placement.actor.proportions.width
    bottom = placement.ground + placement.lift
    return placement.x - half, bottom, placement.x + half, bottom + unit * build.top * placement.pose.squash_y


def _seen(placement: Placement, in_front: Sequence[Placement], aspect: float) -> float:
    own = box_of(placement)
    inside = _overlap(own, (-0.5 * aspect, -0.5, 0.5 * aspect, 0.5))
    hidden = max((_overlap(own, box_of(other)) for other in in_front), default=0.0)
    area = (own[2] - own[0]) * (own[3] - own[1])
    return max(inside - hidden, 0.0) / area


def _overlap(first: Box, second: Box) -> float:
    across = min(first[2], second[2]) - max(first[0], second[0])
    up = min(first[3], second[3]) - max(first[1], second[1])
    return max(across, 0.0) * max(up, 0.0)
