"""Ask an OpenAI-compatible chat endpoint, and wait for the whole answer.

Owns the protocol, its faults, and patience with them; not what is asked, and not whether an answer is any good. The key goes into one
header and nowhere else: no error, log line or repr shows it. Needs no torch.
"""

import json
import math
import ssl
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from functools import cache
from types import TracebackType
from typing import Any, Self

import httpx

from mask2dit.errors import EndpointError, InputError, one_line

Message = Mapping[str, Any]
"""As the protocol has it: {"role": "user", "content": "…"}, or content as a list of parts."""

LARGEST_ANSWER = 16 * 2**20  # bytes
LONGEST_WAIT = 120.0  # seconds that an endpoint may ask us to wait between two tries
FIRST_WAIT = 1.0  # doubled with every try
PASSING = frozenset({408, 425, 429, 500, 502, 503, 504, 529})  # statuses that another try may not meet
FORMS = ("json_schema", "json_object", "text")
"""How an answer of a given shape may be asked for, best first; an endpoint that refuses one is asked in the next."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where to ask, as whom, and how patiently.

    `base_url` is what stands before /chat/completions, mostly with /v1 at its end. `timeout_seconds` is for one try, of which there are
    `tries`.
    """

    base_url: str
    model: str
    key: str = field(default="", repr=False)
    timeout_seconds: float = 120.0
    tries: int = 4

    def __post_init__(self) -> None:
        expected = "expected an address such as http://localhost:8000/v1"
        try:
            url = httpx.URL(self.base_url.strip())
        except (httpx.InvalidURL, ValueError) as error:
            raise InputError(f"base URL: cannot be understood ({one_line(error, 80)}), {expected}; correct it") from None
        if url.userinfo:
            raise InputError(f"base URL: got a name or password in it, {expected}; take it out, and give the key in the environment")
        if url.scheme not in ("http", "https") or not url.host:
            raise InputError(f"base URL: got {self.base_url.strip()[:80]!r}, {expected}; begin with http:// or https://")
        if not self.model.strip():
            raise InputError("model: got nothing, expected the name of a model of the endpoint; name one")
        if not all("!" <= letter <= "~" for letter in self.key):  # an HTTP header cannot hold it, and the library's error would show it
            raise InputError("key: got spaces, line breaks or letters that no key has, expected a key in one word; copy it again")
        if not (0 < self.timeout_seconds < math.inf and self.tries >= 1):
            raise InputError("timeout: got no time at all, expected seconds over 0 and at least one try; give more")

    @property
    def where(self) -> str:
        """The address, for messages: without what may stand behind a question mark."""
        return str(httpx.URL(self.base_url.strip()).copy_with(query=None, fragment=None)).rstrip("/")

    @property
    def url(self) -> httpx.URL:
        """The address of the questions."""
        url = httpx.URL(self.base_url.strip())
        path = url.path.rstrip("/")
        return url.copy_with(path=path if path.endswith("/chat/completions") else f"{path}/chat/completions", fragment=None)


@dataclass(frozen=True, slots=True)
class Answer:
    """What the model wrote, and whether it came to its end; otherwise `reason` is why it stopped, in the protocol's word."""

    text: str
    complete: bool
    reason: str


class _FaultError(Exception):
    """One try went wrong. `passing`: another may not; `wait`: seconds that the endpoint asks for."""

    def __init__(self, said: str, *, passing: bool = False, wait: float | None = None, refuses_form: bool = False) -> None:
        super().__init__(said)
        self.passing, self.wait, self.refuses_form = passing, wait, refuses_form


