"""Captions of stories from a grammar, the words that it knows, and which caption names what. Needs no torch.

Two styles: "self-contained" captions repeat each actor's full description; "by-reference" captions name an actor's
colour and accessory in exactly one scene of the story and elsewhere say "the fox". The phrases are in `phrases`.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from mask2dit.errors import InputError
from mask2dit.playhouse import phrases
from mask2dit.playhouse.facts import COLOURS, LEVELS, SPECIES, Actor, Level, Role, Stage, Story, draw_story

SHOWN_WORDS, LONGEST_WORD = 8, 40
STYLES = ("self-contained", "by-reference")

MAX_WORDS = {"A": 24, "B": 44, "C": 60}
"""Words and punctuation marks that the longest caption of a level may have."""

_WORD = re.compile(r"[^\W_]+|[^\w\s]|_")


@dataclass(frozen=True, slots=True)
class CaptionedStory:
    """A story in words. `named[i]` holds (actor, attribute) for every attribute that caption i names of an actor.

    Attributes are "species", "colour" and "accessory"; the last only where the actor wears something.
    """

    story: Story
    style: str
    captions: tuple[str, ...]
    named: tuple[frozenset[tuple[int, str]], ...]


def tell_story(story: Story, rng: random.Random, style: str = "self-contained") -> CaptionedStory:
    """Caption every scene of a story, and say which caption names which attribute."""
    _check_style(style)
    scenes_of = {actor: [i for i, stage in enumerate(story.stages) if actor in _cast(stage)] for actor in range(len(story.actors))}
    if style == "by-reference":
        naming = {actor: {rng.choice(scenes)} for actor, scenes in scenes_of.items() if scenes}
    else:
        naming = {actor: set(scenes) for actor, scenes in scenes_of.items()}
    captions, named = [], []
    for index, stage in enumerate(story.stages):
        full = frozenset(actor for actor in _cast(stage) if index in naming[actor])
        captions.append(caption_scene(story, index, rng, style, name_attributes=full))
        named.append(frozenset(_named(story, stage, full)))
    return CaptionedStory(story=story, style=style, captions=tuple(captions), named=tuple(named))


def caption_story(story: Story, rng: random.Random, style: str = "self-contained") -> list[str]:
    """Caption every scene of a story."""
    return list(tell_story(story, rng, style).captions)


def caption_scene(
    story: Story, index: int, rng: random.Random, style: str = "self-contained", name_attributes: Collection[int] | None = None
) -> str:
    """Caption one scene. `name_attributes`: the actors whose colour and accessory are named; None = as the style has it."""
    _check_style(style)
    if not 0 <= index < len(story.stages):
        raise InputError(f"the story has {len(story.stages)} scenes, there is no scene with index {index}")
    stage = story.stages[index]
    full = name_attributes
    if full is None:
        full = _cast(stage) if style == "self-contained" else ()
    return _captioned(story.level, stage, rng, lambda role: _subject(story, role, rng, role.actor in full))


def caption_by_tags(level: str, stage: Stage, tags: Mapping[int, str], rng: random.Random) -> str:
    """Caption one scene with its actors' tags alone, by their number."""
    return _captioned(level, stage, rng, lambda role: tags[role.actor])


def describe_actor(actor: Actor, rng: random.Random) -> str:
    """What stands in brackets behind an actor's tag."""
    worn = rng.choice(phrases.ACCESSORY_PHRASES[actor.accessory])
    return f"{_article(actor)} {actor.colour} {actor.species}{f' {worn}' if worn else ''}"


def _captioned(level: str, stage: Stage, rng: random.Random, subject: Callable[[Role], str]) -> str:
    while True:
        text = _draw_caption(LEVELS[level], stage, rng, subject)
        # Only the longest phrases all at once are too long, so a second draw is rare and a third almost unheard of.
        if len(split_words(text)) <= MAX_WORDS[level]:
            return text


def _draw_caption(level: Level, stage: Stage, rng: random.Random, subject: Callable[[Role], str]) -> str:
    doings = [f"{subject(role)} {rng.choice(phrases.ACTION_PHRASES[role.action])}" for role in stage.roles]
    sentence = doings[0] if len(doings) == 1 else f"{', '.join(doings[:-1])} and {doings[-1]}"
    before, after = _surroundings(stage, rng, weathers=level.weathers)
    text = f"{before}{sentence} {after}{_camera(stage, rng, cameras=level.cameras)}{rng.choice(('.', ''))}"
    return text[0].upper() + text[1:]


@cache
def words() -> tuple[str, ...]:
    """All words and punctuation marks of the grammar, lower-cased and sorted."""
    return tuple(sorted({word for phrase in _all_phrases() for word in split_words(phrase)}))


def split_words(caption: str) -> list[str]:
    """A caption's words and punctuation marks, lower-cased, in order; "Actor1" is one word."""
    return _WORD.findall(caption.lower())


