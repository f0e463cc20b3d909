"""What the steps depend on, with its defaults, in one place. No torch, nothing heavy: the command's help shows them."""

import math
from dataclasses import dataclass, fields

from mask2dit.errors import InputError


def _check_finite(settings: object, options: dict[str, str]) -> None:
    """Raise InputError for what is no number, or below 0, by the name of the option that sets it."""
    for name, option in options.items():
        value = getattr(settings, name)
        if not 0 <= value < math.inf:
            raise InputError(f"{option}: got {value:g}, expected 0 or more; give another number")


@dataclass(frozen=True, slots=True)
class ShotSettings:
    """How shots are found."""

    detector: str = "adaptive"
    max_seconds: float = 20.0
    """Longer shots are split."""
    piece_seconds: float = 600.0
    """Length of the pieces that are worked at side by side."""

    def __post_init__(self) -> None:
        _check_finite(self, {"max_seconds": "--max-seconds", "piece_seconds": "--piece-minutes"})


@dataclass(frozen=True, slots=True)
class CheckSettings:
    """What a shot must have to be kept; docs/curation.md says how each is measured and where its value comes from."""

    min_seconds: float = 2.0
    max_damaged: int = 0
    """Pictures that the decoder had to guess in part."""
    min_lightness: float = 4.0
    """Mean, of 100; below it a shot is black."""
    min_contrast: float = 3.0
    """Standard deviation of lightness; below it a shot is flat."""
    max_still_share: float = 0.6
    """Of its length in which nothing changes at all."""
    min_motion: float = 0.0
    """% of the picture's longer side per second; 0: a still camera on still things is fine."""
    max_text: float = 0.01
    """Of the picture."""
    min_picture: float = 0.5
    """Share of the picture that is left between black bars."""
    duplicate: float = 3.0
    """How far two looks are apart (`measures.same_look`), of 255 levels, below which they are of the same shot. Copies that were encoded
    again have up to 4.6, where that was done badly; playhouse scenes with another action have 8.6 and more. Low, for the other side of a
    conversation, seen once more, is no copy."""

    def __post_init__(self) -> None:
        _check_finite(self, {each.name: f"--{each.name.replace('_', '-')}" for each in fields(self)})


VALIDATION = 0.05
"""Share of the videos that is held out."""


def check_together(shots: ShotSettings, checks: CheckSettings, validation: float) -> None:
    """Raise InputError for what fits no footage."""
    if not 0 < shots.max_seconds <= shots.piece_seconds:
        got = f"{shots.piece_seconds / 60:g} minutes for shots of up to {shots.max_seconds:g} s"
        raise InputError(f"--piece-minutes: got {got}, expected pieces that hold a shot; give longer ones")
    if checks.min_seconds >= shots.max_seconds:
        got = f"{checks.min_seconds:g} and {shots.max_seconds:g}"
        raise InputError(f"--min-seconds, --max-seconds: got {got}, expected the first below the second; change one of them")
    if not 0 <= validation < 1:
        raise InputError(f"--validation: got {validation:g}, expected a share of the videos from 0 to below 1; for example 0.05")
