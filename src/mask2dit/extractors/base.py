"""What every extractor does: features of pictures, of whole scenes, and of captions.

A feature is a vector whose direction says what is seen or said; nobody but its own extractor knows what its numbers mean. Pictures are
uint8 [T, Y, X, 3] in sRGB, of any size; preparing them for the network is the extractor's business. Features are float32, not normalised.
"""

from collections.abc import Sequence
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

Frames = NDArray[np.uint8]
Features = NDArray[np.float32]
Kind = Literal["frame", "scene", "text"]

SCENE_FRAMES = 8
"""Frames that a network for single pictures looks at to say what a scene shows."""


@runtime_checkable
class Extractor(Protocol):
    """A network that describes pictures or words by vectors. Anything with these members is one."""

    name: str
    """As it is chosen on the command line."""
    weights: str
    """Which weights: where they come from and a digest of them; equal texts, equal features."""
    kinds: frozenset[Kind]
    """What it has features of. Features of scenes and of text lie in one space, where it has both."""
    num_frames: int
    """Frames, evenly spaced over a scene, that the scene's feature is taken from; a shorter scene shows some of them more than once."""

    def frames(self, pictures: Frames) -> Features:
        """[T, Y, X, 3] → [T, D], a feature for each picture."""

    def scene(self, pictures: Frames) -> Features:
        """[T, Y, X, 3] → [D], a feature for all pictures of one scene, of any number from 1 on."""

    def scenes(self, scenes: Sequence[Frames]) -> Features:
        """N scenes, of any lengths and sizes → [N, D], looked at together where the network can."""

    def text(self, captions: Sequence[str]) -> Features:
        """N captions → [N, D]; what exceeds the network's text length is cut off."""


def evenly(pictures: Frames, count: int) -> Frames:
    """`count` pictures of a scene, evenly spaced, the first and the last among them; of a shorter scene some come more than once."""
    chosen: Frames = pictures[np.linspace(0, len(pictures) - 1, count).round().astype(int)]
    return chosen


def mean_of_unit(features: NDArray[Any]) -> Features:
    """[T, D] → [D]: the mean direction."""
    lengths = np.linalg.norm(features, axis=1, keepdims=True)
    mean: Features = (features / np.maximum(lengths, np.finfo(np.float32).tiny)).mean(axis=0, dtype=np.float64).astype(np.float32)
    return mean
