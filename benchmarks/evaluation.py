"""What measuring costs: films per minute by metric, the share of decoding, that features are shared, and memory by the number of films.

    python benchmarks/evaluation.py --rounds 3 --out benchmarks/results/evaluation.json

Films of three scenes of 17 frames at 480 × 720 and eight frames per second, cut together from FFmpeg's own sources; for memory, many of 9
frames a scene at 96 × 144. The networks are the judge and a DINOv2 of the small model's size with random weights: the arithmetic is the
same. Needs Linux (peak memory is read from the kernel).
"""

import argparse
import datetime
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import torch
from film import machine, process_memory
from foreign_footage import Part, Plan, write_film

from mask2dit.evaluation.features import Store
from mask2dit.evaluation.films import FilmSource, find_films
from mask2dit.evaluation.measuring import choose, gather, measure
from mask2dit.evaluation.metrics import METRICS
from mask2dit.evaluation.prompt_sets import PromptSetItem
from mask2dit.extractors import load_extractor
from mask2dit.extractors.base import Extractor
from mask2dit.playhouse.features import JudgeExtractor
from mask2dit.playhouse.judge import load_judge
from mask2dit.storyboard import Storyboard
from mask2dit.video_files import open_video

SOURCES = ("testsrc2", "mandelbrot", "gradients", "life")
COUNTS = (2, 6, 18)
TARGETS = {"peak_memory_growth": 1.1, "all_metrics_over_the_sum_of_each": 0.7, "again_over_first": 0.1}
CAPTIONS = ("a red fox walks right in the meadow", "the fox jumps on the beach at sunset", "the fox sleeps in the forest at night")


class Silent:
    """Progress that nobody sees."""

    def start(self, stage: str, total: int) -> None: ...

    def step(self) -> None: ...

    def done(self) -> None: ...


def make_films(folder: Path, count: int, frames: int = 17, size: tuple[int, int] = (480, 720)) -> Path:
    """Films of three scenes each."""
    for number in range(count):
        sources = [SOURCES[(number + index) % len(SOURCES)] for index in range(3)]
        plan = Plan(f"film-{number:02}", tuple(Part(source, frames) for source in sources), Fraction(8), size)
        if not (folder / f"{plan.name}.mp4").exists():
            write_film(plan, folder)
    return folder


def networks(folder: Path) -> dict[str, Extractor]:
    """DINOv2 of the small model's size with random weights, and the judge."""
    from transformers import Dinov2Config, Dinov2Model

    torch.manual_seed(0)
    if not folder.exists():
        Dinov2Model(Dinov2Config(hidden_size=384, num_attention_heads=6)).save_pretrained(folder)
    return {"dinov2": load_extractor("dinov2", str(folder)), "judge": JudgeExtractor(load_judge())}


def sources(films: Path) -> tuple[FilmSource, ...]:
    """The films of a folder, all with the same captions, in which one fox is in every scene."""
    cast = (frozenset({"fox"}),) * len(CAPTIONS)
    item = PromptSetItem("film", Storyboard.from_captions(CAPTIONS), cast)
    return find_films([films], {path.stem: item for path in films.glob("*.mp4")})


def seconds(films: Path, store: Path, names: Sequence[str], extractors: Mapping[str, Extractor]) -> float:
    """One evaluation of these metrics; FVD is measured against the films themselves."""
    chosen, began = choose(names, extractors), time.perf_counter()
    gathered = gather({"films": sources(films)}, Store(store, extractors), chosen, Silent())
    measure(gathered, chosen, extractors, {}, ("itself", gathered["films"]))
    return time.perf_counter() - began


def decoding_seconds(films: Path) -> float:
    """Only decoding, once."""
    began = time.perf_counter()
    for path in sorted(films.glob("*.mp4")):
        with open_video(path) as video:
            for _ in video.frames():
                pass
    return time.perf_counter() - began


def peak_gib(films: Path, count: int, folder: Path) -> float:
    """Peak memory of a process that measures the first so many films."""
    with tempfile.TemporaryDirectory() as place:
        some = Path(place) / "films"
        some.mkdir()
        for path in sorted(films.iterdir())[: 2 * count]:  # a video and its list of cuts each
            shutil.copy(path, some)
        command = [sys.executable, __file__, "--peak-of", str(some), "--networks", str(folder)]
        return float(json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout))


def main() -> None:
    """Measure, print, and write JSON if asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--films", type=int, default=2, help="films that are timed")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--peak-of", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--networks", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.peak_of:
        seconds(options.peak_of, options.peak_of.parent / "store", tuple(METRICS), networks(options.networks))
        print(process_memory("VmHWM"))
        return
    about = machine(options.threads)
    print(f"{about['cpu']}, {about['cores']} cores, {about['threads']} threads, torch {about['torch']}; median of {options.rounds} rounds")
    with tempfile.TemporaryDirectory() as place:
        found = figures(Path(place), options.films, options.rounds)
    for name, value in found.items():
        target = TARGETS.get(name)
        told = ", ".join(f"{key} {each:.2f}" for key, each in value.items()) if isinstance(value, dict) else f"{value:.3f}"
        print(f"  {name:<36}{told}" + (f"   target ≤ {target:g}: {'met' if value <= target else 'missed'}" if target else ""))
    if options.out:
        result = {"machine": about, "date": datetime.date.today().isoformat(), "rounds": options.rounds, **found, "targets": TARGETS}
        options.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


def figures(place: Path, count: int, rounds: int) -> dict[str, Any]:
    """All that is printed."""
    films, extractors = make_films(place / "films", count), networks(place / "networks")
    times: dict[str, list[float]] = {}
    for round_number in range(rounds):
        for name in (*METRICS, "all", "again", "decoding"):
            store = place / f"store-{round_number}-{'all' if name == 'again' else name}"
            took = (
                decoding_seconds(films)
                if name == "decoding"
                else seconds(films, store, tuple(METRICS) if name in ("all", "again") else [name], extractors)
            )
            times.setdefault(name, []).append(took)
        for store in place.glob(f"store-{round_number}-*"):
            shutil.rmtree(store)
    median = {name: statistics.median(each) for name, each in times.items()}
    peaks = {number: peak_gib(make_films(place / "many", max(COUNTS), 9, (96, 144)), number, place / "networks") for number in COUNTS}
    return {
        "films_per_minute": {name: 60 * count / median[name] for name in (*METRICS, "all")},
        "decoding_share": {name: median["decoding"] / median[name] for name in (*METRICS, "all")},
        "all_metrics_over_the_sum_of_each": median["all"] / sum(median[name] for name in METRICS),
        "again_over_first": median["again"] / median["all"],
        "peak_memory_gib": {f"{number} films": peak for number, peak in peaks.items()},
        "peak_memory_growth": peaks[COUNTS[-1]] / peaks[COUNTS[0]],
    }


if __name__ == "__main__":
    main()
