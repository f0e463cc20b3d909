"""Plots of values with intervals, as SVG text: our own, for a page that carries everything inside needs no library.

`film_plot` and `difference_plot` are pieces of a page: words are HTML, so that they wrap and shrink with it, and only marks are SVG, in
percent of its width; colours are the page's CSS variables. `interval_plot` is a whole SVG file with colours of its own. Nothing here knows
metrics: numbers come scaled, and their texts too.
"""

import math
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

from mask2dit.page_parts import LARGEST, Axis, axis_of, cut_short, digits_of, is_number, percent, plain, shown

NUM_COLOURS = 8
COLOURS = ("#2f82c4", "#d9661f", "#0f9d77", "#b9629b", "#b58410", "#6b7fe0", "#8a8577", "#c2504f")
"""Okabe and Ito's hues, as bright as both white and black paper bear; the page has them lighter and darker."""

GREY = "#7d786e"  # 4.3 times as bright as black paper, and as dark as white
FAINT = "#7d786e55"
FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Noto Sans', 'Helvetica Neue', Arial, sans-serif"

MOST_TOOLTIPS = 60  # dots of a row that say their name: a page of thousands of elements more is slow
ROW, DOT, MEAN = 30, 2.8, 5  # pixels: height of a row, radii
SPREAD = 8  # pixels that dots of one row lie above and below its middle


# Pieces of the page


@dataclass(frozen=True, slots=True)
class DotRow:
    """One group of a plot: its films' values and their names, the mean, its interval, and the words for it at the right.

    `words` is HTML. `colour`: the number of the group.
    """

    name: str
    value: float | None
    low: float | None = None
    high: float | None = None
    dots: tuple[float, ...] = ()
    dot_names: tuple[str, ...] = ()
    words: str = ""
    colour: int = 0


@dataclass(frozen=True, slots=True)
class DifferenceRow:
    """One difference with its interval. `reach`: what lies at both ends of its scale; `words` and `verdict` are HTML."""

    name: str
    value: float | None
    low: float | None = None
    high: float | None = None
    reach: float = 1.0
    words: str = ""
    verdict: str = ""

    @property
    def is_sure(self) -> bool:
        """Whether the interval leaves out 0."""
        return self.low is not None and self.high is not None and (self.low > 0 or self.high < 0)


def film_plot(rows: Sequence[DotRow], unit: str = "") -> str:
    """A row for each group: a dot for each film, the mean as a bold one, its interval as a bar; HTML for the page."""
    axis = axis_of(number for row in rows for number in (row.value, row.low, row.high, *row.dots))
    lines = "".join(f'<line class="grid" x1="{percent(axis.at(tick))}" x2="{percent(axis.at(tick))}" y2="{ROW}"/>' for tick in axis.ticks)
    parts = []
    for row in rows:
        dots = "".join(_dot(axis, row, index) for index, value in enumerate(row.dots) if is_number(value))
        marks = f'{lines}<g class="g{row.colour % NUM_COLOURS}">{dots}{_mark(axis, row.value, row.low, row.high)}</g>'
        parts.append(f'{_name(row.name, cut_short(row.name))}{_track(marks)}<span class="value">{row.words or "–"}</span>')
    labels = "".join(
        f'<text x="{percent(axis.at(tick))}" y="14">{escape(label)}</text>' for tick, label in zip(axis.ticks, axis.labels, strict=True)
    )
    words = " ".join(part for part in (axis.power, plain(unit)) if part)
    parts.append(f'<span class="axis"><svg height="18" aria-hidden="true">{labels}</svg>{f"<span>{words}</span>" if words else ""}</span>')
    return f'<div class="plot">{"".join(parts)}</div>'


def difference_plot(rows: Sequence[DifferenceRow], below: str = "", above: str = "") -> str:
    """A row for each difference, on its own scale, around a common line of zero. below, above: what lies on either side."""
    parts = [f'<span class="sides"><span>{plain(below)}</span><span>{plain(above)}</span></span>'] if below or above else []
    for row in rows:
        reach = row.reach if is_number(row.reach) and row.reach > 1 / LARGEST else 1.0
        axis = Axis(-1.06 * reach, 1.06 * reach, (), ())
        zero = f'<line class="zero" x1="50%" x2="50%" y2="{ROW}"/>'
        sure = "sure" if row.is_sure else "unsure"
        marks = f'{zero}<g class="{sure}">{_mark(axis, row.value, row.low, row.high)}</g>'
        parts.append(f'{_name(row.name, row.name)}{_track(marks)}<span class="value {sure}">{row.words or "–"}</span>')
        parts.append(f'<span class="verdict">{row.verdict}</span>')
    return f'<div class="plot differences">{"".join(parts)}</div>'


