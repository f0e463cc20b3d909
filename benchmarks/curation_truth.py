"""How well `mask2dit curate` finds what is known: cuts, dissolves, which shots belong together, and what captions say.

    python benchmarks/curation_truth.py --minutes 30 --out benchmarks/results/curation-truth.json

Curates the footage of `curation_footage.py` by the command itself and compares its rows with the truth. Playhouse footage is grouped and
captioned by the judge; foreign footage is grouped by colours, which is weak: stories there have palettes of their own to make it possible.
A hard cut counts as found within a frame of its place; what is reported in a dissolve or a fade (or a frame beside it), or at a flash, is
false. A shot that was found stands for the true one that it shares most frames with. `--folder` keeps footage, sets and their reports.
"""

import argparse
import datetime
import json
import math
import os
import platform
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from curation_comparison import NAMED, compared, read_found
from curation_footage import FOREIGN, PLAYHOUSE, Reel, Take, foreign_takes, playhouse_takes, write_reel

from mask2dit.evaluation.statistics import statistic_interval

TARGETS = {"cuts F1": 0.98, "groups precision": 0.95, "groups recall": 0.90}
SHORTEST, LONGEST = 0.8, 10.0  # seconds of a shot; pieces are as short as these allow
PIECE_MINUTES = 20 * LONGEST / 60
SHARED = ("--min-seconds", str(SHORTEST), "--max-seconds", str(LONGEST), "--piece-minutes", str(PIECE_MINUTES), "--offline")
BY_JUDGE = ("--extractor", "judge", "--captioner", "judge")
BY_COLOURS = ("--extractor", "colours")


def curated(footage: Path, output: Path, options: Sequence[str]) -> float:
    """Run the command. Returns its seconds; raises RuntimeError with what it said if it did not do all."""
    from typer.testing import CliRunner

    from mask2dit.cli.main import app

    began = time.perf_counter()
    result = CliRunner().invoke(app, ["curate", str(footage), "-o", str(output), *SHARED, *options])
    if result.exit_code:
        raise RuntimeError(f"mask2dit curate ended with {result.exit_code}: {result.output}") from result.exception
    return time.perf_counter() - began


# Figures


def wilson(hits: int, count: int) -> tuple[float, float]:
    """The 95 % interval of a share."""
    if not count:
        return 0.0, 1.0
    square = 1.96**2
    middle, half = hits + square / 2, 1.96 * math.sqrt(hits * (count - hits) / count + square / 4)
    return (middle - half) / (count + square), (middle + half) / (count + square)


def cut_sums(results: Iterable[Mapping[str, Any]]) -> dict[str, int]:
    rows = [each["cuts"] for each in results]
    false = {kind: sum(len(row[kind]) for row in rows) for kind in ("false_in_joins", "false_at_flashes", "false_elsewhere")}
    counts = {"true": sum(row["true"] for row in rows), "hits": sum(row["hits"] for row in rows)}
    return counts | {"one_off": sum(row["one_off"] for row in rows)} | false


def f1(results: Sequence[Mapping[str, Any]]) -> float:
    sums = cut_sums(results)
    false = sum(value for kind, value in sums.items() if kind.startswith("false"))
    told = sums["true"] + sums["hits"] + false
    return 2 * sums["hits"] / told if told else 1.0


