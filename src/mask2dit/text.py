"""Captions → prompt_embeds.

Each caption is one padded row of its own; the encoder gets no attention mask, and padding is kept and attended like any token, because
the released weights were trained so. Rows that were encoded once may be kept on disk, and the encoder, which is often as large as the
transformer, need not be in memory but when a caption is new.
"""

import gc
import hashlib
import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from mask2dit.errors import InputError


@dataclass(frozen=True, slots=True)
class PromptCache:
    """Rows of captions on disk. `digest` names the text encoder, its tokenizer and its number format: other ones have rows of their own."""

    folder: Path
    digest: str

    def read(self, caption: str, max_length: int) -> Tensor | None:
        """The row [max_length, E] on the CPU, or None if it is not there or cannot be read."""
        try:
            row: Tensor = load_file(self._file(caption, max_length))["row"]
            return row
        except (OSError, SafetensorError, KeyError):
            return None

    def write(self, caption: str, max_length: int, row: Tensor) -> None:
        """Keep a row. A disk that is full or write-protected costs the row and nothing else."""
        file = self._file(caption, max_length)
        aside = file.with_name(f"{file.name}.{os.getpid()}.part")
        with suppress(OSError, SafetensorError):
            file.parent.mkdir(parents=True, exist_ok=True)
            try:
                save_file({"row": row.cpu().contiguous()}, aside)
                os.replace(aside, file)
            finally:
                aside.unlink(missing_ok=True)

    def _file(self, caption: str, max_length: int) -> Path:
        name = hashlib.sha256(f"{max_length} {caption}".encode()).hexdigest()[:32]
        return self.folder / self.digest / f"{name}.safetensors"


@dataclass(frozen=True, slots=True)
class TextSide:
    """Where a loaded model's rows come from. `digest`: of the text encoder and its tokenizer.

    `load` brings the text encoder for captions that `cache` does not hold, and it is let go after them; None: the pipeline holds it.
    """

    digest: str
    load: Callable[[], Any] | None = None
    cache: PromptCache | None = None
    kept: dict[str, Tensor] = field(default_factory=dict)
    """Rows that `load`'s encoder has made already, on the CPU."""

    def rows(self, captions: Sequence[str], tokenizer: Any, text_encoder: Any | None, max_length: int, device: torch.device) -> Tensor:
        """Captions → [S, max_length, E] on `device`: from the cache, and the others encoded by `text_encoder`, or by a loaded one."""
        rows = {}
        for caption in dict.fromkeys(captions):
            row = self.kept.get(caption)
            if row is None and self.cache is not None:
                row = self.cache.read(caption, max_length)
            if row is not None:
                rows[caption] = row.to(device)
        missing = [caption for caption in dict.fromkeys(captions) if caption not in rows]
        if missing:
            rows |= zip(missing, self._encode(missing, tokenizer, text_encoder, max_length, device), strict=True)
        for caption in missing:
            if self.load is not None:
                self.kept[caption] = rows[caption].cpu()
            if self.cache is not None:
                self.cache.write(caption, max_length, rows[caption])
        return torch.stack([rows[caption] for caption in captions])

    def _encode(self, captions: Sequence[str], tokenizer: Any, text_encoder: Any | None, max_length: int, device: torch.device) -> Tensor:
        if self.load is None:
            return encode_captions(captions, tokenizer, text_encoder, max_length, device)
        loaded = self.load()
        rows = encode_captions(captions, tokenizer, loaded, max_length, device)
        del loaded
        gc.collect()
        if device.type == "cuda":
            torch.cuda.empty_cache()
        return rows


def check_captions(captions: Sequence[str], negative_prompts: Sequence[str], tokenizer: Any, max_length: int) -> None:
    """Raise InputError for the first text of a film that has more tokens than the model reads per scene."""
    for index, (caption, negative) in enumerate(zip(captions, negative_prompts, strict=False)):
        check_caption(caption, tokenizer, max_length, f"scene {index + 1}, prompt")
        check_caption(negative, tokenizer, max_length, f"scene {index + 1}, negative_prompt")


def check_caption(caption: str, tokenizer: Any, max_length: int, place: str) -> None:
    """Raise InputError if a caption has more tokens than the model reads per scene."""
    count = count_tokens(caption, tokenizer)
    if count > max_length:
        raise InputError(
            f"{place}: got {count} tokens ({len(caption)} characters), expected at most {max_length} per scene; shorten the text"
        )


def count_tokens(caption: str, tokenizer: Any) -> int:
    """How many tokens a caption has, however many a model reads."""
    return len(tokenizer(caption, truncation=False, verbose=False).input_ids)


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
