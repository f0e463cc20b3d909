"""Prompt sets: ours has the structure that it promises, each kind of damage to it is told, and the sets of others are read as they lie."""

import json
import random
import shutil
import subprocess
import sys
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import yaml

from mask2dit.errors import InputError, Mask2DiTError, StoryboardError
from mask2dit.evaluation.prompt_sets import (
    check_prompt_set,
    load_prompt_set,
    playhouse_set,
    read_benchmark,
    read_entity_bench,
    read_st_bench,
    read_storyboards,
    scenes_that_share,
)
from mask2dit.evaluation.prompt_sets.structure import benchmark_folder, check_storyboards, read_index
from mask2dit.playhouse.captions import STYLES, tell_story
from mask2dit.playhouse.facts import HELD_OUT_SEEDS, draw_story
from mask2dit.storyboard import Storyboard

ROOT = Path(__file__).parents[2]
DUMPLINGS = "01-dumplings-for-the-new-year"
BUS = "02-the-last-bus-home"
FOUR = "05-friday-at-the-covered-market"

EPISODE = {
    "story_overview": "A baker looks for her lost cat.",
    "scenes": [
        {
            "scene_num": 1,
            "video_prompts": ["Mara is a baker in white. Mara calls from a door.", "Mara is a baker in white. Mara looks under a cart."],
            "action_descriptions": ["calls", "looks"],
            "cut": [True, False],
        },
        {"scene_num": 2, "video_prompts": ["Pip is a grey cat. Pip sleeps on a warm oven."], "cut": [True]},
    ],
    "entity_schedule": {
        "1:1": {"characters": ["Mara"], "places": ["bakery"], "objects": ["door"]},
        "1:2": {"characters": ["Mara"], "places": ["alley"], "objects": []},
        "2:1": {"characters": ["Pip"], "places": ["bakery"]},
        "3:1": {"characters": ["Pip"]},
    },
    "entity_descriptions": {
        "Character_1": {"name": "Mara", "description": "a baker in white"},
        "Character_2": {"name": "Pip", "description": "a grey cat"},
        "Location_1": {"name": "bakery", "description": "a brick bakery"},
    },
}

SCRIPT = {
    "story_overview": "An old keeper mends his lamp.",
    "scenes": [
        {"scene_num": 1, "video_prompts": ["A keeper climbs the stairs.", "He opens a door."], "cut": ["True", "False"]},
        {"scene_num": 2, "video_prompts": ["A keeper lights a lamp."], "cut": ["True"]},
    ],
}


# Our own set


def test_the_benchmark_has_its_structure() -> None:
    assert check_prompt_set() == []
    assert check_prompt_set(ROOT / "storyboards" / "benchmark") == []


def test_the_benchmark_lies_in_the_package_by_a_relative_link() -> None:
    link = ROOT / "src" / "mask2dit" / "evaluation" / "benchmark"
    assert link.is_symlink() and link.readlink() == Path("../../../storyboards/benchmark")
    assert benchmark_folder().resolve() == ROOT / "storyboards" / "benchmark"


def test_items_of_the_benchmark() -> None:
    items = read_benchmark()
    assert len(items) == 50 and len({item.name for item in items}) == 50
    first = items[0]
    assert first.name == DUMPLINGS and first.tags == {"genre": "slice of life", "place": "home", "action": "cooking"}
    assert first.characters == (frozenset({"Actor1", "Actor2"}),) * 3 and first.truth is None
    assert scenes_that_share(first.characters) == scenes_that_share(first.places) == ((0, 1), (0, 2), (1, 2))
    (kite,) = (item for item in items if item.name == "03-sunday-kite")
    assert scenes_that_share(kite.places) == ((0, 1),)
    (geese,) = (item for item in items if item.name == "21-the-goose-and-the-umbrella")
    assert geese.characters == (frozenset({"Actor1", "Actor2"}), frozenset({"Actor1"}), frozenset({"Actor1", "Actor2"}))
    for item in items:
        assert len(item.storyboard.captions) == 3 and item.characters is not None
        for caption, cast in zip(item.storyboard.captions, item.characters, strict=True):
            # A caption sees no other caption: everybody is described in it, and only once.
            assert all(caption.count(f"({item.storyboard.characters[name]})") == 1 for name in cast)


