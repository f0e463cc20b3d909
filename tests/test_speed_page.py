"""The numbers of docs/speed.md are those of the results that the scripts wrote."""

import json
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "speed.md").read_text(encoding="utf-8")


def results(name: str) -> dict[str, Any]:
    return json.loads((ROOT / "benchmarks" / "results" / f"{name}.json").read_text(encoding="utf-8"))  # type: ignore[no-any-return]


def rows(*first: str) -> list[str]:
    """Lines of tables that begin so."""
    return [line for line in PAGE.splitlines() if line.startswith(tuple(f"| {each}" for each in first))]


def test_ratios_of_attention_and_steps() -> None:
    for goal in results("bench")["goals"]:
        number = f"{goal['value']:.1e}" if goal["goal"] < 1e-3 else f"{goal['value']:.2f}".removesuffix(".00")
        (row,) = [row for row in rows(goal["name"]) if row.startswith(f"| {goal['name']} |")]
        assert row.split("|")[2].split()[0].rstrip(",:") == number, row
        assert goal["holds"] or "missed" in row


@pytest.mark.parametrize("way", list(results("approximations")["ways"]))
def test_fewer_and_cheaper_steps(way: str) -> None:
    found = results("approximations")["ways"][way]
    (row,) = rows(f"`{way}`")
    told = [each.split()[0] for each in row.split("|")[2:-1]]
    assert told[:3] == [f"{found['distance']['value']:.3f}", f"{found['calls']['value']:.2f}", f"{found['time']['value']:.2f}"]
    assert told[3:] == [f"{100 * found[answer]['value']:.0f}" for answer in ("place", "colour", "action")]


def test_context_blind_extension() -> None:
    found = results("context-blind")
    for timed in found["times"]:
        numbers = (timed["ratio"], timed["ratio over 1/n"], timed["first step, cached over uncached"])
        assert f"| {timed['scenes']} | {numbers[0]:.3f} | {numbers[1]:.2f} | {numbers[2]:.2f} |" in PAGE
    names = {"place": "place", "colour": "colour, own", "colour by reference": "colour, by", "species": "species", "action": "action"}
    for answer, name in names.items():
        (row,) = rows(name)
        told = [each.split()[0] for each in row.split("|")[2:-1]]
        ways = ("symmetric", "untrained", "context-blind", "control")
        assert told[:4] == [f"{100 * found['answers'][answer][way]['value']:.1f}" for way in ways], row
        low, high = found["answers"][answer]["context-blind against control"]["difference interval"]
        assert row.endswith(f"({100 * low:+.1f} to {100 * high:+.1f}) |"), row


def test_the_whole_command() -> None:
    quiet, busy = results("film"), results("film-busy")
    for way, medians in quiet["median"].items():
        (row,) = rows(way.replace("--", "`--", 1) + "`" if "--" in way else way + " |")
        told = [each.strip() for each in row.split("|")[2:-1]]
        beside = busy["median"].get(way)
        assert told == [
            f"{medians['command_seconds']:.1f} s",
            f"{medians['denoise_seconds']:.1f} s",
            f"{beside['command_seconds']:.1f} s" if beside else "–",
        ]
