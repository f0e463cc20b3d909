"""The model under training: where it starts, its adapters, and the folder that is exported.

A run starts from a model folder, always: a new model is first written as one, with an untrained transformer.
"""

import json
import os
import shutil
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKLCogVideoX, CogVideoXDDIMScheduler
from torch import Tensor

from mask2dit.errors import InputError, one_line
from mask2dit.loading import load_component
from mask2dit.model_folder import NETWORKS, check_model_folder, load_config, load_values
from mask2dit.pipeline import Mask2DiTPipeline
from mask2dit.playhouse.facts import LEVELS
from mask2dit.scene_layout import SceneLayout
from mask2dit.training.config import DiffusionRecipe, LoRAConfig, VideoConfig
from mask2dit.transformer import Mask2DiTTransformer3DModel
from mask2dit.video_shape import Compression, VideoShape

LARGEST_FILE = "12MB"  # of one safetensors file of a small model
LARGEST_FILE_OF_A_LARGE_MODEL = "5GB"
MADE_FROM = "made_from.json"
SMALL_MODEL = 100_000_000  # parameters
DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


def starting_folder(recipe: DiffusionRecipe, run: Path) -> Path:
    """The model folder that the run starts from; a new model is written to `start/` in the run's folder, once."""
    if recipe.start_from is not None:
        folder = Path(recipe.start_from)
        check_model_folder(folder)
        return folder
    folder, note = run / "start", run / "start" / MADE_FROM
    made_from = recipe.model_dump(mode="json", include={"transformer", "vae_from", "text_from", "seed", "video"})
    if folder.exists() and json.loads(note.read_text(encoding="utf-8")) != made_from:
        raise InputError(f"{folder}: is a new model of another recipe; delete it, or choose another folder with --output")
    if not folder.exists():
        _write_new_model(recipe, folder, made_from)
    return folder


def _write_new_model(recipe: DiffusionRecipe, folder: Path, made_from: dict[str, Any]) -> None:
    """An untrained transformer around the autoencoder of `vae_from` and the text encoder of `text_from`, float32."""
    from transformers import AutoTokenizer, T5EncoderModel

    if recipe.transformer is None or recipe.vae_from is None or recipe.text_from is None:
        raise AssertionError("the recipe was checked")
    for name, path in (("vae_from", Path(recipe.vae_from) / "vae"), ("text_from", Path(recipe.text_from) / "text_encoder")):
        if not (path / "config.json").is_file():
            raise InputError(f"{name}: there is no {path}, expected the folder of a finished run; train that part first")
    vae = AutoencoderKLCogVideoX.from_pretrained(Path(recipe.vae_from) / "vae")
    tokenizer = AutoTokenizer.from_pretrained(Path(recipe.text_from) / "tokenizer")
    text_encoder = T5EncoderModel.from_pretrained(Path(recipe.text_from) / "text_encoder")
    sizes, video = recipe.transformer, video_of(recipe, None)
    spatial = 2 ** (len(vae.config.block_out_channels) - 1)
    torch.manual_seed(recipe.seed)
    transformer = Mask2DiTTransformer3DModel(
        num_attention_heads=sizes.num_attention_heads,
        attention_head_dim=sizes.attention_head_dim,
        in_channels=vae.config.latent_channels,
        out_channels=vae.config.latent_channels,
        time_embed_dim=sizes.time_embed_dim,
        text_embed_dim=text_encoder.config.d_model,
        num_layers=sizes.num_layers,
        sample_width=video.width // spatial,
        sample_height=video.height // spatial,
        sample_frames=video.num_frames,
        patch_size=sizes.patch_size,
        max_text_seq_length=tokenizer.model_max_length,
    )
    _begin_as_identity(transformer)
    pipeline = Mask2DiTPipeline(
        tokenizer,
        text_encoder,
        vae.half(),
        transformer,
        _new_scheduler(),
        window=3,
        known_sets="any",
        height=video.height,
        width=video.width,
        num_frames=video.num_frames,
        fps=round(video.fps),
        num_inference_steps=20,
        guidance_scale=3.0,
        negative_prompt="",
    )
    aside = folder.with_name(folder.name + ".part")
    shutil.rmtree(aside, ignore_errors=True)
    pipeline.save_pretrained(aside)
    (aside / MADE_FROM).write_text(json.dumps(made_from, indent=1) + "\n", encoding="utf-8")
    _name_tokenizer_class(aside)
    _forget_origin(aside)
    os.replace(aside, folder)


