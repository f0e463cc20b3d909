"""Storyboards of other tools: told apart by their content, read into ours and written from ours. Needs no torch.

Owns which format a file is in; each format is a file here, and says how its words become ours. What a format can hold survives writing
and reading; what it cannot hold, or what has no meaning here, is told in notes.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mask2dit.errors import InputError, StoryboardError
from mask2dit.foreign_storyboards.common import Exported, ForeignFormat, Imported, Source, keys_left_out, scenes_named
from mask2dit.foreign_storyboards.holocine import HoloCine, HoloCineString
from mask2dit.foreign_storyboards.prompt_list import CONTAINERS, PromptList
from mask2dit.foreign_storyboards.storymem import StoryMem
from mask2dit.foreign_storyboards.wan2gp import Wan2GP
from mask2dit.storyboard import Storyboard, describe_value, parse_json, parse_yaml, read_text

__all__ = ["FORMATS", "Exported", "Imported", "parse_foreign", "read_foreign", "write_foreign"]

FORMATS: dict[str, ForeignFormat] = {format.name: format for format in (StoryMem(), HoloCine(), HoloCineString(), PromptList(), Wan2GP())}

_KNOWN_KEYS = {"story_overview", "global_caption", "shot_captions", *CONTAINERS}
_FIRST_KEYS = re.compile(rf"^(- *)?[\"']?({'|'.join(_KNOWN_KEYS)}|prompt)[\"']?\s*:", re.MULTILINE)
_TAG = re.compile(r"\[\s*(/|global caption|per[ -]shot caption|shot cut)", re.IGNORECASE)
_COMMENT_LINES = re.compile(r"^\s*//.*$", re.MULTILINE)


def read_foreign(path: str | Path, format: str = "auto", fps: float | None = None) -> Imported:
    """Read the storyboard of another tool.

    `fps`: the rate of the file's frame counts, which then become seconds; without it they stay counts of frames.
    """
    path = Path(path)
    try:
        return parse_foreign(read_text(path), format, fps, suffix=path.suffix)
    except StoryboardError as error:
        raise StoryboardError(str(error) if str(error).startswith(f"{path}: ") else f"{path}: {error}") from None


def parse_foreign(text: str, format: str = "auto", fps: float | None = None, suffix: str = "") -> Imported:
    """The same for a text; `suffix` is that of its file, where it has one."""
    chosen = None if format == "auto" else _format(format)
    _check_fps(fps)
    is_plain = chosen is not None and chosen.name in ("wan2gp", "holocine-string")
    source = Source(text, None if is_plain else _values(text, suffix.lower()))
    if chosen is None:
        chosen = next((one for one in FORMATS.values() if one.knows(source)), None)
    if chosen is None:
        signs = "; ".join(f"{one.sign} ({one.name})" for one in FORMATS.values())
        raise StoryboardError(
            f"got {_contents(source.data)}, expected one of: {signs}; name the format with --format to learn what is missing"
        )
    data, notes = chosen.read(source, fps)
    return Imported(Storyboard.from_data(data), chosen.name, tuple(dict.fromkeys(notes)))


def write_foreign(board: Storyboard, format: str, fps: float | None = None) -> Exported:
    """A storyboard as another tool reads it.

    `fps`: the rate by which seconds become frames or frames seconds, where a format counts otherwise than the storyboard.
    """
    _check_fps(fps)
    chosen = _format(format)
    skipped = [number for number, scene in enumerate(board.scenes, start=1) if scene.skip]
    text, notes = chosen.write(board.shown() if skipped else board, fps)
    if skipped:
        notes = [f"{scenes_named(skipped)}: skipped, and not written; the others are counted anew", *notes]
    return Exported(text, tuple(dict.fromkeys(notes)))


def _format(name: str) -> ForeignFormat:
    if name not in FORMATS:
        raise InputError(f"format: got {describe_value(name)}, expected {', '.join(FORMATS)}; choose one of them")
    return FORMATS[name]


def _check_fps(fps: float | None) -> None:
    if fps is not None and not 0 < fps <= 1000:
        raise InputError(f"fps: got {fps:g}, expected frames per second over 0, up to 1000; write for example 16")


def _values(text: str, suffix: str) -> Any:
    """What JSON or YAML says, or None for plain text; JSON may have trailing commas and comments, as some write it by hand."""
    begins_as_json = text.lstrip()[:1] in ("{", "[") and not _TAG.match(text.lstrip())
    if begins_as_json or suffix == ".json":
        try:
            return parse_json(text)
        except StoryboardError:
            try:
                data = parse_yaml(_COMMENT_LINES.sub("", text).replace("\t", "  "))
            except StoryboardError:
                data = None
            if not isinstance(data, Mapping | list):
                raise
            return data
    if suffix in (".yaml", ".yml"):
        return parse_yaml(text)
    try:
        data = parse_yaml(text) if _FIRST_KEYS.search(text) else None
    except StoryboardError:
        return None
    is_list = isinstance(data, list) and any(isinstance(item, Mapping) and "prompt" in item for item in data)
    return data if is_list or (isinstance(data, Mapping) and _KNOWN_KEYS & {str(key) for key in data}) else None


def _contents(data: Any) -> str:
    if isinstance(data, Mapping) and data:
        return f"a mapping with {keys_left_out(data, ())[0].removeprefix('left out: ')}"
    return describe_value(data)
