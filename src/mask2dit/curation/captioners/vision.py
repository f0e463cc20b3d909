"""Captions by a vision model: asked for the cast of a group, then for each shot; checked, repaired once, kept. No torch.

The instruction is a file of its own, `instructions/captions-1.txt`; a change of its meaning gets a new number.
"""

import base64
import threading
from collections.abc import Callable, Mapping, Sequence
from importlib.resources import files
from types import TracebackType
from typing import Any, Protocol, Self, TypeVar

from mask2dit.chat import Answer, EndpointDownError, Message, QuestionRefusedError
from mask2dit.chat_answers import json_object
from mask2dit.chat_protocols import picture_part, text_part
from mask2dit.curation.captioners.answers import CAST_SCHEMA, AnswerCache, Cast, Checked, Limits, check_cast, check_shot, shot_schema
from mask2dit.curation.captioners.base import (
    CaptionError,
    CaptionerStoppedError,
    CaptionLaterError,
    GroupCaptions,
    GroupView,
    ShotView,
)
from mask2dit.curation.captioners.spending import Spending
from mask2dit.errors import ModelError, OutputError

INSTRUCTION = "captions-1"
MOST_FAULTS = 3  # groups in a row that an endpoint may fail for reasons that pass
SHOWN_PROBLEMS = 3

T = TypeVar("T")


class Asker(Protocol):
    """Answers messages with pictures: a chat client, or a model on this machine."""

    def ask(self, messages: Sequence[Message], schema: Mapping[str, Any] | None = None, schema_name: str = "answer") -> Answer: ...

    def close(self) -> None: ...


class VisionCaptioner:
    """A captioner over something that answers messages with pictures. Use as a context manager, or close it.

    `spending` counts the requests of `asker`, and only shows here; `cache` holds what need not be asked again.
    """

    features: frozenset[str] = frozenset()

    def __init__(self, asker: Asker, model: str, cache: AnswerCache, spending: Spending, limits: Limits, at_once: int = 1) -> None:
        """model: kind and model, as they stand in `name`."""
        self.name = f"{model} · {INSTRUCTION} · {limits.prompt_words} and {limits.description_words} words"
        self.at_once = at_once
        self._asker, self._cache, self._spending, self._limits = asker, cache, spending, limits
        self._lock = threading.Lock()
        self._faults, self._cached, self._stopped = 0, 0, ""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        self._asker.close()

    def summary(self) -> Mapping[str, Any]:
        """Requests, tokens and cost over all runs of the folder; `requests_now` and `cached_answers` of this run."""
        totals = self._spending.totals
        known = {"requests": totals.requests, "tokens_in": totals.tokens_in, "tokens_out": totals.tokens_out, "cost": totals.cost}
        return known | {"estimated": totals.estimated, "requests_now": self._spending.requests_now, "cached_answers": self._cached}

    def caption(self, group: GroupView) -> GroupCaptions:
        if self._stopped:
            raise CaptionerStoppedError(self._stopped)
        if not group.shots or not all(shot.pictures for shot in group.shots):
            raise CaptionError("got a shot without pictures, expected some of each; look at the shots again")
        try:
            return self._captions(group.shots)
        except QuestionRefusedError as error:
            raise CaptionError(str(error)) from None
        except EndpointDownError as error:
            raise self._fault(error) from None
        except (CaptionerStoppedError, ModelError, OutputError) as error:
            self._stopped = str(error)
            raise CaptionerStoppedError(str(error)) from None

    def _captions(self, shots: Sequence[ShotView]) -> GroupCaptions:
        cast = self._asked(cast_question(shots, self._limits), CAST_SCHEMA, "cast", lambda data: check_cast(data, self._limits))
        tags = list(cast.characters)
        prompts: list[str] = []
        for _ in shots:
            question = shot_question(shots, cast, prompts, self._limits)
            check = lambda data: check_shot(data, tags, self._limits)  # noqa: E731
            prompts.append(self._asked(question, shot_schema(tags), f"shot {len(prompts) + 1}", check))
        return GroupCaptions(cast.characters, cast.setting, tuple(prompts))

    def _fault(self, error: EndpointDownError) -> CaptionError | CaptionerStoppedError:
        with self._lock:
            self._faults += 1
            if error.passing and self._faults < MOST_FAULTS:
                return CaptionLaterError(str(error))
            self._stopped = f"{error} (after {self._faults} groups in a row)" if error.passing else str(error)
            return CaptionerStoppedError(self._stopped)

    def _asked(self, messages: list[Message], schema: Mapping[str, Any], what: str, check: Callable[[Mapping[str, Any]], Checked[T]]) -> T:
        """The value of an answer, from the cache, or asked for, and once more if it is not as it should be."""
        key = self._cache.key(self.name, schema, messages)
        kept = self._cache.read(key)
        if kept is not None and (value := check(kept).value) is not None:
            with self._lock:
                self._cached += 1
            return value
        name = what.split()[0]
        said = self._ask(messages, schema, name)
        best = _judged(said, name, check)
        if best.problems:
            first = best
            try:
                said = self._ask([*messages, *_repair(said, first.problems)], schema, name)
                second = _judged(said, name, check)
                best = second if second.value is not None else first
            except (QuestionRefusedError, EndpointDownError, CaptionerStoppedError):
                if first.value is None:  # what is paid for and can be used is kept; the next question meets the trouble again
                    raise
            else:
                if best.value is None:
                    shown = "; ".join(second.problems[:SHOWN_PROBLEMS])
                    raise CaptionError(f"{what}: the answer is not as asked, also after one repair: {shown}")
        assert best.value is not None
        self._cache.write(key, self.name, best.data)
        return best.value

    def _ask(self, messages: Sequence[Message], schema: Mapping[str, Any], name: str) -> Answer:
        answer = self._asker.ask(messages, schema, name)
        with self._lock:
            self._faults = 0
        return answer


