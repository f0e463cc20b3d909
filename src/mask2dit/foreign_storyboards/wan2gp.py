"""Wan2GP's prompts of several windows: one per line or per paragraph, each with commands such as `[/duration=4s,/new_shot]` before it.

Every window becomes a scene of ours. A duration is in seconds (`5s`), frames (`121`) or a share of the film (`20%`, which needs a length
that the text does not have). A window without `[/new_shot]` or `[/overlap=0]` goes on from the one before; ours always begin with a cut.
Lines that begin with # are comments; templates with macros (!) make several films and are refused.
"""

import re
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

from mask2dit.errors import StoryboardError
from mask2dit.foreign_storyboards.common import Source, left_out, length_of, scenes_named, shortened
from mask2dit.storyboard import Storyboard, describe_value

_COMMANDS = re.compile(r"\[\s*/([^\]]*)\]")
_NEXT_COMMAND = re.compile(r",\s*/")
_DURATION = re.compile(r"(\d{1,9}(?:\.\d+)?|\.\d+)\s*(s|%|)")


class Wan2GP:
    name = "wan2gp"
    title = "Wan2GP"
    sign = "a prompt per line, with [/duration=4s,/new_shot] before it"

    def knows(self, source: Source) -> bool:
        return source.data is None

    def read(self, source: Source, fps: float | None) -> tuple[dict[str, Any], list[str]]:
        windows, notes = _windows(source.text)
        if not windows:
            raise StoryboardError("Wan2GP: got no prompt, expected one per line; write one")
        scenes: list[dict[str, Any]] = []
        going_on: list[int] = []
        troubles: dict[str, list[int]] = {}
        odd: list[str] = []
        is_bare = not any(map(_COMMANDS.search, windows))
        for number, window in enumerate(windows, start=1):
            commands = dict(_commands(window))
            prompt = " ".join(_COMMANDS.sub(" ", window).split())
            if not prompt:
                raise StoryboardError(f"Wan2GP, window {number}: got only commands, expected a prompt behind them; write one")
            length, trouble = _length(commands.pop("duration", ""), f"Wan2GP, window {number}", fps)
            scenes.append({"prompt": prompt} | length)
            if trouble:
                troubles.setdefault(trouble, []).append(number)
            cut = "new_shot" in commands or commands.get("overlap") == "0"
            going_on += [number] if number > 1 and not cut and not is_bare else []
            odd += [name for name in commands if name not in ("new_shot", "overlap")]
        notes += [f"{scenes_named(numbers)}: {trouble}" for trouble, numbers in troubles.items()]
        if going_on:
            notes.append(f"{scenes_named(going_on)}: no [/new_shot] before it in Wan2GP; here every scene begins with a cut")
        if odd:
            notes.append(f"left out: {shortened([f'/{name}' for name in dict.fromkeys(odd)])}")
        return {"scenes": scenes}, notes

    def write(self, board: Storyboard, fps: float | None) -> tuple[str, list[str]]:
        lines = []
        for scene, caption in zip(board.scenes, board.captions, strict=True):
            length = ""
            if scene.num_frames is not None:
                length = f"/duration={scene.num_frames},"
            elif scene.duration_seconds is not None:
                length = f"/duration={_digits(scene.duration_seconds)}s,"
            lines.append(f"[{length}/new_shot] {' '.join(caption.split())}\n")
        return "".join(lines), left_out(board, self.title, ("prompt", "duration_seconds", "num_frames"))


def _windows(text: str) -> tuple[list[str], list[str]]:
    """The text of every window, and a note where that was a choice."""
    paragraphs: list[list[str]] = [[]]
    for number, line in enumerate(text.splitlines(), start=1):
        line = line.strip()
        if line.startswith("!"):
            raise StoryboardError(
                f"Wan2GP, line {number}: got a macro {describe_value(line)}, expected prompts; put its values in and remove the line"
            )
        if not line:
            paragraphs.append([])
        elif not line.startswith("#"):
            paragraphs[-1].append(line)
    paragraphs = [lines for lines in paragraphs if lines]
    by_line = len(paragraphs) < 2 or any(_COMMANDS.match(line) for lines in paragraphs for line in lines[1:])
    if by_line or all(len(lines) == 1 for lines in paragraphs):
        return [line for lines in paragraphs for line in lines], []
    return [" ".join(lines) for lines in paragraphs], ["every paragraph became a scene, since empty lines stand between them"]


def _commands(window: str) -> Iterator[tuple[str, str]]:
    for group in _COMMANDS.findall(window):
        for command in _NEXT_COMMAND.split(group):
            name, _, value = command.partition("=")
            yield name.strip().lower(), value.strip()


def _length(duration: str, place: str, fps: float | None) -> tuple[dict[str, Any], str]:
    """A scene's length, and what of it could not be taken over."""
    if not duration:
        return {}, ""
    match = _DURATION.fullmatch(duration.lower())
    if match is None or float(match[1]) == 0:
        raise StoryboardError(f"{place}: got the duration {describe_value(duration)}, expected for example 4s, 97 or 20%; correct it")
    amount = float(match[1])
    if match[2] == "s":
        return {"duration_seconds": amount}, ""
    if match[2] == "%":
        return {}, "a duration in per cent needs the film's length; left out"
    return length_of(amount, fps), "" if fps or amount % 4 == 1 else "the number of frames is rounded to 4k + 1"


def _digits(seconds: float) -> str:
    """Without an exponent."""
    text = format(Decimal(repr(seconds)), "f")
    return text.rstrip("0").rstrip(".") if "." in text else text
