"""Captions asked of endpoints: what is asked, what is made of the answers, and what comes of every fault that endpoints have."""

import io
import json
import logging
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from chat_server import Answering, ChatServer, Question, Reply, gemini_refuses, gemini_says, refuses, says
from mask2dit.curation.captioners.answers import Limits
from mask2dit.curation.captioners.base import (
    CaptionError,
    CaptionerStoppedError,
    CaptionLaterError,
    GroupCaptions,
    GroupView,
    ShotView,
)
from mask2dit.curation.captioners.opening import CaptionerSettings, open_captioner
from mask2dit.curation.captioners.spending import Budget
from mask2dit.curation.captioners.vision import VisionCaptioner, instruction
from mask2dit.errors import EndpointError, InputError

KEY = "sk-marker-5d81c7e0aa42"
CAST = {"characters": {"Actor1": "a boy in a green coat", "Actor2": "a grey cat"}, "setting": "a yellow kitchen by day"}
PRICES = {"price_in": 1.0, "price_out": 10.0}


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


def picture(number: int) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (32, 24), (number * 7 % 256, number * 31 % 256, 90)).save(file, "JPEG")
    return file.getvalue()


def group(number: int = 0, num_shots: int = 2) -> GroupView:
    """Shots whose pictures are like no other group's."""
    shots = [
        ShotView(f"g{number}-s{index}", Path("film.mp4"), 0, 48, 24.0, tuple(picture(number * 10 + index * 2 + k) for k in range(2)), {})
        for index in range(num_shots)
    ]
    return GroupView(f"g{number}", tuple(shots))


def told(question: Question, data: Any) -> Reply:
    """The answer in the question's own protocol."""
    text = data if isinstance(data, str) else json.dumps(data)
    used = {"usage": {"prompt_tokens": 1000, "completion_tokens": 50}}
    reply = says(text)
    return gemini_says(text) if question.is_gemini else Reply(reply.body | used)


def good(question: Question) -> Reply:
    """What a good model answers."""
    if "cast and the setting" in question.text:
        return told(question, CAST)
    number = question.text.partition("the prompt of shot ")[2][:1]
    return told(question, {"prompt": f"Actor1 opens door {number} in a yellow kitchen by day.", "characters": ["Actor1"]})


PROMPTS = tuple(f"Actor1 opens door {number} in a yellow kitchen by day." for number in (1, 2))
GOOD = GroupCaptions(CAST["characters"], CAST["setting"], PROMPTS)  # type: ignore[arg-type]


