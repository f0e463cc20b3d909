"""DINOv2: what a picture shows, learned without captions (Oquab et al., 2023). The feature is the class token after the last norm."""

import torch
from torch import Tensor

from mask2dit.errors import ModelError
from mask2dit.extractors.pictures import IMAGENET_MEAN, IMAGENET_STD, Preparation, read_preparation
from mask2dit.extractors.pretrained import Family, find_pretrained, load_pretrained
from mask2dit.extractors.single_pictures import PictureExtractor

NAME, WEIGHTS = "dinov2", "facebook/dinov2-base"
DROPPABLE = ("classifier.",)
"""The head of weights that were trained on to tell classes."""
PREPARATION = Preparation(256, (224, 224), IMAGENET_MEAN, IMAGENET_STD, resample=3)


class Dinov2(PictureExtractor):
    """DINOv2's picture network."""

    name = NAME

    def _look(self, pixels: Tensor) -> Tensor:
        features: Tensor = self._network(pixel_values=pixels).last_hidden_state[:, 0]
        return features


def load(weights: str | None, device: torch.device, offline: bool) -> Dinov2:
    """Load DINOv2 from a folder or Hub id in transformers' layout. Raises ModelError."""
    from transformers import Dinov2Model

    family = Family(NAME, Dinov2Model, "dinov2", DROPPABLE)
    found = find_pretrained(family, WEIGHTS if weights is None else weights, offline=offline)
    network, label = load_pretrained(family, found, device)
    preparation, patch = read_preparation(NAME, found.path, PREPARATION), network.config.patch_size
    if any(side % patch for side in preparation.input_size):  # positions are stretched to any number of patches
        raise ModelError(
            f"{NAME}: {label}: pictures are prepared at {preparation.input_size}, expected multiples of the patch size {patch}; "
            "check that both files belong to one model"
        )
    return Dinov2(network, label, preparation, device)
