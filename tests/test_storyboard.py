"""Storyboard: what is written comes back as it was, and every mistake is told in one line with place, expectation and remedy."""

import json
import random
import subprocess
import sys
from pathlib import Path

import pytest

from mask2dit.errors import Mask2DiTError, OutputError, StoryboardError
from mask2dit.storyboard import Scene, Storyboard


def message(text: str, folder: Path, name: str = "story.yaml") -> str:
    """The error of reading `text`, checked to be one line that names the file."""
    path = folder / name
    path.write_text(text, encoding="utf-8")
    with pytest.raises(StoryboardError) as caught:
        Storyboard.read(path)
    line = str(caught.value)
    assert "\n" not in line and len(line) < 400
    assert line.startswith(f"{path}: ")
    return line.removeprefix(f"{path}: ")


def scene(lines: str) -> str:
    return "scenes:\n  - prompt: a fox\n" + "".join(f"    {line}\n" for line in lines.splitlines())


MISTAKES = [
    ("", "is empty"),
    ("  \n\n", "is empty"),
    ("just a text", "got 'just a text'", "mapping"),
    ("- a\n- b", "got a list", "begin with `scenes:`"),
    ("title: x", "scenes: got nothing", "at least one scene"),
    ("scenes:", "scenes: got nothing"),
    ("scenes: []", "scenes: got an empty list"),
    ("scenes: {a: b}", "scenes: got a mapping"),
    ("scenes: [a fox]", "scene 1: got 'a fox'", "`- prompt: …`"),
    ("scenes:\n  - prompt: a\n  - prompt: ''", "scene 2, prompt: got an empty text", "write a sentence"),
    ("scenes:\n  - prompt: '  '", "scene 1, prompt: got an empty text"),
    ("scenes:\n  - prompt:", "scene 1, prompt: got nothing"),
    ("scenes:\n  - seed: 3", "scene 1, prompt: got nothing"),
    ("scenes:\n  - prompt: yes", "scene 1, prompt: got true", "needs quotes"),
    ("scenes:\n  - prompt: 3", "scene 1, prompt: got 3"),
    ("title: 2001\n" + scene(""), "title: got 2001", "quotes"),
    ("titel: x\n" + scene(""), "got the unknown key 'titel'", "did you mean 'title'?"),
    ("scenes:\n  - promt: x", "scene 1: got the unknown key 'promt'", "did you mean 'prompt'?"),
    (scene("frames: 9"), "unknown key 'frames'", "did you mean 'num_frames'?"),
    (scene("duration: 9"), "unknown key 'duration'", "did you mean 'duration_seconds'?"),
    (scene("zzz: 9"), "unknown key 'zzz'", "remove it"),
    ("1: 2\n" + scene(""), "got the unknown key 1"),
    (scene("num_frames: 10"), "scene 1, num_frames: got 10", "4k+1", "use 9 or 13"),
    (scene("num_frames: 2"), "use 1 or 5"),
    (scene("num_frames: 0"), "num_frames: got 0"),
    (scene("num_frames: -3"), "num_frames: got -3"),
    (scene("num_frames: true"), "num_frames: got true"),
    (scene("num_frames: 9.0"), "num_frames: got 9.0"),
    (scene("num_frames: '9'"), "num_frames: got '9'"),
    (scene("num_frames: 400000000000000001"), "num_frames: got 400000000000000001"),
    (scene("duration_seconds: 0"), "scene 1, duration_seconds: got 0", "over 0"),
    (scene("duration_seconds: -1.5"), "duration_seconds: got -1.5"),
    (scene("duration_seconds: .nan"), "duration_seconds: got nan"),
    (scene("duration_seconds: .inf"), "duration_seconds: got inf"),
    (scene("duration_seconds: 1.0e+300"), "duration_seconds: got 1e+300"),
    (scene("duration_seconds: true"), "duration_seconds: got true"),
    (scene("duration_seconds: 3\nnum_frames: 9"), "scene 1: got both duration_seconds and num_frames", "remove one"),
    (scene("seed: -1"), "seed: got -1"),
    (scene("seed: true"), "seed: got true"),
    (scene("seed: 9223372036854775808"), "seed: got 9223372036854775808"),
    (scene("seed: " + "9" * 60), "too many digits"),
    (scene("seed: " + "9" * 6000), "digits"),
    (scene("guidance_scale: .nan"), "guidance_scale: got nan"),
    (scene("guidance_scale: -2"), "guidance_scale: got -2"),
    (scene("guidance_scale: high"), "guidance_scale: got 'high'"),
    (scene("negative_prompt: 5"), "negative_prompt: got 5"),
    ("characters: [a]\n" + scene(""), "characters: got a list", "Name: description"),
    ("characters: {Fox: }\n" + scene(""), "character 'Fox': got nothing", "description"),
    ("characters: {1: a fox}\n" + scene(""), "character 1: got 1", "name"),
    ("scenes: [", "line 1: ", "YAML"),
    ("scenes:\n  - prompt: a: b", "line 2: ", "check quotes"),
    ("scenes:\n\t- prompt: a", "line 2: "),
    (scene("prompt: twice"), "line 3: got the key 'prompt' twice"),
    ("a: 1\n---\nb: 2", "line 2: expected a single document"),
    ("scenes:\n  - prompt: \x07", "line 2: got a control character"),
    ("a: 2020-99-99", "YAML"),
    ("? [a]\n: b", "line 1: "),
    ("!!python/object:os.system {}", "line 1: "),
    ("[" * 100_000, "nested too deeply"),
    ("a: &a [x, x]\nb: &b [*a, *a]\nscenes: [{prompt: *b}]", "unknown key 'a'"),
]


