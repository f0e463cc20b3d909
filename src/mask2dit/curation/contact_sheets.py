"""Shots and groups as pictures for people: a shot's pictures side by side, and a group's with its captions. No torch."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from mask2dit import film
from mask2dit.curation.curated_set import CuratedSet, span
from mask2dit.curation.rows import GroupRow

Picture = Path | bytes
"""A JPEG file, or what is in one."""

PicturesOf = Callable[[str], Sequence[Picture]]
"""A shot's pictures, in order, by the shot's name; they may be missing."""

HEIGHT = 120  # pixels of a picture in the report
SHEET_HEIGHT = 240  # and in a file
GAP = 2
BLANK = "#8d887c"
WIDEST = 4  # times the height; a wider picture is no picture of a video
UNREADABLE = (OSError, ValueError, SyntaxError, Image.DecompressionBombError)


def contact_sheet(pictures: Sequence[Picture], height: int = HEIGHT, most: int = 3) -> Image.Image | None:
    """Some of a shot's pictures side by side, evenly chosen, the first and the last among them; one that cannot be read is blank.

    None: there is no picture at all.
    """
    found = [_small(picture, height) for picture in _chosen(pictures, most)]
    size = next((image.size for image in found if image), None)
    if size is None:
        return None
    images = [image or Image.new("RGB", size, BLANK) for image in found]
    sheet = Image.new("RGB", (sum(image.width + GAP for image in images) - GAP, height), BLANK)
    left = 0
    for image in images:
        sheet.paste(image, (left, 0))
        left += image.width + GAP
    return sheet


def group_sheet(curated: CuratedSet, group: GroupRow, pictures: PicturesOf) -> Image.Image:
    """A group as one picture: a row per shot, with its prompt, its time, and how near it is to the shot before."""
    captions = curated.captions.get(group.group)
    read = [[_small(picture, SHEET_HEIGHT) for picture in _chosen(pictures(shot), film.PICTURES_PER_ROW)] or [None] for shot in group.shots]
    size = next((image.size for images in read for image in images if image), (SHEET_HEIGHT * 16 // 9, SHEET_HEIGHT))
    rows = []
    for index, (name, images) in enumerate(zip(group.shots, read, strict=True)):
        caption = captions.prompts[index] if captions and index < len(captions.prompts) else ""
        near = f" · {group.relevance[index - 1]:.3f} to the shot before" if 0 < index <= len(group.relevance) else ""
        note = f"{name} · {span(curated.shots[name])}{near}" if name in curated.shots else name
        rows.append(film.SheetRow([np.asarray(image or Image.new("RGB", size, BLANK)) for image in images], _drawn(caption), _drawn(note)))
    fate = curated.group_fate(group.group)
    why = "; ".join(f"{kind}: {what}" if what else kind for kind, what in fate.reasons)
    return film.contact_sheet(_drawn(f"{group.group}, {group.name}"), _drawn(f"{fate.word}{f': {why}' if why else ''}"), rows)


def _drawn(text: str) -> str:
    """In the letters that a picture's font has."""
    return text.replace("–", "-")


def _chosen(pictures: Sequence[Picture], most: int) -> list[Picture]:
    """At most so many, evenly from the first to the last; one alone is from the middle."""
    if not pictures:
        return []
    places = np.linspace(0, len(pictures) - 1, most) if most > 1 else np.array([(len(pictures) - 1) // 2])
    return [pictures[place] for place in sorted(set(places.round().astype(int).tolist()))]


def _small(picture: Picture, height: int) -> Image.Image | None:
    """A picture so many pixels high; None where it cannot be read."""
    try:
        with Image.open(io.BytesIO(picture) if isinstance(picture, bytes) else picture, formats=("JPEG",)) as image:
            width = max(1, min(WIDEST * height, round(image.width * height / image.height)))
            image.draft("RGB", (width, height))
            return image.convert("RGB").resize((width, height), Image.Resampling.LANCZOS)
    except UNREADABLE:
        return None
