"""The paper's claims, shown or refuted on small models whose truth is known: one command trains, films, measures, and writes the page.

    python benchmarks/claims.py --runs runs/claims-a

Five transformers of 3.7 M parameters are trained alike, one for each attention plan (who may attend to whom), from one base of
single scenes, with the recipes of recipes/claims-a. 64 held-out stories are filmed with each, with the same noise, and read by the
judge. A number is the mean over stories; intervals are bootstrapped over stories, and differences from `symmetric` are paired by story.
Everything is resumable: what is trained or filmed is not done again. Written: the JSON file, the plots, and the tables of docs/results.md.
"""

import argparse
import json
import random
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import torch
from claims_page import IMAGES, PLANS, claims, page_part, plots, write_page

from mask2dit.evaluation.statistics import mean_interval, paired_interval
from mask2dit.loading import builtin_model, load_pipeline
from mask2dit.pipeline import Mask2DiTPipeline
from mask2dit.playhouse.captions import CaptionedStory, tell_story
from mask2dit.playhouse.facts import HELD_OUT_SEEDS, draw_story
from mask2dit.playhouse.judge import ActorReading, Judge, Reading, load_judge
from mask2dit.production.seeds import scene_generator
from playhouse import Film, leaks, machine, tell, trait_law

ROOT = Path(__file__).parents[1]
RECIPES, RESULTS = ROOT / "recipes" / "claims-a", ROOT / "benchmarks" / "results"
STYLES = ("self-contained", "by-reference")
MINUTES = "cpu_minutes.json"
LONG = 8  # scenes of the films that are extended
WINDOW = 3

Scenes = list[Reading]
Make = Callable[[Mask2DiTPipeline, CaptionedStory], list[torch.Tensor]]
"""Films a captioned story: its scenes' latents."""


# Training


def train(runs: Path, seeds: Sequence[int], threads: int) -> None:
    """Train what is not trained yet, and keep the CPU minutes beside each model."""
    cache = f"latent_cache={runs / 'latents'}"
    parts = [f"vae_from={builtin_model()}", f"text_from={builtin_model()}"]
    _run("base", [*parts, cache], runs / "base", threads, precompute=True)
    for seed in seeds:
        for plan in PLANS:
            place = runs / named(plan, seed, seeds)
            common = [cache, f"plan={plan}", f"seed={seed}"]
            _run("pretrain", [*common, f"start_from={runs / 'base' / 'model'}"], place / "pretrain", threads)
            _run("sft", [*common, f"start_from={place / 'pretrain' / 'model'}"], place / "sft", threads)


def named(plan: str, seed: int, seeds: Sequence[int]) -> str:
    """A plan's folder: the first seed has none in its name."""
    return plan if seed == seeds[0] else f"{plan}-seed-{seed}"


def _run(stage: str, changes: Sequence[str], output: Path, threads: int, precompute: bool = False) -> None:
    if (output / "model").is_dir():
        return
    command = [sys.executable, "-m", "mask2dit", "train", str(RECIPES / f"{stage}.yaml"), *changes, "-o", str(output)]
    command += ["--threads", str(threads)]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    try:
        if precompute:
            subprocess.run([*command, "--precompute"], check=True)
        subprocess.run(command, check=True)
    finally:
        after, kept = resource.getrusage(resource.RUSAGE_CHILDREN), output / MINUTES
        spent = (after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime) / 60
        if output.is_dir():
            kept.write_text(json.dumps(spent + (json.loads(kept.read_text()) if kept.exists() else 0)))


# Filming


def jointly(pipeline: Mask2DiTPipeline, told: CaptionedStory) -> list[torch.Tensor]:
    """All scenes in one call."""
    return _scenes(pipeline, told, range(len(told.captions)), {})


def one_by_one(pipeline: Mask2DiTPipeline, told: CaptionedStory) -> list[torch.Tensor]:
    """Every scene in a call of its own."""
    return [_scenes(pipeline, told, [index], {})[0] for index in range(len(told.captions))]


