"""The playhouse as a source: the frames of its own renderer, and captions that are one telling of a story."""

import pickle
import random

import numpy as np
import pytest
import torch

from mask2dit.errors import InputError
from mask2dit.playhouse.captions import tell_story
from mask2dit.playhouse.facts import LEVELS, TRAINING_SEEDS, draw_story
from mask2dit.playhouse.render import render_scenes
from mask2dit.training.data.playhouse import PlayhouseScenes
from mask2dit.training.data.report import ClipReport
from mask2dit.training.data.scenes import ClipSettings, SceneRun, SceneSource, usable

SMALL = ClipSettings(height=32, width=48, num_frames=5, fps=8)


def test_groups_are_the_training_stories_three_scenes_each() -> None:
    source: SceneSource = PlayhouseScenes("A", 4, by_reference=0.5)
    assert [[(clip.seed, clip.scene) for clip in group] for group in source.groups] == [
        [(seed, scene) for scene in range(3)] for seed in TRAINING_SEEDS[:4]
    ]
    assert not source.fixed_captions
    runs = usable(source, 3, needs_groups=True, report=ClipReport())
    assert runs == [SceneRun(group, 0, 3) for group in range(4)]


@pytest.mark.parametrize("level", LEVELS)
def test_frames_are_the_renderers(level: str) -> None:
    source = PlayhouseScenes(level, 2, by_reference=0.0)
    stories = [(draw_story(seed, level), scene) for seed in TRAINING_SEEDS[:2] for scene in range(3)]
    expected = (render_scenes(stories, num_frames=5, height=32, width=48) * 255).round().to(torch.uint8).numpy()
    for clip, frames in zip([clip for group in source.groups for clip in group], expected, strict=True):
        for position in (0.0, 1.0):
            assert np.abs(clip.frames(SMALL, position).astype(int) - frames).max() <= 1


def test_by_reference_each_attribute_is_named_once() -> None:
    source = PlayhouseScenes("B", 8, by_reference=1.0)
    for group in range(8):
        captions = source.captions(group, random.Random(group))
        story = draw_story(source.groups[group][0].seed, "B")
        rng = random.Random(group)
        rng.random()  # the draw of the style
        told = tell_story(story, rng, "by-reference")
        assert captions == list(told.captions)
        named = [pair for scene in told.named for pair in scene if pair[1] != "species"]
        assert len(named) == len(set(named))
        for actor in story.actors:
            assert sum(actor.colour in caption.lower().split() for caption in captions) <= 2  # an accessory may share the word


def test_captions_are_drawn_anew_but_follow_the_generator() -> None:
    source = PlayhouseScenes("A", 1, by_reference=0.5)
    told = {tuple(source.captions(0, random.Random(key))) for key in range(20)}
    assert len(told) > 15 and all(len(captions) == 3 for captions in told)
    assert source.captions(0, random.Random(3)) == source.captions(0, random.Random(3))
    colour = draw_story(TRAINING_SEEDS[0], "A").actors[0].colour
    share = sum(sum(colour in caption.lower() for caption in captions) == 3 for captions in told) / len(told)
    assert 0.1 < share < 0.9


def test_clips_are_told_apart_and_pickle() -> None:
    source = PlayhouseScenes("A", 3, by_reference=0.5)
    clips = [clip for group in source.groups for clip in group]
    assert len({clip.fingerprint() for clip in clips}) == len({clip.name for clip in clips}) == 9
    assert PlayhouseScenes("B", 1, 0.5).groups[0][0].fingerprint() != clips[0].fingerprint()
    again = pickle.loads(pickle.dumps(source))
    assert again.groups == source.groups and again.captions(1, random.Random(0)) == source.captions(1, random.Random(0))


def test_what_there_is_not() -> None:
    for level, num_stories, by_reference, words in (("Z", 1, 0.5, "level"), ("A", 0, 0.5, "num_stories"), ("A", 1, 1.5, "by_reference")):
        with pytest.raises(InputError, match=words):
            PlayhouseScenes(level, num_stories, by_reference)
