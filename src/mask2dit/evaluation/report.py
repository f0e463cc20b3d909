"""The report: one HTML file that shows films, values, intervals and what they mean, and opens from disk without a network.

Owns what the page says. Its looks and its small script are in report.html, its plots in `plots`; everything that is true of the films is in
the `Results` handed in, but for their pictures, which are read from the files that those name.
"""

from __future__ import annotations

import base64
import datetime
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePath
from string import Template

from mask2dit.evaluation.measuring import Comparison, FilmResult, GroupResult, MetricAbout, Number, Results
from mask2dit.evaluation.plots import (
    NUM_COLOURS,
    DifferenceRow,
    DotRow,
    cut_short,
    difference_plot,
    digits_of,
    film_plot,
    is_number,
    plain,
    shown,
)

MOST_PICTURED = 60  # films of a group with pictures; all are in the table of films
LONG_CAPTION = 220  # characters; of a longer one the beginning is shown, and the rest when asked for
MOST_OPEN = 3  # comparisons of groups, and problems, that are shown unasked

BETTER = {"higher": "higher is better", "lower": "lower is better"}


def report(results: Results, title: str = "Films measured") -> str:
    """The text of the page. A picture that cannot be read is left blank."""
    template = Path(__file__).with_name("report.html").read_text(encoding="utf-8")
    script = template.partition("<script>")[2].partition("</script>")[0]
    scales = {about.name: _Scale(about, results) for about in results.metrics}
    films = _entries(results)
    sections = {
        "summary": ("Summary", _summary(results, scales)),
        "differences": ("Differences", _differences(results, scales)),
        "metrics": ("Metrics", _metrics(results, scales)),
        "films": ("Films", _films(results, scales, films)),
        "table": ("All values", _table_of_films(results, scales, films)),
    }
    parts = {name: part for name, part in sections.items() if part[1]}
    return Template(template).substitute(
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        title=plain(title),
        headline=_headline(results),
        facts="".join(f"<div><dt>{plain(name)}</dt><dd>{plain(value)}</dd></div>" for name, value in _facts(results)),
        links="".join(f'<a href="#{name}">{heading}</a>' for name, (heading, _) in parts.items()),
        sections="\n".join(f'<section id="{name}">\n<h2>{heading}</h2>\n{body}\n</section>' for name, (heading, body) in parts.items()),
    )


# Numbers


class _Scale:
    """How the values of one metric are shown: multiplied by its scale, and all with as many decimals."""

    def __init__(self, about: MetricAbout, results: Results) -> None:
        self.factor = about.scale
        numbers = [group.values.get(about.name) for group in results.groups]
        self.digits = digits_of(self.of(each.value) for each in numbers if each)
        if all(each is None or each.value is None for each in numbers):
            films = [film.values.get(about.name) for group in results.groups for film in group.films]
            self.digits = digits_of(self.of(each.value) for each in films if each)

    def of(self, value: float | None) -> float | None:
        return None if value is None or not is_number(value * self.factor) else value * self.factor

    def text(self, value: float | None, sign: bool = False) -> str:
        scaled = self.of(value)
        return "–" if scaled is None else shown(scaled, self.digits, sign)

    def interval(self, number: Number, sign: bool = False) -> str:
        """ "[low, high]", or nothing."""
        low, high = self.ends(number)
        return "" if low is None or high is None else f"[{shown(low, self.digits, sign)}, {shown(high, self.digits, sign)}]"

    def ends(self, number: Number) -> tuple[float | None, float | None]:
        return (self.of(number.interval[0]), self.of(number.interval[1])) if number.interval else (None, None)

    def has(self, number: Number | None) -> bool:
        return number is not None and self.of(number.value) is not None


_Scales = Mapping[str, _Scale]


def _why(number: Number | None) -> str:
    """Why there is no value; never nothing."""
    if number is None:
        return "not measured"
    return number.reason or ("the value is not a number" if number.value is not None else "not measured")


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}".replace(",", "\u202f")


def _best(about: MetricAbout, groups: Sequence[GroupResult]) -> str | None:
    """The group that is better than every other beyond doubt: its interval meets none of theirs."""
    numbers = {group.name: group.values[about.name] for group in groups if about.name in group.values}
    found = {name: each for name, each in numbers.items() if each.value is not None and is_number(each.value)}
    if about.better not in BETTER or len(found) < 2:
        return None
    sign = 1 if about.better == "higher" else -1
    first, *others = sorted(found.values(), key=lambda each: -sign * (each.value or 0.0))
    if first.interval is None or any(other.interval is None for other in others):
        return None
    worst = min(sign * end for end in first.interval)
    if any(worst <= max(sign * end for end in other.interval or ()) for other in others):
        return None
    return next(name for name, each in found.items() if each is first)


