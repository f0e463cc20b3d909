"""A batch on Ray: what workers do that die, are stopped, or cannot begin; nothing is lost, and films are those of one process."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from safetensors import safe_open
from typer.testing import CliRunner

from mask2dit.cli.main import app
from mask2dit.errors import InputError
from mask2dit.production.batch import Batch, Job, Outcome, attempt
from mask2dit.production.ray_batch import make_films_on_ray
from production.filming import files_in

pytestmark = pytest.mark.slow
ray: Any = pytest.importorskip("ray")

STEPS = 60
NAMES = ("bear", "fox", "owl", "whale")
RUN = [sys.executable, "-c", "from mask2dit.cli.main import main; main()"]
TWO_CPUS = sorted(os.sched_getaffinity(0))[:2]


def as_in_a_terminal() -> None:
    """Two CPUs, so that a worker has one thread, as this process has; and Ctrl-C, which a runner in the background may have ignored."""
    os.sched_setaffinity(0, TWO_CPUS)
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@pytest.fixture
def words(model_folder: Path, tmp_path: Path) -> list[str]:
    """A batch of four small films, to be made in `tmp_path`."""
    (tmp_path / "stories").mkdir()
    for name in NAMES:
        (tmp_path / "stories" / f"{name}.yaml").write_text(f"scenes: [{{prompt: a {name} walks}}, {{prompt: the {name} sleeps}}]\n")
    return ["batch", "stories", "--model", str(model_folder), "--steps", str(STEPS), "--frames", "5", "--display-scale", "1"]


def start(words: list[str], folder: Path) -> "subprocess.Popen[str]":
    options: dict[str, Any] = {"cwd": folder, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen([*RUN, *words, "--ray", "--workers", "2"], preexec_fn=as_in_a_terminal, **options)


def in_the_middle(films: Path) -> tuple[str, int]:
    """The first film that has denoised for a while, and the process that is at it."""
    while True:
        for path in films.glob("*/latents/denoising.safetensors"):
            record = json.loads((path.parents[1] / "run.json").read_text())
            if record["stage"] == "denoising" and record["process"] and step_of(path) >= STEPS // 5:
                return path.parents[1].name, record["process"]["pid"]
        time.sleep(0.02)


def step_of(path: Path) -> int:
    try:
        with safe_open(str(path), "pt") as file:
            return int(file.get_tensor("step"))
    except (OSError, ValueError):
        return 0


def denoised(film: Path) -> int:
    """Steps that need not be taken again: all where takes are recorded, else those of the state that was kept."""
    record = film / "run.json"
    is_denoised = record.exists() and json.loads(record.read_text())["takes"]
    return STEPS if is_denoised else step_of(film / "latents" / "denoising.safetensors")


def films_of(films: Path) -> dict[str, dict[str, Any]]:
    return {film["name"]: film for film in json.loads((films / "batch.json").read_text())["films"]}


def in_one_process(words: list[str], folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(folder)
    result = CliRunner().invoke(app, [*words, "-o", "alone/films"])
    assert result.exit_code == 0, result.output
    return folder / "alone" / "films"


def same_films(one: Path, other: Path) -> bool:
    """Byte for byte, but for how long it took."""
    mine, theirs = files_in(one), files_in(other)
    assert mine.keys() == theirs.keys()
    for name in [name for name in mine if name.endswith("run.json")]:
        records = [json.loads(files.pop(name)) | {"timings_seconds": {}} for files in (mine, theirs)]
        assert records[0] == records[1]
    return all(mine[name] == theirs[name] for name in mine if name != "batch.json")


def test_a_worker_killed_in_the_middle_loses_nothing(words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rays = set(Path("/tmp").glob("mask2dit-ray-*"))
    process = start(words, tmp_path)
    name, worker = in_the_middle(tmp_path / "films")
    assert worker != process.pid
    os.kill(worker, signal.SIGKILL)
    step = step_of(tmp_path / "films" / name / "latents" / "denoising.safetensors")
    output, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    assert f"note: {name}: its worker died; another worker goes on with it" in errors and "4 made in " in output
    assert all(line.startswith("note: ") or ": made in " in line for line in errors.splitlines())  # not a word of Ray's own
    films = films_of(tmp_path / "films")
    assert {name: film["denoising_steps"] for name, film in films.items()} == {**dict.fromkeys(NAMES, STEPS), name: STEPS - step}
    assert same_films(tmp_path / "films", in_one_process(words, tmp_path, monkeypatch))
    assert {path.name for path in tmp_path.iterdir()} == {"stories", "films", "alone"}
    assert set(Path("/tmp").glob("mask2dit-ray-*")) <= rays


def test_control_c_stops_all_workers_and_the_same_command_goes_on(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    process = start(words, tmp_path)
    in_the_middle(tmp_path / "films")
    process.send_signal(signal.SIGINT)
    output, errors = process.communicate(timeout=120)
    assert process.returncode == 130 and errors.splitlines()[-1].endswith("of 4 films are made; the same command goes on")
    stopped = films_of(tmp_path / "films")
    assert "interrupted" in {film["status"] for film in stopped.values()} and "interrupted" in output
    steps = {name: denoised(tmp_path / "films" / name) for name in NAMES}
    monkeypatch.chdir(tmp_path)
    again = CliRunner().invoke(app, words)  # without Ray
    assert again.exit_code == 0, again.output
    for name, film in films_of(tmp_path / "films").items():
        assert film["denoising_steps"] == STEPS - steps[name]


# Workers that come to nothing: small makers, on one Ray for all


@pytest.fixture(scope="module")
def local_ray() -> Iterator[None]:
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    with tempfile.TemporaryDirectory(prefix="ray-", dir="/tmp", ignore_cleanup_errors=True) as folder:
        quiet = {"include_dashboard": False, "log_to_driver": False, "logging_level": "ERROR"}
        ray.init(num_cpus=2, object_store_memory=80 * 2**20, _temp_dir=folder, **quiet)
        yield
        ray.shutdown()
    ray.cloudpickle.unregister_pickle_by_value(sys.modules[__name__])


class Deadly:
    """Makes films, but dies of one and cannot go on after another."""

    def make(self, job: Job) -> Outcome:
        if job.name == "deadly":
            os.kill(os.getpid(), signal.SIGKILL)
        outcome = attempt(job, lambda: None)
        return Outcome(job, "failed", "no model", stops=True) if job.name == "last" else outcome


class Said:
    def __init__(self) -> None:
        self.lines: list[str] = []

    def begun(self, job: Job) -> None:
        pass

    def ended(self, outcome: Outcome) -> None:
        pass

    def say(self, line: str) -> None:
        self.lines.append(line)


def outcomes(names: str, start: Callable[[int], Deadly], folder: Path, **options: Any) -> tuple[dict[str, str], list[str]]:
    jobs = [Job(name, folder / f"{name}.yaml", 1, 0, folder / "films" / name) for name in names.split()]
    said = Said()
    batch = Batch(jobs, folder / "films", said)
    make_films_on_ray(jobs, start, batch, **options)
    return {outcome.job.name: outcome.status for outcome in batch.outcomes}, said.lines


def test_a_film_that_kills_its_workers_is_given_up(local_ray: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mask2dit.production.ray_batch.ATTEMPTS", 2)
    found, lines = outcomes("a deadly b", lambda sharing: Deadly(), tmp_path, workers=2)
    assert found == {"a": "made", "deadly": "failed", "b": "made"}
    assert lines == ["note: deadly: its worker died; another worker goes on with it"]


def test_workers_that_can_make_nothing_end_the_batch(local_ray: None, tmp_path: Path) -> None:
    def cannot(sharing: int) -> Deadly:
        raise InputError(f"no model here, for {sharing}")

    found, lines = outcomes("a b", cannot, tmp_path, workers=1)
    assert found == {"a": "not begun", "b": "not begun"} and len(lines) == 1 and lines[0].endswith(": no model here, for 1")
    found, lines = outcomes("a last b", lambda sharing: Deadly(), tmp_path, workers=1)
    assert found == {"a": "made", "last": "failed", "b": "not begun"} and lines == ["note: a worker stops: no model"]


def test_a_cluster_that_is_not_there_is_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    with pytest.raises(InputError, match=r"^--ray: the cluster at 127\.0\.0\.1:9 cannot be used \(.*\); check it with `ray status`"):
        outcomes("a", lambda sharing: Deadly(), tmp_path, address="127.0.0.1:9")
