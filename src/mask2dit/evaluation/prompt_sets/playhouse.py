"""The playhouse's held-out stories as a prompt set: their captions in the words of every published table, and the stories themselves."""

import random

from mask2dit.errors import InputError
from mask2dit.evaluation.prompt_sets.item import PromptSetItem
from mask2dit.playhouse.captions import CaptionedStory, tell_story
from mask2dit.playhouse.facts import HELD_OUT_SEEDS, LARGE_HELD_OUT_SEEDS, draw_story
from mask2dit.playhouse.phrases import TAGS
from mask2dit.storyboard import Storyboard


def playhouse_set(count: int = len(HELD_OUT_SEEDS), level: str = "A", style: str = "self-contained") -> tuple[PromptSetItem, ...]:
    """The first `count` of the held-out stories, of three scenes each; at most 200, of which 64 are in the published tables."""
    if not 1 <= count <= len(LARGE_HELD_OUT_SEEDS):
        raise InputError(f"count: got {count}, expected 1 to {len(LARGE_HELD_OUT_SEEDS)} stories; there are no more that are held out")
    return tuple(_as_item(_tell(seed, level, style)) for seed in LARGE_HELD_OUT_SEEDS[:count])


def _tell(seed: int, level: str, style: str) -> CaptionedStory:
    # The key of the published tables: another one gives other words for the same stories.
    return tell_story(draw_story(seed, level), random.Random(f"playhouse/table/{seed}/{style}"), style)


def _as_item(told: CaptionedStory) -> PromptSetItem:
    story = told.story
    return PromptSetItem(
        name=f"playhouse-{story.level}-{story.seed}",
        storyboard=Storyboard.from_captions(told.captions, title=f"Playhouse story {story.seed}"),
        characters=tuple(frozenset(TAGS[role.actor] for role in stage.roles) for stage in story.stages),
        places=tuple(frozenset({stage.place}) for stage in story.stages),
        tags={"level": story.level, "style": told.style, "seed": str(story.seed)},
        truth=told,
    )
