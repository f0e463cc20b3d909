"""Footage for curation with its truth: where every shot begins and how, what was planted in it, and which shots belong together.

Two kinds: `PLAYHOUSE`, stories of the playhouse in long videos of many rates, sizes and encoders, and `FOREIGN`, films cut together from
FFmpeg's own sources, in which the shots of one story have the same palette. The truth follows from a reel's name and length alone and comes
first; filming it goes frame by frame, and never holds more than a shot. `curation_truth.py` curates it and compares.
"""

import json
import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from fractions import Fraction
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import av.filter
import numpy as np
from foreign_footage import Frame, encode
from PIL import Image, ImageDraw, ImageFont

from mask2dit.playhouse.facts import TRAINING_SEEDS, draw_story

FIRST_SEED = 900_000_000
"""Stories of reel n have the seeds from FIRST_SEED + 1000 n on: of TRAINING_SEEDS, so neither held out nor for validation."""

SHOT_SECONDS = (1.0, 4.0)
JOINS = {"cut": 0.80, "dissolve": 0.13, "fade": 0.07}
JOIN_SECONDS = {"dissolve": (0.25, 1.0), "fade": (0.625, 2.5)}
FADE_LEG = 0.4  # of a fade: going dark, and as much coming out of it; between them it is black
FLASH_SHARE = 0.1  # of the shots
FLASH = 250  # of 255 levels


@dataclass(frozen=True, slots=True)
class Reel:
    """One video: `minutes` of it in the full run; `frames`: what is done to each of its frames, drawn with a generator of its own."""

    name: str
    fps: Fraction
    size: tuple[int, int]
    minutes: float
    codec: str = "libx264"
    suffix: str = ".mp4"
    options: Mapping[str, str] = field(default_factory=dict)
    grain: float = 0.0
    bars: float = 0.0


PLAYHOUSE = (
    # Keyframes at an even pace: borders between pieces fall into shots.
    Reel("pieces-8", Fraction(8), (96, 144), 11.0, options={"crf": "20", "x264-params": "keyint=30:scenecut=0"}),
    Reel("cuts-24", Fraction(24), (128, 192), 7.0, options={"crf": "23"}),
    Reel("mpeg4-12", Fraction(12), (120, 180), 2.0, "mpeg4", ".avi"),
    Reel("vp9-25", Fraction(25), (144, 256), 2.0, "libvpx-vp9", ".webm", {"deadline": "realtime", "cpu-used": "8"}),
    Reel("ntsc-30", Fraction(30000, 1001), (144, 216), 2.0, options={"crf": "32"}),
    Reel("fast-60", Fraction(60), (96, 144), 1.5, options={"crf": "26"}),
    Reel("mjpeg-15", Fraction(15), (160, 240), 1.5, "mjpeg", ".mkv"),
    Reel("grain-25", Fraction(25), (128, 192), 1.5, options={"crf": "20"}, grain=8.0),
    Reel("mpeg2-25", Fraction(25), (180, 320), 1.0, "mpeg2video", ".mpg"),
    Reel("hevc-50", Fraction(50), (96, 160), 0.5, "libx265", ".mp4", {"x265-params": "log-level=error", "preset": "fast"}),
)


@dataclass(frozen=True, slots=True)
class Take:
    """A shot before it is filmed. `frames`: gives so many of its frames; `num_frames`: those that are shown whole.

    `join`: how it begins: at a "cut", or out of the shot before by a "dissolve" or, through black, a "fade" of `join_frames`. `flashes`:
    white frames, counted in the shown ones. `planted`: why a check should drop it, or "".
    """

    story: int
    num_frames: int
    frames: Callable[[int], Iterable[Frame]]
    join: str = "cut"
    join_frames: int = 0
    flashes: tuple[int, ...] = ()
    facts: Mapping[str, str] = field(default_factory=dict)
    planted: str = ""

    @property
    def num_leading(self) -> int:
        """Its own frames that are seen before its first whole one."""
        return self.join_frames if self.join == "dissolve" else int(FADE_LEG * self.join_frames)

    @property
    def num_lent(self) -> int:
        """Frames of the shot before that are seen after its last whole one."""
        return self.num_leading


@dataclass(frozen=True, slots=True)
class TrueShot:
    """Frames [start, stop) that show one shot alone."""

    story: int
    start: int
    stop: int
    facts: Mapping[str, str]
    planted: str = ""


