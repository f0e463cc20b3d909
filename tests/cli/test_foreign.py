"""`mask2dit import`, `export` and `write`: what they print, what they write, and what they leave alone."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from typer.testing import Result

from chat_server import ChatServer, Reply, says
from mask2dit.cli.export import Target
from mask2dit.cli.import_ import Format
from mask2dit.foreign_storyboards import FORMATS
from mask2dit.playhouse.captions import words
from mask2dit.storyboard import Scene, Storyboard

Command = Callable[..., Result]
KEY = "sk-very-secret-7f3a9c"
BOARD = Storyboard(
    title="T", characters={"Actor1": "a red fox"}, scenes=[Scene(prompt="Actor1 runs.", num_frames=49), Scene(prompt="It rains.")]
)
GOOD = {"title": "Fox", "characters": {"Actor1": "a red fox"}, "scenes": [{"prompt": "Actor1 jumps on the beach at sunset."}]}


def fails(result: Result, status: int, *said: str) -> None:
    """One line, no traceback."""
    last = result.stderr.splitlines()[-1]
    assert result.exit_code == status and last.startswith("error: ") and "Traceback" not in result.stderr, result.stderr
    for part in said:
        assert part in last


def test_the_formats_have_the_same_names_everywhere() -> None:
    assert [one.value for one in Format] == ["auto", *FORMATS] and [one.value for one in Target] == list(FORMATS)


def test_import(command: Command) -> None:
    Path("film.json").write_text('[{"prompt": "a fox", "duration": 2, "mood": "sad"}]')
    shown = command("import", "film.json")
    assert shown.exit_code == 0 and shown.stderr == "note: read as a list of prompts: 1 scene\nnote: left out: mood\n"
    assert shown.stdout == "scenes:\n  - prompt: a fox\n    duration_seconds: 2.0\n"
    result = command("import", "film.json", "-o", "new/story.yaml")
    assert result.exit_code == 0 and "mask2dit generate new/story.yaml" in result.stdout
    assert Storyboard.read("new/story.yaml").scenes == (Scene(prompt="a fox", duration_seconds=2.0),)


@pytest.mark.parametrize("format", list(FORMATS))
def test_export_and_import(format: str, command: Command) -> None:
    BOARD.write("story.yaml")
    result = command("export", "story.yaml", "--format", format, "--fps", 8, "-o", "foreign")
    assert (
        result.exit_code == 0
        and result.stdout == "Wrote foreign\n"
        and all(line.startswith("note: ") for line in result.stderr.splitlines())
    )
    assert command("export", "story.yaml", "--format", format, "--fps", 8).stdout == Path("foreign").read_text()
    assert command("import", "foreign", "-o", "again.yaml").exit_code == 0
    again = Storyboard.read("again.yaml")
    assert again.captions == (BOARD.captions if format.startswith("holocine") else ("Actor1 (a red fox) runs.", "It rains."))


def test_files_are_not_replaced_unasked(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:1/v1")
    BOARD.write("story.yaml")
    Path("old").write_text("old")
    commands = (("import", "story.yaml"), ("export", "story.yaml", "--format", "list", "--fps", "8"), ("write", "a fox", "--model", "tiny"))
    for words_ in commands:
        fails(command(*words_, "-o", "old"), 2, "old: exists already", "--overwrite")
        fails(command(*words_, "-o", "."), 2, "is a folder")
        assert Path("old").read_text() == "old"
    for words_ in commands[:2]:
        assert command(*words_, "-o", "old", "--overwrite").exit_code == 0 and Path("old").read_text() != "old"
    assert sorted(path.name for path in Path().iterdir()) == ["old", "story.yaml"]


def test_mistakes_with_import_and_export(command: Command) -> None:
    BOARD.write("story.yaml")
    Path("odd.json").write_text('{"story_overview": 3}')
    fails(command("import", "odd.json", "-o", "new.yaml"), 2, "odd.json: StoryMem, scenes: got nothing")
    fails(command("import", "absent.json"), 2, "there is no such file")
    fails(command("import", "odd.json", "--fps", "0"), 2, "fps: got 0")
    fails(command("import", "odd.json", "--format", "premiere"), 2, "premiere")
    fails(command("export", "story.yaml"), 2, "--format")
    fails(command("export", "story.yaml", "--format", "list", "-o", "new.json"), 2, "scene 1: its length is in frames", "--fps 16")
    fails(command("export", "odd.json", "--format", "list"), 2, "odd.json: got the unknown key 'story_overview'")
    Path("file").write_text("")
    fails(command("export", "story.yaml", "--format", "wan2gp", "-o", "file/below"), 1, "file/below: cannot be written")
    assert sorted(path.name for path in Path().iterdir()) == ["file", "odd.json", "story.yaml"]


# Writing


@pytest.fixture
def endpoint(monkeypatch: pytest.MonkeyPatch) -> Iterator[ChatServer]:
    for name in ("OPENAI_BASE_URL", "OPENAI_API_KEY", "MASK2DIT_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with ChatServer(says(json.dumps(GOOD))) as server:
        yield server


def test_write(command: Command, endpoint: ChatServer, monkeypatch: pytest.MonkeyPatch) -> None:
    told = ("write", "a fox by the sea", "--scenes", 1, "--model", "tiny")
    result = command(*told, "--base-url", endpoint.url, "-o", "story.yaml")
    assert result.exit_code == 0 and "mask2dit generate story.yaml" in result.stdout and result.stderr == ""
    assert Storyboard.read("story.yaml") == Storyboard.from_data(GOOD)
    monkeypatch.setenv("OPENAI_BASE_URL", endpoint.url)
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    assert command(*told).stdout == Storyboard.from_data(GOOD).to_yaml()
    monkeypatch.setenv("MASK2DIT_API_KEY", f" {KEY}-2\n")
    command(*told)
    monkeypatch.setenv("OTHER", f"{KEY}-3")
    command(*told, "--key-env", "OTHER")
    keys = [question.headers.get("authorization") for question in endpoint.questions]
    assert keys == [None, f"Bearer {KEY}", f"Bearer {KEY}-2", f"Bearer {KEY}-3"]


def test_write_in_the_built_in_models_words(command: Command, endpoint: ChatServer) -> None:
    strange = {**GOOD, "scenes": [{"prompt": "Actor1 yodels on the beach."}]}
    endpoint.replies = [says(json.dumps(strange))]
    result = command("write", "a fox", "--scenes", 1, "--model", "tiny", "--base-url", endpoint.url, "--built-in-words", "-o", "story.yaml")
    assert result.exit_code == 0 and result.stderr == "note: scene 1: the model does not know: yodels\n"
    assert Storyboard.read("story.yaml") == Storyboard.from_data(strange)
    asked = endpoint.questions[0].data["messages"][1]["content"]
    assert " ".join(words()) in asked and len(re.findall("^- ", asked, re.MULTILINE)) == 12


def test_an_answer_that_cannot_be_used_is_kept(command: Command, endpoint: ChatServer) -> None:
    endpoint.replies = [says("Once upon a time \ud83d"), says('{"scenes": []}')]
    told = ("write", "a fox", "--model", "tiny", "--base-url", endpoint.url, "-o", "films/story.yaml")
    fails(command(*told), 1, "scenes: got an empty list", "what it answered is in films/story.rejected.txt")
    kept = Path("films/story.rejected.txt").read_text()
    assert "answer 1 of 2\nOnce upon a time \\ud83d\n" in kept and '{"scenes": []}' in kept
    fails(command(*told), 1, "films/story.rejected-2.txt")
    assert Path("films/story.rejected.txt").read_text() == kept and not Path("films/story.yaml").exists()
    fails(command(*told[:-2]), 1, "what it answered is in story.rejected.txt")
    Path("file").write_text("")
    full = command(*told[:-1], "file/story.yaml")
    fails(full, 1, "stands above")
    assert '{"scenes": []}' in full.stdout


def test_a_story_that_cannot_be_written_down_is_shown(command: Command, endpoint: ChatServer) -> None:
    Path("file").write_text("")
    result = command("write", "a fox", "--scenes", 1, "--model", "tiny", "--base-url", endpoint.url, "-o", "file/story.yaml")
    fails(result, 1, "file/story.yaml: cannot be written")
    assert result.stdout == Storyboard.from_data(GOOD).to_yaml()


def test_mistakes_with_write(command: Command, endpoint: ChatServer, monkeypatch: pytest.MonkeyPatch) -> None:
    told = ("write", "a fox", "--base-url", endpoint.url, "--model", "tiny", "-o", "story.yaml")
    fails(command("write", "a fox", "--model", "tiny"), 2, "--base-url or OPENAI_BASE_URL")
    fails(command(*told[:4]), 2, "--model")
    fails(command(*told[:2], "--base-url", "localhost:8000", *told[4:]), 2, "begin with http://")
    fails(command("write", " ", *told[2:]), 2, "idea: got an empty text")
    fails(command(*told, "--scenes", 0), 2, "--scenes")
    fails(command(*told, "--key-env", "NO_SUCH_KEY"), 2, "'NO_SUCH_KEY'")
    monkeypatch.setenv("OPENAI_API_KEY", f"{KEY} and a comment")
    result = command(*told)
    fails(result, 2, "key: got spaces")
    assert KEY not in result.output
    assert endpoint.questions == [] and list(Path().iterdir()) == []
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    endpoint.replies = [Reply({"error": {"message": f"{KEY} is not a key"}}, 401)]
    result = command(*told)
    fails(result, 1, "refuses the key (401: … is not a key)")
    assert KEY not in result.output and list(Path().iterdir()) == []


@pytest.mark.parametrize(
    "words_",
    [["import", "story.yaml"], ["export", "story.yaml", "--format", "wan2gp"], ["write", "--help"], ["write", "a fox"]],
    ids=" ".join,
)
def test_they_need_no_torch(words_: list[str], tmp_path: Path) -> None:
    BOARD.write(tmp_path / "story.yaml")
    code = f"import sys; from mask2dit.cli.main import app; app({words_}, standalone_mode=False); sys.exit('torch' in sys.modules)"
    environment = {name: value for name, value in os.environ.items() if not name.startswith("OPENAI_")}
    assert subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, timeout=60, env=environment).returncode == 0
