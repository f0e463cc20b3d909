"""What a vision model must answer, the cast and setting of a group and the prompt of a shot: schemas, checks, cache. No torch."""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from mask2dit.curation.captioners.base import TAG
from mask2dit.errors import InputError
from mask2dit.files import written_aside

T = TypeVar("T")

_TAG = re.compile(rf"(?<!\w){TAG}(?!\w)")
_LIKE_A_TAG = re.compile(r"(?<!\w)actors?[\s_#-]*\d+(?!\w)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Limits:
    """The most words of a shot's prompt, and of a character's description or the setting."""

    prompt_words: int = 40
    description_words: int = 20

    def __post_init__(self) -> None:
        if min(self.prompt_words, self.description_words) < 3:
            got = f"{self.prompt_words} and {self.description_words}"
            raise InputError(f"words of a prompt and a description: got {got}, expected at least 3 of each; allow more")


@dataclass(frozen=True, slots=True)
class Cast:
    """Who is in a group, and where it is."""

    characters: Mapping[str, str]
    setting: str


@dataclass(frozen=True, slots=True)
class Checked(Generic[T]):
    """An answer: its `value` if it can be used, and what is wrong with it, which may be worth a repair even so."""

    value: T | None
    problems: tuple[str, ...]
    data: Mapping[str, Any]


CAST_SCHEMA: Mapping[str, Any] = {
    "type": "object",
    "properties": {
        "characters": {"type": "object", "additionalProperties": {"type": "string"}},
        "setting": {"type": "string"},
    },
    "required": ["characters", "setting"],
    "additionalProperties": False,
}


def shot_schema(tags: Sequence[str]) -> dict[str, Any]:
    """The schema of a shot's answer, for a cast with these tags."""
    tag = {"type": "string", "enum": list(tags)} if tags else {"type": "string"}
    return {
        "type": "object",
        "properties": {"prompt": {"type": "string"}, "characters": {"type": "array", "items": tag}},
        "required": ["prompt", "characters"],
        "additionalProperties": False,
    }


def check_cast(data: Mapping[str, Any], limits: Limits) -> Checked[Cast]:
    """Tags in order without gaps, a description for each, and a setting, none of them too long."""
    characters, setting = data.get("characters"), data.get("setting")
    problems: list[str] = []
    if not isinstance(characters, Mapping):
        problems.append("characters: expected an object of tags and descriptions")
        characters = {}
    tags = [f"Actor{number}" for number in range(1, len(characters) + 1)]
    if set(characters) != set(tags):
        problems.append(f"characters: got the tags {_listed(characters)}, expected {_listed(tags)}")
    for tag, description in characters.items():
        problems += [f"{_short(tag)}: {said}" for said in _phrase_problems(description, limits.description_words)]
    if not isinstance(setting, str):
        problems.append("setting: expected a text, which may be empty")
    elif setting.strip():
        problems += [f"setting: {said}" for said in _phrase_problems(setting, limits.description_words)]
    if problems or not isinstance(setting, str):
        return Checked(None, tuple(problems), data)
    return Checked(Cast({tag: _phrase(characters[tag]) for tag in tags}, _phrase(setting)), (), data)


def check_shot(data: Mapping[str, Any], tags: Sequence[str], limits: Limits) -> Checked[str]:
    """A prompt that is not too long and names characters of the cast, by their tags alone.

    A list of characters that does not fit the prompt is worth a repair, and tolerated after it.
    """
    prompt = data.get("prompt")
    if not isinstance(prompt, str) or not prompt.strip():
        return Checked(None, ("prompt: expected a sentence",), data)
    prompt = " ".join(prompt.split())
    named = set(_TAG.findall(prompt))
    problems = [f"prompt: {_short(tag)} is not in the cast, expected {_listed(tags)}" for tag in sorted(named - set(tags))]
    odd = sorted({found for found in _LIKE_A_TAG.findall(prompt) if not _TAG.fullmatch(found)})
    problems += [f"prompt: write a tag exactly as in the cast, not {_short(found)!r}" for found in odd]
    if re.search(rf"(?<!\w){TAG}\s*\(", prompt):
        problems.append("prompt: a tag is followed by brackets, expected the tag alone")
    if (words := len(prompt.split())) > limits.prompt_words:
        problems.append(f"prompt: got {words} words, expected at most {limits.prompt_words}")
    if _unwritable(prompt):
        problems.append("prompt: holds a broken character")
    value = None if problems else prompt
    listed = data.get("characters")
    if not isinstance(listed, list) or not all(isinstance(tag, str) for tag in listed):
        problems.append("characters: expected the list of the tags that the prompt names")
    elif set(listed) != named:
        problems.append(f"characters: lists {_listed(listed)}, and the prompt names {_listed(sorted(named))}; make them fit what is seen")
    return Checked(value, tuple(problems), data)


def _phrase(text: str) -> str:
    return " ".join(text.split()).rstrip(".")


def _phrase_problems(text: Any, most: int) -> list[str]:
    if not isinstance(text, str) or not _phrase(text):
        return ["expected how it looks, in a phrase"]
    problems = []
    if (words := len(text.split())) > most:
        problems.append(f"got {words} words, expected at most {most}")
    if any(bracket in text for bracket in "()"):
        problems.append("got brackets, expected a phrase without")
    if _LIKE_A_TAG.search(text):
        problems.append("got a tag in it, expected a phrase without")
    return [*problems, "holds a broken character"] if _unwritable(text) else problems


def _unwritable(text: str) -> bool:
    return any("\ud800" <= letter <= "\udfff" for letter in text)


def _listed(tags: Any) -> str:
    return ", ".join(_short(str(tag)) for tag in list(tags)[:8]) or "none"


def _short(text: str) -> str:
    """Words of a model in a message: one short line."""
    return "".join(letter for letter in " ".join(text.split()) if letter.isprintable())[:30]


# The cache


class AnswerCache:
    """Answers that were checked, in a folder, each in a file named by all that it follows from."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @staticmethod
    def key(captioner: str, schema: Mapping[str, Any], messages: Sequence[Mapping[str, Any]]) -> str:
        """Of what is asked, pictures and instruction included, and who is asked; not of the way there."""
        asked = json.dumps([captioner, schema, list(messages)], ensure_ascii=True, sort_keys=True)
        return hashlib.sha256(asked.encode("ascii")).hexdigest()[:40]

    def read(self, key: str) -> Mapping[str, Any] | None:
        """None where there is no such answer, or its file is damaged."""
        try:
            answer = json.loads(self._path(key).read_text(encoding="utf-8"))["answer"]
        except (OSError, ValueError, RecursionError, KeyError, TypeError):
            return None
        return answer if isinstance(answer, dict) else None

    def write(self, key: str, captioner: str, answer: Mapping[str, Any]) -> None:
        """Raises OutputError."""
        with written_aside(self._path(key)) as part:
            part.write_text(json.dumps({"captioner": captioner, "answer": answer}) + "\n", encoding="ascii")

    def _path(self, key: str) -> Path:
        return self.folder / key[:2] / f"{key}.json"