def _name(name: str, short: str) -> str:
    return f'<span class="name" title="{plain(name)}"><bdi>{plain(short)}</bdi></span>'


def _track(marks: str) -> str:
    return f'<svg class="track" height="{ROW}" aria-hidden="true">{marks}</svg>'


def _dot(axis: Axis, row: DotRow, index: int) -> str:
    height = ROW / 2 + SPREAD * (2 * (index * 0.6180339887 % 1) - 1)  # the golden ratio spreads any number of dots evenly
    named = len(row.dots) <= MOST_TOOLTIPS and index < len(row.dot_names)
    title = f"<title>{plain(row.dot_names[index])}</title>" if named else ""
    return f'<circle class="dot" cx="{percent(axis.at(row.dots[index]))}" cy="{height:.1f}" r="{DOT}">{title}</circle>'


def _mark(axis: Axis, value: float | None, low: float | None, high: float | None) -> str:
    bar, middle = "", ROW / 2
    if low is not None and high is not None and is_number(low) and is_number(high):
        bar = f'<line class="bar" x1="{percent(axis.at(low))}" x2="{percent(axis.at(high))}" y1="{middle:g}" y2="{middle:g}"/>'
    if value is None or not is_number(value):
        return bar
    return f'{bar}<circle class="mean" cx="{percent(axis.at(value))}" cy="{middle:g}" r="{MEAN}"/>'


# A file of its own


@dataclass(frozen=True, slots=True)
class Row:
    """A value with its interval: `label` names the row (a plan, say), `group` the panel that it stands in (a measure)."""

    label: str
    group: str
    value: float | None
    low: float | None = None
    high: float | None = None


MARGIN, GAP, TEXT, SMALL, TITLE = 16, 36, 12.5, 11, 16  # pixels
BOLDER = 1.15  # how much wider bold letters are
PANEL_HEAD, PANEL_FOOT, PANEL_ROW = 30, 40, 26


def interval_plot(rows: Sequence[Row], title: str = "", unit: str | Mapping[str, str] = "", columns: int = 2, width: int = 800) -> str:
    """A whole SVG file: a panel with its own axis for each group, a row and a colour for each label, the same in all panels.

    unit: of all panels, or by group. columns: panels side by side. It has no background, and is readable on white and on black.
    """
    groups, labels = list(dict.fromkeys(row.group for row in rows)), list(dict.fromkeys(row.label for row in rows))
    columns = max(1, min(columns, len(groups)))
    across = (width - 2 * MARGIN - (columns - 1) * GAP) / columns
    down = PANEL_HEAD + PANEL_ROW * len(labels) + PANEL_FOOT
    heading = wrapped(title, width - 2 * MARGIN, TITLE * BOLDER)
    top = MARGIN + 22 * len(heading) + (8 if heading else 0)
    parts = [_words(MARGIN, MARGIN + 15 + 22 * index, line, TITLE, weight=600) for index, line in enumerate(heading)]
    for index, group in enumerate(groups):
        left, upper = MARGIN + index % columns * (across + GAP), top + index // columns * down
        of_label = {row.label: row for row in rows if row.group == group}
        panel = _Panel(group, unit if isinstance(unit, str) else unit.get(group, ""), labels, of_label, across)
        parts.append(f'<g transform="translate({_fixed(left)} {_fixed(upper)})">{panel.drawn()}</g>')
    height = top + down * math.ceil(len(groups) / columns)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" role="img" '
        f'font-family="{FONT}" fill="{GREY}"><title>{plain(title or ", ".join(groups))}</title>{"".join(parts)}</svg>\n'
    )


