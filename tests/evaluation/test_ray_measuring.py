"""Looking at films on Ray: the same values as in one process, also when a worker dies in the middle."""

import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mask2dit.evaluation.features import Store
from mask2dit.evaluation.films import find_films
from mask2dit.evaluation.measuring import Results, choose, gather, measure, wanted_features
from mask2dit.evaluation.ray_measuring import look_on_ray
from mask2dit.extractors.base import Extractor
from mask2dit.playhouse.features import JudgeExtractor
from mask2dit.playhouse.judge import load_judge

pytestmark = pytest.mark.slow
ray: Any = pytest.importorskip("ray")
ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])  # workers cannot import a test

RUN = [sys.executable, "-c", "from mask2dit.cli.main import main; main()"]


class Silent:
    def start(self, stage: str, total: int) -> None: ...

    def step(self) -> None: ...

    def done(self) -> None: ...


class Dying(JudgeExtractor):
    """Kills its own process at the first scene that anyone looks at with a mark in place."""

    def __init__(self, mark: Path) -> None:
        super().__init__(load_judge())
        self.mark = mark

    def scene(self, pictures: np.ndarray) -> np.ndarray:
        if self.mark.exists():
            self.mark.unlink()
            os.kill(os.getpid(), signal.SIGKILL)
        return super().scene(pictures)


def dying(mark: Path) -> Mapping[str, Extractor]:
    return {"judge": Dying(mark)}


def values(path: Path) -> dict[str, Any]:
    results = Results.model_validate_json(path.read_text())
    return {
        "groups": [group.values for group in results.groups],
        "films": [film.values for group in results.groups for film in group.films],
    }


def test_the_command_gives_the_same_values(films: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.mp4").write_text("no video")
    for output, more in (("alone", []), ("rays", ["--ray", "--workers", "2"])):
        words = ["evaluate", str(films), "bad.mp4", "--extractor", "judge", "-o", output, *more]
        done = subprocess.run([*RUN, *words], cwd=tmp_path, capture_output=True, text=True, timeout=600)
        assert done.returncode == 1 and "left out: bad: bad.mp4: cannot be read as a video" in done.stdout, done.stderr
    assert values(tmp_path / "alone" / "results.json") == values(tmp_path / "rays" / "results.json")


def test_a_worker_that_dies_loses_nothing(films: Path, tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    mark.touch()
    load = partial(dying, mark)
    networks = load()
    found, chosen = find_films([films]), choose(["visual-consistency", "sca"], networks)
    problems = look_on_ray(found, tmp_path / "store", load, wanted_features(chosen), Silent(), workers=2)
    assert problems == {} and not mark.exists()
    kept = len(list((tmp_path / "store").rglob("*.npy")))
    stores = [Store(tmp_path / name, networks) for name in ("store", "other")]
    first, second = (measure(gather({"films": found}, store, chosen, Silent()), chosen, networks, {}) for store in stores)
    assert kept == 9 and first.groups[0].values == second.groups[0].values
