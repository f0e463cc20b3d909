"""What extractors for single pictures share: a feature per picture, and of a scene the mean direction of a few of them."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mask2dit.errors import ModelError
from mask2dit.extractors.base import SCENE_FRAMES, Features, Frames, Kind, evenly, mean_of_unit
from mask2dit.extractors.pictures import Preparation, batches, check_pictures, lacking
from mask2dit.extractors.pretrained import to_numpy


class PictureExtractor(ABC):
    """An `Extractor` made of a network for single pictures; a subclass says what of the network's output is the feature."""

    name: str
    kinds: frozenset[Kind] = frozenset({"frame", "scene"})
    num_frames = SCENE_FRAMES

    def __init__(self, network: Any, weights: str, preparation: Preparation, device: torch.device) -> None:
        self.weights = weights
        self.preparation = preparation
        self._network = network
        self._device = device

    def frames(self, pictures: Frames) -> Features:
        """[T, Y, X, 3] → [T, D], a feature for each picture."""
        check_pictures(self.name, pictures)
        with torch.no_grad():
            features: Features = to_numpy([self._look(self.preparation(batch).to(self._device)) for batch in batches(pictures)])
        return features

    def scene(self, pictures: Frames) -> Features:
        """[T, Y, X, 3] → [D], the mean direction of the features of `num_frames` pictures."""
        return np.asarray(self.scenes([pictures])[0])

    def scenes(self, scenes: Sequence[Frames]) -> Features:
        """N scenes → [N, D]"""
        for pictures in scenes:
            check_pictures(self.name, pictures)
        pixels = torch.cat([self.preparation(evenly(pictures, self.num_frames)) for pictures in scenes])
        with torch.no_grad():
            features = to_numpy([self._look(batch.to(self._device)) for batch in batches(pixels)])
        return np.stack([mean_of_unit(each) for each in features.reshape(len(scenes), self.num_frames, -1)])

    def text(self, captions: Sequence[str]) -> Features:
        """Raise InputError unless the network reads."""
        raise lacking(self.name, "text", self.kinds)

    @abstractmethod
    def _look(self, pixels: Tensor) -> Tensor:
        """[T, 3, height, width] → [T, D]"""


def check_input_size(extractor: str, weights: str, preparation: Preparation, size: int) -> None:
    """Raise ModelError unless the preparation makes what the network was built for: squares of `size` pixels."""
    if preparation.input_size != (size, size):
        raise ModelError(
            f"{extractor}: {weights}: pictures are prepared at {preparation.input_size}, expected {(size, size)} as in config.json; "
            "check that both files belong to one model"
        )