@pytest.fixture(scope="module")
def values() -> dict[str, Any]:
    """What the files hold, the index too."""
    return {path.stem: yaml.safe_load(path.read_text()) for path in sorted((ROOT / "storyboards" / "benchmark").iterdir())}


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    return Path(shutil.copytree(ROOT / "storyboards" / "benchmark", tmp_path / "set"))


def change(folder: Path, name: str, edit: Callable[[Any], None]) -> None:
    """Edit the values of a file of the set."""
    path = folder / f"{name}.yaml"
    data = yaml.safe_load(path.read_text())
    edit(data)
    path.write_text(yaml.safe_dump(data, sort_keys=False, allow_unicode=True))


def prompt(scene: int, text: str) -> Callable[[Any], None]:
    return lambda data: data["scenes"][scene].update(prompt=text)


def replace(scene: int, old: str, new: str) -> Callable[[Any], None]:
    def edit(data: Any) -> None:
        assert old in data["scenes"][scene]["prompt"]
        data["scenes"][scene]["prompt"] = data["scenes"][scene]["prompt"].replace(old, new)

    return edit


def entry(name: str, **values: Any) -> Callable[[Any], None]:
    return lambda index: index[name].update(values)


def one_place_only(index: Any) -> None:
    for value in index.values():
        value["where"] = "the same place"


def never_one_place(index: Any) -> None:
    for value in index.values():
        value["where"] = ["here", "here", "there"]


IN_A_FILE = [
    ("a scene too few", DUMPLINGS, lambda data: data["scenes"].pop(), "got 2 scenes, expected 3"),
    ("a title that is taken", DUMPLINGS, lambda data: data.update(title="the LAST bus home"), "2 storyboards with the title 'the last bus"),
    ("no title", DUMPLINGS, lambda data: data.update(title=""), "got 1 storyboards without a title"),
    ("a tag too many", BUS, lambda data: data["characters"].update(Actor2="a man"), "Actor2: is in no scene"),
    ("tags with a gap", BUS, lambda data: data.update(characters={"Actor2": "a nurse"}), "characters: got Actor2, expected Actor1"),
    ("a name for a tag", BUS, lambda data: data.update(characters={"Ann": "a nurse"}), "characters: got Ann, expected Actor1"),
    ("nobody described", BUS, lambda data: data.pop("characters"), "characters: got nobody, expected Actor1"),
    ("five characters", FOUR, lambda data: data["characters"].update(Actor5="a dog"), "got 1 storyboards with 5 characters, expected 0"),
    ("an unknown tag", BUS, replace(2, "and presses", "past Actor3 and presses"), "scene 3: Actor3 has no description"),
    ("nobody named", BUS, replace(1, "Actor1", "A nurse"), "scene 2: names nobody"),
    ("nobody in all scenes", "21-the-goose-and-the-umbrella", replace(0, "Actor1", "A man"), "nobody is in every scene"),
    (
        "a short prompt",
        BUS,
        prompt(1, "Actor1 reads in a nearly empty night bus with red seats."),
        "scene 2: got 11 words, expected 25 to 70",
    ),
    ("a long prompt", BUS, replace(1, "Actor1", "Actor1 " + "slowly " * 50), "scene 2: got 83 words, expected 25 to 70"),
    ("a long description", BUS, lambda data: data["characters"].update(Actor1="very " * 120 + "tired"), "words with the descriptions"),
    ("a place that is not named", BUS, replace(1, "a nearly empty night bus", "a bus"), "scene 2: does not name its place"),
    ("another key", BUS, lambda data: data["scenes"][0].update(seed=3), "a title, characters, and scenes with a prompt alone"),
]

IN_THE_INDEX = [
    ("a genre out of balance", entry(BUS, genre="drama"), "genre 'drama': got 6 storyboards, expected 5"),
    ("an unknown genre", entry(BUS, genre="western"), "genre 'western': got 1 storyboards, expected 0"),
    ("a place out of balance", entry(BUS, place="home"), "place 'home': got 6 storyboards, expected 5"),
    ("an action out of balance", entry(BUS, action="walking"), "action 'reading': got 4 storyboards, expected 5"),
    ("two places for three scenes", entry(BUS, where=["a bus", "a bus"]), "where: got 2 places in index.yaml"),
    ("no entry", lambda index: index.pop(BUS), f"{BUS}: index.yaml does not name it"),
    ("an entry too many", lambda index: index.update(ghost=index[BUS]), "ghost: index.yaml names it, expected a file"),
    ("one place everywhere", one_place_only, "got 0 of 50 storyboards that change places"),
    ("never one place", never_one_place, "got 0 of 50 storyboards that keep one place"),
]

