"""Extension under the plan context-blind: does it hold its quality, and what does the cache of known scenes save?

    mask2dit train recipes/playhouse-a/context-blind.yaml --output runs/control plan=symmetric
    python benchmarks/context_blind.py --control runs/control/lora --out benchmarks/results/context-blind.json

The third scene of every held-out story is made with its first two known, as they truly look. Four ways: `symmetric` is the built-in model
as it is; `untrained` the same weights under the plan context-blind; `context-blind` with adapters that were trained for it (recipe
recipes/playhouse-a/context-blind.yaml, in the package); `control` the symmetric plan with adapters that were trained as long, on the same
samples. The judge reads the third scene. Differences from `symmetric`, and of context-blind from `control`, are taken story by story, with
95 % intervals. Times are of single steps, cached and not, in interleaved rounds.
"""

import argparse
import datetime
import json
import sys
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from statistics import median
from typing import Any

import torch

from mask2dit.evaluation.statistics import mean_interval, paired_interval
from mask2dit.files import written_aside
from mask2dit.loading import load_pipeline
from mask2dit.pipeline import Mask2DiTPipeline
from mask2dit.playhouse.facts import LARGE_HELD_OUT_SEEDS
from mask2dit.playhouse.judge import Judge, builtin_judge, is_visible, load_judge
from mask2dit.playhouse.render import render_scenes
from mask2dit.playhouse.staging import scene_visibility
from mask2dit.predictor import Film as PredictedFilm
from mask2dit.predictor import Predictor
from mask2dit.production.seeds import scene_generator
from mask2dit.scene_layout import SceneLayout
from playhouse import Film, digest, machine, tell

LEVEL, SEEDS, EXTENDED = "A", LARGE_HELD_OUT_SEEDS[:64], 2
TRAINED = "context-blind"
ANSWERS = ("place", "light", "colour", "colour by reference", "species", "action")
AGAINST = f"{TRAINED} against control"
ROUNDS, FIRSTS, TIMED = 7, 3, (2, 3, 6)


def known_scenes(pipeline: Mask2DiTPipeline, film: Film) -> dict[int, torch.Tensor]:
    """The true scenes before the one that is made."""
    values = pipeline.values
    wanted = [(film.told.story, index) for index in range(EXTENDED)]
    clips = render_scenes(wanted, num_frames=values.num_frames, height=values.height, width=values.width)
    return {index: pipeline.encode_scene(clip) for index, clip in enumerate(clips)}


def extended(pipeline: Mask2DiTPipeline, judge: Judge, seed: int, style: str) -> Film:
    """A story whose last scene was made and read; the others' readings are not asked for."""
    told = tell(seed, LEVEL, style)
    known = known_scenes(pipeline, Film(told, ()))
    generators = [scene_generator(seed, number) for number in range(1, len(told.captions) + 1)]
    made = pipeline(list(told.captions), known_scenes=known, generator=generators, output_type="latent").scenes[EXTENDED]
    (reading,) = judge.read([pipeline.decode_scene(made)])
    return Film(told, [reading] * (EXTENDED + 1))


def answers(own: Film, referring: Film) -> dict[str, float]:
    """Shares of what the last scene shows of what it should, in films of self-contained captions and of captions by reference."""
    stage, reading = own.told.story.stages[EXTENDED], own.readings[EXTENDED]
    shares = {name: [getattr(stage, name) == getattr(reading, name)] for name in ("place", "light")}
    for name in ("species", "colour", "action"):
        shares[name] = [truth == read for truth, read in own.asked(EXTENDED, name)]
    story = referring.told.story
    unnamed = [
        role.actor
        for role in scene_visibility(story, EXTENDED)
        if is_visible(role, "colour") and (role.actor, "colour") not in referring.told.named[EXTENDED]
    ]
    playing = referring.actors(EXTENDED)
    shares["colour by reference"] = [playing[actor].colour == story.actors[actor].colour for actor in unnamed]
    return {name: sum(each) / len(each) for name, each in shares.items() if each}


def loaded(way: str, adapters: Path | None, control: Path | None) -> Mask2DiTPipeline:
    """The built-in model in one of the ways."""
    if way == TRAINED:
        return load_pipeline(plan=TRAINED, lora=adapters)
    pipeline = load_pipeline(lora=control if way == "control" else None)
    if way == "untrained":
        pipeline.transformer.set_attention_plan(TRAINED)  # after loading, which would take the adapters
    return pipeline


def measured(folder: Path, name: str, pipeline: Mask2DiTPipeline, judge: Judge) -> dict[int, dict[str, float]]:
    """The answers of every story, by its seed; what these very weights have made before is read."""
    kept = folder / f"{name}-{pipeline.fingerprint()}.json"
    found = {int(seed): each for seed, each in json.loads(kept.read_text()).items()} if kept.exists() else {}
    missing = [seed for seed in SEEDS if seed not in found]
    if missing:
        began = time.monotonic()
        for done, seed in enumerate(missing, 1):
            found[seed] = answers(*(extended(pipeline, judge, seed, style) for style in ("self-contained", "by-reference")))
            with written_aside(kept) as part:
                part.write_text(json.dumps(found))
            left = (time.monotonic() - began) / done * (len(missing) - done)
            print(f"{name}: story {done} of {len(missing)}, {left / 60:.1f} minutes left", file=sys.stderr)
    return found


