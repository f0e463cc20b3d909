"""Which scene of a storyboard is which in the folder, and which calls make the others."""

import random
from itertools import pairwise

import pytest

from mask2dit.errors import StoryboardError
from mask2dit.memory import Kept
from mask2dit.production.planning import Call, kept_by, list_scenes, match_scenes, plan_calls, remembered
from mask2dit.production.record import SceneInputs, SceneRecord, Take
from mask2dit.storyboard import Storyboard


def wanted(*captions: str) -> list[SceneRecord]:
    def inputs(caption: str) -> SceneInputs:
        return SceneInputs(caption=caption, negative_prompt="", seed=0, num_frames=9, guidance_scale=3.0)

    return [SceneRecord(number=0, prompt=caption, inputs=inputs(caption)) for caption in captions]


class Record:
    """What matching reads of a film's record."""

    def __init__(self, *captions: str, left: dict[int, str] | None = None) -> None:
        self.scenes = [scene.model_copy(update={"number": n, "take": 1}) for n, scene in enumerate(wanted(*captions), start=1)]
        self.takes = [
            Take.model_construct(scene=number, number=1, inputs=scene.inputs, set_aside=False)
            for number, caption in (left or {}).items()
            for scene in wanted(caption)
        ]


def numbers(record: Record | None, *captions: str) -> list[int]:
    return [scene.number for scene in match_scenes(record, wanted(*captions))]


def test_a_new_film_counts_from_one() -> None:
    assert numbers(None, "a", "b", "a") == [1, 2, 3]


@pytest.mark.parametrize(
    ("captions", "expected"),
    [
        ("abc", [1, 2, 3]),
        ("axc", [1, 2, 3]),  # changed
        ("axyc", [1, 2, 4, 3]),  # changed, and one inserted
        ("abxc", [1, 2, 4, 3]),
        ("xabc", [4, 1, 2, 3]),
        ("abcxy", [1, 2, 3, 4, 5]),
        ("ac", [1, 3]),
        ("xyz", [1, 2, 3]),
        ("aabc", [4, 1, 2, 3]),
    ],
)
def test_scenes_keep_their_numbers_when_others_come_and_go(captions: str, expected: list[int]) -> None:
    found = numbers(Record(*"abc"), *captions)
    assert sorted(found) == sorted(expected) and (captions[:2] == "aa" or found == expected)


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("ababab", "axabab", [1, 2, 3, 4, 5, 6]),  # shot and reverse shot, one of them again
        ("aaaaa", "aaxaa", [1, 2, 3, 4, 5]),
        ("aaab", "axaab", [1, 5, 2, 3, 4]),
        ("abcd", "badc", [2, 1, 4, 3]),  # in another order: nothing is new
        ("abc", "cab", [3, 1, 2]),
        ("abcd", "dxba", [4, 5, 2, 1]),
    ],
)
def test_captions_may_repeat_and_scenes_may_move(old: str, new: str, expected: list[int]) -> None:
    assert numbers(Record(*old), *new) == expected


def test_scenes_are_known_by_their_captions_when_all_else_changes() -> None:
    other = [scene.model_copy(update={"inputs": scene.inputs.model_copy(update={"seed": 5})}) for scene in wanted("new", "a", "b", "c")]
    assert [scene.number for scene in match_scenes(Record("a", "b", "c"), other)] == [4, 1, 2, 3]


def test_a_scene_that_was_there_before_is_found_again() -> None:
    matched = match_scenes(Record("a", "b", left={7: "gone"}), wanted("a", "gone", "b"))
    assert [(scene.number, scene.take) for scene in matched] == [(1, 1), (7, 1), (2, 1)]
    assert numbers(Record("a", "b", left={7: "gone"}), "a", "b", "new") == [1, 2, 8]


def test_matching_never_gives_a_number_twice_and_keeps_what_is_the_same() -> None:
    rng = random.Random(0)
    for _ in range(200):
        old, new = (["".join(rng.choices("abcde", k=1)) for _ in range(rng.randint(1, 7))] for _ in range(2))
        found = numbers(Record(*old), *new)
        assert len(set(found)) == len(new)
        assert numbers(Record(*old), *old) == list(range(1, len(old) + 1))


# Calls


def nearest(index: int, made: list[int]) -> list[int]:
    return sorted(made, key=lambda other: (abs(other - index), other > index))[:2]


def calls(film: range | list[int], todo: set[int], known_sets: str = "any") -> list[tuple[tuple[int, ...], list[int]]]:
    return [(call.scenes, sorted(call.make)) for call in plan_calls(list(film), todo, 3, known_sets, nearest)]


