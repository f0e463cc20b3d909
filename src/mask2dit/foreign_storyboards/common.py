"""What the formats share: the text with its plain values, lengths in frames or seconds, and how notes and mistakes are worded."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from mask2dit.errors import InputError, StoryboardError
from mask2dit.storyboard import Scene, Storyboard, describe_value
from mask2dit.video_shape import nearest_num_frames, num_frames_for

SHOWN = 6


@dataclass(frozen=True, slots=True)
class Source:
    """A file's text, and its values where it is JSON or YAML; None where it is plain text."""

    text: str
    data: Any


@dataclass(frozen=True, slots=True)
class Imported:
    """A storyboard of ours, the format that it came in, and what of it could not be carried over."""

    storyboard: Storyboard
    format: str
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Exported:
    """A file for another tool, and what of the storyboard has no place in it."""

    text: str
    notes: tuple[str, ...]


class ForeignFormat(Protocol):
    """One format. `read` gives the storyboard as plain values, so that one check tells every mistake.

    `fps`: frames per second that frame counts stand for; without it, counts stay counts.
    """

    name: str
    title: str
    sign: str
    """What such a file is known by, in words."""

    def knows(self, source: Source) -> bool: ...
    def read(self, source: Source, fps: float | None) -> tuple[dict[str, Any], list[str]]: ...
    def write(self, board: Storyboard, fps: float | None) -> tuple[str, list[str]]: ...


# Values of others


def written_text(value: object, place: str) -> str:
    """A text that must be there."""
    if not isinstance(value, str) or not value.strip():
        raise StoryboardError(f"{place}: got {describe_value(value)}, expected a text that says what is seen; write one")
    return value.strip()


def filled_list(value: object, place: str, of: str) -> list[Any]:
    """A list that must hold something."""
    if not isinstance(value, list) or not value:
        raise StoryboardError(f"{place}: got {describe_value(value)}, expected a list of {of}; check that the file is whole")
    return value


def mapping(value: object, place: str, keys: str) -> Mapping[str, Any]:
    """A mapping that must be there."""
    if not isinstance(value, Mapping):
        raise StoryboardError(f"{place}: got {describe_value(value)}, expected a mapping with {keys}; check that the file is whole")
    return value


def whole_number(value: object) -> bool:
    """A count that a film may have."""
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) < 10**9


def length_of(count: float, fps: float | None) -> dict[str, Any]:
    """A frame count as the length of a scene: in seconds where the rate is known, else as the nearest count that can be made."""
    return {"num_frames": nearest_num_frames(count)} if fps is None else {"duration_seconds": count / fps}


# Values of ours


def frame_count(scene: Scene, number: int, fps: float | None, title: str) -> int | None:
    """A scene's length in frames, None where the model chooses it."""
    if scene.duration_seconds is None:
        return scene.num_frames
    return num_frames_for(scene.duration_seconds, _needed(fps, number, "seconds", f"{title} counts frames"))


def seconds(scene: Scene, number: int, fps: float | None, title: str) -> float | None:
    """A scene's length in seconds, None where the model chooses it."""
    if scene.num_frames is None:
        return scene.duration_seconds
    return scene.num_frames / _needed(fps, number, "frames", f"{title} counts seconds")


def _needed(fps: float | None, number: int, unit: str, why: str) -> float:
    if fps is None:
        raise InputError(f"scene {number}: its length is in {unit} and {why}, expected a frame rate; add for example --fps 16")
    return fps


def plain_number(value: float) -> float | int:
    """5.0 is written as 5."""
    return int(value) if float(value).is_integer() else value


# Notes


def left_out(board: Storyboard, title: str, held: Collection[str]) -> list[str]:
    """What of a storyboard a format has no place for; `held` are the names that it carries."""
    own = {"title": "title", "characters": "characters (their descriptions are written out in the captions)", "remember": "remember"}
    missing = [words for name, words in own.items() if name not in held and name in board.to_data()]
    for name in Scene.model_fields:
        numbers = [number for number, scene in enumerate(board.scenes, start=1) if name in scene.model_dump(exclude_defaults=True)]
        if numbers and name not in held:
            missing.append(f"{name} ({scenes_named(numbers)})")
    return [f"{title} has no place for: {', '.join(missing)}"] if missing else []


def keys_left_out(found: Iterable[str], known: Collection[str], place: str = "") -> list[str]:
    """Keys of a file that mean nothing here."""
    odd = list(dict.fromkeys(key for key in map(str, found) if key not in known))
    return [f"{place + ': ' if place else ''}left out: {shortened(odd)}"] if odd else []


def scenes_named(numbers: Sequence[int]) -> str:
    """Scenes by number, in words."""
    if len(numbers) == 1:
        return f"scene {numbers[0]}"
    if len(numbers) > SHOWN:
        return f"{len(numbers)} scenes"
    *most, last = map(str, numbers)
    return f"scenes {', '.join(most)} and {last}"


def shortened(names: Sequence[str]) -> str:
    return ", ".join(name[:40] for name in names[:SHOWN]) + (", …" if len(names) > SHOWN else "")
