"""Words that all parts of the report share: numbers, reasons, names of groups and metrics, as HTML."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from mask2dit.evaluation.measuring import FilmResult, MetricAbout, Number, Results
from mask2dit.evaluation.plots import NUM_COLOURS
from mask2dit.page_parts import cut_short, digits_of, is_number, plain, shown

BETTER = {"higher": "higher is better", "lower": "lower is better"}


class Scale:
    """How the values of one metric are shown: multiplied by its scale, and all with as many decimals."""

    def __init__(self, about: MetricAbout, results: Results) -> None:
        self.factor = about.scale
        numbers = [group.values.get(about.name) for group in results.groups]
        self.digits = digits_of(self.of(each.value) for each in numbers if each)
        if all(each is None or each.value is None for each in numbers):
            films = [film.values.get(about.name) for group in results.groups for film in group.films]
            self.digits = digits_of(self.of(each.value) for each in films if each)

    def of(self, value: float | None) -> float | None:
        """A value as it is drawn; None also for one that is no number."""
        return None if value is None or not is_number(value * self.factor) else value * self.factor

    def text(self, value: float | None, sign: bool = False) -> str:
        """A value as it is read; sign: also a plus."""
        scaled = self.of(value)
        return "–" if scaled is None else shown(scaled, self.digits, sign)

    def interval(self, number: Number, sign: bool = False) -> str:
        """Both ends in brackets, or nothing."""
        low, high = self.ends(number)
        return "" if low is None or high is None else f"[{shown(low, self.digits, sign)}, {shown(high, self.digits, sign)}]"

    def ends(self, number: Number) -> tuple[float | None, float | None]:
        return (self.of(number.interval[0]), self.of(number.interval[1])) if number.interval else (None, None)

    def has(self, number: Number | None) -> bool:
        return number is not None and self.of(number.value) is not None


Scales = Mapping[str, Scale]


def why(number: Number | None) -> str:
    """Why there is no value; never nothing."""
    if number is None:
        return "not measured"
    return number.reason or ("the value is not a number" if number.value is not None else "not measured")


def film_value(film: FilmResult, name: str, scale: Scale) -> float | None:
    """A film's value as it is drawn."""
    number = film.values.get(name)
    return scale.of(number.value) if number else None


def with_unit(about: MetricAbout) -> str:
    """A metric's title and unit, as plain text."""
    return f"{about.title}, {about.unit}" if about.unit else about.title


def metric_name(about: MetricAbout) -> str:
    """A metric's title, and below it its unit and which way is better."""
    words = ", ".join(part for part in (about.unit, BETTER.get(about.better, "")) if part)
    return f"{plain(about.title)}<small>{plain(words)}</small>"


def group_name(results: Results, name: str, whole: bool = False) -> str:
    """A group with its colour. whole: however long it is."""
    index = next((index for index, group in enumerate(results.groups) if group.name == name), 0)
    short = name if whole else cut_short(name)
    tooltip = f' title="{plain(name)}"' if short != name else ""
    return f'<span class="group g{index % NUM_COLOURS}"{tooltip}><i></i><bdi>{plain(short)}</bdi></span>'


def missing_values(missing: Iterable[tuple[str, str]]) -> str:
    """What has no value, by reason."""
    by_reason: dict[str, list[str]] = {}
    for title, reason in missing:
        by_reason.setdefault(reason, []).append(title)
    return "".join(f'<p class="note">– {plain(", ".join(titles))}: {plain(reason)}</p>' for reason, titles in by_reason.items())


def sample_size(about: MetricAbout, number: Number) -> str:
    """Of how much a number was taken: films, and scenes where it is one of the set as a whole."""
    return f"n = {number.num_films}" + (f", {number.count} scenes" if about.of_set and number.count else "")
