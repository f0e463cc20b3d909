"""What is said over the wire to a chat endpoint: OpenAI's chat completions, and Gemini's generateContent. No torch.

Owns addresses, headers, bodies, and what answers and errors mean; not how they are sent, and not patience. Questions have OpenAI's shape
on our side of both.
"""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import httpx

Message = Mapping[str, Any]
"""As OpenAI has it: {"role": "user", "content": "…"}, or content as a list of parts: texts, and pictures as data URLs."""

Blame = Literal["question", "endpoint", "moment"]
"""What another try would need: another question, another endpoint (or key, or money), or just another moment."""
FORMS = ("json_schema", "json_object", "text")
"""How an answer of a given shape may be asked for, best first; an endpoint that refuses one is asked in the next."""

_DATA_URL = re.compile(r"data:([\w.+/-]+);base64,(.*)", re.DOTALL)
_SECONDS = re.compile(r"(\d+(?:\.\d+)?)s")


@dataclass(frozen=True, slots=True)
class Answer:
    """What the model wrote, and whether it came to its end; otherwise `reason` is why it stopped, in the protocol's word.

    Tokens of the question and of the answer, thoughts among them; None where the endpoint does not say.
    """

    text: str
    complete: bool
    reason: str
    tokens_in: int | None = None
    tokens_out: int | None = None


@dataclass(frozen=True, slots=True)
class Form:
    """One of `FORMS`, with the JSON schema and its name."""

    kind: str
    schema: Mapping[str, Any]
    name: str


class FaultError(Exception):
    """One try went wrong. `passing`: the next may not; `wait`: seconds that the endpoint asks for."""

    def __init__(
        self, said: str, blame: Blame = "endpoint", *, passing: bool = False, wait: float | None = None, refuses_form: bool = False
    ) -> None:
        super().__init__(said)
        self.blame: Blame = "moment" if passing else blame
        self.passing, self.wait, self.refuses_form = passing, wait, refuses_form


class ChatProtocol(Protocol):
    """A way to ask. `shown` makes words of the endpoint fit for people: short, and without the key."""

    name: str
    base_hint: str
    """What is often wrong with a base URL, to be put behind "check the base URL"."""
    form_words: tuple[bytes, ...]
    """In an error, they say that the form of the question is not understood."""

    def url(self, base: httpx.URL, model: str) -> httpx.URL: ...

    def headers(self, key: str) -> dict[str, str]: ...

    def body(self, model: str, messages: Sequence[Message], form: Form) -> dict[str, Any]: ...

    def answer(self, reply: Any, shown: Callable[[str], str]) -> Answer:
        """Raises FaultError where there is none. Everything in the reply may be missing or of another type."""
        ...

    def usage(self, reply: Any) -> tuple[int | None, int | None]:
        """Tokens of the question and of the answer."""
        ...

    def trouble(self, content: bytes) -> Literal["key", "spent", "question", "model"] | None:
        """What an error is about, where that shows in its words rather than in its status."""
        ...

    def wait(self, content: bytes) -> float | None:
        """Seconds that an error asks to wait, where that stands in its words."""
        ...


class OpenAiProtocol:
    """Chat completions, as most endpoints speak them."""

    name = "openai"
    base_hint = ", which often ends in /v1"
    form_words: tuple[bytes, ...] = (b"response_format", b"json_schema", b"json_object")

    def url(self, base: httpx.URL, model: str) -> httpx.URL:
        path = base.path.rstrip("/")
        return base.copy_with(path=path if path.endswith("/chat/completions") else f"{path}/chat/completions", fragment=None)

    def headers(self, key: str) -> dict[str, str]:
        return {"Authorization": f"Bearer {key}"} if key else {}

    def body(self, model: str, messages: Sequence[Message], form: Form) -> dict[str, Any]:
        body: dict[str, Any] = {"model": model, "messages": [dict(message) for message in messages]}
        match form.kind:
            case "json_schema":  # not strict: that allows no open mapping, such as names with descriptions
                described = {"name": form.name, "strict": False, "schema": dict(form.schema)}
                return body | {"response_format": {"type": "json_schema", "json_schema": described}}
            case "json_object":
                return body | {"response_format": {"type": "json_object"}}
        return body

    def answer(self, reply: Any, shown: Callable[[str], str]) -> Answer:
        choice = _first(_mapping(reply).get("choices"))
        message = choice.get("message")
        if not isinstance(message, Mapping):
            said = shown(error_words(reply))
            raise FaultError(f"answers without choices[0].message ({said}), expected a chat completion; check the base URL", "moment")
        reason = _string(choice.get("finish_reason"))
        content = message.get("content")
        text = _texts(content) if isinstance(content, list) else _string(content)
        if not text.strip():
            refusal = _string(message.get("refusal"))
            if refusal.strip():
                raise FaultError(f"the model refuses: {shown(refusal)}; word the idea in another way", "question")
            raise _empty(shown(reason))
        return Answer(text, reason not in ("length", "content_filter"), reason, *self.usage(reply))

    def usage(self, reply: Any) -> tuple[int | None, int | None]:
        used = _mapping(_mapping(reply).get("usage"))
        return _count(used.get("prompt_tokens")), _count(used.get("completion_tokens"))

    def trouble(self, content: bytes) -> Literal["key", "spent", "question", "model"] | None:
        if any(word in content for word in (b"insufficient_quota", b"billing_hard_limit_reached", b"billing_not_active")):
            return "spent"
        if any(word in content for word in (b"content_policy_violation", b"content_filter", b"flagged_input")):
            return "question"
        return "model" if b"model_not_found" in content else None

    def wait(self, content: bytes) -> float | None:
        return None


