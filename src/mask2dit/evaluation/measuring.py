"""From films to numbers: which extractor each metric takes, what came of every film, and the values of sets with their intervals.

A set of films is a group: one generator's, say. Films of two groups with one name are pairs, and the difference of their groups is the mean
difference of pairs. A film that cannot be read is a problem with a reason, and the others go on.
"""

from __future__ import annotations

import traceback
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import Protocol

import numpy as np
from pydantic import BaseModel, ConfigDict

from mask2dit.errors import InputError, Mask2DiTError, OutputError
from mask2dit.evaluation.facts import Features, FilmFacts, Value
from mask2dit.evaluation.features import Store, Wanted
from mask2dit.evaluation.films import FilmSource
from mask2dit.evaluation.metrics import METRICS, FilmMetric, Metric, SetMetric
from mask2dit.evaluation.metrics.base import Scenes
from mask2dit.evaluation.statistics import mean_interval, paired_interval, statistic_interval
from mask2dit.extractors.base import Extractor

FORMAT = 1


class Progress(Protocol):
    """Whom a measuring tells how far it is."""

    def start(self, stage: str, total: int) -> None: ...

    def step(self) -> None: ...

    def done(self) -> None: ...


# What is measured with what


@dataclass(frozen=True, slots=True)
class Chosen:
    """A metric and the extractor it takes: "" where it needs none, None where none that fits is at hand."""

    metric: Metric
    extractor: str | None


def choose(names: Iterable[str], extractors: Mapping[str, Extractor]) -> tuple[Chosen, ...]:
    """The metrics of these names, each with the first extractor of those it prefers. Raises InputError for an unknown name."""
    chosen = []
    for name in names:
        if name not in METRICS:
            raise InputError(f"--metrics: got {name!r}, expected some of {', '.join(METRICS)}; check the spelling")
        metric = METRICS[name]
        fitting = [each for each in metric.prefers if each in extractors and set(metric.needs) <= extractors[each].kinds]
        chosen.append(Chosen(metric, (fitting[0] if fitting else None) if metric.needs else ""))
    return tuple(chosen)


def wanted_features(chosen: Iterable[Chosen]) -> Wanted:
    """What all metrics together need of each extractor."""
    wanted: dict[str, set[str]] = {}
    for each in chosen:
        if each.extractor:
            wanted.setdefault(each.extractor, set()).update(each.metric.needs)
    return {name: frozenset(kinds) for name, kinds in wanted.items()}


# What came of it