def unknown_words(caption: str) -> list[str]:
    """The words of a caption that the grammar does not have, in order, each once."""
    known = set(words())
    return list(dict.fromkeys(word for word in split_words(caption) if word not in known))


def tell_unknown(words: Iterable[str]) -> str:
    """What to say of words that the grammar does not have; a few of many, and each cut to a readable length."""
    each = list(dict.fromkeys(words))
    shown = ", ".join(word[:LONGEST_WORD] for word in each[:SHOWN_WORDS]) + (", …" if len(each) > SHOWN_WORDS else "")
    return f"the built-in model does not know: {shown}; `mask2dit words` lists what it knows"


def random_storyboard(seed: int, level: str = "A", style: str = "self-contained", num_scenes: int = 3) -> dict[str, Any]:
    """A storyboard of a drawn story as plain data: a title, and a prompt per scene."""
    story = draw_story(seed, level, num_scenes)
    captions = caption_story(story, random.Random(f"playhouse/storyboard/{seed}"), style)
    cast = [f"the {actor.colour} {actor.species}" for actor in story.actors]
    title = cast[0] if len(cast) == 1 else f"{', '.join(cast[:-1])} and {cast[-1]}"
    return {"title": title[0].upper() + title[1:], "scenes": [{"prompt": caption} for caption in captions]}


def _check_style(style: str) -> None:
    if style not in STYLES:
        raise InputError(f"caption style {style!r} does not exist; choose one of {', '.join(STYLES)}")


def _cast(stage: Stage) -> list[int]:
    return [role.actor for role in stage.roles]


def _named(story: Story, stage: Stage, full: Collection[int]) -> Iterator[tuple[int, str]]:
    for actor in _cast(stage):
        yield actor, "species"
        if actor in full:
            yield actor, "colour"
            if story.actors[actor].accessory != "none":
                yield actor, "accessory"


def _subject(story: Story, role: Role, rng: random.Random, full: bool) -> str:
    """Who: with the full description, or as one already met."""
    actor = story.actors[role.actor]
    if full:
        form = rng.choice(phrases.FULL_SUBJECTS if rng.random() < 0.5 else phrases.UNTAGGED_SUBJECTS)
    else:
        form = rng.choice(phrases.REFERENCE_SUBJECTS)
    worn = rng.choice(phrases.ACCESSORY_PHRASES[actor.accessory])
    return form.format(
        tag=phrases.TAGS[role.actor],
        article=_article(actor),
        colour=actor.colour,
        species=actor.species,
        worn=f" {worn}" if worn else "",
    )


def _article(actor: Actor) -> str:
    return "an" if actor.colour[0] in "aeiou" else "a"


def _surroundings(stage: Stage, rng: random.Random, *, weathers: bool) -> tuple[str, str]:
    """Place, light and weather: (what stands before the sentence, what follows it)."""
    weather = ""
    if weathers and (stage.weather != "clear" or rng.random() < 0.2):
        weather = " " + rng.choice(phrases.WEATHER_PHRASES[stage.weather])
    lit = phrases.LIT_PHRASES[stage.light].get(stage.place)
    if lit and stage.weather == "clear" and rng.random() < 0.15:
        return "", lit + weather
    walking = all(role.action.startswith("walks") for role in stage.roles)
    place = rng.choice(phrases.WAY_PHRASES[stage.place] if walking and rng.random() < 0.4 else phrases.PLACE_PHRASES[stage.place])
    light = rng.choice(
        [text for text in phrases.LIGHT_PHRASES[stage.light] if stage.weather == "clear" or text not in phrases.SUNNY_PHRASES]
    )
    if rng.random() < 0.25:
        return f"{light}, ", place + weather
    return "", f"{place} {light}{weather}"


def _camera(stage: Stage, rng: random.Random, *, cameras: bool) -> str:
    if not cameras or (stage.camera == "still" and rng.random() < 0.7):
        return ""
    return ", " + rng.choice(phrases.CAMERA_PHRASES[stage.camera])


def _all_phrases() -> Iterator[str]:
    tables = (
        phrases.ACTION_PHRASES,
        phrases.PLACE_PHRASES,
        phrases.WAY_PHRASES,
        phrases.LIGHT_PHRASES,
        phrases.WEATHER_PHRASES,
        phrases.CAMERA_PHRASES,
        phrases.ACCESSORY_PHRASES,
    )
    for table in tables:
        for options in table.values():
            yield from options
    for by_place in phrases.LIT_PHRASES.values():
        yield from by_place.values()
    for forms in (phrases.FULL_SUBJECTS, phrases.UNTAGGED_SUBJECTS, phrases.REFERENCE_SUBJECTS):
        yield from (re.sub(r"\{\w+\}", " ", form) for form in forms)
    yield from (*phrases.TAGS, *phrases.GLUE, *COLOURS, *SPECIES)
