"""Captions of playhouse footage in the words of its grammar: from the truth beside a video, or from what the judge reads in its shots.

The judge reads one actor, the main one. Who that is, is decided over the whole group: what it takes for species, colour and accessory in
all shots together; action, place, light, weather and camera are read shot by shot.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from mask2dit.curation.captioners.base import CaptionError, GroupCaptions, GroupView, ShotView
from mask2dit.errors import InputError
from mask2dit.playhouse.captions import caption_by_tags, describe_actor
from mask2dit.playhouse.facts import Actor, Proportions, Role, Stage, draw_story
from mask2dit.playhouse.features import JudgeExtractor
from mask2dit.playhouse.footage import FootageTruth, ShotTruth, read_truth

SMALLEST = 1e-6  # probability; below it one shot alone would decide

_read_truth = lru_cache(maxsize=8)(read_truth)


class TruthCaptioner:
    """Says what `write_footage` left beside the video. A shot is the true one that it shares most frames with."""

    name = "playhouse truth"
    features: frozenset[str] = frozenset()
    at_once = 1

    def caption(self, group: GroupView) -> GroupCaptions:
        """Raises CaptionError where there is no truth."""
        rng = random.Random(group.group)
        tags: dict[tuple[int, int], str] = {}
        cast: dict[str, str] = {}
        prompts = []
        for shot in group.shots:
            level, scenes, true = _true_shot(shot)
            story = draw_story(true.seed, level, scenes)
            stage = story.stages[true.scene]
            for role in stage.roles:
                tag = tags.setdefault((true.seed, role.actor), f"Actor{len(tags) + 1}")
                cast.setdefault(tag, describe_actor(story.actors[role.actor], rng))
            prompts.append(caption_by_tags(level, stage, {role.actor: tags[true.seed, role.actor] for role in stage.roles}, rng))
        return GroupCaptions(cast, "", tuple(prompts))

    def summary(self) -> Mapping[str, Any]:
        return {}


def _true_shot(shot: ShotView) -> tuple[str, int, ShotTruth]:
    try:
        truth: FootageTruth = _read_truth(shot.video)
    except InputError as error:
        raise CaptionError(str(error)) from None
    overlaps = [(min(shot.stop, each.first_frame + each.num_frames) - max(shot.start, each.first_frame), each) for each in truth.shots]
    frames, best = max(overlaps, key=lambda each: each[0])
    if frames <= 0:
        raise CaptionError(
            f"frames {shot.start} to {shot.stop}: the truth beside {shot.video.name} has no such shot; write the footage again"
        )
    return truth.level, truth.scenes_per_story, best


class JudgeCaptioner:
    """Says what the judge reads."""

    at_once = 1

    def __init__(self, judge: JudgeExtractor) -> None:
        self._judge = judge
        self.name = f"judge {judge.weights}"
        self.features = frozenset({judge.name})

    def caption(self, group: GroupView) -> GroupCaptions:
        """Never fails: the judge always reads something."""
        rng = random.Random(group.group)
        features = [shot.features[self._judge.name] for shot in group.shots]
        who = self._judge.read(_together(features))
        actor = Actor(
            who["species"], who["colour"], who.get("accessory", "none"), 1.0, Proportions(1.0, 1.0, 1.0), 0.0, 0, faces_right=True
        )
        prompts = []
        for feature in features:
            read = self._judge.read(feature)
            stage = Stage(
                read["place"], read["light"], read.get("weather", "clear"), read.get("camera", "still"), (Role(0, read["action"], 0.0),)
            )
            prompts.append(caption_by_tags(self._judge.judge.level, stage, {0: "Actor1"}, rng))
        return GroupCaptions({"Actor1": describe_actor(actor, rng)}, "", tuple(prompts))

    def summary(self) -> Mapping[str, Any]:
        return {}


def _together(features: Sequence[np.ndarray[Any, Any]]) -> np.ndarray[Any, Any]:
    """What all shots say together: the sum of logarithms, so that the surer one counts more."""
    total: np.ndarray[Any, Any] = np.log(np.maximum(np.stack(features), SMALLEST)).sum(axis=0)
    return total
