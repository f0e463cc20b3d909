"""Which films are measured, and what is said of them: captions, characters, and where their cuts were asked for.

A film is a film folder of ours, or any video. Owns finding them and matching them with storyboards and cut lists by name; pictures are
`looking`'s.
"""

import re
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from mask2dit.cut_lists import FILM, RECORD, CutList, read_cut_file, recorded_lengths
from mask2dit.errors import InputError, Mask2DiTError
from mask2dit.evaluation.prompt_sets import PromptSetItem
from mask2dit.storyboard import Storyboard

STORYBOARD = "storyboard.yaml"
VIDEO_SUFFIXES = (".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".gif")
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
    own_name: str = ""
    """What storyboards are matched with; `name` is told from those of other films."""
    note: str = ""


def find_films(
    paths: Iterable[Path], prompts: Mapping[str, PromptSetItem] | None = None, cut_folder: Path | None = None
) -> tuple[FilmSource, ...]:
    """The films of files and folders, sorted by name in each folder.

    A film's folder counts as one film, any other folder as the films and videos directly in it. prompts: storyboards by name; None takes
    those that lie in film folders. A video `fox.mp4` has its cuts in `fox.cuts.json` or `.txt` beside it, or in `cut_folder` as `fox.json`
    or `.txt`; a name may end in `-variant-2`. Raises InputError for what is no film, or where no film has a storyboard of `prompts`.
    """
    if cut_folder is not None and not cut_folder.is_dir():
        raise InputError(
            f"--cuts: got {cut_folder}, expected a folder with a list of cuts for each video; for `mask2dit check` it is a list"
        )
    found: dict[str, FilmSource] = {}
    for film in _each_once(film for path in paths for film in _films(path, cut_folder)):
        name = film.name
        while name in found:  # two folders may each have a fox
            name = f"{film.video.parent.name}/{name}" if name == film.name else f"{name}'"
        found[name] = replace(film, name=name, own_name=film.name)
    films = tuple(_told(film, prompts) for film in found.values())
    lists = [film.cut_list.source for film in films if film.cut_list]
    if cut_folder is not None and not any(Path(source).parent == cut_folder for source in lists):
        raise InputError(
            f"--cuts: got {cut_folder}, which has no list named like a video ({_few(sorted(found))}), expected for example fox.json"
        )
    if prompts and not any(film.captions for film in films):
        wanted, got = sorted(prompts), sorted(film.name for film in films)
        raise InputError(
            f"--storyboards: got {_few(wanted)}, none of which is named like a film ({_few(got)}), expected the same names; rename them"
        )
    return films


def _each_once(films: Iterable[FilmSource]) -> Iterator[FilmSource]:
    """A film that is named twice, or by a link, counts once."""
    seen: set[Path] = set()
    for film in films:
        if film.video.resolve() in seen:
            warnings.warn(f"{film.video}: is named twice, and counts once", stacklevel=2)
        else:
            seen.add(film.video.resolve())
            yield film


def _films(path: Path, cut_folder: Path | None) -> Iterator[FilmSource]:
    try:
        if is_film(path):
            yield _of_folder(path)
        elif path.is_dir():
            inside = [
                each
                for each in sorted(path.iterdir())
                if not each.name.startswith(".") and (is_film(each) or (each.suffix.lower() in VIDEO_SUFFIXES and each.is_file()))
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
    name, video = path.name or path.resolve().name, path / FILM
    if not video.is_file():
        return FilmSource(name, video, problem=f"{path}: holds no {FILM}; `mask2dit generate {path}` goes on with it")
    try:
        film = FilmSource(name, video, cut_list=recorded_lengths(path))
    except Mask2DiTError as error:
        return FilmSource(name, video, problem=str(error))
    try:
        board = Storyboard.read(path / STORYBOARD).shown()
    except Mask2DiTError as error:
        return replace(film, note=f"without captions: {error}")
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
        if len(lists) > 1:
            raise InputError(f"{lists[0]}: got {lists[1].name}, too, expected one list of cuts for {path.name}; remove one")
        return FilmSource(path.stem, path, cut_list=read_cut_file(lists[0]) if lists else None)
    except InputError as error:
        return FilmSource(path.stem, path, problem=str(error))


def _told(film: FilmSource, prompts: Mapping[str, PromptSetItem] | None) -> FilmSource:
    if prompts is None:
        return film
    item = prompts.get(film.own_name) or prompts.get(_VARIANT.sub("", film.own_name))
    if item is None:
        return replace(film, captions=None, characters=None)
    board, note = item.storyboard.shown(), "; ".join(item.notes)
    return replace(film, captions=board.captions, characters=item.characters or cast_of(board), note=note)


def _few(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
