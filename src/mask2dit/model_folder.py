"""A model folder in diffusers' layout: what must be in it, and what can be read from it without loading weights.

Owns the check that a folder holds exactly the tensors that its configurations ask for: a missing, unknown or mis-shaped tensor is an
error with one line, never a silently random weight. Only headers are read, so the check of 20 GB takes a moment.
"""

import hashlib
import inspect
import json
import struct
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKLCogVideoX

from mask2dit.errors import ModelError, one_line
from mask2dit.film_request import ModelValues
from mask2dit.pipeline import Mask2DiTPipeline
from mask2dit.transformer import Mask2DiTTransformer3DModel
from mask2dit.video_shape import Compression

CLASSES = {
    "transformer": ("Mask2DiTTransformer3DModel", "CogVideoXTransformer3DModel"),
    "vae": ("AutoencoderKLCogVideoX",),
    "scheduler": ("CogVideoXDDIMScheduler", "CogVideoXDPMScheduler"),
    "text_encoder": ("T5EncoderModel",),
}
SINGLE_SCENE = ("cogvideox-2b", "cogvideox-5b")  # published text-to-video weights that have seen one scene at a time
POSITIVE = frozenset(  # numbers of a configuration that must be above 0
    {"num_attention_heads", "attention_head_dim", "num_layers", "patch_size", "max_text_seq_length", "text_embed_dim", "norm_eps"}
    | {"sample_height", "sample_width", "sample_frames", "spatial_interpolation_scale", "temporal_interpolation_scale"}
    | {"temporal_compression_ratio", "scaling_factor", "latent_channels", "layers_per_block", "d_model"}
)
NETWORKS: dict[str, Any] = {"transformer": Mask2DiTTransformer3DModel, "vae": AutoencoderKLCogVideoX, "text_encoder": None}  # None: T5
TIED_NAMES = {"encoder.embed_tokens.weight": "shared.weight"}  # T5's token table has two names; a file holds one or both
FIRST_PROJECTION = "patch_embed.proj.weight"
DTYPES = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}  # safetensors' names
VALUE_BYTES = 64  # of each tensor in a digest: enough to tell two trainings apart


def check_model_folder(folder: Path, *, inp: bool = False) -> None:
    """Raise ModelError, in one line, unless `folder` holds all components with exactly the tensors of their configurations.

    inp: the transformer may be a CogVideoX-Fun InP one, with more input channels than the latents have.
    """
    index = read_index(folder)
    load_values(folder)
    for name in NETWORKS:
        if name in index:
            check_component(folder, name, inp=inp and name == "transformer")
    _check_fit(folder, inp)


def _check_fit(folder: Path, inp: bool) -> None:
    """Components can each be sound and yet belong to different models."""
    transformer, vae = load_config(folder, "transformer", inp=inp), load_config(folder, "vae")
    if transformer["in_channels"] != vae["latent_channels"]:
        raise ModelError(
            f"{folder}: the transformer reads {transformer['in_channels']} latent channels and the vae makes {vae['latent_channels']}, "
            "expected the same"
        )
    width = (
        load_config(folder, "text_encoder").get("d_model", 512) if "text_encoder" in read_index(folder) else transformer["text_embed_dim"]
    )
    if transformer["text_embed_dim"] != width:
        raise ModelError(
            f"{folder}: the transformer reads text of width {transformer['text_embed_dim']} and the text encoder makes {width}, "
            "expected the same"
        )


def check_component(folder: Path, name: str, *, inp: bool = False) -> None:
    """Compare the tensors of a network with what its configuration asks for; ModelError names the first that differ."""
    path, network = folder / name, build_network(folder, name, inp=inp)
    found, expected = stored_shapes(folder, name), _untied({key: tuple(value.shape) for key, value in network.state_dict().items()})
    if inp and FIRST_PROJECTION in found:
        width, _, *patch = found[FIRST_PROJECTION]
        found[FIRST_PROJECTION] = (width, network.config.in_channels, *patch)
    missing = sorted(expected.keys() - found.keys())
    extra = sorted(found.keys() - expected.keys())
    wrong = sorted(key for key in expected.keys() & found.keys() if expected[key] != found[key])
    if missing:
        raise ModelError(f"{path}: {_some(missing)} missing, expected {len(expected)} tensors as in config.json; fetch the model again")
    if extra:
        raise ModelError(f"{path}: {_some(extra)} not known to this model; check that config.json belongs to these weights")
    if wrong:
        key = wrong[0]
        raise ModelError(
            f"{path}: tensor {key} has shape {found[key]}, expected {expected[key]}; check that config.json belongs to these weights"
        )


