"""What is true in the playhouse: the values a fact may take, stories drawn from a seed, and which seeds serve what.

Owns no pixels and no words: `render` draws a story, `captions` tells it. Needs no torch.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from mask2dit.errors import InputError

SPECIES = ("fox", "bear", "rabbit", "owl", "frog", "robot", "ghost", "fish")
COLOURS = ("red", "orange", "yellow", "green", "blue", "purple", "pink", "white")
ACCESSORIES = ("none", "hat", "scarf", "glasses")
PLACES = ("meadow", "beach", "desert", "snowfield", "city", "forest", "cave", "space")
LIGHTS = ("day", "sunset", "night")
WEATHERS = ("clear", "rain", "snow")
ACTIONS = ("walks left", "walks right", "jumps", "spins", "grows", "shrinks", "flies up", "sleeps")
CAMERAS = ("still", "pans left", "pans right", "zooms in", "zooms out")

VALIDATION_SEEDS = range(10_000, 11_000)
"""Stories for choosing guidance, steps and checkpoints, and for the judge's own accuracy; never trained on."""

HELD_OUT_SEEDS = range(500_000, 500_064)
"""The 64 stories of every published table; nothing is chosen or trained on them."""

LARGE_HELD_OUT_SEEDS = range(500_000, 500_200)
"""`HELD_OUT_SEEDS` and 136 more, for tables made where a GPU is at hand."""

TRAINING_SEEDS = range(1_000_000, 1_000_000_000)
"""Stories to train on; disjoint from all the others."""


@dataclass(frozen=True, slots=True)
class Level:
    """How rich a story may be, and the size at which it is filmed."""

    name: str
    max_actors: int
    accessories: bool
    weathers: bool
    cameras: bool
    num_frames: int
    height: int
    width: int
    fps: int = 8


LEVELS: dict[str, Level] = {
    "A": Level("A", max_actors=1, accessories=False, weathers=False, cameras=False, num_frames=9, height=64, width=96),
    "B": Level("B", max_actors=2, accessories=True, weathers=False, cameras=False, num_frames=17, height=96, width=160),
    "C": Level("C", max_actors=3, accessories=True, weathers=True, cameras=True, num_frames=17, height=96, width=160),
}


@dataclass(frozen=True, slots=True)
class Proportions:
    """Factors around 1 by which one actor differs from the usual build of its species; no caption names them."""

    width: float
    head: float
    ears: float


@dataclass(frozen=True, slots=True)
class Actor:
    """One of the cast. Species, colour and accessory may be named by a caption; the rest never is."""

    species: str
    colour: str
    accessory: str
    size: float
    proportions: Proportions
    accessory_tilt: float
    accessory_colour: int
    faces_right: bool


@dataclass(frozen=True, slots=True)
class Role:
    """What one actor does in one scene; `position` is where, as a fraction of the frame's width from its middle."""

    actor: int
    action: str
    position: float


@dataclass(frozen=True, slots=True)
class Stage:
    """One scene: where, when, under which sky, seen how, and who is on stage (drawn in this order)."""

    place: str
    light: str
    weather: str
    camera: str
    roles: tuple[Role, ...]


@dataclass(frozen=True, slots=True)
class Hills:
    """The lie of the land, the same in every scene of a story; no caption names it."""

    phase: float
    height: float
    frequency: float
    landmark: float


@dataclass(frozen=True, slots=True)
class Story:
    """A cast and its scenes; the same seed, level and number of scenes give the same story for ever."""

    seed: int
    level: str
    actors: tuple[Actor, ...]
    stages: tuple[Stage, ...]
    hills: Hills


def draw_story(seed: int, level: str, num_scenes: int = 3) -> Story:
    """Draw the story of a seed. Asking for more scenes keeps those there were and adds new ones after them."""
    if level not in LEVELS:
        raise InputError(f"level {level!r} does not exist; choose one of {', '.join(LEVELS)}")
    if num_scenes < 1:
        raise InputError(f"a story needs at least one scene, got num_scenes={num_scenes}")
    world = LEVELS[level]
    rng = _generator(seed, level, "story")
    actors = _draw_cast(rng, world)
    places = rng.sample(PLACES, len(PLACES))
    actions = rng.sample(ACTIONS, len(ACTIONS))
    hills = Hills(
        phase=rng.uniform(0.0, 6.283), height=rng.uniform(0.5, 1.5), frequency=rng.uniform(0.8, 1.3), landmark=rng.uniform(-1.0, 1.0)
    )
    stages = tuple(
        _draw_stage(seed, world, len(actors), index, num_scenes, places[index % len(places)], actions[index % len(actions)])
        for index in range(num_scenes)
    )
    return Story(seed=seed, level=level, actors=actors, stages=stages, hills=hills)


def _generator(seed: int, level: str, part: str) -> random.Random:
    # A string is hashed by SHA-512 inside `random`, so it is the same in every process, unlike hash().
    return random.Random(f"playhouse/{level}/{seed}/{part}")


def _draw_cast(rng: random.Random, world: Level) -> tuple[Actor, ...]:
    count = rng.randint(1, world.max_actors)
    species = rng.sample(SPECIES, count)
    colours = rng.sample(COLOURS, count)
    return tuple(_draw_actor(rng, world, *named) for named in zip(species, colours, strict=True))


def _draw_actor(rng: random.Random, world: Level, species: str, colour: str) -> Actor:
    accessory = rng.choice(ACCESSORIES)
    return Actor(
        species=species,
        colour=colour,
        accessory=accessory if world.accessories else "none",
        size=rng.uniform(0.82, 1.18),
        proportions=Proportions(width=rng.uniform(0.86, 1.16), head=rng.uniform(0.88, 1.14), ears=rng.uniform(0.75, 1.25)),
        accessory_tilt=rng.uniform(-1.0, 1.0),
        accessory_colour=rng.randrange(4),
        faces_right=rng.random() < 0.5,
    )


def _draw_stage(seed: int, world: Level, cast: int, index: int, num_scenes: int, place: str, first_action: str) -> Stage:
    rng = _generator(seed, world.name, f"scene {index}")
    on_stage = {actor for actor in range(cast) if rng.random() < 0.6} | {index % cast}
    if index == num_scenes - 1:
        on_stage |= set(range(num_scenes, cast))  # fewer scenes than actors: nobody is left out
    order = rng.sample(sorted(on_stage), len(on_stage))
    actions = [first_action, *rng.sample([action for action in ACTIONS if action != first_action], len(order) - 1)]
    spread = {1: 0.0, 2: 0.46, 3: 0.64}[len(order)]
    jitter = 0.06 if len(order) == 1 else 0.02
    roles = tuple(
        Role(
            actor=actor,
            action=action,
            position=spread * (slot / max(len(order) - 1, 1) - 0.5 if len(order) > 1 else 0.0) + rng.uniform(-jitter, jitter),
        )
        for slot, (actor, action) in enumerate(zip(order, actions, strict=True))
    )
    light, weather, camera = rng.choice(LIGHTS), rng.choice(WEATHERS), rng.choice(CAMERAS)
    return Stage(
        place=place, light=light, weather=weather if world.weathers else "clear", camera=camera if world.cameras else "still", roles=roles
    )
