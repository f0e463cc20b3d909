"""The stages of the built-in model side by side: the same story and the same noise after base, after pretrain, and after sft.

`python benchmarks/stages.py base=runs/playhouse-a/base/model pretrain=runs/playhouse-a/pretrain/model sft --picture docs/images/stages.png`

A name without a folder is the built-in model. Captions are by reference: one scene names the hero's colour, the others only say "the fox".
The table counts, over validation stories, in how many pairs of scenes the hero stays the same, and how often the truth is shown.
The paper's baseline, scenes made one by one, is the first model under the plan `isolated` (`base@isolated=FOLDER`).
"""

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from itertools import combinations
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from mask2dit.film import enlarge
from mask2dit.loading import load_pipeline
from mask2dit.playhouse.facts import VALIDATION_SEEDS
from mask2dit.playhouse.judge import load_judge
from playhouse import Film, Measure, machine, make_film, share_of, tell

PAPER, INK, GREY = "#f7f5f0", "#26241f", "#8d887c"
MARGIN, GAP, LABEL, CAPTION = 36, 8, 150, 64


def kept(films: Sequence[Film], attribute: str) -> Measure:
    """Over all pairs of scenes of a film: whether the hero has the same value in both, right or not."""
    return share_of(
        getattr(one.main, attribute) == getattr(other.main, attribute) for film in films for one, other in combinations(film.readings, 2)
    )


def followed(films: Sequence[Film], attribute: str) -> Measure:
    """Over all scenes: whether what the caption names is what the judge reads."""
    return share_of(
        getattr(reading, attribute) == getattr(stage, attribute)
        if attribute in ("place", "light")
        else getattr(reading.main, attribute) == getattr(film.told.story.actors[stage.roles[0].actor], attribute)
        for film in films
        for _, stage, reading in film.scenes()
    )


def picture(rows: Sequence[tuple[str, Film]]) -> Image.Image:
    """One row per stage and story, three pictures of every scene in it; captions above each story."""
    height, width, _ = rows[0][1].pictures[0][0].shape
    scale = 2 if width < 200 else 1
    height, width = height * scale, width * scale
    scene_width = 3 * width + 2 * GAP
    stories = list(dict.fromkeys(film.told.story.seed for _, film in rows))
    sheet_height = 2 * MARGIN + len(stories) * CAPTION + len(rows) * (height + GAP)
    sheet = Image.new("RGB", (2 * MARGIN + LABEL + 3 * scene_width + 4 * GAP * 2, sheet_height), PAPER)
    draw, top = ImageDraw.Draw(sheet), MARGIN
    for seed in stories:
        told = next(film.told for _, film in rows if film.told.story.seed == seed)
        for scene, caption in enumerate(told.captions):
            draw.text((_left(scene, scene_width), top + 12), _fit(caption, scene_width), INK, ImageFont.load_default(19))
        top += CAPTION
        for name, film in rows:
            if film.told.story.seed != seed:
                continue
            draw.text((MARGIN, top + height / 2 - 14), name, INK, ImageFont.load_default(22))
            for scene, pictures in enumerate(film.pictures):
                for column, index in enumerate((0, len(pictures) // 2, len(pictures) - 1)):
                    place = (_left(scene, scene_width) + column * (width + GAP), top)
                    sheet.paste(Image.fromarray(enlarge(pictures[index], scale)), place)
            top += height + GAP
    return sheet


def _left(scene: int, scene_width: int) -> int:
    return MARGIN + LABEL + scene * (scene_width + 3 * GAP)


def _fit(caption: str, width: int) -> str:
    font = ImageFont.load_default(19)
    while font.getlength(caption) > width:
        caption = caption[:-2].rstrip(" .…") + "…"
    return caption


def main(arguments: Sequence[str] | None = None) -> int:
    """Film, read, print the table, draw the picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", metavar="NAME[@PLAN][=FOLDER]")
    parser.add_argument("--stories", type=int, default=8)
    parser.add_argument("--shown", type=int, default=2, help="stories in the picture")
    parser.add_argument("--steps", type=int)
    parser.add_argument("--guidance", type=float)
    parser.add_argument("--level", default="A")
    parser.add_argument("--picture", type=Path)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args(arguments)
    judge = load_judge()
    rows: list[tuple[str, Film]] = []
    table = {}
    for given in options.models:
        label, _, folder = given.partition("=")
        plan = label.partition("@")[2]
        pipeline = load_pipeline(folder or None, plan=plan or None)
        films = []
        for done, seed in enumerate(VALIDATION_SEEDS[: options.stories]):
            sys.stderr.write(f"\r{label}: story {done + 1}/{options.stories} ")
            films.append(make_film(pipeline, judge, tell(seed, options.level, "by-reference"), options, keep=done < options.shown))
        rows += [(label.replace("@", "\n"), film) for film in films[: options.shown]]
        table[label] = {f"same {key}": kept(films, key) for key in ("colour", "species")}
        table[label] |= {f"right {key}": followed(films, key) for key in ("colour", "species", "place", "light")}
    rows.sort(key=lambda row: row[1].told.story.seed)
    print(f"\n\n{options.stories} validation stories, captions by reference; 95 % intervals · {machine()['cpu']}")
    for label, measures in table.items():
        for key, value in measures.items():
            print(f"{label:16} {key:14} {value.value:7.1%}  {value.low:.1%} to {value.high:.1%}  of {value.count}")
    if options.picture is not None:
        options.picture.parent.mkdir(parents=True, exist_ok=True)
        picture(rows).save(options.picture)
    if options.out is not None:
        found = {label: {key: asdict(value) for key, value in measures.items()} for label, measures in table.items()}
        options.out.write_text(json.dumps({"machine": machine(), "stories": options.stories, "measures": found}, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
