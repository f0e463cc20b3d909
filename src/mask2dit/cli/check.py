"""`mask2dit check`: whether a film's cuts lie where they were asked for, and how its colours drift."""

import json
import math
import os
import re
from dataclasses import dataclass
from itertools import accumulate, pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mask2dit.cli.files import Overwrite, check_new, write_text
from mask2dit.errors import InputError, one_line

if TYPE_CHECKING:
    from mask2dit.cuts import FilmCheck
    from mask2dit.video_files import OpenVideo

RECORD, FILM = "run.json", "film.mp4"
LARGEST = 1e9  # frames or seconds; more is a slip of the hand


def check(
    film: Annotated[Path, typer.Argument(help="A film's folder, or any video.", show_default=False)],
    cuts: Annotated[
        str | None, typer.Option(help="First frames of scenes 2, 3 …, as 9,18, or a file with them; or none.", show_default="the folder's")
    ] = None,
    lengths: Annotated[
        str | None, typer.Option(help="Frames of every scene, as 9,9,9, or a file with them.", show_default="the folder's")
    ] = None,
    seconds: Annotated[bool, typer.Option("--seconds", help="Times are in seconds, not in the video's own frames.")] = False,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the result to this file.", show_default=False)] = None,
    overwrite: Overwrite = False,
    at_least: Annotated[
        float | None, typer.Option(help="Exit with status 1 if the SCA is lower.", show_default=False, min=0, max=1)
    ] = None,
) -> None:
    """Say whether a film's cuts lie where they were asked for, and how its colours drift.

    Files of cuts or lengths are plain text or JSON, run.json among them. What is measured and how far to trust it: docs/check.md.
    """
    check_new(json_file, overwrite)
    video, asked = _find(film, cuts, lengths, seconds)

    from mask2dit.cuts import table
    from mask2dit.video_files import open_video

    with open_video(video) as opened:
        facts = opened.facts
        found = asked.check(opened)
    shape = f"{found.num_frames} frames at {facts.fps:.6g} per second, {facts.width} by {facts.height} pixels"
    typer.echo("\n".join([f"{video}: {shape}", "", *table(found, facts.fps if seconds else None)]))
    if json_file is not None:
        write_text(json_file, found.model_dump_json(indent=2) + "\n")
        typer.echo(f"Wrote {json_file}")
    if at_least is not None and found.sca < at_least:
        typer.echo(f"SCA {found.sca:.4f} is below {at_least:g}", err=True)
        raise typer.Exit(1)


@dataclass(frozen=True, slots=True)
class _Asked:
    """What a film is checked against; `source` is where that stands."""

    are_cuts: bool
    numbers: tuple[float, ...]
    source: str
    in_seconds: bool = False

    def check(self, opened: "OpenVideo") -> "FilmCheck":
        from mask2dit.cuts import check_cuts

        rate = opened.facts.fps if self.in_seconds else 1
        if self.are_cuts:
            return check_cuts(opened.frames(), [round(time * rate) for time in self.numbers])
        *cuts, end = (round(time * rate) for time in accumulate(self.numbers))
        found = check_cuts(opened.frames(), cuts)
        if abs(found.num_frames - end) > self.in_seconds:  # seconds are rounded
            raise InputError(f"{self.source}: got {end} frames in all, but the film has {found.num_frames}; name the length of every scene")
        return found


def asked_lengths(folder: Path) -> tuple[int, ...]:
    """Frames of each scene that film.mp4 in `folder` consists of, as its run.json has them. Raises InputError."""
    return _recorded_lengths(folder / RECORD, _json(folder / RECORD))


def _recorded_lengths(path: Path, record: Any) -> tuple[int, ...]:
    try:
        frames = {(take["scene"], take["number"]): int(take["inputs"]["num_frames"]) for take in record["takes"]}
        return tuple(frames[scene, take] for _, scene, take, _ in record["joined"])
    except (LookupError, TypeError, ValueError):
        raise InputError(f"{path}: expected the record of a film with its scenes, got another file; use --cuts or --lengths") from None


def _find(film: Path, cuts: str | None, lengths: str | None, seconds: bool) -> tuple[Path, _Asked]:
    """The video, and what it is checked against."""
    if cuts is not None and lengths is not None:
        raise InputError("check: got both --cuts and --lengths, expected one of them; leave one out")
    video = film / FILM if os.path.isdir(film) else film
    if not os.path.isfile(video):  # False also for what cannot be a name, where Path raises
        what = (
            "there is no such file, expected a video or a film's folder" if video == film else f"holds no {FILM}, expected a finished film"
        )
        raise InputError(f"{film}: {what}; check the name")
    if cuts is not None:
        return video, _read("--cuts", cuts, seconds)
    if lengths is not None:
        return video, _read("--lengths", lengths, seconds)
    record = video.parent / RECORD
    if video.name != FILM or not record.is_file():
        raise InputError(f"{film}: got no cuts to compare with, expected --cuts or --lengths; for example --cuts 9,18, or --cuts none")
    if seconds:
        raise InputError("--seconds: got no times, expected --cuts or --lengths with it; leave it out")
    return video, _Asked(False, asked_lengths(video.parent), str(record))


def _read(option: str, text: str, seconds: bool) -> _Asked:
    """What an option says: numbers, or the name of a file that holds them."""
    if option == "--cuts" and text.strip() == "none":
        return _Asked(True, (), option)
    values = _split(text)
    if all(map(_is_number, values)):
        return _asked(option, option == "--cuts", values, seconds)
    path = Path(text)
    if not os.path.isfile(path):
        raise InputError(f"{option}: got {text[:80]!r}, expected numbers with ',' between, or a file that holds them; for example 9,18")
    if path.suffix.lower() != ".json":
        lines = (line.partition("#")[0] for line in _text(path).splitlines())
        return _asked(f"{option} {path}", option == "--cuts", _split(" ".join(lines)), seconds)
    data = _json(path)
    if isinstance(data, dict) and ("joined" in data or "scenes" in data):
        if seconds:
            raise InputError(f"{path}: counts in frames, expected no --seconds; leave it out")
        return _Asked(False, _recorded_lengths(path, data), str(path))
    are_cuts = option == "--cuts"
    if isinstance(data, dict):  # it says itself which it holds
        are_cuts = "cuts" in data and (are_cuts or "lengths" not in data)
        data = data.get("cuts" if are_cuts else "lengths")
    if not isinstance(data, list):
        raise InputError(f"{option} {path}: expected a list of numbers, alone or as cuts or lengths; write for example [9, 18]")
    return _asked(f"{option} {path}", are_cuts, [str(value) for value in data], seconds)


def _asked(source: str, are_cuts: bool, values: list[str], seconds: bool) -> _Asked:
    numbers = [float(value) if _is_number(value) else math.nan for value in values]
    is_right = all(0 < number < LARGEST and (seconds or number == int(number)) for number in numbers)
    if numbers and is_right and not (are_cuts and any(later <= earlier for earlier, later in pairwise(numbers))):
        return _Asked(are_cuts, tuple(numbers), source, seconds)
    if are_cuts:
        what, example = "first frames of scenes, counted from 0 and rising", "9,18, or none"
    else:
        what, example = "the frames of every scene, at least 1", "9,9,9"
    if seconds:
        what, example = ("rising times", "1.5,3") if are_cuts else ("the length of every scene", "1.5,1.5,2")
    got = ", ".join(values)[:80] or "nothing"
    raise InputError(f"{source}: got {got}, expected {what}{'' if seconds else ' (with --seconds: times)'}; for example {example}")


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
