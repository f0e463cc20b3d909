"""A chat endpoint on this machine: as much of OpenAI's and Gemini's protocols as we speak, and the faults that endpoints have."""

import base64
import json
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self


@dataclass(frozen=True)
class Reply:
    """One reply.

    `fault`: whole, half (then the line goes dead), drop (no answer at all), hang (until the server closes), or drip (byte by byte).
    """

    body: Any = ""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    fault: str = "whole"

    @property
    def content(self) -> bytes:
        return self.body.encode() if isinstance(self.body, str) else json.dumps(self.body).encode()


def says(text: Any, finish_reason: str = "stop", **more: Any) -> Reply:
    """A chat completion."""
    choice = {"index": 0, "message": {"role": "assistant", "content": text, **more}, "finish_reason": finish_reason}
    return Reply({"id": "chatcmpl-1", "object": "chat.completion", "model": "tiny", "choices": [choice], "usage": {"total_tokens": 9}})


def refuses(status: int, message: str, **headers: str) -> Reply:
    """An error as the protocol has it."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Reply({"error": {"message": message, "type": "invalid_request_error", "code": None}}, status, named)


def gemini_says(text: Any, finish_reason: str = "STOP", tokens: tuple[int, int, int] = (1000, 40, 10), **more: Any) -> Reply:
    """An answer of generateContent, behind a thought."""
    parts = [{"text": "Let me look.", "thought": True}, {"text": text}]
    used = dict(zip(("promptTokenCount", "candidatesTokenCount", "thoughtsTokenCount"), tokens, strict=True))
    candidate = {"content": {"role": "model", "parts": parts}, "finishReason": finish_reason, "index": 0}
    return Reply({"candidates": [candidate], "usageMetadata": used, "modelVersion": "tiny"} | more)


def gemini_refuses(code: int, message: str, status: str = "INVALID_ARGUMENT", *details: dict[str, Any], **headers: str) -> Reply:
    """An error as Google has it."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Reply({"error": {"code": code, "message": message, "status": status, "details": list(details)}}, code, named)


@dataclass(frozen=True)
class Question:
    """What was asked: the address, the headers, and the JSON."""

    path: str
    headers: dict[str, str]
    data: dict[str, Any]

    @property
    def form(self) -> str:
        return str(self.data.get("response_format", {}).get("type", "text"))

    @property
    def is_gemini(self) -> bool:
        return self.path.endswith(":generateContent")

    @property
    def turns(self) -> list[tuple[str, list[str | bytes]]]:
        """Role and parts of each message, texts and pictures, as the protocol has them."""
        if not self.is_gemini:
            return [(message["role"], _openai_parts(message["content"])) for message in self.data["messages"]]
        system = [("system", self.data["systemInstruction"])] if "systemInstruction" in self.data else []
        return [
            (role, _gemini_parts(content["parts"])) for role, content in system + [(each["role"], each) for each in self.data["contents"]]
        ]

    @property
    def text(self) -> str:
        """What was asked in words, without the system's."""
        return "\n".join(part for role, parts in self.turns if role != "system" for part in parts if isinstance(part, str))

    @property
    def pictures(self) -> list[bytes]:
        return [part for _, parts in self.turns for part in parts if isinstance(part, bytes)]


def _openai_parts(content: Any) -> list[str | bytes]:
    if isinstance(content, str):
        return [content]
    return [part["text"] if part["type"] == "text" else base64.b64decode(part["image_url"]["url"].partition(",")[2]) for part in content]


def _gemini_parts(parts: Any) -> list[str | bytes]:
    return [part["text"] if "text" in part else base64.b64decode(part["inlineData"]["data"]) for part in parts]


Answering = Callable[[Question], Reply]


class ChatServer:
    """Use as a context manager. Every question takes the next of `replies`, which may follow from it; the last is given again and again."""

    def __init__(self, *replies: Reply | Answering) -> None:
        self.replies = list(replies)
        self.questions: list[Question] = []
        self.released = threading.Event()
        self._lock = threading.Lock()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"chat": self}))
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}/v1"

    @property
    def root(self) -> str:
        """Without a version, as Gemini's base URL is."""
        return self.url.removesuffix("/v1")

    @property
    def forms(self) -> Sequence[str]:
        return [question.form for question in self.questions]

    def next(self, question: Question) -> Reply:
        with self._lock:
            self.questions.append(question)
            reply = self.replies.pop(0) if len(self.replies) > 1 else self.replies[0]
        return reply if isinstance(reply, Reply) else reply(question)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.released.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


class _Handler(BaseHTTPRequestHandler):
    chat: ChatServer
    disable_nagle_algorithm = True

    def log_message(self, *_: object) -> None:
        pass

    def do_POST(self) -> None:
        data = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        reply = self.chat.next(Question(self.path, {name.lower(): value for name, value in self.headers.items()}, data))
        if reply.fault == "hang":
            self.chat.released.wait(5)
        if reply.fault in ("drop", "hang"):
            return
        self.send_response_only(reply.status)  # no date of its own
        for name, value in ({"Content-Type": "application/json", "Content-Length": str(len(reply.content))} | reply.headers).items():
            self.send_header(name, value)
        self.end_headers()
        if reply.fault == "drip":
            for byte in reply.content:
                self.wfile.write(bytes([byte]))
                if self.chat.released.wait(0.02):
                    return
        self.wfile.write(reply.content if reply.fault == "whole" else reply.content[: len(reply.content) // 2])
