"""The chat client: one whole answer or one line that says why not, patience where it helps, and a key that nobody sees."""

import logging
import subprocess
import sys
import threading
import time
from typing import Any

import pytest

from chat_server import ChatServer, Reply, refuses, says
from mask2dit.chat import Answer, ChatClient, Endpoint
from mask2dit.errors import EndpointError, InputError

KEY = "sk-very-secret-7f3a9c"
QUESTION = [{"role": "user", "content": "a fox?"}]
SCHEMA = {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"]}
PAGE = Reply("<!DOCTYPE html><html><body>Welcome</body></html>", headers={"Content-Type": "text/html"})


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


class Asked:
    """Ask a server that replies like this, in no time; `waits` are the seconds that it would have waited, `told` what it said of them."""

    def __init__(self, *replies: Reply, key: str = KEY, timeout: float = 5.0, tries: int = 3) -> None:
        self.server = ChatServer(*replies)
        self.waits: list[float] = []
        self.told: list[str] = []
        with self.server:
            endpoint = Endpoint(self.server.url, "tiny", key, timeout, tries)
            self.answer: Answer | None = None
            self.error = ""
            with ChatClient(endpoint, sleep=self.waits.append, tell=self.told.append) as client:
                try:
                    self.answer = client.ask(QUESTION, SCHEMA)
                except EndpointError as error:
                    self.error = str(error)
                    assert error.__cause__ is None and error.__suppress_context__  # other errors hold the request, and it the key
        assert "\n" not in self.error and len(self.error) < 400 and KEY not in self.error + repr(self.told)
        assert self.answer or self.error.startswith(f"{self.server.url}: ")


def test_a_question_and_its_answer() -> None:
    asked = Asked(says('{"a": "b"}'))
    assert asked.answer == Answer('{"a": "b"}', complete=True, reason="stop")
    (question,) = asked.server.questions
    assert question.path == "/v1/chat/completions" and question.headers["authorization"] == f"Bearer {KEY}"
    assert question.data["model"] == "tiny" and question.data["messages"] == QUESTION
    assert question.data["response_format"]["json_schema"] == {"name": "answer", "strict": False, "schema": SCHEMA}


def test_without_a_key_and_without_a_schema() -> None:
    with ChatServer(says("yes")) as server, ChatClient(Endpoint(server.url + "/chat/completions/", "tiny")) as client:
        assert client.ask(QUESTION).text == "yes"
    (question,) = server.questions
    assert (
        "authorization" not in question.headers and set(question.data) == {"model", "messages"} and question.path == "/v1/chat/completions"
    )


def test_an_answer_in_parts_and_one_that_was_cut_off() -> None:
    assert Asked(says([{"type": "text", "text": "a "}, {"type": "image"}, {"type": "text", "text": "fox"}])).answer == Answer(
        "a fox", True, "stop"
    )
    assert Asked(says('{"a": "on and o', "length")).answer == Answer('{"a": "on and o', complete=False, reason="length")


PASSING = [
    refuses(429, "slow down"),
    refuses(500, "oops"),
    refuses(503, "loading the model"),
    Reply("<html>Bad gateway</html>", 502),
    Reply(says("x").body, fault="half"),
    Reply(says("x").body, headers={"Connection": "close"}, fault="half"),
    Reply(fault="drop"),
    Reply('{"choices": [', headers={"Content-Length": "13"}),
]


@pytest.mark.parametrize("fault", PASSING, ids=lambda reply: f"{reply.status}-{reply.fault}")
def test_faults_that_pass_are_waited_for(fault: Reply) -> None:
    asked = Asked(fault, fault, says("there"))
    assert asked.answer and asked.answer.text == "there"
    assert asked.waits == [1.0, 2.0] and asked.told[1].endswith("; try 3 of 3 in 2 s")
    lasting = Asked(fault)
    assert "tried 3 times, so try again later" in lasting.error and len(lasting.server.questions) == 3


def test_an_endpoint_that_hangs_or_drips() -> None:
    for fault in ("hang", "drip"):
        asked = Asked(Reply(says("x" * 100).body, fault=fault), says("there"), timeout=0.15)
        assert (
            asked.answer
            and asked.answer.text == "there"
            and asked.told == ["no whole answer within 0.15 s (see --timeout); try 2 of 3 in 1 s"]
        )
    assert "no whole answer within 0.1 s" in Asked(Reply(fault="hang"), timeout=0.1, tries=1).error


@pytest.mark.parametrize(
    ("headers", "wait"),
    [
        ({"Retry_After": "7"}, 7.0),
        ({"Retry_After": "0.5"}, 0.5),
        ({"Retry_After": "Wed, 21 Oct 2026 07:28:30 GMT", "Date": "Wed, 21 Oct 2026 07:28:00 GMT"}, 30.0),
        ({"Retry_After": "Wed, 21 Oct 2026 07:28:00 GMT", "Date": "Wed, 21 Oct 2026 07:28:30 GMT"}, 0.0),
        ({"Retry_After": "soon"}, 1.0),
        ({"Retry_After": "nan"}, 1.0),
        ({"Retry_After": "-3"}, 0.0),
    ],
)
def test_retry_after_is_honoured(headers: dict[str, str], wait: float) -> None:
    reply = refuses(429, "slow down", **headers)
    asked = Asked(reply, says("there"))
    assert asked.answer and asked.waits[0] == pytest.approx(wait)


def test_nobody_waits_for_an_hour_or_for_money() -> None:
    asked = Asked(refuses(429, "slow down", Retry_After="3600"))
    assert asked.waits == [] and "asks to wait 3600 s, so try again later" in asked.error
    broke = Asked(Reply({"error": {"message": "You have no credit", "code": "insufficient_quota"}}, 429))
    assert broke.waits == [] and "cannot answer (429: You have no credit)" in broke.error


LASTING = [
    (PAGE, "answers with a web page ('<!DOCTYPE html>", "check the base URL, which often ends in /v1"),
    (Reply("<html>Not here</html>", 404), "has no such address or model (404)", "often ends in /v1"),
    (refuses(404, "The model `tiny` does not exist"), "(404: The model `tiny` does not exist)", "model's name"),
    (refuses(401, f"Incorrect API key provided: {KEY}"), "refuses the key (401: Incorrect API key provided: …)", "check the key"),
    (refuses(401, "x" * 150 + KEY), "refuses the key", "check the key"),
    (refuses(400, "context too long"), "refuses the question (400: context too long)", "check the model"),
    (Reply("", 302, {"Location": "http://elsewhere/v1"}), "sends us elsewhere (302: http://elsewhere/v1)", "base URL"),
    (Reply("", 302, {"Location": f"http://elsewhere/{KEY}"}), "sends us elsewhere (302: http://elsewhere/…)", "base URL"),
    (Reply("", 204), "answers with status 204", "expected 200"),
    (Reply({"error": "no slots"}), "answers without choices[0].message (no slots)", "expected a chat completion"),
    (Reply({"detail": "nothing\nhere"}), "(", "nothing here"),
    (Reply([]), "without choices[0].message ([])", "check the base URL"),
    (Reply("null"), "without choices[0].message (null)", "check the base URL"),
    (Reply({"choices": []}), "without choices[0].message", "check"),
    (Reply({"choices": [{"message": "text"}]}), "without choices[0].message", "check"),
    (Reply({"choices": [{"text": "old protocol"}]}), "without choices[0].message", "check"),
    (says(None), "answers with an empty text (it stopped for 'stop')", "try another model"),
    (says("  ", "length"), "empty text (it stopped for 'length')", "longer limit"),
    (says(None, refusal="I cannot help with that."), "the model refuses: I cannot help with that.", "word the idea"),
    (Reply("x" * (16 * 2**20 + 10)), "answers with over 16 MB", "check the base URL"),
    (Reply("\x1b[31m" + "no json"), "answers what is not JSON ('[31mno json')", "tried 3 times"),
]


@pytest.mark.parametrize("case", LASTING, ids=lambda case: case[1][:30])
def test_nonsense_and_refusals_are_told_in_one_line(case: tuple[Reply, str, str]) -> None:
    reply, *words = case
    asked = Asked(reply)
    for part in words:
        assert part in asked.error


def test_an_endpoint_that_is_not_there() -> None:
    with ChatServer(says("x")) as server:
        url = server.url
    with ChatClient(Endpoint(url, "tiny", KEY), sleep=lambda _: pytest.fail("waited")) as client, pytest.raises(EndpointError) as caught:
        client.ask(QUESTION)
    assert str(caught.value).startswith(f"{url}: cannot be reached (") and isinstance(caught.value, ConnectionError)


def test_an_endpoint_without_schemas_is_asked_in_another_form() -> None:
    no_schema, no_object = refuses(400, "response_format json_schema is unavailable"), refuses(422, "type must be text")
    asked = Asked(no_schema, says('{"a": 1}'))
    assert asked.answer and asked.waits == [] and asked.server.forms == ["json_schema", "json_object"]
    asked = Asked(no_schema, no_object, says('{"a": 1}'))
    assert asked.answer and asked.server.forms == ["json_schema", "json_object", "text"]
    asked = Asked(refuses(404, "No endpoints found that support response_format"), refuses(500, "json_object: not implemented"), says("{}"))
    assert asked.answer and asked.server.forms[-1] == "text"
    asked = Asked(refuses(400, "there is no model tiny"))
    assert asked.server.forms == ["json_schema", "json_object", "text"] and "there is no model tiny" in asked.error


def test_the_form_that_worked_is_remembered() -> None:
    with (
        ChatServer(refuses(400, "no json_schema here"), says("{}"), says("{}")) as server,
        ChatClient(Endpoint(server.url, "tiny")) as client,
    ):
        client.ask(QUESTION, SCHEMA)
        client.ask(QUESTION, SCHEMA)
    assert server.forms == ["json_schema", "json_object", "json_object"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"base_url": "localhost:8000/v1"}, "begin with http:// or https://"),
        ({"base_url": "ftp://there/v1"}, "begin with http:// or https://"),
        ({"base_url": "http://"}, "begin with http:// or https://"),
        ({"base_url": "http://[::1/v1"}, "cannot be understood"),
        ({"base_url": "http://there:port/v1"}, "cannot be understood"),
        ({"base_url": f"https://me:{KEY}@there/v1"}, "got a name or password in it"),
        ({"model": " "}, "model: got nothing"),
        ({"key": f"{KEY}\nX-Other: 1"}, "key: got spaces, line breaks"),
        ({"key": f"{KEY} ä"}, "key: got spaces, line breaks"),
        ({"timeout_seconds": 0.0}, "expected seconds over 0"),
        ({"timeout_seconds": float("nan")}, "expected seconds over 0"),
    ],
)
def test_endpoints_that_cannot_be_meant(change: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError) as caught:
        Endpoint(**{"base_url": "http://there/v1", "model": "tiny", **change})
    assert words in str(caught.value) and KEY not in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "reply", [Reply(fault="hang"), refuses(503, "loading", Retry_After="60"), Reply(says("x" * 999).body, fault="drip")]
)
def test_whoever_waits_for_a_client_that_is_closed_waits_no_longer(reply: Reply) -> None:
    errors: list[str] = []
    with ChatServer(reply) as server:
        client = ChatClient(Endpoint(server.url, "tiny", KEY))

        def ask() -> None:
            with pytest.raises(EndpointError) as caught:
                client.ask(QUESTION)
            errors.append(str(caught.value))

        threads = [threading.Thread(target=ask, daemon=True) for _ in range(3)]
        for thread in threads:
            thread.start()
        while len(server.questions) < 3:
            time.sleep(0.01)
        time.sleep(0.1)  # into the wait between two tries
        started = time.monotonic()
        client.close()
        for thread in threads:
            thread.join(3)
        assert time.monotonic() - started < 2 and len(server.questions) == 3
        ask()
    assert errors == [f"{server.url}: was not waited for, since we end; try again later"] * 4


