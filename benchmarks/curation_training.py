"""Does a model learn from a curated set what it learns from the truth? Two short trainings that differ in nothing but their set.

    python benchmarks/curation_training.py --runs runs/curated --start runs/playhouse-a/pretrain/model --threads 2 \\
        --out benchmarks/results/curation-training.json

Footage of playhouse stories is filmed once. `direct` trains on its true shots and the grammar's captions; `curated` on what
`mask2dit curate` makes of it by the judge alone: its cuts, groups, captions, and clips that were encoded once more. Both start from one
model, with one seed, for as many steps; the table has both, the model that they start from, and the difference, story by story, with its
95 % interval. Everything is resumable.
"""

import argparse
import datetime
import json
import os
import platform
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import yaml

from mask2dit.evaluation.statistics import mean_interval, paired_interval
from mask2dit.files import written_aside
from mask2dit.loading import load_pipeline
from mask2dit.playhouse.facts import HELD_OUT_SEEDS
from mask2dit.playhouse.footage import plan_footage, read_truth, write_footage
from mask2dit.playhouse.judge import Judge, load_judge
from playhouse import Film, make_film, tell

LEVEL = "A"
STORIES = range(3_000_000, 3_000_320)  # to train on; nothing else uses them
VIDEOS = 4
RECIPE = Path(__file__).parents[1] / "recipes" / "playhouse-a" / "sft.yaml"
VARIANTS = ("direct", "curated")
STEPS, SEED = 400, 11
OWN = argparse.Namespace(steps=None, guidance=None)  # the model's own values


def film_footage(runs: Path) -> list[Path]:
    """Long videos of the stories, each with its truth beside it."""
    share = len(STORIES) // VIDEOS
    paths = []
    for number in range(VIDEOS):
        path = runs / "footage" / f"stories-{number}.mp4"
        if not Path(f"{path}.json").exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            write_footage(path, plan_footage(STORIES[number * share : (number + 1) * share], LEVEL))
        paths.append(path)
    return paths


def direct_set(runs: Path, footage: Sequence[Path]) -> Path:
    """The truth as a list: every shot a stretch of its video."""
    lines = []
    for path in footage:
        truth = read_truth(path)
        for group in truth.groups:
            shots = [truth.shots[index] for index in group]
            scenes = [
                {
                    "video": str(path.resolve()),
                    "caption": shot.caption,
                    "start_seconds": shot.first_frame / truth.fps,
                    "end_seconds": (shot.first_frame + shot.num_frames) / truth.fps,
                }
                for shot in shots
            ]
            lines.append(json.dumps({"group": f"{path.stem}-{shots[0].story}", "scenes": scenes}))
    listed = runs / "direct.jsonl"
    with written_aside(listed) as part:
        part.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return listed


def curated_set(runs: Path, footage: Sequence[Path]) -> Path:
    """What the command makes of it."""
    output = runs / "set"
    judged = ["--extractor", "judge", "--captioner", "judge", "--min-seconds", "1", "--validation", "0"]
    subprocess.run([sys.executable, "-m", "mask2dit", "curate", str(footage[0].parent), "-o", str(output), *judged], check=True)
    return output / "train.jsonl"


def train(runs: Path, name: str, listed: Path, start: Path, steps: int, threads: int) -> Path:
    """Fine-tune on a list; returns the model's folder."""
    output = runs / name
    if not (output / "model" / "model_index.json").exists():
        recipe = yaml.safe_load(RECIPE.read_text(encoding="utf-8"))
        recipe |= {"start_from": str(start.resolve()), "data": {"source": "jsonl", "file": str(listed.resolve())}, "seed": SEED}
        recipe |= {"latent_cache": str((runs / "latents").resolve()), "num_steps": steps, "validation": None}
        path = runs / f"{name}.yaml"
        path.write_text(yaml.safe_dump({key: value for key, value in recipe.items() if value is not None}), encoding="utf-8")
        command = [sys.executable, "-m", "mask2dit", "train", str(path), "-o", str(output), "--threads", str(threads)]
        subprocess.run([*command, "--precompute"], check=True)
        subprocess.run(command, check=True)
    return output / "model"


ANSWERS = ("species", "colour", "action", "place", "light", "same colour", "same species")


def answers(film: Film) -> dict[str, float]:
    """Of one film: the share of its scenes that show what their captions say, and of its pairs of scenes that show one actor."""
    shares = {}
    for name in ("species", "colour", "action"):
        pairs = [pair for index in range(len(film.readings)) for pair in film.asked(index, name)]
        shares[name] = [truth == read for truth, read in pairs]
    for name in ("place", "light"):
        shares[name] = [getattr(stage, name) == getattr(reading, name) for _, stage, reading in film.scenes()]
    for name in ("colour", "species"):
        shares[f"same {name}"] = [getattr(one.main, name) == getattr(other.main, name) for one, other in combinations(film.readings, 2)]
    return {name: sum(each) / len(each) for name, each in shares.items() if each}