UNREADABLE = [
    ("a missing key", lambda index: index[BUS].pop("action"), f"'{BUS}': got genre, place, where, expected genre, place, action, where"),
    ("an unknown key", entry(BUS, mood="sad"), f"'{BUS}': got genre, place, action, where, mood, expected"),
    ("a number for a text", entry(BUS, genre=3), f"'{BUS}': got 3, expected a text"),
    ("nothing for an entry", lambda index: index.update({BUS: None}), f"'{BUS}': got nothing, expected genre"),
]


@pytest.mark.parametrize("case", IN_A_FILE, ids=lambda case: case[0])
def test_damage_to_a_storyboard_is_told(case: tuple[str, str, Callable[[Any], None], str], values: dict[str, Any]) -> None:
    damaged = {name: deepcopy(data) for name, data in values.items() if name != "index"}
    case[2](damaged[case[1]])
    boards = {name: Storyboard.from_data(data) for name, data in damaged.items()}
    told(check_storyboards(list(boards), boards, read_index(ROOT / "storyboards" / "benchmark")), case[3])


@pytest.mark.parametrize("case", IN_THE_INDEX, ids=lambda case: case[0])
def test_damage_to_the_index_is_told(case: tuple[str, Callable[[Any], None], str], values: dict[str, Any], tmp_path: Path) -> None:
    index = deepcopy(values["index"])
    case[1](index)
    (tmp_path / "index.yaml").write_text(yaml.safe_dump(index, allow_unicode=True))
    boards = {name: Storyboard.from_data(data) for name, data in values.items() if name != "index"}
    told(check_storyboards(list(boards), boards, read_index(tmp_path)), case[2])


@pytest.mark.parametrize("case", UNREADABLE, ids=lambda case: case[0])
def test_an_index_that_cannot_be_read_is_told(case: tuple[str, Callable[[Any], None], str], copy: Path) -> None:
    change(copy, "index", case[1])
    told(check_prompt_set(copy), case[2])


def test_a_storyboard_that_cannot_be_read_is_told(copy: Path) -> None:
    change(copy, BUS, lambda data: data["scenes"][0].update(sead=3))
    change(copy, DUMPLINGS, lambda data: data["scenes"].pop())
    problems = check_prompt_set(copy)
    told(problems, f"{BUS}.yaml: scene 1: got the unknown key 'sead'")
    told(problems, f"{DUMPLINGS}: got 2 scenes, expected 3")
    assert not any(f"index.yaml names {BUS}" in problem for problem in problems)


def told(problems: list[str], words: str) -> None:
    assert any(words in problem for problem in problems), problems
    assert all("\n" not in problem and len(problem) < 400 for problem in problems)


def test_damage_to_the_folder_is_told(copy: Path, tmp_path: Path) -> None:
    (copy / f"{BUS}.yaml").rename(copy / "02-The_Bus.yaml")
    told(check_prompt_set(copy), "02-The_Bus: got this name, expected 02- and words in small letters")
    (copy / "02-The_Bus.yaml").unlink()
    problems = check_prompt_set(copy)
    told(problems, "got 49 storyboards, expected 50")
    told(problems, "03-sunday-kite: got this name, expected 02-")
    told(problems, "got 14 storyboards with 1 characters, expected 15")
    told(problems, f"{BUS}: index.yaml names it")
    (copy / "index.yaml").unlink()
    told(check_prompt_set(copy), "there is no such file")
    told(check_prompt_set(tmp_path / "absent"), "absent: there is no such file or folder")
    told(check_prompt_set(ROOT / "README.md"), "README.md: is a file, expected a folder")


def test_prompts_are_unlike_and_somebody_is_absent(copy: Path) -> None:
    other = yaml.safe_load((copy / f"{BUS}.yaml").read_text())["scenes"][0]["prompt"]
    change(copy, BUS, prompt(1, other))
    told(check_prompt_set(copy), "got 2 scenes with the prompt 'Rain streaks")
    for path in copy.glob("[0-9]*.yaml"):
        data = yaml.safe_load(path.read_text())
        for scene in data["scenes"]:
            scene["prompt"] += f" {' '.join(data['characters'])}"
        path.write_text(yaml.safe_dump(data))
    told(check_prompt_set(copy), "got 0 of 35 storyboards of several characters from one of whose scenes somebody is absent")


