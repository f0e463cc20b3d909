"""Keys of endpoints, from the environment: never typed, never shown."""

import os
from collections.abc import Sequence

from mask2dit.errors import InputError

OPENAI_KEYS = ("MASK2DIT_API_KEY", "OPENAI_API_KEY")
GEMINI_KEYS = ("MASK2DIT_API_KEY", "GEMINI_API_KEY", "GOOGLE_API_KEY")


def read_key(variable: str | None, names: Sequence[str]) -> str:
    """What the variable holds that --key-env names, or where it names none the first of these that holds something; "" where none does."""
    if variable is None:
        return next((os.environ[name].strip() for name in names if os.environ.get(name, "").strip()), "")
    key = os.environ.get(variable, "").strip()
    if not key:
        raise InputError(f"--key-env: got {variable[:40]!r}, expected an environment variable that holds a key; set it, or name another")
    return key
