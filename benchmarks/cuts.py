"""How well cuts are found: F1 with no frame of tolerance, on films whose cuts are known, each written as a video and read again.

    python benchmarks/cuts.py [--films 40] [--drawn 3] [--out benchmarks/results/cuts.json]

Playhouse films are of validation stories that no value of the detector was chosen on. Drawn films are 480 × 720, three scenes of 49 frames:
overlapping discs, as natural pictures are often modelled, with noise, under a moving camera. PySceneDetect's own detectors, as they come
and with scenes from two frames on, stand beside ours.
"""

import argparse
import json
import os
import platform
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

from mask2dit.cuts import detect_cuts
from mask2dit.playhouse.facts import VALIDATION_SEEDS
from mask2dit.playhouse.footage import footage, plan_footage
from mask2dit.video_files import Frame, open_video, write_video

FIRST_STORY = 500  # of the validation stories; the detector's values were chosen on some before
SPEEDS = {"still": 0.0, "slow pan": 1 / 180, "pan": 1 / 45, "fast pan": 1 / 14}  # widths per frame
KINDS = (*SPEEDS, "zoom", "shaky")

Detect = Callable[[Iterable[Frame]], Sequence[int]]


@dataclass(frozen=True, slots=True)
class Film:
    """Frames as they come, and the cuts that are truly among them."""

    kind: str
    frames: Iterator[Frame]
    cuts: tuple[int, ...]


def drawn_scene(
    rng: np.random.Generator,
    num_frames: int,
    camera: str,
    height: int = 480,
    width: int = 720,
    mean: NDArray[np.float64] | None = None,
    brightness: float = 1.0,
) -> list[Frame]:
    """One scene of overlapping discs; `mean` is its colour (None: drawn), so that two scenes can share one."""
    mean = rng.uniform(50, 200, 3) if mean is None else mean
    margin, step = width // 18, SPEEDS.get(camera, 0.0) * width
    wide = _discs(rng, height + 2 * margin, width + 2 * margin + round(step * num_frames), mean, width)
    frames = []
    for number in range(num_frames):
        jump = np.rint(rng.normal(size=2) * width / 90).astype(int).clip(-margin, margin) if camera == "shaky" else (0, 0)
        top, left = margin + jump[0], margin + jump[1] + round(step * number)
        picture = wide[top : top + height, left : left + width]
        if camera == "zoom":
            shrunk = 1.03**-number
            box = (width * (1 - shrunk) / 2, height * (1 - shrunk) / 2, width * (1 + shrunk) / 2, height * (1 + shrunk) / 2)
            picture = np.asarray(Image.fromarray(picture).resize((width, height), Image.Resampling.BILINEAR, box=box))
        frames.append((picture * brightness + rng.normal(size=(height, width, 1)) * 2).clip(0, 255).astype(np.uint8))
    return frames


def _discs(rng: np.random.Generator, height: int, width: int, mean: NDArray[np.float64], frame_width: int) -> Frame:
    image = Image.new("RGB", (width, height), tuple(mean.astype(int)))
    draw, unit = ImageDraw.Draw(image), frame_width / 90
    for radius in sorted((rng.pareto(1.5, 1500) * unit + unit).clip(unit, 30 * unit), reverse=True):
        colour = (mean + rng.normal() * 45 + rng.normal(size=3) * 22).clip(0, 255).astype(int)
        x, y = rng.uniform(0, width), rng.uniform(0, height)
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), tuple(colour.tolist()))
    return np.asarray(image.filter(ImageFilter.GaussianBlur(unit / 6)))


def playhouse_films(level: str, count: int) -> Iterator[Film]:
    for seed in VALIDATION_SEEDS[FIRST_STORY : FIRST_STORY + count]:
        truth = plan_footage([seed], level)
        yield Film(f"playhouse {level}", (frame for shot in footage(truth) for frame in shot), truth.cuts)


def drawn_films(count: int, num_frames: int = 49) -> Iterator[Film]:
    rng = np.random.default_rng(7)
    cuts = (num_frames, 2 * num_frames)
    for _ in range(count):
        for camera in KINDS:
            yield Film(f"drawn, {camera}", (frame for _ in range(3) for frame in drawn_scene(rng, num_frames, camera)), cuts)
        for name, brightness in (("same colours", 1.0), ("same colours, dark", 0.25)):
            mean = rng.uniform(60, 190, 3)
            scenes = [drawn_scene(rng, num_frames, "slow pan", mean=mean, brightness=brightness) for _ in range(3)]
            yield Film(f"drawn, {name}", (frame for scene in scenes for frame in scene), cuts)
        yield from _without_cuts(rng, num_frames)