def test_a_folder_that_is_not_whole_is_not_read(copy: Path) -> None:
    change(copy, "index", lambda index: index.pop(BUS))
    with pytest.raises(InputError, match=rf"index.yaml: does not name {BUS}"):
        read_benchmark(copy)
    change(copy, "index", entry(DUMPLINGS, where=["a", "b"]))
    with pytest.raises(InputError, match=r"where: got 2 places, expected one, or one for each of the 3 scenes"):
        read_benchmark(copy)


# The sets of others


@pytest.fixture
def entity_bench(tmp_path: Path) -> Path:
    """A folder as EntityBench lies on disk."""
    root = tmp_path / "EntityBench"
    (root / "data" / "scripts").mkdir(parents=True)
    (root / "data" / "splits").mkdir()
    for name in ("b__run2", "a__run1"):
        (root / "data" / "scripts" / f"{name}.json").write_text(json.dumps(EPISODE))
    split = {"easy": ["a__run1"], "medium": [], "hard": ["c__run3"], "all": ["a__run1", "c__run3"]}
    (root / "data" / "splits" / "final_split_validated_ids.json").write_text(json.dumps(split))
    return root


def test_entity_bench(entity_bench: Path) -> None:
    first, second = read_entity_bench(entity_bench)
    assert (first.name, second.name) == ("a__run1", "b__run2")
    assert first.tags == {"tier": "easy"} and second.tags == {}
    assert first.storyboard.title == "A baker looks for her lost cat." and first.storyboard.characters == {}
    assert first.storyboard.captions[2] == "Pip is a grey cat. Pip sleeps on a warm oven."
    assert first.characters == (frozenset({"Mara"}), frozenset({"Mara"}), frozenset({"Pip"}))
    assert scenes_that_share(first.characters) == ((0, 1),) and scenes_that_share(first.places) == ((0, 2),)
    assert first.objects == (frozenset({"door"}), frozenset(), frozenset())
    assert first.notes == (
        "scene 2: goes on without a cut in StoryMem; here every scene begins with one",
        "EntityBench, entity_schedule: left out, since there are no such shots: 3:1",
    )
    scripts = entity_bench / "data" / "scripts"
    for path in (entity_bench / "data", scripts):
        assert read_entity_bench(path) == load_prompt_set(path) == (first, second)
    assert read_entity_bench(scripts / "a__run1.json") == load_prompt_set(str(scripts / "a__run1.json")) == (first,)
    assert load_prompt_set(entity_bench) == (first, second)


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        ({"entity_schedule": None}, "EntityBench, entity_schedule: got nothing, expected a mapping"),
        ({"entity_schedule": {"1:1": ["Mara"]}}, "entity_schedule, shot 1:1: got a list, expected a mapping with characters, places"),
        ({"entity_schedule": {"1:2": {"objects": "door"}}}, "shot 1:2, objects: got 'door', expected a list of names"),
        ({"entity_schedule": {"1:2": {"places": [7]}}}, "shot 1:2, places: got a list, expected a list of names"),
        ({"scenes": []}, "scenes: got an empty list"),
        ({"scenes": [{"scene_num": 1}]}, "scene 1, video_prompts: got nothing"),
    ],
)
def test_damaged_episodes(damage: dict[str, Any], words: str, tmp_path: Path) -> None:
    path = tmp_path / "episode.json"
    path.write_text(json.dumps({**EPISODE, **damage}))
    refused(read_entity_bench, path, words)


def test_damaged_tiers(entity_bench: Path) -> None:
    split = entity_bench / "data" / "splits" / "final_split_validated_ids.json"
    for text, words in (("[", "EntityBench: got nothing, expected a mapping with easy"), ('{"easy": 3}', "EntityBench, easy: got 3")):
        split.write_text(text)
        with pytest.raises(StoryboardError) as caught:
            read_entity_bench(entity_bench)
        assert str(caught.value).startswith(f"{split}: ") and words in str(caught.value)


