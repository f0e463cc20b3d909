"""SigLIP 2: pictures and captions in one space, by a sigmoid loss (Tschannen et al., 2025); the weights of one fixed picture size.

They are loaded as SigLIP's network, which they are; what is new to them is the training and the text side: Gemma's tokenizer, lower
case, 64 tokens with padding behind, which the network sees.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mask2dit.errors import ModelError, one_line
from mask2dit.extractors.base import Features, Kind
from mask2dit.extractors.pictures import BATCH, Preparation, check_captions, read_preparation
from mask2dit.extractors.pretrained import Family, check_vocabulary, find_pretrained, load_pretrained, to_numpy
from mask2dit.extractors.single_pictures import PictureExtractor, check_input_size

NAME, WEIGHTS = "siglip2", "google/siglip2-base-patch16-224"
DROPPABLE = ("text_model.embeddings.position_ids", "vision_model.embeddings.position_ids")
"""0, 1, 2 …, which older files hold as if they had been learned."""
END, PADDING = "<eos>", "<pad>"


class Siglip2(PictureExtractor):
    """SigLIP's picture and text networks, both pooled."""

    name = NAME
    kinds: frozenset[Kind] = frozenset({"frame", "scene", "text"})

    def __init__(self, network: Any, weights: str, preparation: Preparation, device: torch.device, tokenizer: Any) -> None:
        super().__init__(network, weights, preparation, device)
        self._tokenizer = tokenizer

    def text(self, captions: Sequence[str]) -> Features:
        """N captions → [N, D]; what exceeds 64 tokens is cut off."""
        rows = [self._tokens(caption) for caption in check_captions(self.name, captions)]
        parts = []
        for start in range(0, len(rows), BATCH):
            tokens = torch.tensor(rows[start : start + BATCH], device=self._device)
            with torch.no_grad():
                parts.append(self._network.get_text_features(input_ids=tokens).pooler_output)
        features: Features = to_numpy(parts)
        return features

    def _tokens(self, caption: str) -> list[int]:
        """As in training: lower case, nothing in front, the end always there, padding behind."""
        length = self._network.config.text_config.max_position_embeddings
        found = self._tokenizer.encode(caption.lower(), add_special_tokens=False).ids[: length - 1]
        padding = [self._tokenizer.token_to_id(PADDING)] * (length - 1 - len(found))
        return [*found, self._tokenizer.token_to_id(END), *padding]

    def _look(self, pixels: Tensor) -> Tensor:
        features: Tensor = self._network.get_image_features(pixel_values=pixels).pooler_output
        return features


def load(weights: str | None, device: torch.device, offline: bool) -> Siglip2:
    """Load SigLIP 2 from a folder or Hub id in transformers' layout. Raises ModelError."""
    from transformers import SiglipModel

    family = Family(NAME, SiglipModel, "siglip", DROPPABLE)
    found = find_pretrained(family, WEIGHTS if weights is None else weights, offline=offline)
    network, label = load_pretrained(family, found, device)
    size = network.config.vision_config.image_size
    preparation = read_preparation(NAME, found.path, Preparation((size, size), None, (0.5,) * 3, (0.5,) * 3, resample=2))
    check_input_size(NAME, label, preparation, size)
    tokenizer = _load_tokenizer(found.path)
    check_vocabulary(NAME, found.path, tokenizer.get_vocab_size(), network.config.text_config.vocab_size)
    return Siglip2(network, label, preparation, device, tokenizer)


def _load_tokenizer(folder: Path) -> Any:
    """Gemma's, from the file itself: its classes in transformers differ in case, ends and padding from release to release."""
    from tokenizers import Tokenizer

    path = folder / "tokenizer.json"
    if not path.is_file():
        raise ModelError(f"{NAME}: {path}: no such file, expected Gemma's tokenizer; SigLIP 1 has another, use weights of SigLIP 2")
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # tokenizers raises bare exceptions
        raise ModelError(f"{NAME}: {path}: cannot be loaded: {one_line(error)}; fetch the weights again") from error
    if None in (tokenizer.token_to_id(END), tokenizer.token_to_id(PADDING)):
        raise ModelError(f"{NAME}: {path}: has no {END} and {PADDING}, expected Gemma's tokenizer; use weights of SigLIP 2")
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer
