"""`load_pipeline`: the built-in model, a model folder in diffusers' layout, or a Hub id.

What must be in a folder is model_folder's, downloads are hub's, and what a memory mode means is memory's; here they become a pipeline.
"""

import os
import shutil
import tempfile
import warnings
import weakref
from collections.abc import Sequence
from functools import partial
from importlib.resources import files
from pathlib import Path
from typing import Any

import psutil
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from mask2dit.compiling import compile_blocks
from mask2dit.errors import InputError, ModelError, one_line
from mask2dit.film_request import FilmRequest, check_steps, resolve_request
from mask2dit.hub import LORA_FILE, fetch_lora, fetch_model, is_hub_id
from mask2dit.latents import use_tiles
from mask2dit.memory import NOTHING, Choice, Kept, MemoryMode, Needs, choose, count_needs, gib, parse_bytes
from mask2dit.model_folder import (
    FIRST_PROJECTION,
    NETWORKS,
    build_network,
    check_model_folder,
    digest_of_text,
    load_config,
    load_values,
    model_values,
    read_header,
    read_index,
    stored_dtype,
    weight_files,
)
from mask2dit.pipeline import Mask2DiTPipeline
from mask2dit.storyboard import Storyboard
from mask2dit.text import PromptCache, TextSide, check_captions
from mask2dit.transformer import Mask2DiTTransformer3DModel
from mask2dit.video_shape import VideoShape
from mask2dit.weight_formats import apply_weights

OFFLOAD_FOLDER = "mask2dit-offload-"
LARGE_MODEL = 10**9  # bytes of the transformer's weights: above, they are computed in the format that they are stored in
LOADING_ERRORS = (OSError, ValueError, KeyError, TypeError, ImportError, RuntimeError, SafetensorError)


def builtin_model() -> Path:
    """The folder of the model that ships in the package."""
    return Path(str(files("mask2dit") / "weights" / "playhouse"))


def builtin_adapters(plan: str | None) -> Path | None:
    """The folder of the adapters that the built-in model needs for a plan; None where it needs none."""
    return Path(str(files("mask2dit") / "weights" / f"playhouse-{plan}")) if plan == "context-blind" else None


def find_model(model: str | Path | None, *, revision: str | None = None, offline: bool = False) -> Path:
    """The folder of a model: None for the built-in one, a folder, or a Hub id, which is downloaded where it is not in the cache.

    revision: a branch, tag or commit of a Hub id. offline: nothing is contacted. Warns of the licence of weights from the Hub.
    Raises ModelError.
    """
    hub_id = str(model) if isinstance(model, str) and is_hub_id(model) and not Path(model).exists() else None
    if hub_id is None and revision is not None:
        raise ModelError(f"revision: got {revision!r} with {model or 'the built-in model'}, expected it with a Hub id only; leave it out")
    if model is None:
        return builtin_model()
    if hub_id is None:
        return Path(model)
    try:
        download = fetch_model(hub_id, revision=revision, offline=offline)
    except ModelError as error:
        raise ModelError(f"{error} (there is no folder of that name, either)") from error
    warnings.warn(f"{hub_id} at {download.revision[:12]}; licence of these weights: {download.licence}", stacklevel=2)
    return download.folder