def test_st_bench(tmp_path: Path) -> None:
    story = tmp_path / "StoryMem" / "story"
    story.mkdir(parents=True)
    (story / "keeper.json").write_text(json.dumps(SCRIPT))
    (item,) = read_st_bench(story)
    assert item.name == "keeper" and item.storyboard.title == "An old keeper mends his lamp." and len(item.storyboard.scenes) == 3
    assert item.characters is None and scenes_that_share(item.characters) == () and scenes_that_share(item.places) == ((0, 1),)
    assert item.notes == ("scene 2: goes on without a cut in StoryMem; here every scene begins with one",)
    for path in (tmp_path / "StoryMem", story, story / "keeper.json"):
        assert load_prompt_set(path) == read_st_bench(path) == (item,)
    (story / "keeper.json").write_text(json.dumps(SCRIPT).replace('"True", "False"', "True, False,"))  # as some are written by hand
    assert load_prompt_set(story) == (item,)
    (story / "keeper.json").write_text("// a comment\n" + json.dumps(SCRIPT))
    assert read_st_bench(story)[0].storyboard == item.storyboard and read_st_bench(story)[0].places is None


def test_storyboards_of_ones_own() -> None:
    items = load_prompt_set(ROOT / "storyboards")
    assert [item.name for item in items] == ["fox", "owl", "robot"] and items == read_storyboards(ROOT / "storyboards")
    assert items[0].characters is None and items[1].characters == (frozenset({"Actor1"}),) * 3
    assert load_prompt_set(ROOT / "storyboards" / "owl.yaml") == (items[1],)


def test_scenes_that_are_skipped_are_not_in_the_set(tmp_path: Path) -> None:
    path = tmp_path / "film.json"
    path.write_text('{"characters": {"Ann": "a bear"}, "scenes": [{"prompt": "A sea.", "skip": true}, {"prompt": "Ann swims."}]}')
    (item,) = load_prompt_set(path)
    assert len(item.storyboard.scenes) == 1 and item.characters == (frozenset({"Ann"}),)


def test_bad_paths(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "damaged.json").write_text('{"scenes": [{"video_prompts": ["a"')
    (tmp_path / "notes.txt").write_text("A note, no storyboard.")
    (tmp_path / "film.mp4").write_bytes(b"\x00\x00\x00 ftypisom\xff")
    for read in (load_prompt_set, read_st_bench, read_entity_bench, read_storyboards):
        refused(read, tmp_path / "absent.json", "there is no such")
        refused(read, tmp_path / "empty", "holds no ")
        refused(read, tmp_path / "damaged.json", "line 1")
        refused(read, tmp_path / "notes.txt", "expected")
        refused(read, tmp_path / "film.mp4", "is not UTF-8 text")
    with pytest.raises(InputError, match=r"bench: there is no such prompt set, expected benchmark, playhouse, or a file or folder"):
        load_prompt_set("bench")


def refused(read: Callable[[Path], object], path: Path, words: str) -> None:
    with pytest.raises(Mask2DiTError) as caught:
        read(path)
    line = str(caught.value)
    assert isinstance(caught.value, InputError | StoryboardError)
    assert line.startswith(f"{path}: ") and words in line and "\n" not in line and len(line) < 400


# The playhouse


def test_the_playhouse_set() -> None:
    items = load_prompt_set("playhouse")
    assert [item.truth.story.seed for item in items if item.truth] == list(HELD_OUT_SEEDS)
    assert items[:2] == playhouse_set(2)
    (item,) = playhouse_set(1, level="C", style="by-reference")
    assert item.name == "playhouse-C-500000" and item.tags == {"level": "C", "style": "by-reference", "seed": "500000"}
    assert item.truth is not None and item.truth.captions == item.storyboard.captions
    for cast, places, stage in zip(item.characters or (), item.places or (), item.truth.story.stages, strict=True):
        assert cast == {f"Actor{role.actor + 1}" for role in stage.roles} and places == {stage.place}


def test_the_playhouse_set_speaks_in_the_words_of_the_tables() -> None:
    key = 'random.Random(f"playhouse/table/{seed}/{style}")'
    assert key in (ROOT / "benchmarks" / "playhouse.py").read_text()
    for style in STYLES:
        for seed, item in zip(HELD_OUT_SEEDS, playhouse_set(3, level="B", style=style), strict=False):
            assert item.truth == tell_story(draw_story(seed, "B"), random.Random(f"playhouse/table/{seed}/{style}"), style)


@pytest.mark.parametrize("wrong", [{"count": 0}, {"count": 201}, {"level": "D"}, {"style": "rhymed"}])
def test_a_playhouse_set_that_does_not_exist(wrong: dict[str, Any]) -> None:
    with pytest.raises(InputError) as caught:
        playhouse_set(**wrong)
    assert "\n" not in str(caught.value)


def test_no_torch_is_needed() -> None:
    code = "import sys; from mask2dit.evaluation.prompt_sets import load_prompt_set as l; l('benchmark'); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