def test_a_film_within_the_window_is_one_call() -> None:
    assert calls(range(3), {0, 1, 2}) == [((0, 1, 2), [0, 1, 2])]
    assert calls(range(3), {1}) == [((0, 1, 2), [1])]
    assert calls(range(3), {0, 2}) == [((0, 1, 2), [0, 2])]
    assert calls(range(3), set()) == []


def test_a_longer_film_goes_on_with_the_latest() -> None:
    assert calls(range(5), set(range(5))) == [((0, 1, 2), [0, 1, 2]), ((1, 2, 3), [3]), ((2, 3, 4), [4])]
    assert calls(range(5), {2}) == [((1, 2, 3), [2])]
    assert calls(range(5), {0}) == [((0, 1, 2), [0])]
    assert calls([0, 2, 4], {4}) == [((0, 2, 4), [4])]  # scenes between are skipped


def test_weights_that_know_only_the_last_place_get_it() -> None:
    assert calls(range(3), {0, 1, 2}, "last") == [((0, 1, 2), [0, 1, 2])]
    assert calls(range(3), {0}, "last") == [((1, 2, 0), [0])]
    assert calls(range(3), {0, 1}, "last") == [((2, 0), [0]), ((0, 2, 1), [1])]
    assert calls(range(5), {2}, "last") == [((1, 3, 2), [2])]


def test_every_scene_is_made_once_in_the_light_of_what_is_made() -> None:
    rng = random.Random(1)
    for _ in range(300):
        film, window = range(rng.randint(1, 9)), rng.randint(1, 4)
        todo, sets = set(rng.sample(film, rng.randint(0, len(film)))), rng.choice(["any", "last"])
        choose = remembered(Storyboard.from_captions(["x"] * len(film)), window)
        made = set(film) - todo
        for call in plan_calls(film, todo, window, sets, choose):
            assert set(call.known) <= made and not call.make & made and len(call.scenes) <= window
            assert sets == "any" or len(call.make) > 1 or call.scenes[-1] in call.make
            made |= call.make
        assert made == set(film)


def test_what_is_remembered() -> None:
    board = Storyboard(
        characters={"Mia": "a red fox", "Tom": "a bear"},
        remember="characters",
        scenes=[
            {"prompt": "Mia runs"},
            {"prompt": "Tom sleeps"},
            {"prompt": "a tree"},
            {"prompt": "Mia jumps"},
            {"prompt": "Tom and Mia", "remember": "first"},
            {"prompt": "Tom", "remember": [2]},
            {"prompt": "Mia", "remember": "latest"},
        ],
    )
    choose = remembered(board, 3)
    assert choose(3, [0, 1, 2]) == [0, 2]  # Mia's scene, then the latest
    assert choose(4, [0, 1, 2, 3]) == [0, 3]
    assert choose(5, [0, 1, 2, 3, 4]) == [1, 4]
    assert choose(6, range(6)) == [4, 5]
    assert choose(1, [0, 2, 3]) == [0, 2]  # nobody shares Tom: the nearest
    with pytest.raises(StoryboardError, match="scene 2, remember: got 3 scenes, expected at most 2 for this model"):
        remembered(Storyboard(scenes=[{"prompt": "a"}, {"prompt": "b", "remember": [1, 3, 4]}, {"prompt": "c"}, {"prompt": "d"}]), 3)


def test_scenes_are_listed_as_people_do() -> None:
    told = [list_scenes(each) for each in ([1], [1, 2], [1, 2, 3, 7], [2, 4, 6])]
    assert told == ["scene 1", "scenes 1 and 2", "scenes 1 to 3 and 7", "scenes 2, 4 and 6"]
    assert all(len(list_scenes(range(*pair))) < 20 for pair in pairwise([1, 5, 900]))
    assert Call((0, 1, 2), frozenset({1})).known == (0, 2)


def test_what_calls_keep_between_steps() -> None:
    """Of the call with the most of it; a plan in which known scenes see generated ones keeps nothing of theirs."""
    calls, frames = (
        [Call((0, 1, 2), frozenset({0, 1, 2})), Call((1, 2, 3), frozenset({3})), Call((2, 3, 4), frozenset({3, 4}))],
        [9, 2, 4, 8, 1],
    )
    assert kept_by(calls, frames, "context-blind", True, None) == Kept(2, 2 + 4)
    assert kept_by(calls, frames, "context-blind", False, "pyramid:2") == Kept(1, 2 + 4, "pyramid:2")
    assert kept_by(calls, frames, "symmetric", True, None) == Kept(2) and kept_by([], frames, "context-blind", True, None) == Kept(2)
