"""The folder of a run and its checkpoints: what is needed to go on as if the run had never stopped.

A checkpoint is one folder of torch's distributed format: each device writes its own share, and it can be read by another number of
devices. It is written aside and renamed, so that the newest complete one always wins. Random numbers need no state: every draw is keyed
by the sample's number (`draws`), so the finished steps are the data position too.
"""

import json
import os
import pickle
import re
import shutil
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor, nn
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.filesystem import FileSystemReader
from torch.distributed.checkpoint.state_dict_loader import load as load_checkpoint
from torch.distributed.checkpoint.state_dict_saver import save as save_checkpoint

from mask2dit.errors import InputError, OutputError, one_line
from mask2dit.files import written_aside
from mask2dit.training.config import FREE_KEYS, DiffusionRecipe
from mask2dit.training.state import EMA

PREFIX = "step-"


class RunFolder:
    """`recipe.yaml`, `checkpoints/step-000100/`, `log.jsonl`, `samples/` and the exported `model/` or `lora/` of one run."""

    def __init__(self, path: Path, recipe: DiffusionRecipe, is_main: bool, wait: Callable[[], None]) -> None:
        """is_main: this process writes what is written once. wait: returns when all processes have called it."""
        self.path, self.keep_last, self.is_main, self.wait = path, recipe.keep_last, is_main, wait
        self.checkpoints = path / "checkpoints"
        self._check_recipe(recipe)
        self.wait()
        if is_main:
            self.checkpoints.mkdir(parents=True, exist_ok=True)
            for left in self.checkpoints.glob("*.part"):
                shutil.rmtree(left, ignore_errors=True)
            with written_aside(path / "recipe.yaml") as part:
                part.write_text(yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False), encoding="utf-8")
        self.wait()

    def _check_recipe(self, recipe: DiffusionRecipe) -> None:
        note = self.path / "recipe.yaml"
        if not note.exists():
            if (self.path / "state.pt").exists():
                raise InputError(f"{self.path}: holds another run, expected an empty folder; choose another with --output")
            return
        try:
            earlier = DiffusionRecipe.model_validate(yaml.safe_load(note.read_text(encoding="utf-8"))).model_dump(mode="json")
        except (OSError, ValueError, yaml.YAMLError) as error:
            raise InputError(f"{note}: cannot be read as a recipe ({_reason(error)}); choose another folder with --output") from None
        now = recipe.model_dump(mode="json")
        changed = [key for key in now if key not in FREE_KEYS and _located(now[key]) != _located(earlier[key])]
        if changed:
            key = changed[0]
            raise InputError(
                f"{self.path}: holds a run with {key} {_short(earlier.get(key))}, got {_short(now.get(key))}; "
                "choose another folder with --output, or delete this one"
            )

    def finished_steps(self) -> int:
        """Steps of the newest complete checkpoint; 0 without one."""
        return max(self._complete(), default=0)

    def _complete(self) -> list[int]:
        """The steps of all checkpoints that have their name."""
        named = ((re.fullmatch(rf"{PREFIX}(\d+)", path.name), path) for path in self.checkpoints.glob(f"{PREFIX}*"))
        return sorted(int(name[1]) for name, path in named if name and any(path.iterdir()))

    def checkpoint(self, step: int) -> Path:
        """The folder of the checkpoint after `step` steps."""
        return self.checkpoints / f"{PREFIX}{step:06d}"

    def save(self, write: Callable[[Path], None], step: int) -> Path:
        """Let `write` fill a folder, on every device; then give it its name, and delete the oldest beyond `keep_last`.

        Raises OutputError; all other checkpoints stay as they are.
        """
        folder = self.checkpoint(step)
        aside = folder.with_name(folder.name + ".part")
        try:
            write(aside)
            self.wait()
        except (CheckpointException, OSError, RuntimeError) as error:
            shutil.rmtree(aside, ignore_errors=True)
            raise OutputError(
                f"{folder}: the checkpoint cannot be written ({_reason(error)}); earlier ones are whole; make room and start again"
            ) from None
        if self.is_main:
            shutil.rmtree(folder, ignore_errors=True)
            os.replace(aside, folder)
            for old in self._complete()[: -self.keep_last]:
                shutil.rmtree(self.checkpoint(old), ignore_errors=True)
        self.wait()
        return folder


