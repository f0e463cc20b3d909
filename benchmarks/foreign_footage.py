"""Films that nobody generated: cut together from FFmpeg's own moving pictures, with every cut, dissolve and flash at a known place.

Needs no files and no network: the sources are filters of the libraries that PyAV carries. `write_film` writes one; `PLANS` is the set that
`evaluation.py` and the tests use, over several rates, sizes and codecs.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import accumulate, chain
from pathlib import Path

import av
import av.filter
import numpy as np
from numpy.typing import NDArray

Frame = NDArray[np.uint8]

SOURCES = {
    "testsrc2": "",
    "mandelbrot": ":start_scale=1.5:end_scale=0.6:end_pts=200",
    "life": ":mold=10:ratio=0.25:life_color=#40c060:death_color=#203060:mold_color=#a06020:seed=7",
    "gradients": ":c0=#d04030:c1=#3050c0:c2=#f0d060:seed=3:nb_colors=3:speed=0.02",
    "cellauto": ":rule=110:seed=5:scroll=1",
    "sierpinski": ":type=carpet:seed=11",
    "smptebars": "",
    "rgbtestsrc": "",
    "colorspectrum": "",
    "zoneplate": ":kx2=20:ky2=20:kt=6",
}
"""Filters that make moving pictures by themselves, and their options."""


@dataclass(frozen=True, slots=True)
class Part:
    """One scene: a source, how many frames it has, and how many of them dissolve from the scene before (0: a hard cut).

    `flashes`: frames, counted in the scene, that are white; `noise`: standard deviation of grain, 0 to 255.
    """

    source: str
    num_frames: int
    dissolve: int = 0
    flashes: tuple[int, ...] = ()
    noise: float = 0.0


@dataclass(frozen=True, slots=True)
class Plan:
    """A film: its scenes, rate, size (height, width), and how it is encoded."""

    name: str
    parts: tuple[Part, ...]
    fps: Fraction = Fraction(24)
    size: tuple[int, int] = (180, 320)
    codec: str = "libx264"
    suffix: str = ".mp4"

    @property
    def starts(self) -> tuple[int, ...]:
        """First frames of scenes 2, 3 …; where one dissolves in, its first mixed frame."""
        return tuple(accumulate(part.num_frames for part in self.parts[:-1]))

    @property
    def hard_cuts(self) -> tuple[int, ...]:
        return tuple(start for start, part in zip(self.starts, self.parts[1:], strict=True) if not part.dissolve)

    @property
    def num_frames(self) -> int:
        return sum(part.num_frames for part in self.parts)


def source_frames(name: str, count: int, fps: Fraction, size: tuple[int, int]) -> Iterator[Frame]:
    """The first frames of one of FFmpeg's sources, [Y, X, 3]."""
    height, width = size
    graph = av.filter.Graph()
    source = graph.add(name, f"size={width}x{height}:rate={fps}{SOURCES[name]}")
    convert, sink = graph.add("format", "rgb24"), graph.add("buffersink")
    source.link_to(convert)
    convert.link_to(sink)
    graph.configure()
    for _ in range(count):
        yield graph.pull().to_ndarray(format="rgb24")  # type: ignore[union-attr]


def film_frames(plan: Plan) -> Iterator[Frame]:
    """A whole film, frame by frame; only the scene before is kept for a dissolve."""
    before: list[Frame] = []
    for number, part in enumerate(plan.parts):
        following = plan.parts[number + 1].dissolve if number + 1 < len(plan.parts) else 0
        rng = np.random.default_rng(number)
        tail: list[Frame] = []
        for index, frame in enumerate(source_frames(part.source, part.num_frames + following, plan.fps, plan.size)):
            if index < part.dissolve:
                share = (index + 1) / (part.dissolve + 1)
                frame = (before[index] * (1 - share) + frame * share).astype(np.uint8)
            if part.noise:
                frame = (frame + rng.normal(0, part.noise, frame.shape)).clip(0, 255).astype(np.uint8)
            if index in part.flashes:
                frame = np.full_like(frame, 250)
            if index < part.num_frames:
                yield frame
            else:
                tail.append(frame)
        before = tail


def write_film(plan: Plan, folder: Path) -> Path:
    """Write a plan's film, and the list of where its scenes begin, into a folder."""
    path = folder / f"{plan.name}{plan.suffix}"
    encode(path, film_frames(plan), plan.fps, plan.codec)
    path.with_name(f"{plan.name}.cuts.txt").write_text(" ".join(map(str, plan.starts)) or "none", encoding="utf-8")
    return path


def encode(path: Path, frames: Iterator[Frame] | Sequence[Frame], fps: Fraction, codec: str = "libx264", **options: str) -> None:
    """Write frames with any encoder that PyAV has."""
    path.parent.mkdir(parents=True, exist_ok=True)
    frames = iter(frames)
    first = next(frames)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=fps, options=options)
        stream.height, stream.width = first.shape[:2]
        stream.pix_fmt = {"mjpeg": "yuvj420p", "ffv1": "yuv444p"}.get(codec, "yuv420p")
        stream.bit_rate = 4_000_000
        for frame in chain([first], frames):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode(None))


def _film(name: str, sources: Sequence[str], length: int, **how: object) -> Plan:
    return Plan(name, tuple(Part(source, length) for source in sources), **how)  # type: ignore[arg-type]


PLANS: tuple[Plan, ...] = (
    _film("hard-24", ("testsrc2", "mandelbrot", "gradients", "life"), 48),
    _film("hard-60", ("gradients", "zoneplate", "testsrc2"), 120, fps=Fraction(60)),
    _film("hard-ntsc", ("mandelbrot", "smptebars", "life"), 45, fps=Fraction(30000, 1001), size=(240, 426)),
    _film("hard-12", ("sierpinski", "gradients", "cellauto"), 24, fps=Fraction(12), size=(96, 160)),
    _film("portrait", ("life", "testsrc2", "mandelbrot"), 40, size=(426, 240), fps=Fraction(25)),
    _film("mpeg4", ("testsrc2", "gradients", "mandelbrot"), 40, codec="mpeg4", suffix=".avi"),
    _film("vp9", ("gradients", "life", "testsrc2"), 40, codec="libvpx-vp9", suffix=".webm"),
    _film("lossless", ("mandelbrot", "testsrc2", "smptebars"), 40, codec="ffv1", suffix=".mkv"),
    _film("mjpeg", ("life", "mandelbrot", "gradients"), 40, codec="mjpeg", suffix=".mkv"),
    _film("short-scenes", ("testsrc2", "life", "mandelbrot", "gradients", "smptebars", "sierpinski"), 8),
    Plan("dissolves", (Part("gradients", 48), Part("mandelbrot", 48, dissolve=16), Part("testsrc2", 48, dissolve=24))),
    Plan("flashes", (Part("mandelbrot", 60, flashes=(20, 40)), Part("gradients", 60, flashes=(30,)))),
    Plan("grain", (Part("gradients", 48, noise=18), Part("mandelbrot", 48, noise=18), Part("testsrc2", 48, noise=18))),
    Plan("mixed", (Part("life", 48, flashes=(24,)), Part("gradients", 48), Part("mandelbrot", 48, dissolve=12), Part("testsrc2", 48))),
    _film("one-scene", ("mandelbrot",), 72),
)
