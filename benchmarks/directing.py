"""What directing costs: the k-th extended scene against the first, memory by length, a remake against the film, saving and checks.

    python benchmarks/directing.py --rounds 5 --out benchmarks/results/directing.json

The built-in model, float32, every figure a ratio of times of this one run (medians over rounds). Memory is that of a process of its own
for each length. Needs Linux (peak memory is read from the kernel).
"""

import argparse
import datetime
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from film import machine, process_memory

SCENES = (
    "a red fox walks right in the meadow",
    "the fox jumps on the beach at sunset",
    "the fox sleeps in the forest at night",
    "the fox spins in the desert",
    "the fox walks left in the city at night",
)
LENGTHS = (3, 6, 12)
EXTENDED = 10
TARGETS = {"extended_ratio": 1.05, "making_memory_growth": 1.05, "command_memory_growth": 1.05, "overhead_share": 0.03}


def main() -> None:
    """Measure, print, and write JSON if asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--steps", type=int, help="denoising steps (the model's)")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--peak-of", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.peak_of:
        print(json.dumps(peak_of(arguments.peak_of, arguments.steps)))
        return
    about = machine(arguments.threads)
    print(
        f"{about['cpu']}, {about['cores']} cores, {about['threads']} threads, torch {about['torch']}; median of {arguments.rounds} rounds"
    )
    found = extension(arguments) | one_scene_again(arguments) | memory(arguments)
    for name, value in found.items():
        target = TARGETS.get(name)
        told = "  ".join(f"{each:.2f}" for each in value) if isinstance(value, list) else f"{value:.3f}"
        print(f"  {name:<34}{told}" + (f"   target ≤ {target:g}: {'met' if value <= target else 'missed'}" if target else ""))
    if arguments.out:
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        result = {
            "machine": about,
            "date": datetime.date.today().isoformat(),
            "rounds": arguments.rounds,
            "steps": arguments.steps,
            **found,
            "targets": TARGETS,
        }
        arguments.out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


def film(pipeline: Any, folder: Path, count: int, steps: int | None, progress: Any = None) -> Any:
    """Make a film of `count` scenes as `mask2dit generate` does."""
    from mask2dit.production import FilmSettings, make_film
    from mask2dit.storyboard import Storyboard

    board = Storyboard.from_captions([SCENES[index % len(SCENES)] for index in range(count)], title="Measured")
    return make_film(pipeline, board, folder, FilmSettings(num_inference_steps=steps), progress=progress)


class StageTimes:
    """Progress that notes how long every stage took, and the most memory that was held before it."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.memory: dict[str, float] = {}

    def start(self, stage: str, total: int) -> None:
        self.memory[stage] = process_memory("VmHWM")
        self._stage, self._began = stage, time.perf_counter()

    def step(self) -> None:
        pass

    def done(self) -> None:
        self.seconds[self._stage] = time.perf_counter() - self._began


def loaded(threads: int) -> Any:
    """The built-in pipeline, warmed up."""
    import torch

    from mask2dit.loading import load_pipeline

    torch.set_num_threads(threads)
    pipeline = load_pipeline()
    with tempfile.TemporaryDirectory() as folder:
        film(pipeline, Path(folder) / "warm", 4, 2)
    return pipeline


def extension(arguments: argparse.Namespace) -> dict[str, Any]:
    """Seconds of denoising of each extended scene, against the first one."""
    pipeline, rounds = loaded(arguments.threads), []
    for _ in range(arguments.rounds):
        with tempfile.TemporaryDirectory() as folder:
            times = StageTimes()
            film(pipeline, Path(folder) / "film", 3 + EXTENDED, arguments.steps, times)
        rounds.append([times.seconds[f"denoising scene {number}"] for number in range(4, 4 + EXTENDED)])
    ratios = [statistics.median(each[k] / each[0] for each in rounds) for k in range(1, EXTENDED)]
    return {"extended_scene_over_first": ratios, "extended_ratio": max(ratios), "extended_ratio_smallest": min(ratios)}