def table(found: Mapping[str, Mapping[int, Mapping[str, float]]]) -> dict[str, dict[str, Any]]:
    """For every answer: each way's mean and interval over stories, its difference from `symmetric`, and that of two trained alike."""
    rows: dict[str, dict[str, Any]] = {}
    for answer in ANSWERS:
        of = {way: {seed: each[answer] for seed, each in stories.items() if answer in each} for way, stories in found.items()}
        rows[answer] = {way: _compared(values, of["symmetric"]) for way, values in of.items()}
        if "control" in of:
            rows[answer][AGAINST] = _compared(of[TRAINED], of["control"])
    return rows


def _compared(values: Mapping[int, float], base: Mapping[int, float]) -> dict[str, Any]:
    ones, others = list(values.values()), [base[seed] for seed in values]
    return {
        "value": _mean(ones),
        "interval": mean_interval(ones),
        "stories": len(ones),
        "difference": _mean(ones) - _mean(others),
        "difference interval": paired_interval(ones, others),
    }


def _mean(values: Iterable[float]) -> float:
    listed = list(values)
    return sum(listed) / len(listed)


@torch.no_grad()
def seconds(scenes: int, rounds: int) -> dict[str, Any]:
    """Steps for one more scene after `scenes` − 1 known ones: cached over not, medians of interleaved rounds; and how far they differ.

    The pass over the known scenes, which a film takes once, is left out of the steps and told beside them. Scenes are larger than the
    model's own, so that arithmetic and not overhead is measured.
    """
    pipeline = load_pipeline(plan="context-blind")
    transformer = pipeline.transformer
    config, generator = transformer.config, torch.Generator().manual_seed(0)
    height, width = 2 * config.sample_height, 2 * config.sample_width
    grid, frames = (height // config.patch_size, width // config.patch_size), 9
    size = (frames, config.in_channels, height, width)
    latents = [torch.randn(size, generator=generator) for _ in range(scenes)]
    length = config.max_text_seq_length
    captions = torch.randn(1, scenes * length, config.text_embed_dim, generator=generator)
    layout = SceneLayout((length,) * scenes, (frames * grid[0] * grid[1],) * scenes)
    film = PredictedFilm({"cond": captions}, layout, (frames,) * scenes, grid, frozenset(range(scenes - 1)))

    def begun() -> dict[str, Predictor]:
        made = {name: Predictor(transformer, film, torch.device("cpu")) for name in ("uncached", "cached")}
        made["uncached"]._contexts.clear()
        return made

    predictors = begun()

    def once(name: str, step: int) -> tuple[float, torch.Tensor]:
        began = time.perf_counter()
        made = predictors[name](latents, torch.tensor(999 - step), ("cond",))["cond"][scenes - 1]
        return time.perf_counter() - began, made

    taken: dict[str, list[float]] = {name: [] for name in predictors}
    firsts: dict[str, list[float]] = {name: [] for name in predictors}
    for _ in range(FIRSTS + 1):  # of which the very first warms up
        predictors = begun()
        for name, each in firsts.items():
            each.append(once(name, 0)[0])
    first = {name: median(each[1:]) for name, each in firsts.items()}
    largest = 0.0
    for step in range(1, rounds + 1):
        results = {name: once(name, step) for name in predictors}
        for name, (spent, _) in results.items():
            taken[name].append(spent)
        largest = max(largest, float((results["cached"][1] - results["uncached"][1]).abs().max()))
    ratio = median(taken["cached"]) / median(taken["uncached"])
    return {
        "scenes": scenes,
        "tokens": layout.num_tokens,
        "rounds": rounds,
        "ratio": ratio,
        "ratio over 1/n": ratio * scenes,
        "first step, cached over uncached": first["cached"] / first["uncached"],
        "largest difference": largest,
    }


def main(arguments: list[str] | None = None) -> None:
    """Do what is missing, print the table, and write JSON if asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--adapters", type=Path, help="adapters for the plan context-blind; none: those of the built-in model")
    parser.add_argument("--control", type=Path, help="adapters for the symmetric plan, trained as long")
    parser.add_argument("--work", type=Path, default=Path("runs/context-blind"), help="where answers are kept, to go on from")
    parser.add_argument("--out", type=Path, help="write JSON here")
    parser.add_argument("--only-times", action="store_true", help="leave the films out")
    options = parser.parse_args(arguments)
    options.work.mkdir(parents=True, exist_ok=True)
    result: dict[str, Any] = {"date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"), "machine": machine()}
    result["times"] = [seconds(count, ROUNDS) for count in TIMED]
    for row in result["times"]:
        first = row["first step, cached over uncached"]
        print(
            f"{row['scenes']} scenes: cached {row['ratio']:.3f} of uncached, {row['ratio over 1/n']:.2f} of 1/n; the first step {first:.2f}"
        )
    if not options.only_times:
        judge, found, weights = load_judge(), {}, {}
        for way in ("symmetric", "untrained", TRAINED, *(("control",) if options.control else ())):
            pipeline = loaded(way, options.adapters, options.control)
            found[way], weights[way] = measured(options.work, way, pipeline, judge), pipeline.fingerprint()
        result |= {"judge": digest(builtin_judge()), "weights": weights, "seeds": [SEEDS[0], SEEDS[-1]], "stories": len(SEEDS)}
        result["answers"] = table(found)
        for answer, row in result["answers"].items():
            print(f"{answer:20} " + "   ".join(f"{way} {_words(each)}" for way, each in row.items()))
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        with written_aside(options.out) as part:
            part.write_text(json.dumps(result, indent=1) + "\n")


def _words(each: Mapping[str, Any]) -> str:
    low, high = each["difference interval"]
    return f"{100 * each['value']:.1f} ({100 * each['difference']:+.1f}: {100 * low:+.1f} to {100 * high:+.1f})"


if __name__ == "__main__":
    main()