class Desk:
    """Captioners over one server and one folder; `waits` and `said` are what they waited and told."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.waits: list[float] = []
        self.said: list[str] = []

    def open(self, server: ChatServer, kind: str = "openai", **changes: Any) -> VisionCaptioner:
        budget = Budget(**{name: changes.pop(name) for name in list(changes) if name in Budget.__dataclass_fields__})
        base_url = server.root if kind == "gemini" else server.url
        given: dict[str, Any] = {"kind": kind, "model": "tiny", "base_url": base_url, "key": KEY, "timeout_seconds": 5.0, "tries": 2}
        settings = CaptionerSettings(**given | {"budget": budget} | changes)
        return open_captioner(settings, self.folder, tell=self.said.append, sleep=self.waits.append, clock=lambda: 0.0)

    def caption(self, *replies: Reply | Answering, **changes: Any) -> tuple[GroupCaptions | None, str, ChatServer]:
        """What comes of one group when the endpoint replies like this."""
        with ChatServer(*replies) as server, self.open(server, **changes) as captioner:
            try:
                return captioner.caption(group()), "", server
            except (CaptionError, CaptionerStoppedError) as error:
                assert error.__suppress_context__ or error.__context__ is None
                text = f"{type(error).__name__}: {error}"
                assert "\n" not in text and KEY not in text and len(text) < 500
                return None, text, server


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    desk = Desk(tmp_path / "captions")
    yield desk
    for path in desk.folder.rglob("*"):
        assert KEY not in path.name and (path.is_dir() or KEY.encode() not in path.read_bytes())
    assert KEY not in repr(desk.said)


# What is asked, and what comes of it


@pytest.mark.parametrize("kind", ["openai", "gemini"])
def test_a_group_is_asked_for_its_cast_and_then_shot_by_shot(desk: Desk, kind: str) -> None:
    with ChatServer(good) as server, desk.open(server, kind, **PRICES) as captioner:
        assert captioner.caption(group()) == GOOD
        assert captioner.name == f"{kind} tiny · captions-1 · 40 and 20 words" and captioner.at_once == 4 and not captioner.features
        summary = captioner.summary()
    cast, first, second = server.questions
    shots = group().shots
    assert cast.pictures == [jpeg for shot in shots for jpeg in shot.pictures] and Image.open(io.BytesIO(cast.pictures[0])).size == (32, 24)
    assert first.pictures == list(shots[0].pictures) and second.pictures == list(shots[1].pictures)
    labelled = [part if isinstance(part, str) else "picture" for part in cast.turns[1][1]]
    assert labelled[1:7] == ["Shot 1:", "picture", "picture", "Shot 2:", "picture", "picture"] and "at most 20 words" in labelled[7]
    for question in server.questions:
        assert question.turns[0] == ("system", [instruction()]) and len(question.turns) == 2
    assert "Actor2: a grey cat" in first.text and "yellow kitchen" in first.text and "so far" not in first.text
    assert PROMPTS[0] in second.text and "Shot 2 of 2, 2.0 seconds long" in second.text and "at most 40 words" in second.text
    assert summary == {
        "requests": 3,
        "tokens_in": 3000,
        "tokens_out": 150,
        "cost": pytest.approx(0.0045),
        "estimated": 0,
        "requests_now": 3,
        "cached_answers": 0,
    }


def test_the_wire_of_both_protocols(desk: Desk) -> None:
    *_, server = desk.caption(good, kind="gemini", model="models/tiny-pro")
    cast, shot, _ = server.questions
    assert cast.path == "/v1beta/models/tiny-pro:generateContent" and cast.headers["x-goog-api-key"] == KEY
    assert "authorization" not in cast.headers and set(cast.data) == {"contents", "systemInstruction", "generationConfig"}
    form = cast.data["generationConfig"]
    assert form["responseMimeType"] == "application/json" and form["responseJsonSchema"]["required"] == ["characters", "setting"]
    assert shot.data["generationConfig"]["responseJsonSchema"]["properties"]["characters"]["items"]["enum"] == ["Actor1", "Actor2"]
    assert cast.data["contents"][0]["parts"][2]["inlineData"]["mimeType"] == "image/jpeg"
    *_, server = desk.caption(good)
    cast = server.questions[0]
    assert cast.path == "/v1/chat/completions" and cast.headers["authorization"] == f"Bearer {KEY}" and cast.form == "json_schema"


def test_answers_are_kept_by_what_was_asked(desk: Desk) -> None:
    desk.caption(good)
    captions, _, server = desk.caption(good)
    assert captions == GOOD and not server.questions
    for changes in ({"model": "other"}, {"kind": "gemini"}, {"limits": Limits(30, 20)}):
        assert len(desk.caption(good, **changes)[2].questions) == 3
    with ChatServer(good) as server, desk.open(server) as captioner:
        captioner.caption(group(1))
        assert len(server.questions) == 3
        captioner.caption(group(0))
        assert len(server.questions) == 3 and captioner.summary()["cached_answers"] == 3


def test_a_damaged_answer_on_disk_is_asked_again(desk: Desk) -> None:
    desk.caption(good)
    files = list((desk.folder / "answers").rglob("*.json"))
    for damage in ("", "[]", '{"answer": {"prompt": 3}}', '{"answer": []}', "\x00"):
        for path in files:
            path.write_text(damage)
        captions, _, server = desk.caption(good)
        assert captions == GOOD and len(server.questions) == 3


# Answers that are not as asked


def shot_answers(*answers: Any) -> Answering:
    """A good cast, and these answers for the first shot, one after the other."""
    waiting = list(answers)

    def answer(question: Question) -> Reply:
        if "prompt of shot 1" not in question.text or "cast and the setting" in question.text:
            return good(question)
        data = waiting.pop(0)
        return data if isinstance(data, Reply) else told(question, data)

    return answer


FINE = {"prompt": PROMPTS[0], "characters": ["Actor1"]}
WRONG_SHOTS = [
    ("no words of JSON", "holds no whole JSON object"),
    ('{"prompt": "Actor1 ope', "holds no whole JSON object"),
    (Reply(says('{"prompt": "Actor1 ope', "length").body), "was cut off (length); write it shorter"),
    ({"promt": "Actor1 opens a door", "characters": []}, "prompt: expected a sentence"),
    ({"prompt": "  ", "characters": []}, "prompt: expected a sentence"),
    ({"prompt": "Actor3 opens a door.", "characters": ["Actor3"]}, "Actor3 is not in the cast, expected Actor1, Actor2"),
    ({"prompt": "actor 1 opens a door.", "characters": []}, "write a tag exactly as in the cast, not 'actor 1'"),
    ({"prompt": "Actor1 (a boy) opens a door.", "characters": ["Actor1"]}, "followed by brackets"),
    ({"prompt": "Actor1 opens a door " * 20, "characters": ["Actor1"]}, "got 80 words, expected at most 40"),
    ({"prompt": "Actor1 sings \ud83d.", "characters": ["Actor1"]}, "broken character"),
]


@pytest.mark.parametrize(("wrong", "words"), WRONG_SHOTS, ids=lambda case: str(case)[:20])
def test_a_wrong_answer_is_repaired_once(desk: Desk, wrong: Any, words: str) -> None:
    captions, error, server = desk.caption(shot_answers(wrong, FINE))
    assert captions == GOOD, error
    assert len(server.questions) == 4 and words in server.questions[2].text
    roles = [role for role, _ in server.questions[2].turns]
    assert roles == ["system", "user", "assistant", "user"] and server.questions[2].pictures == list(group().shots[0].pictures)


@pytest.mark.parametrize(("wrong", "words"), WRONG_SHOTS[3:6], ids=lambda case: str(case)[:20])
def test_repaired_in_vain(desk: Desk, wrong: Any, words: str) -> None:
    captions, error, server = desk.caption(shot_answers(wrong, wrong))
    assert (
        captions is None
        and error.startswith("CaptionError: shot 1: the answer is not as asked, also after one repair: ")
        and words in error
    )
    assert len(server.questions) == 3  # and nothing is kept of it: the cast alone is not asked again
    assert len(desk.caption(good)[2].questions) == 2


def test_a_list_that_does_not_fit_is_worth_a_repair_and_then_tolerated(desk: Desk) -> None:
    loose = FINE | {"characters": ["Actor1", "Actor2"]}
    captions, _, server = desk.caption(shot_answers(loose, "nonsense"))
    assert captions == GOOD and "lists Actor1, Actor2, and the prompt names Actor1" in server.questions[2].text
    captions, _, server = desk.caption(shot_answers(loose, refuses(400, "enough")), model="other")
    assert captions == GOOD and len(server.questions) == 4


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"characters": ["Actor1"]}, "expected an object of tags"),
        ({"characters": {"Actor1": "a boy", "Actor3": "a cat"}}, "got the tags Actor1, Actor3, expected Actor1, Actor2"),
        ({"characters": {"the boy": "a boy"}}, "got the tags the boy, expected Actor1"),
        ({"characters": {"Actor1": ""}}, "Actor1: expected how it looks"),
        ({"characters": {"Actor1": 3}}, "Actor1: expected how it looks"),
        ({"characters": {"Actor1": "a boy " * 11}}, "Actor1: got 22 words, expected at most 20"),
        ({"characters": {"Actor1": "a boy (young)"}}, "Actor1: got brackets"),
        ({"characters": {"Actor1": "a boy beside Actor2"}}, "Actor1: got a tag in it"),
        ({"setting": None}, "setting: expected a text"),
        ({"setting": "a kitchen " * 11}, "setting: got 22 words"),
        ({"setting": "a room with Actor1"}, "setting: got a tag in it"),
    ],
)
def test_a_wrong_cast_is_repaired_once(desk: Desk, change: dict[str, Any], words: str) -> None:
    wrong = CAST | change
    captions, error, server = desk.caption(*(lambda question: told(question, wrong),) * 2, good)
    assert captions is None and words in error and error.startswith("CaptionError: cast: ") and len(server.questions) == 2
    assert words in server.questions[1].text
    assert desk.caption(lambda question: told(question, wrong), good)[0] == GOOD


def test_thoughts_fences_and_odd_spaces_are_tolerated(desk: Desk) -> None:
    cast = {"characters": {"Actor2": " a grey\ncat. ", "Actor1": "a boy in a green coat"}, "setting": "a yellow kitchen by day."}
    text = f'<think>{{"characters": 3}}</think>Here it is:\n```json\n{json.dumps(cast)}\n```'
    captions, error, _ = desk.caption(lambda question: told(question, text), good)
    assert captions == GOOD, error
    text = f'I could say {{"characters": 3}}.</think>{json.dumps(cast)}'
    assert desk.caption(lambda question: told(question, text), good, model="other")[0] == GOOD


def test_nobody_and_nothing_that_stays(desk: Desk) -> None:
    empty = {"characters": {}, "setting": ""}
    shot = {"prompt": "Waves roll onto a beach at sunset.", "characters": []}
    captions, error, server = desk.caption(lambda question: told(question, empty), lambda question: told(question, shot))
    assert captions == GroupCaptions({}, "", (shot["prompt"],) * 2), error  # type: ignore[arg-type]
    assert "nobody" in server.questions[1].text and "none that stays" in server.questions[1].text


# Faults


RETRY_INFO = {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "13s"}
PER_DAY = {"@type": "type.googleapis.com/google.rpc.QuotaFailure", "violations": [{"quotaId": "GenerateRequestsPerDayPerProject-FreeTier"}]}
BAD_KEY = {"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "API_KEY_INVALID"}
EXHAUSTED = "RESOURCE_EXHAUSTED"
PASSING: list[tuple[str, Reply, float]] = [
    ("openai", Reply(fault="hang"), 1.0),
    ("openai", refuses(429, "slow down", Retry_After="7"), 7.0),
    ("openai", refuses(500, f"oops {KEY}"), 1.0),
    ("openai", Reply(says("x").body, fault="half"), 1.0),
    ("openai", Reply(fault="drop"), 1.0),
    ("openai", Reply("no JSON"), 1.0),
    ("gemini", gemini_refuses(429, "slow down", EXHAUSTED, RETRY_INFO), 13.0),
    ("gemini", gemini_refuses(429, "slow down", EXHAUSTED, RETRY_INFO, Retry_After="4"), 4.0),
    ("gemini", gemini_refuses(429, "slow down", EXHAUSTED, {"retryDelay": "2.5s"}), 2.5),
    ("gemini", gemini_refuses(429, "slow down", EXHAUSTED, {"retryDelay": "soon"}), 1.0),
    ("gemini", gemini_refuses(503, "The model is overloaded", "UNAVAILABLE"), 1.0),
    ("gemini", Reply(gemini_says("x").body, fault="half"), 1.0),
]


@pytest.mark.parametrize(("kind", "fault", "wait"), PASSING, ids=lambda case: str(case)[:25])
def test_faults_that_pass_are_waited_for(desk: Desk, kind: str, fault: Reply, wait: float) -> None:
    changes = {"kind": kind, "timeout_seconds": 0.2 if fault.fault == "hang" else 5.0}
    captions, error, server = desk.caption(fault, good, **changes)
    assert captions == GOOD, error
    assert desk.waits == [wait] and len(server.questions) == 4 and desk.said[0].endswith(f"; try 2 of 2 in {wait:.0f} s")


def test_three_groups_in_a_row_that_fail_for_the_moment_stop_it(desk: Desk) -> None:
    with ChatServer(refuses(503, "overloaded")) as server, desk.open(server) as captioner:
        for number in range(2):
            with pytest.raises(CaptionLaterError, match="tried 2 times"):
                captioner.caption(group(number))
        with pytest.raises(CaptionerStoppedError, match="3 groups in a row"):
            captioner.caption(group(2))
        with pytest.raises(CaptionerStoppedError, match="3 groups in a row"):
            captioner.caption(group(3))
    assert len(server.questions) == 6
    fault = refuses(503, "overloaded")
    with ChatServer(fault, fault, fault, fault, good, fault, fault, good) as server, desk.open(server) as captioner:
        for number in range(2):
            with pytest.raises(CaptionLaterError):
                captioner.caption(group(number))
        with pytest.raises(CaptionLaterError):  # its cast was answered, so this is the first in a row
            captioner.caption(group(2))
        assert captioner.caption(group(2)) == GOOD


GONE: list[tuple[str, Reply, str]] = [
    ("openai", refuses(401, f"Incorrect API key provided: {KEY}"), "refuses the key (401: Incorrect API key provided: …)"),
    ("openai", refuses(403, f"{'x' * 150} {KEY}"), "refuses the key"),
    ("openai", Reply({"error": {"message": "no credit", "code": "insufficient_quota"}}, 429), "quota is spent"),
    ("openai", refuses(402, "Insufficient Balance"), "402: Insufficient Balance"),
    ("openai", refuses(404, "The model `tiny` does not exist"), "has no such address or model"),
    ("openai", Reply({"error": {"message": "no tiny", "code": "model_not_found"}}, 400), "has no such address or model"),
    ("openai", refuses(429, "slow down", Retry_After="3600"), "asks to wait 3600 s"),
    ("openai", Reply("<html>Welcome</html>"), "answers with a web page"),
    (
        "gemini",
        gemini_refuses(400, f"API key not valid: {KEY}", "INVALID_ARGUMENT", BAD_KEY),
        "refuses the key (400: API key not valid: …)",
    ),
    ("gemini", gemini_refuses(403, "no permission", "PERMISSION_DENIED"), "refuses the key"),
    ("gemini", gemini_refuses(404, "models/tiny is not found", "NOT_FOUND"), "has no such address or model"),
    ("gemini", gemini_refuses(429, "quota", EXHAUSTED, PER_DAY, RETRY_INFO), "quota is spent"),
    ("gemini", gemini_refuses(400, "User location is not supported", "FAILED_PRECONDITION"), "User location is not supported"),
]


@pytest.mark.parametrize(("kind", "fault", "words"), GONE, ids=lambda case: str(case)[:25])
def test_an_endpoint_of_no_use_stops_at_once(desk: Desk, kind: str, fault: Reply, words: str) -> None:
    _, error, server = desk.caption(fault, kind=kind)
    assert error.startswith("CaptionerStoppedError: ") and words in error and len(server.questions) == 1 and desk.waits == []


REFUSED: list[tuple[str, Reply, str]] = [
    ("openai", Reply({"error": {"message": "not this", "code": "content_policy_violation"}}, 400), "refuses the question (400: not this)"),
    ("openai", Reply({"error": {"message": "not this", "code": "flagged_input"}}, 403), "(403: not this)"),
    ("openai", says(None, refusal="I will not look at that."), "the model refuses: I will not look at that."),
    ("openai", says("", "content_filter"), "empty text (it stopped for 'content_filter')"),
    ("openai", refuses(413, "too many pictures"), "413: too many pictures"),
    ("gemini", Reply({"promptFeedback": {"blockReason": "PROHIBITED_CONTENT"}}), "blocked for PROHIBITED_CONTENT"),
    ("gemini", Reply({"candidates": [{"finishReason": "SAFETY", "index": 0}]}), "empty text (it stopped for 'SAFETY')"),
    ("gemini", gemini_says("", "MAX_TOKENS"), "empty text (it stopped for 'MAX_TOKENS')"),
]


@pytest.mark.parametrize(("kind", "fault", "words"), REFUSED, ids=lambda case: str(case)[:25])
def test_a_question_that_is_refused_costs_only_its_group(desk: Desk, kind: str, fault: Reply, words: str) -> None:
    with ChatServer(fault, good) as server, desk.open(server, kind) as captioner:
        with pytest.raises(CaptionError) as caught:
            captioner.caption(group(0))
        assert words in str(caught.value) and type(caught.value) is CaptionError and len(server.questions) == 1
        assert captioner.caption(group(1)) == GOOD


def test_answers_of_gemini_that_are_no_answers(desk: Desk) -> None:
    for nothing in ({}, {"candidates": []}, {"candidates": "x"}, [], {"error": {"message": f"hm {KEY}"}}):
        _, error, _ = desk.caption(Reply(nothing), kind="gemini")
        assert error.startswith("CaptionLaterError: ") and "answers without candidates[0]" in error
    captions, _, server = desk.caption(gemini_says('{"characters": {', "MAX_TOKENS"), good, kind="gemini")
    assert captions == GOOD and "was cut off (MAX_TOKENS); write it shorter" in server.questions[1].text


def test_gemini_without_schemas_is_asked_in_another_form(desk: Desk) -> None:
    unknown = gemini_refuses(400, 'Unknown name "responseJsonSchema" at generation_config: Cannot find field.')
    captions, _, server = desk.caption(unknown, gemini_refuses(400, "JSON mode is not enabled for models/tiny"), good, kind="gemini")
    assert captions == GOOD and len(server.questions) == 5
    assert [list(question.data.get("generationConfig", {})) for question in server.questions[:3]] == [
        ["responseMimeType", "responseJsonSchema"],
        ["responseMimeType"],
        [],
    ]


def test_an_endpoint_that_dies_halfway_is_resumed_without_asking_twice(desk: Desk) -> None:
    with ChatServer(good) as server, desk.open(server) as captioner:
        captioner.caption(group(0))
    dead = refuses(401, "expired")
    with ChatServer(good, good, dead) as server, desk.open(server) as captioner:
        assert captioner.caption(group(0)) == GOOD
        for number in (1, 2):
            with pytest.raises(CaptionerStoppedError, match="refuses the key"):
                captioner.caption(group(number))
    assert len(server.questions) == 3  # the cast, the first shot, and the key that was refused; nothing for the last group
    with ChatServer(good) as server, desk.open(server) as captioner:
        assert [captioner.caption(group(number)) for number in range(3)] == [GOOD] * 3
        assert captioner.summary()["requests"] == 3 + 3 + 4
    assert len(server.questions) == 1 + 3
    with desk.open(server) as captioner:  # gone altogether
        assert captioner.caption(group(2)) == GOOD
        with pytest.raises(CaptionerStoppedError, match="cannot be reached"):
            captioner.caption(group(3))
        assert captioner.summary()["requests_now"] == 0


def test_the_key_is_seen_by_nobody(desk: Desk, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]) -> None:
    caplog.set_level(logging.DEBUG)
    echo = FINE | {"prompt": f"Actor1 says {KEY}.", "characters": ["Actor1"]}
    for kind in ("openai", "gemini"):
        for fault in (refuses(500, KEY), refuses(400, KEY), Reply(f"{'y' * 50}{KEY}"), Reply({"you sent": KEY}), Reply(KEY, 418)):
            desk.caption(fault, kind=kind)
        captions, _, server = desk.caption(shot_answers(echo, echo), kind=kind)
        assert captions and captions.prompts[0] == "Actor1 says …."
        wrong = echo | {"characters": [f"Actor{KEY}"], "prompt": 3}
        desk.caption(shot_answers(wrong, wrong), kind=kind, model="other")
        with desk.open(server, kind) as captioner:
            assert KEY not in repr(captioner) + repr(vars(captioner)) + captioner.name + repr(captioner.summary())
    printed = capfd.readouterr()
    assert KEY not in caplog.text + printed.out + printed.err
    assert KEY not in repr(CaptionerSettings("openai", "tiny", key=KEY))
    with pytest.raises(InputError) as caught:
        open_captioner(CaptionerSettings("openai", "tiny", "http://there/v1", key=f"{KEY} x"), desk.folder)
    assert KEY not in str(caught.value)


# Budget and pace


def test_a_spent_number_of_requests_stops_and_goes_on_when_raised(desk: Desk) -> None:
    with ChatServer(good) as server, desk.open(server, max_requests=5) as captioner:
        captioner.caption(group(0))
        with pytest.raises(CaptionerStoppedError, match="5 requests were made, as many as --max-requests 5 allows; raise it to go on"):
            captioner.caption(group(1))
    _, error, server = desk.caption(good, max_requests=5)
    assert not error and not server.questions  # kept answers are free
    with ChatServer(good) as server, desk.open(server, max_requests=6) as captioner:
        assert captioner.caption(group(1)) == GOOD
    assert len(server.questions) == 1


def test_threads_never_make_more_requests_than_allowed(desk: Desk) -> None:
    with ChatServer(good) as server, desk.open(server, max_requests=5) as captioner, ThreadPoolExecutor(4) as pool:
        results = [pool.submit(captioner.caption, group(number)) for number in range(8)]
        stopped = [isinstance(result.exception(), CaptionerStoppedError) for result in results]
    assert len(server.questions) == 5 == len((desk.folder / "requests.jsonl").read_text().splitlines()) and sum(stopped) >= 7


def test_threads_never_spend_more_than_allowed(desk: Desk) -> None:
    with ChatServer(good) as server, desk.open(server, max_cost=0.2, **PRICES) as captioner, ThreadPoolExecutor(4) as pool:
        results = [pool.submit(captioner.caption, group(number, num_shots=5)) for number in range(40)]
        stopped = [isinstance(result.exception(), CaptionerStoppedError) for result in results]
    assert any(stopped) and 0.1 < captioner.summary()["cost"] <= 0.2


def test_a_price_that_is_reached_stops(desk: Desk) -> None:
    with ChatServer(good) as server, desk.open(server, max_cost=0.05, **PRICES) as captioner:
        number = 0
        with pytest.raises(CaptionerStoppedError, match=r"are spent, and the next request may cost .* --max-cost 0.05 allows; raise it"):
            while True:
                captioner.caption(group(number))
                number += 1
        cost = captioner.summary()["cost"]
    assert number >= 3 and 0.02 < cost < 0.05 and cost == pytest.approx(len(server.questions) * 0.0015)
    with ChatServer(good) as server, desk.open(server, max_cost=0.05, **PRICES) as captioner:
        with pytest.raises(CaptionerStoppedError):
            captioner.caption(group(99))
        assert not server.questions and captioner.summary()["cost"] == pytest.approx(cost)


def test_what_costs_something(desk: Desk) -> None:
    """Errors are free; an answer that was lost on the way, or without a word of tokens, is estimated upwards."""

    def spent(*replies: Reply | Callable[[Question], Reply], **changes: Any) -> dict[str, Any]:
        desk.folder = desk.folder.parent / f"{len(list(desk.folder.parent.iterdir()))}"
        with ChatServer(*replies) as server, desk.open(server, **PRICES, **changes) as captioner:
            with pytest.raises((CaptionError, CaptionerStoppedError)):
                captioner.caption(group())
            return dict(captioner.summary())

    free = spent(refuses(500, "oops"))
    assert (free["requests"], free["cost"], free["estimated"]) == (2, 0.0, 0)
    lost = spent(Reply(fault="drop"))
    assert lost["requests"] == lost["estimated"] == 2 and lost["tokens_in"] > 2 * (4 * 3000 + 3000) and lost["tokens_out"] == 2000
    silent = spent(says("no JSON at all"))
    assert silent["estimated"] == 2 and silent["tokens_out"] == 2 * len("no JSON at all") and silent["tokens_in"] > 2 * 4 * 3000
    blocked = spent(Reply({"promptFeedback": {"blockReason": "OTHER"}, "usageMetadata": {"promptTokenCount": 700}}), kind="gemini")
    assert blocked["tokens_in"] == 700 and blocked["estimated"] == 1


def test_the_ledger_survives_damage(desk: Desk) -> None:
    desk.caption(good)
    ledger = desk.folder / "requests.jsonl"
    rows = [json.loads(line) for line in ledger.read_text().splitlines()]
    assert set(rows[0]) == {"time", "model", "outcome", "tokens_in", "tokens_out", "estimated", "cost"} and rows[0]["cost"] is None
    ledger.write_text(ledger.read_text() + '[]\n{"time": "2026-01-0')
    with ChatServer(good) as server, desk.open(server, **PRICES) as captioner:
        assert captioner.summary()["requests"] == 5 and captioner.summary()["cost"] == pytest.approx(0.0045)  # at the price of today
        captioner.caption(group(1))
    with desk.open(server) as captioner:
        assert captioner.summary()["requests"] == 8 and captioner.summary()["tokens_in"] == 6000


def test_requests_keep_an_even_pace(desk: Desk) -> None:
    with ChatServer(good) as server, desk.open(server, requests_per_minute=30.0) as captioner:
        captioner.caption(group())
    assert desk.waits == [2.0, 4.0]  # the clock of this test stands still


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"max_cost": 1.0}, "--max-cost: got no prices"),
        ({"max_cost": 1.0, "price_in": 1.0}, "--max-cost: got no prices"),
        ({"max_cost": -1.0} | PRICES, "--max-cost: got -1"),
        ({"price_in": float("nan")}, "--price-in: got nan"),
        ({"max_requests": -1}, "--max-requests: got -1"),
        ({"requests_per_minute": 0.0}, "--requests-per-minute: got 0"),
        ({"kind": "gemni"}, "captioner: got 'gemni', expected openai, gemini, local"),
        ({"at_once": 0}, "groups at once: got 0"),
        ({"base_url": ""}, "begin with http:// or https://"),
        ({"model": ""}, "model: got nothing"),
        ({"limits": (2, 20)}, "words of a prompt and a description"),
    ],
)
def test_settings_that_cannot_be_meant(desk: Desk, change: dict[str, Any], words: str) -> None:
    with ChatServer(good) as server, pytest.raises((InputError, EndpointError)) as caught:
        limits = {"limits": Limits(*change["limits"])} if "limits" in change else {}
        desk.open(server, **change | limits)
    assert words in str(caught.value)


def test_a_shot_without_pictures(desk: Desk) -> None:
    shot = ShotView("s", Path("film.mp4"), 0, 48, 24.0, (), {})
    with ChatServer(good) as server, desk.open(server) as captioner, pytest.raises(CaptionError, match="without pictures"):
        captioner.caption(GroupView("g", (shot,)))
    assert not server.questions