# The head


def _headline(results: Results) -> str:
    films = [film for group in results.groups for film in group.films]
    problems = sum(bool(film.problem) for film in films)
    parts = [
        _count(len(results.groups), "group"),
        _count(len(films), "film"),
        _count(sum(len(film.scenes) for film in films), "scene"),
    ]
    bad = f'<a class="bad" href="#problems">{_count(problems, "film")} could not be measured</a>' if problems else ""
    return "".join(f"<span>{part}</span>" for part in (*parts, bad) if part)


def _facts(results: Results) -> Iterable[tuple[str, str]]:
    yield "Measured", _date(results.date)
    if results.reference:
        yield "Reference", results.reference
    yield from results.machine.items()


def _date(text: str) -> str:
    try:
        date = datetime.datetime.fromisoformat(text)
    except ValueError:
        return text
    return date.strftime("%Y-%m-%d %H:%M") + (" UTC" if date.utcoffset() == datetime.timedelta(0) else "")


# The summary


def _summary(results: Results, scales: _Scales) -> str:
    if not results.groups:
        return '<p class="note">There are no films.</p>'
    head = "".join(f'<th scope="col">{_group_name(results, group.name)}</th>' for group in results.groups)
    rows = "".join(_summary_row(about, results, scales[about.name]) for about in results.metrics)
    bests = [_best(about, results.groups) for about in results.metrics]
    legend = (
        "Mean over films, 95 % interval, number of films."
        + (" An interval needs two films." if any(len(group.films) < 2 for group in results.groups) else "")
        + (" In bold and marked: the best group, where its interval meets no other’s." if any(bests) else "")
    )
    table = f'<table class="summary"><thead><tr><th scope="col">Metric</th>{head}</tr></thead><tbody>{rows}</tbody></table>'
    return f'<div class="scroll">{table}</div><p class="note">{legend}</p>{_problems(results)}'


def _summary_row(about: MetricAbout, results: Results, scale: _Scale) -> str:
    numbers = [group.values.get(about.name) for group in results.groups]
    best = _best(about, results.groups)
    reasons = {_why(number) for number in numbers if not scale.has(number)}
    if len(reasons) == 1 and not any(map(scale.has, numbers)):
        cells = f'<td colspan="{len(numbers)}">– <small class="why">{plain(*reasons)}</small></td>'
    else:
        cells = "".join(
            _summary_cell(about, number, scale, group.name == best) for group, number in zip(results.groups, numbers, strict=True)
        )
    return f'<tr><th scope="row">{_metric_name(about)}</th>{cells}</tr>'


def _summary_cell(about: MetricAbout, number: Number | None, scale: _Scale, best: bool) -> str:
    if number is None or not scale.has(number):
        return f'<td>– <small class="why">{plain(_why(number))}</small></td>'
    spread = " ".join(f"<span>{part}</span>" for part in (scale.interval(number), f"n = {number.num_films}") if part)
    parts = f' title="{plain(f"{number.count} {about.parts}")}"' if number.count else ""
    left_out = f'<small class="why">{plain(number.reason)}</small>' if number.reason else ""
    value = scale.text(number.value)
    shown_value = f'<b class="best">{value}<i title="best"> ★</i></b>' if best else f"<b>{value}</b>"
    return f"<td{parts}>{shown_value}<small>{spread}</small>{left_out}</td>"


def _metric_name(about: MetricAbout) -> str:
    words = ", ".join(part for part in (about.unit, BETTER.get(about.better, "")) if part)
    return f"{plain(about.title)}<small>{plain(words)}</small>"


def _group_name(results: Results, name: str, whole: bool = False) -> str:
    index = next((index for index, group in enumerate(results.groups) if group.name == name), 0)
    short = name if whole else cut_short(name)
    tooltip = f' title="{plain(name)}"' if short != name else ""
    return f'<span class="group g{index % NUM_COLOURS}"{tooltip}><i></i><bdi>{plain(short)}</bdi></span>'


def _problems(results: Results) -> str:
    rows = [
        f"<li><b><bdi>{plain(film.name)}</bdi></b>{_of_group(results, group.name)} <span>{plain(film.problem)}</span></li>"
        for group in results.groups
        for film in group.films
        if film.problem
    ]
    if not rows:
        return ""
    head = f"{_count(len(rows), 'film')} could not be measured"
    opened = " open" if len(rows) <= MOST_OPEN else ""
    return f'<details class="bad" id="problems"{opened}><summary>{head}</summary><ul>{"".join(rows)}</ul></details>'