class GeminiProtocol:
    """Google's own generateContent."""

    name = "gemini"
    base_hint = ", which is https://generativelanguage.googleapis.com for Google itself"
    form_words: tuple[bytes, ...] = (
        b"response_json_schema",
        b"responseJsonSchema",
        b"response_mime_type",
        b"responseMimeType",
        b"schema",
        b"JSON mode",
    )
    version = "v1beta"

    def url(self, base: httpx.URL, model: str) -> httpx.URL:
        path = base.path.rstrip("/")
        path = path if re.search(r"/v\d\w*$", path) else f"{path}/{self.version}"
        return base.copy_with(path=f"{path}/models/{model.strip().removeprefix('models/')}:generateContent", fragment=None)

    def headers(self, key: str) -> dict[str, str]:
        return {"x-goog-api-key": key} if key else {}

    def body(self, model: str, messages: Sequence[Message], form: Form) -> dict[str, Any]:
        system = [part for message in messages if message["role"] == "system" for part in _gemini_parts(message)]
        roles = {"assistant": "model"}
        contents = [
            {"role": roles.get(message["role"], "user"), "parts": _gemini_parts(message)}
            for message in messages
            if message["role"] != "system"
        ]
        body: dict[str, Any] = {"contents": contents} | ({"systemInstruction": {"parts": system}} if system else {})
        match form.kind:
            case "json_schema":
                shaped = {"responseMimeType": "application/json", "responseJsonSchema": dict(form.schema)}
                return body | {"generationConfig": shaped}
            case "json_object":
                return body | {"generationConfig": {"responseMimeType": "application/json"}}
        return body

    def answer(self, reply: Any, shown: Callable[[str], str]) -> Answer:
        data = _mapping(reply)
        blocked = _string(_mapping(data.get("promptFeedback")).get("blockReason"))
        candidate = _first(data.get("candidates"))
        if not candidate and blocked:
            raise FaultError(f"refuses the question (blocked for {shown(blocked)}); ask something else, or another model", "question")
        if not candidate:
            said = shown(error_words(reply))
            raise FaultError(f"answers without candidates[0] ({said}), expected generateContent's answer; check the base URL", "moment")
        reason = _string(candidate.get("finishReason"))
        parts = _mapping(candidate.get("content")).get("parts")
        text = _texts([part for part in parts if _mapping(part).get("thought") is not True] if isinstance(parts, list) else [])
        if not text.strip():
            raise _empty(shown(reason))
        return Answer(text, reason in ("STOP", "", "FINISH_REASON_UNSPECIFIED"), reason, *self.usage(reply))

    def usage(self, reply: Any) -> tuple[int | None, int | None]:
        used = _mapping(_mapping(reply).get("usageMetadata"))
        written = [_count(used.get(name)) for name in ("candidatesTokenCount", "thoughtsTokenCount")]  # both are paid for
        known = [count for count in written if count is not None]
        return _count(used.get("promptTokenCount")), sum(known) if known else None

    def trouble(self, content: bytes) -> Literal["key", "spent", "question", "model"] | None:
        if b"API_KEY_INVALID" in content or b"API key not valid" in content or b"API key expired" in content:
            return "key"  # its status is 400
        if b"PerDay" in content or b"FAILED_PRECONDITION" in content:  # a day's quota; a country without it, or no billing
            return "spent"
        return None

    def wait(self, content: bytes) -> float | None:
        try:
            details = json.loads(content)["error"]["details"]
            delays = [_string(_mapping(detail).get("retryDelay")) for detail in details]
        except (ValueError, RecursionError, KeyError, TypeError, IndexError):
            return None
        return next((float(found[1]) for delay in delays if (found := _SECONDS.fullmatch(delay))), None)


OPENAI, GEMINI = OpenAiProtocol(), GeminiProtocol()


def text_part(text: str) -> dict[str, Any]:
    return {"type": "text", "text": text}


def picture_part(base64: str, media_type: str = "image/jpeg") -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": f"data:{media_type};base64,{base64}"}}


def picture_of(part: Mapping[str, Any]) -> tuple[str, str] | None:
    """Media type and base64 of a part that is a picture."""
    found = _DATA_URL.fullmatch(_string(_mapping(part.get("image_url")).get("url")))
    return (found[1], found[2]) if found else None


def parts_of(message: Message) -> list[Mapping[str, Any]]:
    """A message's content as a list of parts."""
    content = message["content"]
    return [text_part(content)] if isinstance(content, str) else list(content)


def error_words(data: Any) -> str:
    """The message in an endpoint's error, or all that it says."""
    error = data.get("error", data) if isinstance(data, Mapping) else data
    if isinstance(error, Mapping):
        error = error.get("message") or error.get("detail") or error
    return error if isinstance(error, str) else json.dumps(error, ensure_ascii=False)


def _gemini_parts(message: Message) -> list[dict[str, Any]]:
    parts: list[dict[str, Any]] = []
    for part in parts_of(message):
        picture = picture_of(part)
        parts.append({"inlineData": {"mimeType": picture[0], "data": picture[1]}} if picture else {"text": part["text"]})
    return parts


def _empty(reason: str) -> FaultError:
    why = f" (it stopped for {reason[:40]!r})" if reason else ""
    return FaultError(f"answers with an empty text{why}; try another model, or a longer limit of its answers", "question")


def _texts(parts: Sequence[Any]) -> str:
    return "".join(_string(_mapping(part).get("text")) for part in parts)


def _first(values: Any) -> Mapping[str, Any]:
    return _mapping(values[0]) if isinstance(values, list) and values else {}


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _string(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _count(value: Any) -> int | None:
    return value if type(value) is int and value >= 0 else None
