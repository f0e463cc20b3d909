"""The report: one HTML file that shows films, values, intervals and what they mean, and opens from disk without a network.

Owns the page as a whole and what it says of groups; films are in `report_films`, plots in `plots`, its looks and its small script in
report.html. Everything that is true of films is in the `Results` handed in, but for their pictures, read from the files that it names.
"""

from __future__ import annotations

import base64
import datetime
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from string import Template

from mask2dit.evaluation.measuring import Comparison, GroupResult, MetricAbout, Number, Results
from mask2dit.evaluation.plots import DifferenceRow, DotRow, difference_plot, film_plot
from mask2dit.evaluation.report_films import film_articles, film_entries, film_table
from mask2dit.evaluation.report_words import (
    BETTER,
    Scale,
    Scales,
    film_value,
    group_name,
    metric_name,
    missing_values,
    sample_size,
    why,
    with_unit,
)
from mask2dit.page_parts import counted, cut_short, is_number, plain, shown

MOST_OPEN = 3  # comparisons of groups, and problems, that are shown unasked


def report(results: Results, title: str = "Films measured") -> str:
    """The text of the page. A picture that cannot be read is left blank."""
    template = Path(__file__).with_name("report.html").read_text(encoding="utf-8")
    script = template.partition("<script>")[2].partition("</script>")[0]
    scales = {about.name: Scale(about, results) for about in results.metrics}
    films = film_entries(results)
    sections = {
        "summary": ("Summary", _summary(results, scales)),
        "differences": ("Differences", _differences(results, scales)),
        "metrics": ("Metrics", _metrics(results, scales)),
        "films": ("Films", film_articles(results, scales, films)),
        "table": ("All values", film_table(results, scales, films)),
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


# The head


def _headline(results: Results) -> str:
    films = [film for group in results.groups for film in group.films]
    problems = sum(bool(film.problem) for film in films)
    parts = [
        counted(len(results.groups), "group"),
        counted(len(films), "film"),
        counted(sum(len(film.scenes) for film in films), "scene"),
    ]
    bad = f'<a class="bad" href="#problems">{counted(problems, "film")} could not be measured</a>' if problems else ""
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


def _summary(results: Results, scales: Scales) -> str:
    if not results.groups:
        return '<p class="note">There are no films.</p>'
    head = "".join(f'<th scope="col">{group_name(results, group.name)}</th>' for group in results.groups)
    rows = "".join(_summary_row(about, results, scales[about.name]) for about in results.metrics)
    bests = [_best(about, results.groups) for about in results.metrics]
    legend = (
        "Mean over films, 95 % interval, number of films."
        + (" An interval needs two films." if any(len(group.films) < 2 for group in results.groups) else "")
        + (" In bold and marked: the best group, where its interval meets no other’s." if any(bests) else "")
    )
    table = f'<table class="summary"><thead><tr><th scope="col">Metric</th>{head}</tr></thead><tbody>{rows}</tbody></table>'
    return f'<div class="scroll">{table}</div><p class="note">{legend}</p>{_problems(results)}'


def _summary_row(about: MetricAbout, results: Results, scale: Scale) -> str:
    numbers = [group.values.get(about.name) for group in results.groups]
    best = _best(about, results.groups)
    reasons = {why(number) for number in numbers if not scale.has(number)}
    if len(reasons) == 1 and not any(map(scale.has, numbers)):
        cells = f'<td colspan="{len(numbers)}">– <small class="why">{plain(*reasons)}</small></td>'
    else:
        cells = "".join(
            _summary_cell(about, number, scale, group.name == best) for group, number in zip(results.groups, numbers, strict=True)
        )
    return f'<tr><th scope="row">{metric_name(about)}</th>{cells}</tr>'


def _summary_cell(about: MetricAbout, number: Number | None, scale: Scale, best: bool) -> str:
    if number is None or not scale.has(number):
        return f'<td>– <small class="why">{plain(why(number))}</small></td>'
    spread = " ".join(f"<span>{part}</span>" for part in (scale.interval(number), sample_size(about, number)) if part)
    parts = f' title="{plain(f"{number.count} {about.parts}")}"' if number.count else ""
    left_out = f'<small class="why">{plain(number.reason)}</small>' if number.reason else ""
    value = scale.text(number.value)
    shown_value = f'<b class="best">{value}<i title="best"> ★</i></b>' if best else f"<b>{value}</b>"
    return f"<td{parts}>{shown_value}<small>{spread}</small>{left_out}</td>"


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


def _problems(results: Results) -> str:
    rows = [
        f"<li><b><bdi>{plain(film.name)}</bdi></b>{_of_group(results, group.name)} <span>{plain(film.problem)}</span></li>"
        for group in results.groups
        for film in group.films
        if film.problem
    ]
    if not rows:
        return ""
    head = f"{counted(len(rows), 'film')} could not be measured"
    opened = " open" if len(rows) <= MOST_OPEN else ""
    return f'<details class="bad" id="problems"{opened}><summary>{head}</summary><ul>{"".join(rows)}</ul></details>'


def _of_group(results: Results, name: str) -> str:
    return f" {group_name(results, name)}" if len(results.groups) > 1 else ""


# Differences


def _differences(results: Results, scales: Scales) -> str:
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


def _reach(comparisons: Sequence[Comparison], name: str, scale: Scale) -> float:
    numbers = [each.differences[name] for each in comparisons if name in each.differences]
    ends = [end for number in numbers for end in (scale.of(number.value), *scale.ends(number)) if end is not None]
    return max(map(abs, ends), default=1.0)


def _comparison(
    results: Results, found: Comparison, abouts: Sequence[MetricAbout], scales: Scales, reaches: Mapping[str, float], index: int
) -> str:
    rows, missing = [], []
    for about in abouts:
        number, scale = found.differences.get(about.name), scales[about.name]
        if number is None or not scale.has(number):
            missing.append((about.title, why(number)))
            continue
        low, high = scale.ends(number)
        spread = " · ".join(part for part in (scale.interval(number, sign=True), sample_size(about, number)) if part)
        words = f"<b>{scale.text(number.value, sign=True)}</b> <small>{spread}</small>"
        row = DifferenceRow(with_unit(about), scale.of(number.value), low, high, reaches[about.name], words)
        rows.append(replace(row, verdict=_verdict(results, found, about, row)) if row.is_sure else row)
    plot = difference_plot(rows, f"← {cut_short(found.other)} higher", f"{cut_short(found.one)} higher →") if rows else ""
    head = " − ".join(group_name(results, name, whole=True) for name in (found.one, found.other))
    sure = sum(row.is_sure for row in rows)
    count = f" <small>{sure} of {len(rows)} leave{'s' * (sure == 1)} out 0</small>" if rows else ""
    opened = " open" if index < MOST_OPEN else ""
    return f'<details class="comparison"{opened}><summary>{head}{count}</summary>{plot}{missing_values(missing)}</details>'


def _verdict(results: Results, found: Comparison, about: MetricAbout, row: DifferenceRow) -> str:
    """Who is better, or only higher where neither is."""
    one_is_higher = (row.value or 0.0) > 0
    if about.better == "lower":
        return f"{group_name(results, found.other if one_is_higher else found.one)} better"
    return f"{group_name(results, found.one if one_is_higher else found.other)} {'better' if about.better == 'higher' else 'higher'}"


# Metrics


def _metrics(results: Results, scales: Scales) -> str:
    drawn, missing = [], []
    for about in results.metrics:
        numbers = [group.values.get(about.name) for group in results.groups]
        if any(map(scales[about.name].has, numbers)):
            drawn.append(_metric(about, results, scales[about.name]))
        else:
            missing.append((about, numbers))
    rest = "".join(
        f"<dt>{plain(about.title)}</dt><dd>{plain(about.about)}"
        f' <span class="why">– {plain("; ".join(dict.fromkeys(map(why, numbers))) or "there are no films")}</span></dd>'
        for about, numbers in missing
    )
    return "".join(drawn) + (f'<h3>Not measured</h3><dl class="missing">{rest}</dl>' if rest else "")


def _metric(about: MetricAbout, results: Results, scale: Scale) -> str:
    rows = []
    for index, group in enumerate(results.groups):
        number = group.values.get(about.name)
        dots = [(film.name, value) for film in group.films for value in [film_value(film, about.name, scale)] if value is not None]
        if number is None or not scale.has(number):
            words = f'– <small class="why">{plain(why(number))}</small>'
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
