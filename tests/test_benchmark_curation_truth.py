"""The benchmark of curation: its comparison on rows made by hand, its footage's truth, and, slowly, a small run against the targets."""

import importlib
import sys
from collections.abc import Iterator
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from mask2dit.curation.rows import CaptionRow, CheckRow, GroupRow, PairRow, ScanRow, ShotRow

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
RED_FOX = {"species": "fox", "colour": "red", "action": "jumps", "place": "beach", "light": "night"}
BLUE_BEAR = {"species": "bear", "colour": "blue", "action": "sleeps", "place": "cave", "light": "day"}


@pytest.fixture(scope="module")
def modules() -> Iterator[dict[str, ModuleType]]:
    """The benchmark's three files."""
    sys.path.insert(0, str(BENCHMARKS))
    try:
        yield {name: importlib.import_module(f"curation_{name}") for name in ("footage", "comparison", "truth")}
    finally:
        sys.path.remove(str(BENCHMARKS))


@pytest.fixture
def truth(modules: dict[str, ModuleType]) -> Any:
    """Three shots of a fox, the second after a dissolve, then two of a bear, the last one black."""
    shot = modules["footage"].TrueShot
    shots = (
        shot(1, 0, 50, RED_FOX),
        shot(1, 60, 100, RED_FOX),
        shot(1, 100, 150, RED_FOX),
        shot(2, 150, 200, BLUE_BEAR),
        shot(2, 200, 250, BLUE_BEAR, "black"),
    )
    return modules["footage"].Truth("a.mp4", 25.0, 250, (100, 150, 200), ((50, 60),), (), (120,), shots)


def found(
    modules: dict[str, ModuleType],
    bounds: list[tuple[int, int]],
    verdicts: str = "",
    *,
    cuts: tuple[int, ...] = (),
    dissolves: tuple[tuple[int, int], ...] = (),
    reasons: dict[int, tuple[str, ...]] | None = None,
    groups: tuple[tuple[int, ...], ...] = (),
    captions: tuple[tuple[str, ...], ...] = (),
) -> Any:
    """Rows of shots with these bounds; `verdicts`: a letter for each pair, r(elated) or u(nrelated)."""
    rest: dict[str, Any] = {"pictures": "", "num_pictures": 0, "lightness": 50.0, "contrast": 10.0, "motion": 1.0, "still_seconds": 0.0}
    rest |= {"bars": (0.0,) * 4, "text": 0.0, "num_damaged": 0, "begins": "cut", "ends": "cut", "fps": 25.0}
    shots = tuple(ShotRow(str(index), "a.mp4", "d", index, *each, **rest) for index, each in enumerate(bounds))
    names = [shot.shot for shot in shots]
    words = {"r": "related", "u": "unrelated", "": "unrelated"}
    return modules["comparison"].Found(
        ScanRow("a.mp4", "d", 250, 250, cuts, dissolves),
        shots,
        {
            name: CheckRow(name, name not in (reasons or {}), tuple((kind, "") for kind in (reasons or {}).get(int(name), ())))
            for name in names
        },
        tuple(
            PairRow(*pair, 0.5, words[verdict]) for pair, verdict in zip(pairwise(names), verdicts or "u" * (len(names) - 1), strict=True)
        ),
        tuple(GroupRow(str(number), "a.mp4", "d", tuple(map(str, members)), ()) for number, members in enumerate(groups)),
        {str(number): CaptionRow(str(number), "by hand", (), "", (), each) for number, each in enumerate(captions)},
    )


def test_cuts_count_within_a_frame_and_once(modules: dict[str, ModuleType], truth: Any) -> None:
    compare = modules["comparison"].compare_cuts
    exact = compare(truth, found(modules, [], cuts=(100, 150, 200)))
    assert (exact["true"], exact["hits"], exact["one_off"], exact["missed"]) == (3, 3, 0, [])
    near = compare(truth, found(modules, [], cuts=(99, 151, 202)))
    assert (near["hits"], near["one_off"], near["missed"], near["false_elsewhere"]) == (2, 2, [200], [202])
    twice = compare(truth, found(modules, [], cuts=(100, 101, 150, 200)))
    assert twice["hits"] == 3 and twice["false_elsewhere"] == [101]
    wrong = compare(truth, found(modules, [], cuts=(55, 61, 100, 121, 150, 200, 230)))
    assert wrong["false_in_joins"] == [55, 61] and wrong["false_at_flashes"] == [121] and wrong["false_elsewhere"] == [230]
    assert modules["truth"].f1([{"cuts": wrong}]) == pytest.approx(2 * 3 / (3 + 7))


def test_dissolves_are_found_where_they_are_touched(modules: dict[str, ModuleType], truth: Any) -> None:
    compare = modules["comparison"].compare_joins
    right = compare(truth, found(modules, [], dissolves=((48, 61),)))
    assert (right["dissolves_found"], right["frames_off"], right["false"], right["missed"]) == (1, [2], [], [])
    wrong = compare(truth, found(modules, [], dissolves=((60, 70),)))
    assert (wrong["dissolves_found"], wrong["false"], wrong["missed"]) == (0, [(60, 70)], [(50, 60)])


