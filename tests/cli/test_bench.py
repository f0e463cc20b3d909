"""`mask2dit bench`: a whole run at tiny sizes, and its mistakes."""

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import Result

from mask2dit.benchmarking import Results

Command = Callable[..., Result]


@pytest.mark.slow
@pytest.mark.parametrize("more", [(), ("--backward", "--rounds", 1)])
def test_a_whole_run(more: tuple[str | int, ...], command: Command) -> None:
    result = command("bench", "--quick", "--device", "cpu", "-o", "found", *more)
    assert result.exit_code == 0, result.output
    found = json.loads(Path("found/bench.json").read_text())
    assert found["is_whole"] and found["machine"]["cores"] > 0 and found["machine"]["matmul_flop_per_second"] > 1e8
    goals = {goal["name"]: goal["value"] for goal in found["goals"]}
    assert goals["largest error, float32"] <= 5e-6 and goals["error over the boolean mask's, bfloat16"] <= 1.3
    assert goals["attention calls of merged"] == 3 and goals["K/V copied over K/V, merged"] <= 1.2
    assert "peak memory of merged, 6 → 12 scenes" in goals and "step(n)/step(1) over their FLOP" in goals  # where there was time for it
    directions = ["forward", "forward and backward"] if more else ["forward"]
    assert {f"merged over grouped, {direction}" for direction in directions} <= goals.keys()
    assert {case["direction"] for case in found["attention"]} == set(directions)
    variants = found["steps"][0]["comparison"]["variants"]
    assert {"merged", "grouped", "unmasked", "boolean mask", "n-fold copy"} <= variants.keys()
    assert all(each.get("median_seconds", 0) > 0 or "left out" in each.get("problem", "") for each in variants.values())
    assert variants["merged"]["median_seconds"] > 0
    assert sorted(path.name for path in Path("found").glob("*.png")) == ["bench-attention.png", "bench-memory.png", "bench-step.png"]
    assert "Against the goals" in result.stdout and "written: found/bench.json" in result.stdout


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("--size 7b", "error: --size: got '7b', expected playhouse, 2b or 5b"),
        ("--backend fast", "error: --backend: got 'fast', expected grouped, merged, flex"),
        ("--backend flex --device cpu", "error: --backend: got flex, which does not work on cpu"),
        ("--scenes 0", "--scenes"),
        ("--output /dev/null/x", "error: --output: got /dev/null/x, where nothing can be written"),
    ],
)
def test_mistakes_are_one_line(options: str, words: str, command: Command) -> None:
    result = command("bench", "--quick", *options.split())
    assert result.exit_code == 2 and words in result.stderr
    assert result.stdout == "" and result.stderr.count("\n") == 1
    assert list(Path().iterdir()) == []


@pytest.mark.parametrize("is_there", [True, False])
def test_missing_plots_are_told_before_measuring(is_there: bool, command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    if is_there:
        pytest.importorskip("matplotlib")
    else:
        monkeypatch.setitem(sys.modules, "matplotlib", None)

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Results, "measure", interrupted)
    result = command("bench", "--quick", "--device", "cpu")
    assert ("note: matplotlib: not found" in result.stderr) is not is_there
    assert ("for plots: pip install 'mask2dit[bench]'" in result.stderr) is not is_there
