"""Step 3, checks: which shots are fit for training, and why the others are not. Reads what the scan measured; decodes nothing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from mask2dit.curation.measures import look
from mask2dit.curation.rows import CheckRow, ShotRow
from mask2dit.curation.settings import CheckSettings
from mask2dit.extractors.base import Features, Frames

Reason = tuple[str, str]


def check_shots(shots: Sequence[ShotRow], looks: Mapping[str, Features], settings: CheckSettings) -> list[CheckRow]:
    """A row for each shot, in order. looks: of each shot, as `Look` sees it. Of shots that show the same the first is kept."""
    reasons = {row.shot: list(_faults(row, settings)) for row in shots}
    good = [row for row in shots if not reasons[row.shot] and row.shot in looks]
    for later, first, distance in _duplicates(good, looks, settings.duplicate):
        at = f"{first.name} at {first.start / first.fps:.1f} s"
        reasons[later.shot].append(
            ("duplicate", f"shows what {at} shows (difference {distance:.2f}, expected at least {settings.duplicate:g})")
        )
    return [CheckRow(row.shot, not reasons[row.shot], tuple(reasons[row.shot])) for row in shots]


def _faults(row: ShotRow, settings: CheckSettings) -> Iterator[Reason]:
    if row.seconds < settings.min_seconds:
        yield "short", f"{row.seconds:.2f} s, expected at least {settings.min_seconds:g}"
    if row.num_damaged > settings.max_damaged:
        yield "damaged", f"{row.num_damaged} damaged pictures, expected at most {settings.max_damaged}"
    if row.lightness < settings.min_lightness:
        yield "black", f"lightness {row.lightness:.2f}, expected at least {settings.min_lightness:g}"
    elif row.contrast < settings.min_contrast:
        yield "flat", f"contrast {row.contrast:.2f}, expected at least {settings.min_contrast:g}"
    still = row.still_seconds / row.seconds
    if still > settings.max_still_share:
        yield (
            "frozen",
            f"nothing changes for {row.still_seconds:.1f} of {row.seconds:.1f} s, expected at most {settings.max_still_share:.0%}",
        )
    elif row.motion is not None and row.motion < settings.min_motion:
        yield "still", f"motion {row.motion:.2f} % per second, expected at least {settings.min_motion:g}"
    if row.text > settings.max_text:
        yield "text", f"{row.text:.1%} of the picture, expected at most {settings.max_text:.1%}"
    top, bottom, left, right = row.bars
    inside = (1 - top - bottom) * (1 - left - right)
    if inside < settings.min_picture:
        yield "bars", f"black bars leave {inside:.0%} of the picture, expected at least {settings.min_picture:.0%}"


def _duplicates(rows: Sequence[ShotRow], looks: Mapping[str, Features], limit: float) -> Iterator[tuple[ShotRow, ShotRow, float]]:
    """(a later shot, the first one that shows the same, their distance)."""
    if not rows:
        return
    seen = np.stack([looks[row.shot] for row in rows])
    # Two looks are never nearer than their means are: only neighbours by mean can be duplicates.
    means = seen.mean(axis=1)
    order = np.argsort(means, kind="stable")
    sorted_means = means[order]
    is_copy = np.zeros(len(rows), bool)
    for index, row in enumerate(rows):
        low, high = np.searchsorted(sorted_means, [means[index] - limit, means[index] + limit])
        near = np.sort(order[low:high])
        near = near[(near < index) & ~is_copy[near]]
        if not len(near):
            continue
        distances = np.sqrt(np.square(seen[near] - seen[index]).mean(axis=1))
        best = int(distances.argmin())
        if distances[best] < limit:
            is_copy[index] = True
            yield row, rows[int(near[best])], float(distances[best])


class Look:
    """What `check_shots` compares: thumbnails of a shot's first, middle and last picture, as features are."""

    name = "look"
    weights = "thumbnails"

    def scenes(self, scenes: Sequence[Frames]) -> NDArray[np.float32]:
        """N shots → [N, D], in levels of 255."""
        return np.stack([look(pictures).astype(np.float32).ravel() for pictures in scenes])
