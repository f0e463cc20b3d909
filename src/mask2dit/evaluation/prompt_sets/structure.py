"""Our own prompt set: 50 storyboards of three prompts each, and the structure that it promises.

Owns how the set lies in its folder (one storyboard per file, `index.yaml` beside them) and the rules by which it is balanced; the texts are
in `storyboards/benchmark`. The paper's set has 50 scenes with three prompts each and one to four characters (figure 5).
"""

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from itertools import repeat
from pathlib import Path
from typing import Any

from mask2dit.errors import InputError, StoryboardError
from mask2dit.evaluation.prompt_sets.files import INDEX, as_item, files_of
from mask2dit.evaluation.prompt_sets.item import PromptSetItem
from mask2dit.storyboard import Storyboard, describe_value, parse_yaml, read_text

KINDS = {
    "genre": (
        "slice of life",
        "adventure",
        "fantasy",
        "science fiction",
        "comedy",
        "drama",
        "mystery",
        "nature documentary",
        "historical",
        "animation",
    ),
    "place": ("home", "street", "forest", "coast", "mountains", "school", "market", "farm", "vehicle", "fantastic"),
    "action": (
        "walking",
        "cooking",
        "reading",
        "playing",
        "building",
        "searching",
        "dancing and music",
        "travelling",
        "caring",
        "working",
    ),
}
PER_KIND = 5
CAST_SIZES = {1: 15, 2: 15, 3: 10, 4: 10}  # characters per storyboard → storyboards
NUM_STORYBOARDS = sum(CAST_SIZES.values())
NUM_SCENES = 3
PROMPT_WORDS = range(25, 71)
LONGEST_CAPTION = 130  # words with all descriptions: under the 226 tokens that T5 reads of a scene
LEAST_SAME_PLACE, LEAST_OTHER_PLACE = 0.4, 0.3  # shares of the storyboards
LEAST_ABSENT = 1 / 3  # share of those with several characters in which somebody is missing from a scene

_TAG = re.compile(r"(?<!\w)Actor\d+(?!\w)")
_FILE_NAME = re.compile(r"\d\d-[a-z0-9]+(-[a-z0-9]+)*")


@dataclass(frozen=True, slots=True)
class Entry:
    """What the index says of one storyboard. `where`: the words by which each scene's prompt names its place."""

    kinds: Mapping[str, str]
    where: tuple[str, ...]


def benchmark_folder() -> Path:
    """Where the set lies, in the repository or installed."""
    return Path(str(files("mask2dit.evaluation") / "benchmark"))


def _folder(folder: str | Path | None) -> Path:
    folder = benchmark_folder() if folder is None else Path(folder)
    if folder.is_file():
        raise InputError(f"{folder}: is a file, expected a folder with storyboards and {INDEX}; name the folder it is in")
    return folder


def read_benchmark(folder: str | Path | None = None) -> tuple[PromptSetItem, ...]:
    """Our 50 storyboards, by name, or another folder laid out like theirs. Raises InputError or StoryboardError."""
    folder = _folder(folder)
    found = files_of(folder, (".yaml",))
    index = read_index(folder)
    return tuple(_item(file, index) for file in found)


def read_index(folder: Path) -> dict[str, Entry]:
    """The index of a folder, by the names of the files without their suffix."""
    path = folder / INDEX
    try:
        data = parse_yaml(read_text(path))
        if not isinstance(data, Mapping):
            raise StoryboardError(f"got {describe_value(data)}, expected one entry per storyboard; write `name:` and its genre below")
        return {str(name): _entry(name, value) for name, value in data.items()}
    except StoryboardError as error:
        raise InputError(str(error) if str(error).startswith(f"{path}: ") else f"{path}: {error}") from None


