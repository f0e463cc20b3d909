"""An idea becomes a storyboard that is checked, repaired once, and never lost."""

import json
from typing import Any

import pytest

from chat_server import ChatServer, Reply, refuses, says
from mask2dit.chat import ChatClient, Endpoint
from mask2dit.errors import EndpointError, InputError
from mask2dit.playhouse.captions import unknown_words, words
from mask2dit.storyboard import Storyboard
from mask2dit.storyboard_writer import RejectedError, Vocabulary, Written, answer_schema, instruction, write_storyboard

GOOD = {
    "title": "The kite",
    "characters": {"Actor1": "a boy in a green coat"},
    "scenes": [{"prompt": "Actor1 flies a kite on a hill by day."}, {"prompt": "Actor1 climbs a tree at sunset."}],
}
LONG = {**GOOD, "scenes": [*GOOD["scenes"], {"prompt": "Actor1 goes home."}]}  # type: ignore[misc]
BAD = {**GOOD, "scenes": [{"prompt": "Actor1 flies a kite"}, {"promt": "Actor1 climbs"}]}
LOOSE = {**GOOD, "characters": {**GOOD["characters"], "Actor2": "a grey cat"}}  # type: ignore[dict-item]


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


class Asked:
    """What comes of an idea when the endpoint replies like this."""

    def __init__(self, *replies: Any, scenes: int = 2, vocabulary: Vocabulary | None = None) -> None:
        self.server = ChatServer(*(reply if isinstance(reply, Reply) else says(json.dumps(reply)) for reply in replies))
        self.written: Written | None = None
        self.error, self.kept = "", ()
        with self.server, ChatClient(Endpoint(self.server.url, "tiny", tries=1)) as client:
            try:
                self.written = write_storyboard(client, "a boy and a kite", scenes, vocabulary)
            except EndpointError as error:
                self.error = str(error)
                self.kept = error.answers if isinstance(error, RejectedError) else ()
        assert "\n" not in self.error

    def said(self, question: int) -> list[str]:
        return [message["content"] for message in self.server.questions[question].data["messages"]]


def test_a_good_answer_is_taken_at_once() -> None:
    asked = Asked(GOOD)
    assert asked.written == Written(Storyboard.from_data(GOOD), ())
    system, idea = asked.said(0)
    assert system == instruction() and "a boy and a kite" in idea and "exactly 2 scenes" in idea
    form = asked.server.questions[0].data["response_format"]["json_schema"]
    assert form == {"name": "storyboard", "strict": False, "schema": answer_schema(2)}


def test_the_schema_is_ours_without_what_a_writer_should_not_decide() -> None:
    schema = answer_schema(3)
    assert list(schema["properties"]) == ["title", "characters", "scenes"] == schema["required"]
    assert schema["properties"]["characters"] == {"type": "object", "additionalProperties": {"type": "string"}}
    scenes = schema["properties"]["scenes"]
    assert (scenes["minItems"], scenes["maxItems"], list(scenes["items"]["properties"])) == (3, 3, ["prompt"])
    assert "$ref" not in json.dumps(schema)


def test_the_instruction_keeps_to_its_own_rules() -> None:
    text = instruction()
    example = Storyboard.from_data(json.loads(text[text.index("\n{") :]))
    assert len(example.scenes) == 3 and all(example.cast_of(index) == {"Actor1"} for index in range(3))
    for word in ("JSON", '"title"', '"characters"', '"scenes"', '"prompt"', "stands alone", "one clear event"):
        assert word in text


@pytest.mark.parametrize(
    "around",
    [
        "{}",
        "Here is your storyboard:\n```json\n{}\n```\nHave fun!",
        "<think>What about {{this}}?\n</think>\n{}",
        'As {{"asked"}} and {{"a": 1}}: {}',
    ],
)
def test_an_answer_among_other_words(around: str) -> None:
    asked = Asked(says(around.format(json.dumps(GOOD))))
    assert asked.written and asked.written.storyboard == Storyboard.from_data(GOOD)


