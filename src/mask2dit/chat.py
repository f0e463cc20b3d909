"""Ask a chat endpoint, and wait for the whole answer.

Owns faults, and patience with them; not the protocol, not what is asked, and not whether an answer is any good. The key goes into one
header and nowhere else: no error, log line or repr shows it. Needs no torch.
"""

import json
import math
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, field, replace
from email.utils import parsedate_to_datetime
from functools import cache
from types import TracebackType
from typing import Any, Literal, Self
from weakref import WeakSet

import httpx

from mask2dit.chat_protocols import FORMS, OPENAI, Answer, Blame, ChatProtocol, FaultError, Form, Message, error_words, parts_of, picture_of
from mask2dit.errors import EndpointError, InputError, one_line

__all__ = [
    "Answer",
    "ChatClient",
    "Endpoint",
    "EndpointDownError",
    "Message",
    "Meter",
    "QuestionRefusedError",
    "Request",
    "Size",
    "measured",
]

LARGEST_ANSWER = 16 * 2**20  # bytes
LONGEST_WAIT = 120.0  # seconds that an endpoint may ask us to wait between two tries
FIRST_WAIT = 1.0  # doubled with every try
PASSING = frozenset({408, 425, 429, 500, 502, 503, 504, 529})  # statuses that another try may not meet
SHORTEST_SECRET = 8  # letters; a shorter key is a word such as EMPTY, which answers may hold


class QuestionRefusedError(EndpointError):
    """This question gets no answer; another may."""


class EndpointDownError(EndpointError):
    """The endpoint is of no use now. `passing`: it may be in a while, without anybody's doing."""

    def __init__(self, message: str, *, passing: bool) -> None:
        super().__init__(message)
        self.passing = passing


@dataclass(frozen=True, slots=True)
class Size:
    """Of a question: bytes of its texts, and how many pictures."""

    text: int
    pictures: int


@dataclass(slots=True)
class Request:
    """One try, for whoever counts; filled in while it goes on.

    `outcome`: "unsent"; "refused" (an error instead of an answer: nobody charges that); "lost" (sent, and no whole answer came, which
    may be charged); or "answered". Tokens are None, and `text` is empty, where the endpoint does not say.
    """

    outcome: Literal["unsent", "refused", "lost", "answered"] = "unsent"
    tokens_in: int | None = None
    tokens_out: int | None = None
    text: int = 0
    """Bytes of the answer."""


Meter = Callable[[Size], AbstractContextManager[Request]]
"""Is entered around each try: may wait before it, and raise instead of it; what it raises reaches the caller."""