def _entry(name: object, value: Any) -> Entry:
    keys = [*KINDS, "where"]
    if not isinstance(value, Mapping) or set(value) != set(keys):
        got = ", ".join(map(str, value)) if isinstance(value, Mapping) else describe_value(value)
        raise StoryboardError(f"{describe_value(name)}: got {got}, expected {', '.join(keys)}; write each of them once")
    where = value["where"]
    where = list(repeat(where, NUM_SCENES)) if isinstance(where, str) else where
    texts = [value[kind] for kind in KINDS] + (where if isinstance(where, list) else [where])
    odd = [text for text in texts if not isinstance(text, str) or not text.strip()]
    if odd:
        raise StoryboardError(f"{describe_value(name)}: got {describe_value(odd[0])}, expected a text; write the words")
    return Entry({kind: value[kind] for kind in KINDS}, tuple(where))


def _item(file: Path, index: Mapping[str, Entry]) -> PromptSetItem:
    item = as_item(file.stem, Storyboard.read(file))
    entry = index.get(file.stem)
    if entry is None:
        raise InputError(f"{file.parent / INDEX}: does not name {file.stem}, expected one entry per storyboard; add it")
    places = tuple(frozenset({where}) for where in entry.where)
    if len(places) != len(item.storyboard.scenes):
        raise InputError(
            f"{file.parent / INDEX}: {file.stem}, where: got {len(places)} places, expected one, or one for each of the "
            f"{len(item.storyboard.scenes)} scenes that are shown; correct the list"
        )
    return PromptSetItem(item.name, item.storyboard, item.characters, places, tags=dict(entry.kinds))


# The structure


def check_prompt_set(folder: str | Path | None = None) -> list[str]:
    """Everything in which a folder differs from the structure of our set, one line each; empty where it is as promised."""
    try:
        folder = _folder(folder)
        found = files_of(folder, (".yaml",))
        index = read_index(folder)
    except InputError as error:
        return [str(error)]
    boards: dict[str, Storyboard] = {}
    problems = []
    for file in found:
        try:
            boards[file.stem] = Storyboard.read(file)
        except StoryboardError as error:
            problems.append(str(error))
    return problems + check_storyboards([file.stem for file in found], boards, index)


def check_storyboards(names: Sequence[str], boards: Mapping[str, Storyboard], index: Mapping[str, Entry]) -> list[str]:
    """The same for what was read: the names of the files in order, the storyboards of those that could be read, and the index."""
    problems = [*_in_the_folder(names, index)]
    for name, board in boards.items():
        problems += [f"{name}: {problem}" for problem in _in_a_storyboard(board)]
        if name in index:
            problems += [f"{name}: {problem}" for problem in _of_its_places(board, index[name].where)]
    return problems + [*_between_storyboards(boards), *_balance(boards, index)]


def _in_the_folder(names: Sequence[str], index: Mapping[str, Entry]) -> Iterator[str]:
    if len(names) != NUM_STORYBOARDS:
        yield f"got {len(names)} storyboards, expected {NUM_STORYBOARDS}; add or remove files"
    for number, name in enumerate(names, start=1):
        if not _FILE_NAME.fullmatch(name) or not name.startswith(f"{number:02d}-"):
            yield f"{name}: got this name, expected {number:02d}- and words in small letters; rename the file"
    for name in names:
        if name not in index:
            yield f"{name}: {INDEX} does not name it, expected an entry; add one"
    for name in index:
        if name not in names:
            yield f"{name}: {INDEX} names it, expected a file {name}.yaml; remove the entry"


def _in_a_storyboard(board: Storyboard) -> Iterator[str]:
    if set(board.to_data()) != {"title", "characters", "scenes"} or any(set(scene) != {"prompt"} for scene in board.to_data()["scenes"]):
        yield "expected a title, characters, and scenes with a prompt alone; remove the other keys"
    tags = list(board.characters)
    if not 1 <= len(tags) <= max(CAST_SIZES) or tags != [f"Actor{number}" for number in range(1, len(tags) + 1)]:
        yield f"characters: got {', '.join(tags) or 'nobody'}, expected Actor1 to at most Actor{max(CAST_SIZES)} in order; rename them"
    if len(board.scenes) != NUM_SCENES:
        yield f"got {len(board.scenes)} scenes, expected {NUM_SCENES}; add or remove some"
    casts = [board.cast_of(index) for index in range(len(board.scenes))]
    for tag in tags:
        if not any(tag in cast for cast in casts):
            yield f"{tag}: is in no scene, expected everybody who is described; name or remove them"
    if tags and not frozenset.intersection(*casts):
        yield "nobody is in every scene, expected somebody; name one of them in all prompts"
    for number, (scene, caption, cast) in enumerate(zip(board.scenes, board.captions, casts, strict=True), start=1):
        yield from (f"scene {number}: {problem}" for problem in _in_a_scene(scene.prompt, caption, cast))


