"""A scene made again in its own place, against in last place behind the others: what the judge reads in both, and what changes.

    python benchmarks/remake.py --stories 32

Weights that were trained to make the last scene only (`known_sets: last`) get the scene to be made in last place, and the film's order is
restored afterwards. The built-in model can do both, so that both can be measured on the same stories: validation stories with captions by
reference, in which one caption names the hero's colour. Each of the three scenes is made again with the two others known.
"""

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from mask2dit.loading import load_pipeline
from mask2dit.playhouse.facts import VALIDATION_SEEDS
from mask2dit.playhouse.judge import load_judge
from mask2dit.production import scene_generator
from playhouse import machine, share_of, tell

SEED = 1000  # of the second making, beside the story's own


def main() -> None:
    """Film, make again, read, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stories", type=int, default=32)
    parser.add_argument("--steps", type=int)
    parser.add_argument("--model")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    pipeline, judge = load_pipeline(options.model), load_judge()
    answers: dict[str, dict[str, list[bool]]] = {way: {} for way in ("jointly", "in place", "in last place")}
    for done, seed in enumerate(VALIDATION_SEEDS[: options.stories]):
        sys.stderr.write(f"\rstory {done + 1}/{options.stories} ")
        told = tell(seed, "A", "by-reference")
        generators = [scene_generator(seed, number) for number in (1, 2, 3)]
        scenes = made(pipeline, told.captions, {}, generators, options.steps)
        before = judge.read([pipeline.decode_scene(scene) for scene in scenes])
        count(answers["jointly"], told, before, before, range(3))
        for way in ("in place", "in last place"):
            again = list(scenes)
            for index in range(3):
                again[index] = remade(pipeline, told.captions, scenes, index, way, options.steps, seed)
            count(answers[way], told, before, judge.read([pipeline.decode_scene(scene) for scene in again]), range(3))
    measures = {way: {name: share_of(found) for name, found in table.items()} for way, table in answers.items()}
    print(f"\n{options.stories} validation stories, captions by reference; 95 % intervals · {machine()['cpu']}")
    for way, table in measures.items():
        for name, value in table.items():
            print(f"{way:14} {name:42} {value.value:7.1%}  {value.low:.1%} to {value.high:.1%}  of {value.count}")
    if options.out is not None:
        found = {way: {name: asdict(value) for name, value in table.items()} for way, table in measures.items()}
        options.out.write_text(json.dumps({"machine": machine(), "stories": options.stories, "measures": found}, indent=1) + "\n")


def made(pipeline: Any, captions: Any, known: Any, generators: Any, steps: int | None) -> list[Any]:
    """Latents of a call's scenes."""
    return list(pipeline(list(captions), known_scenes=known, generator=generators, num_inference_steps=steps, output_type="latent").scenes)


def remade(pipeline: Any, captions: Any, scenes: list[Any], index: int, way: str, steps: int | None, seed: int) -> Any:
    """One scene with the two others known, in film order or behind them."""
    others = [other for other in range(3) if other != index]
    order = [*others, index] if way == "in last place" else [0, 1, 2]
    generators = [scene_generator(seed + SEED, other + 1) for other in order]
    known = {place: scenes[other] for place, other in enumerate(order) if other != index}
    return made(pipeline, [captions[other] for other in order], known, generators, steps)[order.index(index)]


def count(table: dict[str, list[bool]], told: Any, before: Any, readings: Any, indices: Any) -> None:
    """What is right in each scene, and whether its hero is that of the two others as they were."""
    for index in indices:
        stage, reading = told.story.stages[index], readings[index]
        hero = told.story.actors[stage.roles[0].actor]
        others = [before[other] for other in range(3) if other != index]
        table.setdefault("place right", []).append(reading.place == stage.place)
        table.setdefault("light right", []).append(reading.light == stage.light)
        table.setdefault("colour right", []).append(reading.main.colour == hero.colour)
        table.setdefault("same colour as each of the other scenes", []).extend(reading.main.colour == other.main.colour for other in others)


if __name__ == "__main__":
    main()