class ChatClient:
    """Use as a context manager. `sleep` waits between tries, `clock` bounds each of them, and `tell` hears why there is another."""

    def __init__(
        self,
        endpoint: Endpoint,
        *,
        sleep: Callable[[float], object] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
        tell: Callable[[str], object] = lambda said: None,
    ) -> None:
        self.endpoint = endpoint
        self._sleep, self._clock, self._tell = sleep, clock, tell
        self._form = 0
        headers = {"Authorization": f"Bearer {endpoint.key}"} if endpoint.key else {}
        try:
            self._http = httpx.Client(timeout=endpoint.timeout_seconds, headers=headers, verify=_certificates(), follow_redirects=False)
        except (ImportError, ValueError, OSError, httpx.InvalidURL) as error:  # it reads proxies and certificates from the environment
            raise EndpointError(
                f"the proxy or certificate settings cannot be used ({one_line(error, 100)}); check HTTPS_PROXY and the like"
            ) from None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        self._http.close()

    def ask(self, messages: Sequence[Message], schema: Mapping[str, Any] | None = None, schema_name: str = "answer") -> Answer:
        """One answer. `schema`: the JSON schema that it should follow, as far as the endpoint can see to that.

        Raises EndpointError when no answer came; one that was cut off is returned and says so.
        """
        forms = FORMS[self._form :] if schema is not None else FORMS[-1:]
        body = {"model": self.endpoint.model, "messages": [dict(message) for message in messages]}
        for form in forms:
            try:
                answer = self._answer(self._with_patience(body | _asked_form(form, schema or {}, schema_name)))
            except _FaultError as fault:
                if form == forms[-1] or not fault.refuses_form:
                    raise EndpointError(f"{self.endpoint.where}: {fault}") from None
                continue
            self._form = FORMS.index(form) if schema is not None else self._form
            return answer
        raise AssertionError("the last form returns or raises")

    def _with_patience(self, body: Mapping[str, Any]) -> Any:
        for number in range(1, self.endpoint.tries + 1):
            try:
                return self._try(body)
            except _FaultError as fault:
                wait = FIRST_WAIT * 2 ** (number - 1) if fault.wait is None else fault.wait
                if not fault.passing:
                    raise
                if wait > LONGEST_WAIT:
                    raise _FaultError(f"{fault}; it asks to wait {wait:.0f} s, so try again later") from None
                if number == self.endpoint.tries:
                    raise _FaultError(f"{fault}; tried {number} times, so try again later") from None
                self._tell(f"{fault}; try {number + 1} of {self.endpoint.tries} in {wait:.0f} s")
                self._sleep(wait)
        raise AssertionError("the last try returns or raises")

    def _try(self, body: Mapping[str, Any]) -> Any:
        limit = self.endpoint.timeout_seconds
        try:
            with self._http.stream("POST", self.endpoint.url, json=body) as response:
                content = self._whole(response, self._clock() + limit)
        except httpx.TimeoutException:
            raise _FaultError(f"no whole answer within {limit:g} s (see --timeout)", passing=True) from None
        except httpx.ConnectError as error:
            raise _FaultError(f"cannot be reached ({one_line(error, 100)}); check the base URL, and that it is running") from None
        except (httpx.NetworkError, httpx.RemoteProtocolError):
            raise _FaultError("the connection broke off before the answer was whole", passing=True) from None
        except (httpx.HTTPError, UnicodeEncodeError) as error:  # the second: half a character in what is asked
            raise _FaultError(f"cannot be asked ({type(error).__name__}: {one_line(error, 100)})") from None
        if response.status_code != 200:
            raise self._refusal(response, content)
        try:
            return json.loads(content)
        except (ValueError, RecursionError):
            start = self._start(content)
            if start.startswith("<"):
                said = f"answers with a web page ({start!r}), expected JSON; check the base URL, which often ends in /v1"
                raise _FaultError(said) from None
            raise _FaultError(f"answers what is not JSON ({start!r})", passing=True) from None

    def _whole(self, response: httpx.Response, deadline: float) -> bytes:
        content = bytearray()
        for piece in response.iter_bytes():
            content += piece
            if len(content) > LARGEST_ANSWER:
                raise _FaultError(f"answers with over {LARGEST_ANSWER // 2**20} MB, expected a chat answer; check the base URL")
            if self._clock() > deadline:
                raise httpx.ReadTimeout("")
        return bytes(content)

    def _refusal(self, response: httpx.Response, content: bytes) -> _FaultError:
        status, said = response.status_code, self._said(content)
        told = f"{status}: {said}" if said else f"{status}"
        if 200 <= status < 300:
            return _FaultError(f"answers with status {told}, expected 200; check the base URL")
        if status // 100 == 3:
            return _FaultError(f"sends us elsewhere ({status}: {self._shown(response.headers.get('location', ''))}); give that as base URL")
        if status in (401, 403):
            return _FaultError(f"{'refuses the key' if self.endpoint.key else 'wants a key, and none was given'} ({told}); check the key")
        names_form = any(word in content for word in (b"response_format", b"json_schema", b"json_object"))
        if status in (400, 415, 422, 501) or (names_form and status in (404, 405, 500)):
            return _FaultError(f"refuses the question ({told}); check the model and the base URL", refuses_form=True)
        if status in (404, 405):
            return _FaultError(f"has no such address or model ({told}); check the base URL, which often ends in /v1, and the model's name")
        passing = status in PASSING and b"insufficient_quota" not in content
        return _FaultError(f"cannot answer ({told})", passing=passing, wait=_asked_wait(response.headers))

    def _answer(self, reply: Any) -> Answer:
        """What the protocol's JSON says; everything in it may be missing or of another type."""
        choices = reply.get("choices") if isinstance(reply, Mapping) else None
        choice = choices[0] if isinstance(choices, list) and choices and isinstance(choices[0], Mapping) else {}
        message = choice.get("message")
        if not isinstance(message, Mapping):
            said = self._said(json.dumps(reply).encode())
            raise _FaultError(f"answers without choices[0].message ({said}), expected a chat completion; check the base URL")
        reason = choice.get("finish_reason")
        reason = reason if isinstance(reason, str) else ""
        text = _text(message.get("content"))
        if not text.strip():
            refusal = message.get("refusal")
            if isinstance(refusal, str) and refusal.strip():
                raise _FaultError(f"the model refuses: {self._shown(refusal)}; word the idea in another way")
            why = f" (it stopped for {reason[:40]!r})" if reason else ""
            raise _FaultError(f"answers with an empty text{why}; try another model, or a longer limit of its answers")
        return Answer(text, complete=reason not in ("length", "content_filter"), reason=reason)

    def _said(self, content: bytes) -> str:
        """The message in an endpoint's error, in one short line."""
        try:
            data: Any = json.loads(content)
        except (ValueError, RecursionError):
            start = self._start(content)
            return "" if start.startswith("<") else start
        error = data.get("error", data) if isinstance(data, Mapping) else data
        if isinstance(error, Mapping):
            error = error.get("message") or error.get("detail") or error
        return self._shown(error if isinstance(error, str) else json.dumps(error, ensure_ascii=False))

    def _start(self, content: bytes) -> str:
        return self._shown(content.decode("utf-8", errors="replace"), 60)

    def _shown(self, text: str, limit: int = 160) -> str:
        """Words of the endpoint in one short line, without the key, which it may repeat."""
        hidden = text.replace(self.endpoint.key, "…") if self.endpoint.key else text
        return "".join(letter for letter in " ".join(hidden.split()) if letter.isprintable())[:limit]