def _begin_as_identity(transformer: Mask2DiTTransformer3DModel) -> None:
    """Every gate and the output are zero, as is usual for diffusion transformers trained from scratch."""
    blocks: Any = transformer.transformer_blocks
    layers = [norm.linear for block in blocks for norm in (block.norm1, block.norm2)]
    for layer in (*layers, transformer.norm_out.linear, transformer.proj_out):
        torch.nn.init.zeros_(layer.weight)
        torch.nn.init.zeros_(layer.bias)


def _new_scheduler() -> CogVideoXDDIMScheduler:
    return CogVideoXDDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=True,
        prediction_type="v_prediction",
        timestep_spacing="trailing",
        rescale_betas_zero_snr=True,
        snr_shift_scale=1.0,
    )


def video_of(recipe: DiffusionRecipe, start: Path | None) -> VideoConfig:
    """Size, length and rate of a scene: the recipe's, else the playhouse level's for a new model, else the model's own."""
    if recipe.video is not None:
        return recipe.video
    if start is None and recipe.data.source == "playhouse":
        world = LEVELS[recipe.data.level]
        return VideoConfig(height=world.height, width=world.width, num_frames=world.num_frames, fps=world.fps)
    if start is None:
        raise AssertionError("the recipe was checked")
    values = load_values(start)
    return VideoConfig(height=values["height"], width=values["width"], num_frames=values["num_frames"], fps=values["fps"])


def layout_of(recipe: DiffusionRecipe, start: Path, video: VideoConfig) -> SceneLayout:
    """The joint sequence of one sample; InputError where the size does not fit the model."""
    vae, transformer = load_config(start, "vae"), load_config(start, "transformer")
    spatial = 2 ** (len(vae["block_out_channels"]) - 1)
    compression = Compression(spatial, int(vae["temporal_compression_ratio"]), transformer["patch_size"])
    shape = VideoShape(video.height, video.width, (video.num_frames,) * recipe.num_scenes, compression)
    return shape.layout(transformer["max_text_seq_length"])


def encoder_dtype(recipe: DiffusionRecipe, device: torch.device) -> torch.dtype:
    """What frozen encoders compute in: the recipe's precision, and float32 on the CPU."""
    return torch.float32 if device.type == "cpu" else DTYPES[recipe.precision]


def load_transformer(recipe: DiffusionRecipe, start: Path) -> Mask2DiTTransformer3DModel:
    """The transformer as it trains: all of it in float32, or frozen in the recipe's precision with float32 adapters.

    It stays in evaluation mode: dropout would draw from a generator that no sample's number keys.
    """
    frozen = DTYPES[recipe.precision] if recipe.lora is not None else torch.float32
    transformer: Mask2DiTTransformer3DModel = load_component(start, "transformer", frozen)
    transformer.set_attention_plan(recipe.plan)
    if recipe.lora is not None:
        add_lora(transformer, recipe.lora, recipe.seed)
    if recipe.gradient_checkpointing:
        transformer.enable_gradient_checkpointing()
    return transformer


def add_lora(transformer: Mask2DiTTransformer3DModel, lora: LoRAConfig, seed: int) -> None:
    """Freeze the transformer and add trainable float32 adapters; InputError where a target does not exist."""
    torch.manual_seed(seed)
    transformer.requires_grad_(False)
    try:
        transformer.add_adapter(peft_config(lora))
    except ValueError as error:
        raise InputError(f"lora.target_modules: got {lora.target_modules}: {one_line(error)}") from None
    for parameter in transformer.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()