def measured(runs: Path, name: str, model: Path, judge: Judge) -> dict[int, dict[str, float]]:
    """The answers of every held-out story, by its seed; what was filmed before is read."""
    kept = runs / f"{name}.films.json"
    found = {int(seed): each for seed, each in json.loads(kept.read_text()).items()} if kept.exists() else {}
    missing = [seed for seed in HELD_OUT_SEEDS if seed not in found]
    if missing:
        pipeline = load_pipeline(model)
        for number, seed in enumerate(missing, 1):
            found[seed] = answers(make_film(pipeline, judge, tell(seed, LEVEL, "self-contained"), OWN, keep=False))
            print(f"{name}: film {number} of {len(missing)}", file=sys.stderr)
            with written_aside(kept) as part:
                part.write_text(json.dumps(found))
    return found


def table(films: Mapping[str, Mapping[int, Mapping[str, float]]]) -> dict[str, dict[str, Any]]:
    """For every answer: each model's mean and interval over stories, and curated − direct."""
    rows = {}
    for name in ANSWERS:
        of = {variant: {seed: each[name] for seed, each in stories.items() if name in each} for variant, stories in films.items()}
        row: dict[str, Any] = {variant: _mean(values.values()) for variant, values in of.items()}
        both = sorted(set(of["direct"]) & set(of["curated"]))
        ones, others = [of["curated"][seed] for seed in both], [of["direct"][seed] for seed in both]
        row["difference"] = {"value": sum(ones) / len(both) - sum(others) / len(both), "interval": paired_interval(ones, others)}
        rows[name] = row
    return rows


def _mean(values: Iterable[float]) -> dict[str, Any]:
    listed = list(values)
    return {"value": sum(listed) / len(listed), "interval": mean_interval(listed), "stories": len(listed)}


def compared_sets(runs: Path, footage: Sequence[Path]) -> dict[str, Any]:
    """How the curated set differs from the truth."""
    groups = [json.loads(line) for line in (runs / "set" / "train.jsonl").read_text(encoding="utf-8").splitlines()]
    true = [json.loads(line) for line in (runs / "direct.jsonl").read_text(encoding="utf-8").splitlines()]
    return {
        "stories": len(true),
        "groups": len(groups),
        "true scenes": sum(len(group["scenes"]) for group in true),
        "scenes": sum(len(group["scenes"]) for group in groups),
        "minutes of footage": sum(read_truth(path).num_frames / read_truth(path).fps for path in footage) / 60,
    }


def main() -> None:
    """Do what is missing, print the table, and write JSON if asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=Path, required=True, help="where everything is kept")
    parser.add_argument("--start", type=Path, required=True, help="the model that both start from")
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--only", choices=("sets", "train"), help="stop after this")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    footage = film_footage(options.runs)
    makers: dict[str, Callable[[Path, Sequence[Path]], Path]] = {"direct": direct_set, "curated": curated_set}
    lists = {name: make(options.runs, footage) for name, make in makers.items()}
    sets = compared_sets(options.runs, footage)
    print(", ".join(f"{value:.1f} {name}" if isinstance(value, float) else f"{value} {name}" for name, value in sets.items()))
    if options.only == "sets":
        return
    models = {"start": options.start} | {
        name: train(options.runs, name, listed, options.start, options.steps, options.threads) for name, listed in lists.items()
    }
    if options.only == "train":
        return
    judge = load_judge()
    rows = table({name: measured(options.runs, name, model, judge) for name, model in models.items()})
    print(f"\n{'% of scenes or pairs':22}" + "".join(f"{name:>22}" for name in (*models, "curated − direct")))
    for name, row in rows.items():
        print(f"{name:22}" + "".join(f"{_written(row[column]):>22}" for column in (*models, "difference")))
    if options.out:
        about = {"platform": platform.platform(), "cores": os.cpu_count()}
        result = {
            "date": datetime.date.today().isoformat(),
            "machine": about,
            "steps": options.steps,
            "batch": 4,
            "sets": sets,
            "table": rows,
        }
        options.out.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def _written(number: Mapping[str, Any]) -> str:
    low, high = (100 * end for end in number["interval"] or (float("nan"),) * 2)
    return f"{100 * number['value']:.1f} ({low:.1f} … {high:.1f})"


if __name__ == "__main__":
    main()
