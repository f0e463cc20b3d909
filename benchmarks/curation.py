"""What curating costs: minutes of footage per minute, by step and by worker count; how often a frame is decoded; memory by length.

    python benchmarks/curation.py --rounds 3 --out benchmarks/results/curation.json

Footage is cut together from FFmpeg's own sources at 360 × 640 and 24 frames per second, a cut every three to six seconds, and laid end to
end without encoding again for the long videos; the two-hour one is 90 × 160. Groups are made by colours, captions by the judge's reading
(of no sense here: the arithmetic is the same). Every run is a process of its own. Needs Linux (peak memory is read from the kernel).
"""

import argparse
import datetime
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

from film import machine
from foreign_footage import Part, Plan, encode, film_frames

from mask2dit.video_files import join_videos, open_video

SOURCES = ("mandelbrot", "testsrc2", "gradients", "life", "sierpinski", "cellauto")
LENGTHS = (84, 120, 72, 144, 96, 108)  # frames of shots
OPTIONS = ("--captioner", "judge", "--group-size", "2", "--lower", "-1", "--upper", "1.01", "--max-text", "1", "--min-seconds", "1")
TARGETS = {"most decodings of a frame": 2, "peak memory, two hours over ten minutes": 1.1}

CHILD = """
import collections, json, resource, sys, time
from mask2dit.video_files import OpenVideo

counts = collections.Counter()
if "--count" in sys.argv:
    sys.argv.remove("--count")
    decode = OpenVideo._decode
    def counted(self):
        for picture in decode(self):
            if "clips" not in self._name:
                counts[self._name, picture.pts] += 1
            yield picture
    OpenVideo._decode = counted

from mask2dit.curation import curating
steps, began = {}, time.perf_counter()
for name in ("pieces", "shots", "checks", "groups", "captions", "reviews", "export"):
    def timed(self, name=name, step=getattr(curating._Run, f"_{name}")):
        start = time.perf_counter()
        summary = step(self)
        steps[name] = time.perf_counter() - start
        return summary
    setattr(curating._Run, f"_{name}", timed)
write = curating._Run.write_report
def written(self):
    start = time.perf_counter()
    write(self)
    steps["report"] = time.perf_counter() - start
curating._Run.write_report = written

from mask2dit.cli.main import app
try:
    app(sys.argv[1:], standalone_mode=False)
finally:
    status = open("/proc/self/status").read().splitlines()  # not ru_maxrss: after fork and exec it begins with the parent's
    own = next(int(line.split()[1]) for line in status if line.startswith("VmHWM:"))
    peak = max(own, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss) / 2**20
    several = collections.Counter(counts.values())
    print("RESULT", json.dumps({"seconds": time.perf_counter() - began, "steps": steps, "peak_gib": peak, "decoded": several}))
"""


def part(path: Path, size: tuple[int, int], fps: int = 24) -> Path:
    """About a minute of footage, six shots twice over, each with grain of its own; a keyframe every two seconds and at no cut."""
    if not path.exists():
        shots = [Part(SOURCES[number % 6], LENGTHS[number % 6], noise=2.0) for number in range(12)]
        frames = film_frames(Plan(path.stem, tuple(shots), Fraction(fps), size))
        encode(path, frames, Fraction(fps), g=str(2 * fps), sc_threshold="0", bf="0", crf="20")
    return path


