"""Curation on Ray's workers: row for row what one process finds, also when a worker is killed in the middle."""

import json
import os
import signal
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from mask2dit.curation import running
from mask2dit.curation.captioners.playhouse import JudgeCaptioner
from mask2dit.curation.captions import TokenLimit
from mask2dit.curation.curating import Outcome, Plan, curate
from mask2dit.curation.groups import GroupSettings
from mask2dit.curation.pieces import find_footage
from mask2dit.curation.running import Work, place_for
from mask2dit.curation.settings import CheckSettings, ShotSettings
from mask2dit.playhouse.features import IDENTITY, JudgeExtractor
from mask2dit.playhouse.judge import load_judge
from mask2dit.video_files import read_video
from small_footage import of_no_use, stories, write

pytestmark = pytest.mark.slow
ray: Any = pytest.importorskip("ray")
pytest.importorskip("ray.data")
ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])  # workers cannot import a test


class Silent:
    def start(self, stage: str, total: int) -> None: ...

    def step(self) -> None: ...

    def done(self) -> None: ...


class Dying(JudgeExtractor):
    """Kills its own process when it first looks at anything, if there is a mark to take away."""

    def __init__(self, mark: Path) -> None:
        super().__init__(load_judge())
        self.mark = mark

    def scenes(self, scenes: Any) -> Any:
        if self.mark.exists():
            self.mark.unlink()
            os.kill(os.getpid(), signal.SIGKILL)
        return super().scenes(scenes)


def load(mark: Path) -> dict[str, JudgeExtractor]:
    return {"judge-who": JudgeExtractor(load_judge(), IDENTITY), "judge": Dying(mark)}


def curated(folder: Path, footage: Path, workers: int | None, mark: Path) -> tuple[Outcome, dict[str, bytes]]:
    """Run all steps; returns what was told, and every file that people or training read."""
    judge = load_judge()
    plan = Plan(
        folder,
        find_footage([footage]),
        partial(load, mark),
        "judge-who",
        GroupSettings(0.75, 1.01),
        TokenLimit(60, lambda caption: len(caption.split()), "words"),
        JudgeCaptioner(JudgeExtractor(judge)),
        ShotSettings(max_seconds=3.0, piece_seconds=4.0),
        CheckSettings(min_seconds=1.0),
    )
    with place_for(None, workers) as place:
        outcome = curate(plan, place, Silent())
    files = [path for path in folder.rglob("*") if path.is_file() and "work" not in path.relative_to(folder).parts]
    return outcome, {str(path.relative_to(folder)): path.read_bytes() for path in sorted(files)}


@pytest.fixture(scope="module")
def footage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("footage")
    for number in range(3):
        path = stories(folder / f"{number}.mp4", count=3, first=2_000_000 + 10 * number)
        write(path, read_video(path), fps=8, keyframes=8)  # keyframes near to each other: several pieces
    of_no_use(folder, folder / "0.mp4")
    return folder


@pytest.fixture(scope="module")
def alone(footage: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Outcome, dict[str, bytes]]:
    return curated(tmp_path_factory.mktemp("alone"), footage, None, Path("no mark"))


def test_two_workers_find_what_one_process_finds_though_one_is_killed(
    footage: Path, alone: tuple[Outcome, dict[str, bytes]], tmp_path: Path
) -> None:
    mark = tmp_path / "mark"
    mark.touch()
    outcome, files = curated(tmp_path / "set", footage, 2, mark)
    assert not mark.exists() and outcome == alone[0]
    assert files.keys() == alone[1].keys() and any(name.endswith(".mp4") for name in files)
    assert [name for name in files if files[name] != alone[1][name]] == []
    rows = [json.loads(line) for line in files["steps/1-pieces.jsonl"].splitlines()]
    assert sum(len(row["piece_starts"]) for row in rows) >= 6 and sum(bool(row["problem"]) for row in rows) == 4


def test_a_unit_that_kills_its_workers_is_a_problem_and_the_others_go_on(tmp_path: Path) -> None:
    def deadly(unit: str) -> str:
        if unit == "deadly":
            os.kill(os.getpid(), signal.SIGKILL)
        if unit == "odd":
            raise RuntimeError("of a library")
        (tmp_path / unit).touch()
        return "bad" if unit == "bad" else ""

    told: dict[str, str] = {}
    with place_for(None, 2) as place:
        place.run(Work((deadly,)), ["a", "deadly", "b", "bad", "odd", "c"], told.__setitem__)
    assert {unit: told[unit] for unit in ("a", "b", "c", "bad")} == {"a": "", "b": "", "c": "", "bad": "bad"}
    assert told["odd"] == "RuntimeError: of a library; leave the file out, or report this"
    assert f"died {running.TRIES} times" in told["deadly"] and (tmp_path / "c").exists()


def test_without_workers_there_is_no_ray() -> None:
    with place_for(None, 1) as place:
        assert isinstance(place, running.Here) and not ray.is_initialized()