@pytest.mark.parametrize(
    ("wrong", "problem"),
    [
        (BAD, "scene 2: got the unknown key 'promt', expected prompt"),
        (LONG, "scenes: got 3, expected 2"),
        ({"title": "x"}, "scenes: got nothing"),
        ({"storyboard": GOOD}, "got the unknown key 'storyboard'"),
        (LOOSE, "character 'Actor2' is described, and no prompt names it"),
        (says("I would rather write a poem."), "the answer holds no whole JSON object"),
        (says(json.dumps(GOOD)[:-20], "length"), "the answer was cut off (length); write it shorter"),
        (says('{"a":' * 2000), "the answer holds no whole JSON object"),
    ],
    ids=range(8),
)
def test_what_is_wrong_is_sent_back_once(wrong: Any, problem: str) -> None:
    asked = Asked(wrong, GOOD)
    assert asked.written == Written(Storyboard.from_data(GOOD), ())
    first, repair = asked.said(1)[2:]
    assert first == (wrong.body["choices"][0]["message"]["content"] if isinstance(wrong, Reply) else json.dumps(wrong))
    assert problem in repair and "exactly 2 scenes" in repair and len(asked.server.questions) == 2


def test_what_cannot_be_used_is_kept() -> None:
    asked = Asked(BAD, LONG)
    assert asked.kept == (json.dumps(BAD), json.dumps(LONG)) and len(asked.server.questions) == 2
    assert asked.error.startswith(f"{asked.server.url}: ") and "also after one repair: scenes: got 3, expected 2" in asked.error
    asked = Asked(BAD, refuses(500, "oops"))
    assert asked.kept == (json.dumps(BAD),) and "asked for a repair" in asked.error and "cannot answer (500: oops)" in asked.error
    asked = Asked(Reply("", fault="drop"))
    assert asked.kept == () and "broke off" in asked.error


def test_the_better_answer_counts() -> None:
    for replies in ((LOOSE, BAD), (LOOSE, refuses(500, "oops")), (BAD, LOOSE), (LOOSE, LOOSE)):
        asked = Asked(*replies)
        assert asked.written and asked.written.storyboard == Storyboard.from_data(LOOSE)
        assert asked.written.problems[0] == "character 'Actor2' is described, and no prompt names it"
    assert "oops" in Asked(LOOSE, refuses(500, "oops")).written.problems[1]  # type: ignore[union-attr]


def test_a_model_with_few_words() -> None:
    vocabulary = Vocabulary(words(), ["Actor1 (a red fox) jumps on the beach."], unknown_words)
    known = {"title": "Owl", "characters": {"Actor1": "a white owl"}, "scenes": [{"prompt": "Actor1 flies in the forest at night."}]}
    strange = {**known, "characters": {"Actor1": "a wise owl"}, "scenes": [{"prompt": "Actor1 ponders in the forest."}]}
    asked = Asked(strange, known, scenes=1, vocabulary=vocabulary)
    assert asked.written == Written(Storyboard.from_data(known), ())
    idea, repair = asked.said(1)[1], asked.said(1)[3]
    assert "snowfield" in idea and "Actor1 (a red fox) jumps on the beach." in idea
    assert "scene 1: the model does not know: wise, ponders" in repair
    asked = Asked(strange, scenes=1, vocabulary=vocabulary)
    assert asked.written and asked.written.problems == ("scene 1: the model does not know: wise, ponders",)


def test_what_cannot_be_asked() -> None:
    with ChatClient(Endpoint("http://localhost:1/v1", "tiny")) as client:
        for idea, scenes in ((" ", 2), ("a fox", 0), ("a fox", 101)):
            with pytest.raises(InputError):
                write_storyboard(client, idea, scenes)
        with pytest.raises(EndpointError, match="cannot be asked"):
            write_storyboard(client, "a broken \ud83d fox", 2)
