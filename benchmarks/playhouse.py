"""The measured table of a playhouse model: two films of every held-out story, read by the judge.

`python benchmarks/playhouse.py --out benchmarks/results/playhouse-A.json --sheet films.png --reference`

Every story is filmed twice with the same noise: from self-contained captions, and from captions of which one names an
actor's colour and the others say "the fox". Shares have 95 % Wilson intervals over scenes; scenes of one film are not
independent of each other, so the true intervals are somewhat wider.
"""

import argparse
import datetime
import hashlib
import json
import math
import os
import platform
import random
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from mask2dit.errors import Mask2DiTError
from mask2dit.film import SheetRow, contact_sheet, enlarge, frames_to_bytes, pick
from mask2dit.loading import builtin_model, load_pipeline
from mask2dit.pipeline import Mask2DiTPipeline
from mask2dit.playhouse.captions import CaptionedStory, tell_story
from mask2dit.playhouse.facts import LARGE_HELD_OUT_SEEDS, LEVELS, VALIDATION_SEEDS, draw_story
from mask2dit.playhouse.judge import ActorReading, Judge, Reading, builtin_judge, is_visible, load_judge
from mask2dit.playhouse.render import render_scenes
from mask2dit.playhouse.staging import scene_visibility
from mask2dit.production.seeds import scene_generator

RESULTS = Path(__file__).parent / "results"
TARGETS = {
    "own caption: species": "≥ 95 %",
    "own caption: colour": "≥ 95 %",
    "own caption: action": "≥ 90 %",
    "own caption: place": "≥ 95 %",
    "own caption: light": "≥ 95 %",
    "by reference: colour": "≥ 90 %",
    "leak: place": "≤ 2 %",
    "leak: light": "≤ 2 %",
    "leak: action": "≤ 2 %",
    "trait: size": "≥ 0.8",
}
JUDGE_TARGETS = {"species": 0.99, "colour": 0.99, "place": 0.99, "light": 0.99}
JUDGE_TARGET = 0.97  # of every other attribute
TRAIT_TARGET = 0.9  # correlation with the truth; two readings of one trait then correlate by its square, about 0.8


def wilson(hits: int, asked: int, deviations: float = 1.959964) -> tuple[float, float]:
    """The Wilson score interval of a share; (0, 1) where nothing was asked."""
    if asked == 0:
        return 0.0, 1.0
    share, spread = hits / asked, deviations**2 / asked
    middle = (share + spread / 2) / (1 + spread)
    half = deviations * math.sqrt(share * (1 - share) / asked + spread / (4 * asked)) / (1 + spread)
    return max(middle - half, 0.0), min(middle + half, 1.0)


@dataclass(frozen=True, slots=True)
class Measure:
    """One number of the table, its 95 % interval, and of how many scenes (traits: stories) it was taken."""

    value: float
    low: float
    high: float
    count: int


def share_of(answers: Iterable[bool]) -> Measure:
    """The share of yes."""
    listed = list(answers)
    return Measure(sum(listed) / len(listed) if listed else math.nan, *wilson(sum(listed), len(listed)), len(listed))


@dataclass(frozen=True, slots=True)
class Film:
    """One story as told and as read; `pictures` only where a sheet shows them."""

    told: CaptionedStory
    readings: Sequence[Reading]
    pictures: Sequence[Sequence[NDArray[np.uint8]]] = ()

    def scenes(self) -> Iterator[tuple[int, Any, Reading]]:
        """(index, stage, reading)."""
        return ((index, stage, self.readings[index]) for index, stage in enumerate(self.told.story.stages))

    def actors(self, index: int) -> dict[int, ActorReading]:
        """Who on screen plays which actor: by species, and whoever is left over plays whoever is missing."""
        story, roles = self.told.story, self.told.story.stages[index].roles
        wanted = {story.actors[role.actor].species: role.actor for role in roles}
        leading = self.readings[index].leading(len(roles))
        playing = {wanted[read.species]: read for read in leading if read.species in wanted}
        left = [read for read in leading if read.species not in wanted]
        return playing | dict(zip((actor for actor in wanted.values() if actor not in playing), left, strict=True))

    def asked(self, index: int, attribute: str) -> list[tuple[str, str]]:
        """(true, read) of every actor of a scene of whom the attribute could be seen in a true film."""
        story, playing = self.told.story, self.actors(index)
        pairs = []
        for seen in scene_visibility(story, index):
            if is_visible(seen, attribute):
                truth = seen.action if attribute == "action" else getattr(story.actors[seen.actor], attribute)
                pairs.append((truth, getattr(playing[seen.actor], attribute)))
        return pairs


