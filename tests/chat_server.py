"""A chat endpoint on this machine: as much of the OpenAI protocol as we speak, and the faults that endpoints have."""

import json
import threading
from collections.abc import Sequence
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


@dataclass(frozen=True)
class Question:
    """What was asked: the address, the headers, and the JSON."""

    path: str
    headers: dict[str, str]
    data: dict[str, Any]

    @property
    def form(self) -> str:
        return str(self.data.get("response_format", {}).get("type", "text"))


class ChatServer:
    """Use as a context manager. Every question takes the next of `replies`; the last one is given again and again."""

    def __init__(self, *replies: Reply) -> None:
        self.replies = list(replies)
        self.questions: list[Question] = []
        self.released = threading.Event()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"chat": self}))
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}/v1"

    @property
    def forms(self) -> Sequence[str]:
        return [question.form for question in self.questions]

    def next(self) -> Reply:
        return self.replies.pop(0) if len(self.replies) > 1 else self.replies[0]

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
        self.chat.questions.append(Question(self.path, {name.lower(): value for name, value in self.headers.items()}, data))
        reply = self.chat.next()
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
