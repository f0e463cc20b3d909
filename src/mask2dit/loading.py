"""`load_pipeline`: the built-in model, or a model folder in diffusers' layout.

Owns the check that a folder holds exactly the tensors that its configurations ask for: a missing, unknown or mis-shaped tensor is an
error with one line, never a silently random weight.
"""

import inspect
import json
import struct
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKLCogVideoX
from safetensors import SafetensorError

from mask2dit.errors import ModelError, one_line
from mask2dit.pipeline import Mask2DiTPipeline
from mask2dit.transformer import Mask2DiTTransformer3DModel

TRANSFORMER_CLASSES = ("Mask2DiTTransformer3DModel", "CogVideoXTransformer3DModel")
NETWORKS: dict[str, Any] = {"transformer": Mask2DiTTransformer3DModel, "vae": AutoencoderKLCogVideoX, "text_encoder": None}  # None: T5
TIED_NAMES = {"encoder.embed_tokens.weight": "shared.weight"}  # T5's token table has two names; a file holds one or both
LORA_FILE = "pytorch_lora_weights.safetensors"  # diffusers' name
SCHEDULER_CLASSES = ("CogVideoXDDIMScheduler", "CogVideoXDPMScheduler")


def builtin_model() -> Path:
    """The folder of the model that ships in the package."""
    return Path(str(files("mask2dit") / "weights" / "playhouse"))


def load_pipeline(
    model: str | Path | None = None,
    *,
    plan: str | None = None,
    lora: str | Path | None = None,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
) -> Mask2DiTPipeline:
    """Load a pipeline: None for the built-in model, else a model folder in diffusers' layout.

    plan: an attention plan's name, None for the model's own. lora: adapters in diffusers' format, a folder or a file. device: None leaves
    it on the CPU. dtype: None is float32.
    Raises ModelError, in one line, where the folder is missing or is not what it should be.
    """
    folder = Path(model) if model is not None else builtin_model()
    check_model_folder(folder)
    # Without use_safetensors, diffusers would unpickle a .bin file that lies beside other names.
    options = {"dtype": dtype or torch.float32, "use_safetensors": True}
    try:
        transformer = Mask2DiTTransformer3DModel.from_pretrained(folder / "transformer", **options)
        pipeline: Mask2DiTPipeline = Mask2DiTPipeline.from_pretrained(folder, transformer=transformer, **options)
    except (OSError, ValueError, KeyError, TypeError, ImportError, RuntimeError) as error:
        raise ModelError(f"{folder}: cannot be loaded as a model folder: {one_line(error, 300)}") from error
    _check_fit(folder, pipeline)
    if plan is not None:
        pipeline.transformer.set_attention_plan(plan)
    if lora is not None:
        _load_lora(pipeline, Path(lora))
    pipeline.set_progress_bar_config(disable=True)
    return pipeline.to(device) if device is not None else pipeline


def _load_lora(pipeline: Mask2DiTPipeline, path: Path) -> None:
    """Add adapters; ModelError unless every tensor of the file finds its layer."""
    file = path / LORA_FILE if path.is_dir() else path
    if not file.is_file() or file.suffix != ".safetensors":
        raise ModelError(f"{file}: no such file, expected adapters as .safetensors, such as a folder with {LORA_FILE}; check the name")
    try:
        pipeline.load_lora_weights(file.parent, weight_name=file.name)
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
        raise ModelError(f"{file}: these adapters do not fit this model: {one_line(error, 300)}") from error
    stored = {key for key in _header(file) if ".lora_A." in key or ".lora_B." in key}
    taken = {key for key in pipeline.transformer.state_dict() if ".lora_A." in key or ".lora_B." in key}
    if not stored or len(stored) != len(taken):
        raise ModelError(f"{file}: got {len(stored)} adapter tensors, of which {len(taken)} fit this model; use adapters trained for it")


def check_model_folder(folder: Path) -> None:
    """Raise ModelError, in one line, unless `folder` holds all components with exactly the tensors of their configurations."""
    index = _read_index(folder)
    for name, cls in NETWORKS.items():
        if name in index:
            check_tensors(folder / name, cls)


def load_component(folder: Path, name: str, dtype: torch.dtype = torch.float32) -> Any:
    """One part of a model folder that `check_model_folder` has passed: a network in evaluation mode, the tokenizer, or the scheduler."""
    import diffusers
    import transformers

    path = folder / name
    try:
        match name:
            case "tokenizer":
                return transformers.AutoTokenizer.from_pretrained(path)
            case "scheduler":
                return getattr(diffusers, _read_index(folder)[name]).from_pretrained(path)
            case "text_encoder":
                return transformers.T5EncoderModel.from_pretrained(path, dtype=dtype, use_safetensors=True).eval()
        return NETWORKS[name].from_pretrained(path, torch_dtype=dtype, use_safetensors=True).eval()
    except (OSError, ValueError, KeyError, TypeError, ImportError, RuntimeError) as error:
        raise ModelError(f"{path}: cannot be loaded: {one_line(error, 300)}") from error


def load_config(folder: Path, name: str) -> dict[str, Any]:
    """A component's configuration, without diffusers' own notes."""
    return {key: value for key, value in _read_json(folder / name / "config.json").items() if not key.startswith("_")}


def load_values(folder: Path) -> dict[str, Any]:
    """A model's own values, such as height and window, with the defaults that released folders rely on."""
    defaults = {
        name: parameter.default
        for name, parameter in inspect.signature(Mask2DiTPipeline.__init__).parameters.items()
        if parameter.default is not inspect.Parameter.empty
    }
    saved = _read_json(folder / "model_index.json")
    return {name: saved.get(name, default) for name, default in defaults.items()}


