"""`mask2dit evaluate --reproduce-paper`: the paper's table from a model, films first, then numbers beside the published ones.

Four ways to make the same storyboards: every scene by itself, all scenes at once under the plans `full` and `symmetric`, and the last scene
made with the others known. Each is a batch, so what is there is not made again.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from mask2dit.cli import model_options as options
from mask2dit.cli.batch import batch
from mask2dit.errors import InputError

if TYPE_CHECKING:
    from mask2dit.evaluation.measuring import Results
    from mask2dit.evaluation.prompt_sets import PromptSetItem
    from mask2dit.storyboard import Storyboard

COLUMNS = ("visual-consistency", "semantic-consistency", "sequence-consistency", "fvd")
PUBLISHED = {
    "CogVideoX": (55.01, 22.64, 38.82, 835.0),
    "StoryDiffusion + CogVideoX-I2V": (69.06, 25.59, 47.32, 906.0),
    "TALC": (67.47, 20.25, 43.86, 1517.0),
    "VideoStudio": (61.28, 22.64, 41.96, 1214.0),
    "Mask²DiT": (70.95, 23.94, 47.45, 720.0),
    "Mask²DiT, extending": (75.33, 24.29, 49.81, None),
}
"""Table 1 of Mask²DiT (CVPR 2025): visual, semantic, sequence consistency in %, FVD; of 50 storyboards of their own."""


@dataclass(frozen=True, slots=True)
class Way:
    """One way to make the films. `first`: so many scenes are made before the rest, which is then made with them known."""

    name: str
    plan: str | None = None
    window: int | None = None
    first: int | None = None
    is_baseline: bool = False


WAYS = (
    Way("scene-by-scene", window=1, is_baseline=True),
    Way("full", plan="full"),
    Way("symmetric", plan="symmetric"),
    Way("extension", plan="symmetric", first=2),
)


@dataclass(frozen=True, slots=True)
class Making:
    """The model and the numbers that all films are made with; `baseline` is the model of the scenes made by themselves."""

    model: str | None
    baseline: str | None
    revision: str | None
    steps: int | None
    seed: int | None
    limit: int | None
    offline: bool
    memory: str | None
    device: str | None
    dtype: str | None

    def refuse(self) -> None:
        """Raise InputError if anything was said of the making of films, where none are made."""
        said = {"model": self.model, "baseline-model": self.baseline, "revision": self.revision, "steps": self.steps}
        said |= {"seed": self.seed, "limit": self.limit, "memory": self.memory, "dtype": self.dtype}
        for name, value in said.items():
            if value is not None:
                raise InputError(f"--{name}: got {value}, and no films are made, expected --reproduce-paper with it; leave it out")

    def of(self, way: Way) -> dict[str, Any]:
        """What `batch` takes."""
        model = self.baseline if way.is_baseline and self.baseline else self.model
        common = {"steps": self.steps, "seed": self.seed or 0, "offline": self.offline, "memory": self.memory, "device": self.device}
        own = {"model": model, "revision": self.revision if model == self.model else None, "plan": way.plan, "window": way.window}
        return {**common, **own, "dtype": self.dtype}


def make_all(items: "Sequence[PromptSetItem]", making: Making, output: Path) -> dict[str, Path]:
    """Make the storyboards' films in every way; returns the folder of each way. Films that failed are named by their batch."""
    from mask2dit.production.directing import open_film

    written = {item.name: item.storyboard.shown() for item in items}
    typer.echo(_estimate(written, making))
    folders = {}
    for way in WAYS:
        folder = folders[way.name] = output / "films" / way.name
        typer.echo(f"\n{way.name}: {len(written)} films")
        if way.first is not None:
            short = {name: board for name, board in written.items() if not _holds(folder / name, way.first, open_film)}
            _batch(
                {name: _beginning(board, way.first) for name, board in short.items()}, output / f"first-{way.first}", making, way, folder
            )
        _batch(written, output / "storyboards", making, way, folder)
    return folders


def _beginning(board: "Storyboard", count: int) -> "Storyboard":
    return board.with_scenes(board.scenes[:count])


def _holds(folder: Path, count: int, open_film: Any) -> bool:
    """Whether a film of at least so many scenes is there."""
    if not (folder / "run.json").is_file():
        return False
    record = open_film(folder).record
    made = [scene for scene in record.scenes if scene.take is not None]
    return len(made) > count or (len(made) == count and record.status == "complete")


def _batch(boards: "Mapping[str, Storyboard]", place: Path, making: Making, way: Way, folder: Path) -> None:
    if not boards:
        return
    for name, board in boards.items():
        board.write(place / f"{name}.yaml")
    try:
        batch([place / f"{name}.yaml" for name in boards], output=folder, **making.of(way))
    except typer.Exit as end:
        if end.exit_code not in (0, 1):  # 1: some films failed, and were named
            raise


def _estimate(boards: "Mapping[str, Storyboard]", making: Making) -> str:
    """How long all films will take here, from one film of each way."""
    from mask2dit.amounts import duration
    from mask2dit.production import FilmSettings
    from mask2dit.production.forecast import Room, forecast
    from mask2dit.production.subject import find_subject

    device, dtype = options.checked_machine(making.memory, "plain", making.device, making.dtype)
    room = Room(*options.memory_room(making.memory, device), "plain", making.memory is not None)
    seconds = 0.0
    board = max(boards.values(), key=lambda each: len(each.scenes))
    for way in WAYS:
        asked = making.of(way)
        subject = find_subject(asked["model"], revision=asked["revision"], offline=making.offline)
        settings = FilmSettings(making.seed or 0, num_inference_steps=making.steps, window=way.window)
        parts = [board] if way.first is None else [board, _beginning(board, way.first)]
        seconds += sum(sum(forecast(part, subject, settings, room, device=device, dtype=dtype).stage_seconds.values()) for part in parts)
    films = len(WAYS) * len(boards)
    return f"{films} films: about {duration(seconds * len(boards))} on this {device.type}; the same command goes on where it was stopped"


def beside_published(results: "Results") -> list[str]:
    """The paper's table with our rows below the published ones. An FVD stands there only if it is of I3D's features, as theirs."""
    about = {each.name: each for each in results.metrics if each.name in COLUMNS}
    if "fvd" in about and not about["fvd"].instrument.startswith("i3d"):
        del about["fvd"]
    rows: dict[str, tuple[float | None, ...]] = {f"published: {name}": row for name, row in PUBLISHED.items()}
    for group in results.groups:
        numbers = {name: group.values[name].value for name in about}
        rows[f"here: {group.name}"] = tuple(None if (value := numbers.get(name)) is None else value * about[name].scale for name in COLUMNS)
    width = max(map(len, rows)) + 2
    lines = ["".join([" " * width, *(f"{heading:>10}" for heading in ("visual", "semantic", "sequence", "FVD"))])]
    lines += [f"{name:{width}}" + "".join(f"{_cell(value):>10}" for value in row) for name, row in rows.items()]
    instruments = sorted({each.instrument for each in about.values() if each.instrument})
    lines.append(f"here: {'; '.join(instruments) or 'nothing was measured'}. Their storyboards and reference videos are not public.")
    return lines


def _cell(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}" if value < 500 else f"{value:.0f}"
