"""Visual consistency: how alike the scenes of a film look.

The mean cosine over all pairs of a film's scenes between their video features: 2 / (S (S − 1)) · Σ_{i<j} cos(v_i, v_j).
Source: Mask²DiT (CVPR 2025), section 4.1, whose features are probably ViCLIP's; with other features it is another number.
"""

import numpy as np

from mask2dit.evaluation.facts import Features, FilmFacts, Value, cosines, pairs
from mask2dit.evaluation.metrics.base import VIDEO, FilmMetric


def visual_consistency(scenes: Features) -> Value:
    """Of a film's scene features [S, D]; none with fewer than two scenes."""
    ones, others = pairs(len(scenes))
    found = cosines(scenes[ones], scenes[others])
    return Value.mean(found[np.isfinite(found)], "one scene: there is no pair of scenes")


def _measure(film: FilmFacts, extractor: str) -> Value:
    return visual_consistency(film.scenes[extractor])


METRIC = FilmMetric(
    "visual-consistency",
    "Visual consistency",
    "%",
    "higher",
    _measure,
    needs=("scene",),
    prefers=VIDEO,
    parts="pairs of scenes",
    scale=100,
    about="mean cosine between the video features of a film's scenes",
)
