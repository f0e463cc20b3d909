"""CLIP: pictures and captions in one space, by contrast (Radford et al., 2021). Features are its projected embeddings."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from mask2dit.extractors.base import Features, Kind
from mask2dit.extractors.pictures import BATCH, CLIP_MEAN, CLIP_STD, Preparation, check_captions, read_preparation
from mask2dit.extractors.pretrained import Family, check_vocabulary, find_pretrained, load_clip_tokenizer, load_pretrained, to_numpy
from mask2dit.extractors.single_pictures import PictureExtractor, check_input_size

NAME, WEIGHTS = "clip", "openai/clip-vit-base-patch32"
DROPPABLE = ("text_model.embeddings.position_ids", "vision_model.embeddings.position_ids")
"""0, 1, 2 …, which older files hold as if they had been learned."""


class Clip(PictureExtractor):
    """CLIP's picture and text networks, both projected."""

    name = NAME
    kinds: frozenset[Kind] = frozenset({"frame", "scene", "text"})

    def __init__(self, network: Any, weights: str, preparation: Preparation, device: torch.device, tokenizer: Any) -> None:
        super().__init__(network, weights, preparation, device)
        self._tokenizer = tokenizer

    def text(self, captions: Sequence[str]) -> Features:
        """N captions → [N, D]; what exceeds the network's text length, 77 tokens in published weights, is cut off."""
        captions = check_captions(self.name, captions)
        length = self._network.config.text_config.max_position_embeddings
        parts = []
        for start in range(0, len(captions), BATCH):
            batch = captions[start : start + BATCH]
            tokens = self._tokenizer(batch, padding="max_length", truncation=True, max_length=length, return_tensors="pt")
            with torch.no_grad():  # no mask: what stands behind the last token is not seen, for every token looks back only
                parts.append(self._network.get_text_features(input_ids=tokens["input_ids"].to(self._device)).pooler_output)
        features: Features = to_numpy(parts)
        return features

    def _look(self, pixels: Tensor) -> Tensor:
        features: Tensor = self._network.get_image_features(pixel_values=pixels).pooler_output
        return features


def load(weights: str | None, device: torch.device, offline: bool) -> Clip:
    """Load CLIP from a folder or Hub id in transformers' layout. Raises ModelError."""
    from transformers import CLIPModel

    family = Family(NAME, CLIPModel, "clip", DROPPABLE)
    found = find_pretrained(family, WEIGHTS if weights is None else weights, offline=offline)
    network, label = load_pretrained(family, found, device)
    size = network.config.vision_config.image_size
    preparation = read_preparation(NAME, found.path, Preparation(size, (size, size), CLIP_MEAN, CLIP_STD, resample=3))
    check_input_size(NAME, label, preparation, size)
    tokenizer = load_clip_tokenizer(NAME, found.path)
    check_vocabulary(NAME, found.path, len(tokenizer), network.config.text_config.vocab_size)
    return Clip(network, label, preparation, device, tokenizer)