def _of_group(results: Results, name: str) -> str:
    return f" {_group_name(results, name)}" if len(results.groups) > 1 else ""


# Differences


def _differences(results: Results, scales: _Scales) -> str:
    if not results.comparisons:
        return ""
    abouts = [about for about in results.metrics if any(about.name in each.differences for each in results.comparisons)]
    reaches = {about.name: _reach(results.comparisons, about.name, scales[about.name]) for about in abouts}
    note = (
        "The mean difference between films of one name, pair by pair, which is surer than the intervals of the groups themselves. "
        "In colour: the interval leaves out 0. Each row has a scale of its own"
        + (", the same for all pairs of groups." if len(results.comparisons) > 1 else ".")
    )
    blocks = "".join(_comparison(results, each, abouts, scales, reaches, index) for index, each in enumerate(results.comparisons))
    return f'<p class="note">{note}</p>{blocks}'


def _reach(comparisons: Sequence[Comparison], name: str, scale: _Scale) -> float:
    numbers = [each.differences[name] for each in comparisons if name in each.differences]
    ends = [end for number in numbers for end in (scale.of(number.value), *scale.ends(number)) if end is not None]
    return max(map(abs, ends), default=1.0)


def _comparison(
    results: Results, found: Comparison, abouts: Sequence[MetricAbout], scales: _Scales, reaches: Mapping[str, float], index: int
) -> str:
    rows, missing = [], []
    for about in abouts:
        number, scale = found.differences.get(about.name), scales[about.name]
        if number is None or not scale.has(number):
            missing.append((about.title, _why(number)))
            continue
        low, high = scale.ends(number)
        spread = " · ".join(part for part in (scale.interval(number, sign=True), f"n = {number.num_films}") if part)
        words = f"<b>{scale.text(number.value, sign=True)}</b> <small>{spread}</small>"
        row = DifferenceRow(_short(about), scale.of(number.value), low, high, reaches[about.name], words)
        rows.append(replace(row, verdict=_verdict(results, found, about, row)) if row.is_sure else row)
    plot = difference_plot(rows, f"← {cut_short(found.other)} higher", f"{cut_short(found.one)} higher →") if rows else ""
    head = " − ".join(_group_name(results, name, whole=True) for name in (found.one, found.other))
    sure = sum(row.is_sure for row in rows)
    count = f" <small>{sure} of {len(rows)} leave{'s' * (sure == 1)} out 0</small>" if rows else ""
    opened = " open" if index < MOST_OPEN else ""
    return f'<details class="comparison"{opened}><summary>{head}{count}</summary>{plot}{_missing(missing)}</details>'


def _verdict(results: Results, found: Comparison, about: MetricAbout, row: DifferenceRow) -> str:
    """Who is better, or only higher where neither is."""
    one_is_higher = (row.value or 0.0) > 0
    if about.better == "lower":
        return f"{_group_name(results, found.other if one_is_higher else found.one)} better"
    return f"{_group_name(results, found.one if one_is_higher else found.other)} {'better' if about.better == 'higher' else 'higher'}"


def _short(about: MetricAbout) -> str:
    return f"{about.title}, {about.unit}" if about.unit else about.title


def _missing(missing: Iterable[tuple[str, str]]) -> str:
    """What has no value, by reason."""
    by_reason: dict[str, list[str]] = {}
    for title, reason in missing:
        by_reason.setdefault(reason, []).append(title)
    return "".join(f'<p class="note">– {plain(", ".join(titles))}: {plain(reason)}</p>' for reason, titles in by_reason.items())


# Metrics


def _metrics(results: Results, scales: _Scales) -> str:
    drawn, missing = [], []
    for about in results.metrics:
        numbers = [group.values.get(about.name) for group in results.groups]
        if any(map(scales[about.name].has, numbers)):
            drawn.append(_metric(about, results, scales[about.name]))
        else:
            missing.append((about, numbers))
    rest = "".join(
        f"<dt>{plain(about.title)}</dt><dd>{plain(about.about)}"
        f' <span class="why">– {plain("; ".join(dict.fromkeys(map(_why, numbers))) or "there are no films")}</span></dd>'
        for about, numbers in missing
    )
    return "".join(drawn) + (f'<h3>Not measured</h3><dl class="missing">{rest}</dl>' if rest else "")