def load_pipeline(
    model: str | Path | None = None,
    *,
    plan: str | None = None,
    attention: str = "auto",
    compile: bool = False,
    lora: str | Path | None = None,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
    memory: MemoryMode | Choice | str | None = None,
    prompt_cache: str | Path | None = None,
    captions: Sequence[str] | None = None,
    revision: str | None = None,
    offline: bool = False,
    inp: bool = False,
) -> Mask2DiTPipeline:
    """Load a pipeline: None for the built-in model, else a model folder in diffusers' layout, or a Hub id such as "qth/Mask2DiT".

    plan: an attention plan's name, None for the model's own; for context-blind, the built-in model has adapters, taken unless there are
    others. attention: how it is computed, which changes nothing but speed: "auto",
    "grouped", "merged" or "flex". compile: compile the transformer's blocks (with torch.compile, at the first step of every new layout of
    scenes), exact but for rounding. lora: adapters in diffusers' format: a folder, a file, or a Hub id. device:
    None leaves it on the CPU. dtype: None is the weights' own format for large models, float32 for small ones. memory: a limit such as
    "12GiB" on the device, for the model's own window and size, or a MemoryMode; None keeps everything on the device. captions: the film's,
    with its negative prompts; where the mode lets the text encoder go, they are encoded before anything else is loaded, and without them
    it is loaded beside the other networks when a caption needs it. prompt_cache: a folder for encoded captions. revision, offline: see
    `find_model`. inp: take a CogVideoX-Fun InP checkpoint, cut to the latents' channels.
    Raises ModelError or InputError, in one line, where the folder is missing or is not what it should be, or does not fit.
    """
    folder = find_model(model, revision=revision, offline=offline)
    check_model_folder(folder, inp=inp)
    place, dtype = torch.device(device or "cpu"), dtype or own_dtype(folder)
    if isinstance(memory, str):
        memory = choose_memory(folder, parse_bytes(memory), device=place, dtype=dtype, inp=inp, ahead=captions is not None)
    mode = memory.mode if isinstance(memory, Choice) else memory or MemoryMode()
    if compile and mode.weights == "fp8-storage":
        raise InputError("compile: got weights fp8-storage, which become others while a block computes, expected plain, bf16, fp8 or int8")
    options: dict[str, Any] = {"text_encoder": None} if mode.text_first else {}
    options["window"] = load_values(folder)["window"]  # published single-scene folders do not say it themselves
    side = _text_side(folder, mode, place, dtype, prompt_cache)
    if side is not None and mode.text_first and captions:
        length = load_config(folder, "transformer")["max_text_seq_length"]
        side.rows(captions, load_component(folder, "tokenizer"), None, length, place)
    pipeline = _load_networks(folder, dtype, inp=inp, **options)
    if plan is not None:
        pipeline.transformer.set_attention_plan(plan)
    if lora is None and folder == builtin_model():
        lora = builtin_adapters(plan)
    if lora is not None:
        _load_lora(pipeline, lora, offline=offline)
    pipeline.memory = memory if isinstance(memory, Choice) else None
    pipeline.text_side = side
    pipeline.set_progress_bar_config(disable=True)
    pipeline.transformer.set_attention(attention, place)
    if compile:
        compile_blocks(pipeline.transformer, place, "leave it out")
    arrange(pipeline, mode, place)
    return pipeline


def own_dtype(folder: Path) -> torch.dtype:
    """What a folder's transformer is computed in when nobody says: float32, and the stored format where that would double its size."""
    return stored_dtype(folder, "transformer") if is_large(folder) else torch.float32


def is_large(folder: Path) -> bool:
    """Whether it matters how the weights are kept."""
    return sum(file.stat().st_size for file in weight_files(folder, "transformer")) > LARGE_MODEL


def choose_memory(
    folder: Path,
    limit_bytes: int | None,
    *,
    device: torch.device,
    dtype: torch.dtype,
    shape: VideoShape | None = None,
    kept: Kept = NOTHING,
    inp: bool = False,
    **options: Any,
) -> Choice:
    """The memory mode for a film of `shape` (None: the model's window at its own size) in `limit_bytes` on `device`; see `choose`."""
    values = model_values(folder)
    shape = shape or VideoShape(values.height, values.width, (values.num_frames,) * values.window, values.compression)
    needs = folder_needs(folder, shape, dtype, device, kept, inp=inp)
    return choose(needs, device.type, limit_bytes, asked=shape.words, **options)


