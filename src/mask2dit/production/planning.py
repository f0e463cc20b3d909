"""What is to be made of a film, and in which calls of the model; nothing is computed or written here.

A made scene is a source: it stays as it is when others change. Scenes of a storyboard find themselves again in a folder's record, whatever
came or went between them; those without a fitting take are made, with the others known.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher

from mask2dit.errors import InputError, StoryboardError
from mask2dit.memory import Kept
from mask2dit.plans import PLANS
from mask2dit.production.folder import FilmFolder
from mask2dit.production.record import NOT_READ, FilmRecord, MadeWith, SceneInputs, SceneRecord, Take
from mask2dit.storyboard import Storyboard

LOST = "is made again: its latents are lost or damaged"

ChooseKnown = Callable[[int, Sequence[int]], Sequence[int]]


@dataclass(frozen=True, slots=True)
class Directions:
    """How a film is made, beside what is in it.

    `fresh`: every scene again. `stay`: what is made stays, whatever it was made with. `again`: indices of scenes to be made again even
    though their inputs are the same. `chosen`: index of a scene and the take that it shows. `subtitles`: write film.srt, too.
    """

    fresh: bool = False
    stay: bool = False
    again: frozenset[int] = frozenset()
    chosen: tuple[int, int] | None = None
    subtitles: bool = False


@dataclass(frozen=True, slots=True)
class Call:
    """One call of the model: indices of its scenes in their order there, and which of them are made; the others are known."""

    scenes: tuple[int, ...]
    make: frozenset[int]

    @property
    def known(self) -> tuple[int, ...]:
        return tuple(index for index in self.scenes if index not in self.make)


@dataclass(frozen=True, slots=True)
class FilmPlan:
    """Scenes as they are to be, those to be made with the reason of each, and the calls. Indices are the storyboard's, from 0."""

    scenes: tuple[SceneRecord, ...]
    reasons: dict[int, str]
    calls: tuple[Call, ...]

    def lines(self) -> list[str]:
        """The plan for a person, a line per scene and one per call."""
        told = []
        for index, scene in enumerate(self.scenes):
            state = "skipped" if scene.skip else self.reasons.get(index) or f"stays as it is (take {scene.take})"
            told.append(f"  scene {index + 1}: {state}")
        return told + [f"  {number}. {_told(call)}" for number, call in enumerate(self.calls, start=1)]


def _told(call: Call) -> str:
    made = list_scenes(index + 1 for index in sorted(call.make))
    together = " jointly" if len(call.make) > 1 else ""
    with_known = f", with {list_scenes(index + 1 for index in sorted(call.known))} known" if call.known else ""
    return f"make {made}{together}{with_known}"


# Which scene is which


def match_scenes(record: FilmRecord | None, wanted: Sequence[SceneRecord]) -> list[SceneRecord]:
    """Give each scene of a storyboard its own number and, where it has one, the take that it had. `wanted` has no numbers yet.

    Scenes with the same inputs are the same: in order from both ends, then in order, then wherever they are, then among the takes of
    scenes that are gone or were changed. Of the rest, one with the same caption is the same, then one in the same place.
    """
    old, takes = (list(record.scenes), record.takes) if record else ([], ())
    pairs = _same_inputs([_key(scene.inputs) for scene in old], [_key(scene.inputs) for scene in wanted])
    found = {new: (old[place].number, old[place].take) for new, place in pairs.items()}
    for index, scene in enumerate(wanted):
        if index not in found:
            taken = {number for number, _ in found.values()}
            left = next((take for take in reversed(takes) if take.inputs == scene.inputs and take.scene not in taken), None)
            if left is not None:
                found[index] = left.scene, left.number
    for same in (_same_caption, _same_place):
        taken = {number for number, _ in found.values()}
        for index, place in same(old, wanted, found, {place for place, scene in enumerate(old) if scene.number not in taken}):
            found[index] = old[place].number, old[place].take
    numbers = [number for number, _ in found.values()] + [scene.number for scene in old] + [take.scene for take in takes]
    next_number = max([0, *numbers]) + 1
    matched = []
    for index, scene in enumerate(wanted):
        number, take = found.get(index, (next_number, None))
        next_number += index not in found
        matched.append(scene.model_copy(update={"number": number, "take": take}))
    return matched


