"""The JSON in what a model answers: by itself, or between thoughts, fences and kind words. No torch."""

import json
import re
from typing import Any

MOST_BRACES = 1000  # tried as the beginning of an object

_THOUGHTS = re.compile(r"<think>.*?</think>", re.DOTALL)
_BRACE = re.compile(r"\{")


def json_object(text: str, key: str) -> dict[str, Any] | None:
    """The first object that has `key`, or what the text begins with, or None. A piece of an object that was cut off is none."""
    text = _THOUGHTS.sub("", text).rpartition("</think>")[2]  # some templates open the thoughts themselves
    decoder = json.JSONDecoder()
    found: dict[str, Any] | None = None
    end = 0
    for index, brace in enumerate(_BRACE.finditer(text)):
        if brace.start() < end or index >= MOST_BRACES:
            continue
        try:
            value, end = decoder.raw_decode(text, brace.start())
        except (ValueError, RecursionError):
            continue
        if key in value:
            return dict(value)
        found = value if index == 0 else found  # a later one may be a piece of what was cut off
    return found
