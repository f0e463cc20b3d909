"""What extractors for whole scenes share: they read video, neither single pictures nor words."""

from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np

from mask2dit.extractors.base import Features, Frames, Kind
from mask2dit.extractors.pictures import lacking


class SceneExtractor(ABC):
    """An `Extractor` made of a network for video."""

    name: str
    kinds: frozenset[Kind] = frozenset({"scene"})

    @abstractmethod
    def scene(self, pictures: Frames) -> Features:
        """[T, Y, X, 3] → [D]"""

    def scenes(self, scenes: Sequence[Frames]) -> Features:
        """N scenes → [N, D], one by one."""
        return np.stack([self.scene(pictures) for pictures in scenes])

    def frames(self, pictures: Frames) -> Features:
        """Raise InputError: the network reads video."""
        raise lacking(self.name, "frame", self.kinds)

    def text(self, captions: Sequence[str]) -> Features:
        """Raise InputError: the network does not read."""
        raise lacking(self.name, "text", self.kinds)