# What is asked


def instruction() -> str:
    """The text that every question begins with."""
    return (files("mask2dit") / "instructions" / f"{INSTRUCTION}.txt").read_text(encoding="utf-8")


def cast_question(shots: Sequence[ShotView], limits: Limits) -> list[Message]:
    """For the cast and the setting of a group, with the pictures of all its shots."""
    parts = [text_part(f"Here are {_count(len(shots), 'shot')} of one video, in order.")]
    for number, shot in enumerate(shots, 1):
        parts += [text_part(f"Shot {number}:"), *map(_picture, shot.pictures)]
    parts.append(
        text_part(
            'Answer with the cast and the setting of these shots, as {"characters": {"Actor1": "…"}, "setting": "…"}. '
            f"Each description and the setting have at most {limits.description_words} words."
        )
    )
    return [_system(), {"role": "user", "content": parts}]


def shot_question(shots: Sequence[ShotView], cast: Cast, prompts: Sequence[str], limits: Limits) -> list[Message]:
    """For the shot behind those that have prompts, with its pictures."""
    number = len(prompts) + 1
    characters = "\n".join(f"{tag}: {description}" for tag, description in cast.characters.items())
    told = f"The cast:\n{characters or 'nobody'}\n\nThe setting: {cast.setting or 'none that stays'}"
    if prompts:
        told += "\n\nThe prompts so far:\n" + "\n".join(f"Shot {index}: {prompt}" for index, prompt in enumerate(prompts, 1))
    shot = shots[number - 1]
    seconds = (shot.stop - shot.start) / shot.fps
    parts = [text_part(told), text_part(f"Shot {number} of {len(shots)}, {seconds:.1f} seconds long:"), *map(_picture, shot.pictures)]
    parts.append(
        text_part(
            f'Answer with the prompt of shot {number}, as {{"prompt": "…", "characters": ["Actor1"]}}. '
            f"The prompt has at most {limits.prompt_words} words."
        )
    )
    return [_system(), {"role": "user", "content": parts}]


def _repair(answer: Answer, problems: Sequence[str]) -> list[Message]:
    sendable = answer.text.encode("utf-8", "replace").decode("utf-8")  # half characters cannot be sent
    listed = "\n".join(f"- {problem}" for problem in problems)
    asked = f"This is not as asked yet:\n{listed}\n\nAnswer again with the whole corrected JSON object, and nothing else."
    return [{"role": "assistant", "content": sendable}, {"role": "user", "content": asked}]


def _judged(answer: Answer, name: str, check: Callable[[Mapping[str, Any]], Checked[T]]) -> Checked[T]:
    data = json_object(answer.text, "prompt" if name == "shot" else "characters")
    if data is not None:
        return check(data)
    cut = f"the answer was cut off ({answer.reason[:40]}); write it shorter"
    return Checked(None, ("the answer holds no whole JSON object" if answer.complete else cut,), {})


def _system() -> Message:
    return {"role": "system", "content": instruction()}


def _picture(jpeg: bytes) -> dict[str, Any]:
    return picture_part(base64.b64encode(jpeg).decode("ascii"))


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'s' * (number != 1)}"
