"""A storyboard from an idea, written by a chat endpoint: asked for by schema, checked, and repaired once. Needs no torch.

The instruction is a file of its own, `instructions/storyboard-1.txt`; a change of its meaning gets a new number.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

from mask2dit.chat import Answer, ChatClient, Message
from mask2dit.chat_answers import json_object
from mask2dit.errors import EndpointError, InputError, StoryboardError
from mask2dit.storyboard import Scene, Storyboard

INSTRUCTION = "storyboard-1.txt"
MOST_SCENES = 100
SHOWN_WORDS = 12


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """The words that a model knows, captions that use them, and which words of a caption it does not know."""

    words: Sequence[str]
    examples: Sequence[str]
    unknown: Callable[[str], Sequence[str]]


@dataclass(frozen=True, slots=True)
class Written:
    """A storyboard, and what is still not as asked after the repair."""

    storyboard: Storyboard
    problems: tuple[str, ...]


class RejectedError(EndpointError):
    """No answer could be used; `answers` are all of them as they came, so that nothing is lost."""

    def __init__(self, message: str, answers: Sequence[str]) -> None:
        super().__init__(message)
        self.answers = tuple(answers)


@dataclass(frozen=True, slots=True)
class _Draft:
    """One answer: its storyboard, if it is one with the right number of scenes, and what is wrong with it."""

    answer: str
    storyboard: Storyboard | None
    problems: tuple[str, ...]

    @property
    def badness(self) -> tuple[bool, int]:
        return self.storyboard is None, len(self.problems)


def write_storyboard(client: ChatClient, idea: str, num_scenes: int, vocabulary: Vocabulary | None = None) -> Written:
    """Ask for a storyboard, and once more if it is not as asked; the better of the two answers counts.

    Raises EndpointError when no answer comes, and RejectedError, which keeps the answers, when none can be used.
    """
    if not idea.strip():
        raise InputError("idea: got an empty text, expected what the film is about; write a sentence")
    if not 1 <= num_scenes <= MOST_SCENES:
        raise InputError(f"scenes: got {num_scenes}, expected 1 to {MOST_SCENES}; choose another number")
    schema = answer_schema(num_scenes)
    messages = _question(idea, num_scenes, vocabulary)
    draft = _judged(client.ask(messages, schema, "storyboard"), num_scenes, vocabulary)
    if not draft.problems:
        return _written(draft)
    sendable = draft.answer.encode("utf-8", "replace").decode("utf-8")  # half characters cannot be sent
    messages += [{"role": "assistant", "content": sendable}, {"role": "user", "content": _repair(draft.problems, num_scenes)}]
    try:
        second = _judged(client.ask(messages, schema, "storyboard"), num_scenes, vocabulary)
    except EndpointError as error:
        if draft.storyboard is None:
            raise RejectedError(f"{draft.problems[0]}; asked for a repair, {error}", [draft.answer]) from None
        return _written(draft, f"asked for a repair, {error}")
    best = min(second, draft, key=lambda one: one.badness)
    if best.storyboard is None:
        said = f"the answer is no storyboard as asked, also after one repair: {second.problems[0]}; try again, or another model"
        raise RejectedError(f"{client.endpoint.where}: {said}", [draft.answer, second.answer])
    return _written(best)


def answer_schema(num_scenes: int) -> dict[str, Any]:
    """The JSON schema of an answer: of our own schema what a writer should decide. Lengths and seeds are left to the film's command."""
    whole = Storyboard.model_json_schema()
    scene = {"prompt": _plain(whole["$defs"][Scene.__name__]["properties"]["prompt"])}
    scenes = {"type": "array", "minItems": num_scenes, "maxItems": num_scenes, "items": _closed(scene)}
    return _closed({name: _plain(whole["properties"][name]) for name in ("title", "characters")} | {"scenes": scenes})


def _plain(schema: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in schema.items() if key not in ("title", "default")}


def _closed(properties: Mapping[str, Any]) -> dict[str, Any]:
    return {"type": "object", "properties": dict(properties), "required": list(properties), "additionalProperties": False}


# What is asked


def instruction() -> str:
    """The text that every question begins with."""
    return (files("mask2dit") / "instructions" / INSTRUCTION).read_text(encoding="utf-8")


def _question(idea: str, num_scenes: int, vocabulary: Vocabulary | None) -> list[Message]:
    asked = f"The idea: {idea.strip()}\n\nWrite exactly {num_scenes} scene{'s' * (num_scenes > 1)}."
    if vocabulary is not None:
        examples = "\n".join(f"- {caption}" for caption in vocabulary.examples)
        asked += (
            "\n\nThe model that films it knows only the words below. Use no other word in prompts and descriptions, in any form; if the "
            "idea needs one, tell the story with the nearest words that are here. Keep to the sentence forms of the examples; there, the "
            f"description already stands behind the tag.\n\nWords: {' '.join(vocabulary.words)}\n\nExamples of captions:\n{examples}"
        )
    return [{"role": "system", "content": instruction()}, {"role": "user", "content": asked}]


def _repair(problems: Sequence[str], num_scenes: int) -> str:
    listed = "\n".join(f"- {problem}" for problem in problems)
    count = f"with exactly {num_scenes} scene{'s' * (num_scenes > 1)}"
    return f"This is not as asked yet:\n{listed}\n\nAnswer again with the whole corrected JSON object {count}, and nothing else."


# What is answered


def _judged(answer: Answer, num_scenes: int, vocabulary: Vocabulary | None) -> _Draft:
    data = json_object(answer.text, "scenes")
    if data is None:
        said = "the answer holds no whole JSON object" if answer.complete else f"the answer was cut off ({answer.reason}); write it shorter"
        return _Draft(answer.text, None, (said,))
    try:
        board = Storyboard.from_data(data)
    except StoryboardError as error:
        return _Draft(answer.text, None, (str(error),))
    if len(board.scenes) != num_scenes:
        return _Draft(answer.text, None, (f"scenes: got {len(board.scenes)}, expected {num_scenes}",))
    return _Draft(answer.text, board, tuple(_flaws(board, vocabulary)))


def _flaws(board: Storyboard, vocabulary: Vocabulary | None) -> list[str]:
    """What is not as asked in a storyboard that can be filmed."""
    named = frozenset().union(*(board.cast_of(index) for index in range(len(board.scenes))))
    flaws = [f"character {name!r} is described, and no prompt names it" for name in board.characters if name not in named]
    if vocabulary is not None:
        for number, caption in enumerate(board.captions, start=1):
            unknown = list(vocabulary.unknown(caption))
            if unknown:
                more = ", …" if len(unknown) > SHOWN_WORDS else ""
                flaws.append(f"scene {number}: the model does not know: {', '.join(word[:40] for word in unknown[:SHOWN_WORDS])}{more}")
    return flaws


def _written(draft: _Draft, *more: str) -> Written:
    assert draft.storyboard is not None
    return Written(draft.storyboard, (*draft.problems, *more))