def _without_cuts(rng: np.random.Generator, num_frames: int) -> Iterator[Film]:
    middle = num_frames // 2
    for length in (1, 2):
        scene = drawn_scene(rng, num_frames, "slow pan")
        scene[middle : middle + length] = [np.full_like(scene[0], 250)] * length
        yield Film(f"no cut: flash of {length}", iter(scene), ())
    before, after = drawn_scene(rng, num_frames, "slow pan"), drawn_scene(rng, num_frames, "slow pan")
    shares = np.clip((np.arange(num_frames) - middle) / 8, 0, 1)
    mixed = ((a * (1 - share) + b * share).astype(np.uint8) for a, b, share in zip(before, after, shares, strict=True))
    yield Film("no cut: dissolve over 8", mixed, ())
    yield Film("no cut: grey, tint sways", iter(grey_scene(rng, num_frames)), ())


def grey_scene(rng: np.random.Generator, num_frames: int, height: int = 480, width: int = 720) -> list[Frame]:
    """Grey fog, its tint swaying by two levels: hue is everything or nothing there."""
    still = 150 + rng.normal(size=(height, width, 1)) * 3
    waves = np.sin(np.arange(num_frames)[:, None] * [0.3, 0.23, 0.4] + rng.uniform(0, 6, 3)) * 2
    return [(still + wave).clip(0, 255).astype(np.uint8) for wave in waves]


def as_it_comes(name: str, **settings: Any) -> Detect:
    """One of PySceneDetect's detectors on pictures as its own program makes them: at most 256 wide, blue first."""
    import scenedetect

    def detect(frames: Iterable[Frame]) -> list[int]:
        detector = getattr(scenedetect, name)(**settings)
        found = []
        for number, frame in enumerate(frames):
            image = Image.fromarray(frame)
            if image.width > 256:
                image = image.resize((256, round(image.height * 256 / image.width)), Image.Resampling.BILINEAR)
            time = scenedetect.FrameTimecode(number, fps=8.0)
            found += detector.process_frame(time, np.ascontiguousarray(np.asarray(image)[:, :, ::-1]))
        return [cut.frame_num for cut in found]

    return detect


DETECTORS: dict[str, Detect] = {
    "ours": detect_cuts,
    "adaptive": as_it_comes("AdaptiveDetector"),
    "adaptive, 2": as_it_comes("AdaptiveDetector", min_scene_len=2),
    "content, 2": as_it_comes("ContentDetector", min_scene_len=2),
}


@dataclass
class Score:
    """Cuts found, missed and made up, over films."""

    hits: int = 0
    missed: int = 0
    extra: int = 0

    def add(self, truth: Sequence[int], found: Sequence[int]) -> None:
        self.hits += len({*truth} & {*found})
        self.missed += len({*truth} - {*found})
        self.extra += len({*found} - {*truth})

    @property
    def f1(self) -> float | None:
        """None where no cut is true."""
        return 2 * self.hits / (2 * self.hits + self.missed + self.extra) if self.hits + self.missed else None


def measure(films: Iterable[Film], detectors: dict[str, Detect]) -> dict[str, dict[str, Score]]:
    """Scores by kind of film and detector. Every film becomes an H.264 file first."""
    scores: dict[str, dict[str, Score]] = {}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "film.mp4"
        for film in films:
            write_video(path, film.frames, 8)
            for name, detect in detectors.items():
                with open_video(path) as opened:
                    found = detect(opened.frames())
                scores.setdefault(film.kind, {}).setdefault(name, Score()).add(film.cuts, found)
            sys.stderr.write(f"\r{film.kind:30}")
    sys.stderr.write("\r" + " " * 30 + "\r")
    return scores


def machine() -> dict[str, Any]:
    return {"platform": platform.platform(), "cores": os.cpu_count(), "python": platform.python_version()}


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--films", type=int, default=40, help="playhouse films of each level")
    parser.add_argument("--drawn", type=int, default=3, help="drawn films of each kind")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args(arguments)

    def films() -> Iterator[Film]:
        for level in "ABC":
            yield from playhouse_films(level, options.films)
        yield from drawn_films(options.drawn)

    scores = measure(films(), DETECTORS)
    print(f"{'F1 (missed, unwanted)':26}" + "".join(f"{name:>20}" for name in DETECTORS))
    for kind, row in scores.items():
        cells = (("" if score.f1 is None else f"{score.f1:.3f} ") + f"({score.missed}, {score.extra})" for score in row.values())
        print(f"{kind:26}" + "".join(f"{cell:>20}" for cell in cells))
    if options.out is not None:
        found = {kind: {name: vars(score) | {"f1": score.f1} for name, score in row.items()} for kind, row in scores.items()}
        options.out.write_text(json.dumps({"machine": machine(), "scores": found}, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