def one_scene_again(arguments: argparse.Namespace) -> dict[str, float]:
    """A remake against the whole film, and what part of the film's time is writing, linking, reading back and checking."""
    from mask2dit.production import Directions, make_film
    from mask2dit.production.directing import open_film, remade

    pipeline, whole, remake, saving, checking = loaded(arguments.threads), [], [], [], []
    for _ in range(arguments.rounds):
        with tempfile.TemporaryDirectory() as place, measured_writes() as spent:
            folder = Path(place) / "film"
            whole.append(timed(lambda folder=folder: film(pipeline, folder, 3, arguments.steps)))
            saving.append(spent["saving"] / whole[-1])
            checking.append(spent["checking"] / whole[-1])
            opened = open_film(folder)
            board, stay = remade(opened, 2), Directions(stay=True)
            again = lambda: make_film(pipeline, board, folder, opened.record.settings, stay)  # noqa: E731, B023
            remake.append(timed(again) / whole[-1])
    return {
        "remake_over_film": statistics.median(remake),
        "saving_share": statistics.median(saving),
        "check_share": statistics.median(checking),
        "overhead_share": statistics.median(a + b for a, b in zip(saving, checking, strict=True)),
    }


def timed(call: Callable[[], Any]) -> float:
    """Seconds of a call."""
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


@contextmanager
def measured_writes() -> Iterator[dict[str, float]]:
    """Seconds spent in everything that the folder does, and in looking for cuts and colours."""
    from mask2dit import cuts
    from mask2dit.production.folder import FilmFolder

    spent = {"saving": 0.0, "checking": 0.0}
    names = ("write_record", "write_latents", "write_state", "read_state", "read_latents", "publish", "withdraw", "tidy", "forget_state")
    places = [(FilmFolder, name, "saving") for name in names] + [(cuts._CutFinder, "add", "checking"), (cuts._SceneLook, "add", "checking")]
    originals = [(owner, name, getattr(owner, name)) for owner, name, _ in places]

    def counted(original: Callable[..., Any], kind: str) -> Callable[..., Any]:
        def call(*given: Any, **options: Any) -> Any:
            began = time.perf_counter()
            try:
                return original(*given, **options)
            finally:
                spent[kind] += time.perf_counter() - began

        return call

    for (owner, name, original), (_, _, kind) in zip(originals, places, strict=True):
        setattr(owner, name, counted(original, kind))
    try:
        yield spent
    finally:
        for owner, name, original in originals:
            setattr(owner, name, original)


def memory(arguments: argparse.Namespace) -> dict[str, Any]:
    """Peak memory of a process by the number of scenes, median over the rounds: till all scenes are made, and till all is written."""
    rounds: dict[str, list[list[float]]] = {"making": [], "command": []}
    for _ in range(arguments.rounds):
        found = [run_peak_of(count, arguments) for count in LENGTHS]
        for name, each in rounds.items():
            each.append([one[name] for one in found])
    result: dict[str, Any] = {"scenes": [float(count) for count in LENGTHS]}
    for name, each in rounds.items():
        peaks = [statistics.median(column) for column in zip(*each, strict=True)]
        result |= {f"{name}_peak_gib": peaks, f"{name}_memory_growth": peaks[-1] / peaks[0]}
    return result


def run_peak_of(count: int, arguments: argparse.Namespace) -> dict[str, float]:
    """What `peak_of` says in a process of its own."""
    command = [sys.executable, __file__, "--peak-of", str(count), *(["--steps", str(arguments.steps)] if arguments.steps else [])]
    environment = os.environ | {"OMP_NUM_THREADS": str(arguments.threads)}
    outcome = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    said: dict[str, float] = json.loads(outcome.stdout.splitlines()[-1])
    return said


def peak_of(count: int, steps: int | None) -> dict[str, float]:
    """Peak resident GiB of this process, which makes one film; and before it joins the scenes."""
    from mask2dit.loading import load_pipeline

    times = StageTimes()
    with tempfile.TemporaryDirectory() as folder:
        film(load_pipeline(), Path(folder) / "film", count, steps, times)
    return {"making": times.memory["joining"], "command": process_memory("VmHWM")}


if __name__ == "__main__":
    main()