@cache
def _certificates() -> ssl.SSLContext:
    """Whom to trust; reading them takes a tenth of a second, so once."""
    return httpx.create_ssl_context()


def _asked_form(form: str, schema: Mapping[str, Any], name: str) -> dict[str, Any]:
    match form:
        case "json_schema":  # not strict: that allows no open mapping, such as names with descriptions
            return {"response_format": {"type": form, "json_schema": {"name": name, "strict": False, "schema": dict(schema)}}}
        case "json_object":
            return {"response_format": {"type": form}}
    return {}


def _text(content: Any) -> str:
    """A text, or the texts of a list of parts."""
    if isinstance(content, list):
        parts = [part.get("text") for part in content if isinstance(part, Mapping)]
        return "".join(part for part in parts if isinstance(part, str))
    return content if isinstance(content, str) else ""


def _asked_wait(headers: httpx.Headers) -> float | None:
    """Retry-After, in seconds: a number, or a date, measured against the endpoint's own."""
    value = headers.get("retry-after", "").strip()
    try:
        wait = float(value)
    except ValueError:
        try:
            wait = (parsedate_to_datetime(value) - parsedate_to_datetime(headers.get("date", ""))).total_seconds()
        except (ValueError, TypeError):
            return None
    return max(0.0, wait) if math.isfinite(wait) else None
