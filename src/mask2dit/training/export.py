"""What a finished run gives away: a model folder, or adapters in diffusers' format. Averaged weights, where there are any."""

import shutil
from pathlib import Path
from typing import Any

from torch import nn

from mask2dit.pipeline import Mask2DiTPipeline
from mask2dit.training.checkpoints import RunFolder
from mask2dit.training.config import DiffusionRecipe, VideoConfig
from mask2dit.training.model import DTYPES, export_model, put_in_place
from mask2dit.training.parallel import whole, whole_state
from mask2dit.training.state import EMA


def export(
    recipe: DiffusionRecipe, start: Path, modules: dict[str, nn.Module], ema: EMA | None, video: VideoConfig, folder: RunFolder
) -> Path:
    """Write `model/` (or `lora/`) of the run. Every device must call it: sharded weights are gathered, and the main one writes."""
    target = folder.path / ("model" if recipe.lora is None else "lora")
    if ema is not None:
        ema.swap()
    try:
        if recipe.lora is not None:
            _export_lora(modules["transformer"], target, folder.is_main)
        else:
            states = {name: whole_state(module) for name, module in modules.items()}
            if folder.is_main:
                export_model(start, states, target, DTYPES[recipe.export_dtype], own_values(recipe, video))
    finally:
        if ema is not None:
            ema.swap()
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


def _export_lora(transformer: Any, target: Path, is_main: bool) -> None:
    from peft import get_peft_model_state_dict

    layers = {key: whole(value).cpu().float().contiguous() for key, value in get_peft_model_state_dict(transformer).items()}
    if not is_main:
        return
    adapter = next(iter(transformer.peft_config.values()))
    aside = target.with_name(target.name + ".part")
    shutil.rmtree(aside, ignore_errors=True)
    Mask2DiTPipeline.save_lora_weights(
        aside, transformer_lora_layers=layers, transformer_lora_adapter_metadata=adapter.to_dict() if adapter is not None else None
    )
    put_in_place(aside, target)