def figures(results: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Shares over all videos: their value, of how many, and a 95 % interval; that of F1 by drawing videos again."""
    each = list(results.values())
    sums = cut_sums(each)
    reported = sum(value for kind, value in sums.items() if kind not in ("true", "one_off"))
    pairs = {
        name: sum(row["pairs"][name] for row in each)
        for name in ("hits", "false", "missed", "groups", "groups_of_one_story", "neighbours", "neighbours_related")
    }
    joins = {name: sum(row["joins"][name] for row in each) for name in ("dissolves", "dissolves_found", "fades", "fades_found")}
    captions = {name: sum(row["captions"][name] for row in each) for name in ("captions", "groups", "alike", "true")}
    right, why = Counter[str](), Counter[str]()
    for row in each:
        right.update(row["captions"]["right"])
        why.update(row["pairs"]["missed_because"])
    interval = statistic_interval(f1(each), len(each), lambda drawn: f1([each[index] for index in drawn]))
    shares = {
        "cuts precision": (sums["hits"], reported),
        "cuts recall": (sums["hits"], sums["true"]),
        "dissolves found": (joins["dissolves_found"], joins["dissolves"]),
        "fades found": (joins["fades_found"], joins["fades"]),
        "groups precision": (pairs["hits"], pairs["hits"] + pairs["false"]),
        "groups recall": (pairs["hits"], pairs["hits"] + pairs["missed"]),
        "groups recall, but for halves of one shot": (pairs["hits"], pairs["hits"] + pairs["missed"] - why["one shot in two"]),
        "all true neighbours: related": (pairs["neighbours_related"], pairs["neighbours"]),
        "groups of one story": (pairs["groups_of_one_story"], pairs["groups"]),
        **{f"captions name the {name}": (right[name], captions["captions"]) for name in NAMED},
        "captions of a group name one character": (captions["alike"], captions["groups"]),
        "captions of a group name the true one": (captions["true"], captions["groups"]),
    }
    found: dict[str, dict[str, Any]] = {"cuts F1": {"value": f1(each), "of": sums["true"], "interval": interval}}
    for name, (hits, count) in shares.items():
        if count:
            found[name] = {"value": hits / count, "of": count, "interval": wilson(hits, count)}
    for name, count in why.most_common():
        found[f"pairs missed: {name}"] = {"value": count}
    found["dissolves reported where none is"] = {"value": sum(len(row["joins"]["false"]) for row in each)}
    found["frames decoded per frame"] = {
        "value": sum(row["decoded_per_frame"] * row["frames"] for row in each) / sum(row["frames"] for row in each)
    }
    return found


# Showing

_CUTS = ("video", "fps", "minutes", "cuts", "hits", "1 off", "missed", "in joins", "flashes", "else", "F1", "decoded")
_SHOTS = (
    "video",
    "dissolves",
    "fades",
    "false",
    "shots",
    "found",
    "prec.",
    "recall",
    "groups",
    "of one story",
    "dropped: planted",
    "others",
)


def tables(results: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Two tables of all videos."""
    cuts, shots = [_CUTS], [_SHOTS]
    for name, row in results.items():
        cut, joins, pairs, checks = row["cuts"], row["joins"], row["pairs"], row["checks"]
        false = (len(cut[kind]) for kind in ("false_in_joins", "false_at_flashes", "false_elsewhere"))
        numbers = (cut["true"], cut["hits"], cut["one_off"], len(cut["missed"]), *false)
        minutes = row["frames"] / row["fps"] / 60
        cuts.append(
            (name, f"{row['fps']:.4g}", f"{minutes:.1f}", *map(str, numbers), f"{f1([row]):.3f}", f"{row['decoded_per_frame']:.3f}")
        )
        shots.append(
            (
                name,
                f"{joins['dissolves_found']}/{joins['dissolves']}",
                f"{joins['fades_found']}/{joins['fades']}",
                str(len(joins["false"])),
                str(row["shots"]),
                str(row["shots_found"]),
                _share(pairs["hits"], pairs["hits"] + pairs["false"]),
                _share(pairs["hits"], pairs["hits"] + pairs["missed"]),
                str(pairs["groups"]),
                str(pairs["groups_of_one_story"]),
                ", ".join(f"{kind} {checks['found'][kind]}/{count}" for kind, count in checks["planted"].items()) or "–",
                ", ".join(f"{kind} {count}" for kind, count in checks["others"].items()) or "–",
            )
        )
    return [*_aligned(cuts), "", *_aligned(shots)]


def _share(hits: int, count: int) -> str:
    return f"{hits / count:.3f}" if count else "–"


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [f"{row[0]:{widths[0]}}  " + "  ".join(map(str.rjust, row[1:], widths[1:])) for row in rows]


def figure_lines(found: Mapping[str, Mapping[str, Any]], targets: Mapping[str, float]) -> list[str]:
    lines = []
    for name, figure in found.items():
        told = f"{figure['value']:.3f}" if isinstance(figure["value"], float) else str(figure["value"])
        if figure.get("interval"):
            told += " ({:.3f} to {:.3f}".format(*figure["interval"]) + f", of {figure['of']})"
        if name in targets:
            told += f"   target ≥ {targets[name]}: {'met' if figure['value'] >= targets[name] else 'missed'}"
        lines.append(f"  {name:42}{told}")
    return lines


# Both kinds of footage


def measured(footage: Path, output: Path, reels: Iterable[tuple[Reel, Sequence[Take]]], options: Sequence[str]) -> dict[str, Any]:
    """Film, curate, compare."""
    footage.mkdir(parents=True, exist_ok=True)
    truths = []
    for reel, takes in reels:
        truths.append(write_reel(reel, takes, footage))
        sys.stderr.write(f"filmed {truths[-1].video}\n")
    seconds = curated(footage, output, options)
    results = compared(truths, read_found(output / "steps"))
    minutes = sum(truth.num_frames / truth.fps for truth in truths) / 60
    return {"options": [*SHARED, *options], "minutes": minutes, "seconds": seconds, "figures": figures(results), "videos": results}


def playhouse(folder: Path, minutes: float, names: Sequence[str] | None = None) -> dict[str, Any]:
    """Footage of the playhouse, so many minutes in all; `names`: only these reels."""
    chosen = [reel for reel in PLAYHOUSE if names is None or reel.name in names]
    share = minutes / sum(reel.minutes for reel in chosen)
    reels = [(reel, playhouse_takes(reel, share * reel.minutes)) for reel in chosen]
    return measured(folder / "playhouse", folder / "playhouse-set", reels, BY_JUDGE)


def foreign(folder: Path, names: Sequence[str] | None = None) -> dict[str, Any]:
    chosen = [reel for reel in FOREIGN if names is None or reel.name in names]
    return measured(folder / "foreign", folder / "foreign-set", [(reel, foreign_takes(reel)) for reel in chosen], BY_COLOURS)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, and write JSON if asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=30.0, help="of playhouse footage")
    parser.add_argument("--reels", nargs="+", help="only these")
    parser.add_argument("--only", choices=("playhouse", "foreign"))
    parser.add_argument("--folder", type=Path, help="where footage and sets are kept; a folder of the moment where left out")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args(arguments)
    result: dict[str, Any] = {
        "date": datetime.date.today().isoformat(),
        "machine": {"platform": platform.platform(), "cores": os.cpu_count(), "python": platform.python_version()},
        "targets": TARGETS,
    }
    with tempfile.TemporaryDirectory() as place:
        folder = options.folder or Path(place)
        if options.only != "foreign":
            result["playhouse"] = playhouse(folder, options.minutes, options.reels)
        if options.only != "playhouse":
            result["foreign"] = foreign(folder, options.reels)
    for kind in ("playhouse", "foreign"):
        if kind in result:
            found = result[kind]
            print(f"\n{kind}: {found['minutes']:.1f} minutes, curated in {found['seconds']:.0f} s\n")
            targets = TARGETS if kind == "playhouse" else {}
            print("\n".join([*tables(found["videos"]), "", *figure_lines(found["figures"], targets)]))
    if options.out:
        options.out.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
