"""Which colours a scene has: a histogram, no network and no weights. Scenes of one place and light are near to each other.

Of each picture the share of points in each of 8 × 8 × 8 boxes of CIELAB, with soft borders, and of it the square root, so that the cosine
of two features is the Bhattacharyya coefficient of the histograms: 1 for the same colours, 0 for none in common.
"""

from collections.abc import Sequence

import numpy as np
import torch

from mask2dit.cuts import srgb_to_lab
from mask2dit.errors import InputError
from mask2dit.extractors.base import SCENE_FRAMES, Features, Frames, Kind, evenly
from mask2dit.extractors.pictures import check_pictures, lacking

NAME = "colours"
BOXES = 8  # along each axis
LOWEST, HIGHEST = (0.0, -80.0, -80.0), (100.0, 80.0, 80.0)
SIDE = 64  # pixels: every so many points are looked at


class Colours:
    """An `Extractor` without a network."""

    name = NAME
    weights = f"CIELAB, {BOXES} boxes a side"
    kinds: frozenset[Kind] = frozenset({"frame", "scene"})
    num_frames = SCENE_FRAMES

    def frames(self, pictures: Frames) -> Features:
        """[T, Y, X, 3] → [T, 512]"""
        check_pictures(self.name, pictures)
        return np.stack([np.sqrt(_histogram(picture)) for picture in pictures])

    def scene(self, pictures: Frames) -> Features:
        """[T, Y, X, 3] → [512], of all colours of `num_frames` pictures together."""
        check_pictures(self.name, pictures)
        feature: Features = np.sqrt(np.mean([_histogram(picture) for picture in evenly(pictures, self.num_frames)], axis=0))
        return feature

    def scenes(self, scenes: Sequence[Frames]) -> Features:
        """N scenes → [N, 512]"""
        return np.stack([self.scene(pictures) for pictures in scenes])

    def text(self, captions: Sequence[str]) -> Features:
        """Raise InputError: colours do not read."""
        raise lacking(self.name, "text", self.kinds)


def load(weights: str | None, device: torch.device, offline: bool) -> Colours:
    """There is nothing to load. Raises InputError where weights are given."""
    if weights is not None:
        raise InputError(f"{NAME}: got {weights!r}, expected no weights, for it has none; leave them out")
    return Colours()


def _histogram(picture: Frames) -> Features:
    step = max(1, min(picture.shape[:2]) // SIDE)
    lab = srgb_to_lab(picture[::step, ::step]).reshape(-1, 3)
    low, high = np.array(LOWEST), np.array(HIGHEST)
    place = ((lab - low) / (high - low)).clip(0, 1) * BOXES - 0.5
    first = np.floor(place).astype(int)
    share = place - first
    counts = np.zeros(BOXES**3)
    for corner in np.ndindex(2, 2, 2):  # a point counts to the eight boxes around it, so that a breath of light moves little
        box = (first + corner).clip(0, BOXES - 1)
        weight = np.prod(np.where(corner, share, 1 - share), axis=1)
        counts += np.bincount(np.ravel_multi_index(tuple(box.T), (BOXES,) * 3), weight, BOXES**3)
    histogram: Features = (counts / len(lab)).astype(np.float32)
    return histogram
