"""Captions → prompt_embeds.

Each caption is one padded row of its own; the encoder gets no attention mask, and padding is kept and attended like any token, because
the released weights were trained so.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from mask2dit.errors import InputError


def check_caption(caption: str, tokenizer: Any, max_length: int, place: str) -> None:
    """Raise InputError if a caption has more tokens than the model reads per scene."""
    count = len(tokenizer(caption, truncation=False, verbose=False).input_ids)
    if count > max_length:
        raise InputError(
            f"{place}: got {count} tokens ({len(caption)} characters), expected at most {max_length} per scene; shorten the text"
        )


@torch.no_grad()
def encode_captions(captions: Sequence[str], tokenizer: Any, text_encoder: Any, max_length: int, device: torch.device) -> Tensor:
    """Encode captions to [S, max_length, E] on `device`, where the encoder computes, in the encoder's dtype.

    Equal captions are encoded once, and each alone, so that a row does not depend on its neighbours.
    """
    encoded = {
        caption: encode_tokens(tokenize([caption], tokenizer, max_length), text_encoder, device) for caption in dict.fromkeys(captions)
    }
    return torch.cat([encoded[caption] for caption in captions])


def tokenize(captions: Sequence[str], tokenizer: Any, max_length: int) -> Tensor:
    """Token numbers [S, max_length], padded, and truncated as in the released model."""
    tokens = tokenizer(list(captions), padding="max_length", max_length=max_length, truncation=True, return_tensors="pt")
    return tokens.input_ids  # type: ignore[no-any-return]


def encode_tokens(tokens: Tensor, text_encoder: Any, device: torch.device | None = None) -> Tensor:
    """[S, L] token numbers → [S, L, E]; differentiable, for training.

    device: where the encoder computes; None is where its weights are, which is not the same while they are offloaded.
    """
    return text_encoder(tokens.to(device or text_encoder.device)).last_hidden_state  # type: ignore[no-any-return]
