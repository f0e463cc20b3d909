"""From films to numbers: which extractor each metric takes, what came of every film, and the values of sets with their intervals.

A set of films is a group: one generator's, say. Films of two groups with one name are pairs, and the difference of their groups is the mean
difference of pairs. A film that cannot be read is a problem with a reason, and the others go on.
"""

from __future__ import annotations

import datetime
import traceback
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import Protocol

import numpy as np
from pydantic import BaseModel, ConfigDict

from mask2dit.errors import InputError, Mask2DiTError, OutputError
from mask2dit.evaluation.facts import FilmFacts, Value
from mask2dit.evaluation.features import Store, Wanted
from mask2dit.evaluation.films import FilmSource
from mask2dit.evaluation.metrics import METRICS, FilmMetric, Metric, SetMetric
from mask2dit.evaluation.statistics import mean_interval, paired_interval
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
) -> Results:
    """All values of all groups, and the differences between them. reference: what it is called, and its films."""
    facts = [each.facts for films in gathered.values() for each in films if each.facts]
    rows = reference and [each.facts for each in reference[1] if each.facts]
    groups = tuple(_group(name, films, chosen, rows) for name, films in gathered.items())
    return Results(
        date=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        machine=machine,
        metrics=tuple(_about(each, extractors, facts) for each in chosen),
        groups=groups,
        comparisons=tuple(_compare(one, other, chosen) for one, other in combinations(groups, 2)),
        reference=reference[0] if reference else "",
    )


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
        notes=tuple(_notes(facts)),
    )


def _notes(facts: FilmFacts) -> Iterable[str]:
    if facts.amiss:
        yield facts.amiss
    yield from facts.look.check.notes()
    if facts.look.num_damaged:
        yield f"{facts.look.num_damaged} frames are damaged"


def _mean(values: Sequence[Number]) -> Number:
    """Of a group, from its films."""
    found = [each.value for each in values if each.value is not None]
    if not found:
        reasons = list(dict.fromkeys(each.reason for each in values if each.reason))
        return Number(value=None, reason=reasons[0] if reasons else "no film could be measured")
    left_out = len(values) - len(found)
    why = next((each.reason for each in values if each.value is None), "")
    return Number(
        value=float(np.mean(found)),
        interval=mean_interval(found),
        num_films=len(found),
        count=sum(each.count for each in values if each.value is not None),
        reason=f"not of {left_out}: {why}" if left_out else "",
    )


def _set_number(metric: SetMetric, films: Sequence[FilmFacts], extractor: str, reference: Sequence[FilmFacts] | None) -> Number:
    if not films:
        return Number(value=None, reason="no film could be measured")
    if metric.needs_reference and reference is not None and not reference:
        return Number(value=None, reason="no reference video could be read")
    rows = np.concatenate([film.scenes[extractor] for film in reference]) if metric.needs_reference and reference else None
    return Number(**asdict(metric.measure(films, extractor, rows)))


def _compare(one: GroupResult, other: GroupResult, chosen: Sequence[Chosen]) -> Comparison:
    differences = {}
    theirs = {film.name: film for film in other.films}
    for each in chosen:
        if not isinstance(each.metric, FilmMetric):
            continue
        name = each.metric.name
        couples = [
            (mine.value, yours.value)
            for film in one.films
            if film.name in theirs
            and (mine := film.values.get(name)) is not None
            and (yours := theirs[film.name].values.get(name)) is not None
            and mine.value is not None
            and yours.value is not None
        ]
        if not couples:
            differences[name] = Number(value=None, reason="no film of one name was measured in both")
            continue
        ours, others = zip(*couples, strict=True)
        mean = float(np.mean(np.subtract(ours, others)))
        differences[name] = Number(value=mean, interval=paired_interval(ours, others), num_films=len(couples))
    return Comparison(one=one.name, other=other.name, differences=differences)


def _about(each: Chosen, extractors: Mapping[str, Extractor], facts: Sequence[FilmFacts]) -> MetricAbout:
    metric = each.metric
    return MetricAbout(
        name=metric.name,
        title=metric.title,
        unit=metric.unit,
        better=metric.better,
        about=metric.about,
        parts=metric.parts,
        scale=metric.scale,
        instrument=_instrument(each, extractors, facts),
    )


def _instrument(each: Chosen, extractors: Mapping[str, Extractor], facts: Sequence[FilmFacts]) -> str:
    if each.extractor:
        extractor = extractors[each.extractor]
        pictures = "all pictures of a scene" if each.metric.needs == ("frame",) else f"{extractor.num_frames} frames a scene"
        return f"{extractor.name} ({extractor.weights}), {pictures}"
    if each.metric.needs:
        return ""
    if each.metric.name == "dynamic-degree":
        import cv2

        return f"Farnebäck's optical flow, OpenCV {cv2.__version__}"
    if each.metric.name.endswith("drift"):
        return "mean colours in CIELAB, all frames"
    return str(facts[0].look.check.detector) if facts else ""


def _no_extractor(metric: Metric) -> str:
    return f"needs an extractor; add --extractor with one of {', '.join(metric.prefers)}"
