"""Storyboards of other tools: each is known by its content, what a format can hold comes back, and the rest is told."""

import json
import random
import re
from pathlib import Path
from typing import Any

import pytest

from mask2dit.errors import InputError, Mask2DiTError, StoryboardError
from mask2dit.foreign_storyboards import FORMATS, parse_foreign, read_foreign, write_foreign
from mask2dit.storyboard import Scene, Storyboard

STORYMEM = """{
  "story_overview": "An old lamp keeper repairs his lamp before a storm.",
  "scenes": [
    {"scene_num": 1, "video_prompts": ["An old keeper in a blue coat climbs a spiral stair.", "He opens the iron door of the lamp room."],
     "cut": [true, false]},
    {"scene_num": 2, "video_prompts": ["The keeper in a blue coat lights the lamp at dusk."], "cut": ["True"]}
  ]
}"""

HOLOCINE = {
    "global_caption": "The film is set in a small bakery before dawn. [character1] is a tall baker with flour on his arms. "
    "He wears a red cap. [character2] is a grey cat. The light is warm. This scene contains 3 shots.",
    "shot_captions": [
        "Wide shot of [character1] opening the oven.",
        "Close-up of [character2] watching from a shelf.",
        "Medium shot of them sharing a bun.",
    ],
    "num_frames": 241,
    "shot_cut_frames": [37, 113],
}

HOLOCINE_STRING = (
    "[global caption] A diver, [character1], swims above a reef. This scene contains 2 shots. [per shot caption] "
    "[character1] dives down. | [shot cut] Close-up of her mask."
)

WAN2GP = """# two windows and a third
[/duration=4s] A boy flies a kite on a hill.
[/duration=97,/new_shot,/store_mem=kite1,kite2] The kite gets stuck in a tree.
[/duration=20%] [/overlap=9] The boy climbs up.
"""

PROMPTS = '[{"prompt": "A fox runs.", "duration": 4}, {"prompt": "It sleeps.", "duration": "2.5s"}, {"prompt": "It wakes."}]'


def prompts(board: Storyboard) -> list[str]:
    return [scene.prompt for scene in board.scenes]


def test_storymem() -> None:
    found = parse_foreign(STORYMEM)
    assert found.format == "storymem" and found.storyboard.title == "An old lamp keeper repairs his lamp before a storm."
    assert prompts(found.storyboard)[1:] == [
        "He opens the iron door of the lamp room.",
        "The keeper in a blue coat lights the lamp at dusk.",
    ]
    assert found.notes == ("scene 2: goes on without a cut in StoryMem; here every scene begins with one",)


def test_storymem_as_it_is_written_by_hand() -> None:
    text = STORYMEM.replace("true, false", "True, False,").replace('"scenes"', '// the scenes\n "mood": 3, "scenes"')
    found = parse_foreign(text)
    assert found.storyboard == parse_foreign(STORYMEM).storyboard
    assert found.notes == ("left out: mood", *parse_foreign(STORYMEM).notes)


@pytest.mark.parametrize("cut", ['"cut": [true]', '"cut": true', '"kut": [true, true]', '"cut": [true, "maybe"]'])
def test_storymem_without_its_cuts(cut: str) -> None:
    found = parse_foreign('{"scenes": [{"video_prompts": ["a", "b"], ' + cut + "}]}")
    assert prompts(found.storyboard) == ["a", "b"] and any("cut is not one true or false per prompt" in note for note in found.notes)


def test_holocine_brings_the_global_caption_to_every_scene() -> None:
    found = parse_foreign(json.dumps(HOLOCINE))
    board = found.storyboard
    assert found.format == "holocine"
    assert board.characters == {"Actor1": "a tall baker with flour on his arms. He wears a red cap", "Actor2": "a grey cat"}
    place = "The film is set in a small bakery before dawn. The light is warm."
    assert prompts(board) == [
        f"{place} Wide shot of Actor1 opening the oven.",
        f"{place} Close-up of Actor2 watching from a shelf.",
        f"{place} Actor1, Actor2. Medium shot of them sharing a bun.",
    ]
    assert "Actor2 (a grey cat) watching" in board.captions[1] and "flour" not in board.captions[1]
    assert [scene.num_frames for scene in board.scenes] == [37, 77, 129]
    assert found.notes == ("what the global caption says of the place is put before every prompt",)


