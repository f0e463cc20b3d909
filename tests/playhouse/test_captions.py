import random

import pytest

from mask2dit.errors import Mask2DiTError
from mask2dit.playhouse.captions import (
    MAX_WORDS,
    STYLES,
    caption_scene,
    caption_story,
    random_storyboard,
    split_words,
    tell_story,
    unknown_words,
    words,
)
from mask2dit.playhouse.facts import COLOURS, LEVELS, draw_story


def told(level, style, seeds=range(200)):
    return [tell_story(draw_story(seed, level), random.Random(seed), style) for seed in seeds]


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("style", STYLES)
def test_captions_use_known_words_and_are_short(level, style):
    for story in told(level, style):
        for caption in story.captions:
            assert unknown_words(caption) == [] and len(split_words(caption)) <= MAX_WORDS[level]


@pytest.mark.parametrize("level", LEVELS)
def test_by_reference_names_each_colour_in_one_scene(level):
    for story in told(level, "by-reference"):
        for number, actor in enumerate(story.story.actors):
            naming = [index for index, caption in enumerate(story.captions) if actor.colour in split_words(caption)]
            assert len(naming) == 1
            assert [index for index, named in enumerate(story.named) if (number, "colour") in named] == naming
            worn = [index for index, caption in enumerate(story.captions) if actor.accessory in split_words(caption)]
            others = {other.accessory for other in story.story.actors if other is not actor}
            if actor.accessory not in others:
                assert worn == (naming if actor.accessory != "none" else [])


@pytest.mark.parametrize("level", LEVELS)
def test_self_contained_captions_name_everyone_fully(level):
    for story in told(level, "self-contained"):
        for stage, caption, named in zip(story.story.stages, story.captions, story.named, strict=True):
            said = split_words(caption)
            for role in stage.roles:
                actor = story.story.actors[role.actor]
                assert actor.colour in said and actor.species in said and {(role.actor, "species"), (role.actor, "colour")} <= named
            on_stage = {story.story.actors[role.actor].colour for role in stage.roles}
            assert set(COLOURS) & set(said) == on_stage


def test_every_word_is_used():
    used = {
        word
        for level in LEVELS
        for style in STYLES
        for story in told(level, style, range(1500))
        for text in story.captions
        for word in split_words(text)
    }
    assert used == set(words())


def test_the_same_generator_gives_the_same_captions():
    story = draw_story(3, "C")
    assert caption_story(story, random.Random(1)) == caption_story(story, random.Random(1))
    assert len({tuple(caption_story(story, random.Random(seed))) for seed in range(20)}) == 20


def test_name_attributes_overrules_the_style():
    story = draw_story(3, "A")
    colour = story.actors[0].colour
    assert colour in split_words(caption_scene(story, 0, random.Random(0), "by-reference", name_attributes=[0]))
    assert colour not in split_words(caption_scene(story, 0, random.Random(0), "self-contained", name_attributes=[]))


@pytest.mark.parametrize(
    "caption",
    [
        "A red fox walks left in the snow at night.",
        "Actor1 (an orange owl) is sleeping on the beach by day",
        "The frog jumps in outer space under the stars",
        "At sunset, a white robot with glasses spins in the city",
    ],
)
def test_what_people_write_is_known(caption):
    assert unknown_words(caption) == []


def test_unknown_words_are_named_once_in_order():
    assert unknown_words("A dragon, a Dragon and a knight walks left") == ["dragon", "knight"]
    assert words() == tuple(sorted(set(words()))) and "actor1" in words() and "," in words()


def test_random_storyboard():
    board = random_storyboard(4, "B", "by-reference", num_scenes=5)
    assert board == random_storyboard(4, "B", "by-reference", num_scenes=5)
    assert set(board) == {"title", "scenes"} and len(board["scenes"]) == 5 and all(set(scene) == {"prompt"} for scene in board["scenes"])


def test_wrong_wishes_are_refused():
    with pytest.raises(Mask2DiTError, match="self-contained, by-reference"):
        caption_story(draw_story(0, "A"), random.Random(0), "poetic")
    with pytest.raises(Mask2DiTError, match="3 scenes"):
        caption_scene(draw_story(0, "A"), 3, random.Random(0))
