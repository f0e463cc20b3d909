"""Histograms for the report: how often which value was found, what came of it, and where the thresholds lie; as pieces of a page.

Bars and lines are SVG in percent of the page's width, colours its CSS classes. Nothing here knows shots: values come scaled and named.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from mask2dit.page_parts import Axis, axis_of, digits_of, is_number, percent, plain, shown

HEIGHT, HEAD = 96, 34  # pixels of the highest bar, and above it for the words of thresholds
LEAST = 3  # pixels of a bar that stands for something
BINS_PER_TICK = 10  # and twice as many where ticks are few
FAR = 2.5  # how many times further than all but one value in fifty the largest lies before it is drawn with the others


@dataclass(frozen=True, slots=True)
class Kind:
    """What became of some of the values: its name in the data, its words, the class that colours it."""

    name: str
    words: str
    colour: str


@dataclass(frozen=True, slots=True)
class Threshold:
    """A line across the values. `words`: for example "at least"."""

    value: float
    words: str


def histogram(values: Sequence[tuple[float, str]], kinds: Sequence[Kind], thresholds: Sequence[Threshold] = (), unit: str = "") -> str:
    """Bars of how many values there are of each size, those of one kind above each other. values: each with the name of its kind."""
    drawn = [(value, kind) for value, kind in values if is_number(value)]
    if not drawn:
        return '<p class="note">There are no values.</p>'
    limits = [limit for limit in thresholds if is_number(limit.value)]
    end = _end([value for value, _ in drawn], limits)
    beyond = sum(value > end for value, _ in drawn)
    axis = axis_of([*(min(value, end) for value, _ in drawn), *(limit.value for limit in limits)])
    width = (axis.ticks[1] - axis.ticks[0]) / (BINS_PER_TICK * (2 if len(axis.ticks) < 5 else 1))
    bins: dict[int, Counter[str]] = {}
    for value, kind in drawn:
        bins.setdefault(math.floor(min(value, end) / width + 1e-9), Counter())[kind] += 1
    highest = max(count.total() for count in bins.values())
    digits = digits_of([2 * width])
    bars = "".join(_bar(axis, index * width, width, bins[index], highest, kinds, digits) for index in sorted(bins))
    grid = "".join(
        f'<line class="grid" x1="{percent(axis.at(tick))}" x2="{percent(axis.at(tick))}" y1="{HEAD}" y2="{HEAD + HEIGHT}"/>'
        for tick in axis.ticks
    )
    lines = "".join(_line(axis, limit, place) for place, limit in enumerate(limits))
    labels = "".join(
        f'<text x="{percent(axis.at(tick))}" y="{HEAD + HEIGHT + 16}">{label}</text>'
        for tick, label in zip(axis.ticks, axis.labels, strict=True)
    )
    marks = f'{grid}{bars}{lines}<g class="ticks">{labels}</g>'
    note = f"Highest bar: {highest}." + (
        f" The last bar has {beyond} more, up to {shown(max(value for value, _ in drawn), 1)}." if beyond else ""
    )
    words = plain(" ".join(part for part in (axis.power, unit) if part))
    return (
        f'<div class="histogram"><svg height="{HEAD + HEIGHT + 20}" aria-hidden="true">{marks}</svg>'
        f'<p class="unit">{words}</p><p class="legend">{_legend(drawn, kinds)} <small>{plain(note)}</small></p></div>'
    )


def _end(values: Sequence[float], limits: Sequence[Threshold]) -> float:
    """Where the axis ends: at the largest value, or before it where few values lie far out."""
    ordered = sorted(values)
    most = max([ordered[int(0.98 * (len(ordered) - 1))], *(limit.value for limit in limits)])
    return FAR / 2 * most if 0 < FAR * most < ordered[-1] else ordered[-1]


def _bar(axis: Axis, start: float, width: float, counts: Counter[str], highest: int, kinds: Sequence[Kind], digits: int | None) -> str:
    left, right = axis.at(start), axis.at(start + width)
    told = ", ".join(f"{counts[kind.name]} {kind.words}" for kind in kinds if counts[kind.name])
    parts, below = [f"<title>{plain(f'{shown(start, digits)} to {shown(start + width, digits)}: {told}')}</title>"], float(HEAD + HEIGHT)
    for kind in kinds:
        if counts[kind.name]:
            height = max(LEAST, HEIGHT * counts[kind.name] / highest)
            below -= height
            parts.append(
                f'<rect class="{kind.colour}" x="{percent(left)}" width="{percent(right - left)}" y="{below:.1f}" height="{height:.1f}"/>'
            )
    return f"<g>{''.join(parts)}</g>"


def _line(axis: Axis, limit: Threshold, place: int) -> str:
    """A threshold, its words on the side where there is room, each a line below the one before."""
    where, down = axis.at(limit.value), 11 + 15 * (place % 2)
    side = 'text-anchor="end" dx="-5"' if where > 0.5 else 'dx="5"'
    text = plain(f"{limit.words} {limit.value:.6g}")
    x = percent(where)
    return (
        f'<g class="limit"><line x1="{x}" x2="{x}" y1="{down - 9}" y2="{HEAD + HEIGHT}"/><text x="{x}" y="{down}" {side}>{text}</text></g>'
    )


def _legend(values: Sequence[tuple[float, str]], kinds: Sequence[Kind]) -> str:
    counts = Counter(kind for _, kind in values)
    return " ".join(
        f'<span class="{kind.colour}"><i></i>{plain(kind.words)} <b>{counts[kind.name]}</b></span>' for kind in kinds if counts[kind.name]
    )
