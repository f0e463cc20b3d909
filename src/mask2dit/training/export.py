"""What a finished run gives away: a model folder, or adapters in diffusers' format. Averaged weights, where there are any."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from mask2dit.pipeline import Mask2DiTPipeline
from mask2dit.training.checkpoints import RunFolder
from mask2dit.training.config import DiffusionRecipe, VideoConfig
from mask2dit.training.model import DTYPES, export_model, peft_config, put_in_place


def export(recipe: DiffusionRecipe, start: Path, states: Mapping[str, Mapping[str, Tensor]], video: VideoConfig, folder: RunFolder) -> Path:
    """Write `model/` (or `lora/`) of the run from whole state dicts by component; every device calls it, and the main one writes."""
    target = folder.path / ("model" if recipe.lora is None else "lora")
    if folder.is_main and recipe.lora is None:
        export_model(start, states, target, DTYPES[recipe.export_dtype], own_values(recipe, video))
    elif folder.is_main:
        _export_lora(recipe, states["transformer"], target)
    folder.wait()
    return target


def own_values(recipe: DiffusionRecipe, video: VideoConfig) -> dict[str, Any]:
    """What `model_index.json` says of the trained model."""
    values: dict[str, Any] = {"height": video.height, "width": video.width, "num_frames": video.num_frames, "fps": round(video.fps)}
    if recipe.num_scenes > 1:
        values["window"] = recipe.num_scenes
    if recipe.known_sets.get("random", 0) > 0:
        values["known_sets"] = "any"
    return values


def _export_lora(recipe: DiffusionRecipe, state: Mapping[str, Tensor], target: Path) -> None:
    if recipe.lora is None:
        raise AssertionError("only adapters are written here")
    dtype = DTYPES[recipe.export_dtype]
    layers = {key.replace(".default.", "."): value.to(dtype).contiguous() for key, value in state.items() if ".lora_" in key}
    aside = target.with_name(target.name + ".part")
    shutil.rmtree(aside, ignore_errors=True)
    Mask2DiTPipeline.save_lora_weights(
        aside, transformer_lora_layers=layers, transformer_lora_adapter_metadata=peft_config(recipe.lora).to_dict()
    )
    put_in_place(aside, target)