def check_film(folder: Path, storyboard: Storyboard, **asked: Any) -> FilmRequest:
    """`Mask2DiTPipeline.check` for a folder that `check_model_folder` has passed: what a film will be, before any weights are loaded.

    asked: height, width, num_frames, num_inference_steps, guidance_scale, negative_prompt, shortcuts; None or left out is the model's own.
    """
    names = ("height", "width", "num_frames", "num_inference_steps", "guidance_scale", "negative_prompt", "shortcuts")
    request = resolve_request(storyboard, model_values(folder), **{name: asked.get(name) for name in names}, num_scenes=None)
    check_steps(request, load_component(folder, "scheduler"))
    if "tokenizer" in read_index(folder):
        length = load_config(folder, "transformer")["max_text_seq_length"]
        check_captions(request.captions, request.negative_prompts, load_component(folder, "tokenizer"), length)
    return request


def folder_needs(
    folder: Path, shape: VideoShape, dtype: torch.dtype, device: torch.device, kept: Kept = NOTHING, *, inp: bool = False
) -> Needs:
    """What a film of `shape` takes on `device` with the model of a folder that `check_model_folder` has passed. No weights are read."""
    text = build_network(folder, "text_encoder") if "text_encoder" in read_index(folder) else None
    return count_needs(build_network(folder, "transformer", inp=inp), build_network(folder, "vae"), text, shape, dtype, device.type, kept)


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
                return getattr(diffusers, read_index(folder)[name]).from_pretrained(path)
            case "text_encoder":
                return transformers.T5EncoderModel.from_pretrained(path, dtype=dtype, use_safetensors=True).eval()
        return NETWORKS[name].from_pretrained(path, torch_dtype=dtype, use_safetensors=True).eval()
    except LOADING_ERRORS as error:
        raise ModelError(f"{path}: cannot be loaded: {one_line(error, 300)}") from error


def _load_networks(folder: Path, dtype: torch.dtype, *, inp: bool, **options: Any) -> Mask2DiTPipeline:
    """Every component by its own class, whatever the index calls it."""
    names = [name for name in read_index(folder) if name not in ("transformer", *options)]
    parts = {name: load_component(folder, name, dtype) for name in names}
    try:
        if inp:
            transformer = _load_inp(folder, dtype)
        else:
            transformer = Mask2DiTTransformer3DModel.from_pretrained(folder / "transformer", dtype=dtype, use_safetensors=True)
        pipeline: Mask2DiTPipeline = Mask2DiTPipeline.from_pretrained(folder, transformer=transformer, **parts, **options)
    except LOADING_ERRORS as error:
        raise ModelError(f"{folder}: cannot be loaded as a model folder: {one_line(error, 300)}") from error
    return pipeline


def _load_inp(folder: Path, dtype: torch.dtype) -> Mask2DiTTransformer3DModel:
    """The transformer without the input channels of mask and masked video, which come after those of the latents."""
    transformer: Mask2DiTTransformer3DModel = build_network(folder, "transformer", inp=True)
    tensors: dict[str, torch.Tensor] = {}
    for file in weight_files(folder, "transformer"):
        tensors |= {key: value.to(dtype) for key, value in load_file(file).items()}
    tensors[FIRST_PROJECTION] = tensors[FIRST_PROJECTION][:, : transformer.config.in_channels].clone()
    transformer.load_state_dict(tensors, assign=True)
    transformer.requires_grad_(True)
    return transformer


def _load_lora(pipeline: Mask2DiTPipeline, lora: str | Path, *, offline: bool) -> None:
    """Add adapters; ModelError unless every tensor of the file finds its layer."""
    path = Path(lora)
    if isinstance(lora, str) and is_hub_id(lora) and not path.exists():
        path = fetch_lora(lora, offline=offline)
    file = path / LORA_FILE if path.is_dir() else path
    if not file.is_file() or file.suffix != ".safetensors":
        raise ModelError(f"{file}: no such file, expected adapters as .safetensors, such as a folder with {LORA_FILE}; check the name")
    stored = {key for key in read_header(file) if _is_adapter(key)}
    try:
        pipeline.load_lora_weights(file.parent, weight_name=file.name)
    except LOADING_ERRORS as error:
        raise ModelError(f"{file}: these adapters do not fit this model: {one_line(error, 300)}") from error
    taken = {key for key in pipeline.transformer.state_dict() if _is_adapter(key)}
    if not stored or len(stored) != len(taken):
        raise ModelError(f"{file}: got {len(stored)} adapter tensors, of which {len(taken)} fit this model; use adapters trained for it")


