"""The report's groups, shot by shot with their captions, and examples of dropped shots."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Sequence
from typing import TypeVar

from PIL import Image

from mask2dit.curation.captioners.base import TAG
from mask2dit.curation.contact_sheets import PicturesOf, contact_sheet
from mask2dit.curation.curated_set import CuratedSet, span
from mask2dit.curation.report_words import REASON_WORDS
from mask2dit.curation.rows import CaptionRow, CheckRow, GroupRow, PairRow, ShotRow
from mask2dit.page_parts import counted, plain

MOST_GROUPS = 40
MOST_SHOTS = 160  # of all groups that are shown, so that the page stays small however large groups are
MOST_LEFT_OUT = 0.25  # of the groups that are shown
MOST_EXAMPLES = 6  # of shots dropped for one reason
QUALITY = 80
NUM_COLOURS = 8

T = TypeVar("T")


def evenly(things: Sequence[T], most: int) -> list[T]:
    """At most so many of them, evenly chosen from the first to the last, always the same ones."""
    if len(things) <= most:
        return list(things)
    return [things[round(index * (len(things) - 1) / max(1, most - 1))] for index in range(most)]


def group_articles(curated: CuratedSet, pictures: PicturesOf) -> str:
    """Some groups with pictures, and how many there are."""
    if not curated.groups:
        return ""
    chosen = _chosen(curated)
    articles = "".join(_group(curated, group, number, pictures) for number, group in enumerate(chosen, 1))
    few = len(chosen) < len(curated.groups)
    note = f"{len(chosen)} of {counted(len(curated.groups), 'group')}, evenly chosen over the set. " if few else ""
    return f'<p class="note">{note}Between two shots stands how alike they are.</p>\n{articles}'


def _chosen(curated: CuratedSet) -> list[GroupRow]:
    """Groups of both fates, in the order of the set."""
    size = sum(len(group.shots) for group in curated.groups) / len(curated.groups)
    most = max(1, min(MOST_GROUPS, int(MOST_SHOTS / max(1.0, size))))
    left_out = [group for group in curated.groups if curated.group_fate(group.group).kept is False]
    others = [group for group in curated.groups if curated.group_fate(group.group).kept is not False]
    some = evenly(left_out, max(int(MOST_LEFT_OUT * most), most - len(others)))
    names = {group.group for group in [*some, *evenly(others, most - len(some))]}
    return [group for group in curated.groups if group.group in names]


def _group(curated: CuratedSet, group: GroupRow, number: int, pictures: PicturesOf) -> str:
    fate, captions = curated.group_fate(group.group), curated.captions.get(group.group)
    review = curated.reviews.get(group.group)
    longest = f"<span>longest caption {counted(review.longest, 'token')}</span>" if review and review.longest else ""
    badge = f'<span class="badge {"out" if fate.kept is False else "in" if fate.kept else ""}">{plain(fate.word)}</span>'
    why = "".join(f'<p class="bad">{_reason(kind, what)}</p>' for kind, what in fate.reasons)
    sheets = [contact_sheet(pictures(name)) for name in group.shots]
    wide = next((sheet.width for sheet in sheets if sheet), 640)
    rows = ""
    for index, name in enumerate(group.shots):
        if index:
            near = f"{group.relevance[index - 1]:.3f}" if index <= len(group.relevance) else "–"
            rows += f'<p class="near" title="relevance"><i></i>{near}</p>'
        rows += _shot(curated, name, index, captions, _picture(sheets[index], wide))
    return (
        f'<article class="group" id="group-{number}"><h3>{badge} <bdi>{plain(group.group)}</bdi></h3>'
        f'<p class="head"><bdi>{plain(group.name)}</bdi><span>{_whole_span(curated, group)}</span>{longest}</p>{why}'
        f"{_cast(captions)}{rows}{_full(captions)}</article>\n"
    )


def _whole_span(curated: CuratedSet, group: GroupRow) -> str:
    shots = [curated.shots[name] for name in group.shots if name in curated.shots]
    if not shots:
        return ""
    return f"{span(shots[0]).split('–')[0]}–{span(shots[-1]).split('–')[1]}, {counted(len(group.shots), 'shot')}"


def _shot(curated: CuratedSet, name: str, index: int, captions: CaptionRow | None, picture: str) -> str:
    shot = curated.shots.get(name)
    facts = f"<b>{index + 1}</b> {span(shot)} · {shot.seconds:.1f} s" if shot else f"<b>{index + 1}</b>"
    prompt = captions.prompts[index] if captions and index < len(captions.prompts) else ""
    words = f'<p class="caption" dir="auto">{_tagged(prompt, captions)}</p>' if captions and prompt.strip() else ""
    file = f'<small title="{plain(name)}">{facts}</small>'
    return f'<div class="shot">{picture}<div>{file}{words}</div></div>'


def _cast(captions: CaptionRow | None) -> str:
    if captions is None or captions.problem:
        return ""
    rows = "".join(f"<dt>{_tag(tag, captions)}</dt><dd dir=auto>{plain(description)}</dd>" for tag, description in captions.cast)
    rows += f"<dt>Setting</dt><dd dir=auto>{plain(captions.setting)}</dd>" if captions.setting else ""
    return f'<dl class="cast">{rows}</dl>' if rows else ""


def _full(captions: CaptionRow | None) -> str:
    """The captions with their descriptions, folded away, and who wrote them."""
    if captions is None or not captions.captions:
        return ""
    rows = "".join(f'<li dir="auto">{_tagged(caption, captions)}</li>' for caption in captions.captions)
    by = f'<p class="note">Written by {plain(captions.captioner)}.</p>'
    return f"<details><summary>Captions as training reads them</summary><ol>{rows}</ol>{by}</details>"


def _tagged(text: str, captions: CaptionRow) -> str:
    """A caption in which every tag stands out; one that no character has, too."""
    known = sorted((re.escape(tag) for tag, _ in captions.cast if tag), key=len, reverse=True)
    pieces = re.split(rf"(?<!\w)({'|'.join([*known, TAG])})(?!\w)", text)
    return "".join(_tag(piece, captions) if index % 2 else plain(piece) for index, piece in enumerate(pieces))


def _tag(tag: str, captions: CaptionRow) -> str:
    place = next((index for index, (name, _) in enumerate(captions.cast) if name == tag), None)
    colour = "unknown" if place is None else f"g{place % NUM_COLOURS}"
    return f'<span class="tag {colour}">{plain(tag)}</span>'


def _reason(kind: str, what: str) -> str:
    return f"<b>{plain(kind)}</b> {plain(what)}"


def _picture(sheet: Image.Image | None, width: int) -> str:
    if sheet is None:
        return f'<span class="blank" style="width:{width}px"></span>'
    buffer = io.BytesIO()
    sheet.save(buffer, "JPEG", quality=QUALITY, optimize=True)
    address = f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"
    return f'<img src="{address}" width="{sheet.width}" height="{sheet.height}" alt="" loading="lazy" decoding="async">'


# Dropped shots


def dropped_shots(curated: CuratedSet, pictures: PicturesOf) -> str:
    """A few shots for each reason, with what was measured; and kept ones that no group has."""
    by_reason: dict[str, list[tuple[ShotRow, str]]] = {kind: [] for kind in CheckRow.KINDS}
    alone: list[tuple[ShotRow, str]] = []
    before = {second: pair for (_, second), pair in curated.pairs.items()}
    after = {first: pair for (first, _), pair in curated.pairs.items()}

    def near(pair: PairRow | None) -> str:
        return curated.verdict(pair.first, pair.second) if pair else "nothing"

    for name, shot in curated.shots.items():
        fate = curated.shot_fate(name)
        if fate.kept is False:
            for kind, what in dict(fate.reasons).items():
                by_reason.setdefault(kind, []).append((shot, what))
        elif fate.kept and fate.word != "kept":
            too_few = any(pair and pair.verdict == "related" for pair in (before.get(name), after.get(name)))
            why = "; too few in a row" if too_few else ""
            alone.append((shot, f"before it {near(before.get(name))}, after it {near(after.get(name))}{why}"))
    by_reason["in no group"] = alone
    return "".join(_examples(kind, shots, pictures) for kind, shots in by_reason.items() if shots)


def _examples(kind: str, shots: Sequence[tuple[ShotRow, str]], pictures: PicturesOf) -> str:
    words = f"<small>{REASON_WORDS[kind]}</small>" if kind in REASON_WORDS else ""
    figures = ""
    for shot, what in evenly(shots, MOST_EXAMPLES):
        told = (f"<b>{plain(what)}</b>" if what else "") + f"<small><bdi>{plain(shot.name)}</bdi></small><small>{span(shot)}</small>"
        picture = _picture(contact_sheet(pictures(shot.shot), most=1), 213)
        figures += f'<figure title="{plain(shot.shot)}">{picture}<figcaption>{told}</figcaption></figure>'
    head = f"<h3>{plain(kind)} {words}<small>{counted(len(shots), 'shot')}</small></h3>"
    return f'<article class="reason">{head}<div class="examples">{figures}</div></article>\n'
