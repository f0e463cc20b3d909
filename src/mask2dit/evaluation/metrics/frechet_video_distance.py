"""FVD, Fréchet video distance: how far the scenes of a set are from reference scenes, as distributions of features.

|μ₁ − μ₂|² + tr(Σ₁ + Σ₂ − 2 (Σ₁ Σ₂)^½) for Gaussians with the means and (unbiased) covariances of both sets' features, in float64. Source:
Unterthiner et al., FVD (2019), with I3D features; another extractor gives another number. It falls with the number of scenes, so n, the
extractor and its frame count belong to it, and sets of different n are not comparable. Its interval holds the reference fixed.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from mask2dit.evaluation.facts import Features
from mask2dit.evaluation.metrics.base import DISTANCE, Scenes, SetMetric

FEWEST = 2  # scenes; a single one has no covariance


def frechet_distance(ones: Features, others: Features) -> float:
    """Of features [N, D] and [M, D], N and M at least 2, squared as usual.

    With A = (X₁ − μ₁) / √(N − 1), and B likewise, Σ₁ = AᵀA and Σ₂ = BᵀB, so tr (Σ₁ Σ₂)^½ is the sum of the singular values of A Bᵀ: exact
    also where covariances are singular, and no D × D root is taken.
    """
    one, other = np.asarray(ones, np.float64), np.asarray(others, np.float64)
    mean_one, mean_other = one.mean(axis=0), other.mean(axis=0)
    a, b = (one - mean_one) / np.sqrt(len(one) - 1), (other - mean_other) / np.sqrt(len(other) - 1)
    root = np.linalg.svd(_reduced(a) @ _reduced(b).T, compute_uv=False).sum()
    distance = np.sum((mean_one - mean_other) ** 2) + np.sum(a * a) + np.sum(b * b) - 2 * root
    return max(float(distance), 0.0)


def _reduced(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    """At most D rows with the same product of the matrix with itself."""
    return np.asarray(np.linalg.qr(rows, mode="r")) if len(rows) > rows.shape[1] else rows


def _statistic(films: Scenes, drawn: Sequence[int], reference: Features | None) -> float:
    rows = np.concatenate([films[index] for index in drawn])
    return frechet_distance(rows, reference) if reference is not None and len(rows) >= FEWEST else float("nan")


def _missing(films: Scenes, reference: Features | None) -> str:
    if reference is None:
        return "nothing to compare with; name a folder of videos with --reference"
    for count, which in ((sum(map(len, films)), "scene"), (len(reference), "reference scene")):
        if count < FEWEST:
            return f"{count} {which}{'s' * (count != 1)}, and a distribution needs at least {FEWEST}"
    return ""


METRIC = SetMetric(
    "fvd",
    "Fréchet video distance (FVD)",
    "",
    "lower",
    _statistic,
    _missing,
    needs=("scene",),
    prefers=DISTANCE,
    about="distance of the scenes' features from those of reference videos",
    needs_reference=True,
    lowest=0.0,
)