def by_extension(pipeline: Mask2DiTPipeline, told: CaptionedStory) -> list[torch.Tensor]:
    """The first window jointly, then each further scene with the two before it known."""
    made = _scenes(pipeline, told, range(WINDOW), {})
    for index in range(WINDOW, len(told.captions)):
        before = list(range(index - WINDOW + 1, index))
        known = {place: made[other] for place, other in enumerate(before)}
        made.append(_scenes(pipeline, told, [*before, index], known)[-1])
    return made


def _scenes(
    pipeline: Mask2DiTPipeline, told: CaptionedStory, indices: Iterable[int], known: Mapping[int, torch.Tensor]
) -> list[torch.Tensor]:
    numbers = list(indices)
    generators = [scene_generator(told.story.seed, index + 1) for index in numbers]
    captions = [told.captions[index] for index in numbers]
    return list(pipeline(captions, known_scenes=dict(known), generator=generators, output_type="latent").scenes)


def long_tale(seed: int, style: str) -> CaptionedStory:
    """A story of eight scenes. By reference, the colour is named in one of the first three: an extension knows no other."""
    story = draw_story(seed, "A", LONG)
    for attempt in range(100):
        told = tell_story(story, random.Random(f"playhouse/long/{seed}/{style}/{attempt}"), style)
        if style != "by-reference" or any((0, "colour") in named for named in told.named[:WINDOW]):
            return told
    raise AssertionError("a story of a hundred tellings names its colour late in all")


@dataclass(frozen=True, slots=True)
class Variant:
    """What is filmed: a model folder under `runs`, a plan, how a story's scenes are put into calls, and which stories."""

    name: str
    model: str
    plan: str
    make: Make
    tale: Callable[[int, str], CaptionedStory]
    styles: tuple[str, ...] = STYLES


def told_short(seed: int, style: str) -> CaptionedStory:
    """The stories and words of every table."""
    return tell(seed, "A", style)


def variants(seeds: Sequence[int]) -> list[Variant]:
    """Every model and way of filming that the page speaks of."""
    trained = [(named(plan, seed, seeds), plan) for seed in seeds for plan in PLANS]
    found = [Variant(name, f"{name}/sft", plan, jointly, told_short) for name, plan in trained]
    found += [Variant(f"{plan}, no SFT", f"{plan}/pretrain", plan, jointly, told_short) for plan in ("symmetric", "full")]
    found.append(Variant("one by one", "base", "symmetric", one_by_one, told_short))
    found.append(Variant("eight jointly", "symmetric/sft", "symmetric", jointly, long_tale, STYLES[1:]))
    found.append(Variant("eight by extension", "symmetric/sft", "symmetric", by_extension, long_tale, STYLES[1:]))
    return found


def film(variant: Variant, runs: Path, judge: Judge, stories: Sequence[int], device: str) -> list[Film]:
    """The films of a variant as they were read; those that are kept are not made again."""
    place = runs / "films" / f"{variant.name.replace(', ', '-').replace(' ', '-')}.jsonl"
    kept = dict(_kept(place))
    pipeline: Mask2DiTPipeline | None = None
    films, began, made = [], time.monotonic(), 0
    wanted = [(seed, style) for seed in stories for style in variant.styles]
    for seed, style in wanted:
        told = variant.tale(seed, style)
        if (seed, style) not in kept:
            if pipeline is None:
                pipeline = load_pipeline(runs / variant.model / "model", plan=variant.plan, device=device)
            latents = variant.make(pipeline, told)
            kept[seed, style] = judge.read([pipeline.decode_scene(scene) for scene in latents])
            place.parent.mkdir(parents=True, exist_ok=True)
            with place.open("a", encoding="utf-8") as file:
                file.write(
                    "\n" * (file.tell() > 0)
                    + json.dumps({"seed": seed, "style": style, "scenes": [asdict(each) for each in kept[seed, style]]})
                )
            made += 1
            left = (time.monotonic() - began) / made * sum(each not in kept for each in wanted)
            sys.stderr.write(f"\r{variant.name}: {len(kept)}/{len(wanted)} films, {left / 60:.0f} min left   ")
        films.append(Film(told, kept[seed, style]))
    sys.stderr.write("\n" if made else "")
    return films


