"""Prompt sets in files: which files a path stands for, what they hold, and where a mistake was made. Each format is its own module."""

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from mask2dit.errors import InputError, StoryboardError
from mask2dit.evaluation.prompt_sets.item import PromptSetItem
from mask2dit.storyboard import Storyboard, parse_json, parse_yaml, read_text

INDEX = "index.yaml"
SUFFIXES = (".yaml", ".yml", ".json")


def files_of(path: Path, suffixes: tuple[str, ...], inside: tuple[str, ...] = ()) -> tuple[Path, ...]:
    """The file itself, or a folder's files by name; `inside`: folders in which a set's own release keeps them."""
    if path.is_file():
        return (path,)
    if not path.is_dir():
        raise InputError(f"{path}: there is no such file or folder, expected a prompt set; check the name")
    folders = [path / name for name in inside if (path / name).is_dir()] or [path]
    try:
        found = sorted(file for file in folders[0].iterdir() if file.suffix.lower() in suffixes and file.name != INDEX and file.is_file())
    except OSError as error:
        raise InputError(f"{folders[0]}: cannot be listed ({error.strerror}), expected a prompt set; check its permissions") from None
    if not found:
        raise InputError(f"{folders[0]}: holds no {' or '.join(suffixes)} file, expected a prompt set; check the name of the folder")
    return tuple(found)


def data_in(path: Path) -> Any:
    """Plain values of a JSON or YAML file, JSON with trailing commas too; None for anything else, which its reader then tells."""
    text = read_text(path)
    parsers: list[Callable[[str], Any]] = [parse_yaml] if path.suffix.lower() in (".yaml", ".yml") else [parse_json]
    if text.lstrip()[:1] in ("{", "["):
        parsers.append(parse_yaml)
    for parse in parsers:
        with suppress(StoryboardError):
            return parse(text)
    return None


def read_storyboards(path: str | Path) -> tuple[PromptSetItem, ...]:
    """Storyboards of one's own: one file, or all of a folder. The characters of a scene are those that its prompt names."""
    return tuple(as_item(file.stem, Storyboard.read(file)) for file in files_of(Path(path), SUFFIXES))


def as_item(name: str, board: Storyboard) -> PromptSetItem:
    """A storyboard without the scenes that are left out of its film."""
    shown = board.shown()
    characters = tuple(shown.cast_of(index) for index in range(len(shown.scenes)))
    return PromptSetItem(name, shown, characters=characters if shown.characters else None)
