"""Where the scenes of a film were asked to begin: read from numbers, from text and JSON files, and from a film folder's run.json. No torch.

A list holds cuts (first frames of scenes 2, 3 …, counted from 0) or lengths (of every scene), in frames or in seconds.
"""

import json
import math
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any

from mask2dit.errors import InputError, one_line

FILM, RECORD = "film.mp4", "run.json"  # in a film's folder
LARGEST = 1e9  # frames or seconds; more is a slip of the hand


@dataclass(frozen=True, slots=True)
class CutList:
    """Cuts, or lengths of all scenes; `source` is where that stands."""

    are_cuts: bool
    numbers: tuple[float, ...]
    source: str
    in_seconds: bool = False

    @property
    def num_scenes(self) -> int:
        return len(self.numbers) + self.are_cuts

    def cuts(self, fps: float) -> list[int]:
        """First frames of scenes 2, 3 … in a film of `fps` frames per second."""
        rate = fps if self.in_seconds else 1
        starts = self.numbers if self.are_cuts else tuple(accumulate(self.numbers))[:-1]
        return [round(start * rate) for start in starts]

    def check_end(self, num_frames: int, fps: float) -> None:
        """Raise InputError where lengths do not add up to the film; seconds are rounded, and may be a frame off."""
        end = round(sum(self.numbers) * (fps if self.in_seconds else 1))
        if not self.are_cuts and abs(num_frames - end) > self.in_seconds:
            raise InputError(f"{self.source}: got {end} frames in all, but the film has {num_frames}; name the length of every scene")


def recorded_lengths(folder: Path) -> CutList:
    """Frames of each scene that film.mp4 in a film's folder consists of, as its run.json has them. Raises InputError."""
    return _recorded(folder / RECORD, _json(folder / RECORD))


def _recorded(path: Path, record: Any) -> CutList:
    try:
        frames = {(take["scene"], take["number"]): int(take["inputs"]["num_frames"]) for take in record["takes"]}
        return CutList(False, tuple(frames[scene, take] for _, scene, take, _ in record["joined"]), str(path))
    except (LookupError, TypeError, ValueError):
        raise InputError(f"{path}: expected the record of a film with its scenes, got another file; use --cuts or --lengths") from None


def read_cut_list(option: str, text: str, are_cuts: bool, in_seconds: bool = False) -> CutList:
    """What an option says: numbers, `none` for no cuts, or the name of a file that holds them. Raises InputError, naming the option."""
    if are_cuts and text.strip() == "none":
        return CutList(True, (), option)
    values = _split(text)
    if all(map(_is_number, values)):
        return _checked(option, are_cuts, values, in_seconds)
    if not os.path.isfile(text):  # False also for what cannot be a name, where Path raises
        raise InputError(f"{option}: got {text[:80]!r}, expected numbers with ',' between, or a file that holds them; for example 9,18")
    return read_cut_file(Path(text), are_cuts, in_seconds, f"{option} {text}")


def read_cut_file(path: Path, are_cuts: bool = True, in_seconds: bool = False, source: str = "") -> CutList:
    """A file of numbers, as text or JSON; JSON may say itself, by the keys cuts and lengths, which it holds. Raises InputError."""
    source = source or str(path)
    if path.suffix.lower() != ".json":
        words = _split(" ".join(line.partition("#")[0] for line in _text(path).splitlines()))
        return CutList(True, (), source) if are_cuts and words == ["none"] else _checked(source, are_cuts, words, in_seconds)
    data = _json(path)
    if isinstance(data, dict) and ("joined" in data or "scenes" in data):
        if in_seconds:
            raise InputError(f"{path}: counts in frames, expected no --seconds; leave it out")
        return _recorded(path, data)
    if isinstance(data, dict):
        are_cuts = "cuts" in data and (are_cuts or "lengths" not in data)
        data = data.get("cuts" if are_cuts else "lengths")
    if not isinstance(data, list):
        raise InputError(f"{source}: expected a list of numbers, alone or as cuts or lengths; write for example [9, 18]")
    if are_cuts and not data:
        return CutList(True, (), source)
    return _checked(source, are_cuts, [str(value) for value in data], in_seconds)


def _checked(source: str, are_cuts: bool, values: Sequence[str], in_seconds: bool) -> CutList:
    numbers = [float(value) if _is_number(value) else math.nan for value in values]
    is_right = all(0 < number < LARGEST and (in_seconds or number == int(number)) for number in numbers)
    if numbers and is_right and not (are_cuts and any(later <= earlier for earlier, later in pairwise(numbers))):
        return CutList(are_cuts, tuple(numbers), source, in_seconds)
    if are_cuts:
        what, example = "first frames of scenes, counted from 0 and rising", "9,18, or none"
    else:
        what, example = "the frames of every scene, at least 1", "9,9,9"
    if in_seconds:
        what, example = ("rising times", "1.5,3") if are_cuts else ("the length of every scene", "1.5,1.5,2")
    got = ", ".join(values)[:80] or "nothing"
    raise InputError(f"{source}: got {got}, expected {what}{'' if in_seconds else ' (with --seconds: times)'}; for example {example}")


def _split(text: str) -> list[str]:
    return [part for part in re.split(r"[,;\s]+", text) if part]


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


def _json(path: Path) -> Any:
    try:
        return json.loads(_text(path))
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: cannot be read as JSON ({one_line(error, 80)}); write it again") from None


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is no text"
        raise InputError(f"{path}: cannot be read ({reason}); name another file") from None
