"""Inter-scene consistency: whether scenes that share a character look alike.

The mean cosine between scene features over those pairs of a film's scenes of which both captions name one character. Ours, after the
consistency of shots with the same entity in the multi-shot suites (2025–26); with whole pictures, not crops of the character: no detector
of characters is used. So it also sees place and light, and belongs beside visual consistency, which takes all pairs.
"""

import numpy as np

from mask2dit.evaluation.facts import Features, FilmFacts, Value, cosines, pairs
from mask2dit.evaluation.metrics.base import IDENTITY, FilmMetric


def inter_scene_consistency(scenes: Features, characters: tuple[frozenset[str], ...]) -> Value:
    """Of scene features [S, D] and who is in each scene."""
    shared = [(one, other) for one, other in zip(*pairs(len(scenes)), strict=True) if characters[one] & characters[other]]
    if not shared:
        return Value(None, reason="no two scenes share a character")
    ones, others = map(list, zip(*shared, strict=True))
    found = cosines(scenes[ones], scenes[others])
    return Value.mean(found[np.isfinite(found)], "no two scenes share a character")


def _measure(film: FilmFacts, extractor: str) -> Value:
    if film.characters is None:
        return Value(None, reason=film.amiss or "who is in which scene is not known; name it with --storyboards")
    return inter_scene_consistency(film.scenes[extractor], film.characters)


METRIC = FilmMetric(
    "inter-scene-consistency",
    "Consistency between scenes with a shared character",
    "%",
    "higher",
    _measure,
    needs=("scene",),
    prefers=IDENTITY,
    parts="pairs of scenes",
    scale=100,
    about="mean cosine between the features of scenes that name the same character",
)