@contextmanager
def _unmetered(size: Size) -> Iterator[Request]:
    yield Request()


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where to ask, as whom, and how patiently.

    `base_url` is what stands before /chat/completions, mostly with /v1 at its end; for Gemini, what stands before /v1beta.
    `timeout_seconds` is for one try, of which there are `tries`.
    """

    base_url: str
    model: str
    key: str = field(default="", repr=False)
    timeout_seconds: float = 120.0
    tries: int = 4
    protocol: ChatProtocol = OPENAI

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
        return self.protocol.url(httpx.URL(self.base_url.strip()), self.model)


class ChatClient:
    """Use as a context manager, from any number of threads.

    `sleep` waits between tries, `clock` bounds each of them, `tell` hears why there is another, and `meter` counts them.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        *,
        sleep: Callable[[float], object] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
        tell: Callable[[str], object] = lambda said: None,
        meter: Meter = _unmetered,
    ) -> None:
        self.endpoint = endpoint
        self._closed, self._sockets, self._lock = threading.Event(), WeakSet[socket.socket](), threading.Lock()
        self._sleep = self._closed.wait if sleep is time.sleep else sleep  # which ends when it is closed
        self._clock, self._tell, self._meter = clock, tell, meter
        self._form, self._form_works = 0, False
        headers = endpoint.protocol.headers(endpoint.key)
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
        """What other threads ask for meanwhile gets no answer, at once."""
        self._closed.set()
        with self._lock:
            for each in self._sockets:
                _break_off(each)
        self._http.close()

    def _watch(self, event: str, info: Mapping[str, Any]) -> None:
        """Remember connections as they are made: closing the client would not wake a thread that waits for one."""
        if event.endswith((".connect_tcp.complete", ".start_tls.complete")):
            made = info["return_value"].get_extra_info("socket")
            with self._lock:
                self._sockets.add(made)
            if self._closed.is_set():
                _break_off(made)

    def ask(self, messages: Sequence[Message], schema: Mapping[str, Any] | None = None, schema_name: str = "answer") -> Answer:
        """One answer. `schema`: the JSON schema that it should follow, as far as the endpoint can see to that.

        Raises QuestionRefusedError or EndpointDownError when no answer came; one that was cut off is returned and says so.
        """
        forms = FORMS[self._form :] if schema is not None else FORMS[-1:]
        size = measured(messages)
        for form in forms:
            body = self.endpoint.protocol.body(self.endpoint.model, messages, Form(form, schema or {}, schema_name))
            try:
                answer = self._with_patience(body, size)
            except FaultError as fault:
                if form == forms[-1] or not fault.refuses_form:
                    raise self._error(fault) from None
                continue
            if schema is not None:
                self._form, self._form_works = FORMS.index(form), True
            return answer
        raise AssertionError("the last form returns or raises")

    def _error(self, fault: FaultError) -> EndpointError:
        said = f"{self.endpoint.where}: {fault}"
        return QuestionRefusedError(said) if fault.blame == "question" else EndpointDownError(said, passing=fault.blame == "moment")

    def _with_patience(self, body: Mapping[str, Any], size: Size) -> Answer:
        for number in range(1, self.endpoint.tries + 1):
            try:
                with self._meter(size) as request:
                    return self._one_try(body, request)
            except FaultError as fault:
                wait = FIRST_WAIT * 2 ** (number - 1) if fault.wait is None else fault.wait
                self._check_open()
                if not fault.passing:
                    raise
                if wait > LONGEST_WAIT:
                    raise FaultError(f"{fault}; it asks to wait {wait:.0f} s, so try again later") from None
                if number == self.endpoint.tries:
                    raise FaultError(f"{fault}; tried {number} times, so try again later", "moment") from None
                self._tell(f"{fault}; try {number + 1} of {self.endpoint.tries} in {wait:.0f} s")
                self._sleep(wait)
                self._check_open()
        raise AssertionError("the last try returns or raises")

    def _check_open(self) -> None:
        if self._closed.is_set():
            raise FaultError("was not waited for, since we end; try again later", "moment") from None

    def _one_try(self, body: Mapping[str, Any], request: Request) -> Answer:
        protocol = self.endpoint.protocol
        reply = self._try(body, request)
        request.outcome = "answered"
        request.tokens_in, request.tokens_out = protocol.usage(reply)
        answer = protocol.answer(reply, self._shown)
        request.text = len(answer.text.encode("utf-8", "replace"))
        secret = self.endpoint.key
        return replace(answer, text=answer.text.replace(secret, "…")) if len(secret) >= SHORTEST_SECRET else answer

    def _try(self, body: Mapping[str, Any], request: Request) -> Any:
        limit = self.endpoint.timeout_seconds
        self._check_open()
        request.outcome = "lost"
        try:
            with self._http.stream("POST", self.endpoint.url, json=body, extensions={"trace": self._watch}) as response:
                content = self._whole(response, self._clock() + limit)
        except httpx.TimeoutException as error:
            request.outcome = "unsent" if isinstance(error, httpx.ConnectTimeout | httpx.PoolTimeout) else "lost"
            raise FaultError(f"no whole answer within {limit:g} s (see --timeout)", passing=True) from None
        except httpx.ConnectError as error:
            request.outcome = "unsent"
            raise FaultError(f"cannot be reached ({one_line(error, 100)}); check the base URL, and that it is running") from None
        except (httpx.NetworkError, httpx.RemoteProtocolError):
            raise FaultError("the connection broke off before the answer was whole", passing=True) from None
        except UnicodeEncodeError as error:  # half a character in what is asked
            request.outcome = "unsent"
            raise FaultError(f"cannot be asked (UnicodeEncodeError: {one_line(error, 100)})", "question") from None
        except httpx.HTTPError as error:
            raise FaultError(f"cannot be asked ({type(error).__name__}: {one_line(error, 100)})", "moment") from None
        except (RuntimeError, OSError):  # as the client and its connections are closed under it
            self._check_open()
            raise
        if response.status_code != 200:
            request.outcome = "refused"
            raise self._refusal(response, content)
        try:
            return json.loads(content)
        except (ValueError, RecursionError):
            start = self._start(content)
            if start.startswith("<"):
                hint = self.endpoint.protocol.base_hint
                raise FaultError(f"answers with a web page ({start!r}), expected JSON; check the base URL{hint}") from None
            raise FaultError(f"answers what is not JSON ({start!r})", passing=True) from None

    def _whole(self, response: httpx.Response, deadline: float) -> bytes:
        content = bytearray()
        for piece in response.iter_bytes():
            content += piece
            if len(content) > LARGEST_ANSWER:
                raise FaultError(f"answers with over {LARGEST_ANSWER // 2**20} MB, expected a chat answer; check the base URL")
            if self._clock() > deadline:
                raise httpx.ReadTimeout("")
        return bytes(content)

    def _refusal(self, response: httpx.Response, content: bytes) -> FaultError:
        status, said = response.status_code, self._said(content)
        told = f"{status}: {said}" if said else f"{status}"
        if 200 <= status < 300:
            return FaultError(f"answers with status {told}, expected 200; check the base URL")
        if status // 100 == 3:
            return FaultError(f"sends us elsewhere ({status}: {self._shown(response.headers.get('location', ''))}); give that as base URL")
        protocol = self.endpoint.protocol
        trouble = protocol.trouble(content)
        if trouble == "key" or (status in (401, 403) and trouble != "question"):
            return FaultError(f"{'refuses the key' if self.endpoint.key else 'wants a key, and none was given'} ({told}); check the key")
        if trouble == "spent" or status == 402:
            return FaultError(f"cannot answer ({told}); the quota is spent or there is no credit: see to that, or try again later")
        if (status in (404, 405, 410) or trouble == "model") and not self._names_form(content):
            hint = protocol.base_hint
            return FaultError(f"has no such address or model ({told}); check the base URL{hint}, and the model's name")
        if status in (400, 415, 422, 501) or (self._names_form(content) and status in (404, 405, 500)):
            another = trouble != "question" and (not self._form_works or self._names_form(content))
            return FaultError(f"refuses the question ({told}); check the model and the base URL", "question", refuses_form=another)
        wait = _asked_wait(response.headers)
        wait = protocol.wait(content) if wait is None else wait
        blame: Blame = "question" if status // 100 == 4 else "moment"
        return FaultError(f"cannot answer ({told})", blame, passing=status in PASSING, wait=wait)

    def _names_form(self, content: bytes) -> bool:
        return any(word in content for word in self.endpoint.protocol.form_words)

    def _said(self, content: bytes) -> str:
        """The message in an endpoint's error, in one short line."""
        try:
            data: Any = json.loads(content)
        except (ValueError, RecursionError):
            start = self._start(content)
            return "" if start.startswith("<") else start
        return self._shown(error_words(data))

    def _start(self, content: bytes) -> str:
        return self._shown(content.decode("utf-8", errors="replace"), 60)

    def _shown(self, text: str, limit: int = 160) -> str:
        """Words of the endpoint in one short line, without the key, which it may repeat."""
        hidden = text.replace(self.endpoint.key, "…") if self.endpoint.key else text
        return "".join(letter for letter in " ".join(hidden.split()) if letter.isprintable())[:limit]


def _break_off(connection: socket.socket) -> None:
    with suppress(OSError):  # it is closed
        socket.socket.shutdown(connection, socket.SHUT_RDWR)  # of what lies below TLS, whose own would meddle with a reading thread


@cache
def _certificates() -> ssl.SSLContext:
    """Whom to trust; reading them takes a tenth of a second, so once."""
    return httpx.create_ssl_context()


def measured(messages: Sequence[Message]) -> Size:
    """How large a question is."""
    parts = [part for message in messages for part in parts_of(message)]
    pictures = sum(picture_of(part) is not None for part in parts)
    return Size(sum(len(str(part.get("text", "")).encode("utf-8", "replace")) for part in parts), pictures)


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
