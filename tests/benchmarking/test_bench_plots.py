"""What is drawn: names at the ends of their lines, never on each other, never outside of the plot; numbers and bars that can be read."""

from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
import torch

from mask2dit.benchmarking import Results, choose_settings
from mask2dit.benchmarking.attention_cases import AttentionCase
from mask2dit.benchmarking.measuring import Measured
from mask2dit.benchmarking.plots import APART, COLOURS, SHARES, _apart, _attention, _lines, _memory, _name_ends, _scene_ticks, _step
from mask2dit.benchmarking.profiling import Times
from mask2dit.benchmarking.steps import StepCase, Steps

pytest.importorskip("matplotlib")
NAMES = list(COLOURS)
SETTINGS = choose_settings(device=torch.device("cpu"), quick=True)


@pytest.mark.parametrize(
    "heights",
    [[], [0.5], [0.0, 0.5, 1.0], [0.5] * 6, [1.0] * 6, [0.0] * 6, [0.9, 0.95, 0.96, 1.0], [-0.2, 0.5, 1.3], [k / 30 for k in range(15)]],
    ids=str,
)
def test_names_are_apart_in_order_and_within(heights: list[float]) -> None:
    placed = _apart(heights)
    assert len(placed) == len(heights) and all(height <= 1 + 1e-9 for height in placed)
    assert all(upper - lower >= APART - 1e-9 for lower, upper in pairwise(placed))
    assert min(placed, default=0) >= -1e-9
    if all(upper - lower >= APART for lower, upper in pairwise(heights)) and all(0 <= height <= 1 for height in heights):
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
    _name_ends(axes, _lines(axes, cases, lambda case, form: case.forms[form].median))
    axes.figure.draw_without_rendering()
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


def attention_case(scenes: int, direction: str, *over: float, memory: float = 1.0) -> AttentionCase:
    """Forms that take so much longer than the unmasked softmax; none of the same memory."""
    taken = dict(zip(NAMES[1:], over, strict=False))
    forms = {
        name: Measured((ratio,), None, 1, int(ratio * scenes * 80), int(ratio * memory * scenes * 2**20)) for name, ratio in taken.items()
    }
    return AttentionCase(scenes, direction, 1, 1.0, 1.0, 100, {NAMES[0]: Measured((1.0,), None, 1, 0, int(memory * 2**19))} | forms)


def drawn(draw: Any, results: Results) -> Any:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4.8), dpi=150, layout="constrained")
    assert draw(results, figure)
    figure.draw_without_rendering()
    return figure


@pytest.mark.parametrize("draw", [_attention, _memory], ids=["attention", "memory"])
@pytest.mark.parametrize("scenes", [(1,), (1, 2), (1, 2, 3, 6, 12)], ids=str)
def test_a_name_is_off_its_line_only_where_it_touches_another(draw: Any, scenes: tuple[int, ...]) -> None:
    results = Results(SETTINGS)
    for count in scenes:
        results.attention.append(attention_case(count, "forward", 1.11, 1.02, 1.3, 1 + 0.04 * count, 1.12))
        results.attention.append(attention_case(count, "forward and backward", 1.05, 0.97, 1.8, 1.2, 1 + 0.01 * count))
    for axes in drawn(draw, results).axes:
        lines = {line.get_color(): axes.transData.transform(line.get_xydata()[-1])[1] for line in axes.lines}
        names = {text.get_color(): axes.transAxes.transform(text.xy)[1] for text in axes.texts if text.get_text() in NAMES}
        apart = APART * axes.bbox.height
        assert len(names) >= 5 and all(upper - lower >= apart - 0.1 for lower, upper in pairwise(sorted(names.values())))
        for colour, height in names.items():
            touches = any(abs(height - other) <= apart + 0.1 for each, other in names.items() if each != colour)
            assert touches or height == pytest.approx(lines[colour], abs=1)


@pytest.mark.parametrize("memory", [0.3, 1.0, 40.0, 100000.0])
@pytest.mark.parametrize("scenes", [(1,), (1, 2), (1, 2, 3, 6, 12)], ids=str)
def test_memory_has_plain_numbers(scenes: tuple[int, ...], memory: float) -> None:
    results = Results(SETTINGS, attention=[attention_case(count, "forward", 1.1, 1.7, 2.5, memory=memory) for count in scenes])
    left, right = drawn(_memory, results).axes
    low, high = left.get_ylim()
    labels = [tick.get_text() for tick in left.get_yticklabels() if low <= tick.get_position()[1] <= high]
    assert len(labels) >= 2 and all(float(label) > 0 for label in labels)
    assert right.get_ylim()[1] >= 1


def test_labels_of_scenes_do_not_meet() -> None:
    assert _scene_ticks([1, 2, 3, 6, 12]) == ([1, 2, 3, 6, 12], ["1", "2", "3", "6", "12"])
    assert _scene_ticks([1, 2, 3, 6, 11, 12])[1] == ["1", "2", "3", "6", "11", ""]
    assert _scene_ticks([3]) == ([3], ["3"])


def step_results(variants: int, *times: Times) -> Results:
    names = (
        "merged",
        "merged, a step from the cache",
        "unmasked",
        "boolean mask",
        "n-fold copy",
        "grouped",
        "merged, one matmul for q, k, v",
    )
    comparison = StepCase(3, 1, 1, {name: Measured((0.3,)) for name in names[:variants]})
    return Results(SETTINGS, steps=[Steps("merged", 1, 1, comparison, [StepCase(n, 1, 1, times=each) for n, each in enumerate(times, 1)])])


@pytest.mark.parametrize("times", [(1, 96, 3), (97, 1, 2), (2, 1, 97), (0, 1, 0), (24, 62, 14)], ids=str)
@pytest.mark.parametrize("variants", [0, 1, 7])
def test_headings_are_over_the_bars_and_apart(times: tuple[float, float, float], variants: int) -> None:
    axes = drawn(_step, step_results(variants, Times(*times), Times(1, 1, 1))).axes[0]
    boxes = [text.get_window_extent() for text in axes.texts if text.get_text() in SHARES]
    assert len(boxes) == 3 and boxes[0].x0 >= axes.bbox.x0 - 1 and boxes[-1].x1 <= axes.bbox.x1 + 1
    assert all(left.x1 < right.x0 for left, right in pairwise(boxes))
    assert all(box.y0 >= axes.patches[0].get_window_extent().y1 and box.y1 <= axes.bbox.y1 for box in boxes)


@pytest.mark.parametrize("variants", [1, 2, 7])
@pytest.mark.parametrize("scenes", [0, 1, 5])
def test_bars_are_of_one_thickness(variants: int, scenes: int) -> None:
    figure = drawn(_step, step_results(variants, *[Times(1, 1, 1)] * scenes))
    assert len(figure.axes) == 1 + bool(scenes)
    inches = [bar.get_window_extent().height / figure.dpi for axes in figure.axes for bar in axes.patches]
    assert min(inches) > 0.2 and max(inches) < 0.4


def test_nothing_is_drawn_of_nothing() -> None:
    from matplotlib.figure import Figure

    assert not any(draw(each, Figure()) for each in (Results(SETTINGS), step_results(0)) for draw in (_attention, _memory, _step))


@pytest.mark.parametrize(("frames", "words"), [(1, "scenes of 1 frame at"), (9, "scenes of 9 frames at")])
def test_one_frame_is_not_frames(frames: int, words: str) -> None:
    settings = replace(SETTINGS, attention_video=(frames, 64, 96))
    assert words in drawn(_memory, Results(settings, attention=[attention_case(1, "forward", 1.1)])).get_suptitle()