def _same_inputs(old: Sequence[str], new: Sequence[str]) -> dict[int, int]:
    """New index → old index."""
    least = min(len(old), len(new))
    start = next((index for index in range(least) if old[index] != new[index]), least)
    end = next((count for count in range(least - start) if old[-1 - count] != new[-1 - count]), least - start)
    pairs = {index: index for index in range(start)} | {len(new) - 1 - count: len(old) - 1 - count for count in range(end)}
    middle = SequenceMatcher(None, old[start : len(old) - end], new[start : len(new) - end], autojunk=False)
    for block in middle.get_matching_blocks():
        pairs |= {start + block.b + step: start + block.a + step for step in range(block.size)}
    left = [place for place in range(len(old)) if place not in pairs.values()]
    for index, key in enumerate(new):
        place = next((place for place in left if old[place] == key), None)
        if index not in pairs and place is not None:
            pairs[index] = place
            left.remove(place)
    return pairs


Found = dict[int, tuple[int, int | None]]


def _same_caption(old: Sequence[SceneRecord], new: Sequence[SceneRecord], found: Found, left: set[int]) -> Iterator[tuple[int, int]]:
    for index in [index for index in range(len(new)) if index not in found]:
        place = next((place for place in sorted(left) if old[place].inputs.caption == new[index].inputs.caption), None)
        if place is not None:
            left.remove(place)
            yield index, place


def _same_place(old: Sequence[SceneRecord], new: Sequence[SceneRecord], found: Found, left: set[int]) -> Iterator[tuple[int, int]]:
    """Between the same neighbours."""
    places = {scene.number: place for place, scene in enumerate(old)}
    pairs = {index: places[number] for index, (number, _) in found.items() if number in places}
    for index in [index for index in range(len(new)) if index not in found]:
        before = max((place for other, place in pairs.items() if other < index), default=-1)
        after = min((place for other, place in pairs.items() if other > index), default=len(old))
        place = next((place for place in sorted(left) if before < place < after), None)
        if place is not None:
            left.remove(place)
            pairs[index] = place
            yield index, place


def _key(inputs: SceneInputs) -> str:
    return inputs.model_dump_json()


def plan_film(
    folder: FilmFolder,
    record: FilmRecord | None,
    storyboard: Storyboard,
    wanted: Sequence[SceneRecord],
    made_with: MadeWith,
    model: tuple[int, str],
    directions: Directions,
) -> FilmPlan:
    """What is to be made so that the folder holds the wanted scenes; model: its window and known sets.

    Raises StoryboardError, or InputError where a scene that is to stay is lost.
    """
    scenes, reasons = match_scenes(record, wanted), {}
    for index, scene in enumerate(scenes):
        if scene.skip:
            continue
        take = _fitting_take(folder, record, index, scene, made_with, directions)
        if take is not None:
            scenes[index] = scene.model_copy(update={"take": take.number})
            continue
        reasons[index] = _reason(record, index, scene, made_with, directions)
        if reasons[index] == LOST and directions.stay:
            raise InputError(lost_latents(folder, index, scene))
        if directions.fresh:
            scenes[index] = scene.model_copy(update={"take": None})
    film = [index for index, scene in enumerate(scenes) if not scene.skip]
    todo = [index for index in reasons if scenes[index].inputs.given is None]
    window, known_sets = model
    calls = plan_calls(film, todo, window, known_sets, remembered(storyboard, window))
    return FilmPlan(tuple(scenes), reasons, tuple(calls))


def lost_latents(folder: FilmFolder, index: int, scene: SceneRecord) -> str:
    """What to say of a scene that has to be known and is not."""
    path = folder.take_latents(scene.number, scene.take or 1)
    again = f"make it again (mask2dit generate {folder.path})"
    return f"{path}: is lost or damaged, expected the latents of scene {index + 1}; put it back, or {again}"


def _fitting_take(
    folder: FilmFolder, record: FilmRecord | None, index: int, scene: SceneRecord, made_with: MadeWith, directions: Directions
) -> Take | None:
    """The take that a scene's inputs ask for, with a sound file: the one that is chosen, else the one that is shown, else the latest."""
    takes = _fitting_takes(record, index, scene, made_with, directions)
    return next((take for take in takes if folder.read_latents(take, index + 1) is not None), None)


def _fitting_takes(record: FilmRecord | None, index: int, scene: SceneRecord, made_with: MadeWith, directions: Directions) -> list[Take]:
    if record is None or directions.fresh or index in directions.again:
        return []
    takes = [take for take in record.takes_of(scene.number) if take.inputs == scene.inputs]
    if directions.chosen and directions.chosen[0] == index:
        takes = [take for take in takes if take.number == directions.chosen[1]]
    else:
        takes = [take for take in takes if take.number == scene.take or not take.set_aside]
    takes = [take for take in takes if take.made_with.fits(made_with, anything=directions.stay)]
    return sorted(takes, key=lambda take: (take.number != scene.take, -take.number))