def test_holocine_lengths_in_seconds() -> None:
    board = parse_foreign(json.dumps(HOLOCINE), fps=16).storyboard
    assert [scene.duration_seconds for scene in board.scenes] == [37 / 16, 76 / 16, 128 / 16]


def test_holocine_spaces_missing_cuts_evenly() -> None:
    found = parse_foreign(json.dumps({**HOLOCINE, "shot_cut_frames": None, "seed": 3}))
    assert [scene.num_frames for scene in found.storyboard.scenes] == [81, 81, 81]
    assert "left out: seed" in found.notes and any("spaced evenly" in note for note in found.notes)


@pytest.mark.parametrize("cuts", [[113, 37], [37], [37, 300], [37, "113"], "37", [0, 37], [37, 10**400], [True, 37]])
def test_holocine_lengths_that_do_not_fit_are_left_to_the_model(cuts: Any) -> None:
    found = parse_foreign(json.dumps({**HOLOCINE, "shot_cut_frames": cuts}))
    assert all(scene.num_frames is None for scene in found.storyboard.scenes) and any(
        "do not give 3 lengths" in note for note in found.notes
    )


def test_holocine_as_one_string() -> None:
    for text, format in ((HOLOCINE_STRING, "auto"), (HOLOCINE_STRING.upper().replace("[SHOT", "\n[ SHOT"), "holocine-string")):
        found = parse_foreign(text, format)
        assert found.format == "holocine-string" and len(found.storyboard.scenes) == 2
    found = parse_foreign(HOLOCINE_STRING)
    assert prompts(found.storyboard) == [
        "A diver, Actor1, swims above a reef. Actor1 dives down.",
        "A diver, Actor1, swims above a reef. Close-up of her mask.",
    ]
    assert parse_foreign(HOLOCINE_STRING, "holocine").storyboard == found.storyboard
    inside = json.dumps({"prompt": HOLOCINE_STRING, "num_frames": 41, "shot_cut_frames": [21], "negative_prompt": "text"})
    board = parse_foreign(inside).storyboard
    assert [(scene.num_frames, scene.negative_prompt) for scene in board.scenes] == [(21, "text"), (21, "text")]


def test_a_count_of_shots_that_is_wrong_is_told() -> None:
    assert any("contains 2 shots" in note for note in parse_foreign(HOLOCINE_STRING + " [shot cut] Bubbles.").notes)


def test_wan2gp_lines() -> None:
    found = parse_foreign(WAN2GP)
    assert found.format == "wan2gp"
    assert found.storyboard.scenes == (
        Scene(prompt="A boy flies a kite on a hill.", duration_seconds=4.0),
        Scene(prompt="The kite gets stuck in a tree.", num_frames=97),
        Scene(prompt="The boy climbs up."),
    )
    assert found.notes == (
        "scene 3: a duration in per cent needs the film's length; left out",
        "scene 3: no [/new_shot] before it in Wan2GP; here every scene begins with a cut",
        "left out: /store_mem",
    )
    assert parse_foreign(WAN2GP, fps=24).storyboard.scenes[1].duration_seconds == 97 / 24
    rounded = parse_foreign("[/duration=120] a")
    assert rounded.storyboard.scenes[0].num_frames == 121 and rounded.notes == ("scene 1: the number of frames is rounded to 4k + 1",)


def test_wan2gp_paragraphs() -> None:
    found = parse_foreign("A ship leaves\nthe harbour.\n\n\nGulls follow it.\n")
    assert prompts(found.storyboard) == ["A ship leaves the harbour.", "Gulls follow it."] and "paragraph" in found.notes[0]
    lines = parse_foreign("[/new_shot] a\n[/new_shot] b\n\n[/new_shot] c")
    assert prompts(lines.storyboard) == ["a", "b", "c"] and lines.notes == ()
    assert prompts(parse_foreign("one: a fox\ntwo: an owl").storyboard) == ["one: a fox", "two: an owl"]


