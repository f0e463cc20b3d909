"""Captions: one padded row each, which no neighbour changes; too long ones are refused by name."""

from typing import Any

import pytest
import torch

import tiny
from mask2dit import Mask2DiTPipeline
from mask2dit.errors import InputError
from mask2dit.text import check_caption, encode_captions, encode_tokens, tokenize

CAPTIONS = ["a red fox walks", "a big blue bear sits in the snow", "", "🦊 лиса 狐"]


@pytest.fixture(scope="module")
def model() -> Mask2DiTPipeline:
    return tiny.pipeline()


def encode(model: Mask2DiTPipeline, captions: list[str], max_length: int = 64) -> torch.Tensor:
    return encode_captions(captions, model.tokenizer, model.text_encoder, max_length, torch.device("cpu"))


def test_each_caption_is_a_padded_row_of_its_own(model: Mask2DiTPipeline) -> None:
    rows = encode(model, CAPTIONS)
    assert rows.shape == (4, 64, 20)
    for caption, row in zip(CAPTIONS, rows, strict=True):
        assert torch.equal(encode(model, [caption])[0], row)
    assert torch.equal(encode(model, CAPTIONS[::-1]), rows.flip(0))


def test_the_encoder_sees_padding_and_no_mask(model: Mask2DiTPipeline) -> None:
    tokens = tokenize(CAPTIONS[:1], model.tokenizer, 64)
    assert tokens.shape == (1, 64) and tokens[0, -1] == model.tokenizer.pad_token_id
    with torch.no_grad():
        expected = model.text_encoder(tokens).last_hidden_state
        assert torch.equal(encode(model, CAPTIONS[:1]), expected)
        assert not torch.equal(model.text_encoder(tokens, attention_mask=(tokens != 0).long()).last_hidden_state, expected)


def test_equal_captions_are_encoded_once(model: Mask2DiTPipeline) -> None:
    calls: list[Any] = []
    hook = model.text_encoder.register_forward_hook(lambda *call: calls.append(call))
    rows = encode(model, ["a red fox walks", "", "a red fox walks", "", ""])
    hook.remove()
    assert len(calls) == 2
    assert torch.equal(rows[0], rows[2]) and torch.equal(rows[1], rows[4]) and not torch.equal(rows[0], rows[1])


def test_gradients_reach_the_encoder_in_training(model: Mask2DiTPipeline) -> None:
    assert not encode(model, CAPTIONS).requires_grad
    rows = encode_tokens(tokenize(CAPTIONS, model.tokenizer, 64), model.text_encoder)
    assert rows.requires_grad


def test_a_caption_may_fill_the_row_and_not_more(model: Mask2DiTPipeline) -> None:
    check_caption("fox " * 63, model.tokenizer, 64, "scene 1, prompt")  # 63 words and the end
    with pytest.raises(
        InputError, match=r"^scene 1, prompt: got 65 tokens \(256 characters\), expected at most 64 per scene; shorten the text$"
    ):
        check_caption("fox " * 64, model.tokenizer, 64, "scene 1, prompt")
    with pytest.raises(InputError, match=r"got 10001 tokens \(10000 characters\)"):
        check_caption("-" * 10000, model.tokenizer, 64, "scene 1, prompt")