def peft_config(lora: LoRAConfig) -> Any:
    """The adapters as PEFT describes them."""
    from peft import LoraConfig

    return LoraConfig(r=lora.rank, lora_alpha=lora.alpha, target_modules=list(lora.target_modules), init_lora_weights=True)


def export_model(
    start: Path, trained: Mapping[str, Mapping[str, Tensor]], folder: Path, dtype: torch.dtype, values: Mapping[str, Any]
) -> Path:
    """Write a whole model folder, aside and renamed: the trained components in `dtype`, all others as they are in `start`.

    trained: state dicts by component. values: what the model now has as its own, such as height and known_sets.
    """
    aside = folder.with_name(folder.name + ".part")
    shutil.rmtree(aside, ignore_errors=True)
    for path in sorted(start.rglob("*")):
        inner = path.relative_to(start)
        if path.is_file() and inner.parts[0] not in {*trained, MADE_FROM} and not any(part.startswith(".") for part in inner.parts):
            (aside / inner).parent.mkdir(parents=True, exist_ok=True)
            _link_or_copy(path, aside / inner)
    for name, state in trained.items():
        _save_component(start, name, {key: value.to(dtype) for key, value in state.items()}, aside / name)
    _update_json(aside / "model_index.json", values)
    _forget_origin(aside)
    put_in_place(aside, folder)
    return folder


def _save_component(start: Path, name: str, tensors: dict[str, Tensor], folder: Path) -> None:
    with torch.device("meta"):
        if name == "text_encoder":
            from transformers import T5Config, T5EncoderModel

            network = T5EncoderModel(T5Config.from_pretrained(start / name))
        else:
            network = NETWORKS[name].from_config(load_config(start, name))
    network.load_state_dict(tensors, assign=True)
    if name == "text_encoder":
        network.tie_weights()
    small = sum(value.numel() for value in tensors.values()) < SMALL_MODEL
    network.save_pretrained(folder, max_shard_size=LARGEST_FILE if small else LARGEST_FILE_OF_A_LARGE_MODEL)


def put_in_place(aside: Path, folder: Path) -> None:
    """Give a finished folder its name; what had the name before goes last."""
    earlier = folder.with_name(folder.name + ".old")
    shutil.rmtree(earlier, ignore_errors=True)
    with suppress(FileNotFoundError):
        os.replace(folder, earlier)
    os.replace(aside, folder)
    shutil.rmtree(earlier, ignore_errors=True)


def _link_or_copy(source: Path, target: Path) -> None:
    # A link costs no room, and weights are never written in place; JSON files are.
    if source.suffix == ".safetensors":
        with suppress(OSError):
            os.link(source.resolve(), target)
            return
    shutil.copyfile(source, target)


def _name_tokenizer_class(folder: Path) -> None:
    """transformers 4 and 5 both know the name PreTrainedTokenizerFast; 5 would write another."""
    _update_json(folder / "tokenizer" / "tokenizer_config.json", {"tokenizer_class": "PreTrainedTokenizerFast"})
    _update_json(folder / "model_index.json", {"tokenizer": ["transformers", "PreTrainedTokenizerFast"]})


def _forget_origin(folder: Path) -> None:
    """diffusers notes where a component was loaded from; an exported folder names no path of the machine that made it."""
    for path in (*folder.glob("*/config.json"), folder / "model_index.json"):
        values = json.loads(path.read_text(encoding="utf-8"))
        if values.pop("_name_or_path", None) is not None:
            path.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")


def _update_json(path: Path, changes: Mapping[str, Any]) -> None:
    values = json.loads(path.read_text(encoding="utf-8")) | dict(changes)
    path.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