def _metric(about: MetricAbout, results: Results, scale: _Scale) -> str:
    rows = []
    for index, group in enumerate(results.groups):
        number = group.values.get(about.name)
        dots = [(film.name, value) for film in group.films for value in [_film_value(film, about.name, scale)] if value is not None]
        if number is None or not scale.has(number):
            words = f'– <small class="why">{plain(_why(number))}</small>'
            low = high = value = None
        else:
            words = f"<b>{scale.text(number.value)}</b> <small>{scale.interval(number)}</small>"
            value, (low, high) = scale.of(number.value), scale.ends(number)
        names = tuple(f"{name}: {shown(each, scale.digits)}" for name, each in dots)
        rows.append(DotRow(group.name, value, low, high, tuple(each for _, each in dots), names, words, index))
    instrument = f'<p class="note">Measured with {plain(about.instrument)}.</p>' if about.instrument else ""
    better = f'<p class="note">{BETTER[about.better].capitalize()}.</p>' if about.better in BETTER else ""
    return (
        f'<article class="metric" id="metric-{plain(about.name)}"><div><h3>{plain(about.title)}</h3>'
        f'<p class="about">{plain(about.about)}</p>{better}{instrument}</div>{film_plot(rows, about.unit)}</article>\n'
    )


def _film_value(film: FilmResult, name: str, scale: _Scale) -> float | None:
    number = film.values.get(name)
    return scale.of(number.value) if number else None


# Films


@dataclass(frozen=True, slots=True)
class _Entry:
    """One film of one group, and where it stands among that group's."""

    group: str
    film: FilmResult
    place: int

    @property
    def is_pictured(self) -> bool:
        return self.place < MOST_PICTURED


def _entries(results: Results) -> dict[str, list[_Entry]]:
    """All films by name: those of one name stand together, whatever their group."""
    entries: dict[str, list[_Entry]] = {}
    for group in results.groups:
        for place, film in enumerate(group.films):
            entries.setdefault(film.name, []).append(_Entry(group.name, film, place))
    return entries


def _films(results: Results, scales: _Scales, films: Mapping[str, Sequence[_Entry]]) -> str:
    pictured = {name: [entry for entry in entries if entry.is_pictured] for name, entries in films.items()}
    articles = "".join(_film(results, scales, index, name, entries) for index, (name, entries) in enumerate(pictured.items(), 1) if entries)
    more = [(group.name, len(group.films) - MOST_PICTURED) for group in results.groups if len(group.films) > MOST_PICTURED]
    table = 'see <a href="#table">All values</a>'
    notes = "".join(
        f'<p class="note">{_group_name(results, name)} {_count(count, "more film")} without pictures: {table}.</p>' for name, count in more
    )
    return articles + notes


def _film(results: Results, scales: _Scales, index: int, name: str, entries: Sequence[_Entry]) -> str:
    shared = len({(entry.film.captions, len(entry.film.scenes)) for entry in entries if entry.film.scenes}) <= 1
    parts, told = [], False
    for entry in entries:
        parts.append(_take(results, scales, entry, with_captions=not (shared and told)))
        told = told or bool(entry.film.scenes)
    return f'<article class="film" id="film-{index}"><h3><bdi>{plain(name)}</bdi></h3>{"".join(parts)}</article>\n'


def _take(results: Results, scales: _Scales, entry: _Entry, with_captions: bool) -> str:
    """What one group made of a film. Captions are told once where all groups have the same."""
    film = entry.film
    file = plain(PurePath(film.video).name)
    head = (
        f'<p class="head">{_group_name(results, entry.group, whole=True)}<span class="file" title="{plain(film.video)}">{file}</span></p>'
    )
    if film.problem:
        listed = "".join(f"<li>{_caption(caption)}</li>" for caption in film.captions or ()) if with_captions else ""
        return f'<div class="take">{head}<p class="bad">{plain(film.problem)}</p>{f"<ol>{listed}</ol>" if listed else ""}</div>'
    captions = film.captions if with_captions and film.captions is not None and len(film.captions) == len(film.scenes) else None
    scenes = "".join(_scene(film, index, captions[index] if captions else "") for index in range(len(film.scenes)))
    other = "".join(f"<li>{_caption(each)}</li>" for each in film.captions or ()) if with_captions and captions is None else ""
    notes = "".join(f'<p class="note">{plain(note)}</p>' for note in (_cuts(film), *film.notes) if note)
    return (
        f'<div class="take">{head}<div class="scenes">{scenes}</div>{f"<ol>{other}</ol>" if other else ""}'
        f"{_values(results, scales, entry)}{notes}</div>"
    )


def _scene(film: FilmResult, index: int, caption: str) -> str:
    start, stop = film.scenes[index]
    picture = _picture(film.strips[index]) if index < len(film.strips) else ""
    strip = f'<img src="{picture}" alt="" decoding="async">' if picture else '<span class="blank"></span>'
    seconds = f", {(stop - start) / film.fps:.3g} s" if film.fps > 0 else ""
    words = f"<b>{index + 1}</b> {_count(stop - start, 'frame')}{seconds}"
    return f"<figure>{strip}<figcaption><small>{words}</small>{_caption(caption)}</figcaption></figure>"


