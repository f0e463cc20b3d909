"""Fewer and cheaper steps: how far are films of the built-in model from those of 50 DDIM steps, and what does the judge read in them?

    python benchmarks/approximations.py --out benchmarks/results/approximations.json

Every held-out story is filmed in each way from the same noise. `distance` is the root mean square difference of the final latents from
those of 50 DDIM steps, over their spread; `calls` is how often the transformer's blocks were computed and `time` the processor's seconds,
both over those of 50 DDIM steps, story by story. Shares are those of scenes that show what their captions say, over stories; their
differences from 50 DDIM steps are taken story by story, with 95 % intervals. Use one thread (OMP_NUM_THREADS=1) to measure time.
"""

import argparse
import datetime
import json
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import torch

from mask2dit.evaluation.statistics import mean_interval, paired_interval
from mask2dit.files import written_aside
from mask2dit.loading import builtin_model, load_pipeline
from mask2dit.pipeline import Mask2DiTPipeline
from mask2dit.playhouse.facts import LARGE_HELD_OUT_SEEDS
from mask2dit.playhouse.judge import Judge, load_judge
from mask2dit.production.seeds import scene_generator
from playhouse import Film, digest, machine, tell

LEVEL, SEEDS = "A", LARGE_HELD_OUT_SEEDS[:24]
BASE = "ddim 50"
WAYS: dict[str, dict[str, Any]] = {
    BASE: {"num_inference_steps": 50},
    "ddim 25": {"num_inference_steps": 25},
    "ddim 20": {"num_inference_steps": 20},
    "dpm++ 25": {"num_inference_steps": 25, "solver": "dpm++"},
    "dpm++ 20": {"num_inference_steps": 20, "solver": "dpm++"},
    "dpm++ 12": {"num_inference_steps": 12, "solver": "dpm++"},
    "unipc 20": {"num_inference_steps": 20, "solver": "unipc"},
    "unipc 12": {"num_inference_steps": 12, "solver": "unipc"},
    "sde-dpm++ 25": {"num_inference_steps": 25, "solver": "sde-dpm++"},
    "ddim 50, guided 0 to 0.6": {"num_inference_steps": 50, "guidance_interval": (0.0, 0.6)},
    "ddim 50, first-block:0.1": {"num_inference_steps": 50, "step_cache": "first-block:0.1"},
    "ddim 50, pyramid:2": {"num_inference_steps": 50, "step_cache": "pyramid:2"},
}
ANSWERS = ("place", "light", "colour", "species", "action")


def answers(film: Film) -> dict[str, float]:
    """The shares of one film."""
    shares = {name: [getattr(stage, name) == getattr(reading, name) for _, stage, reading in film.scenes()] for name in ("place", "light")}
    for name in ("colour", "species", "action"):
        shares[name] = [truth == read for index in range(len(film.readings)) for truth, read in film.asked(index, name)]
    return {name: sum(each) / len(each) for name, each in shares.items() if each}


@dataclass(frozen=True, slots=True)
class Made:
    """A story's latents, how many blocks were computed for them, the processor's seconds, and its answers."""

    latents: torch.Tensor
    calls: int
    seconds: float
    answers: dict[str, float]


def make(pipeline: Mask2DiTPipeline, judge: Judge, seed: int, options: Mapping[str, Any]) -> Made:
    """Film a story."""
    told = tell(seed, LEVEL, "self-contained")
    blocks: list[int] = []
    hooks = [each.ff.register_forward_hook(lambda *_: blocks.append(1)) for each in pipeline.transformer.transformer_blocks]
    generators = [scene_generator(seed, number) for number in range(1, len(told.captions) + 1)]
    began = time.process_time()
    scenes = pipeline(list(told.captions), generator=generators, output_type="latent", **options).scenes
    seconds = time.process_time() - began
    for hook in hooks:
        hook.remove()
    read = answers(Film(told, judge.read([pipeline.decode_scene(scene) for scene in scenes])))
    return Made(torch.cat(scenes), len(blocks), seconds, read)


def compared(seeds: range) -> dict[str, dict[str, Any]]:
    """Every way over all stories; each story in all ways, one after the other, for the machine's pace changes with the hour."""
    pipeline, judge = load_pipeline(), load_judge()
    make(pipeline, judge, seeds[0], {"num_inference_steps": 2})  # what is done once is in nobody's time
    films: dict[str, list[Made]] = {name: [] for name in WAYS}
    began = time.monotonic()
    for done, seed in enumerate(seeds, 1):
        for name, options in WAYS.items():
            films[name].append(make(pipeline, judge, seed, options))
        print(f"{done} of {len(seeds)} stories, {(time.monotonic() - began) / 60:.1f} minutes", file=sys.stderr)
    base = next(iter(films.values()))
    return {name: row_of(made, base) for name, made in films.items()}


def row_of(films: Sequence[Made], base: Sequence[Made]) -> dict[str, Any]:
    """How far a way is from the first one: medians over stories of what is a ratio, means of what the judge says."""
    pairs = list(zip(films, base, strict=True))
    ratios = {
        "distance": [float((made.latents - true.latents).square().mean().sqrt() / true.latents.std()) for made, true in pairs],
        "calls": [made.calls / true.calls for made, true in pairs],
        "time": [made.seconds / true.seconds for made, true in pairs],
    }
    row: dict[str, Any] = {measure: {"value": median(each)} for measure, each in ratios.items()}
    for answer in {answer: None for made in films for answer in made.answers}:
        both = [(made.answers[answer], true.answers[answer]) for made, true in pairs if answer in made.answers]
        mine, theirs = zip(*both, strict=True)
        differing = {"difference": (sum(mine) - sum(theirs)) / len(mine), "difference interval": paired_interval(mine, theirs)}
        row[answer] = {"value": sum(mine) / len(mine), "interval": mean_interval(mine)} | differing
    return row


def main(arguments: list[str] | None = None) -> None:
    """Film, print the table, and write JSON if asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--stories", type=int, default=len(SEEDS), help="fewer, to try it")
    parser.add_argument("--out", type=Path, help="write JSON here")
    options = parser.parse_args(arguments)
    seeds = SEEDS[: options.stories]
    rows = compared(seeds)
    columns = ("distance", "calls", "time", *ANSWERS)
    print(f"{'':26}" + "".join(f"{column:>10}" for column in columns))
    for name, row in rows.items():
        print(f"{name:26}" + "".join(f"{row[column]['value']:10.3f}" if column in row else f"{'':>10}" for column in columns))
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        result = {
            "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "machine": machine(),
            "model": digest(builtin_model()),
            "seeds": [seeds[0], seeds[-1]],
            "stories": len(seeds),
            "ways": rows,
        }
        with written_aside(options.out) as part:
            part.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
