"""What was measured, as pictures; needs matplotlib, which is imported where it is used."""

from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from math import inf, log
from pathlib import Path
from statistics import fmean
from typing import Any

from mask2dit.benchmarking.attention_cases import BOTH, FORWARD, AttentionCase
from mask2dit.benchmarking.forms import BOOLEAN_MASK, NFOLD_COPY, UNMASKED
from mask2dit.benchmarking.report import seconds
from mask2dit.benchmarking.results import Results
from mask2dit.benchmarking.steps import StepCase, Steps
from mask2dit.errors import InputError
from mask2dit.files import written_aside

REMEDY = "for plots: pip install 'mask2dit[bench]'"
COLOURS = {
    UNMASKED: "#7d786e",
    "grouped": "#2f82c4",
    "merged": "#0f9d77",
    "flex": "#b9629b",
    BOOLEAN_MASK: "#c2504f",
    NFOLD_COPY: "#d9661f",
}
OTHERS = ("#6b7fe0", "#b58410", "#8a8577", "#444444")
SHARES = {"attention": "#2f82c4", "linear": "#0f9d77", "rest": "#c9c3b6"}
GOAL = 1.2  # of the ratio to unmasked
APART = 0.055  # of the height of a plot: labels of lines are at least so far from each other
TICKS_APART = 0.05  # of the width of a plot
THICK = 0.62  # of a bar, where bars fill their plot
LETTER = 2.0  # per cent of the width of a plot of shares: no letter of its headings is wider, on average
NARROW = 6.5  # per cent: a smaller share has no room for its number
FEW_DECADES = 1000.0  # from the least to the most: a log axis has numbers between its powers of ten

Ends = Mapping[str, tuple[tuple[int, float], str]]
"""By name: the last point of its line, and its colour."""


def can_plot() -> bool:
    """Whether matplotlib is there, without importing it."""
    return find_spec("matplotlib") is not None