@dataclass(frozen=True, slots=True)
class Truth:
    """What a perfect curation would find in a video. A cut is the first frame after it; spans are (first mixed, first clean) frames."""

    video: str
    fps: float
    num_frames: int
    cuts: tuple[int, ...]
    dissolves: tuple[tuple[int, int], ...]
    fades: tuple[tuple[int, int], ...]
    flashes: tuple[int, ...]
    shots: tuple[TrueShot, ...]

    @property
    def spans(self) -> tuple[tuple[int, int], ...]:
        return tuple(sorted((*self.dissolves, *self.fades)))


def truth_of(reel: Reel, takes: Sequence[Take]) -> Truth:
    cuts: list[int] = []
    spans: dict[str, list[tuple[int, int]]] = {"dissolve": [], "fade": []}
    flashes: list[int] = []
    shots = []
    frame = 0
    for number, take in enumerate(takes):
        start = frame + take.join_frames
        if take.join_frames:
            spans[take.join].append((frame, start))
        elif number:
            cuts.append(start)
        flashes += [start + flash for flash in take.flashes]
        frame = start + take.num_frames
        shots.append(TrueShot(take.story, start, frame, dict(take.facts), take.planted))
    video, gone = f"{reel.name}{reel.suffix}", {kind: tuple(each) for kind, each in spans.items()}
    return Truth(video, float(reel.fps), frame, tuple(cuts), gone["dissolve"], gone["fade"], tuple(flashes), tuple(shots))


def filmed(reel: Reel, takes: Sequence[Take]) -> Iterator[Frame]:
    """The video, frame by frame."""
    rng = np.random.default_rng(len(takes))
    for frame in _joined(takes):
        if reel.bars:
            rows = round(reel.bars * len(frame))
            frame = frame.copy()
            frame[:rows] = frame[-rows:] = 0
        if reel.grain:
            frame = (frame + rng.normal(0, reel.grain, frame.shape)).clip(0, 255).astype(np.uint8)
        yield frame


def _joined(takes: Sequence[Take]) -> Iterator[Frame]:
    before: list[Frame] = []
    for take, following in pairwise((*takes, None)):
        lent = following.num_lent if following is not None and following.join_frames else 0
        leading = take.num_leading if take.join_frames else 0
        frames = iter(take.frames(leading + take.num_frames + lent))
        lead = [next(frames) for _ in range(leading)]
        yield from _crossed(take, before, lead)
        for index in range(take.num_frames):
            frame = next(frames)
            yield np.full_like(frame, FLASH) if index in take.flashes else frame
        before = list(frames)


def _crossed(take: Take, before: Sequence[Frame], after: Sequence[Frame]) -> Iterator[Frame]:
    """What lies between two shots: their mixtures, or the one going dark, black, and the other coming out of it."""
    if take.join == "dissolve":
        for number, (one, other) in enumerate(zip(before, after, strict=True), 1):
            share = number / (len(after) + 1)
            yield (one * (1 - share) + other * share).astype(np.uint8)
    elif take.join == "fade":
        yield from ((frame * (1 - number / len(before))).astype(np.uint8) for number, frame in enumerate(before, 1))
        yield from (np.zeros_like(before[0]) for _ in range(take.join_frames - len(before) - len(after)))
        yield from ((frame * (number / len(after))).astype(np.uint8) for number, frame in enumerate(after))


def write_reel(reel: Reel, takes: Sequence[Take], folder: Path) -> Truth:
    """Write a video and, as `<video>.json`, its truth; one whose truth is there already is left as it is."""
    truth = truth_of(reel, takes)
    path = folder / truth.video
    beside, text = Path(f"{path}.json"), json.dumps(asdict(truth), indent=1) + "\n"
    if not (beside.exists() and beside.read_text(encoding="utf-8") == text):
        encode(path, filmed(reel, takes), reel.fps, reel.codec, **reel.options)
        beside.write_text(text, encoding="utf-8")
    return truth


# The playhouse


def playhouse_takes(reel: Reel, minutes: float) -> list[Take]:
    """Stories of three scenes each until the time is full."""
    rng = random.Random(f"curation/{reel.name}")
    first = FIRST_SEED + 1000 * PLAYHOUSE.index(reel)
    takes: list[Take] = []
    total = 0
    while total < minutes * 60 * reel.fps:
        seed = first + len(takes) // 3
        assert seed in TRAINING_SEEDS
        for scene in range(3):
            take = _playhouse_take(rng, reel, seed, scene, is_first=not takes)
            takes.append(take)
            total += take.join_frames + take.num_frames
    return takes


