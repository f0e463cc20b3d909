"""Directing a film that is made: what one scene more, less or other means for its storyboard. Nothing is made or written here.

Scenes are counted from 1, as people count them.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mask2dit.errors import InputError
from mask2dit.production.folder import FilmFolder
from mask2dit.production.planning import Directions
from mask2dit.production.record import FilmRecord, Take
from mask2dit.storyboard import LARGEST_SEED, Remembered, Scene, Storyboard

Make = Callable[[Storyboard, Directions], FilmRecord]


@dataclass(frozen=True, slots=True)
class Film:
    """A film folder that was made: its storyboard, as a person may have changed it since, and its record."""

    folder: FilmFolder
    storyboard: Storyboard
    record: FilmRecord

    def index(self, number: int, name: str = "--scene") -> int:
        """From a scene's number to its index. Raises InputError."""
        count = len(self.storyboard.scenes)
        if not 1 <= number <= count:
            raise InputError(f"{name}: got {number}, expected a scene of {self.folder.path} from 1 to {count}; choose one of them")
        return number - 1

    def takes(self, number: int) -> list[Take]:
        """The takes of a scene, oldest first."""
        index = self.index(number)
        if index >= len(self.record.scenes):
            return []
        return self.record.takes_of(self.record.scenes[index].number)


def open_film(path: str | Path) -> Film:
    """Read a film folder. Raises InputError or StoryboardError."""
    folder = FilmFolder(path)
    record = folder.read_record()
    was_killed = record.status == "complete" and record.before is not None and folder.storyboard_data() == record.before
    is_written = folder.storyboard.exists() and not was_killed
    storyboard = Storyboard.read(folder.storyboard) if is_written else Storyboard.from_data(record.storyboard)
    return Film(folder, storyboard, record)


def remade(film: Film, number: int, *, prompt: str | None = None, seed: int | None = None) -> Storyboard:
    """Scene `number` with another seed, None for the next that it has not had, and perhaps another prompt."""
    index = film.index(number)
    scene = film.storyboard.scenes[index]
    if scene.given is not None:
        raise InputError(f"scene {number}: is given as a video, expected one that was made; change `given` in {film.folder.storyboard}")
    if scene.skip:
        raise InputError(f"scene {number}: is skipped, expected one of the film; first show it (mask2dit skip --scene {number} --back)")
    changes: dict[str, Any] = {"seed": next_seeds(film, number, 1)[0] if seed is None else seed}
    changes |= {"prompt": prompt} if prompt is not None else {}
    return _with(film.storyboard, index, changes)


def next_seeds(film: Film, number: int, count: int) -> list[int]:
    """Seeds that a scene has had no take of; of a remake that was stopped, first the one that it had."""
    index = film.index(number)
    asked = seed_of(film, number)
    had = {asked, *(take.inputs.seed for take in film.takes(number))}
    first = max(had) + 1 if max(had) + count <= LARGEST_SEED else 0
    seeds = [seed for seed in range(first, first + count + len(had)) if seed not in had][:count]
    if film.record.status != "complete" and index < len(film.record.scenes):
        stopped = film.record.scenes[index].inputs.seed
        if stopped != asked:
            return [stopped, *(seed for seed in seeds if seed != stopped)][:count]
    return seeds


def seed_of(film: Film, number: int) -> int:
    """The seed that a scene is asked with."""
    own = film.storyboard.scenes[film.index(number)].seed
    return film.record.settings.seed if own is None else own