def _kept(place: Path) -> Iterator[tuple[tuple[int, str], Scenes]]:
    for line in place.read_text(encoding="utf-8").splitlines() if place.exists() else ():
        try:
            found = json.loads(line)
        except ValueError:  # a last line that was cut off
            continue
        yield (found["seed"], found["style"]), [_reading(each) for each in found["scenes"]]


def _reading(kept: dict[str, Any]) -> Reading:
    actors = {name: ActorReading(**actor) for name, actor in kept["actors"].items()}
    return Reading(**{**kept, "species": tuple(kept["species"]), "actors": actors})


# Measuring

Parts = dict[tuple[int, int], list[float]]
"""By training and story: what is averaged."""

Films = Sequence[Sequence[Film]]
"""One list for each training."""


def measures(trainings: Films, scenes: range | None = None) -> dict[str, Parts]:
    """Every measure, story by story; scenes: only these, by index (coherence: against those before them)."""
    table: dict[str, Parts] = {}
    for training, each in ((number, each) for number, films in enumerate(trainings) for each in films):
        for name, answers in _answers(each, scenes):
            table.setdefault(name, {}).setdefault((training, each.told.story.seed), []).extend(map(float, answers))
    return table


def _answers(each: Film, scenes: range | None) -> Iterator[tuple[str, Iterable[bool]]]:
    """What a film answers, by measure."""
    story, readings = each.told.story, each.readings
    wanted = scenes or range(len(story.stages))
    for index in wanted:
        stage, reading = story.stages[index], readings[index]
        hero = story.actors[stage.roles[0].actor]
        names_colour = (0, "colour") in each.told.named[index]
        yield "own caption: place", [reading.place == stage.place]
        yield "own caption: light", [reading.light == stage.light]
        yield "own caption: action", [reading.main.action == stage.roles[0].action]
        yield "own caption: species", [reading.main_species == hero.species]
        yield "own caption: colour" if names_colour else "by reference: colour", [reading.main.colour == hero.colour]
    if each.told.style == "by-reference":
        couples = [(readings[a], readings[b]) for a, b in combinations(range(len(readings)), 2) if b in wanted]
        yield "same colour", [one.main.colour == other.main.colour for one, other in couples]
        yield "same species", [one.main_species == other.main_species for one, other in couples]
    if scenes is None:
        yield from ((f"leak: {name}", leaks(each, name)) for name in ("place", "light", "action"))


def summary(parts: Parts, base: Parts | None) -> dict[str, Any]:
    """The mean over stories with its interval, and the paired difference from another variant's."""
    means = {story: float(np.mean(values)) for story, values in parts.items() if values}
    values = list(means.values())
    found: dict[str, Any] = {"value": float(np.mean(values)), "interval": mean_interval(values), "stories": len(values)}
    if base is not None:
        theirs = {story: float(np.mean(values)) for story, values in base.items() if values}
        shared = [story for story in means if story in theirs]
        ones, others = [means[story] for story in shared], [theirs[story] for story in shared]
        found["difference"] = float(np.mean(np.subtract(ones, others)))
        found["difference_interval"] = paired_interval(ones, others)
    return found