def test_lists_of_prompts() -> None:
    found = parse_foreign(PROMPTS)
    assert found.format == "list" and found.notes == ()
    assert [scene.duration_seconds for scene in found.storyboard.scenes] == [4.0, 2.5, None]
    assert prompts(parse_foreign('["a", "b"]').storyboard) == ["a", "b"]
    below = parse_foreign("title: T\nfps: 8\nshots:\n  - {prompt: a, seed: 7, music: loud}\n")
    assert below.storyboard == Storyboard(title="T", scenes=[Scene(prompt="a", seed=7)])
    assert below.notes == ("left out: fps", "left out: music")
    own = Storyboard(
        title="T", characters={"Ann": "a bear"}, scenes=[Scene(prompt="Ann", duration_seconds=2.0), Scene(prompt="b", skip=True)]
    )
    assert parse_foreign(own.to_yaml()).storyboard == own  # a storyboard of ours stays one


MISTAKES = [
    ("{}", "auto", "got a mapping, expected one of: scenes with video_prompts (storymem)"),
    ('{"a": 1, "b": 2}', "auto", "got a mapping with a, b, expected"),
    ("[1, 2]", "auto", "got a list, expected one of"),
    ('{"scenes": [', "auto", "line 1: expecting value, expected JSON"),
    ('{"story_overview": "x"}', "auto", "StoryMem, scenes: got nothing, expected a list of scenes"),
    ('{"story_overview": "x", "scenes": []}', "auto", "StoryMem, scenes: got an empty list"),
    ('{"scenes": [{"video_prompts": ["a"]}, {"scene_num": 2}]}', "auto", "StoryMem, scene 2, video_prompts: got nothing"),
    ('{"scenes": [{"video_prompts": ["a", ""]}]}', "auto", "StoryMem, scene 1, prompt 2: got an empty text"),
    ('{"scenes": [{"video_prompts": ["a"]}, 3]}', "auto", "StoryMem, scene 2: got 3, expected a mapping"),
    ("a fox", "storymem", "StoryMem: got nothing, expected a mapping with story_overview"),
    ('{"global_caption": "x"}', "auto", "HoloCine, shot_captions: got nothing"),
    ('{"shot_captions": ["a", null]}', "auto", "HoloCine, shot 2: got nothing"),
    ("[global caption] x [shot cut] y", "auto", "got [per shot caption] 0 times"),
    ("[global caption] x [per shot caption] a [shot cut] [shot cut] b", "auto", "HoloCine, shot 2: got an empty text"),
    ("[per shot caption]", "auto", "HoloCine, shot 1: got an empty text"),
    ('[{"prompt": "a"}, {"duration": 3}]', "auto", "item 2, prompt: got nothing"),
    ('[{"prompt": "a", "duration": "long"}]', "auto", "item 1, duration: got 'long', expected seconds"),
    ('[{"prompt": "a", "duration": -2}]', "auto", "scene 1, duration_seconds: got -2.0"),
    ('[{"prompt": "a", "duration": true}]', "auto", "item 1, duration: got true"),
    ('[{"prompt": "a", "duration": 1' + "0" * 400 + "}]", "auto", "item 1, duration: got a number with too many digits"),
    ('[{"prompt": "\\ud800"}]', "auto", "broken character"),
    ("# only a comment", "auto", "Wan2GP: got no prompt"),
    ("[/duration=4s]", "auto", "Wan2GP, window 1: got only commands"),
    ("[/duration=soon] a", "auto", "Wan2GP, window 1: got the duration 'soon'"),
    ("[/duration=0] a", "auto", "got the duration '0'"),
    ('! {Who}="cat"\n{Who} runs', "auto", "Wan2GP, line 1: got a macro"),
]