def _playhouse_take(rng: random.Random, reel: Reel, seed: int, scene: int, *, is_first: bool) -> Take:
    frames = _frames(rng, SHOT_SECONDS, reel.fps)
    join = rng.choices(list(JOINS), JOINS.values())[0]
    join_frames = 0 if join == "cut" or is_first else max(2, _frames(rng, JOIN_SECONDS[join], reel.fps))
    flash = rng.random() < FLASH_SHARE
    story = draw_story(seed, "A", 3)
    actor, stage = story.actors[0], story.stages[scene]
    facts = {"species": actor.species, "colour": actor.colour, "action": stage.roles[0].action, "place": stage.place, "light": stage.light}
    at = round(frames * rng.uniform(0.3, 0.7))
    shown = partial(_rendered, seed, scene, reel.size)
    return Take(seed, frames, shown, join if join_frames else "cut", join_frames, (at,) if flash else (), facts)


def _frames(rng: random.Random, seconds: tuple[float, float], fps: Fraction) -> int:
    return -int(-rng.uniform(*seconds) * fps // 1)


def _rendered(seed: int, scene: int, size: tuple[int, int], count: int) -> Frame:
    import torch

    from mask2dit.playhouse.render import render_scenes

    frames = render_scenes([(draw_story(seed, "A", 3), scene)], num_frames=count, height=size[0], width=size[1])[0]
    pixels: Frame = (frames * 255.0).round().to(torch.uint8).numpy()
    return pixels


# What is foreign to it


@dataclass(frozen=True, slots=True)
class Palette:
    """A story: one of FFmpeg's sources, its options, which are each shot's own where they have a {seed} or a {place}, and what follows."""

    source: str
    options: str
    chain: tuple[tuple[str, str], ...] = ()


_GRADIENTS = "nb_colors=3:speed=0.03:type=circular:seed={seed}"
_LIFE = "mold=10:ratio=0.3:seed={seed}"
_BLUR = (("gblur", "sigma=1.5"),)
PALETTES: dict[str, Palette] = {
    "embers": Palette("gradients", f"c0=#401010:c1=#d04020:c2=#f0c040:{_GRADIENTS}"),
    "moss": Palette("life", f"life_color=#40c060:death_color=#203060:mold_color=#a06020:{_LIFE}", _BLUR),
    "fractal": Palette("mandelbrot", "start_scale=0.5:end_scale=0.05:end_pts=300:start_x={place}"),
    "sea": Palette("gradients", f"c0=#102050:c1=#2070c0:c2=#a0e0e0:{_GRADIENTS}"),
    "rust": Palette("life", f"life_color=#d08040:death_color=#301810:mold_color=#703020:{_LIFE}", _BLUR),
    "signal": Palette("testsrc2", ""),
    "fog": Palette("perlin", "octaves=3:xscale=3:yscale=2:tscale=0.5:random_mode=seed:seed={seed}"),
    "violet": Palette("gradients", f"c0=#301040:c1=#9040b0:c2=#f0a0d0:{_GRADIENTS}"),
}
PLACES = ("-0.743:start_y=-0.131", "-0.16:start_y=-1.04", "0.28:start_y=-0.01", "-1.25:start_y=-0.03")
TINTS = ("h={0}", "h={0}+6:b=0.25", "h={0}-6:b=-0.25", "h={0}:s=0.85")
TURNS = (("null", ""), ("hflip", ""), ("crop", "iw/2:ih/2:iw/4:ih/4"), ("vflip", ""))
"""What each shot of a story goes through, so that no two are the same picture. Every reel has a hue of its own, so that none is a copy."""

FOREIGN = (
    Reel("hard-24", Fraction(24), (180, 320), 0),
    Reel("dissolves-25", Fraction(25), (180, 320), 0, "mpeg4", ".avi"),
    Reel("grain-ntsc", Fraction(30000, 1001), (180, 320), 0, options={"crf": "20"}, grain=12.0),
    Reel("letterbox-24", Fraction(24), (240, 320), 0, bars=0.125),
    Reel("text-25", Fraction(25), (180, 320), 0, "libvpx-vp9", ".webm", {"deadline": "realtime", "cpu-used": "8"}),
    Reel("leftovers-24", Fraction(24), (180, 320), 0, "mjpeg", ".mkv"),
    Reel("slow-12", Fraction(12), (144, 256), 0),
    Reel("fast-60", Fraction(60), (120, 214), 1.5),
)


def foreign_takes(reel: Reel) -> list[Take]:
    """Four stories of four shots, and what this reel plants in them."""
    rng = random.Random(f"curation/foreign/{reel.name}")
    names = rng.sample(list(PALETTES), 4)
    takes = []
    for story, name in enumerate(names):
        for shot in range(4):
            frames = _frames(rng, (2.2, 3.6), reel.fps)
            join = rng.choices(("cut", "dissolve", "fade"), (0.4, 0.4, 0.2))[0] if reel.name == "dissolves-25" and takes else "cut"
            join_frames = 0 if join == "cut" else _frames(rng, JOIN_SECONDS[join], reel.fps)
            shown = partial(_sourced, reel, name, shot)
            takes.append(Take(story, frames, shown, join, join_frames, facts={"palette": name}))
    return _planted(reel, takes)


def _planted(reel: Reel, takes: list[Take]) -> list[Take]:
    """With the faults that are to be found in this reel, and its flashes."""
    if reel.name == "letterbox-24":
        takes[5] = replace(takes[5], frames=partial(_boxed, takes[5].frames), planted="bars")
    elif reel.name == "text-25":
        takes[4:8] = [
            replace(take, frames=partial(_titled, take.frames, f"PART {n}"), planted="text") for n, take in enumerate(takes[4:8], 1)
        ]
    elif reel.name == "leftovers-24":
        takes[2] = replace(takes[2], frames=partial(_held, takes[2].frames), planted="frozen")
        takes[9] = replace(takes[9], flashes=(30,))
        black = Take(-1, 60, partial(_dark, reel.size), planted="black")
        copies = [replace(take, planted="duplicate") for take in takes[12:14]]
        takes = [*takes[:8], black, *takes[8:], *copies]
    return takes


def _sourced(reel: Reel, name: str, shot: int, count: int) -> Iterator[Frame]:
    """The first frames of a palette's shot."""
    palette, (height, width), number = PALETTES[name], reel.size, FOREIGN.index(reel)
    options = palette.options.format(seed=10 * number + shot + 1, place=PLACES[shot])
    graph = av.filter.Graph()
    last = graph.add(palette.source, ":".join(filter(None, (f"size={width}x{height}:rate={reel.fps}", options))))
    turned = (TURNS[shot], ("hue", TINTS[shot].format(4 * number)))
    for each, how in (*turned, ("scale", f"{width}:{height}"), *palette.chain, ("format", "rgb24")):
        following = graph.add(each, how) if how else graph.add(each)
        last.link_to(following)
        last = following
    sink: Any = graph.add("buffersink")
    last.link_to(sink)
    graph.configure()
    for _ in range(count):
        yield sink.pull().to_ndarray(format="rgb24")


def _boxed(frames: Callable[[int], Iterable[Frame]], count: int) -> Iterator[Frame]:
    """A small picture in a black one, as of an old advertisement."""
    for frame in frames(count):
        small = np.zeros_like(frame)
        height, width = frame.shape[0] // 2, frame.shape[1] // 2
        small[height // 2 : height // 2 + height, width // 2 : width // 2 + width] = frame[::2, ::2][:height, :width]
        yield small


def _titled(frames: Callable[[int], Iterable[Frame]], words: str, count: int) -> Iterator[Frame]:
    """With a title and a subtitle burnt in."""
    large, small = ImageFont.load_default(26), ImageFont.load_default(14)
    for frame in frames(count):
        picture = Image.fromarray(frame)
        draw = ImageDraw.Draw(picture)
        height, width = frame.shape[:2]
        draw.text((width / 2, height * 0.4), words, (255, 255, 255), large, anchor="mm", stroke_width=2, stroke_fill=(0, 0, 0))
        said = "and nobody knew why it had gone on so long"
        draw.text((width / 2, height * 0.88), said, (255, 255, 255), small, anchor="mm", stroke_width=1, stroke_fill=(0, 0, 0))
        yield np.asarray(picture)


def _held(frames: Callable[[int], Iterable[Frame]], count: int) -> Iterator[Frame]:
    (first,) = frames(1)
    yield from (first for _ in range(count))


def _dark(size: tuple[int, int], count: int) -> Iterator[Frame]:
    yield from (np.full((*size, 3), 3, np.uint8) for _ in range(count))
