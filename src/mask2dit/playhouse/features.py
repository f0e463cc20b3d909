"""The judge as an extractor: what it reads in a scene, and what a caption says, as vectors in one space.

A vector has a block for each attribute, of one number per value. A scene's block holds the judge's probabilities (of species: who the
main actor is), scaled to length 1; a caption's block has a 1 where it names the value, and is empty where it names none. So the cosine
between two scenes is the mean over attributes of how alike they are, and that between a scene and a caption is at most √(named / all
attributes), where the caption leaves some out. It has `mask2dit.extractors`' signature, and knows playhouse scenes only.
"""

import hashlib
from collections.abc import Sequence
from functools import cache
from itertools import chain
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from mask2dit.errors import InputError
from mask2dit.playhouse import phrases
from mask2dit.playhouse.captions import split_words
from mask2dit.playhouse.facts import COLOURS, SPECIES
from mask2dit.playhouse.judge import ACTOR_ATTRIBUTES, VALUES, VIEW, Judge, view_scene

Features = NDArray[np.float32]

IDENTITY = ("species", "colour", "accessory")
"""What a story's actors keep from scene to scene, whatever else changes."""


class JudgeExtractor:
    """Features of scenes and captions by a judge; `frames` it has none of, for an action is no picture."""

    kinds: frozenset[Literal["frame", "scene", "text"]] = frozenset({"scene", "text"})
    num_frames = VIEW[0]

    def __init__(self, judge: Judge, attributes: Sequence[str] | None = None) -> None:
        """attributes: those of the judge's that a vector has blocks of, such as `IDENTITY`; None: all."""
        self.judge = judge
        self.attributes = [name for name in judge.attributes if attributes is None or name in attributes]
        self.name = "judge" if attributes is None else "judge-" + "-".join(self.attributes)
        digest = hashlib.sha256()
        for key, value in sorted(judge.state_dict().items()):
            digest.update(key.encode() + value.detach().float().cpu().numpy().tobytes())
        self.weights = f"level {judge.level} · {digest.hexdigest()[:12]}"

    def scene(self, pictures: NDArray[np.uint8]) -> Features:
        """[T, Y, X, 3] → [D]: the judge's probabilities, block by block."""
        return np.asarray(self.scenes([pictures])[0])

    @torch.no_grad()
    def scenes(self, scenes: Sequence[NDArray[np.uint8]]) -> Features:
        """N scenes → [N, D]"""
        views = torch.stack([view_scene(pictures) for pictures in scenes])
        logits = self.judge(views.to(self.judge.find.weight.device))
        who = logits["species"].argmax(-1)
        blocks = []
        for name in self.attributes:
            rows = logits[name][torch.arange(len(who)), who] if name in ACTOR_ATTRIBUTES else logits[name]
            odds = rows.softmax(-1)
            blocks.append(odds / odds.norm(dim=-1, keepdim=True))
        features: Features = torch.cat(blocks, dim=-1).float().cpu().numpy()
        return features

    def text(self, captions: Sequence[str]) -> Features:
        """N captions → [N, D]: what each names."""
        rows = []
        for caption in captions:
            named = facts_named(caption)
            rows.append([float(named.get(name) == value) for name in self.attributes for value in VALUES[name]])
        return np.array(rows, np.float32)

    def frames(self, pictures: NDArray[np.uint8]) -> Features:
        """Raises InputError: the judge reads scenes."""
        raise InputError("extractor judge: got single pictures, expected whole scenes; choose another extractor for them")

    def read(self, feature: Features) -> dict[str, str]:
        """A scene's feature as the values that it is most of."""
        read, start = {}, 0
        for name in self.attributes:
            read[name] = VALUES[name][int(feature[start : start + len(VALUES[name])].argmax())]
            start += len(VALUES[name])
        return read


def facts_named(caption: str) -> dict[str, str]:
    """What a caption names, by attribute, in words of the grammar: the longest phrase first, each word once, the first actor's only."""
    words = split_words(caption)
    named: dict[str, str] = {}
    for phrase, facts in _phrases():
        while (place := _find(words, phrase)) is not None:
            words[place : place + len(phrase)] = [""]
            for name, value in facts:
                named.setdefault(name, value)
    return named


def _find(words: Sequence[str], phrase: tuple[str, ...]) -> int | None:
    count = len(phrase)
    return next((place for place in range(len(words) - count + 1) if tuple(words[place : place + count]) == phrase), None)


@cache
def _phrases() -> tuple[tuple[tuple[str, ...], tuple[tuple[str, str], ...]], ...]:
    """Phrases as words, the longest first, with the facts that they name."""
    tables: dict[str, dict[str, phrases.Phrases]] = {
        "action": phrases.ACTION_PHRASES,
        "place": {place: (*phrases.PLACE_PHRASES[place], *phrases.WAY_PHRASES[place]) for place in phrases.PLACE_PHRASES},
        "light": phrases.LIGHT_PHRASES,
        "weather": phrases.WEATHER_PHRASES,
        "camera": phrases.CAMERA_PHRASES,
        "accessory": {kind: tuple(filter(None, worn)) for kind, worn in phrases.ACCESSORY_PHRASES.items()},
        "species": {species: (species,) for species in SPECIES},
        "colour": {colour: (colour,) for colour in COLOURS},
    }
    found: list[tuple[tuple[str, ...], tuple[tuple[str, str], ...]]] = [
        (tuple(split_words(phrase)), ((name, value),))
        for name, table in tables.items()
        for value, options in table.items()
        for phrase in options
    ]
    lit = chain.from_iterable(
        ((text, (("light", light), ("place", place))) for place, text in by_place.items())
        for light, by_place in phrases.LIT_PHRASES.items()
    )
    found += [(tuple(split_words(text)), facts) for text, facts in lit]
    return tuple(sorted(found, key=lambda each: -len(each[0])))
