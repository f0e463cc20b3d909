"""What was measured, as pictures; needs matplotlib, which is imported where it is used."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from mask2dit.benchmarking.attention_cases import BOTH, FORWARD, AttentionCase
from mask2dit.benchmarking.forms import BOOLEAN_MASK, NFOLD_COPY, UNMASKED
from mask2dit.benchmarking.report import seconds
from mask2dit.benchmarking.results import Results
from mask2dit.benchmarking.steps import Steps
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
    for axes, (way, cases) in zip(figure.subplots(1, len(measured), squeeze=False, sharey=True)[0], measured.items(), strict=True):
        axes.set(title=f"{way.capitalize()}: time ÷ that of the unmasked softmax, pair by pair")
        axes.title.set_size(10)
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
        _lines(axes, cases, lambda case, form: case.over_unmasked(form))
        axes.tick_params(labelleft=True)
    figure.suptitle(f"Attention by number of scenes · {_what(results)}\n{_where(results)}", x=0.01, ha="left", fontsize=11)
    return True


def _memory(results: Results, figure: Any) -> bool:
    """What attention makes on the way, and what it copies."""
    cases = [case for case in results.attention if case.direction == FORWARD and case.forms]
    if not cases:
        return False
    left, right = figure.subplots(1, 2)
    left.set(title="Memory made on the way, at its fullest", ylabel="MiB", yscale="log")
    _lines(left, cases, lambda case, form: (each := case.forms[form].peak_bytes) and each / 2**20)
    right.set(title="Keys and values copied", ylabel="bytes copied ÷ bytes of all keys and values")
    _lines(right, cases, lambda case, form: None if (each := case.forms[form].copied_bytes) is None else each / case.key_value_bytes)
    figure.suptitle(f"Memory of attention · {_what(results)}\n{_where(results)}", x=0.01, ha="left", fontsize=11)
    return True


def _lines(axes: Any, cases: Sequence[AttentionCase], value: Callable[[AttentionCase, str], float | None]) -> None:
    """A line for each form, with its name at its end; lines that are one have their names one above the other."""
    ends, others = {}, iter(OTHERS * 4)
    forms = dict.fromkeys(form for case in cases for form in case.forms)
    for form in forms:
        points = [(case.scenes, number) for case in cases if form in case.forms and (number := value(case, form)) is not None]
        if points:
            colour = COLOURS.get(form) or next(others)
            axes.plot(*zip(*points, strict=True), marker="o", markersize=4, color=colour, linewidth=1.8)
            ends[form] = (points[-1], colour)
    axes.set_xscale("log")
    axes.set_xticks([case.scenes for case in cases], [str(case.scenes) for case in cases])
    axes.set_xlabel("scenes")
    axes.minorticks_off()
    axes.grid(True, color="#eeeeee")
    axes.spines[["top", "right"]].set_visible(False)
    axes.margins(y=0.08)
    heights = {form: axes.transAxes.inverted().transform(axes.transData.transform(point))[1] for form, (point, _) in ends.items()}
    names = sorted(heights, key=heights.__getitem__)
    for name, height in zip(names, _apart([heights[name] for name in names]), strict=True):
        axes.annotate(name, (1.02, height), xycoords="axes fraction", va="center", fontsize=9, color=ends[name][1])


def _apart(heights: Sequence[float]) -> list[float]:
    """Ascending heights moved upwards until they are apart, then down from the top of the plot as far as that needs."""
    lowest, raised = -1.0, []
    for height in heights:
        lowest = max(height, lowest + APART)
        raised.append(lowest)
    highest, lowered = 1.0 + APART, []
    for height in reversed(raised):
        highest = min(height, highest - APART)
        lowered.append(highest)
    return lowered[::-1]


def _step(results: Results, figure: Any) -> bool:
    """What a step goes into by number of scenes, and how long it takes by variant."""
    steps = next((each for each in results.steps if each.comparison), None)
    if steps is None:
        return False
    if not any(case.times for case in steps.scaling):
        _variant_bars(results, steps, figure.subplots())
    else:
        left, right = figure.subplots(1, 2, width_ratios=(1, 1))
        _share_bars(steps, left)
        _variant_bars(results, steps, right)
    figure.suptitle(f"A step of a model of {results.settings.size.name}'s widths\n{_where(results)}", x=0.01, ha="left", fontsize=11)
    return True


def _share_bars(steps: Steps, axes: Any) -> None:
    cases = [case for case in steps.scaling if case.times and case.times.shares]
    names = [f"{case.scenes} scene{'s' * (case.scenes > 1)}" for case in cases]
    starts = [0.0] * len(cases)
    for kind, colour in SHARES.items():
        widths = [100 * case.times.shares[kind] for case in cases if case.times]
        bars = axes.barh(names, widths, left=starts, color=colour, height=0.62)
        axes.bar_label(
            bars,
            [f"{width:.0f} %" if width >= 6 else "" for width in widths],
            label_type="center",
            fontsize=9,
            color="#222222" if kind == "rest" else "white",
        )
        if cases:
            axes.annotate(
                kind,
                (starts[0] + widths[0] / 2, -0.42),
                ha="center",
                va="bottom",
                fontsize=9,
                color="#555555" if kind == "rest" else colour,
            )
        starts = [start + width for start, width in zip(starts, widths, strict=True)]
    axes.set(title=f"What its time goes into, {steps.main}", xlabel="share of a step (%)", xlim=(0, 100))
    axes.set_ylim(len(cases) - 0.5, -0.75)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(left=False)


def _variant_bars(results: Results, steps: Steps, axes: Any) -> None:
    case = steps.comparison
    assert case is not None
    found = {name: taken for name in case.variants if (taken := steps.seconds(case, name)) is not None}
    colours = [COLOURS.get(name.partition(", ")[0], OTHERS[0]) for name in found]
    bars = axes.barh([name.replace(", ", ",\n", 1) for name in found], list(found.values()), color=colours, height=0.62)
    axes.bar_label(bars, [seconds(taken) for taken in found.values()], padding=4, fontsize=9)
    part = "" if steps.measured_blocks == steps.blocks else f", scaled up from {steps.measured_blocks} of {steps.blocks} blocks"
    axes.set(title=f"Time of a step, {results.settings.shape(case.scenes).words}", xlabel=f"seconds{part}")
    axes.title.set_size(10)
    axes.invert_yaxis()
    axes.margins(x=0.15)
    axes.spines[["top", "right"]].set_visible(False)


def _what(results: Results) -> str:
    settings = results.settings
    shape = settings.shape(1, settings.attention_video)
    tokens = settings.attention_layout(1).num_tokens
    return (
        f"{settings.attention_heads} heads, scenes of {shape.num_frames[0]} frames at {shape.height} × {shape.width}, {tokens} tokens each"
    )


def _where(results: Results) -> str:
    machine = results.machine
    if machine is None:
        return f"{results.settings.device.type} · {results.date}"
    threads = "" if machine.device == "cuda" else f", {machine.threads} thread{'s' * (machine.threads > 1)}"
    return f"{machine.name}, {machine.dtype}{threads} · {results.date}"