@pytest.mark.parametrize("case", MISTAKES, ids=lambda case: case[0][:30])
def test_mistakes_in_yaml_are_told_in_one_line(case: tuple[str, ...], tmp_path: Path) -> None:
    text, *expected = case
    line = message(text, tmp_path)
    for words in expected:
        assert words in line


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"scenes": [', "line 1: expecting value"),
        ('{"scenes": [],\n "scenes": []}', "'scenes' twice"),
        ('{"scenes": [{"prompt": "a", "duration_seconds": NaN}]}', "got nan"),
        ('{"scenes": [{"prompt": "a", "seed": 1e400}]}', "got inf"),
        ('{"scenes": [{"prompt": "\\ud800"}]}', "broken character"),
        ("[" * 100_000, "nested too deeply"),
        ('{"scenes": [{"prompt": "a", "seed": ' + "9" * 6000 + "}]}", "digits"),
    ],
)
def test_mistakes_in_json(text: str, words: str, tmp_path: Path) -> None:
    assert words in message(text, tmp_path, "story.json")


def test_several_mistakes_are_counted(tmp_path: Path) -> None:
    line = message("scenes:\n  - prompt: ''\n  - prompt: a\n    seed: -1\n    num_frames: 3", tmp_path)
    assert line.startswith("scene 1, prompt") and line.endswith("(and 2 more mistakes)")


def test_files_that_are_no_storyboard(tmp_path: Path) -> None:
    noise = tmp_path / "noise.yaml"
    noise.write_bytes(random.Random(0).randbytes(1000))
    large = tmp_path / "large.yaml"
    large.write_bytes(b"#" * (16 * 2**20 + 1))
    wide = tmp_path / "wide.yaml"
    wide.write_text(scene(""), encoding="utf-16")
    for path, words in (
        (tmp_path / "absent.yaml", "there is no such file"),
        (tmp_path, "is a folder"),
        (noise, "is not UTF-8 text"),
        (wide, "is not UTF-8 text"),
        (large, "over 16 MB"),
        (tmp_path / ("long" * 200), "cannot be read"),
        (tmp_path / "null\0", "cannot be read"),
    ):
        with pytest.raises(StoryboardError, match=words) as caught:
            Storyboard.read(path)
        assert str(caught.value).startswith(str(path)) and "\n" not in str(caught.value)


def test_python_gets_the_same_errors_without_a_file() -> None:
    with pytest.raises(StoryboardError, match=r"^scene 1, prompt: got an empty text"):
        Storyboard(scenes=[{"prompt": ""}])
    with pytest.raises(Mask2DiTError, match=r"^scenes: got an empty list"):
        Storyboard.from_captions([])
    with pytest.raises(ValueError, match=r"^there: got 3, expected a mapping"):
        Storyboard.from_data(3, source="there")


def test_text_with_semicolons_becomes_scenes() -> None:
    assert Storyboard.from_text(" a fox ;the owl;\n a bear; ").captions == ("a fox", "the owl", "a bear")
    for text in ("", " ; ;"):
        with pytest.raises(StoryboardError, match="at least one scene"):
            Storyboard.from_text(text)
    with pytest.raises(StoryboardError, match="scene 2, prompt: got an empty text"):
        Storyboard.from_text("a;;b")


def test_five_hundred_scenes_and_long_foreign_texts_are_legal(tmp_path: Path) -> None:
    captions = [f"狐 🦊 {number} " + "réd " * number for number in range(500)]
    board = Storyboard.from_captions(captions)
    board.write(tmp_path / "long.yaml")
    assert Storyboard.read(tmp_path / "long.yaml").captions == tuple(captions)


