"""A failure before or after any write: the folder can be read, at most the running step is lost, and the film comes out the same."""

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from mask2dit.errors import InputError, Mask2DiTError
from mask2dit.pipeline import Mask2DiTPipeline
from mask2dit.production import Directions, FilmSettings, make_film
from mask2dit.production.directing import inserted, open_film, remade
from mask2dit.storyboard import Storyboard
from production.filming import Watched, files_in

STEPS = 2
SETTINGS = FilmSettings(num_inference_steps=STEPS, num_frames=1, display_scale=1)
STORY = Storyboard.from_text("a fox; a bear; an owl; a fish", title="Four")  # one scene more than the window: two calls
pytestmark = pytest.mark.slow
SOME, ALL = 61, 2  # after one write is before the next: with both, every second write meets every state of the disk
WRITES = (("os", "replace"), ("os", "link"), ("pathlib.Path", "unlink"), ("pathlib.Path", "mkdir"))


class Broken(BaseException):
    """What no code catches: as near to a kill as a test in one process comes."""


@contextmanager
def failing(at: int, when: str, error: Callable[[], BaseException]) -> Iterator[list[str]]:
    """Let the write number `at` fail, before it is done or after; yields the names of all writes. -1: none."""
    done: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        for place, name in WRITES:
            owner = os if place == "os" else Path
            original = getattr(owner, name)

            def write(*arguments: object, original: Callable = original, name: str = name, **options: object) -> object:
                number = len(done)
                done.append(f"{name} {Path(str(arguments[-1] if name in ('replace', 'link') else arguments[0])).name}")
                if number == at and when == "before":
                    raise error()
                result = original(*arguments, **options)
                if number == at and when == "after":
                    raise error()
                return result

            patch.setattr(owner, name, write)
        yield done


@pytest.fixture(scope="module")
def whole_four(pipeline: Mask2DiTPipeline, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole") / "four"
    make_film(pipeline, STORY, folder, SETTINGS)
    return folder


def steps_of(watched: Watched) -> int:
    """Denoising steps that a run took, with those of a stage that was cut short."""
    return sum(step for stage, step, _ in [*watched.seen, *([] if watched.finished else [watched.now])] if stage.startswith("denoising"))


def same_film(folder: Path, other: Path) -> None:
    one, two = files_in(folder), files_in(other)
    assert {name: one[name] for name in two if name != "run.json"} == {name: two[name] for name in two if name != "run.json"}
    assert one.keys() == two.keys()


def number_of_writes(make: Callable[[Path], object], start: Path | None, place: Path) -> int:
    folder = place / "counted"
    if start:
        shutil.copytree(start, folder)
    with failing(-1, "", Broken) as done:
        make(folder)
    return len(done)


HOW_MANY = pytest.mark.parametrize("every", [SOME, pytest.param(ALL, marks=pytest.mark.slow)])


@HOW_MANY
@pytest.mark.parametrize("when", ["before", "after"])
def test_a_failure_at_any_write_of_a_film(every: int, when: str, pipeline: Mask2DiTPipeline, whole_four: Path, tmp_path: Path) -> None:
    def make(folder: Path, watched: Watched | None = None) -> object:
        return make_film(pipeline, STORY, folder, SETTINGS, progress=watched)

    total = number_of_writes(make, None, tmp_path)
    assert total > 50
    for at in range(every // 2, total, every):
        folder, first, second = tmp_path / f"film-{at}", Watched(), Watched()
        with pytest.raises(Broken), failing(at, when, Broken) as done:
            make(folder, first)
        if (folder / "run.json").exists():
            open_film(folder)  # it can be read
        make(folder, second)
        assert steps_of(first) + steps_of(second) <= 2 * STEPS + 1, (at, done[-1])
        same_film(folder, whole_four)
        shutil.rmtree(folder)


DIRECTIONS = {
    "remake": lambda folder: (remade(open_film(folder), 2, seed=5), Directions(stay=True, again=frozenset({1}))),
    "insert": lambda folder: (inserted(open_film(folder), 1, ["a robot"]), Directions(stay=True)),
}


@HOW_MANY
@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("when", ["before", "after"])
def test_a_failure_at_any_write_of_a_direction(
    every: int, when: str, direction: str, pipeline: Mask2DiTPipeline, whole_four: Path, tmp_path: Path
) -> None:
    """The same command again ends in the film that it would have made at once, unless that is there already."""

    def make(folder: Path) -> object:
        board, directions = DIRECTIONS[direction](folder)
        return make_film(pipeline, board, folder, SETTINGS, directions, base=folder)

    wanted = shutil.copytree(whole_four, tmp_path / "wanted")
    make(wanted)
    before = files_in(whole_four)
    total = number_of_writes(make, whole_four, tmp_path)
    for at in range(every // 3, total, every):
        folder = shutil.copytree(whole_four, tmp_path / f"film-{at}")
        with pytest.raises(Broken), failing(at, when, Broken):
            make(folder)
        open_film(folder)
        now = files_in(folder)
        assert all(now[name] == content for name, content in before.items() if name.startswith("takes/"))  # what was made is there
        board = open_film(folder).storyboard
        if board != open_film(wanted).storyboard:
            make(folder)
        else:  # it was done, and the same command would be another one
            make_film(pipeline, board, folder, SETTINGS, Directions(stay=True), base=folder)
        shown = {name: content for name, content in files_in(folder).items() if name.startswith(("scenes/", "latents/", "film.mp4"))}
        assert shown == {name: content for name, content in files_in(wanted).items() if name in shown} and "film.mp4" in shown, at
        assert open_film(folder).storyboard == open_film(wanted).storyboard and open_film(folder).record.status == "complete"
        shutil.rmtree(folder)


@pytest.mark.slow
def test_a_full_disk_at_any_write_is_one_line(pipeline: Mask2DiTPipeline, whole_four: Path, tmp_path: Path) -> None:
    total = number_of_writes(lambda folder: make_film(pipeline, STORY, folder, SETTINGS), None, tmp_path)
    for at in range(0, total, 3):
        folder = tmp_path / f"film-{at}"
        with failing(at, "before", lambda: OSError(28, "No space left on device")):
            try:
                make_film(pipeline, STORY, folder, SETTINGS)
            except Mask2DiTError as error:
                assert "\n" not in str(error) and "No space left" in str(error)
            except InputError:
                raise
        make_film(pipeline, STORY, folder, SETTINGS)
        same_film(folder, whole_four)
        shutil.rmtree(folder)
