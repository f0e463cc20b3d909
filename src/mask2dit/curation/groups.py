"""Step 4, groups: consecutive shots that belong together, by how near their features are: related, yet not the same picture.

The relevance of two neighbours is the cosine of their features. Neighbours from `lower` to `upper` are related; a chain is shots of which
each is related to the next, and what is dropped by a check ends it. A chain is divided into parts that are as equal as can be and of an
asked size; where that cannot be done without a rest, into as many parts of the largest size as fit. No division has more shots in groups.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise

import numpy as np

from mask2dit.curation.rows import CheckRow, GroupRow, PairRow, ShotRow
from mask2dit.errors import InputError
from mask2dit.extractors.base import Features

THRESHOLDS: dict[str, tuple[float, float]] = {
    "colours": (0.6, 0.985),
    "viclip": (0.5, 0.95),
    "clip": (0.7, 0.97),
    "siglip2": (0.7, 0.97),
    "dinov2": (0.4, 0.95),
    "videomae": (0.7, 0.97),
    "i3d": (0.6, 0.97),
    "judge": (0.75, 1.01),
}
"""Lower and upper, by extractor: places to begin at, to be moved where the report's histogram parts; the judge's were measured."""


@dataclass(frozen=True, slots=True)
class GroupSettings:
    """Which neighbours are related, and how many shots make a group."""

    lower: float
    upper: float
    shortest: int = 3
    longest: int = 3

    def __post_init__(self) -> None:
        if not -1 <= self.lower < self.upper:
            raise InputError(
                f"thresholds: got {self.lower:g} and {self.upper:g}, expected the lower below the upper; change --lower or --upper"
            )


def read_sizes(text: str) -> tuple[int, int]:
    """What `--group-size` says: 3, or 3-8. Raises InputError."""
    match = re.fullmatch(r"\s*(\d{1,3})\s*(?:[-–]\s*(\d{1,3})\s*)?", text)
    shortest, longest = (int(match[1]), int(match[2] or match[1])) if match else (0, 0)
    if not 2 <= shortest <= longest:
        raise InputError(f"--group-size: got {text!r}, expected a number of shots from 2, or a range; for example 3, or 3-8")
    return shortest, longest


def pair_shots(
    shots: Sequence[ShotRow], checks: Mapping[str, CheckRow], features: Mapping[str, Features], settings: GroupSettings
) -> list[PairRow]:
    """A row for every two shots of one video that follow each other. shots: in order, video by video."""
    return [_pair(one, other, checks, features, settings) for one, other in pairwise(shots) if one.digest == other.digest]


def _pair(
    one: ShotRow, other: ShotRow, checks: Mapping[str, CheckRow], features: Mapping[str, Features], settings: GroupSettings
) -> PairRow:
    if not (checks[one.shot].kept and checks[other.shot].kept) or other.index != one.index + 1:
        return PairRow(one.shot, other.shot, None, "dropped")
    # Rounded, so that the last digits of another machine's sums decide nothing.
    relevance = round(cosine(features[one.shot], features[other.shot]), 4)
    if one.ends == "split" or relevance > settings.upper:
        return PairRow(one.shot, other.shot, relevance, "same picture")
    return PairRow(one.shot, other.shot, relevance, "related" if relevance >= settings.lower else "unrelated")


def cosine(one: Features, other: Features) -> float:
    """Of the angle between two features; 0 where one has no direction."""
    lengths = float(np.linalg.norm(one) * np.linalg.norm(other))
    return float(one @ other) / lengths if lengths else 0.0


def group_shots(shots: Sequence[ShotRow], pairs: Sequence[PairRow], settings: GroupSettings) -> list[GroupRow]:
    """The groups, in order."""
    related = {pair.first: pair for pair in pairs if pair.verdict == "related"}
    rows = []
    for chain in _chains(shots, set(related)):
        for part in _parts(chain, settings):
            first, last = part[0], part[-1]
            relevance = tuple(related[shot.shot].relevance or 0.0 for shot in part[:-1])
            name = f"{first.digest}-{first.start:07d}-{last.stop:07d}-{_short_digest(part)}"
            rows.append(GroupRow(name, first.name, first.digest, tuple(shot.shot for shot in part), relevance))
    return rows


def _short_digest(shots: Sequence[ShotRow]) -> str:
    """Of which shots they are: a group of other shots from the same first to the same last frame is another group."""
    return hashlib.sha256("\n".join(shot.shot for shot in shots).encode()).hexdigest()[:8]


def _chains(shots: Sequence[ShotRow], related: set[str]) -> Iterator[list[ShotRow]]:
    number = 0
    numbers = []
    for shot in shots:
        numbers.append(number)
        number += shot.shot not in related
    for _, chain in groupby(zip(numbers, shots, strict=True), key=lambda each: each[0]):
        yield [shot for _, shot in chain]


def _parts(chain: Sequence[ShotRow], settings: GroupSettings) -> Iterator[Sequence[ShotRow]]:
    count = -(-len(chain) // settings.longest)
    sizes = [len(chain) // count + (number < len(chain) % count) for number in range(count)]
    if sizes[-1] < settings.shortest:  # a part more is too many, so that one less, and all of them whole, hold the most
        sizes = [settings.longest] * (count - 1)
    start = 0
    for size in sizes:
        yield chain[start : start + size]
        start += size