class _Result(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class MetricAbout(_Result):
    """What a reader of a number has to know of it. `instrument`: the extractor with its weights and frame count, or the cut detector."""

    name: str
    title: str
    unit: str
    better: str
    about: str
    parts: str
    scale: float
    instrument: str
    of_set: bool = False
    """Whether it is a number of the set as a whole: then `count` scenes of its films are in it, and films have none."""


class Number(_Result):
    """A value with its 95 % interval, of how many films and parts; or why it cannot be computed."""

    value: float | None
    interval: tuple[float, float] | None = None
    num_films: int = 0
    count: int = 0
    reason: str = ""


class FilmResult(_Result):
    """One film: its values by metric, or the problem that it could not be measured for."""

    name: str
    video: str
    captions: tuple[str, ...] | None = None
    scenes: tuple[tuple[int, int], ...] = ()
    fps: float = 0.0
    cuts_are: str = ""
    found_cuts: tuple[int, ...] = ()
    strips: tuple[str, ...] = ()
    """For each scene a JPEG of three of its pictures."""
    values: dict[str, Number] = {}
    notes: tuple[str, ...] = ()
    problem: str = ""


class GroupResult(_Result):
    name: str
    values: dict[str, Number]
    films: tuple[FilmResult, ...]


class Comparison(_Result):
    """Mean differences one − other over films of one name, by metric."""

    one: str
    other: str
    differences: dict[str, Number]


class Results(_Result):
    """Everything that the table, the report and the JSON file show."""

    format: int = FORMAT
    date: str
    machine: dict[str, str]
    metrics: tuple[MetricAbout, ...]
    groups: tuple[GroupResult, ...]
    comparisons: tuple[Comparison, ...] = ()
    reference: str = ""
    """What FVD compares with: its name, how much of it there is, and what could not be read."""


@dataclass(frozen=True, slots=True)
class Measured:
    """A film's result, and what sets are measured by: its facts without what only its own metrics needed; None where there are none."""

    result: FilmResult
    facts: FilmFacts | None


def gather(
    groups: Mapping[str, Sequence[FilmSource]],
    store: Store,
    chosen: Sequence[Chosen],
    progress: Progress,
    problems: Mapping[Path, str] | None = None,
) -> dict[str, list[Measured]]:
    """Look at every film, or read what is kept of it, and compute its own metrics. problems: what is known to be wrong, by video."""
    progress.start("measuring", sum(map(len, groups.values())))
    wanted = wanted_features(chosen)
    gathered: dict[str, list[Measured]] = {}
    for group, films in groups.items():
        gathered[group] = []
        for film in films:
            found = (problems or {}).get(film.video) or attempt(film, store, wanted)
            facts = None if isinstance(found, str) else replace(found, pictures={}, texts={})
            result = _film(film, found, chosen)
            if facts is not None:
                result = result.model_copy(update={"strips": tuple(map(str, store.strips(facts.look)))})
            gathered[group].append(Measured(result, facts))
            progress.step()
    progress.done()
    return gathered


def attempt(film: FilmSource, store: Store, wanted: Wanted) -> FilmFacts | str:
    """What is known of a film, or what is wrong with it in one line."""
    try:
        return store.facts(film, wanted)
    except OutputError:  # a full disk ends all films
        raise
    except Mask2DiTError as error:
        return " ".join(str(error).split())
    except Exception as error:
        where = traceback.extract_tb(error.__traceback__)[-1]
        return f"a mistake of the program ({type(error).__name__} in {where.name}: {' '.join(str(error).split())[:160]})"


def measure(
    gathered: Mapping[str, Sequence[Measured]],
    chosen: Sequence[Chosen],
    extractors: Mapping[str, Extractor],
    machine: dict[str, str],
    reference: tuple[str, Sequence[Measured]] | None = None,
    date: str = "",
) -> Results:
    """All values of all groups, and the differences between them. reference: what it is called, and its films."""
    rows = reference and [each.facts for each in reference[1] if each.facts]
    groups = tuple(_group(name, films, chosen, rows) for name, films in gathered.items())
    return Results(
        date=date,
        machine=machine,
        metrics=tuple(_about(each, extractors) for each in chosen),
        groups=groups,
        comparisons=tuple(_compare(one, other, gathered, chosen, rows) for one, other in combinations(gathered, 2)),
        reference=_told_reference(*reference) if reference else "",
    )


def _told_reference(name: str, films: Sequence[Measured]) -> str:
    scenes = sum(each.facts.num_scenes for each in films if each.facts)
    bad = [each.result.problem for each in films if each.facts is None]
    unread = f"; {len(bad)} more could not be read ({bad[0]})" if bad else ""
    return f"{name}: {len(films) - len(bad)} videos, {scenes} scenes, taken as they are{unread}"


def _group(name: str, films: Sequence[Measured], chosen: Sequence[Chosen], reference: Sequence[FilmFacts] | None) -> GroupResult:
    facts = [each.facts for each in films if each.facts]
    values = {}
    for each in chosen:
        metric = each.metric
        if each.extractor is None:
            values[metric.name] = Number(value=None, reason=_no_extractor(metric))
        elif isinstance(metric, SetMetric):
            values[metric.name] = _set_number(metric, facts, each.extractor, reference)
        else:
            values[metric.name] = _mean([film.result.values[metric.name] for film in films if film.facts])
    return GroupResult(name=name, values=values, films=tuple(film.result for film in films))


def _film(source: FilmSource, facts: FilmFacts | str, chosen: Sequence[Chosen]) -> FilmResult:
    if isinstance(facts, str):
        return FilmResult(name=source.name, video=str(source.video), captions=source.captions, problem=facts)
    values = {}
    for each in chosen:
        if isinstance(each.metric, FilmMetric):
            missing = Value(None, reason=_no_extractor(each.metric))
            found = missing if each.extractor is None else each.metric.measure(facts, each.extractor)
            values[each.metric.name] = Number(value=found.value, num_films=found.value is not None, count=found.count, reason=found.reason)
    look = facts.look
    return FilmResult(
        name=source.name,
        video=str(source.video),
        captions=source.captions,
        scenes=tuple((scene.start, scene.stop) for scene in look.scenes),
        fps=look.fps,
        cuts_are=look.cuts_are,
        found_cuts=look.check.found,
        values=values,
        notes=tuple(note for note in (facts.amiss, source.note, *look.notes()) if note),
    )


def _mean(values: Sequence[Number]) -> Number:
    """Of a group, from its films."""
    found = [each.value for each in values if each.value is not None]
    missing = Counter(each.reason for each in values if each.value is None)
    if not found:
        return Number(value=None, reason="; ".join(missing) or "no film could be measured")
    return Number(
        value=float(np.mean(found)),
        interval=mean_interval(found),
        num_films=len(found),
        count=sum(each.count for each in values if each.value is not None),
        reason="; ".join(f"not of {count}: {reason}" for reason, count in missing.items()),
    )


def _set_number(metric: SetMetric, films: Sequence[FilmFacts], extractor: str, reference: Sequence[FilmFacts] | None) -> Number:
    if not films:
        return Number(value=None, reason="no film could be measured")
    scenes, rows = [film.scenes[extractor] for film in films], _rows(metric, extractor, reference)
    if missing := _missing(metric, scenes, rows, reference):
        return Number(value=None, reason=missing, num_films=len(films))
    value = metric.statistic(scenes, range(len(scenes)), rows)
    ends = statistic_interval(value, len(scenes), lambda drawn: metric.statistic(scenes, drawn, rows))
    interval = ends and (max(ends[0], metric.lowest), max(ends[1], metric.lowest))
    return Number(value=value, interval=interval, num_films=len(films), count=sum(map(len, scenes)))


def _rows(metric: SetMetric, extractor: str, reference: Sequence[FilmFacts] | None) -> Features | None:
    """The reference's scenes; None where the metric takes none, or there are none."""
    return np.concatenate([film.scenes[extractor] for film in reference]) if metric.needs_reference and reference else None


def _missing(metric: SetMetric, scenes: Scenes, rows: Features | None, reference: Sequence[FilmFacts] | None) -> str:
    if metric.needs_reference and reference is not None and not reference:
        return "no reference video could be read"
    return metric.missing(scenes, rows)


def _compare(
    one: str,
    other: str,
    gathered: Mapping[str, Sequence[Measured]],
    chosen: Sequence[Chosen],
    reference: Sequence[FilmFacts] | None,
) -> Comparison:
    """Film by film, by name; where each group has one film, those two."""
    mine, theirs = gathered[one], {each.result.name: each for each in gathered[other]}
    couples = [(each, theirs[each.result.name]) for each in mine if each.result.name in theirs]
    if len(mine) == len(theirs) == 1:
        couples = [(mine[0], gathered[other][0])]
    couples = [(each, its) for each, its in couples if each.facts and its.facts]
    differences = {each.metric.name: _difference(each, couples, reference) for each in chosen}
    return Comparison(one=one, other=other, differences=differences)


def _difference(each: Chosen, couples: Sequence[tuple[Measured, Measured]], reference: Sequence[FilmFacts] | None) -> Number:
    metric = each.metric
    if each.extractor is None:
        return Number(value=None, reason=_no_extractor(metric))
    if not couples:
        return Number(value=None, reason="no film of one name was measured in both")
    if isinstance(metric, SetMetric):
        return _set_difference(metric, each.extractor, couples, reference)
    values = [(ours.result.values[metric.name].value, others.result.values[metric.name].value) for ours, others in couples]
    both = [(a, b) for a, b in values if a is not None and b is not None]
    if not both:
        return Number(value=None, reason="no film of one name has a value in both")
    ones, others = zip(*both, strict=True)
    return Number(value=float(np.mean(np.subtract(ones, others))), interval=paired_interval(ones, others), num_films=len(both))


def _set_difference(
    metric: SetMetric, extractor: str, couples: Sequence[tuple[Measured, Measured]], reference: Sequence[FilmFacts] | None
) -> Number:
    """The same films are drawn on both sides."""
    ours = [each.facts.scenes[extractor] for each, _ in couples if each.facts]
    others = [each.facts.scenes[extractor] for _, each in couples if each.facts]
    rows = _rows(metric, extractor, reference)
    if missing := _missing(metric, ours, rows, reference) or _missing(metric, others, rows, reference):
        return Number(value=None, reason=missing, num_films=len(couples))

    def difference(drawn: Sequence[int]) -> float:
        return metric.statistic(ours, drawn, rows) - metric.statistic(others, drawn, rows)

    value = difference(range(len(couples)))
    return Number(value=value, interval=statistic_interval(value, len(couples), difference), num_films=len(couples))


def _about(each: Chosen, extractors: Mapping[str, Extractor]) -> MetricAbout:
    metric = each.metric
    return MetricAbout(
        name=metric.name,
        title=metric.title,
        unit=metric.unit,
        better=metric.better,
        about=metric.about,
        parts=metric.parts,
        scale=metric.scale,
        instrument=_instrument(each, extractors),
        of_set=isinstance(metric, SetMetric),
    )


def _instrument(each: Chosen, extractors: Mapping[str, Extractor]) -> str:
    if each.extractor:
        extractor = extractors[each.extractor]
        pictures = "all pictures of a scene" if each.metric.needs == ("frame",) else f"{extractor.num_frames} frames a scene"
        return f"{extractor.name} ({extractor.weights}), {pictures}"
    return each.metric.instrument() if isinstance(each.metric, FilmMetric) else ""


def _no_extractor(metric: Metric) -> str:
    return f"needs an extractor; add --extractor with one of {', '.join(metric.prefers)}"