def laid_end_to_end(path: Path, one: Path, times: int) -> Path:
    """The same footage over and over, packet by packet."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        join_videos(path, [one] * times)
    return path


def minutes_of(path: Path) -> float:
    """Length of a video."""
    with open_video(path) as video:
        return video.facts.duration_seconds / 60


def curated(footage: Path, output: Path, *options: str) -> dict[str, Any]:
    """One run of the command, in a process of its own."""
    command = [sys.executable, "-c", CHILD, "curate", str(footage), "-o", str(output), *OPTIONS, *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    lines = [line for line in done.stdout.splitlines() if line.startswith("RESULT ")]
    if not lines:
        raise SystemExit(f"{' '.join(command[3:])}: failed\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    result: dict[str, Any] = json.loads(lines[-1].removeprefix("RESULT "))
    return result


def speeds(place: Path, footage: Path, minutes: float, workers: Sequence[int], rounds: int) -> dict[str, Any]:
    """Medians over interleaved rounds, by number of workers; the last run is repeated, to see what doing nothing takes."""
    runs: dict[int, list[dict[str, Any]]] = {count: [] for count in workers}
    again = []
    for _ in range(rounds):
        for count in workers:
            output = place / "set"
            shutil.rmtree(output, ignore_errors=True)
            options = () if count == 1 else ("--workers", str(count))
            runs[count].append(curated(footage, output, *options))
            if count == 1:
                again.append(curated(footage, output))
    found: dict[str, Any] = {}
    for count, results in runs.items():
        steps = {name: statistics.median(result["steps"][name] for result in results) for name in results[0]["steps"]}
        found[str(count)] = {
            "minutes_per_minute": {name: minutes / (seconds / 60) for name, seconds in steps.items()},
            "seconds": steps,
            "whole": minutes / (statistics.median(sum(result["steps"].values()) for result in results) / 60),
        }
    once = statistics.median(sum(result["steps"].values()) for result in again)
    found["second run over first"] = once / statistics.median(sum(result["steps"].values()) for result in runs[1])
    return found


def main() -> None:
    """Make footage, run, print, and write JSON if asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--minutes", type=int, default=6, help="of footage for the speeds, in two videos")
    parser.add_argument("--workers", default="1,2")
    parser.add_argument("--hours", type=float, default=2.0, help="of the long video")
    parser.add_argument("--work", type=Path, help="where footage is kept; a folder of the moment where left out")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    workers = [int(count) for count in options.workers.split(",")]
    with tempfile.TemporaryDirectory() as moment:
        place = options.work or Path(moment)
        place.mkdir(parents=True, exist_ok=True)
        one, small = part(place / "one.mp4", (360, 640)), part(place / "small.mp4", (90, 160), fps=12)
        times = max(1, round(options.minutes / 2 / minutes_of(one)))
        for number in range(2):
            laid_end_to_end(place / "footage" / f"{number}.mp4", one, times + number)  # not the same bytes twice
        minutes = sum(minutes_of(path) for path in (place / "footage").iterdir())
        result: dict[str, Any] = {"date": datetime.date.today().isoformat(), "machine": machine(1), "minutes": minutes}
        result["speed"] = speeds(Path(moment), place / "footage", minutes, workers, options.rounds)
        decoded = curated(place / "footage", Path(moment) / "counted", "--count", "--piece-minutes", "1")["decoded"]
        result["decoded"] = {int(times): frames for times, frames in decoded.items()}
        lengths = {"ten minutes": 10.0, f"{options.hours:g} hours": options.hours * 60}
        result["peak_gib"] = {}
        for name, length in lengths.items():
            long = laid_end_to_end(place / f"long-{length:g}.mp4", small, round(length / minutes_of(small)))
            began = time.perf_counter()
            run = curated(long, Path(moment) / name, "--until", "groups")
            result["peak_gib"][name] = run["peak_gib"]
            result.setdefault("long", {})[name] = {"minutes": minutes_of(long), "seconds": time.perf_counter() - began}
    show(result)
    if options.out:
        options.out.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def show(result: dict[str, Any]) -> None:
    """The tables."""
    counts = [count for count in result["speed"] if count.isdigit()]
    print(f"{result['minutes']:.1f} minutes of footage; minutes per minute, {os.cpu_count()} CPUs")
    print(f"{'step':12}" + "".join(f"{f'{count} process' + 'es' * (count != '1'):>14}" for count in counts))
    for name in [*result["speed"][counts[0]]["minutes_per_minute"], "whole"]:
        row = [result["speed"][count]["minutes_per_minute"].get(name, result["speed"][count]["whole"]) for count in counts]
        print(f"{name:12}" + "".join(f"{value:14.1f}" for value in row))
    print(f"second run over first: {result['speed']['second run over first']:.3f}")
    frames = sum(result["decoded"].values())
    told = ", ".join(
        f"{count} ({count / frames:.2%}) {times} time{'s' * (times != 1)}" for times, count in sorted(result["decoded"].items())
    )
    print(f"frames decoded, shots and clips together, pieces of a minute: {told}")
    first, second = result["peak_gib"].values()
    print(f"peak memory: {', '.join(f'{name} {value:.2f} GiB' for name, value in result['peak_gib'].items())}; ratio {second / first:.2f}")


if __name__ == "__main__":
    main()
