"""Names at the ends of lines: at their line where there is room, never on each other, never above the plot."""

from itertools import pairwise

import pytest

from mask2dit.benchmarking.attention_cases import AttentionCase
from mask2dit.benchmarking.measuring import Measured
from mask2dit.benchmarking.plots import APART, COLOURS, _apart, _lines

pytest.importorskip("matplotlib")
NAMES = list(COLOURS)


@pytest.mark.parametrize(
    "heights",
    [[], [0.5], [0.0, 0.5, 1.0], [0.5] * 6, [1.0] * 6, [0.0] * 6, [0.9, 0.95, 0.96, 1.0], [-0.2, 0.5, 1.3], [k / 30 for k in range(15)]],
    ids=str,
)
def test_names_are_apart_in_order_and_within(heights: list[float]) -> None:
    placed = _apart(heights)
    assert len(placed) == len(heights) and all(height <= 1 + 1e-9 for height in placed)
    assert all(upper - lower >= APART - 1e-9 for lower, upper in pairwise(placed))
    if all(upper - lower >= APART for lower, upper in pairwise(heights)) and max(heights, default=0) <= 1:
        assert placed == pytest.approx(heights)


@pytest.mark.parametrize("scale", ["linear", "log"])
@pytest.mark.parametrize("ends", [[1.0, 10.0, 100.0, 1000.0], [5.0] * 6, [1.0, 998.0, 999.0, 1000.0]], ids=str)
def test_names_on_real_axes(ends: list[float], scale: str) -> None:
    from matplotlib.figure import Figure

    axes = Figure().subplots()
    axes.set_yscale(scale)
    names = NAMES[: len(ends)]
    cases = [
        AttentionCase(
            scenes, "forward", 1, 1.0, 1.0, 1, {name: Measured((end * scenes / 12,)) for name, end in zip(names, ends, strict=True)}
        )
        for scenes in (1, 3, 12)
    ]
    _lines(axes, cases, lambda case, form: case.forms[form].median)
    axes.figure.canvas.draw()
    labels = {text.get_text(): text.xy[1] for text in axes.texts}
    placed = sorted(labels.values())
    assert labels.keys() == set(names) and placed[-1] <= 1 + 1e-9
    assert all(upper - lower >= APART - 1e-9 for lower, upper in pairwise(placed))
    lines = {
        name: axes.transAxes.inverted().transform(axes.transData.transform((12, end)))[1] for name, end in zip(names, ends, strict=True)
    }
    assert sorted(labels, key=labels.__getitem__) == sorted(lines, key=lines.__getitem__)
    assert all(abs(labels[name] - lines[name]) <= APART * (len(ends) - 1) + 1e-6 for name in names)
    if scale == "log" and len(set(ends)) == len(ends) and ends[1] == 10:
        assert labels == pytest.approx(lines, abs=1e-6)