def measure(attributes: Sequence[str], own: Sequence[Film], referring: Sequence[Film]) -> dict[str, Measure]:
    """The table: films of self-contained captions, and films of captions by reference."""
    table = {}
    for name in attributes:
        table[f"own caption: {name}"] = share_of(truth == read for film in own for truth, read in _pairs(film, name))
    unnamed = [(film, index, actor) for film in referring for index in range(len(film.readings)) for actor in _unnamed(film, index)]
    for name in ("colour", "species"):
        table[f"by reference: {name}"] = share_of(
            getattr(film.actors(index)[actor], name) == getattr(film.told.story.actors[actor], name) for film, index, actor in unnamed
        )
    for name in ("place", "light", "action"):
        table[f"leak: {name}"] = share_of(leaked for film in (*own, *referring) for leaked in leaks(film, name))
    for trait in ("size", "width"):
        table[f"trait: {trait}"] = trait_law([*own, *referring], trait)
    return table


def _pairs(film: Film, attribute: str) -> Iterator[tuple[str, str]]:
    """(true, read) over a film's scenes, of its actors or of what is around them."""
    for index, stage, reading in film.scenes():
        if attribute in ("species", "colour", "accessory", "action"):
            yield from film.asked(index, attribute)
        else:
            yield getattr(stage, attribute), getattr(reading, attribute)


def _unnamed(film: Film, index: int) -> list[int]:
    """Actors of a scene whose colour its caption does not name, though another's does."""
    seen = scene_visibility(film.told.story, index)
    return [role.actor for role in seen if is_visible(role, "colour") and (role.actor, "colour") not in film.told.named[index]]


def leaks(film: Film, attribute: str) -> Iterator[bool]:
    """For every scene of which another scene's value differs: whether that is what it shows."""
    values = [
        {role.action for role in stage.roles} if attribute == "action" else {getattr(stage, attribute)} for stage in film.told.story.stages
    ]
    for index, _, reading in film.scenes():
        elsewhere = set().union(*values[:index], *values[index + 1 :]) - values[index]
        if elsewhere and attribute == "action":
            yield from (read in elsewhere for _, read in film.asked(index, "action"))
        elif elsewhere:
            yield getattr(reading, attribute) in elsewhere


def trait_law(films: Sequence[Film], trait: str) -> Measure:
    """Correlation, between the scenes of a film, of what the judge estimates of a trait that no caption names.

    The mean of each species is taken off, or films of different species alone would correlate.
    """
    estimates: dict[str, list[list[float]]] = {}
    for film in films:
        for number, actor in enumerate(film.told.story.actors):
            told = [film.actors(index).get(number) for index in range(len(film.readings))]
            estimates.setdefault(actor.species, []).append([read.traits[trait] for read in told if read is not None])
    pairs = []
    for group in estimates.values():
        mean = np.mean([value for values in group for value in values])
        pairs += [
            (a - mean, b - mean) for values in group for one, other in combinations(values, 2) for a, b in ((one, other), (other, one))
        ]
    count = len({film.told.story.seed for film in films})  # both films of a story have the same noise
    if len(pairs) < 2 or count < 4:
        return Measure(math.nan, -1.0, 1.0, count)
    value = float(np.corrcoef(np.array(pairs).T)[0, 1])
    turned, half = math.atanh(min(max(value, -0.999999), 0.999999)), 1.959964 / math.sqrt(count - 3)  # Fisher's z
    return Measure(value, math.tanh(turned - half), math.tanh(turned + half), count)


def tell(seed: int, level: str, style: str) -> CaptionedStory:
    """The story of a seed in the words that every table uses."""
    return tell_story(draw_story(seed, level), random.Random(f"playhouse/table/{seed}/{style}"), style)


def make_film(pipeline: Mask2DiTPipeline, judge: Judge, told: CaptionedStory, options: argparse.Namespace, keep: bool) -> Film:
    """Film a story with the noise that `mask2dit generate --seed` would use, and read it."""
    generators = [scene_generator(told.story.seed, number) for number in range(1, len(told.captions) + 1)]
    scenes = pipeline(
        list(told.captions), generator=generators, num_inference_steps=options.steps, guidance_scale=options.guidance, output_type="np"
    ).scenes
    return Film(told, judge.read(scenes), [pick(frames_to_bytes(frames)) for frames in scenes] if keep else ())


