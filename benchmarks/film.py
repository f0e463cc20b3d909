"""The whole command for the built-in model, measured: import, load, encode, each step, decode, and peak memory, in several ways.

    python benchmarks/film.py [--rounds 5] [--busy] [--out benchmarks/results/film.json]

Every round is a fresh process of `mask2dit generate` for each way, one after the other; figures are medians over the rounds. Stage times
are those that the film's own run.json holds; importing and loading are timed in processes of their own. `--busy` runs beside as many
processes that compute without end as there are cores. Needs Linux (peak memory is read from the kernel).
"""

import argparse
import datetime
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

STORYBOARD = Path(__file__).parents[1] / "storyboards" / "fox.yaml"
TARGET_SECONDS, TARGET_GIB = 20.0, 2.0
PLAIN = "two threads"
TWO, AWAKE, ASLEEP = {"OMP_NUM_THREADS": "2"}, {"OMP_WAIT_POLICY": "ACTIVE"}, {"OMP_WAIT_POLICY": "PASSIVE"}
TOGETHER = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")  # each process takes its share of the cores
WAYS: dict[str, tuple[dict[str, str], tuple[str, ...], tuple[str, ...]]] = {  # environment, options, what starts the command
    PLAIN: (TWO, (), ()),
    "two threads that wait awake": (TWO | AWAKE, (), ()),
    "two threads that wait asleep": (TWO | ASLEEP, (), ()),
    "one thread": ({"OMP_NUM_THREADS": "1"}, (), ()),
    "two threads, --weights bf16": (TWO, ("--weights", "bf16"), ()),
    "two threads, --steps 12 --solver unipc": (TWO, ("--steps", "12", "--solver", "unipc"), ()),
    "two threads, --compile": (TWO, ("--compile",), ()),
    "two threads, --guidance 1": (TWO, ("--guidance", "1"), ()),
    "two processes": ({}, (), TOGETHER),
    "two processes, --guidance 1": ({}, ("--guidance", "1"), TOGETHER),
}


def main() -> None:
    """Measure, print a table, and write it as JSON if asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS))
    parser.add_argument("--busy", action="store_true", help="beside other programs")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    found: dict[str, list[dict[str, float]]] = {way: [] for way in arguments.ways}
    with others(os.cpu_count() or 1 if arguments.busy else 0):
        for _ in range(arguments.rounds):
            for way, rounds in found.items():
                environment, options, starter = WAYS[way]
                rounds.append(measure(os.environ | environment, options, starter))
        starting = [start(os.environ | TWO) for _ in range(arguments.rounds)]
    ways = {way: {key: round(statistics.median(each[key] for each in rounds), 3) for key in rounds[0]} for way, rounds in found.items()}
    result = {
        "machine": machine(2),
        "date": datetime.date.today().isoformat(),
        "storyboard": STORYBOARD.name,
        "rounds": arguments.rounds,
        "busy": arguments.busy,
        "import_seconds": round(statistics.median(importing for importing, _ in starting), 3),
        "load_seconds": round(statistics.median(loading for _, loading in starting), 3),
        "median": ways,
        "targets": {"command_seconds": TARGET_SECONDS, "peak_memory_gib": TARGET_GIB},
    }
    show(result)
    if arguments.out:
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        arguments.out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


@contextmanager
def others(count: int) -> Iterator[None]:
    """So many processes that compute without end."""
    busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for process in busy:
            process.kill()


def measure(environment: Mapping[str, str], options: Sequence[str], starter: Sequence[str]) -> dict[str, float]:
    """One round: seconds per stage, and the largest resident set of a process of the command."""
    with tempfile.TemporaryDirectory() as folder:
        film = Path(folder) / "film"
        command = [sys.executable, *starter, "-m", "mask2dit", "generate", str(STORYBOARD), "-o", str(film), *options]
        seconds, peak = timed(command, environment)
        record = json.loads((film / "run.json").read_text(encoding="utf-8"))
    stages: dict[str, float] = record["timings_seconds"]
    return {
        "encode_seconds": stages["encoding"],
        "step_seconds": stages["denoising"] / record["made_with"]["num_inference_steps"],
        "denoise_seconds": stages["denoising"],
        "decode_and_write_scenes_seconds": stages["decoding"],
        "join_seconds": stages["joining"],
        "command_seconds": seconds,
        "peak_memory_gib": peak,
    }


def start(environment: Mapping[str, str]) -> tuple[float, float]:
    """Seconds of importing, and of loading the model after that."""
    importing = timed([sys.executable, "-c", "import mask2dit.loading"], environment)[0]
    loading = timed([sys.executable, "-c", "import mask2dit; mask2dit.load_pipeline()"], environment)[0]
    return importing, loading - importing


def timed(command: list[str], environment: Mapping[str, str]) -> tuple[float, float]:
    """Wall seconds and peak resident GiB of a process."""
    began = time.perf_counter()
    with subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            sys.exit(f"{' '.join(command)} ended with {process.returncode}: {process.stderr.read().decode() if process.stderr else ''}")
    return time.perf_counter() - began, usage.ru_maxrss / 2**20


def process_memory(key: str) -> float:
    """GiB of this process, as the kernel counts them: VmRSS now, VmHWM at most.

    Not ru_maxrss, which after fork and exec begins with the parent's.
    """
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{key}:")) / 2**20


def machine(threads: int) -> dict[str, Any]:
    """What the figures belong to."""
    import torch

    names = [line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    return {
        "cpu": names[0] if names else platform.processor(),
        "cores": os.cpu_count(),
        "threads": threads,
        "torch": torch.__version__,
        "python": platform.python_version(),
    }


def show(result: dict[str, Any]) -> None:
    """Print the medians, with the targets beside them."""
    about = result["machine"]
    print(f"{about['cpu']}, {about['cores']} cores, torch {about['torch']}, Python {about['python']}{', busy' * result['busy']}")
    print(f"imports {result['import_seconds']:.2f} s, loading {result['load_seconds']:.2f} s")
    for way, medians in result["median"].items():
        print(f"{result['storyboard']}, {way}, median of {result['rounds']} rounds")
        for key, value in medians.items():
            target = result["targets"].get(key)
            print(f"  {key:<34}{value:9.3f}" + (f"   target ≤ {target:g}: {'met' if value <= target else 'missed'}" if target else ""))


if __name__ == "__main__":
    main()
