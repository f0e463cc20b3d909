"""The playhouse: a small procedural world of which the truth is known.

Stories drawn from seeds (`facts`), filmed (`render`, `footage`), told in words (`captions`) and read again (`judge`). Names
are imported when they are first used, so that importing the package does not import torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mask2dit.playhouse.captions import (
        CaptionedStory,
        caption_scene,
        caption_story,
        random_storyboard,
        tell_story,
        unknown_words,
        words,
    )
    from mask2dit.playhouse.facts import (
        HELD_OUT_SEEDS,
        LEVELS,
        TRAINING_SEEDS,
        VALIDATION_SEEDS,
        Actor,
        Level,
        Role,
        Stage,
        Story,
        draw_story,
    )
    from mask2dit.playhouse.footage import FootageTruth, plan_footage, read_truth, write_footage
    from mask2dit.playhouse.judge import Judge, Reading, load_judge
    from mask2dit.playhouse.render import render_scenes
    from mask2dit.playhouse.staging import scene_visibility

_HOMES = {
    "Actor": "facts",
    "CaptionedStory": "captions",
    "FootageTruth": "footage",
    "HELD_OUT_SEEDS": "facts",
    "Judge": "judge",
    "LEVELS": "facts",
    "Level": "facts",
    "Reading": "judge",
    "Role": "facts",
    "Stage": "facts",
    "Story": "facts",
    "TRAINING_SEEDS": "facts",
    "VALIDATION_SEEDS": "facts",
    "caption_scene": "captions",
    "caption_story": "captions",
    "draw_story": "facts",
    "load_judge": "judge",
    "plan_footage": "footage",
    "random_storyboard": "captions",
    "read_truth": "footage",
    "render_scenes": "render",
    "scene_visibility": "staging",
    "tell_story": "captions",
    "unknown_words": "captions",
    "words": "captions",
    "write_footage": "footage",
}

__all__ = [
    "HELD_OUT_SEEDS",
    "LEVELS",
    "TRAINING_SEEDS",
    "VALIDATION_SEEDS",
    "Actor",
    "CaptionedStory",
    "FootageTruth",
    "Judge",
    "Level",
    "Reading",
    "Role",
    "Stage",
    "Story",
    "caption_scene",
    "caption_story",
    "draw_story",
    "load_judge",
    "plan_footage",
    "random_storyboard",
    "read_truth",
    "render_scenes",
    "scene_visibility",
    "tell_story",
    "unknown_words",
    "words",
    "write_footage",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'mask2dit.playhouse' has no attribute {name!r}")
    return getattr(import_module(f"mask2dit.playhouse.{_HOMES[name]}"), name)