@pytest.mark.parametrize("case", MISTAKES, ids=lambda case: case[0][:30])
def test_mistakes_are_told_in_one_line(case: tuple[str, str, str], tmp_path: Path) -> None:
    text, format, words = case
    path = tmp_path / "story"
    path.write_text(text)
    with pytest.raises(StoryboardError) as caught:
        read_foreign(path, format)
    line = str(caught.value)
    assert line.startswith(f"{path}: ") and words in line and "\n" not in line and len(line) < 500


def test_no_text_ends_in_another_error() -> None:
    rng = random.Random(0)
    pieces = [
        STORYMEM,
        HOLOCINE_STRING,
        WAN2GP,
        PROMPTS,
        json.dumps(HOLOCINE),
        "null",
        "[",
        "{",
        '"',
        ":",
        "- ",
        "\n",
        "\t",
        "[/",
        "]",
        "1",
        "%",
    ]
    for _ in range(400):
        text = "".join(piece[: rng.randrange(1, len(piece) + 1)] for piece in rng.choices(pieces, k=rng.randrange(1, 5)))
        for format in ("auto", rng.choice(list(FORMATS))):
            try:
                parse_foreign(text, format, rng.choice([None, 8.0]), rng.choice(["", ".json", ".yaml"]))
            except Mask2DiTError as error:
                assert "\n" not in str(error)


