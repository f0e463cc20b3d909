"""VideoMAE: video learned by filling in masked parts (Tong et al., 2022). The feature is the mean of all tokens of the encoder.

So is the feature that Ge et al. (2024) use against the content bias of FVD, from larger weights that were trained on further; numbers
from other weights are not theirs.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from mask2dit.extractors.base import Features, Frames, evenly
from mask2dit.extractors.pictures import IMAGENET_MEAN, IMAGENET_STD, SCENES, Preparation, batches, check_pictures, read_preparation
from mask2dit.extractors.pretrained import Family, find_pretrained, load_pretrained, to_numpy
from mask2dit.extractors.single_pictures import check_input_size
from mask2dit.extractors.whole_scenes import SceneExtractor

NAME, WEIGHTS = "videomae", "MCG-NJU/videomae-base"
DROPPABLE = ("decoder.", "encoder_to_decoder.", "mask_token", "fc_norm.", "classifier.")
"""What fills in the masked parts in pretraining, and the head of weights that were trained on to tell actions."""


class VideoMae(SceneExtractor):
    """VideoMAE's encoder, of which nothing is masked."""

    name = NAME

    def __init__(self, network: Any, weights: str, preparation: Preparation, device: torch.device) -> None:
        self.weights = weights
        self.num_frames: int = network.config.num_frames
        self.preparation = preparation
        self._network = network
        self._device = device

    def scene(self, pictures: Frames) -> Features:
        """[T, Y, X, 3] → [D]"""
        return np.asarray(self.scenes([pictures])[0])

    def scenes(self, scenes: Sequence[Frames]) -> Features:
        """N scenes → [N, D]"""
        for pictures in scenes:
            check_pictures(self.name, pictures)
        pixels = torch.stack([self.preparation(evenly(pictures, self.num_frames)) for pictures in scenes])  # [N, T, 3, height, width]
        with torch.no_grad():
            found = [self._network(pixel_values=batch.to(self._device)).last_hidden_state for batch in batches(pixels, SCENES)]
        features: Features = to_numpy([tokens.mean(dim=1) for tokens in found])  # of [N, tokens, D]
        return features


def load(weights: str | None, device: torch.device, offline: bool) -> VideoMae:
    """Load VideoMAE from a folder or Hub id in transformers' layout. Raises ModelError."""
    from transformers import VideoMAEModel

    family = Family(NAME, VideoMAEModel, "videomae", DROPPABLE)
    found = find_pretrained(family, WEIGHTS if weights is None else weights, offline=offline)
    network, label = load_pretrained(family, found, device)
    size = network.config.image_size
    preparation = read_preparation(NAME, found.path, Preparation(size, (size, size), IMAGENET_MEAN, IMAGENET_STD, resample=2))
    check_input_size(NAME, label, preparation, size)
    return VideoMae(network, label, preparation, device)
