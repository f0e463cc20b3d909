"""Characters that a storyboard describes in two ways, by its words alone."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from mask2dit.storyboard import Storyboard

SHOWN = 60  # characters of a description that a note repeats

_TAGGED = r"(?<!\w)({names}[^\W_]\w*)\s*\(([^()]*)\)"


@dataclass(frozen=True, slots=True)
class Mention:
    """A description of somebody in a scene, as it is written; what is compared has neither case nor line breaks."""

    name: str
    text: str
    look: str
    scene: int

    @property
    def who(self) -> str:
        """The name, for comparison."""
        return _plain(self.name)


def differing_descriptions(storyboard: Storyboard, *, in_known_words: bool = False) -> list[str]:
    """A sentence for every character that different scenes describe differently.

    Characters are names with a description in brackets, as in the paper's captions: "Actor1 (short black hair, red coat)". A bracket that
    only refers to another, as "Actor1 (the fox)" to "Actor1 (a red fox)", does not differ from it. in_known_words: captions are in the
    built-in model's words, where "a red fox" and "the blue fox" are two descriptions of a fox, unless one scene has both.
    """
    mentions = list(_tagged(storyboard))
    sentences = [_sentence(group) for group in _by_character(mentions) if len({_full(each, group) for each in group} - {None}) > 1]
    return sentences + (_differing_colours(storyboard) if in_known_words else [])


def _tagged(storyboard: Storyboard) -> Iterator[Mention]:
    """A name from the list of characters, or a word with a capital letter or a figure in it, and the bracket behind it."""
    names = "".join(f"{re.escape(name)}|" for name in sorted(storyboard.characters, key=len, reverse=True))
    pattern = re.compile(_TAGGED.format(names=names))
    for scene, caption in enumerate(storyboard.captions, start=1):
        for name, text in pattern.findall(caption):
            if name in storyboard.characters or name != name.lower() or any(letter.isdigit() for letter in name):
                yield Mention(name, " ".join(text.split()), _plain(text), scene)


def _plain(text: str) -> str:
    return " ".join(text.lower().split())


def _by_character(mentions: Sequence[Mention]) -> list[list[Mention]]:
    return [[each for each in mentions if each.who == who] for who in dict.fromkeys(each.who for each in mentions)]


def _full(mention: Mention, others: Sequence[Mention]) -> str | None:
    """What is said; None where it only refers to what is said elsewhere."""
    words = set(re.findall(r"\w+", mention.look))
    refers = bool(words & {"the", "same"}) and any(
        words - {"the", "same"} < set(re.findall(r"\w+", other.look)) - {"the", "same"} for other in others
    )
    return None if refers or not words else mention.look


def _differing_colours(storyboard: Storyboard) -> list[str]:
    from mask2dit.playhouse.facts import COLOURS, SPECIES

    pattern = re.compile(rf"(?:(actor\d+)\s*,\s*)?((?:\b(?:an?|the|same)\s+)*\b({'|'.join(COLOURS)})\s+({'|'.join(SPECIES)}))\b", re.I)
    tagged = re.compile(_TAGGED.format(names=""))
    mentions = [
        Mention(tag or f"the {species.lower()}", text, colour.lower(), scene)
        for scene, caption in enumerate(storyboard.captions, start=1)
        for tag, text, colour, species in pattern.findall(tagged.sub("", caption))  # brackets are compared by themselves
    ]
    return [_sentence(group) for group in _by_character(mentions) if _apart(group)]


def _apart(mentions: Sequence[Mention]) -> bool:
    """Whether two colours never meet in one scene, where they would be two actors."""
    scenes = {colour: {each.scene for each in mentions if each.look == colour} for colour in {each.look for each in mentions}}
    return any(not scenes[one] & scenes[other] for one in scenes for other in scenes if one != other)


def _sentence(mentions: Sequence[Mention]) -> str:
    looks = {each.look: each for each in reversed(mentions) if _full(each, mentions)}
    said = [(look, looks[look]) for look in dict.fromkeys(each.look for each in mentions) if look in looks]
    shown = (f"{_shortened(first.text)!r} in {_scenes(look, mentions)}" for look, first in said)
    return f"{mentions[0].name} is described in {len(said)} ways: {', '.join(shown)}"


def _scenes(look: str, mentions: Sequence[Mention]) -> str:
    numbers = list(dict.fromkeys(each.scene for each in mentions if each.look == look))
    return f"scene{'s' * (len(numbers) > 1)} {', '.join(map(str, numbers))}"


def _shortened(text: str) -> str:
    return text if len(text) <= SHOWN else text[: SHOWN - 1] + "…"