def test_the_key_is_seen_by_nobody(caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]) -> None:
    caplog.set_level(logging.DEBUG)
    faults = [
        says("fine"),
        refuses(403, f"Bearer {KEY} may not"),
        refuses(400, f"{'x' * 155}{KEY}"),
        Reply(f"{'y' * 50}{KEY}"),
        Reply({"you sent": KEY}),
        Reply({"choices": [{"message": {"content": None, "refusal": f"because of {KEY}"}}]}),
        refuses(500, KEY),
        Reply(fault="drop"),
    ]
    for fault in faults:
        asked = Asked(fault, tries=2)
        assert all(KEY[:10] not in text for text in (asked.error, *asked.told))
    with ChatClient(Endpoint("http://there/v1?api-key=hidden", "tiny", KEY)) as client:
        assert KEY not in repr(client) + repr(client.endpoint) + str(client.endpoint) + repr(client._http)
        assert client.endpoint.where == "http://there/v1" and str(client.endpoint.url) == "http://there/v1/chat/completions?api-key=hidden"
    printed = capfd.readouterr()
    assert KEY[:10] not in caplog.text + printed.out + printed.err


def test_it_needs_no_torch() -> None:
    code = "import sys, mask2dit.storyboard_writer, mask2dit.foreign_storyboards; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
