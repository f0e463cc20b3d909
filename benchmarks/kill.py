"""Kill the making of a film at a hundred random moments: is the folder whole, does the film go on, is it the same film?

    python benchmarks/kill.py --moments 100 --out benchmarks/results/kill.json

Every moment starts a process, kills it with SIGKILL after a random time, reads the folder as a command would, and lets the same making go
on to its end. The model is loaded once, and each making is a fork of the process that holds it, so that a moment takes seconds. Needs
Linux.
"""

import argparse
import collections
import datetime
import json
import os
import random
import signal
import sys
import tempfile
import time
from pathlib import Path

from film import machine

STORYBOARD = (
    "a red fox walks right in the meadow; the fox jumps on the beach at sunset; the fox sleeps in the forest; an owl flies up in the city"
)
SEED = 0


def main() -> None:
    """Measure, print, and write JSON if asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--moments", type=int, default=100)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()

    import torch

    torch.set_num_threads(1)  # a fork of a process with threads would wait for them for ever
    from mask2dit.loading import load_pipeline
    from mask2dit.production import FilmSettings, make_film
    from mask2dit.storyboard import Storyboard

    pipeline, board = load_pipeline(), Storyboard.from_text(STORYBOARD, title="Killed")
    settings = FilmSettings(num_inference_steps=arguments.steps, display_scale=1)

    def start(folder: Path) -> int:
        """A process that makes the film."""
        child = os.fork()
        if child == 0:
            status = 1
            try:
                make_film(pipeline, board, folder, settings)
                status = 0
            finally:
                os._exit(status)
        return child

    with tempfile.TemporaryDirectory() as place:
        finish(start(Path(place) / "first"))  # and the disk's cache is warm
        began = time.perf_counter()
        finish(start(Path(place) / "whole"))
        whole_seconds, whole = time.perf_counter() - began, files_in(Path(place) / "whole")
        print(f"a whole film takes {whole_seconds:.1f} s; {arguments.moments} moments, seed {SEED}")
        rng, found = random.Random(SEED), []
        for moment in range(arguments.moments):
            folder, after = Path(place) / f"film-{moment}", rng.uniform(0, whole_seconds)
            found.append(tried(folder, after, start, whole))
            print(f"  {moment + 1:3d}  killed after {after:5.1f} s while {found[-1]['stage']:<20} {found[-1]['verdict']}", flush=True)
    report(found, whole_seconds, arguments.out)


def tried(folder: Path, after: float, start: object, whole: dict[str, bytes]) -> dict[str, object]:
    """One moment: what was going on, what was on disk, and what became of it."""
    from mask2dit.errors import Mask2DiTError
    from mask2dit.production.directing import open_film

    child = start(folder)
    time.sleep(after)
    os.kill(child, signal.SIGKILL)
    killed = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    stage, verdict = "before the first file", []
    if (folder / "run.json").exists():
        try:
            stage = open_film(folder).record.stage
        except Mask2DiTError as error:
            verdict.append(f"the folder cannot be read: {error}")
    takes = files_in(folder / "takes")
    began = time.perf_counter()
    if finish(start(folder)) != 0:
        verdict.append("it does not go on")
    seconds = time.perf_counter() - began
    now = files_in(folder)
    if any(now.get(f"takes/{name}") != content for name, content in takes.items() if not Path(name).name.startswith(".")):
        verdict.append("a take was lost or made twice")
    if any(now.get(name) != content for name, content in whole.items() if name != "run.json"):
        verdict.append("the film is another one")
    if now.keys() != whole.keys():
        verdict.append(f"other files: {sorted(now.keys() ^ whole.keys())}")
    return {"stage": stage if killed else "finished", "seconds_after": round(seconds, 2), "verdict": "; ".join(verdict) or "whole"}


def finish(child: int) -> int:
    """Wait for a process; its exit status."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def files_in(folder: Path) -> dict[str, bytes]:
    """Every file of a folder by its name."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def report(found: list[dict[str, object]], whole_seconds: float, out: Path | None) -> None:
    """Print what was found, and write it as JSON if asked."""
    about, stages = machine(1), collections.Counter(str(each["stage"]) for each in found)
    bad = [each for each in found if each["verdict"] != "whole"]
    print(f"{about['cpu']}, torch {about['torch']}, Python {about['python']}")
    for stage, count in stages.most_common():
        print(f"  {count:3d} killed while {stage}")
    print(f"{len(found) - len(bad)} of {len(found)} went on to the same film, byte for byte; {len(bad)} did not")
    if out:
        out.parent.mkdir(parents=True, exist_ok=True)
        result = {"machine": about, "date": datetime.date.today().isoformat(), "whole_seconds": round(whole_seconds, 2)}
        result |= {"moments": len(found), "same_film": len(found) - len(bad), "stages": dict(stages), "bad": bad}
        out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    sys.exit(bool(bad))


if __name__ == "__main__":
    main()