def with_take(film: Film, number: int, take_number: int) -> Storyboard:
    """Scene `number` with what one of its takes was made from."""
    index, takes = film.index(number), film.takes(number)
    if film.storyboard.to_data() != film.record.storyboard:
        raise InputError(
            f"{film.folder.storyboard}: has changed since the film was made, or the film is not complete, expected one that is; "
            f"first make it (mask2dit generate {film.folder.path})"
        )
    take = next((take for take in takes if take.number == take_number), None)
    if take is None:
        there = ", ".join(str(take.number) for take in takes) or "none"
        raise InputError(f"--take: got {take_number}, expected a take of scene {number} ({there}); `mask2dit remake` makes more")
    inputs, scene = take.inputs, film.storyboard.scenes[index]
    changes: dict[str, Any] = {"prompt": take.prompt}
    if inputs.given is None:
        changes["seed"] = inputs.seed
    asked = film.record.scenes[index].inputs
    changes |= {
        name: getattr(inputs, name)
        for name in ("num_frames", "guidance_scale", "negative_prompt")
        if getattr(inputs, name) != getattr(asked, name)
    }
    if "num_frames" in changes:
        changes["duration_seconds"] = None
    board = _with(film.storyboard, index, changes)
    if board.captions[index] != inputs.caption:  # a character was described in other words then
        board = _with(board, index, {"prompt": inputs.caption})
    return board if scene.given is None or inputs.given else _with(board, index, {"given": None})


def inserted(film: Film, after: int, prompts: Sequence[str]) -> Storyboard:
    """New scenes behind scene `after`, 0 for the beginning."""
    there = len(film.storyboard.scenes)
    if not 0 <= after <= there:
        raise InputError(f"--after: got {after}, expected a scene of {film.folder.path} from 1 to {there}, or 0 for the beginning")
    count = len(prompts)

    def moved(remember: Remembered | None) -> Remembered | None:
        return tuple(number + count * (number > after) for number in remember) if isinstance(remember, tuple) else remember

    scenes = [scene.model_copy(update={"remember": moved(scene.remember)}) for scene in film.storyboard.scenes]
    scenes[after:after] = Storyboard.from_captions(prompts).scenes
    moved_board = film.storyboard.model_copy(update={"remember": moved(film.storyboard.remember)})
    return moved_board.with_scenes(scenes)


def skipped(film: Film, number: int, skip: bool = True) -> Storyboard:
    """Scene `number` left out of the film, or back in it."""
    return _with(film.storyboard, film.index(number), {"skip": skip})


def _with(storyboard: Storyboard, index: int, changes: dict[str, Any]) -> Storyboard:
    scenes: list[Scene | dict[str, Any]] = [*storyboard.scenes]
    scenes[index] = {**dict(storyboard.scenes[index]), **changes}
    return storyboard.with_scenes(scenes)


# Other seeds where a cut is amiss


def retry_cuts(record: FilmRecord, folder: Path, limit: float, retries: int, make: Make, say: Callable[[str], None]) -> FilmRecord:
    """While the cuts' accuracy is below `limit`, make the worst scene with its next seed; a take that makes it no better goes back.

    make: makes the film of a storyboard in the folder. At most `retries` seeds are tried; the best film found is the one that stays.
    """
    for _ in range(retries):
        before, number = record, worst_scene(record)
        if before.check is None or before.check.sca >= limit or number is None:
            break
        say(f"SCA {before.check.sca:.3f} is below {limit:g}: scene {number} with another seed")
        record = make(remade(open_film(folder), number), Directions(stay=True))
        shown = before.scenes[number - 1].take
        if record.check is not None and record.check.sca <= before.check.sca and shown is not None:
            say(f"SCA {record.check.sca:.3f} is no better: take {shown} is back")
            record = make(with_take(open_film(folder), number, shown), Directions(stay=True, chosen=(number - 1, shown)))
    return record


def worst_scene(record: FilmRecord) -> int | None:
    """The number of the scene with most of what is amiss at the cuts: one that begins without a cut, or has one inside; None without."""
    check = record.check
    if check is None:
        return None
    faults = [0] * len(record.shown)
    for cut in check.missed:
        faults[check.asked.index(cut) + 1] += 1
    for scene in check.unwanted_scenes:
        faults[scene - 1] += 1
    faulty = [place for place, (_, scene) in enumerate(record.shown) if scene.inputs.given is None and faults[place]]
    return record.shown[max(faulty, key=lambda place: faults[place])][0] if faulty else None