def _in_a_scene(prompt: str, caption: str, cast: frozenset[str]) -> Iterator[str]:
    for tag in sorted(set(_TAG.findall(prompt)) - cast):
        yield f"{tag} has no description, expected one below characters; add it"
    if not cast:
        yield "names nobody, expected at least one tag such as Actor1; name who is seen"
    length = len(prompt.split())
    if length not in PROMPT_WORDS:
        yield f"got {length} words, expected {PROMPT_WORDS.start} to {PROMPT_WORDS.stop - 1}; shorten or lengthen the prompt"
    length = len(caption.split())
    if length > LONGEST_CAPTION:
        yield f"got {length} words with the descriptions, expected at most {LONGEST_CAPTION}; shorten them"


def _of_its_places(board: Storyboard, where: Sequence[str]) -> Iterator[str]:
    if len(where) != len(board.scenes):
        yield f"where: got {len(where)} places in {INDEX}, expected one, or one per scene; correct the list"
        return
    for number, (scene, words) in enumerate(zip(board.scenes, where, strict=True), start=1):
        if " ".join(words.lower().split()) not in " ".join(scene.prompt.lower().split()):
            yield f"scene {number}: does not name its place, expected the words {describe_value(words)} of {INDEX}; write them out"


def _between_storyboards(boards: Mapping[str, Storyboard]) -> Iterator[str]:
    for title, count in Counter(" ".join(board.title.lower().split()) for board in boards.values()).items():
        if not title:
            yield f"got {count} storyboards without a title, expected one each; write them"
        elif count > 1:
            yield f"got {count} storyboards with the title {describe_value(title)}, expected unlike titles; rename them"
    for prompt, count in Counter(scene.prompt for board in boards.values() for scene in board.scenes).items():
        if count > 1:
            yield f"got {count} scenes with the prompt {describe_value(prompt)}, expected unlike prompts; rewrite them"


def _balance(boards: Mapping[str, Storyboard], index: Mapping[str, Entry]) -> Iterator[str]:
    for kind, values in KINDS.items():
        counts = Counter(entry.kinds[kind] for entry in index.values())
        for value in (*values, *(set(counts) - set(values))):
            expected = PER_KIND if value in values else 0
            if counts[value] != expected:
                yield f"{kind} {describe_value(value)}: got {counts[value]} storyboards, expected {expected}; rewrite some or the index"
    sizes = Counter(len(board.characters) for board in boards.values())
    for size in sorted({*CAST_SIZES, *sizes}):
        if sizes[size] != (expected := CAST_SIZES.get(size, 0)):
            yield f"got {sizes[size]} storyboards with {size} characters, expected {expected}; write others"
    same = [len(set(index[name].where)) == 1 for name in boards if name in index]
    yield from _share("that keep one place", same, LEAST_SAME_PLACE)
    yield from _share("that change places", [not kept for kept in same], LEAST_OTHER_PLACE)
    several = [board for board in boards.values() if len(board.characters) > 1]
    absent = [any(board.cast_of(index) != set(board.characters) for index in range(len(board.scenes))) for board in several]
    yield from _share("of several characters from one of whose scenes somebody is absent", absent, LEAST_ABSENT)


def _share(which: str, answers: Sequence[bool], least: float) -> Iterator[str]:
    if answers and sum(answers) < least * len(answers):
        yield f"got {sum(answers)} of {len(answers)} storyboards {which}, expected at least {least:.0%}; write others"
