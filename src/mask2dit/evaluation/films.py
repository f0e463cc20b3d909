"""Which films are measured, and what is said of them: captions, characters, and where their cuts were asked for.

A film is a film folder of ours, or any video. Owns finding them and matching them with storyboards and cut lists by name; pictures are
`looking`'s.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from mask2dit.cut_lists import RECORD, CutList, read_cut_file, recorded_lengths
from mask2dit.errors import InputError, Mask2DiTError
from mask2dit.evaluation.prompt_sets import PromptSetItem
from mask2dit.storyboard import Storyboard

FILM, STORYBOARD = "film.mp4", "storyboard.yaml"
VIDEO_SUFFIXES = (".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".ts", ".gif")
CUT_SUFFIXES = (".cuts.json", ".cuts.txt")
LIST_SUFFIXES = (".json", ".txt")

_TAG = re.compile(r"\bActor\d+\b")
_VARIANT = re.compile(r"-variant-\d+$")


@dataclass(frozen=True, slots=True)
class FilmSource:
    """A film to measure. None is what nobody says; `problem` is why it cannot be measured at all."""

    name: str
    video: Path
    captions: tuple[str, ...] | None = None
    characters: tuple[frozenset[str], ...] | None = None
    cut_list: CutList | None = None
    problem: str = ""


def find_films(
    paths: Iterable[Path], prompts: Mapping[str, PromptSetItem] | None = None, cut_folder: Path | None = None
) -> tuple[FilmSource, ...]:
    """The films of files and folders, sorted by name in each folder.

    A film's folder counts as one film, any other folder as the films and videos directly in it. prompts: storyboards by name; None takes
    those that lie in film folders. A video `fox.mp4` has its cuts in `fox.cuts.json` or `.txt` beside it, or in `cut_folder` as `fox.json`
    or `.txt`; a name may end in `-variant-2`. Raises InputError for what is no film, or where no film has a storyboard of `prompts`.
    """
    found: dict[str, FilmSource] = {}
    for path in paths:
        for film in _films(path, cut_folder):
            name = film.name
            while name in found:  # two folders may each have a fox
                name = f"{film.video.parent.name}/{name}" if name == film.name else f"{name}'"
            found[name] = replace(film, name=name)
    films = tuple(_told(film, prompts) for film in found.values())
    if prompts and not any(film.captions for film in films):
        wanted, got = sorted(prompts), sorted(film.name for film in films)
        raise InputError(
            f"--storyboards: got {_few(wanted)}, none of which is named like a film ({_few(got)}), expected the same names; rename them"
        )
    return films


def _films(path: Path, cut_folder: Path | None) -> Iterator[FilmSource]:
    try:
        if is_film(path):
            yield _of_folder(path)
        elif path.is_dir():
            inside = [
                each
                for each in sorted(path.iterdir())
                if not each.name.startswith(".") and (is_film(each) or each.suffix.lower() in VIDEO_SUFFIXES)
            ]
            if not inside:
                raise InputError(f"{path}: holds no film, expected films' folders or videos ({', '.join(VIDEO_SUFFIXES[:4])} …)")
            yield from (_of_folder(each) if is_film(each) else _of_video(each, cut_folder) for each in inside)
        elif path.is_file():
            yield _of_video(path, cut_folder)
        else:
            raise InputError(f"{path}: there is no such file, expected a film's folder, a video, or a folder of them; check the name")
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}), expected films; check the name") from None


def is_film(path: Path) -> bool:
    """Whether it is a film's folder."""
    return (path / RECORD).is_file()


def _of_folder(path: Path) -> FilmSource:
    name, video = path.resolve().name, path / FILM
    if not video.is_file():
        return FilmSource(name, video, problem=f"{path}: holds no {FILM}; `mask2dit generate {path}` goes on with it")
    try:
        film = FilmSource(name, video, cut_list=recorded_lengths(path))
        board = Storyboard.read(path / STORYBOARD).shown()
    except Mask2DiTError as error:
        return FilmSource(name, video, problem=str(error))
    return replace(film, captions=board.captions, characters=cast_of(board))


def cast_of(board: Storyboard) -> tuple[frozenset[str], ...] | None:
    """Who is in each scene, by the storyboard's characters, or by actor tags in the captions where it has none."""
    found = tuple(board.cast_of(index) for index in range(len(board.scenes)))
    found = found if board.characters else tuple(frozenset(_TAG.findall(caption)) for caption in board.captions)
    return found if any(found) else None


def _of_video(path: Path, cut_folder: Path | None) -> FilmSource:
    names = [path.with_name(path.stem + suffix) for suffix in CUT_SUFFIXES]
    names += [cut_folder / (path.stem + suffix) for suffix in LIST_SUFFIXES] if cut_folder else []
    lists = [each for each in names if each.is_file()]
    try:
        return FilmSource(path.stem, path, cut_list=read_cut_file(lists[-1]) if lists else None)
    except InputError as error:
        return FilmSource(path.stem, path, problem=str(error))


def _told(film: FilmSource, prompts: Mapping[str, PromptSetItem] | None) -> FilmSource:
    if prompts is None:
        return film
    own = film.name.rpartition("/")[2].rstrip("'")
    item = prompts.get(own) or prompts.get(_VARIANT.sub("", own))
    if item is None:
        return replace(film, captions=None, characters=None)
    board = item.storyboard.shown()
    return replace(film, captions=board.captions, characters=item.characters or cast_of(board))


def _few(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