def _is_adapter(key: str) -> bool:
    return ".lora_A." in key or ".lora_B." in key


def _text_side(
    folder: Path, mode: MemoryMode, device: torch.device, dtype: torch.dtype, prompt_cache: str | Path | None
) -> TextSide | None:
    if "text_encoder" not in read_index(folder):
        return None
    digest = digest_of_text(folder)
    cache = PromptCache(Path(prompt_cache), f"{digest}-{str(dtype).removeprefix('torch.')}") if prompt_cache is not None else None
    return TextSide(digest, partial(_load_text_encoder, folder, mode, device, dtype) if mode.text_first else None, cache)


def _load_text_encoder(folder: Path, mode: MemoryMode, device: torch.device, dtype: torch.dtype) -> Any:
    text_encoder = load_component(folder, "text_encoder", dtype)
    if mode.offload in ("group", "disk"):
        _offload_text(text_encoder, mode, device)
        return text_encoder
    return text_encoder.to(device)


def _offload_text(text_encoder: Any, mode: MemoryMode, device: torch.device) -> None:
    """Layer by layer, for T5's blocks lie too deep for diffusers to find; one pass gains nothing from a stream."""
    from diffusers.hooks import apply_group_offloading

    text_encoder.shared = None  # the encoder's table by another name: it would be put away twice, the second time when it is gone
    options = {"offload_to_disk_path": str(_offload_folder(text_encoder))} if mode.offload == "disk" else {}
    apply_group_offloading(text_encoder, onload_device=device, offload_type="leaf_level", **options)


def arrange(pipeline: Mask2DiTPipeline, mode: MemoryMode, device: torch.device) -> None:
    """Put a pipeline's networks where the mode wants them; adapters must be there before. Once for a pipeline."""
    transformer: Any = pipeline.transformer
    if mode.weights != "plain":
        if getattr(transformer, "peft_config", None):  # adapters go into the weights before those lose bits
            pipeline.fuse_lora()
            pipeline.unload_lora_weights()
        apply_weights(transformer, mode.weights, device)
    if mode.tiled_vae:
        use_tiles(pipeline.vae)
    if mode.offload in ("none", "model"):
        if mode.offload == "none":
            pipeline.to(device)
        else:
            pipeline.enable_model_cpu_offload(device=device)
        return
    if mode.offload == "disk":
        pipeline.weights_digest = pipeline.fingerprint()
    pipeline.vae.to(device)
    if pipeline.text_encoder is not None:
        _offload_text(pipeline.text_encoder, mode, device)
    options: dict[str, Any] = {"offload_to_disk_path": str(_offload_folder(transformer))} if mode.offload == "disk" else {}
    transformer.enable_group_offload(
        onload_device=device, offload_type="block_level", num_blocks_per_group=1, use_stream=device.type == "cuda", **options
    )


def _offload_folder(network: Any) -> Path:
    """A new folder for a network's weights, gone when the network or this process is; those of processes that were killed go, too."""
    place = Path(tempfile.gettempdir())
    for left in place.glob(f"{OFFLOAD_FOLDER}*"):
        pid = left.name.removeprefix(OFFLOAD_FOLDER).split("-")[0]
        if pid.isdecimal() and not psutil.pid_exists(int(pid)):
            shutil.rmtree(left, ignore_errors=True)
    size, free = sum(value.numel() * value.element_size() for value in network.parameters()), shutil.disk_usage(place).free
    if free < size:
        raise InputError(f"{place}: got {gib(free)} of free disk, expected {gib(size)} for what waits there; set TMPDIR, or make room")
    folder = Path(tempfile.mkdtemp(prefix=f"{OFFLOAD_FOLDER}{os.getpid()}-", dir=place))
    weakref.finalize(network, shutil.rmtree, folder, ignore_errors=True)
    return folder