def load_config(folder: Path, name: str, *, inp: bool = False) -> dict[str, Any]:
    """A network's configuration, with its class' defaults, without diffusers' own notes. inp: with the latents' input channels alone."""
    path = folder / name / "config.json"
    config = {key: value for key, value in _read_json(path).items() if not key.startswith("_")}
    if NETWORKS.get(name) is not None:
        config = _defaults(NETWORKS[name]) | config
    for key in POSITIVE & config.keys():
        value = config[key]
        if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
            raise ModelError(f"{path}: {key} is {value!r}, expected a number above 0; mend that file or fetch the model again")
    if inp:
        if config["in_channels"] == config["out_channels"]:
            raise ModelError(f"{folder}: has no input channels beside the latents' {config['in_channels']}; leave out --inp")
        config["in_channels"] = config["out_channels"]
    return config


def _defaults(cls: type[Any]) -> dict[str, Any]:
    parameters = inspect.signature(cls.__init__).parameters.items()
    return {name: parameter.default for name, parameter in parameters if parameter.default is not inspect.Parameter.empty}


def build_network(folder: Path, name: str, *, inp: bool = False) -> Any:
    """A network of the folder in evaluation mode on the meta device, float32; ModelError where its configuration cannot be."""
    config = load_config(folder, name, inp=inp)
    try:
        with torch.device("meta"):
            if name == "text_encoder":
                from transformers import T5Config, T5EncoderModel

                return T5EncoderModel(T5Config.from_dict(config)).eval()
            return NETWORKS[name].from_config(config).eval()
    except Exception as error:  # whatever a library says of a value that it did not expect
        raise ModelError(f"{folder / name / 'config.json'}: {one_line(error, 300)}") from error


def default_values() -> dict[str, Any]:
    """What a model is taken to be where its folder does not say: the values of the released weights."""
    return _defaults(Mask2DiTPipeline)


def load_values(folder: Path) -> dict[str, Any]:
    """A model's own values, such as height and window, with the defaults that released folders rely on; ModelError for nonsense."""
    path, defaults = folder / "model_index.json", default_values()
    saved = _read_json(path)
    if any(part.lower().split("--")[-1] in SINGLE_SCENE for part in folder.parts):  # the Hub's cache has owner--name
        defaults["window"] = 1
    values = {name: saved.get(name, default) for name, default in defaults.items()}
    for name, default in defaults.items():
        value, kinds = values[name], (int, float) if isinstance(default, float) else (type(default),)
        sound = isinstance(value, kinds) and not isinstance(value, bool) and (isinstance(value, str) or value >= (name != "guidance_scale"))
        if not sound or (name == "known_sets" and value not in ("any", "last")):
            raise ModelError(f"{path}: {name} is {value!r}, expected something like {default!r}; mend that file or fetch the model again")
    return values


def model_values(folder: Path) -> ModelValues:
    """The same, with the compression that follows from the components."""
    vae, transformer = load_config(folder, "vae"), load_config(folder, "transformer")
    compression = Compression(
        spatial=2 ** (len(vae["block_out_channels"]) - 1),
        temporal=int(vae["temporal_compression_ratio"]),
        patch=transformer["patch_size"],
    )
    return ModelValues(**load_values(folder), compression=compression)


def stamp_of(folder: Path) -> str:
    """A short name for a folder's files by their sizes and times: as long as it is the same, nobody has changed them."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    facts = [(path.relative_to(folder).as_posix(), (found := path.stat()).st_size, found.st_mtime_ns) for path in files]
    return hashlib.sha256(repr(facts).encode()).hexdigest()[:16]


def stored_shapes(folder: Path, name: str) -> dict[str, tuple[int, ...]]:
    """Shapes of all tensors of a network, by name."""
    return _untied({key: tuple(entry["shape"]) for file in weight_files(folder, name) for key, entry in read_header(file).items()})


def stored_dtype(folder: Path, name: str) -> torch.dtype:
    """The number format of most of a network's weights."""
    totals: dict[str, int] = {}
    for file in weight_files(folder, name):
        for entry in read_header(file).values():
            start, stop = entry["data_offsets"]
            totals[entry["dtype"]] = totals.get(entry["dtype"], 0) + stop - start
    most = max(totals, key=totals.__getitem__)
    if most not in DTYPES:
        raise ModelError(f"{folder / name}: weights are {most}, expected {', '.join(DTYPES)}; use weights that are not quantized")
    return DTYPES[most]


def digest_of_text(folder: Path) -> str:
    """A short name for what makes rows of captions: the tokenizer's files, and a few values of every tensor of the text encoder."""
    total = hashlib.sha256()
    for path in sorted(path for path in (folder / "tokenizer").iterdir() if path.is_file()):
        total.update(path.name.encode() + hashlib.sha256(path.read_bytes()).digest())
    total.update((folder / "text_encoder" / "config.json").read_bytes())
    for file in weight_files(folder, "text_encoder"):
        with file.open("rb") as stream:
            (length,) = struct.unpack("<Q", stream.read(8))
            for key, entry in sorted(json.loads(stream.read(length)).items()):
                if key != "__metadata__":
                    start, stop = entry["data_offsets"]
                    stream.seek(8 + length + start)
                    total.update(f"{key} {entry['shape']} {entry['dtype']}".encode() + stream.read(min(stop - start, VALUE_BYTES)))
    return total.hexdigest()[:16]