def test_pairs_stand_for_true_ones(modules: dict[str, ModuleType], truth: Any) -> None:
    compare = modules["comparison"].compare_pairs
    bounds = [(0, 50), (60, 100), (100, 150), (150, 200), (200, 250)]
    right = compare(truth, found(modules, bounds, "rruu", groups=((0, 1, 2),)))
    assert [right[name] for name in ("hits", "false", "missed", "apart", "groups_of_one_story")] == [2, 0, 0, 2, 1]
    assert (right["neighbours"], right["neighbours_related"]) == (2, 2)
    wrong = compare(truth, found(modules, bounds, "urrr", groups=((1, 2, 3),)))
    assert [wrong[name] for name in ("hits", "false", "missed", "apart", "groups_of_one_story")] == [1, 2, 1, 0, 0]
    halves = compare(truth, found(modules, [(0, 50), (60, 100), (100, 119), (119, 150), (150, 200), (200, 250)], "rruuu"))
    assert halves["missed_because"] == {"one shot in two": 1} and halves["neighbours_related"] == 2
    joined = compare(truth, found(modules, [(0, 100), (100, 150), (150, 200), (200, 250)], "uuu"))
    assert joined["missed_because"] == {"a join was missed": 1}
    flash = compare(truth, found(modules, bounds, "ruuu"))
    assert flash["missed_because"] == {"unrelated, with a flash": 1}
    between = modules["comparison"].stand_for(truth, found(modules, [(0, 50), (51, 59), (60, 100)]).shots)
    assert between["1"] is None and between["2"] == truth.shots[1]


def test_captions_are_read_against_the_facts(modules: dict[str, ModuleType], truth: Any) -> None:
    right = "A red fox jumps on the beach at night."
    other = "A green fox jumps in a cave at night."
    rows = found(modules, [(0, 50), (60, 100), (100, 150)], "rr", groups=((0, 1, 2),), captions=((right, right, other),))
    told = modules["comparison"].compare_captions(truth, rows)
    assert told["captions"] == 3 and told["right"] == {"species": 3, "colour": 2, "action": 3, "place": 2, "light": 3}
    assert (told["groups"], told["alike"], told["true"]) == (1, 0, 0)
    rows = found(modules, [(0, 50), (60, 100), (100, 150)], "rr", groups=((0, 1, 2),), captions=((right, right, right),))
    told = modules["comparison"].compare_captions(truth, rows)
    assert (told["alike"], told["true"]) == (1, 1)


def test_drops_are_compared_with_what_was_planted(modules: dict[str, ModuleType], truth: Any) -> None:
    bounds = [(0, 50), (60, 100), (100, 150), (150, 200), (200, 250)]
    told = modules["comparison"].compare_checks(truth, found(modules, bounds, reasons={1: ("short",), 4: ("black", "frozen")}))
    assert told == {"planted": {"black": 1}, "found": {"black": 1}, "others": {"short": 1, "frozen": 1}}


def test_a_film_is_as_its_truth_says(modules: dict[str, ModuleType]) -> None:
    footage = modules["footage"]
    reel = footage.Reel("made", Fraction(10), (4, 6), 1.0)

    def still(level: int) -> Any:
        return lambda count: iter([np.full((4, 6, 3), level, np.uint8)] * count)

    takes = [
        footage.Take(1, 20, still(40), flashes=(10,)),
        footage.Take(1, 20, still(240), "dissolve", 7),
        footage.Take(2, 20, still(100), "fade", 10),
        footage.Take(2, 20, still(200)),
    ]
    truth = footage.truth_of(reel, takes)
    levels = [int(frame[0, 0, 0]) for frame in footage.filmed(reel, takes)]
    assert len(levels) == truth.num_frames == 97
    assert truth.cuts == (77,) and truth.dissolves == ((20, 27),) and truth.fades == ((47, 57),) and truth.flashes == (10,)
    assert levels[10] == footage.FLASH and all(levels[shot.stop - 1] == levels[shot.start] for shot in truth.shots)
    assert levels[20:27] == sorted({*levels[20:27]}) and levels[20] > 40 and levels[26] < 240
    fade = levels[47:57]
    assert fade[:4] == sorted(fade[:4], reverse=True) and fade[4:6] == [0, 0] and fade[6:] == sorted(fade[6:]) and fade[9] < 100


def test_intervals_of_shares(modules: dict[str, ModuleType]) -> None:
    low, high = modules["truth"].wilson(8, 10)
    assert (low, high) == (pytest.approx(0.4902, abs=1e-4), pytest.approx(0.9433, abs=1e-4))
    assert modules["truth"].wilson(0, 0) == (0.0, 1.0)


@pytest.mark.slow
def test_a_small_run_meets_the_targets(modules: dict[str, ModuleType], tmp_path: Path) -> None:
    """Three videos with few frames a second; the first is longer than one piece."""
    benchmark = modules["truth"]
    result = benchmark.playhouse(tmp_path, 5.5, ["pieces-8", "mpeg4-12", "mjpeg-15"])
    told = {name: figure["value"] for name, figure in result["figures"].items()}
    assert told["cuts F1"] >= benchmark.TARGETS["cuts F1"] - 0.02
    assert told["groups precision"] >= benchmark.TARGETS["groups precision"] - 0.05
    assert told["groups recall"] >= benchmark.TARGETS["groups recall"] - 0.05
    assert told["captions of a group name one character"] == 1
    assert min(told[f"captions name the {name}"] for name in ("species", "colour", "place", "light")) >= 0.95
    assert told["captions name the action"] >= 0.8
    assert told["frames decoded per frame"] < 1.1
    assert (tmp_path / "playhouse-set" / "report.html").is_file()
    pieces = (tmp_path / "playhouse-set" / "steps" / "1-pieces.jsonl").read_text(encoding="utf-8")
    assert '"piece_starts": [0, ' in pieces
    lines = benchmark.tables(result["videos"]) + benchmark.figure_lines(result["figures"], benchmark.TARGETS)
    assert any("pieces-8.mp4" in line for line in lines) and sum("target" in line for line in lines) == 3
