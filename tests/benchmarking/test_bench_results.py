"""What is measured, how a whole step follows from a part of it, what is written, and which ratios hold."""

import itertools
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from mask2dit.benchmarking import Results, choose_settings
from mask2dit.benchmarking.attention_cases import AttentionCase
from mask2dit.benchmarking.measuring import Measured
from mask2dit.benchmarking.networks import CACHED, choose_blocks
from mask2dit.benchmarking.results import HALF, Goal, goals
from mask2dit.benchmarking.settings import Settings
from mask2dit.benchmarking.steps import StepCase, Steps
from mask2dit.errors import InputError

CPU = torch.device("cpu")


def settings(**changes: Any) -> Settings:
    return choose_settings(device=CPU, quick=True, **changes)


def test_fewer_blocks_where_time_or_memory_is_short() -> None:
    found = settings()
    layers = found.model_config["num_layers"]
    assert choose_blocks(found, 1e15, 1e12) == layers
    assert choose_blocks(found, 1.0, 1e12) == 1 == choose_blocks(found, 1e15, 0.0)


def case(**variants: float) -> StepCase:
    made = StepCase(3, 300, 10**9, {name.replace("_", " "): Measured((seconds,)) for name, seconds in variants.items()})
    made.outside = Measured((1.0,))
    return made


def test_a_whole_step_follows_from_a_part_of_it() -> None:
    steps = Steps("merged", blocks=10, measured_blocks=2, comparison=case(merged=3.0))
    assert steps.comparison is not None
    steps.comparison.variants[f"merged, {CACHED}"] = Measured((1.5,))
    assert steps.seconds(steps.comparison, "merged") == 1 + 2 / 2 * 10
    assert steps.seconds(steps.comparison, f"merged, {CACHED}") == 1.5  # computes one block, however many there are
    results = Results(settings(), steps=[steps])
    films = {(variant, count, how): seconds for variant, count, how, seconds in results.films()}
    assert films["merged", 50, "with guidance"] == 2 * 50 * 11 and films["merged", 25, "without guidance"] == 25 * 11
    assert films[f"merged, {HALF}", 50, "with guidance"] == 2 * 50 * (11 + 1.5) / 2


def test_the_worst_number_is_held_against_the_goal() -> None:
    def measured(scenes: int, grouped: float) -> AttentionCase:
        forms = {"unmasked": Measured((1.0,)), "grouped": Measured((grouped,)), "merged": Measured((grouped,), None, 3, 5, scenes * 10)}
        return AttentionCase(scenes, "forward", 100 * scenes, 1.0, 1.0, 10, forms)

    chosen = replace(settings(), scene_counts=(6, 12))
    found = {goal.name: goal for goal in goals(Results(chosen, attention=[measured(6, 1.3), measured(12, 1.1)]))}
    worst = found["grouped over unmasked, over their FLOP, forward"]
    assert (worst.value, worst.place, worst.holds) == (1.3, "6 scenes", False)
    assert found["merged over grouped, forward"].holds and found["peak memory of merged, 6 → 12 scenes"].value == 2
    assert Goal("", 3.1, 3.0, is_most=False).holds and not Goal("", 2.9, 3.0, is_most=False).holds
    part = {goal.name: goal for goal in goals(Results(chosen, attention=[measured(6, 1.1)]))}
    assert part["merged over grouped, forward"].missing == (12,) and part["merged over grouped, forward"].holds is None
    nothing = goals(Results(settings()))
    assert {goal.name for goal in nothing} == found.keys()  # none goes missing
    assert nothing and all(goal.value is None and goal.holds is None for goal in nothing)


def test_what_is_written_says_where_and_when(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    from mask2dit.benchmarking.plots import _apart, write_plots

    found = settings()
    results = Results(found)
    results.attention += [AttentionCase(n, "forward", n, 1.0, 1.0, 8, {"merged": Measured((n / 9,), None, 3, 8, 9)}) for n in (1, 2)]
    results.steps.append(Steps("merged", 6, 6, comparison=replace(case(merged=2.0), outside=None)))
    results.write(tmp_path / "bench.json")
    written = json.loads((tmp_path / "bench.json").read_text())
    assert written["date"].startswith("20") and written["is_whole"] is False and written["settings"]["size"] == "playhouse"
    assert written["attention"][1]["forms"]["merged"]["median_seconds"] == pytest.approx(2 / 9)
    assert [path.name for path in write_plots(results, tmp_path)] == ["bench-attention.png", "bench-memory.png", "bench-step.png"]
    assert all((tmp_path / name).read_bytes().startswith(b"\x89PNG") for name in ("bench-attention.png", "bench-step.png"))
    for heights in ([0.5] * 5, [0.9, 0.95, 0.99, 1.0], [0.0, 0.3, 1.0]):
        placed = _apart(heights)
        assert max(placed) <= 1.001 and all(high - low > 0.05 for low, high in itertools.pairwise(placed))


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"size": "7b"}, "--size: got '7b', expected playhouse, 2b or 5b"),
        (
            {"backends": ["fast"]},
            "--backend: got 'fast', expected grouped, merged, flex, or a kernel of diffusers, such as _flash_3_hub; leave it out",
        ),
        ({"backends": ["flex"]}, "--backend: got flex, which does not work on cpu"),
        ({"height": 63}, "height: got 63"),
    ],
)
def test_mistakes(asked: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as caught:
        settings(**asked)
    assert message in str(caught.value) and "\n" not in str(caught.value)
