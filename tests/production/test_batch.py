"""A batch: which films there are, and that what goes wrong with one stays its own."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from mask2dit.errors import InputError, Mask2DiTError, OutputError
from mask2dit.pipeline import Mask2DiTPipeline
from mask2dit.production import FilmSettings, make_film
from mask2dit.production.batch import (
    Batch,
    BatchStopped,
    Job,
    Outcome,
    Source,
    attempt,
    differs,
    find_storyboards,
    list_jobs,
    make_films,
    sca_of,
)
from mask2dit.production.ray_batch import share
from mask2dit.storyboard import Storyboard

SUFFIXES = (".yaml", ".yml", ".json")


class Told:
    """Writes down what a batch says."""

    def __init__(self) -> None:
        self.begins: list[str] = []
        self.ends: list[str] = []
        self.lines: list[str] = []

    def begun(self, job: Job) -> None:
        self.begins.append(job.name)

    def ended(self, outcome: Outcome) -> None:
        self.ends.append(outcome.job.name)

    def say(self, line: str) -> None:
        self.lines.append(line)


class Making:
    """A maker that does what it is told for each name, and makes the others."""

    def __init__(self, **actions: Callable[[], object]) -> None:
        self.actions = actions

    def make(self, job: Job) -> Outcome:
        return attempt(job, self.actions.get(job.name, lambda: None))


def fail(error: BaseException) -> Callable[[], None]:
    def action() -> None:
        raise error

    return action


def jobs(folder: Path, names: str) -> list[Job]:
    return [Job(name, folder / f"{name}.yaml", 1, 0, folder / "films" / name) for name in names.split()]


def touch(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("")


# Which films


def test_a_folder_gives_its_storyboards_in_order_and_nothing_else(tmp_path: Path) -> None:
    touch(*(tmp_path / name for name in ("owl.yml", "Fox.YAML", "bear.json", "notes.txt", ".hidden.yaml", "batch.json", "deep/er.yaml")))
    assert [source.name for source in find_storyboards([tmp_path], SUFFIXES)] == ["Fox", "bear", "owl"]
    named = find_storyboards([tmp_path / "notes.txt", tmp_path / "owl.yml", tmp_path, tmp_path / "deep" / ".." / "owl.yml"], SUFFIXES)
    assert [source.name for source in named] == ["notes", "owl", "Fox", "bear"]  # as named, and each once


def test_a_films_folder_stands_for_its_storyboard(tmp_path: Path) -> None:
    touch(tmp_path / "fox" / "run.json", tmp_path / "fox" / "storyboard.yaml")
    source = Source("fox", tmp_path / "fox" / "storyboard.yaml")
    assert find_storyboards([tmp_path / "fox"], SUFFIXES) == find_storyboards([source.path], SUFFIXES) == [source]
    with pytest.raises(InputError, match=r"holds no storyboard, expected files that end in \.yaml, \.yml or \.json; for the films in it"):
        find_storyboards([tmp_path], SUFFIXES)
    with pytest.raises(InputError, match="its storyboard lies in it, expected another folder for the films; name another folder with -o"):
        list_jobs([source], tmp_path, 1, 0)
    assert list_jobs([source], tmp_path / "more", 1, 0)[0].folder == tmp_path / "more" / "fox"


@pytest.mark.parametrize(("name", "words"), [("absent.yaml", "there is no such file"), ("empty", "holds no storyboard")])
def test_what_is_not_there_is_one_line(name: str, words: str, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=words) as caught:
        find_storyboards([tmp_path / name], SUFFIXES)
    assert "\n" not in str(caught.value)


def test_variants_have_one_seed_after_the_other_and_a_folder_each(tmp_path: Path) -> None:
    found = list_jobs([Source("fox", tmp_path / "fox.yaml"), Source("owl", tmp_path / "owl.yaml")], tmp_path / "films", 3, 7)
    assert [(job.folder.name, job.variant, job.seed) for job in found] == [
        (f"{name}{'' if variant == 1 else f'-variant-{variant}'}", variant, 6 + variant) for name in ("fox", "owl") for variant in (1, 2, 3)
    ]


@pytest.mark.parametrize("names", [("fox", "fox"), ("fox", "Fox"), ("fox", "fox-variant-2")])
def test_two_films_of_one_name_are_refused(names: tuple[str, str], tmp_path: Path) -> None:
    sources = [Source(name, tmp_path / str(place) / "a.yaml") for place, name in enumerate(names)]
    with pytest.raises(InputError, match=r"would be the film of both .*; rename one of them"):
        list_jobs(sources, tmp_path, 2, 0)


def test_a_variant_of_scenes_with_seeds_of_their_own_is_the_same_film() -> None:
    own = {"prompt": "a fox", "seed": 4}
    assert differs(Storyboard(scenes=[own]), 1) and differs(Storyboard(scenes=[own, {"prompt": "a bear"}]), 2)
    assert not differs(Storyboard(scenes=[own, {"prompt": "a bear", "skip": True}, {"prompt": "an owl", "given": "owl.mp4"}]), 2)


# What goes wrong with one


def test_a_film_that_fails_does_not_stop_the_others(tmp_path: Path) -> None:
    told = Told()
    batch = Batch(jobs(tmp_path, "fox owl bear bug"), tmp_path / "films", told)
    maker = Making(fox=fail(Mask2DiTError("out of memory\nwhile denoising")), bug=fail(ZeroDivisionError("by zero")))
    make_films([outcome.job for outcome in batch.outcomes], maker, batch)
    assert [outcome.status for outcome in batch.outcomes] == ["failed", "made", "made", "failed"]
    assert told.begins == told.ends == ["fox", "owl", "bear", "bug"]
    films = json.loads((tmp_path / "films" / "batch.json").read_text())["films"]
    assert [film["line"] for film in films[:2]] == ["out of memory while denoising", ""]
    assert films[3]["line"] == "a mistake of the program, ZeroDivisionError: by zero; batch.json has more of it"
    assert "line" in films[3]["traceback"] and "traceback" not in films[0]


def full_disk() -> OutputError:
    error = OutputError("fox/run.json: cannot be written; in fox: no scene yet")
    error.__cause__ = OutputError("fox/run.json: cannot be written")
    error.__cause__.__cause__ = OSError(28, "No space left on device")
    return error


@pytest.mark.parametrize("error", [full_disk(), BatchStopped("the model cannot be loaded")], ids=["full disk", "no model"])
def test_what_would_end_every_film_ends_the_batch(error: Exception, tmp_path: Path) -> None:
    batch = Batch(jobs(tmp_path, "fox owl bear"), tmp_path / "films", Told())
    make_films([outcome.job for outcome in batch.outcomes], Making(owl=fail(error)), batch)
    assert [outcome.status for outcome in batch.outcomes] == ["made", "failed", "not begun"]


def test_a_file_that_one_film_cannot_write_stops_no_other(tmp_path: Path) -> None:
    denied = OutputError("owl: cannot be written to")
    denied.__cause__ = PermissionError(13, "Permission denied")
    batch = Batch(jobs(tmp_path, "owl bear"), tmp_path / "films", Told())
    make_films([outcome.job for outcome in batch.outcomes], Making(owl=fail(denied)), batch)
    assert [outcome.status for outcome in batch.outcomes] == ["failed", "made"]


def test_control_c_ends_the_batch_and_is_on_record(tmp_path: Path) -> None:
    batch = Batch(jobs(tmp_path, "fox owl bear"), tmp_path / "films", Told())
    with pytest.raises(KeyboardInterrupt):
        make_films([outcome.job for outcome in batch.outcomes], Making(owl=fail(KeyboardInterrupt("interrupted while denoising"))), batch)
    films = json.loads((tmp_path / "films" / "batch.json").read_text())["films"]
    assert [(film["name"], film["status"]) for film in films] == [("fox", "made"), ("owl", "interrupted"), ("bear", "not begun")]
    assert films[1]["line"] == "interrupted while denoising"


def test_a_disk_without_room_for_the_list_stops_no_film(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told = Told()
    batch = Batch(jobs(tmp_path, "fox owl"), tmp_path / "films", told)
    monkeypatch.setattr("os.replace", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    make_films([outcome.job for outcome in batch.outcomes], Making(), batch)
    assert [outcome.status for outcome in batch.outcomes] == ["made", "made"]
    assert set(told.lines) == {
        f"note: {tmp_path}/films/batch.json: cannot be written (No space left on device); make room or choose another place"
    }


# The picture of all films


def test_the_overview_has_a_row_for_every_film_that_is_there(pipeline: Mask2DiTPipeline, tmp_path: Path) -> None:
    told = Told()
    batch = Batch(jobs(tmp_path, "fox owl bear"), tmp_path / "films", told)
    assert batch.write_overview() is None
    heights = []
    for outcome, scenes in zip(batch.outcomes, (7, 1), strict=False):
        board = Storyboard.from_captions([f"a {outcome.job.name}"] * scenes)
        record = make_film(pipeline, board, outcome.job.folder, FilmSettings(num_inference_steps=1, num_frames=1, display_scale=1))
        batch.end(Outcome(outcome.job, "made", sca=sca_of(record)))
        path = batch.write_overview()
        assert path is not None
        with Image.open(path) as sheet:
            heights.append(sheet.height)
    assert heights[1] > heights[0] + 100
    (tmp_path / "films" / "fox" / "scenes" / "scene-01.mp4").write_bytes(b"damaged")
    assert batch.write_overview() is None and "scene-01.mp4" in told.lines[-1]


# On Ray; what needs it is in test_ray_batch


@pytest.mark.parametrize(
    ("cpus", "workers", "each"),
    [([8], 2, 4), ([2], 2, 1), ([2], 1, 2), ([2], 4, 1), ([16, 16, 16, 16], 3, 16), ([16, 16, 16, 16], 6, 8), ([4, 16], 5, 4), ([0], 1, 1)],
)
def test_workers_share_the_cpus_of_their_machines(cpus: list[int], workers: int, each: int) -> None:
    assert share(cpus, workers) == each
