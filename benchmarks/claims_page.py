"""What claims.py says of its measures: which claims show, tables, plots, and the part of docs/results.md that it writes.

A variant's cell holds "value", "interval" and, beside another variant's, "difference" and "difference_interval".
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mask2dit.evaluation.plots import Row, interval_plot
from mask2dit.files import written_aside

DOCS = Path(__file__).parents[1] / "docs"
PAGE, IMAGES = DOCS / "results.md", DOCS / "images"
PLANS = ("isolated", "symmetric", "shared-text", "video-reads-text", "full")
ALIGNMENT = ("own caption: place", "own caption: light", "own caption: colour", "own caption: species", "own caption: action")
LEAKAGE = ("leak: place", "leak: light", "leak: action")
COHERENCE = ("by reference: colour", "same colour", "same species")
MARGIN = 0.05  # by how much a share may be lower and still count as kept


def claims(found: Mapping[str, Mapping[str, Any]]) -> list[tuple[str, bool | None, str]]:
    """Each claim, whether it shows (None: neither way), and the numbers. Fixed before any film was made."""

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
    trainings = f"{result['trainings']} training{'s' * (result['trainings'] > 1)} of each plan"
    lines = [
        f"{result['stories']} held-out stories, two tellings of each, level A · {trainings} · "
        f"{result['parameters'] / 1e6:.1f} M parameters · {where['cpu']}, {where['cores']} cores · {result['date']}. "
        "Intervals are over stories: they say what other stories would give, not what another training would.",
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