def check_tensors(folder: Path, cls: type[Any] | None) -> None:
    """Compare the tensors of a component's folder with what its configuration asks for; ModelError names the first that differ.

    cls: a diffusers model class; None is the T5 encoder. Only headers are read.
    """
    found, expected = _untied(_stored_shapes(folder)), _untied(_expected_shapes(folder, cls))
    missing = sorted(expected.keys() - found.keys())
    extra = sorted(found.keys() - expected.keys())
    wrong = sorted(key for key in expected.keys() & found.keys() if expected[key] != found[key])
    if missing:
        raise ModelError(f"{folder}: {_some(missing)} missing, expected {len(expected)} tensors as in config.json; copy the model again")
    if extra:
        raise ModelError(f"{folder}: {_some(extra)} not known to this model; check that config.json belongs to these weights")
    if wrong:
        key = wrong[0]
        raise ModelError(
            f"{folder}: tensor {key} has shape {found[key]}, expected {expected[key]}; check that config.json belongs to these weights"
        )


def _untied(shapes: dict[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
    return {TIED_NAMES.get(key, key): shape for key, shape in shapes.items()}


def _expected_shapes(folder: Path, cls: type[Any] | None) -> dict[str, tuple[int, ...]]:
    config = _read_json(folder / "config.json")
    try:
        with torch.device("meta"):
            if cls is None:
                from transformers import T5Config, T5EncoderModel

                model = T5EncoderModel(T5Config.from_dict(config))
            else:
                known = {key: value for key, value in config.items() if not key.startswith("_")}
                model = cls.from_config(known)
    except (ValueError, TypeError, KeyError, AttributeError, RuntimeError) as error:
        raise ModelError(f"{folder / 'config.json'}: {one_line(error, 300)}") from error
    return {key: tuple(value.shape) for key, value in model.state_dict().items()}


def _check_fit(folder: Path, pipeline: Mask2DiTPipeline) -> None:
    """Components can each be sound and yet belong to different models."""
    config, channels = pipeline.transformer.config, pipeline.vae.config.latent_channels
    if config.in_channels != channels:
        raise ModelError(
            f"{folder}: the transformer reads {config.in_channels} latent channels and the vae makes {channels}, expected the same"
        )
    if pipeline.text_encoder is not None and config.text_embed_dim != pipeline.text_encoder.config.d_model:
        raise ModelError(
            f"{folder}: the transformer reads text of width {config.text_embed_dim} and the text encoder makes "
            f"{pipeline.text_encoder.config.d_model}, expected the same"
        )


def _stored_shapes(folder: Path) -> dict[str, tuple[int, ...]]:
    paths = sorted(folder.glob("*.safetensors"))
    if not paths:
        raise ModelError(f"{folder}: got no .safetensors file, expected the weights of a diffusers model folder; copy the model again")
    shapes: dict[str, tuple[int, ...]] = {}
    for path in paths:
        shapes |= _header(path)
    return shapes


def _header(path: Path) -> dict[str, tuple[int, ...]]:
    """The shapes in a safetensors file; ModelError if it is damaged."""
    try:
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            if length > path.stat().st_size:
                raise ValueError("the header is longer than the file")
            header = json.loads(file.read(length))
        end = max((entry["data_offsets"][1] for key, entry in header.items() if key != "__metadata__"), default=0)
        if 8 + length + end != path.stat().st_size:
            raise ValueError(f"{path.stat().st_size} bytes, expected {8 + length + end}")
        return {key: tuple(entry["shape"]) for key, entry in header.items() if key != "__metadata__"}
    except (OSError, ValueError, struct.error, KeyError, TypeError, AttributeError, IndexError) as error:
        raise ModelError(f"{path}: damaged or cut short ({one_line(error, 300)}); copy the model again") from None


def _read_index(folder: Path) -> dict[str, str]:
    """The components of a model folder and their classes; tokenizer and text encoder may be absent or null."""
    if not folder.is_dir():
        raise ModelError(f"{folder}: no such folder, expected a model folder with model_index.json; check --model")
    values = _read_json(folder / "model_index.json")
    index: dict[str, str] = {}
    for name in ("vae", "transformer", "scheduler", "tokenizer", "text_encoder"):
        match values.get(name):
            case None | [None, None] if name in ("tokenizer", "text_encoder"):
                continue
            case [str(), str(cls)] if (folder / name).is_dir():
                index[name] = cls
            case _:
                raise ModelError(f"{folder}: component {name} is missing, expected a folder of that name; copy the model again")
    for name, classes in (("transformer", TRANSFORMER_CLASSES), ("scheduler", SCHEDULER_CLASSES)):
        if index[name] not in classes:
            raise ModelError(f"{folder}: the {name} is {index[name]}, expected {' or '.join(classes)}; use a model of that family")
    return index


def _read_json(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ModelError(f"{path}: no such file, expected it in a diffusers model folder; check the folder") from None
    except (OSError, ValueError) as error:
        raise ModelError(f"{path}: cannot be read as JSON ({one_line(error, 300)}); copy the model again") from None
    if not isinstance(values, dict):
        raise ModelError(f"{path}: got a {type(values).__name__}, expected a JSON object; copy the model again")
    return values


def _some(keys: list[str]) -> str:
    shown = ", ".join(keys[:2])
    return (
        f"tensors {shown} and {len(keys) - 2} more are"
        if len(keys) > 2
        else f"tensor{'s' if len(keys) > 1 else ''} {shown} {'are' if len(keys) > 1 else 'is'}"
    )
