"""Films that nobody generated: cut together from FFmpeg's own moving pictures, with every cut, dissolve and flash at a known place.

    python benchmarks/foreign_footage.py --films /tmp/foreign --out benchmarks/results/foreign.json

Needs no files and no network: the sources are filters of the libraries that PyAV carries. `PLANS` is the set, over several rates, sizes and
codecs; the tests use it, too. The script writes it and says which cuts are found, and what becomes of each metric when a film is encoded
again, played at twice the rate, slowed down, frozen, trimmed or darkened. `mask2dit evaluate /tmp/foreign` then shows it as a report.
"""

import argparse
import datetime
import json
import os
import platform
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import accumulate, chain
from pathlib import Path
from typing import Any

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


# What is measured of them

Change = Callable[[NDArray[np.uint8]], NDArray[np.uint8]]

CHANGES: dict[str, tuple[Change, int, dict[str, Any]]] = {
    "as it was": (lambda frames: frames, 1, {}),
    "H.264, CRF 23": (lambda frames: frames, 1, {"crf": "23"}),
    "H.264, CRF 35": (lambda frames: frames, 1, {"crf": "35"}),
    "MPEG-4": (lambda frames: frames, 1, {"codec": "mpeg4"}),
    "motion JPEG": (lambda frames: frames, 1, {"codec": "mjpeg"}),
    "twice the rate": (lambda frames: frames.repeat(2, axis=0), 2, {"faster": 2}),
    "slowed down by two": (lambda frames: frames.repeat(2, axis=0), 2, {}),
    "frozen": (lambda frames: frames[np.arange(len(frames)) // 24 * 24], 1, {}),
    "trimmed by 5 frames": (lambda frames: frames[5:], 1, {}),
    "growing dark": (lambda frames: (frames * np.linspace(1, 0.3, len(frames))[:, None, None, None]).astype(np.uint8), 1, {}),
}
"""What is done to a film: its frames, by how much its list of cuts grows, and how it is written."""

TRIED = Plan("tried", tuple(Part(source, 24) for source in ("testsrc2", "mandelbrot", "life", "gradients")), Fraction(24))
SHOWN = ("sca", "transition-deviation", "transition-confidence", "dynamic-degree", "colour-drift", "contrast-drift")


def cuts_found(folder: Path) -> list[dict[str, Any]]:
    """For every film of the set: hard cuts found, missed, and what else was taken for a cut."""
    from mask2dit.cuts import detect_cuts
    from mask2dit.video_files import open_video

    rows = []
    for plan in PLANS:
        with open_video(write_film(plan, folder)) as video:
            found = detect_cuts(video.frames())
        hard = set(plan.hard_cuts)
        dissolves, flashes = (sum(map(count, plan.parts)) for count in (lambda part: part.dissolve > 0, lambda part: len(part.flashes)))
        size = f"{plan.size[1]} × {plan.size[0]}"
        row = {"film": plan.name, "encoder": plan.codec, "size": size, "fps": float(plan.fps), "hard_cuts": len(hard)}
        row |= {"found": len(hard & set(found)), "others": sorted(set(found) - hard), "dissolves": dissolves, "flashes": flashes}
        rows.append(row)
    return rows


def values_after(folder: Path) -> dict[str, dict[str, float]]:
    """For every change of one film: the metrics that need no network."""
    from mask2dit.cut_lists import CutList
    from mask2dit.evaluation.facts import FilmFacts
    from mask2dit.evaluation.films import FilmSource
    from mask2dit.evaluation.looking import look_at
    from mask2dit.evaluation.metrics import METRICS
    from mask2dit.video_files import read_video

    whole = read_video(write_film(TRIED, folder))
    values = {}
    for name, (change, longer, options) in CHANGES.items():
        how = dict(options)
        codec, faster = how.pop("codec", "libx264" if how.get("crf") else "ffv1"), how.pop("faster", 1)
        path = folder / "changed" / f"{len(values)}.{'mkv' if codec != 'mpeg4' else 'avi'}"
        encode(path, change(whole), TRIED.fps * faster, codec, **how)
        cuts = CutList(True, tuple(start * longer for start in TRIED.starts), "plan")
        facts = FilmFacts(name, look_at(FilmSource(name, path, cut_list=cuts), name, lambda scene: None))
        values[name] = {each: METRICS[each].measure(facts, "").value for each in SHOWN}  # type: ignore[union-attr]
    return values


def main() -> None:
    """Write the films, look at them, print two tables, and write JSON if asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--films", type=Path, help="where they are kept; a folder of the moment where left out")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        folder = options.films or Path(place)
        found, after = cuts_found(folder), values_after(Path(place) / "changes")
    print(f"{'film':14}{'encoder':12}{'size':12}{'fps':>7}  hard cuts  found  others  dissolves  flashes")
    for row in found:
        numbers = f"{row['hard_cuts']:9}{row['found']:7}{len(row['others']):8}{row['dissolves']:11}{row['flashes']:9}"
        print(f"{row['film']:14}{row['encoder']:12}{row['size']:12}{row['fps']:7.2f}  {numbers}")
    print(f"\n{'':20}" + "".join(f"{name:>23}" for name in SHOWN))
    for name, values in after.items():
        print(f"{name:20}" + "".join(f"{'–' if value is None else format(value, '.3f'):>23}" for value in values.values()))
    if options.out:
        about = {"platform": platform.platform(), "cores": os.cpu_count(), "av": av.__version__}
        result = {"date": datetime.date.today().isoformat(), "machine": about, "cuts": found, "after": after}
        options.out.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
