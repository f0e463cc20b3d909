"""The report's films: their pictures, captions and values, and the table of all values."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath

from mask2dit.evaluation.measuring import FilmResult, MetricAbout, Number, Results
from mask2dit.evaluation.report_words import Scale, Scales, group_name, missing_values, why, with_unit
from mask2dit.page_parts import counted, plain, shown

MOST_PICTURED = 60  # films of a group with pictures; all are in the table of films
LONG_CAPTION = 220  # characters; of a longer one the beginning is shown, and the rest when asked for


@dataclass(frozen=True, slots=True)
class Entry:
    """One film of one group, and where it stands among that group's."""

    group: str
    film: FilmResult
    place: int

    @property
    def is_pictured(self) -> bool:
        """Whether it is among the first of its group."""
        return self.place < MOST_PICTURED


def film_entries(results: Results) -> dict[str, list[Entry]]:
    """All films by name: those of one name stand together, whatever their group."""
    entries: dict[str, list[Entry]] = {}
    for group in results.groups:
        for place, film in enumerate(group.films):
            entries.setdefault(film.name, []).append(Entry(group.name, film, place))
    return entries


def film_articles(results: Results, scales: Scales, films: Mapping[str, Sequence[Entry]]) -> str:
    """The films with pictures, and how many more there are."""
    pictured = {name: [entry for entry in entries if entry.is_pictured] for name, entries in films.items()}
    articles = "".join(_film(results, scales, index, name, entries) for index, (name, entries) in enumerate(pictured.items(), 1) if entries)
    more = [(group.name, len(group.films) - MOST_PICTURED) for group in results.groups if len(group.films) > MOST_PICTURED]
    table = 'see <a href="#table">All values</a>'
    notes = "".join(
        f'<p class="note">{group_name(results, name)} {counted(count, "more film")} without pictures: {table}.</p>' for name, count in more
    )
    return articles + notes


def _film(results: Results, scales: Scales, index: int, name: str, entries: Sequence[Entry]) -> str:
    seen = [entry for entry in entries if entry.film.scenes]
    shared = len({(entry.film.captions, len(entry.film.scenes)) for entry in seen}) <= 1
    tellers = (seen or entries)[:1] if shared else seen
    takes = "".join(_take(results, scales, entry, entry in tellers) for entry in entries)
    return f'<article class="film" id="film-{index}"><h3><bdi>{plain(name)}</bdi></h3>{takes}</article>\n'


def _take(results: Results, scales: Scales, entry: Entry, with_captions: bool) -> str:
    """What one group made of a film. Captions are told once where all groups have the same."""
    film = entry.film
    file = plain(PurePath(film.video).name)
    head = f'<p class="head">{group_name(results, entry.group, whole=True)}<span class="file" title="{plain(film.video)}">{file}</span></p>'
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
    words = f"<b>{index + 1}</b> {counted(stop - start, 'frame')}{seconds}"
    return f"<figure>{strip}<figcaption><small>{words}</small>{_caption(caption)}</figcaption></figure>"


def _caption(caption: str) -> str:
    caption = caption.strip()
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
    if asked == list(film.found_cuts):
        return "every cut found where it was asked for"
    there, found = (", ".join(map(str, frames)) or "none" for frames in (asked, film.found_cuts))
    return f"cuts asked for at frames {there}; found at {found}"


def _values(results: Results, scales: Scales, entry: Entry) -> str:
    """A film's values in one line; what only this film lacks, with its reason below."""
    group = next(group for group in results.groups if group.name == entry.group)
    values, missing = [], []
    for about in results.metrics:
        number, scale = entry.film.values.get(about.name), scales[about.name]
        if scale.has(number) and number is not None:
            unit = "\u2009%" if about.unit == "%" else ""
            values.append(f'<span title="{plain(with_unit(about))}">{plain(about.title)} <b>{scale.text(number.value)}{unit}</b></span>')
        elif number is not None and scale.has(group.values.get(about.name)):
            missing.append((about.title, why(number)))
    return (f'<p class="values">{" ".join(values)}</p>' if values else "") + missing_values(missing)


# All values


def film_table(results: Results, scales: Scales, films: Mapping[str, Sequence[Entry]]) -> str:
    """All films with all values, and what is missing by reason."""
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
        (about.title, why(number))
        for about in abouts
        for entries in films.values()
        for entry in entries
        if (number := entry.film.values.get(about.name)) is not None and not scales[about.name].has(number)
    )
    return f'<div class="scroll wide">{table}</div>{missing_values(missing)}'


def _film_row(results: Results, scales: Scales, abouts: Sequence[MetricAbout], index: int, entry: Entry) -> str:
    film = entry.film
    name = f"<bdi>{plain(film.name)}</bdi>"
    linked = f'<a href="#film-{index}">{name}</a>' if entry.is_pictured else name
    cells = f'<th scope="row">{linked}</th>'
    cells += f"<td>{group_name(results, entry.group)}</td>" if len(results.groups) > 1 else ""
    cells += f'<td data-value="{len(film.scenes)}">{len(film.scenes) or "–"}</td>'
    if film.problem:
        return f'<tr>{cells}<td class="bad" colspan="{max(1, len(abouts))}">{plain(film.problem)}</td></tr>'
    cells += "".join(_film_cell(film.values.get(about.name), scales[about.name]) for about in abouts)
    return f"<tr>{cells}</tr>"


def _film_cell(number: Number | None, scale: Scale) -> str:
    value = scale.of(number.value) if number else None
    if value is None:
        return f'<td title="{plain(why(number))}">–</td>'
    return f'<td data-value="{value!r}">{shown(value, scale.digits)}</td>'