def read_header(path: Path) -> dict[str, Any]:
    """The tensors of a safetensors file, {name: {dtype, shape, data_offsets}}; ModelError if it is damaged."""
    try:
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            if length > path.stat().st_size:
                raise ValueError("the header is longer than the file")
            header = {key: entry for key, entry in json.loads(file.read(length)).items() if key != "__metadata__"}
        end = max((entry["data_offsets"][1] for entry in header.values()), default=0)
        if 8 + length + end != path.stat().st_size:
            raise ValueError(f"{path.stat().st_size} bytes, expected {8 + length + end}")
        if not all(isinstance(entry["dtype"], str) and isinstance(entry["shape"], list) for entry in header.values()):
            raise ValueError("a tensor has no type or shape")
    except (OSError, ValueError, struct.error, KeyError, TypeError, AttributeError, IndexError) as error:
        raise ModelError(f"{path}: damaged or cut short ({one_line(error, 300)}); fetch the model again") from None
    return header


def read_index(folder: Path) -> dict[str, str]:
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
                raise ModelError(f"{folder}: component {name} is missing, expected a folder of that name; fetch the model again")
    if ("tokenizer" in index) != ("text_encoder" in index):
        raise ModelError(f"{folder}: got a tokenizer or a text encoder alone, expected both or neither; fetch the model again")
    for name, classes in CLASSES.items():
        if name in index and index[name] not in classes:
            raise ModelError(f"{folder}: the {name} is {index[name]}, expected {' or '.join(classes)}; use a model of that family")
    return index


def weight_files(folder: Path, name: str) -> list[Path]:
    """The weight files of a network: those that its index names, or the single one. An index must agree with its files."""
    path, stem = folder / name, "model" if name == "text_encoder" else "diffusion_pytorch_model"
    single, index = path / f"{stem}.safetensors", path / f"{stem}.safetensors.index.json"
    if not index.exists():
        if single.exists():
            return [single]
        found = sorted(file.name for file in path.iterdir() if file.suffix in (".safetensors", ".bin", ".pt", ".ckpt"))
        if found and not any(file.endswith(".safetensors") for file in found):
            raise ModelError(
                f"{path}: the weights are pickled ({found[0]}), which can run code when it is opened, expected {single.name}; "
                "load them once in a place that you trust and save them with safe_serialization=True"
            )
        got = f"got {', '.join(found[:3])}" if found else "got no .safetensors file"
        raise ModelError(f"{path}: {got}, expected {single.name}, or shards with {index.name}; fetch the model again")
    if single.exists():
        raise ModelError(f"{path}: got both {single.name} and {index.name}, expected one of them; take away what is not meant")
    named = _read_json(index).get("weight_map")
    if not isinstance(named, dict) or not named or not all(isinstance(file, str) and "/" not in file for file in named.values()):
        raise ModelError(f"{index}: got no weight_map, expected the file of every tensor; fetch the model again")
    files = [path / file for file in sorted(set(named.values()))]
    absent = [file.name for file in files if not file.exists()]
    if absent:
        more = f" and {len(absent) - 1} more" if len(absent) > 1 else ""
        raise ModelError(f"{path}: {absent[0]}{more} of {len(files)} shards missing, which {index.name} names; fetch the model again")
    held = {key: file.name for file in files for key in read_header(file)}
    if held != named:
        key = min(key for key in held.keys() | named.keys() if held.get(key) != named.get(key))
        raise ModelError(
            f"{index}: says that tensor {key} is in {named.get(key, 'no shard')}, and it is in {held.get(key, 'none')}, expected an index "
            "that belongs to these shards; fetch the model again"
        )
    return files


def _untied(shapes: dict[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
    return {TIED_NAMES.get(key, key): shape for key, shape in shapes.items()}


def _read_json(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ModelError(f"{path}: no such file, expected it in a diffusers model folder; check the folder") from None
    except (OSError, ValueError) as error:
        raise ModelError(f"{path}: cannot be read as JSON ({one_line(error, 300)}); fetch the model again") from None
    if not isinstance(values, dict):
        raise ModelError(f"{path}: got a {type(values).__name__}, expected a JSON object; fetch the model again")
    return values


def _some(keys: list[str]) -> str:
    shown = ", ".join(keys[:2])
    return (
        f"tensors {shown} and {len(keys) - 2} more are"
        if len(keys) > 2
        else f"tensor{'s' if len(keys) > 1 else ''} {shown} {'are' if len(keys) > 1 else 'is'}"
    )
