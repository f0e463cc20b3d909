"""One entry of a prompt set, whichever set it is from."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations

from mask2dit.playhouse.captions import CaptionedStory
from mask2dit.storyboard import Storyboard

Cast = tuple[frozenset[str], ...]
"""Names per scene, in the order of the scenes."""


@dataclass(frozen=True, slots=True)
class PromptSetItem:
    """A storyboard to film, and what its set says about it.

    `characters`, `places` and `objects` hold the names in each scene; None where the set does not say. `tags`: what the film is about or
    how hard it is (genre, tier, level …). `truth`: the story itself, where its pictures can be drawn. `notes`: what was lost in reading.
    """

    name: str
    storyboard: Storyboard
    characters: Cast | None = None
    places: Cast | None = None
    objects: Cast | None = None
    tags: Mapping[str, str] = field(default_factory=dict)
    truth: CaptionedStory | None = None
    notes: tuple[str, ...] = ()


def scenes_that_share(names: Sequence[frozenset[str]] | None) -> tuple[tuple[int, int], ...]:
    """Pairs of scene indices, the lower first, that have a name in common; none where the set does not say."""
    return tuple((a, b) for a, b in combinations(range(len(names or ())), 2) if names and names[a] & names[b])
