"""Semantic consistency: how well each scene shows its own caption.

The mean over scenes of the cosine between a scene's video feature and its own caption's text feature: 1 / S · Σ_i cos(v_i, t_i).
Source: Mask²DiT (CVPR 2025), section 4.1.
"""

import numpy as np

from mask2dit.evaluation.facts import Features, FilmFacts, Value, cosines
from mask2dit.evaluation.metrics.base import VIDEO, FilmMetric


def semantic_consistency(scenes: Features, captions: Features) -> Value:
    """Of features of scenes and of their captions, both [S, D]."""
    found = cosines(scenes, captions)
    return Value.mean(found[np.isfinite(found)], "no caption says anything that the extractor knows")


def _measure(film: FilmFacts, extractor: str) -> Value:
    if film.captions is None:
        return Value(None, reason=film.amiss or "no captions; name them with --storyboards")
    return semantic_consistency(film.scenes[extractor], film.texts[extractor])


METRIC = FilmMetric(
    "semantic-consistency",
    "Semantic consistency",
    "%",
    "higher",
    _measure,
    needs=("scene", "text"),
    prefers=VIDEO,
    scale=100,
    about="mean cosine between a scene's video feature and its own caption's text feature",
)