@dataclass(frozen=True, slots=True)
class _Panel:
    """One measure: its name, a row for each label, and an axis below."""

    name: str
    unit: str
    labels: Sequence[str]
    rows: Mapping[str, Row]
    width: float

    def drawn(self) -> str:
        found = [self.rows[label] for label in self.labels if label in self.rows]
        digits = digits_of(row.value for row in found)
        texts = {row.label: shown(row.value, digits) for row in found if row.value is not None and is_number(row.value)}
        left = min(0.4 * self.width, max((text_width(label, TEXT) for label in self.labels), default=0)) + 14
        right = self.width - max((text_width(text, TEXT) for text in texts.values()), default=0) - 14
        axis = axis_of((number for row in found for number in (row.value, row.low, row.high)), room=(right - left) / (0.6 * SMALL))
        places = [left + (right - left) * axis.at(tick) for tick in axis.ticks]
        bottom, free = PANEL_HEAD + PANEL_ROW * len(self.labels), -math.inf
        parts = [_words(0, 16, self.name, TEXT + 0.5, self.width, weight=600)]
        for tick, place, label in zip(axis.ticks, places, axis.labels, strict=True):
            strong = abs(tick) < 1e-9 * (axis.high - axis.low) and axis.low < 0 < axis.high
            parts.append(_line(place, PANEL_HEAD, place, bottom, GREY if strong else FAINT, 1))
            if place - text_width(label, SMALL) / 2 >= free:
                parts.append(_words(place, bottom + 15, label, SMALL, anchor="middle"))
                free = place + text_width(label, SMALL) / 2 + 4
        words = " ".join(part for part in (axis.power, self.unit) if part and axis.ticks)
        if words:
            parts.append(_words((left + right) / 2, bottom + 29, words, SMALL, self.width - left, anchor="middle"))
        for index, label in enumerate(self.labels):
            middle = PANEL_HEAD + PANEL_ROW * (index + 0.5)
            parts.append(_words(0, middle + 4.5, label, TEXT, left - 13))
            parts.append(_words(self.width, middle + 4.5, texts.get(label, "–"), TEXT, anchor="end"))
            if label in self.rows:
                parts.append(_interval(axis, self.rows[label], left, right, middle, COLOURS[index % NUM_COLOURS]))
        return "".join(parts)


def _interval(axis: Axis, row: Row, left: float, right: float, middle: float, colour: str) -> str:
    def place(value: float) -> float:
        return left + (right - left) * axis.at(value)

    bar = dot = ""
    if row.low is not None and row.high is not None and is_number(row.low) and is_number(row.high):
        bar = _line(place(row.low), middle, place(row.high), middle, colour, 3)
    if row.value is not None and is_number(row.value):
        dot = f'<circle cx="{_fixed(place(row.value))}" cy="{_fixed(middle)}" r="{MEAN}" fill="{colour}"/>'
    return bar + dot


def _line(x1: float, y1: float, x2: float, y2: float, colour: str, width: float) -> str:
    places = f'x1="{_fixed(x1)}" y1="{_fixed(y1)}" x2="{_fixed(x2)}" y2="{_fixed(y2)}"'
    return f'<line {places} stroke="{colour}" stroke-width="{width:g}" stroke-linecap="{"round" if width > 1 else "butt"}"/>'


def _words(x: float, y: float, text: str, size: float, room: float = math.inf, anchor: str = "start", weight: int = 400) -> str:
    """One line of text, shortened to `room` pixels; the whole of it is then its tooltip."""
    short = shortened(text, room, size * (BOLDER if weight > 400 else 1))
    title = f"<title>{plain(text)}</title>" if short != text else ""
    style = f' text-anchor="{anchor}"' * (anchor != "start") + f' font-weight="{weight}"' * (weight != 400)
    return f'<text x="{_fixed(x)}" y="{_fixed(y)}" font-size="{size:g}"{style}>{title}{plain(short)}</text>'


def _fixed(number: float) -> str:
    return f"{number:.1f}".removesuffix(".0")


def text_width(text: str, size: float) -> float:
    """Pixels that a line takes at most, whatever sans-serif font a reader has."""
    return size * sum(map(_letter_width, text))


def _letter_width(letter: str) -> float:
    if unicodedata.combining(letter):
        return 0.0
    if unicodedata.east_asian_width(letter) in "WF":
        return 1.1
    if letter in "mwMW%@—…" or ord(letter) > 0x2FF:
        return 1.0
    return 0.8 if letter.isupper() else 0.4 if letter in "iljt.,:;|!' " else 0.65


def shortened(text: str, room: float, size: float) -> str:
    """As much of a text as `room` pixels hold, with … for the rest."""
    if text_width(text, size) <= room:
        return text
    kept = ""
    for letter in text:
        if text_width(kept + letter + "…", size) > room:
            break
        kept += letter
    return kept.rstrip() + "…"


def wrapped(text: str, room: float, size: float, most: int = 3) -> list[str]:
    """A text in lines of at most `room` pixels, at most so many; the last is shortened."""
    lines: list[str] = []
    for word in text.split():
        if lines and text_width(f"{lines[-1]} {word}", size) <= room:
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    if len(lines) > most:
        lines[most - 1 :] = [" ".join(lines[most - 1 :])]
    return [shortened(line, room, size) for line in lines]