def summarised(films: Mapping[str, Films]) -> dict[str, dict[str, Any]]:
    """By variant and measure; differences are from `symmetric`, and those of the long films from all eight scenes at once."""
    found: dict[str, dict[str, Any]] = {}
    for name, trainings in films.items():
        is_long = name.startswith("eight")
        scenes, against = (range(WINDOW, LONG), "eight jointly") if is_long else (None, "symmetric")
        base = {} if name == against else measures(films[against], scenes)
        found[name] = {key: summary(parts, base.get(key)) for key, parts in measures(trainings, scenes).items()}
        if not is_long:
            law = trait_law([film for films_of_one in trainings for film in films_of_one], "size")
            found[name]["trait: size"] = {"value": law.value, "interval": [law.low, law.high], "stories": law.count}
    return found


def by_scene(films: Mapping[str, Films], name: str) -> dict[str, list[dict[str, Any]]]:
    """One measure scene by scene, of the long films."""
    return {
        way: [summary(measures(films[way], range(index, index + 1))[name], None) for index in range(LONG)]
        for way in ("eight jointly", "eight by extension")
        if way in films
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Train, film, measure, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=Path, default=Path("runs/claims-a"))
    parser.add_argument("--seeds", type=int, default=1, help="trainings of each plan; the first has seed 6")
    parser.add_argument("--stories", type=int, default=len(HELD_OUT_SEEDS))
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--device", default="cpu", help="where films are made; trainings take a GPU where there is one")
    parser.add_argument("--only-train", action="store_true")
    parser.add_argument("--only-film", nargs="+", metavar="VARIANT", help="film these and stop; several such commands may run side by side")
    parser.add_argument("--out", type=Path, default=RESULTS / "claims-A.json")
    parser.add_argument("--no-page", action="store_true", help="leave docs/results.md and its plots as they are")
    options = parser.parse_args(arguments)
    if not 2 <= options.stories <= len(HELD_OUT_SEEDS):
        parser.error(f"--stories: got {options.stories}, expected 2 to {len(HELD_OUT_SEEDS)}: an interval needs two")
    torch.set_num_threads(options.threads)
    runs, seeds = options.runs.resolve(), [6 + index for index in range(options.seeds)]
    judge, stories = load_judge(), list(HELD_OUT_SEEDS[: options.stories])
    wanted = variants(seeds)
    if options.only_film:
        for variant in wanted:
            if variant.name in options.only_film:
                film(variant, runs, judge, stories, options.device)
        return
    train(runs, seeds, options.threads)
    if options.only_train:
        return
    made = {variant.name: film(variant, runs, judge, stories, options.device) for variant in wanted}
    names = [variant.name for variant in variants(seeds[:1])]
    films = {name: [made[named(name, seed, seeds)] for seed in seeds] if name in PLANS else [made[name]] for name in names}
    result = results(films, runs, len(stories), len(seeds)) | {"judge": judge.accuracy}
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    for each in result["claims"]:
        verdict = {True: "shown", False: "refuted", None: "not shown"}[each["shown"]]
        print(f"{verdict:10} {each['claim']}\n{'':10} {each['numbers']}")
    if not options.no_page:
        for name, svg in plots(result["measures"], result["scene_by_scene"]).items():
            (IMAGES / name).write_text(svg, encoding="utf-8")
        write_page(page_part(result))


def results(films: Mapping[str, Films], runs: Path, num_stories: int, num_trainings: int) -> dict[str, Any]:
    """All that the JSON file holds."""
    found = summarised(films)
    transformer = load_pipeline(runs / "symmetric" / "sft" / "model").transformer
    return {
        "date": time.strftime("%Y-%m-%d"),
        "machine": machine(),
        "stories": num_stories,
        "trainings": num_trainings,
        "parameters": sum(parameter.numel() for parameter in transformer.parameters()),
        "cpu_minutes": {
            f"{path.parent.parent.name}/{path.parent.name}": json.loads(path.read_text()) for path in sorted(runs.glob(f"*/*/{MINUTES}"))
        },
        "measures": found,
        "claims": [{"claim": claim, "shown": shown, "numbers": numbers} for claim, shown, numbers in claims(found)],
        "scene_by_scene": by_scene(films, "by reference: colour"),
    }


if __name__ == "__main__":
    main()