def write_plots(results: Results, folder: Path) -> list[Path]:
    """Write those for which something was measured; returns what was written. Raises InputError, a line, without matplotlib."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise InputError(REMEDY) from None
    figures = {"bench-attention.png": _attention, "bench-memory.png": _memory, "bench-step.png": _step}
    written = []
    for name, draw in figures.items():
        figure = Figure(figsize=(10, 4.8), dpi=150, layout="constrained")
        if draw(results, figure):
            with written_aside(folder / name) as part:
                figure.savefig(part)
            written.append(folder / name)
    return written


def _attention(results: Results, figure: Any) -> bool:
    """How attention stands to the fastest unmasked softmax, by number of scenes, in every direction that was measured."""
    directions = {way: cases for way in (FORWARD, BOTH) if (cases := [each for each in results.attention if each.direction == way])}
    measured = {way: [case for case in cases if case.forms] for way, cases in directions.items()}
    measured = {way: cases for way, cases in measured.items() if cases}
    if not measured:
        return False
    drawn = []
    for axes, (way, cases) in zip(figure.subplots(1, len(measured), squeeze=False, sharey=True)[0], measured.items(), strict=True):
        _title(axes, f"{way.capitalize()}: time ÷ that of the unmasked softmax, pair by pair")
        axes.axhline(GOAL, color="#999999", linestyle=":", linewidth=1.2)
        axes.annotate(
            f"goal ≤ {GOAL:.2f}",
            (0.01, GOAL),
            xycoords=("axes fraction", "data"),
            xytext=(0, 2),
            textcoords="offset points",
            va="bottom",
            fontsize=8,
            color="#777777",
        )
        axes.axhline(1, color="#cccccc", linewidth=1)
        drawn.append((axes, _lines(axes, cases, lambda case, form: case.over_unmasked(form))))
        axes.tick_params(labelleft=True)
    for axes, ends in drawn:  # once all are drawn: they share one scale
        _name_ends(axes, ends)
    figure.suptitle(f"Attention by number of scenes · {_what(results)}\n{_where(results)}", x=0.01, ha="left", fontsize=11)
    return True


def _memory(results: Results, figure: Any) -> bool:
    """What attention makes on the way, and what it copies."""
    cases = [case for case in results.attention if case.direction == FORWARD and case.forms]
    if not cases:
        return False
    left, right = figure.subplots(1, 2)
    _title(left, "Memory made on the way, at its fullest")
    left.set(ylabel="MiB", yscale="log")
    made = _lines(left, cases, lambda case, form: each / 2**20 if (each := case.forms[form].peak_bytes) else None)
    _plain_log_ticks(left)
    _name_ends(left, made)
    _title(right, "Keys and values copied")
    right.set(ylabel="bytes copied ÷ bytes of all keys and values")
    copied = _lines(right, cases, _share_copied)
    right.update_datalim([(cases[0].scenes, 1)])  # or none at all would be in the middle, and numbers below it
    _name_ends(right, copied)
    figure.suptitle(f"Memory of attention · {_what(results)}\n{_where(results)}", x=0.01, ha="left", fontsize=11)
    return True


def _share_copied(case: AttentionCase, form: str) -> float | None:
    copied = case.forms[form].copied_bytes
    return None if copied is None else copied / case.key_value_bytes


def _title(axes: Any, words: str) -> None:
    axes.set_title(words, fontsize=10)


def _lines(axes: Any, cases: Sequence[AttentionCase], value: Callable[[AttentionCase, str], float | None]) -> Ends:
    """A line for each form, and where they end."""
    ends, others = {}, iter(OTHERS * 4)
    forms = dict.fromkeys(form for case in cases for form in case.forms)
    for form in forms:
        points = [(case.scenes, number) for case in cases if form in case.forms and (number := value(case, form)) is not None]
        if points:
            colour = COLOURS.get(form) or next(others)
            axes.plot(*zip(*points, strict=True), marker="o", markersize=4, color=colour, linewidth=1.8)
            ends[form] = (points[-1], colour)
    axes.set_xscale("log")
    axes.set_xticks(*_scene_ticks([case.scenes for case in cases]))
    axes.set_xlabel("scenes")
    axes.minorticks_off()
    axes.grid(True, color="#eeeeee")
    axes.spines[["top", "right"]].set_visible(False)
    axes.margins(y=0.08)
    return ends


def _scene_ticks(counts: Sequence[int]) -> tuple[list[int], list[str]]:
    """Ticks of a log axis and their labels, of which none stands on the one before it."""
    labels, last = [], -inf
    for count in counts:
        is_free = log(count) - last >= TICKS_APART * log(max(counts) / min(counts))
        labels.append(str(count) if is_free else "")
        last = log(count) if is_free else last
    return list(counts), labels


def _plain_log_ticks(axes: Any) -> None:
    """Numbers for a person, and enough of them where there are few powers of ten."""
    from matplotlib.ticker import LogLocator

    low, high = axes.get_ylim()
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if high < FEW_DECADES * low else (1,)))
    axes.yaxis.set_major_formatter("{x:.6g}")


def _name_ends(axes: Any, ends: Ends) -> None:
    """The name of each line at its end, once the scale is final; names of lines that end together are one above the other."""
    axes.autoscale_view()  # or else matplotlib does it when it draws, and the lines move
    heights = {name: axes.transAxes.inverted().transform(axes.transData.transform(point))[1] for name, (point, _) in ends.items()}
    names = sorted(heights, key=heights.__getitem__)
    for name, height in zip(names, _apart([heights[name] for name in names]), strict=True):
        axes.annotate(name, (1.02, height), xycoords="axes fraction", va="center", fontsize=9, color=ends[name][1])


def _apart(heights: Sequence[float]) -> list[float]:
    """Ascending heights moved as little as it takes to be apart, within the plot; if they are too many for it, not above its top."""
    return _placed(heights, [APART] * len(heights), -APART / 2, 1 + APART / 2)


def _placed(middles: Sequence[float], sizes: Sequence[float], low: float, high: float) -> list[float]:
    """Ascending middles of things, moved till none is on another: those that meet alike to both sides, then to between low and high."""
    offsets = [sum(sizes[:index]) + size / 2 for index, size in enumerate(sizes)]  # of things that touch
    starts = _ascending([middle - offset for middle, offset in zip(middles, offsets, strict=True)])
    placed = [start + offset for start, offset in zip(starts, offsets, strict=True)]
    for index, size in enumerate(sizes):
        placed[index] = max(placed[index], low + size / 2)
        low = placed[index] + size / 2
    for index in reversed(range(len(sizes))):
        placed[index] = min(placed[index], high - sizes[index] / 2)
        high = placed[index] - sizes[index] / 2
    return placed


def _ascending(numbers: Sequence[float]) -> list[float]:
    """The nearest numbers, by squares, of which none is less than the one before: neighbours that are not become their mean."""
    groups: list[list[float]] = []
    for number in numbers:
        groups.append([number])
        while len(groups) > 1 and fmean(groups[-2]) > fmean(groups[-1]):
            groups[-2:] = [groups[-2] + groups[-1]]
    return [fmean(group) for group in groups for _ in group]


def _step(results: Results, figure: Any) -> bool:
    """What a step goes into by number of scenes, and how long it takes by variant."""
    steps = next((each for each in results.steps if each.comparison), None)
    if steps is None or steps.comparison is None:
        return False
    shared = {case.scenes: case.times.shares for case in steps.scaling if case.times and case.times.shares}
    found = {name: taken for name in steps.comparison.variants if (taken := steps.seconds(steps.comparison, name)) is not None}
    rows = max(len(shared), len(found))
    if rows == 0:
        return False
    figure.set_size_inches(10, 1.2 + 0.52 * rows)
    plots = iter(figure.subplots(1, bool(shared) + bool(found), squeeze=False)[0])
    if shared:
        _share_bars(shared, steps.main, next(plots), THICK * len(shared) / rows)
    if found:
        _variant_bars(results, steps, steps.comparison, found, next(plots), THICK * len(found) / rows)
    figure.suptitle(f"A step of a model of {results.settings.size.name}'s widths\n{_where(results)}", x=0.01, ha="left", fontsize=11)
    return True


def _share_bars(shared: Mapping[int, Mapping[str, float]], main: str, axes: Any, thick: float) -> None:
    """shared: by number of scenes, shares of the whole by kind."""
    names = [f"{scenes} scene{'s' * (scenes > 1)}" for scenes in shared]
    starts, middles = [0.0] * len(names), []
    for kind, colour in SHARES.items():
        widths = [100 * shares[kind] for shares in shared.values()]
        bars = axes.barh(names, widths, left=starts, color=colour, height=thick)
        numbers = [f"{width:.0f} %" if width >= NARROW else "" for width in widths]
        axes.bar_label(bars, numbers, label_type="center", fontsize=8, color="#222222" if kind == "rest" else "white")
        middles.append(starts[0] + widths[0] / 2)
        starts = [start + width for start, width in zip(starts, widths, strict=True)]
    for kind, middle in zip(SHARES, _placed(middles, [LETTER * len(kind) for kind in SHARES], 0, 100), strict=True):
        colour = "#555555" if kind == "rest" else SHARES[kind]
        place = {"xytext": (0, 4), "textcoords": "offset points", "ha": "center", "va": "bottom"}
        axes.annotate(kind, (middle, -thick / 2), fontsize=9, color=colour, **place)
    _title(axes, f"What its time goes into, {main}")
    axes.set(xlabel="share of a step (%)", xlim=(0, 100), ylim=(len(names) - 0.5, -0.75))
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(left=False)


def _variant_bars(results: Results, steps: Steps, case: StepCase, found: Mapping[str, float], axes: Any, thick: float) -> None:
    """found: seconds of a whole step by variant."""
    colours = [COLOURS.get(name.partition(", ")[0], OTHERS[0]) for name in found]
    bars = axes.barh([name.replace(", ", ",\n", 1) for name in found], list(found.values()), color=colours, height=thick)
    axes.bar_label(bars, [seconds(taken) for taken in found.values()], padding=4, fontsize=9)
    part = "" if steps.measured_blocks == steps.blocks else f", scaled up from {steps.measured_blocks} of {steps.blocks} blocks"
    _title(axes, f"Time of a step, {results.settings.shape(case.scenes).words}")
    axes.set(xlabel=f"seconds{part}", ylim=(len(found) - 0.5, -0.5))
    axes.margins(x=0.15)
    axes.spines[["top", "right"]].set_visible(False)


def _what(results: Results) -> str:
    settings = results.settings
    shape = settings.shape(1, settings.attention_video)
    tokens = settings.attention_layout(1).num_tokens
    heads, frames = settings.attention_heads, shape.num_frames[0]
    scenes = f"scenes of {frames} frame{'s' * (frames > 1)} at {shape.height} × {shape.width}"
    return f"{heads} head{'s' * (heads > 1)}, {scenes}, {tokens} tokens each"


def _where(results: Results) -> str:
    machine = results.machine
    if machine is None:
        return f"{results.settings.device.type} · {results.date}"
    threads = "" if machine.device == "cuda" else f", {machine.threads} thread{'s' * (machine.threads > 1)}"
    return f"{machine.name}, {machine.dtype}{threads} · {results.date}"