def _reason(record: FilmRecord | None, index: int, scene: SceneRecord, made_with: MadeWith, directions: Directions) -> str:
    """Why a scene is to be made."""
    if _fitting_takes(record, index, scene, made_with, directions):
        return LOST
    takes = record.takes_of(scene.number) if record else []
    last = (record.take(scene.number, scene.take) if record else None) or (takes[-1] if takes else None)
    if last is None:
        return "is new"
    changes = list(_changes(last.inputs, scene.inputs))
    if not last.made_with.fits(made_with, anything=directions.stay):
        changes += _changes(last.made_with, made_with)
    if changes:
        return f"is made again: {', '.join(changes)}"
    return "is made again, as asked"


def _changes(old: SceneInputs | MadeWith, new: SceneInputs | MadeWith) -> Iterator[str]:
    for name, before in dict(old).items():
        after, words = getattr(new, name), name.replace("_", " ")
        if after == NOT_READ:
            if name == "weights":
                yield "unless the weights turn out to be the same"
        elif before != after and name not in ("model", "lora"):
            numbers = isinstance(before, int | float) and isinstance(after, int | float)
            yield f"{words} {before:g} → {after:g}" if numbers else f"{'other' if name == 'weights' else 'another'} {words}"


# Which calls make them


def kept_by(calls: Sequence[Call], latent_frames: Sequence[int], plan: str, guided: bool, step_cache: str | None) -> Kept:
    """The most that any of the calls keeps from step to step; latent_frames of every scene; plan: of attention."""
    blind = plan in PLANS and not PLANS[plan].known_reads_generated
    context = max((sum(latent_frames[index] for index in call.known) for call in calls), default=0) if blind else 0
    return Kept(1 + guided, context, step_cache)


def plan_calls(film: Sequence[int], todo: Collection[int], window: int, known_sets: str, choose_known: ChooseKnown) -> Iterator[Call]:
    """The calls that make the scenes `todo` of a film (indices in order), each in the light of all that is made by then.

    Without anything made, the first window is made jointly; then each scene with at most window - 1 known ones. A film within the window
    is made in one call. known_sets "last": the scene that is made comes last in its call, for the weights know nothing else.
    """
    todo = set(todo)
    made = [index for index in film if index not in todo]
    if todo and not made:
        made = list(film[:window])
        yield Call(tuple(made), frozenset(made))
    elif todo and len(film) <= window and known_sets == "any":
        made = list(film)
        yield Call(tuple(film), frozenset(todo))
    for index in film:
        if index not in made:
            known = tuple(sorted(choose_known(index, made)))
            yield Call(tuple(sorted((*known, index))) if known_sets == "any" else (*known, index), frozenset({index}))
            made = sorted((*made, index))


def remembered(storyboard: Storyboard, window: int) -> ChooseKnown:
    """Which made scenes are known while another is made: those that the storyboard names, then the nearest ones, the earlier of two.

    For a scene at the end the nearest are the latest. Raises StoryboardError for more numbers than a window has room for.
    """
    room = window - 1
    for index, scene in enumerate(storyboard.scenes):
        wish = scene.remember or storyboard.remember
        if isinstance(wish, tuple) and len(set(wish)) > room:
            place = f"scene {index + 1}, " if scene.remember else ""
            raise StoryboardError(f"{place}remember: got {len(set(wish))} scenes, expected at most {room} for this model; name fewer")

    def choose(index: int, made: Sequence[int]) -> Sequence[int]:
        wish = storyboard.scenes[index].remember or storyboard.remember
        named = _named(storyboard, index, wish, made)
        nearest = sorted(made, key=lambda other: (other not in named, abs(other - index), other > index))
        return sorted(nearest[:room])

    return choose


def _named(storyboard: Storyboard, index: int, wish: object, made: Sequence[int]) -> Collection[int]:
    if wish == "first":
        return made[:1]
    if wish == "characters":
        cast = storyboard.cast_of(index)
        return [other for other in made if cast & storyboard.cast_of(other)]
    return [number - 1 for number in wish] if isinstance(wish, tuple) else ()


def list_scenes(numbers: Iterable[int]) -> str:
    """[1, 2, 3, 7] → 'scenes 1 to 3 and 7'."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    words = [word for run in runs for word in ([f"{run[0]} to {run[-1]}"] if len(run) > 2 else map(str, run))]
    listed = f"{', '.join(words[:-1])} and {words[-1]}" if len(words) > 1 else words[0]
    return f"scene{'s' * (sum(map(len, runs)) > 1)} {listed}"
