"""The paper's claims, shown or refuted on small models whose truth is known: one command trains, films, measures, and writes the page.

    python benchmarks/claims.py --runs runs/claims-a

Five transformers of 3.6 M parameters are trained alike, one for each attention plan (who may attend to whom), from one base of
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

from mask2dit.evaluation.plots import Row, interval_plot
from mask2dit.evaluation.statistics import mean_interval, paired_interval
from mask2dit.files import written_aside
from mask2dit.loading import builtin_model, load_pipeline
from mask2dit.pipeline import Mask2DiTPipeline
from mask2dit.playhouse.captions import CaptionedStory, tell_story
from mask2dit.playhouse.facts import HELD_OUT_SEEDS, draw_story
from mask2dit.playhouse.judge import ActorReading, Judge, Reading, load_judge
from mask2dit.production.seeds import scene_generator
from playhouse import Film, leaks, machine, tell, trait_law

ROOT = Path(__file__).parents[1]
RECIPES, RESULTS = ROOT / "recipes" / "claims-a", ROOT / "benchmarks" / "results"
PAGE, IMAGES = ROOT / "docs" / "results.md", ROOT / "docs" / "images"
PLANS = ("isolated", "symmetric", "shared-text", "video-reads-text", "full")
STYLES = ("self-contained", "by-reference")
LONG = 8  # scenes of the films that are extended
WINDOW = 3
MARGIN = 0.05  # by how much a share may be lower and still count as kept

Scenes = list[Reading]
Make = Callable[[Mask2DiTPipeline, CaptionedStory], list[torch.Tensor]]
"""Films a captioned story: its scenes' latents."""


# Training


def train(runs: Path, seeds: Sequence[int], threads: int) -> dict[str, float]:
    """Train what is not trained yet; CPU minutes of each run of this command."""
    minutes: dict[str, float] = {}
    cache = f"latent_cache={runs / 'latents'}"
    parts = [f"vae_from={builtin_model()}", f"text_from={builtin_model()}"]
    _run("base", [*parts, cache], runs / "base", threads, minutes, precompute=True)
    for seed in seeds:
        for plan in PLANS:
            place = runs / named(plan, seed, seeds)
            common = [cache, f"plan={plan}", f"seed={seed}"]
            _run("pretrain", [*common, f"start_from={runs / 'base' / 'model'}"], place / "pretrain", threads, minutes)
            _run("sft", [*common, f"start_from={place / 'pretrain' / 'model'}"], place / "sft", threads, minutes)
    return minutes


def named(plan: str, seed: int, seeds: Sequence[int]) -> str:
    """A plan's folder: the first seed has none in its name."""
    return plan if seed == seeds[0] else f"{plan}-seed-{seed}"


