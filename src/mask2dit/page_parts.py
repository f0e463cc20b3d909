"""What pages that carry everything inside them share: text as HTML, numbers for people, and the scales of their plots.

Words and numbers only: what a page says and how it looks is its own.
"""

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from html import escape

NOT_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
LARGEST = 1e300  # beyond it differences are no numbers any more


# Text


def plain(text: str) -> str:
    """Text as it may stand in HTML and in XML, which knows no control characters and no half characters."""
    return escape(NOT_XML.sub("�", text))


def cut_short(name: str, most: int = 26) -> str:
    """A long name without its middle: names of one set mostly differ at their ends."""
    return name if len(name) <= most else f"{name[: most // 2].rstrip()}…{name[1 - most // 2 :].lstrip()}"


def counted(number: int, what: str) -> str:
    """So many of something, by its singular."""
    return f"{number:,} {what}{'' if number == 1 else 's'}".replace(",", "\u202f")


# Numbers as text


def is_number(value: float | None) -> bool:
    """Whether there is a value that can be drawn."""
    return value is not None and math.isfinite(value) and abs(value) < LARGEST


def digits_of(values: Iterable[float | None]) -> int | None:
    """How many decimals show the largest of the values in three to four figures; None: it takes a power of ten."""
    largest = max((abs(value) for value in values if value is not None and is_number(value)), default=0.0)
    if largest == 0:
        return 2
    exponent = math.floor(math.log10(largest))
    if not -4 <= exponent < 6:
        return None
    return max(0, 3 - exponent) if exponent >= 0 else 2 - exponent


def shown(value: float, digits: int | None, sign: bool = False) -> str:
    """A number for people. What is not zero never looks like zero. sign: also a plus."""
    size = abs(value)
    if digits is None or (size and round(size, digits) == 0):
        text = f"{size:.3g}" if digits is None else f"{size:.1g}"
        mantissa, _, exponent = text.partition("e")
        text = f"{mantissa}·{_power(int(exponent))}" if exponent else mantissa
    else:
        text = f"{size:.{digits}f}"
    return ("−" if value < 0 else "+" if sign and value > 0 else "") + text


def _power(exponent: int) -> str:
    return "10" + str(exponent).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))


# Axes


@dataclass(frozen=True, slots=True)
class Axis:
    """A straight scale from low to high with three to five ticks, or none where nothing is drawn.

    `power`: what the labels are to be multiplied by, "" for one.
    """

    low: float
    high: float
    ticks: tuple[float, ...]
    labels: tuple[str, ...]
    power: str = ""

    def at(self, value: float) -> float:
        """Where a value lies: 0 at the low end, 1 at the high end."""
        return min(1.0, max(0.0, (value - self.low) / (self.high - self.low)))


def axis_of(values: Iterable[float | None], room: float = 46) -> Axis:
    """The axis that shows all values. room: letters that all its labels together may have."""
    numbers = [value for value in values if value is not None and is_number(value)]
    if not numbers:
        return Axis(0.0, 1.0, (), ())
    low, high = min(numbers), max(numbers)
    size = max(abs(low), abs(high))
    if size < 1 / LARGEST:
        low, high, size = -1.0, 1.0, 1.0
    elif high - low <= 1e-4 * size:  # equal but for rounding
        low, high = low - 0.05 * size, high + 0.05 * size
    margin = 0.04 * (high - low)
    low, high = low - margin, high + margin
    exponent = math.floor(math.log10(size))
    exponent = 0 if -3 <= exponent < 5 else 3 * (exponent // 3)
    for most in (5, 4, 3):
        step, first, last = _steps(low, high, most)
        digits = max(0, _decimals(step / 10.0**exponent))
        ticks = tuple(index * step for index in range(first, last + 1))
        labels = tuple(shown(tick / 10.0**exponent, digits) for tick in ticks)
        if sum(map(len, labels)) + 2 * len(labels) <= room:
            break
    return Axis(min(low, ticks[0]), max(high, ticks[-1]), ticks, labels, f"× {_power(exponent)}" if exponent else "")


def _steps(low: float, high: float, most: int) -> tuple[float, int, int]:
    """A round step, and the multiples of it from first to last within low and high, or just beyond where they would be fewer than three."""
    rough = 10.0 ** math.floor(math.log10((high - low) / most))
    for factor in (1, 2, 2.5, 5, 10, 20):
        step = factor * rough
        first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
        if last - first + 1 <= most:
            break
    while last - first < 2:
        if (last + 1) * step - high <= low - (first - 1) * step:
            last += 1
        else:
            first -= 1
    return step, first, last


def _decimals(step: float) -> int:
    exponent = math.floor(math.log10(step) + 1e-9)
    return -exponent + (abs(step / 10.0**exponent - 2.5) < 1e-6)


def percent(share: float) -> str:
    """A place in a drawing, as SVG takes it."""
    return f"{100 * share:.2f}%"