def test_files_and_options_that_cannot_be_used(tmp_path: Path) -> None:
    with pytest.raises(StoryboardError, match="there is no such file"):
        read_foreign(tmp_path / "absent.json")
    (tmp_path / "film.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(StoryboardError, match=r"^[^:]*film.json: byte 1 is not UTF-8"):
        read_foreign(tmp_path / "film.json")
    with pytest.raises(InputError, match="format: got 'premiere', expected storymem, holocine"):
        parse_foreign("a", "premiere")
    for fps in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(InputError, match="fps"):
            parse_foreign("a", fps=fps)


# What a format can hold survives


WORDS = ("fox", "owl", "runs", "jumps", "red", "meadow", "at", "night", "near", "the", "sea", "狐", "réd", "3", "Mr.", "x")


def sentence(rng: random.Random, *names: str) -> str:
    words = rng.choices([*WORDS, *names], k=rng.randrange(1, 9))
    return " ".join(["A", *words]) + "."


def drawn(rng: random.Random, names: tuple[str, ...], shared: bool, lengths: tuple[str, ...], **more: Any) -> Storyboard:
    first = f"{sentence(rng)} " if shared and rng.random() < 0.5 else ""
    texts = [first + " ".join(sentence(rng, *names) for _ in range(rng.randrange(1, 3))) for _ in range(rng.randrange(1, 5))]
    kind = rng.choice(lengths)
    length: dict[str, Any] = {}
    scenes = []
    for text in texts:
        if kind == "num_frames":
            length = {kind: 4 * rng.randrange(1, 40) + 1}
        if kind == "duration_seconds":
            length = {kind: rng.choice([1 / 3, 2.0, 5.5, 1e-5])}
        scenes.append({"prompt": text, **length})
    return Storyboard(scenes=scenes, characters={name: f"{rng.choice(WORDS)} thing" for name in names}, **more)


@pytest.mark.parametrize("seed", range(60))
def test_what_a_format_can_hold_comes_back(seed: int) -> None:
    rng = random.Random(seed)
    actors = tuple(f"Actor{number}" for number in rng.sample(range(1, 13), rng.randrange(3)))
    boards = {
        "storymem": drawn(rng, (), False, ("none",), title="A title"),
        "holocine": drawn(rng, actors, True, ("none", "num_frames")),
        "holocine-string": drawn(rng, actors, True, ("none",)),
        "list": drawn(rng, (), False, ("none", "duration_seconds")),
        "wan2gp": drawn(rng, (), False, ("none", "duration_seconds", "num_frames")),
    }
    assert set(boards) == set(FORMATS)
    for format, board in boards.items():
        exported = write_foreign(board, format)
        assert exported.notes == (), format
        for named in ("auto", format):
            found = parse_foreign(exported.text, named)
            assert (found.format, found.storyboard) == (format, board)
        assert write_foreign(found.storyboard, format) == exported


def test_holocine_to_ours_and_back_is_the_same_film() -> None:
    text = write_foreign(parse_foreign(json.dumps(HOLOCINE)).storyboard, "holocine").text
    again = json.loads(text)
    assert (again["num_frames"], again["shot_cut_frames"]) == (241, [37, 113])
    assert again["shot_captions"][:2] == HOLOCINE["shot_captions"][:2]
    assert again["global_caption"].endswith("This scene contains 3 shots.") and "[character2] is a grey cat." in again["global_caption"]
    assert parse_foreign(text).storyboard == parse_foreign(json.dumps(HOLOCINE)).storyboard


def test_names_become_numbers_for_holocine() -> None:
    board = Storyboard(characters={"Ann": "a bear", "Actor1": "a fox"}, scenes=[{"prompt": "Ann meets Actor1, not Annette."}])
    again = parse_foreign(write_foreign(board, "holocine").text).storyboard
    assert again.characters == {"Actor2": "a bear", "Actor1": "a fox"} and prompts(again) == ["Actor2 meets Actor1, not Annette."]


def test_what_has_no_place_is_told() -> None:
    board = Storyboard(
        title="T",
        characters={"Ann": "a bear"},
        scenes=[
            Scene(prompt="Ann sleeps", seed=3, num_frames=49),
            Scene(prompt="nobody", skip=True),
            Scene(prompt="b", negative_prompt="text", given="b.mp4"),
        ],
    )
    exported = write_foreign(board, "wan2gp")
    assert exported.text == "[/duration=49,/new_shot] Ann (a bear) sleeps\n[/new_shot] b\n"
    assert exported.notes == (
        "scene 2: skipped, and not written; the others are counted anew",
        "Wan2GP has no place for: title, characters (their descriptions are written out in the captions), seed (scene 1), "
        "negative_prompt (scene 2), given (scene 2)",
    )
    assert "lengths are left out, since not every scene has one" in write_foreign(board, "holocine").notes
    assert "num_frames (scene 1)" in write_foreign(board, "storymem").notes[1]
    both = Storyboard(scenes=[Scene(prompt="a", num_frames=9), Scene(prompt="b", num_frames=13)])
    assert any("num_frames=21 and shot_cut_frames=[9]" in note for note in write_foreign(both, "holocine-string").notes)
    same = Storyboard(scenes=[Scene(prompt="a", negative_prompt="text"), Scene(prompt="b", negative_prompt="text")])
    assert parse_foreign(write_foreign(same, "holocine").text).storyboard == same


def test_frames_and_seconds_need_a_rate_to_become_each_other() -> None:
    frames, length = Storyboard(scenes=[Scene(prompt="a", num_frames=49)]), Storyboard(scenes=[Scene(prompt="a", duration_seconds=3.0)])
    with pytest.raises(InputError, match=r"scene 1: its length is in frames and a list of prompts counts seconds.*--fps"):
        write_foreign(frames, "list")
    assert json.loads(write_foreign(frames, "list", 8).text) == [{"prompt": "a", "duration": 6.125}]
    with pytest.raises(InputError, match=r"scene 1: its length is in seconds and HoloCine counts frames.*--fps"):
        write_foreign(length, "holocine")
    assert json.loads(write_foreign(length, "holocine", 16).text)["num_frames"] == 49


def test_the_guide_is_right() -> None:
    guide = (Path(__file__).parents[1] / "docs" / "storyboards.md").read_text()
    whole, imported = (parse_foreign(block).storyboard for block in re.findall(r"```yaml\n(.*?)```", guide, re.DOTALL))
    assert len(whole.scenes) == 3 and all(f"`{name}`" in guide for name in (*Scene.model_fields, *Storyboard.model_fields, *FORMATS))
    (bakery,) = re.findall(r"```json\n(.*?)```", guide, re.DOTALL)
    assert parse_foreign(bakery).storyboard == imported and json.loads(write_foreign(imported, "holocine").text)["num_frames"] == 97
