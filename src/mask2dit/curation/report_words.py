"""What the report knows of the steps and of what is measured: their titles, their words, their thresholds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from mask2dit.curation.rows import ShotRow

STEP_WORDS = {
    "pieces": ("Pieces", "Every video is looked at, and what cannot be read is named; long ones are taken in pieces."),
    "shots": ("Shots", "Cuts and dissolves are found, and every shot is measured."),
    "checks": ("Checks", "Shots that show nothing worth learning are dropped."),
    "groups": ("Groups", "Consecutive shots that belong together, but do not show the same picture, make a group."),
    "captions": ("Captions", "Every group is described: its characters, its setting, each of its shots."),
    "reviews": ("Reviews", "Captions that are not as training needs them are left out with their groups."),
    "export": ("Export", "The shots of the groups that are left become clips, and clips become the two parts of the set."),
}

REASON_WORDS = {
    "short": "too short",
    "damaged": "pictures that were guessed in part",
    "black": "too dark",
    "flat": "nearly one colour",
    "frozen": "nothing changes for too long",
    "still": "too little motion",
    "text": "too much text in the picture",
    "bars": "too little picture between black bars",
    "duplicate": "shown before",
    "no captions": "there are no captions",
    "unknown tag": "a tag that no character has",
    "other description": "a character is described in two ways",
    "unused character": "a character that no shot shows",
    "too long": "a caption longer than training reads",
    "empty": "an empty caption",
}


@dataclass(frozen=True, slots=True)
class Measure:
    """What was measured of each shot. `thresholds`: settings of the checks, and words; `reasons`: kinds that follow from it."""

    title: str
    unit: str
    about: str
    value: Callable[[ShotRow], float | None]
    thresholds: tuple[tuple[str, str], ...]
    reasons: tuple[str, ...]
    scale: float = 1.0


MEASURES = (
    Measure("Length", "seconds", "", lambda shot: shot.seconds, (("min_seconds", "at least"), ("max_seconds", "at most")), ("short",)),
    Measure("Lightness", "of 100", "The mean over the shot.", lambda shot: shot.lightness, (("min_lightness", "at least"),), ("black",)),
    Measure(
        "Contrast",
        "of 100",
        "How far apart light and dark lie in a picture.",
        lambda shot: shot.contrast,
        (("min_contrast", "at least"),),
        ("flat",),
    ),
    Measure(
        "Motion",
        "% of the longer side per second",
        "The speed of what moves fastest.",
        lambda shot: shot.motion,
        (("min_motion", "at least"),),
        ("still",),
    ),
    Measure(
        "Standing still",
        "% of the shot",
        "The longest time in which nothing changes.",
        lambda shot: shot.still_seconds / shot.seconds if shot.seconds > 0 else None,
        (("max_still_share", "at most"),),
        ("frozen",),
        100.0,
    ),
    Measure("Overlaid text", "% of the picture", "", lambda shot: shot.text, (("max_text", "at most"),), ("text",), 100.0),
    Measure(
        "Picture between black bars",
        "% of the picture",
        "",
        lambda shot: (1 - shot.bars[0] - shot.bars[1]) * (1 - shot.bars[2] - shot.bars[3]),
        (("min_picture", "at least"),),
        ("bars",),
        100.0,
    ),
    Measure("Damaged pictures", "pictures", "", lambda shot: shot.num_damaged, (("max_damaged", "at most"),), ("damaged",)),
)