def _run(stage: str, changes: Sequence[str], output: Path, threads: int, minutes: dict[str, float], precompute: bool = False) -> None:
    if (output / "model").is_dir():
        return
    command = [sys.executable, "-m", "mask2dit", "train", str(RECIPES / f"{stage}.yaml"), *changes, "-o", str(output)]
    command += ["--threads", str(threads)]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    if precompute:
        subprocess.run([*command, "--precompute"], check=True)
    subprocess.run(command, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    minutes[f"{output.parent.name}/{output.name}"] = (after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime) / 60


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


def film(variant: Variant, runs: Path, judge: Judge, stories: Sequence[int]) -> list[Film]:
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
                pipeline = load_pipeline(runs / variant.model / "model", plan=variant.plan)
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

Parts = dict[int, list[float]]
"""By story: what is averaged."""

ALIGNMENT = ("own caption: place", "own caption: light", "own caption: colour", "own caption: species", "own caption: action")
LEAKAGE = ("leak: place", "leak: light", "leak: action")
COHERENCE = ("by reference: colour", "same colour", "same species")


def measures(films: Sequence[Film], scenes: range | None = None) -> dict[str, Parts]:
    """Every measure, story by story; scenes: only these, by index (coherence: against those before them)."""
    table: dict[str, Parts] = {}

    def add(name: str, story: int, answers: Iterable[bool]) -> None:
        table.setdefault(name, {}).setdefault(story, []).extend(map(float, answers))

    for each in films:
        story, style = each.told.story, each.told.style
        wanted = scenes or range(len(story.stages))
        for index in wanted:
            stage, reading = story.stages[index], each.readings[index]
            hero = story.actors[stage.roles[0].actor]
            names_colour = (0, "colour") in each.told.named[index]
            add("own caption: place", story.seed, [reading.place == stage.place])
            add("own caption: light", story.seed, [reading.light == stage.light])
            add("own caption: action", story.seed, [reading.main.action == stage.roles[0].action])
            add("own caption: species", story.seed, [reading.main_species == hero.species])
            add("own caption: colour" if names_colour else "by reference: colour", story.seed, [reading.main.colour == hero.colour])
        if style == "by-reference":
            couples = [(a, b) for a, b in combinations(range(len(each.readings)), 2) if b in wanted]
            add("same colour", story.seed, [each.readings[a].main.colour == each.readings[b].main.colour for a, b in couples])
            add("same species", story.seed, [each.readings[a].main_species == each.readings[b].main_species for a, b in couples])
        if scenes is None:
            for name in ("place", "light", "action"):
                add(f"leak: {name}", story.seed, leaks(each, name))
    return table


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


def summarised(films: Mapping[str, Sequence[Film]]) -> dict[str, dict[str, Any]]:
    """By variant and measure; differences are from `symmetric`."""
    tables = {name: measures(each) for name, each in films.items()}
    base = tables["symmetric"]
    found = {
        name: {key: summary(parts, None if name == "symmetric" else base.get(key)) for key, parts in table.items()}
        for name, table in tables.items()
        if not name.startswith("eight")
    }
    for name, each in films.items():
        if not name.startswith("eight"):
            law = trait_law(each, "size")
            found[name]["trait: size"] = {"value": law.value, "interval": [law.low, law.high], "stories": law.count}
    for name in ("eight jointly", "eight by extension"):
        if name in films:
            table = measures(films[name], range(WINDOW, LONG))
            other = measures(films["eight jointly"], range(WINDOW, LONG)) if name != "eight jointly" else None
            found[name] = {key: summary(parts, other.get(key) if other else None) for key, parts in table.items()}
    return found


def by_scene(films: Mapping[str, Sequence[Film]], name: str) -> dict[str, list[dict[str, Any]]]:
    """One measure scene by scene, of the long films."""
    return {
        way: [summary(measures(films[way], range(index, index + 1))[name], None) for index in range(LONG)]
        for way in ("eight jointly", "eight by extension")
        if way in films
    }


# The page


def claims(found: Mapping[str, Mapping[str, Any]]) -> list[tuple[str, bool | None, str]]:
    """Each claim, whether it shows (None: neither way), and the numbers. Fixed before anything was trained."""

    def against(name: str, key: str, higher: bool) -> tuple[bool | None, str]:
        low, high = found[name][key]["difference_interval"]
        clear, contrary = (low > 0, high < 0) if higher else (high < 0, low > 0)
        return True if clear else False if contrary else None, f"{key}: `{name}` − `symmetric`: {_difference(found[name][key])}"

    def kept(name: str, keys: Sequence[str]) -> tuple[bool | None, str]:
        cells = [found[name][key] for key in keys]
        verdicts = [_not_lower(*cell["difference_interval"]) for cell in cells]
        text = "; ".join(f"{key.removeprefix('own caption: ')}: {_difference(cell)}" for key, cell in zip(keys, cells, strict=True))
        return True if all(verdicts) else False if False in verdicts else None, f"`{name}` − `symmetric`: {text}"

    text = ("own caption: place", "own caption: light", "own caption: colour")
    rows = [
        (
            "Without video-to-video attention, scenes lose what only another scene knows",
            *against("isolated", "by reference: colour", False),
        ),
        ("… and heroes change from scene to scene", *against("isolated", "same colour", False)),
        ("… while each caption is followed as well", *kept("isolated", text)),
        ("Where all is one sequence (`full`), other scenes' places leak in", *against("full", "leak: place", True)),
        ("… and a scene's own caption is followed less", *against("full", "own caption: place", False)),
        ("Videos that read all captions (`video-reads-text`) leak, too", *against("video-reads-text", "leak: place", True)),
        ("Captions that read each other (`shared-text`) leak, too", *against("shared-text", "leak: place", True)),
        ("Without SFT, scenes do not take what only another scene knows", *against("symmetric, no SFT", "by reference: colour", False)),
        ("Scenes made one by one are less coherent", *against("one by one", "same colour", False)),
    ]
    if "eight by extension" in found:
        cell = found["eight by extension"]["by reference: colour"]
        low, high = cell["difference_interval"]
        line = f"by reference: colour, scenes 4 to 8: extension − joint: {_difference(cell)}"
        rows.append(("Extension keeps the hero as well as making all eight scenes at once", _not_lower(low, high), line))
    return rows


def _difference(cell: Mapping[str, Any]) -> str:
    low, high = cell["difference_interval"]
    return f"{100 * cell['difference']:+.1f} points, 95 % from {100 * low:+.1f} to {100 * high:+.1f}"


def _not_lower(low: float, high: float) -> bool | None:
    """Shown where it is at most `MARGIN` lower for sure, refuted where it is lower for sure."""
    return True if low > -MARGIN else False if high < -MARGIN else None


def table_lines(found: Mapping[str, Mapping[str, Any]], names: Sequence[str], keys: Sequence[str]) -> list[str]:
    """A Markdown table: a row for each measure."""
    lines = ["| measure | " + " | ".join(f"`{name}`" if name in PLANS else name for name in names) + " |", "|---" * (len(names) + 1) + "|"]
    for key in keys:
        cells = [_cell(key, found[name].get(key)) for name in names]
        lines.append(f"| {key} | " + " | ".join(cells) + " |")
    return lines


def _cell(key: str, cell: Mapping[str, Any] | None) -> str:
    if cell is None or not np.isfinite(cell["value"]):
        return "–"
    factor, form = (1, "{:.2f}") if key.startswith("trait") else (100, "{:.1f}")
    low, high = cell["interval"] or (np.nan, np.nan)
    return f"{form.format(factor * cell['value'])} ({form.format(factor * low)}–{form.format(factor * high)})"


PLOTTED = ("own caption: place", "own caption: colour", "leak: place", "leak: light", "by reference: colour", "same colour")


def plots(found: Mapping[str, Mapping[str, Any]], scene_by_scene: Mapping[str, Sequence[Mapping[str, Any]]]) -> dict[str, str]:
    """SVG by file name."""
    plans = [name for name in (*PLANS, "one by one") if name in found]
    sft = [name for name in ("symmetric", "symmetric, no SFT", "full", "full, no SFT", "one by one") if name in found]
    drawn = {
        f"claims-{name}.svg": interval_plot([_row(label, key, found[label][key]) for key in keys for label in labels], unit="%")
        for name, labels, keys in (("plans", plans, PLOTTED), ("sft", sft, PLOTTED))
    }
    if scene_by_scene:
        rows = [
            _row(f"scene {index + 1}", way.replace("eight", "colour by reference:"), cell)
            for way, cells in scene_by_scene.items()
            for index, cell in enumerate(cells)
        ]
        drawn["claims-extension.svg"] = interval_plot(rows, unit="%")
    return drawn


def _row(label: str, group: str, cell: Mapping[str, Any]) -> Row:
    low, high = cell["interval"] or (None, None)
    return Row(label, group, 100 * cell["value"], None if low is None else 100 * low, None if high is None else 100 * high)


def page_part(result: Mapping[str, Any]) -> str:
    """What stands between the marks of docs/results.md."""
    found, where = result["measures"], result["machine"]
    verdicts = {True: "shown", False: "refuted", None: "not shown"}
    lines = [
        f"{result['stories']} held-out stories, two tellings of each, level A · {where['cpu']}, {where['cores']} cores · {result['date']}",
        f"· {result['parameters'] / 1e6:.1f} M parameters · judge level A.",
        "",
        "| claim | verdict | numbers |",
        "|---|---|---|",
        *(f"| {claim} | **{verdicts[shown]}** | {numbers} |" for claim, shown, numbers in claims(found)),
        "",
        "### The five plans",
        "",
        "![The plans side by side](images/claims-plans.svg)",
        "",
        *table_lines(found, [name for name in (*PLANS, "one by one") if name in found], (*ALIGNMENT, *LEAKAGE, *COHERENCE, "trait: size")),
        "",
        "### With and without SFT",
        "",
        "![With and without SFT](images/claims-sft.svg)",
        "",
        *table_lines(found, ["symmetric", "symmetric, no SFT", "full", "full, no SFT"], (*ALIGNMENT, *LEAKAGE, *COHERENCE, "trait: size")),
    ]
    if "eight by extension" in found:
        lines += [
            "",
            "### Eight scenes: at once, or by extension (scenes 4 to 8)",
            "",
            "![Scene by scene](images/claims-extension.svg)",
            "",
            *table_lines(found, ["eight jointly", "eight by extension"], (*ALIGNMENT, *COHERENCE)),
        ]
    return "\n".join(lines)


MARKS = ("<!-- claims: written by benchmarks/claims.py -->", "<!-- end of claims -->")


def write_page(part: str) -> None:
    """Put the part between its marks."""
    text = PAGE.read_text(encoding="utf-8")
    before, _, rest = text.partition(MARKS[0])
    after = rest.partition(MARKS[1])[2]
    with written_aside(PAGE) as aside:
        aside.write_text(f"{before}{MARKS[0]}\n\n{part}\n\n{MARKS[1]}{after}", encoding="utf-8")


def main(arguments: Sequence[str] | None = None) -> None:
    """Train, film, measure, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=Path, default=Path("runs/claims-a"))
    parser.add_argument("--seeds", type=int, default=1, help="trainings of each plan; the first is 6")
    parser.add_argument("--stories", type=int, default=len(HELD_OUT_SEEDS))
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--only-train", action="store_true")
    parser.add_argument("--only-film", nargs="+", metavar="VARIANT", help="film these and stop; several such commands may run side by side")
    parser.add_argument("--out", type=Path, default=RESULTS / "claims-A.json")
    parser.add_argument("--no-page", action="store_true", help="leave docs/results.md and its plots as they are")
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    runs, seeds = options.runs.resolve(), [6 + index for index in range(options.seeds)]
    judge, stories = load_judge(), list(HELD_OUT_SEEDS[: options.stories])
    for variant in variants(seeds) if options.only_film else ():
        if variant.name in options.only_film:
            film(variant, runs, judge, stories)
    if options.only_film:
        return
    minutes = train(runs, seeds, options.threads)
    if options.only_train:
        return
    films = {variant.name: film(variant, runs, judge, stories) for variant in variants(seeds)}
    found, scene_by_scene = summarised(films), by_scene(films, "by reference: colour")
    transformer = load_pipeline(runs / "symmetric" / "sft" / "model").transformer
    result = {
        "date": time.strftime("%Y-%m-%d"),
        "machine": machine(),
        "stories": len(stories),
        "parameters": sum(parameter.numel() for parameter in transformer.parameters()),
        "cpu_minutes_of_this_run": minutes,
        "judge": judge.accuracy,
        "measures": found,
        "claims": [{"claim": claim, "shown": shown, "numbers": numbers} for claim, shown, numbers in claims(found)],
        "scene_by_scene": scene_by_scene,
    }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    for claim, shown, numbers in claims(found):
        print(f"{'shown' if shown else 'refuted' if shown is False else 'not shown':10} {claim}\n{'':10} {numbers}")
    if not options.no_page:
        for name, svg in plots(found, scene_by_scene).items():
            (IMAGES / name).write_text(svg, encoding="utf-8")
        write_page(page_part(result))


if __name__ == "__main__":
    main()