def make_reference(pipeline: Mask2DiTPipeline, judge: Judge, told: CaptionedStory) -> Film:
    """The true film after the autoencoder's round trip, read: what the judge and the autoencoder leave attainable."""
    values = pipeline.values
    wanted = [(told.story, index) for index in range(len(told.captions))]
    frames = render_scenes(wanted, num_frames=values.num_frames, height=values.height, width=values.width)
    return Film(told, judge.read([pipeline.decode_scene(pipeline.encode_scene(clip)) for clip in frames]))


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Make, read and measure everything that the options ask for."""
    pipeline, judge = load_pipeline(options.model, plan=options.plan), load_judge(options.judge)
    seeds = (VALIDATION_SEEDS if options.validation else LARGE_HELD_OUT_SEEDS)[: options.stories]
    began = time.monotonic()
    films: dict[str, list[Film]] = {"self-contained": [], "by-reference": []}
    for done, seed in enumerate(_with_progress(seeds, "stories")):
        for style, made in films.items():
            keep = options.sheet is not None and style == "self-contained" and done < 8
            made.append(make_film(pipeline, judge, tell(seed, options.level, style), options, keep))
    film_seconds = (time.monotonic() - began) / (2 * len(seeds))
    reference = None
    if options.reference:
        true = [
            make_reference(pipeline, judge, tell(seed, options.level, "self-contained")) for seed in _with_progress(seeds, "references")
        ]
        referring = [Film(tell(film.told.story.seed, options.level, "by-reference"), film.readings) for film in true]
        reference = measure(judge.attributes, true, referring)
    if options.sheet is not None:
        _sheet(films["self-contained"][:8], pipeline, options)
    table = measure(judge.attributes, films["self-contained"], films["by-reference"])
    values = pipeline.values
    return {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "machine": machine(),
        "model": {"name": options.model.name if options.model else "built-in", "digest": digest(options.model or builtin_model())},
        "judge": {"digest": digest(options.judge or builtin_judge()), "level": judge.level, "accuracy": judge.accuracy},
        "level": options.level,
        "plan": options.plan or pipeline.transformer.config.attention_plan,
        "steps": options.steps or values.num_inference_steps,
        "guidance": values.guidance_scale if options.guidance is None else options.guidance,
        "seeds": [seeds[0], seeds[-1]],
        "stories": len(seeds),
        "wall_seconds": round(time.monotonic() - began, 1),
        "seconds_per_film": round(film_seconds, 2),
        "measures": {name: asdict(value) for name, value in table.items()},
        "reference": reference and {name: asdict(value) for name, value in reference.items()},
    }


def _with_progress(seeds: range, what: str) -> Iterator[int]:
    began = time.monotonic()
    for done, seed in enumerate(seeds, start=1):
        yield seed
        spent = time.monotonic() - began
        left = spent / done * (len(seeds) - done)
        sys.stderr.write(f"\r{what} {done}/{len(seeds)}  {spent / done:.1f} s each, {left / 60:.1f} min left ")
        sys.stderr.flush()
    sys.stderr.write("\n")


def _sheet(films: Sequence[Film], pipeline: Mask2DiTPipeline, options: argparse.Namespace) -> None:
    """A picture of the first films: their captions, and below them what the judge read."""
    rows = []
    for film in films:
        for index, _, reading in film.scenes():
            read = " and ".join(f"{actor.colour} {actor.species} {actor.action}" for actor in film.actors(index).values())
            note = f"story {film.told.story.seed}, scene {index + 1} · judge: {read} · {reading.place} · {reading.light}"
            rows.append(SheetRow([enlarge(picture, 2) for picture in film.pictures[index]], film.told.captions[index], note))
    subtitle = f"level {options.level} · {options.steps or pipeline.values.num_inference_steps} steps"
    options.sheet.parent.mkdir(parents=True, exist_ok=True)
    contact_sheet("Held-out stories" if not options.validation else "Validation stories", subtitle, rows).save(options.sheet)


def machine() -> dict[str, Any]:
    """What the numbers were made on."""
    names = [line.split(":")[1].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")]
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {
        "platform": platform.platform(),
        "cpu": names[0] if names else platform.processor(),
        "cores": cores,
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
    }


def _lines(path: str) -> list[str]:
    return Path(path).read_text(encoding="utf-8").splitlines() if Path(path).exists() else []


def digest(folder: Path) -> str:
    """Of all weights in a folder."""
    found = hashlib.sha256()
    for path in sorted(folder.rglob("*.safetensors")):
        found.update(path.relative_to(folder).as_posix().encode() + path.read_bytes())
    return found.hexdigest()[:12]


def table_lines(result: dict[str, Any]) -> Iterator[str]:
    """The table as people read it; "judge" is what the judge reads in true films, or its own accuracy."""
    where = result["machine"]
    yield f"{where['platform']} · {where['cpu']} · {where['cores']} cores, {where['threads']} threads · torch {where['torch']}"
    model = result["model"]
    yield f"model {model['name']} {model['digest']} · judge {result['judge']['digest']} · level {result['level']} · plan {result['plan']}"
    stories = f"{result['stories']} stories ({result['seeds'][0]} to {result['seeds'][1]})"
    yield f"{result['steps']} steps · guidance {result['guidance']} · {stories}"
    yield f"{result['seconds_per_film']} s a film · {result['wall_seconds']} s in all · {result['date']}"
    yield ""
    yield f"{'measure':24} {'value':>7}  {'95 % interval':17} {'of':>5}  {'judge':>7}  target"
    accuracy = result["judge"]["accuracy"]
    for name, found in result["measures"].items():
        written: Callable[[float], str] = _number if name.startswith("trait") else _percent
        interval = f"{written(found['low'])} to {written(found['high'])}"
        ceiling, doubt = _ceiling(name, result["reference"], accuracy)
        yield (
            f"{name:24} {written(found['value']):>7}  {interval:17} {found['count']:>5}  {ceiling:>7}  {TARGETS.get(name, ''):7}"
            + (" (the judge is below its own target: no claim)" if doubt else "")
        ).rstrip()


def _ceiling(name: str, reference: dict[str, Any] | None, accuracy: dict[str, Any]) -> tuple[str, bool]:
    """What the judge reaches on true films, and whether that is too little for a claim."""
    kind, attribute = name.split(": ")
    own = accuracy.get("round_trip") or accuracy.get("clean") or {}
    known = own.get(f"{attribute} (correlation)" if kind == "trait" else attribute)
    doubt = known is not None and known < (TRAIT_TARGET if kind == "trait" else JUDGE_TARGETS.get(attribute, JUDGE_TARGET))
    if reference is not None:
        return (_number if kind == "trait" else _percent)(reference[name]["value"]), doubt
    return ("" if known is None or kind in ("trait", "leak") else _percent(known)), doubt


def _percent(value: float) -> str:
    return f"{100 * value:.1f} %"


def _number(value: float) -> str:
    return f"{value:.2f}"


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The options; see --help."""
    parser = argparse.ArgumentParser(description="Measure a playhouse model on held-out stories.")
    parser.add_argument("--model", type=Path, help="model folder; the built-in one where left out")
    parser.add_argument("--judge", type=Path, help="judge folder; the built-in one where left out")
    parser.add_argument("--stories", type=int, default=64, help="how many (1 to 200)")
    parser.add_argument("--validation", action="store_true", help="validation stories, for choosing guidance or steps")
    parser.add_argument("--level", choices=sorted(LEVELS), default="A")
    parser.add_argument("--steps", type=int, help="denoising steps; the model's own where left out")
    parser.add_argument("--guidance", type=float, help="guidance scale; the model's own where left out")
    parser.add_argument("--plan", help="attention plan; the model's own where left out")
    parser.add_argument("--threads", type=int, help="CPU threads")
    parser.add_argument("--reference", action="store_true", help="also read true films after the autoencoder's round trip")
    parser.add_argument("--out", type=Path, help="results as JSON; benchmarks/results/playhouse-LEVEL.json where left out")
    parser.add_argument("--sheet", type=Path, help="PNG of the first eight films")
    options = parser.parse_args(arguments)
    if not 1 <= options.stories <= len(LARGE_HELD_OUT_SEEDS):
        parser.error(f"--stories: got {options.stories}, expected 1 to {len(LARGE_HELD_OUT_SEEDS)}")
    options.out = options.out or RESULTS / f"playhouse-{options.level}{'-validation' if options.validation else ''}.json"
    return options


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print the table, write the results."""
    options = parse(arguments)
    if options.threads:
        torch.set_num_threads(options.threads)
    try:
        result = run(options)
    except Mask2DiTError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(result, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    sys.stdout.write("\n".join(table_lines(result)) + f"\n\nwritten: {options.out}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
