"""The scripts behind docs/speed.md, with few and short films of the built-in model, each in a process of its own."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
FEW_WAYS = """
import approximations
approximations.WAYS = {
    "ddim 50": {"num_inference_steps": 4},
    "again": {"num_inference_steps": 4},
    "half": {"num_inference_steps": 2, "solver": "unipc"},
}
approximations.main(["--stories", "1", "--out", "found.json"])
"""
ONE_ROUND = """
import context_blind
context_blind.ROUNDS, context_blind.TIMED = 1, (2, 3)
context_blind.main(["--only-times", "--out", "found.json"])
"""

pytestmark = pytest.mark.slow


def run(program: str, place: Path) -> tuple[dict, str]:
    program = f"import sys\nsys.path.insert(0, {str(BENCHMARKS)!r})\n{program}"
    done = subprocess.run([sys.executable, "-c", program], cwd=place, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return json.loads((place / "found.json").read_text()), done.stdout


def test_ways_are_held_against_the_first(tmp_path: Path) -> None:
    found, told = run(FEW_WAYS, tmp_path)
    assert [found["ways"][way]["distance"]["value"] for way in ("ddim 50", "again")] == [0, 0]
    assert found["ways"]["half"]["distance"]["value"] > 0.01 and "half" in told
    assert [row["calls"]["value"] for row in found["ways"].values()] == [1, 1, 0.5]


def test_kept_context_changes_nothing_but_time(tmp_path: Path) -> None:
    found, _ = run(ONE_ROUND, tmp_path)
    assert [row["scenes"] for row in found["times"]] == [2, 3]
    assert all(row["largest difference"] < 1e-4 and row["ratio"] < 0.8 for row in found["times"])


def test_the_whole_command_is_timed(tmp_path: Path) -> None:
    found, told = run(
        'import sys, film\nsys.argv[1:] = ["--rounds", "1", "--ways", "one thread", "--out", "found.json"]\nfilm.main()', tmp_path
    )
    (medians,) = found["median"].values()
    stages = sum(medians[f"{name}_seconds"] for name in ("encode", "denoise", "decode_and_write_scenes", "join"))
    assert 0 < stages < medians["command_seconds"] and "one thread, median of 1 rounds" in told
