"""The report: one HTML file that shows what every step kept, dropped and why, and opens from disk without a network.

Owns the page as a whole, its steps, its bad files and its thresholds; groups and dropped shots are in `report_groups`, plots in
`histograms`, its looks in report.html. Everything comes from the rows, but for the pictures.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from string import Template
from typing import Any

from mask2dit.curation.contact_sheets import PicturesOf
from mask2dit.curation.curated_set import CuratedSet, clock
from mask2dit.curation.histograms import Kind, Threshold, histogram
from mask2dit.curation.report_groups import dropped_shots, group_articles
from mask2dit.curation.report_words import MEASURES, REASON_WORDS, STEP_WORDS, Measure
from mask2dit.curation.rows import STEPS, CheckRow, PairRow, ReviewRow, StepSummary
from mask2dit.page_parts import counted, percent, plain

MOST_OPEN = 12  # reasons of a step, and bad files, that are shown unasked
VERDICT_COLOURS = {"related": "g2", "unrelated": "g1", "same picture": "g3"}


def report(folder: Path, pictures: PicturesOf, title: str = "Footage curated") -> str:
    """The text of the page. folder: the set's. A picture that cannot be read is left blank.

    Raises InputError for a file of rows that no step has written.
    """
    curated = CuratedSet.read(folder)
    template = Path(__file__).with_name("report.html").read_text(encoding="utf-8")
    sections = {
        "steps": ("Steps", "".join(_step(curated, step) for step in STEPS)),
        "bad": ("Bad files", _bad_files(curated)),
        "thresholds": ("Thresholds", _thresholds(curated)),
        "groups": ("Groups", group_articles(curated, pictures)),
        "dropped": ("Dropped shots", dropped_shots(curated, pictures)),
        "videos": ("Videos", _videos(curated)),
    }
    parts = {name: part for name, part in sections.items() if part[1]}
    return Template(template).substitute(
        title=plain(title),
        headline="".join(f"<span>{part}</span>" for part in _headline(curated)),
        links="".join(f'<a href="#{name}">{heading}</a>' for name, (heading, _) in parts.items()),
        sections="\n".join(f'<section id="{name}">\n<h2>{heading}</h2>\n{body}\n</section>' for name, (heading, body) in parts.items()),
    )


def _headline(curated: CuratedSet) -> Iterable[str]:
    bad = sum(bool(curated.problem(video)) for video in curated.videos)
    yield counted(len(curated.videos), "video")
    yield f"{_duration(sum(curated.seconds(video) for video in curated.videos))} of footage"
    yield counted(len(curated.shots), "shot")
    if curated.has_run("checks"):
        yield f"{sum(check.kept for check in curated.checks.values())} kept"
    if curated.has_run("groups"):
        yield counted(len(curated.groups), "group")
    if curated.has_run("captions"):
        yield f"{sum(not row.problem for row in curated.captions.values())} with captions"
    if curated.has_run("export"):
        splits = Counter(clip.split for clips in curated.clips_of.values() for clip in clips)
        yield f"{counted(splits.total(), 'clip')}: {splits['train']} to train, {splits['validation']} to validate"
    if bad:
        yield f'<a class="bad" href="#bad">{counted(bad, "bad file")}</a>'


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 2 * 3600 else f"{seconds / 3600:.1f} h"


# Steps


@dataclass(frozen=True, slots=True)
class _Flow:
    """What went into a step and what came out. `share`: how much was kept, where both are of one kind; `reasons`: why not the rest."""

    told: str
    share: float | None = None
    reasons: Mapping[str, int] | None = None


def _step(curated: CuratedSet, step: str) -> str:
    number, (title, about) = STEPS.index(step) + 1, STEP_WORDS[step]
    head = f'<div><h3><b>{number}</b> {title}</h3><p class="about">{about}</p></div>'
    if not curated.has_run(step):
        return f'<article class="step" id="step-{step}">{head}<div><p class="note">This step has not run yet.</p></div></article>\n'
    flow, summary = _flow(curated, step), curated.summaries.get(step)
    body = f'<p class="flow">{flow.told}</p>'
    if flow.share is not None:
        kept = f'<rect class="g0" width="{percent(flow.share)}" height="10"/>'
        body += f'<svg class="share" height="10" aria-hidden="true"><rect class="lost" width="100%" height="10"/>{kept}</svg>'
    body += _reasons(flow.reasons if flow.reasons is not None else summary.dropped if summary else {})
    if summary:
        body += "".join(f'<p class="note">{plain(str(note))}</p>' for note in summary.notes)
        body += _listed(summary)
    return f'<article class="step" id="step-{step}">{head}<div>{body}</div></article>\n'


def _flow(curated: CuratedSet, step: str) -> _Flow:
    usable = [video for video in curated.videos if not video.problem]
    if step == "pieces":
        bad = len(curated.videos) - len(usable)
        pieces = _thing(sum(len(video.piece_starts) for video in usable), "piece")
        told = f"{_into(len(curated.videos), 'video', len(usable), 'usable')}, in {pieces}"
        return _Flow(told, _share(len(usable), len(curated.videos)), {"cannot be read": bad} if bad else None)
    if step == "shots":
        begins = Counter(shot.begins for shot in curated.shots.values())
        ways = f"; they begin at {', '.join(f'{_bold(count)} × {plain(way)}' for way, count in begins.most_common())}" if begins else ""
        amiss = sum(bool(scan.problem) for scan in curated.scans.values())
        return _Flow(
            f"{_thing(len(usable), 'video')} → {_thing(len(curated.shots), 'shot')}{ways}",
            None,
            {"not read to the end": amiss} if amiss else None,
        )
    if step == "checks":
        kept = sum(check.kept for check in curated.checks.values())
        told = _into(len(curated.checks), "shot", kept, "kept")
        return _Flow(
            told, _share(kept, len(curated.checks)), _kinds(CheckRow.KINDS, (row for row in curated.checks.values() if not row.kept))
        )
    if step == "groups":
        kept = sum(check.kept for check in curated.checks.values())
        verdicts = Counter(pair.verdict for pair in curated.pairs.values())
        pairs = ", ".join(f"{_bold(verdicts[verdict])} {verdict}" for verdict in PairRow.VERDICTS if verdicts[verdict])
        told = _into(kept, "shot", len(curated.groups_of), f"in {_thing(len(curated.groups), 'group')}")
        alone = {"in no group": kept - len(curated.groups_of)} if kept > len(curated.groups_of) else {}
        return _Flow(f"{told}{f'; neighbours: {pairs}' if pairs else ''}", _share(len(curated.groups_of), kept), alone)
    if step == "captions":
        problems = Counter(row.problem for row in curated.captions.values() if row.problem)
        good = len(curated.captions) - problems.total()
        return _Flow(
            _into(len(curated.captions), "group", good, "with captions"), _share(good, len(curated.captions)), dict(problems.most_common())
        )
    if step == "reviews":
        kept = sum(review.kept for review in curated.reviews.values())
        told = _into(len(curated.reviews), "group", kept, "kept")
        return _Flow(
            told, _share(kept, len(curated.reviews)), _kinds(ReviewRow.KINDS, (row for row in curated.reviews.values() if not row.kept))
        )
    splits = Counter(clip.split for clips in curated.clips_of.values() for clip in clips)
    parts = f": {', '.join(f'{_bold(count)} {plain(split)}' for split, count in sorted(splits.items()))}" if splits else ""
    return _Flow(f"{_thing(len(curated.clips_of), 'group')} → {_thing(splits.total(), 'clip')}{parts}")


def _bold(number: int) -> str:
    return f"<b>{number:,}</b>".replace(",", "\u202f")


def _thing(number: int, what: str) -> str:
    return f"{_bold(number)} {what}{'s' * (number != 1)}"


def _into(before: int, what: str, after: int, become: str) -> str:
    share = f" <small>{100 * after / before:.0f}\u2009%</small>" if before else ""
    return f"{_thing(before, what)} → {_bold(after)} {become}{share}"


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None


def _kinds(known: Sequence[str], rows: Iterable[CheckRow | ReviewRow]) -> dict[str, int]:
    """How many rows have each kind of reason."""
    found = Counter(kind for row in rows for kind in dict.fromkeys(kind for kind, _ in row.reasons))
    return {kind: found[kind] for kind in [*known, *sorted(set(found) - set(known))] if found[kind]}


def _reasons(reasons: Mapping[str, int]) -> str:
    most = max(reasons.values(), default=0) if len(reasons) > 1 else 0  # the bar of one alone says nothing
    rows = [
        f'<span class="name">{plain(reason)}{f"<small>{REASON_WORDS[reason]}</small>" if reason in REASON_WORDS else ""}</span>'
        f'<svg class="track" height="10" aria-hidden="true"><rect width="{percent(count / most if most else 0)}" height="10"/></svg>'
        f'<span class="value">{count}</span>'
        for reason, count in reasons.items()
    ]
    if not rows:
        return ""
    first, rest = "".join(rows[:MOST_OPEN]), "".join(rows[MOST_OPEN:])
    more = f'<details><summary>{counted(len(rows) - MOST_OPEN, "more reason")}</summary><div class="reasons">{rest}</div></details>'
    return f'<div class="reasons">{first}</div>{more if rest else ""}'


def _listed(summary: StepSummary) -> str:
    """Settings and counts of a step, folded away."""
    told = {title: values for title, values in (("Settings", summary.settings), ("Counts", summary.counts)) if values}
    lists = "".join(
        f'<h4>{title}</h4><dl class="facts">'
        + "".join(f"<div><dt>{plain(str(name))}</dt><dd>{plain(_value(value))}</dd></div>" for name, value in values.items())
        + "</dl>"
        for title, values in told.items()
    )
    return f"<details><summary>{' and '.join(told).capitalize()}</summary>{lists}</details>" if told else ""


def _value(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


# Files and thresholds


def _bad_files(curated: CuratedSet) -> str:
    told = [
        f'<li><b dir="auto">{plain(video.name)}</b> <span>{plain(curated.problem(video))}</span></li>'
        for video in curated.videos
        if curated.problem(video)
    ]
    if not told:
        return ""
    opened = " open" if len(told) <= MOST_OPEN else ""
    head = f"{counted(len(told), 'file')} cannot be used, or not the whole of it"
    return f'<details class="files"{opened}><summary>{head}</summary><ul>{"".join(told)}</ul></details>'


def _thresholds(curated: CuratedSet) -> str:
    return _relevance(curated) + ("".join(_measure(curated, measure) for measure in MEASURES) if curated.shots else "")


def _relevance(curated: CuratedSet) -> str:
    values = [(pair.relevance, pair.verdict) for pair in curated.pairs.values() if pair.relevance is not None]
    if not values:
        return ""
    settings = _settings(curated, "groups")
    limits = [
        Threshold(settings[name], words)
        for name, words in (("lower", "related from"), ("upper", "same picture above"))
        if name in settings and -1 <= settings[name] <= 1  # beyond it no cosine lies
    ]
    extractor = f" Measured with {plain(str(settings['extractor']))}." if "extractor" in settings else ""
    sizes = "–".join(dict.fromkeys(_value(settings[name]) for name in ("group_size", "shortest", "longest") if name in settings))
    size = f" A group has {plain(sizes)} shots." if sizes else ""
    kinds = [Kind(verdict, verdict, VERDICT_COLOURS.get(verdict, "rest")) for verdict in PairRow.VERDICTS]
    about = f"How alike a shot and the next are. Shots stand in one group while every neighbour is related.{extractor}{size}"
    return _article("Relevance", about, histogram(values, kinds, limits))


def _measure(curated: CuratedSet, measure: Measure) -> str:
    values = []
    for name, shot in curated.shots.items():
        value, check = measure.value(shot), curated.checks.get(name)
        if value is not None:
            found = {kind for kind, _ in check.reasons} if check else set()
            became = "kept" if not check or check.kept else "this" if found & set(measure.reasons) else "other"
            values.append((measure.scale * value, became))
    settings = _settings(curated, "checks")
    limits = [
        Threshold(measure.scale * settings[name], words)
        for name, words in measure.thresholds
        if name in settings and (settings[name] or words == "at most")  # at least nothing is no threshold
    ]
    kept = "kept" if curated.checks else "not checked"
    kinds = [
        Kind("kept", kept, "g0"),
        Kind("this", f"dropped: {', '.join(measure.reasons)}", "g1"),
        Kind("other", "dropped for another reason", "rest"),
    ]
    if len({value for value, _ in values}) == 1 and len(values) > 1:
        told = "".join(f", {limit.words} {limit.value:.6g} wanted" for limit in limits)
        return _article(measure.title, measure.about, f'<p class="note">{values[0][0]:.4g} {measure.unit} in all shots{told}.</p>')
    return _article(measure.title, measure.about, histogram(values, kinds, limits, measure.unit))


def _settings(curated: CuratedSet, step: str) -> dict[str, Any]:
    """What a step was set to, without what is not set."""
    summary = curated.summaries.get(step)
    return {name: value for name, value in summary.settings.items() if value is not None} if summary else {}


def _article(title: str, about: str, body: str) -> str:
    return f'<article class="measure"><div><h3>{title}</h3><p class="about">{about}</p></div>{body}</article>\n'


def _videos(curated: CuratedSet) -> str:
    """All videos that can be used, with what became of their shots."""
    shots = Counter(shot.name for shot in curated.shots.values())
    kept = Counter(shot.name for name, shot in curated.shots.items() if (check := curated.checks.get(name)) and check.kept)
    groups = Counter(group.name for group in curated.groups)
    clips = Counter(group.name for group in curated.groups for _ in curated.clips_of.get(group.group, ()))
    rows = "".join(
        f'<tr><th scope="row" dir="auto">{plain(video.name)}</th>'
        + "".join(f"<td>{value}</td>" for value in (clock(curated.seconds(video)), f"{video.width}×{video.height}", f"{video.fps:.5g}"))
        + "".join(f"<td>{counts[video.name]}</td>" for counts in (shots, kept, groups, clips))
        + "</tr>"
        for video in curated.videos
        if not video.problem
    )
    head = "".join(f'<th scope="col">{name}</th>' for name in ("Video", "Length", "Size", "fps", "Shots", "Kept", "Groups", "Clips"))
    table = f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>'
    note = '<p class="note">Why a shot of one of them was kept or dropped is told by <code>mask2dit curate --explain VIDEO</code>.</p>'
    return f"{table}{note}" if rows else ""