def test_everything_can_be_written_down(tmp_path: Path) -> None:
    text = """
title: The fox
characters:
  Fox: a red fox
scenes:
  - prompt: Fox runs
    duration_seconds: 2
    seed: 7
    guidance_scale: 6
    negative_prompt: ""
  - {prompt: "no", num_frames: 9}
"""
    (tmp_path / "a").write_text(text)
    assert Storyboard.read(tmp_path / "a") == Storyboard(
        title="The fox",
        characters={"Fox": "a red fox"},
        scenes=[
            Scene(prompt="Fox runs", duration_seconds=2.0, seed=7, guidance_scale=6.0, negative_prompt=""),
            Scene(prompt="no", num_frames=9),
        ],
    )


def test_json_is_known_by_suffix_or_by_its_first_character(tmp_path: Path) -> None:
    content = json.dumps({"scenes": [{"prompt": "a fox"}]})
    for name in ("a.json", "b", "c.yaml", "d.JSON"):
        (tmp_path / name).write_text(content, encoding="utf-8-sig")
        assert Storyboard.read(tmp_path / name).captions == ("a fox",)


@pytest.mark.parametrize(
    ("prompt", "caption"),
    [
        ("Actor1 walks", "Actor1 (a red fox) walks"),
        ("the Actor1, and Actor1", "the Actor1 (a red fox), and Actor1"),
        ("Actor1 (old) meets Actor1", "Actor1 (old) meets Actor1"),
        ("Actor12 and xActor1", "Actor12 and xActor1"),
        ("actor1 walks", "actor1 walks"),
        ("Actor1's hat", "Actor1 (a red fox)'s hat"),
        ("Ann Lee and Ann", "Ann Lee (a friend of Ann) and Ann (a bear)"),
        ("nobody", "nobody"),
    ],
)
def test_the_first_mention_of_a_character_is_described(prompt: str, caption: str) -> None:
    characters = {"Actor1": "a red fox", "Ann": "a bear", "Ann Lee": "a friend of Ann"}
    assert Storyboard(characters=characters, scenes=[{"prompt": prompt}]).captions == (caption,)


def test_every_scene_describes_its_characters_anew() -> None:
    board = Storyboard(characters={"C++ (dev)": "a bear"}, scenes=[{"prompt": "C++ (dev) sleeps"}, {"prompt": "a C++ (dev)"}])
    assert board.captions == ("C++ (dev) (a bear) sleeps", "a C++ (dev) (a bear)")


ODD_TEXTS = [
    "yes",
    "1e3",
    "null",
    "~",
    "- a",
    "a: b",
    "# c",
    "'",
    '"',
    " pad ",
    "two\nlines",
    "end\n",
    "\n\nx",
    "🦊",
    "漢字",
    "\ttab",
    "!x",
    "&a",
    "*a",
    "%",
    "@",
]


def test_storyboard_to_file_and_back_is_identity(tmp_path: Path) -> None:
    rng = random.Random(0)
    pieces = [*ODD_TEXTS, *"ab :-'\"#|>[]{}?,0.\n\r\t\x85\u2028\u00a0\ufeff"]

    def text() -> str:
        return "".join(rng.choices(pieces, k=rng.randrange(1, 6)))

    for number in range(300):
        board = Storyboard(
            title=text(),
            characters={"x" + text(): text() + "x"},
            scenes=[
                {"prompt": "x" + text(), "negative_prompt": text(), "duration_seconds": rng.choice([1e-5, 1 / 3, 2.0]), "seed": 2**63 - 1}
            ],
        )
        path = tmp_path / ("story.yaml", "story.json", "story")[number % 3]
        board.write(path)
        assert Storyboard.read(path) == board
    for odd in ODD_TEXTS:
        board = Storyboard(title=odd, scenes=[{"prompt": odd, "num_frames": 9}])
        board.write(tmp_path / "odd.yaml")
        assert Storyboard.read(tmp_path / "odd.yaml") == board
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_a_full_disk_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "story.yaml"
    Storyboard.from_text("a").write(path)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", full)
    with pytest.raises(OutputError, match="No space left"):
        Storyboard.from_text("b").write(path)
    assert Storyboard.read(path).captions == ("a",)
    assert list(tmp_path.iterdir()) == [path]


def test_nothing_of_it_imports_torch() -> None:
    subprocess.run([sys.executable, "-c", "import sys, mask2dit.storyboard; assert 'torch' not in sys.modules"], check=True)


@pytest.mark.parametrize("path", sorted((Path(__file__).parent.parent / "storyboards").glob("*.yaml")), ids=lambda path: path.stem)
def test_examples_are_in_the_built_in_models_words(path: Path) -> None:
    from mask2dit.playhouse.captions import unknown_words

    board = Storyboard.read(path)
    assert board.title and len(board.scenes) == 3
    assert [word for caption in board.captions for word in unknown_words(caption)] == []