def _caption(caption: str) -> str:
    if not caption:
        return ""
    if len(caption) <= LONG_CAPTION:
        return f'<p class="caption" dir="auto">{plain(caption)}</p>'
    start = caption[:LONG_CAPTION].rsplit(None, 1)[0]
    return (
        f'<details class="caption"><summary dir="auto">{plain(start)} …</summary>'
        f'<p class="caption" dir="auto">{plain(caption[len(start) :].strip())}</p></details>'
    )


def _picture(path: str) -> str:
    """A JPEG file as an address, "" where there is none."""
    try:
        content = Path(path).read_bytes()
    except (OSError, ValueError):  # a name may be no path at all
        return ""
    return f"data:image/jpeg;base64,{base64.b64encode(content).decode()}" if content.startswith(b"\xff\xd8\xff") else ""


def _cuts(film: FilmResult) -> str:
    if film.cuts_are == "detected":
        return "scenes as they were detected"
    asked = [start for start, _ in film.scenes[1:]]
    if not asked and not film.found_cuts:
        return ""
    found = ", ".join(map(str, film.found_cuts)) or "none"
    return (
        "every cut found where it was asked for"
        if asked == list(film.found_cuts)
        else (f"cuts asked for at frames {', '.join(map(str, asked)) or 'none'}; found at {found}")
    )


def _values(results: Results, scales: _Scales, entry: _Entry) -> str:
    """A film's values in one line; what only this film lacks, with its reason below."""
    group = next(group for group in results.groups if group.name == entry.group)
    values, missing = [], []
    for about in results.metrics:
        number, scale = entry.film.values.get(about.name), scales[about.name]
        if scale.has(number) and number is not None:
            unit = "\u2009%" if about.unit == "%" else ""
            values.append(f'<span title="{plain(_short(about))}">{plain(about.title)} <b>{scale.text(number.value)}{unit}</b></span>')
        elif number is not None and scale.has(group.values.get(about.name)):
            missing.append((about.title, _why(number)))
    return (f'<p class="values">{" ".join(values)}</p>' if values else "") + _missing(missing)


# All values


def _table_of_films(results: Results, scales: _Scales, films: Mapping[str, Sequence[_Entry]]) -> str:
    if not films:
        return ""
    abouts = [about for about in results.metrics if any(about.name in entry.film.values for entries in films.values() for entry in entries)]
    several = len(results.groups) > 1
    head = ["Film", *(["Group"] if several else []), "Scenes"]
    titles = "".join(f'<th scope="col">{title}</th>' for title in head)
    titles += "".join(f'<th scope="col">{plain(about.title)}<small>{plain(about.unit)}</small></th>' for about in abouts)
    rows = "".join(_film_row(results, scales, abouts, index, entry) for index, entries in enumerate(films.values(), 1) for entry in entries)
    table = f'<table class="films" id="values"><thead><tr>{titles}</tr></thead><tbody>{rows}</tbody></table>'
    missing = dict.fromkeys(
        (about.title, _why(number))
        for about in abouts
        for entries in films.values()
        for entry in entries
        if (number := entry.film.values.get(about.name)) is not None and not scales[about.name].has(number)
    )
    return f'<div class="scroll wide">{table}</div>{_missing(missing)}'


def _film_row(results: Results, scales: _Scales, abouts: Sequence[MetricAbout], index: int, entry: _Entry) -> str:
    film = entry.film
    name = f"<bdi>{plain(film.name)}</bdi>"
    linked = f'<a href="#film-{index}">{name}</a>' if entry.is_pictured else name
    cells = f'<th scope="row">{linked}</th>'
    cells += f"<td>{_group_name(results, entry.group)}</td>" if len(results.groups) > 1 else ""
    cells += f'<td data-value="{len(film.scenes)}">{len(film.scenes) or "–"}</td>'
    if film.problem:
        return f'<tr>{cells}<td class="bad" colspan="{max(1, len(abouts))}">{plain(film.problem)}</td></tr>'
    cells += "".join(_film_cell(film.values.get(about.name), scales[about.name]) for about in abouts)
    return f"<tr>{cells}</tr>"


def _film_cell(number: Number | None, scale: _Scale) -> str:
    value = scale.of(number.value) if number else None
    if value is None:
        return f'<td title="{plain(_why(number))}">–</td>'
    return f'<td data-value="{value!r}">{shown(value, scale.digits)}</td>'
