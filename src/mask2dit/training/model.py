"""The parts of a small model under training, and its folder in the layout that is shipped."""

import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import torch
from diffusers import AutoencoderKLCogVideoX, CogVideoXDDIMScheduler

from mask2dit.errors import InputError
from mask2dit.loading import load_pipeline
from mask2dit.pipeline import Mask2DiTPipeline
from mask2dit.playhouse.facts import LEVELS
from mask2dit.training.config import DiffusionRecipe
from mask2dit.transformer import Mask2DiTTransformer3DModel
from mask2dit.video_shape import Compression

LARGEST_FILE = "12MB"  # of one safetensors file


@dataclass(slots=True)
class ModelParts:
    """Everything of a pipeline, not yet in one."""

    tokenizer: Any
    text_encoder: Any
    vae: Any
    transformer: Mask2DiTTransformer3DModel
    scheduler: Any
    compression: Compression

    def to(self, device: torch.device) -> Self:
        """Move the networks."""
        for network in (self.text_encoder, self.vae, self.transformer):
            network.to(device)
        return self


def new_parts(recipe: DiffusionRecipe) -> ModelParts:
    """An untrained transformer around the autoencoder of `start_from` and the text encoder of `text_from`."""
    from transformers import AutoTokenizer, T5EncoderModel

    if recipe.transformer is None or recipe.text_from is None or recipe.start_from is None:
        raise InputError("recipe: a new model needs transformer, text_from (a text run) and start_from (a run with vae/)")
    world, sizes = LEVELS[recipe.level], recipe.transformer
    vae = AutoencoderKLCogVideoX.from_pretrained(Path(recipe.start_from) / "vae").eval().requires_grad_(False)
    tokenizer = AutoTokenizer.from_pretrained(Path(recipe.text_from) / "tokenizer")
    text_encoder = T5EncoderModel.from_pretrained(Path(recipe.text_from) / "text_encoder").eval()
    torch.manual_seed(recipe.seed)
    spatial = 2 ** (len(vae.config.block_out_channels) - 1)
    transformer = Mask2DiTTransformer3DModel(
        num_attention_heads=sizes.num_attention_heads,
        attention_head_dim=sizes.attention_head_dim,
        in_channels=vae.config.latent_channels,
        out_channels=vae.config.latent_channels,
        time_embed_dim=sizes.time_embed_dim,
        text_embed_dim=text_encoder.config.d_model,
        num_layers=sizes.num_layers,
        sample_width=world.width // spatial,
        sample_height=world.height // spatial,
        sample_frames=world.num_frames,
        patch_size=sizes.patch_size,
        max_text_seq_length=tokenizer.model_max_length,
    )
    # Begin as the identity: every gate and the output are zero, as is usual for diffusion transformers trained from scratch.
    for block in transformer.transformer_blocks:
        for norm in (block.norm1, block.norm2):
            torch.nn.init.zeros_(norm.linear.weight)
            torch.nn.init.zeros_(norm.linear.bias)
    for layer in (transformer.norm_out.linear, transformer.proj_out):
        torch.nn.init.zeros_(layer.weight)
        torch.nn.init.zeros_(layer.bias)
    scheduler = CogVideoXDDIMScheduler(
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
    compression = Compression(spatial, int(vae.config.temporal_compression_ratio), sizes.patch_size)
    return ModelParts(tokenizer, text_encoder, vae, transformer, scheduler, compression)


def load_parts(recipe: DiffusionRecipe) -> ModelParts:
    """The parts of the model folder in `start_from`, float32."""
    pipeline = load_pipeline(recipe.start_from)
    pipeline.vae.eval().requires_grad_(False)
    return ModelParts(
        pipeline.tokenizer, pipeline.text_encoder, pipeline.vae, pipeline.transformer, pipeline.scheduler, pipeline.values.compression
    )


def export_model(parts: ModelParts, recipe: DiffusionRecipe, folder: Path, guidance_scale: float = 3.0) -> Path:
    """Write the whole model folder in float16, aside and renamed; the parts stay as they are."""
    world = LEVELS[recipe.level]
    pipeline = Mask2DiTPipeline(
        parts.tokenizer,
        parts.text_encoder,
        parts.vae,
        parts.transformer,
        parts.scheduler,
        window=3,
        known_sets="any",
        height=world.height,
        width=world.width,
        num_frames=world.num_frames,
        fps=world.fps,
        num_inference_steps=20,
        guidance_scale=guidance_scale,
        negative_prompt="",
    )
    aside = folder.with_name(folder.name + ".part")
    shutil.rmtree(aside, ignore_errors=True)
    for name in ("text_encoder", "vae", "transformer"):
        network = getattr(parts, name)
        kept = dict(network.state_dict())
        network.half().save_pretrained(aside / name, max_shard_size=LARGEST_FILE)
        network.float().load_state_dict(kept)
    parts.tokenizer.save_pretrained(aside / "tokenizer")
    parts.scheduler.save_pretrained(aside / "scheduler")
    pipeline.save_config(aside)
    _name_tokenizer_class(aside)
    _forget_origin(aside)
    shutil.rmtree(folder, ignore_errors=True)
    os.replace(aside, folder)
    return folder


def _name_tokenizer_class(folder: Path) -> None:
    """transformers 4 and 5 both know the name PreTrainedTokenizerFast; 5 would write another."""
    for path, change in (
        (folder / "tokenizer" / "tokenizer_config.json", {"tokenizer_class": "PreTrainedTokenizerFast"}),
        (folder / "model_index.json", {"tokenizer": ["transformers", "PreTrainedTokenizerFast"]}),
    ):
        values = json.loads(path.read_text(encoding="utf-8")) | change
        path.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")


def _forget_origin(folder: Path) -> None:
    """diffusers notes where a component was loaded from; a shipped folder names no path of the machine that made it."""
    for path in folder.glob("*/config.json"):
        values = json.loads(path.read_text(encoding="utf-8"))
        values.pop("_name_or_path", None)
        path.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