def save_tensors(state: Mapping[str, Any], folder: Path) -> None:
    """Write tensors, whole or sharded, in torch's distributed format."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that there is only one process
        save_checkpoint(dict(state), checkpoint_id=str(folder))


def load_tensors(state: Mapping[str, Any], folder: Path) -> None:
    """Fill the tensors of `state` from a checkpoint; InputError if it belongs to another model."""
    try:
        stored = FileSystemReader(str(folder)).read_metadata().state_dict_metadata
    except (OSError, ValueError, EOFError, pickle.UnpicklingError) as error:
        raise InputError(f"{folder}: cannot be read as a checkpoint ({_reason(error)}); delete it to go on from an earlier one") from None
    shapes = {key: tuple(getattr(value, "size", ())) for key, value in stored.items()}
    wanted = {key: tuple(value.shape) for key, value in _flat(state).items()}
    wrong = sorted(key for key in shapes.keys() | wanted.keys() if shapes.get(key) != wanted.get(key))
    if wrong:
        key = wrong[0]
        raise InputError(
            f"{folder}: is of another model: {key} has shape {shapes.get(key)}, expected {wanted.get(key)}; choose another --output"
        )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            load_checkpoint(dict(state), checkpoint_id=str(folder))
    except (CheckpointException, OSError, RuntimeError) as error:
        raise InputError(f"{folder}: is damaged ({_reason(error)}); delete it to go on from an earlier one") from None


class StepLog:
    """`log.jsonl`: one line per optimiser step. After a restart, lines beyond the checkpoint are cut off, so that each step stands once."""

    def __init__(self, path: Path, finished_steps: int, is_main: bool) -> None:
        self._path, self._is_main = path, is_main
        if is_main and path.exists():
            kept = [line for line in path.read_text(encoding="utf-8").splitlines() if _step_of(line) <= finished_steps]
            with written_aside(path) as part:
                part.write_text("".join(line + "\n" for line in kept), encoding="utf-8")

    def write(self, values: Mapping[str, float]) -> None:
        """Append one step."""
        if not self._is_main:
            return
        try:
            with self._path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(dict(values)) + "\n")
        except OSError as error:
            raise OutputError(f"{self._path}: cannot be written ({_reason(error)}); make room and start again") from None


def state_of(modules: Mapping[str, nn.Module], optimizer: torch.optim.Optimizer, ema: EMA | None) -> dict[str, Any]:
    """The tensors of a run by name, to be saved, or to be filled in place: trained weights and buffers, averages, optimiser."""
    named = {f"{name}.{key}": p for name, module in modules.items() for key, p in module.named_parameters() if p.requires_grad}
    _begin_state(optimizer)
    moments = {key: optimizer.state[p] for key, p in named.items()}
    return {
        "weights": {key: p.detach() for key, p in named.items()},
        "optimizer": {f"{key}.{name}": value for key, values in moments.items() for name, value in values.items()},
        "ema": ema.shadow if ema is not None else {},
    }


def _begin_state(optimizer: torch.optim.Optimizer) -> None:
    """AdamW makes its state at the first step; a checkpoint needs somewhere to be read to."""
    for group in optimizer.param_groups:
        for p in group["params"]:
            if not optimizer.state[p]:
                optimizer.state[p] = {"step": torch.tensor(0.0), "exp_avg": torch.zeros_like(p), "exp_avg_sq": torch.zeros_like(p)}


def _flat(state: Mapping[str, Any], prefix: str = "") -> dict[str, Tensor]:
    flat: dict[str, Tensor] = {}
    for key, value in state.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return flat


def _step_of(line: str) -> int:
    try:
        return int(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return 1 << 62  # half a line


def _located(value: Any) -> Any:
    """Paths compare by the place that they name."""
    if isinstance(value, Mapping):
        return {key: _located(one) for key, one in value.items()}
    return str(Path(value).resolve()) if isinstance(value, str) and os.sep in value else value


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "…"


def _reason(error: BaseException) -> str:
    failures = list(error.failures.values()) if isinstance(error, CheckpointException) else []
    first = failures[0][0] if failures else error
    return getattr(first, "strerror", None) or one_line(first)
