"""What a diffusion recipe will need: parameters, tokens, memory of each device, arithmetic and time. Nothing is trained or allocated.

The networks are built on torch's meta device and counted; memory and time follow by formula from what loop, parallel and encoding do.
tests/training/test_estimate.py holds the formulas against what real small networks keep and compute.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch
import yaml
from diffusers import AutoencoderKLCogVideoX
from torch import nn
from transformers import T5Config, T5EncoderModel

from mask2dit.amounts import duration
from mask2dit.errors import InputError, ModelError, one_line
from mask2dit.loading import load_component
from mask2dit.model_folder import load_config
from mask2dit.plans import AttentionGroup, get_plan
from mask2dit.published import COGVIDEOX_5B
from mask2dit.scene_layout import SceneLayout
from mask2dit.training.config import DiffusionRecipe, Recipe, TransformerConfig, VideoConfig
from mask2dit.training.model import add_lora, video_of
from mask2dit.training.parallel import check_batch
from mask2dit.transformer import Mask2DiTTransformer3DModel
from mask2dit.video_shape import Compression, VideoShape

PUBLISHED = ("CogVideoX-5b", "Mask2DiT")
PUBLISHED_VIDEO = VideoConfig(height=480, width=720, num_frames=49, fps=8)

GIB = 2**30
CARDS_GIB = (24, 48, 80, 141)
RESERVE_GIB = 2  # for CUDA itself and for what its allocator cannot use
RATES = {"H100, H200": 989e12, "RTX 4090": 165e12}  # FLOP/s in bfloat16 without sparsity, as the maker publishes them
RATE_SHARE = 0.4
# Frames' worth of the first level's feature maps that are alive at once while the VAE encodes; counted on the meta device: 59 to 80.
VAE_LIVE_FRAMES = 81

Groups = tuple[AttentionGroup, ...]


@dataclass(frozen=True, slots=True)
class Networks:
    """The networks of a recipe without their weights, and the video that they see."""

    transformer: Mask2DiTTransformer3DModel
    vae: Any
    text_encoder: Any
    shape: VideoShape
    layout: SceneLayout
    note: str | None


@dataclass(frozen=True, slots=True)
class Arithmetic:
    """Bytes of a number, and whether every layer makes a copy of what it reads. `norm`: of what enters and leaves a norm."""

    low: int
    norm: int
    casts: bool


FLOAT32 = Arithmetic(low=4, norm=4, casts=False)
AUTOCAST = Arithmetic(low=2, norm=4, casts=True)  # as CUDA's does it: products and residuals halve, norms and rotations do not
BFLOAT16 = Arithmetic(low=2, norm=2, casts=False)  # the weights themselves, which fsdp gathers so, or which are frozen under adapters


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes on one device at the fullest moment of an optimiser step. `copies`: weights gathered by fsdp, or cast by autocast."""

    weights: int
    gradients: int
    optimizer: int
    ema: int
    copies: int
    activations: int
    encoders: int

    @property
    def total(self) -> int:
        """All of it."""
        return sum(int(getattr(self, field.name)) for field in fields(self))

    @property
    def fits(self) -> str:
        """The smallest usual card that holds it."""
        cards = (f"fits {card} GiB" for card in CARDS_GIB if self.total <= (card - RESERVE_GIB) * GIB)
        return next(cards, f"over {CARDS_GIB[-1]} GiB")


@dataclass(frozen=True, slots=True)
class Estimate:
    """The needs of one recipe. `num_text_encoder`: its parameters, where it trains. Activations: bytes of one micro batch on one device."""

    recipe: DiffusionRecipe
    num_devices: int
    note: str | None
    num_parameters: int
    num_trained: int
    num_text_encoder: int
    layout: SceneLayout
    micro_batch: int
    memory: Memory
    activations: int
    checkpointed_activations: int
    table: dict[tuple[int, str], Memory]
    """By devices and sharding; numbers of devices that do not divide the batch are left out."""
    flop_per_step: int

    def seconds_per_step(self, rate: float) -> float:
        """How long a step takes at RATE_SHARE of `rate` FLOP/s on each device."""
        return self.flop_per_step / (rate * RATE_SHARE * self.num_devices)

    def lines(self) -> list[str]:
        """The estimate for the terminal."""
        recipe, layout, steps = self.recipe, self.layout, self.recipe.num_steps
        trained = "all trained" if self.num_trained == self.num_parameters else f"{self.num_trained:,} trained"
        rank = f" (LoRA, rank {recipe.lora.rank})" if recipe.lora else ""
        text = f"; text encoder {self.num_text_encoder:,}, trained" if self.num_text_encoder else ""
        devices = f"{self.num_devices} device{'s' * (self.num_devices > 1)}, micro batch {self.micro_batch}"
        per_scene = f"{layout.text_lengths[0]:,} text + {layout.video_lengths[0]:,} video per scene"
        slower = "" if recipe.precision == "bfloat16" else "; float32 is slower"
        rows = [
            ("estimate", "by formula, not measured" + (f"; {self.note}" if self.note else "")),
            ("parameters", f"transformer {self.num_parameters:,}, {trained}{rank}{text}"),
            ("tokens", f"{per_scene}, {layout.num_tokens:,} per sample (scenes: {layout.num_scenes})"),
            ("steps", f"{steps:,} of {recipe.batch_size} samples, {steps * recipe.batch_size:,} in all; {devices}"),
            *self._memory_rows(),
            ("arithmetic", f"{self.flop_per_step / 1e15:,.4g} PFLOP per step, {steps * self.flop_per_step / 1e18:,.4g} EFLOP in all"),
        ]
        for card, rate in RATES.items():
            seconds = self.seconds_per_step(rate)
            rule = f"at {RATE_SHARE:.0%} of {rate / 1e12:.0f} TFLOP/s in bfloat16{slower}"
            rows.append((f"time, {card}", f"{duration(seconds)} per step, {duration(steps * seconds)} in all, {rule}"))
        rows.append(
            ("not counted", f"validation films; time to read, encode and exchange; CUDA's own ({RESERVE_GIB} GiB of a card are left)")
        )
        return [f"{name:<19}{value}".rstrip() for name, value in rows]

    def _memory_rows(self) -> list[tuple[str, str]]:
        names = {"copies": "copies of weights", "optimizer": "AdamW", "ema": "EMA", "encoders": "VAE and text"}
        parts = (f"{names.get(field.name, field.name)} {getattr(self.memory, field.name) / GIB:.1f}" for field in fields(self.memory))
        rows = [
            ("memory per device", f"{self.memory.total / GIB:.1f} GiB, {self.memory.fits} (sharding: {self.recipe.sharding})"),
            ("", " + ".join(parts)),
            (
                "activations",
                f"{self.checkpointed_activations / GIB:.1f} GiB with gradient checkpointing, {self.activations / GIB:.1f} without",
            ),
            ("", f"{'sharding: none':<26}sharding: fsdp"),
        ]
        for count in sorted({count for count, _ in self.table}):
            none, fsdp = (
                f"{memory.total / GIB:.1f} GiB, {memory.fits}" for memory in (self.table[count, "none"], self.table[count, "fsdp"])
            )
            rows.append((f"  {count} device{'s' * (count > 1)}", f"{none:<26}{fsdp}"))
        return rows


def described(recipe: Recipe, num_devices: int = 1) -> list[str]:
    """A recipe with all its values, as YAML, and what it needs; estimates are for diffusion recipes."""
    lines = str(yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False, allow_unicode=True)).splitlines()
    return [*lines, "", *estimate(recipe, num_devices).lines()] if isinstance(recipe, DiffusionRecipe) else lines


def estimate(recipe: DiffusionRecipe, num_devices: int = 1) -> Estimate:
    """Say what a recipe needs on `num_devices` devices. Raises InputError or ModelError where its model or its batch cannot be."""
    check_batch(recipe, num_devices)
    networks = build_networks(recipe)
    transformer, layout, groups = networks.transformer, networks.layout, get_plan(recipe.plan).pattern(networks.layout).groups
    arithmetic, micro_batch = arithmetic_of(recipe, num_devices, recipe.sharding), _micro_batch(recipe, num_devices)
    kept = groups_kept(recipe, layout)
    activations = [max(step_activations(transformer, layout, kept, micro_batch, arithmetic, on)) for on in (False, True)]
    counts = [count for count in (1, 2, 4, 8) if recipe.batch_size % count == 0]
    return Estimate(
        recipe=recipe,
        num_devices=num_devices,
        note=networks.note,
        num_parameters=sum(value.numel() for name, value in transformer.named_parameters() if "lora_" not in name),
        num_trained=_count(transformer, trained_only=True),
        num_text_encoder=_count(networks.text_encoder) if recipe.train_text_encoder else 0,
        layout=layout,
        micro_batch=micro_batch,
        memory=step_memory(recipe, networks, num_devices, recipe.sharding),
        activations=activations[0],
        checkpointed_activations=activations[1],
        table={(count, sharding): step_memory(recipe, networks, count, sharding) for count in counts for sharding in ("none", "fsdp")},
        flop_per_step=recipe.batch_size * sample_flop(transformer, layout, groups, recipe.gradient_checkpointing),
    )


def build_networks(recipe: DiffusionRecipe) -> Networks:
    """The recipe's networks on the meta device, with its adapters. Raises InputError or ModelError where their sizes are not known."""
    folder, note = Path(recipe.start_from or ""), None
    with torch.device("meta"):
        if recipe.transformer is not None:
            transformer, vae, text_encoder = _new_networks(recipe, recipe.transformer)
            video = video_of(recipe, None)
        elif (folder / "transformer" / "config.json").is_file():
            transformer = _from_config(Mask2DiTTransformer3DModel.from_config, folder, "transformer")
            vae = _from_config(AutoencoderKLCogVideoX.from_config, folder, "vae")
            text_encoder, video = _from_config(_text_encoder, folder, "text_encoder"), video_of(recipe, folder)
        elif any(name.lower() in str(folder).lower() for name in PUBLISHED):  # such as a run's; the sizes are the defaults
            transformer, vae, text_encoder = COGVIDEOX_5B.networks()
            video, note = recipe.video or PUBLISHED_VIDEO, f"the weights are not here; sizes of the published {PUBLISHED[0]}"
        else:
            remedy = f"to estimate before it is there, add start_from=weights/{PUBLISHED[0]}"
            raise InputError(f"start_from: got {folder}, without transformer/config.json, expected a model folder; {remedy}")
        if recipe.lora is not None:
            add_lora(transformer, recipe.lora, recipe.seed)
    spatial, temporal = 2 ** (len(vae.config.block_out_channels) - 1), int(vae.config.temporal_compression_ratio)
    compression = Compression(spatial, temporal, transformer.config.patch_size)
    shape = VideoShape(video.height, video.width, (video.num_frames,) * recipe.num_scenes, compression)
    return Networks(transformer, vae, text_encoder, shape, shape.layout(transformer.config.max_text_seq_length), note)


def _new_networks(recipe: DiffusionRecipe, sizes: TransformerConfig) -> tuple[Mask2DiTTransformer3DModel, Any, Any]:
    text_folder = Path(recipe.text_from or "")
    vae = _from_config(AutoencoderKLCogVideoX.from_config, Path(recipe.vae_from or ""), "vae")
    text_encoder = _from_config(_text_encoder, text_folder, "text_encoder")
    transformer = Mask2DiTTransformer3DModel(
        in_channels=vae.config.latent_channels,
        out_channels=vae.config.latent_channels,
        text_embed_dim=text_encoder.config.d_model,
        max_text_seq_length=load_component(text_folder, "tokenizer").model_max_length,
        **sizes.model_dump(),
    )
    return transformer, vae, text_encoder


def _text_encoder(config: dict[str, Any]) -> Any:
    return T5EncoderModel(T5Config.from_dict(config))


def _from_config(build: Callable[[dict[str, Any]], Any], folder: Path, name: str) -> Any:
    config = load_config(folder, name)
    try:
        return build(config)
    except (ValueError, TypeError, KeyError, AttributeError, RuntimeError) as error:
        raise ModelError(f"{folder / name / 'config.json'}: {one_line(error)}; check the model folder") from error


def arithmetic_of(recipe: DiffusionRecipe, num_devices: int, sharding: str) -> Arithmetic:
    """How the trainer computes."""
    if recipe.precision == "float32":
        return FLOAT32
    return BFLOAT16 if recipe.lora is not None or (sharding == "fsdp" and num_devices > 1) else AUTOCAST


def step_memory(recipe: DiffusionRecipe, networks: Networks, num_devices: int, sharding: str) -> Memory:
    """Trained weights, gradients, AdamW and EMA are float32; what is frozen has the recipe's precision."""
    transformer, block = networks.transformer, networks.transformer.transformer_blocks[0]
    arithmetic, micro_batch = arithmetic_of(recipe, num_devices, sharding), _micro_batch(recipe, num_devices)
    low = 4 if arithmetic is FLOAT32 else 2
    sharded = sharding == "fsdp" and num_devices > 1
    shards = num_devices if sharded else 1
    trained_block, frozen_block = _count(block, trained_only=True), _count(block) - _count(block, trained_only=True)
    trained, text = _count(transformer, trained_only=True), _count(networks.text_encoder)
    frozen = _count(transformer) - trained
    trained += text if recipe.train_text_encoder else 0

    gradients, copies = 4 * trained, (0, 0)  # copies: at the end of the forward pass, and in the backward pass
    if sharded:
        # Two blocks are whole at once, with what lies outside of the blocks; a block's gradients are whole until they are dealt out.
        count = len(transformer.transformer_blocks)
        as_gathered = 4 if recipe.lora is not None else low
        outside = as_gathered * (trained - count * trained_block) + low * (frozen - count * frozen_block)
        ahead = 2 * (as_gathered * trained_block + low * frozen_block) + outside
        copies = (ahead, ahead + (as_gathered + 4) * trained_block)
        gradients //= shards
    if arithmetic.casts:  # autocast keeps a copy of every trained weight till backward has used it; with checkpointing, of one block
        copies = (low * (trained_block if recipe.gradient_checkpointing else trained),) * 2

    groups = groups_kept(recipe, networks.layout)
    kept = step_activations(transformer, networks.layout, groups, micro_batch, arithmetic, recipe.gradient_checkpointing)
    encoders = working = 0
    if recipe.latent_cache is None:  # one scene at a time
        maps = VAE_LIVE_FRAMES * networks.vae.config.block_out_channels[0]
        encoders, working = low * _count(networks.vae), low * maps * networks.shape.height * networks.shape.width
    cached_text = recipe.latent_cache is not None and recipe.data.source != "playhouse"  # playhouse captions are drawn anew
    encoders += 0 if recipe.train_text_encoder or cached_text else low * text
    # The fullest of: the VAE at work, the end of the forward pass, the backward pass, and AdamW, which makes a root of every second moment.
    moments = [(0, 0, 0, working), (0, copies[0], kept[0], 0), (0, copies[1], kept[1], 0), (4 * trained // shards, 0, 0, 0)]
    root, copied, activations, working = max(moments, key=sum)
    return Memory(
        weights=(4 * trained + low * frozen) // shards,
        gradients=gradients,
        optimizer=8 * trained // shards + root,
        ema=4 * trained // shards if recipe.ema_decay is not None else 0,
        copies=copied,
        activations=activations,
        encoders=encoders + working,
    )


def groups_kept(recipe: DiffusionRecipe, layout: SceneLayout) -> Groups:
    """The groups whose queries, keys and values are kept for the backward pass: of one group all of them once, as merged and flex do.

    "auto" counts as merged but in float32, where CUDA has no kernel for it.
    """
    grouped = recipe.attention == "grouped" or (recipe.attention == "auto" and recipe.precision == "float32")
    return get_plan(recipe.plan if grouped else "full").pattern(layout).groups


def step_activations(
    transformer: Mask2DiTTransformer3DModel, layout: SceneLayout, groups: Groups, batch: int, arithmetic: Arithmetic, checkpointing: bool
) -> tuple[int, int]:
    """Bytes alive at the end of the forward pass and at the fullest of the backward pass; weights and their gradients not counted."""
    blocks: Any = transformer.transformer_blocks
    feed_forward, width = blocks[0].ff, transformer.proj_out.in_features
    stream = batch * layout.num_tokens * width * arithmetic.low  # one activation of the model's width
    block = block_activations(blocks[0], layout, groups, batch, arithmetic)
    kept = len(blocks) * (stream if checkpointing else block)
    kept += 2 * 4 * layout.num_video_tokens * transformer.config.attention_head_dim  # rotary table

    # The head keeps what enters its two norms, what they gave where the scale learns, and what the projection reads where it trains.
    head = arithmetic.norm * (2 + _trains(transformer.norm_out.linear)) + arithmetic.low * _trains(transformer.proj_out)
    # Backward passes the gradients of the block's output and of both sides of the GELU; the second takes the place of what the GELU gave.
    inner = feed_forward.net[0].proj.out_features // width
    passing = stream * (1 + (1 if _trains(feed_forward.net[2]) else 2) * inner)
    return kept + batch * layout.num_video_tokens * width * head, kept + passing + (block if checkpointing else 0)


def block_activations(block: Any, layout: SceneLayout, groups: Groups, batch: int, arithmetic: Arithmetic) -> int:
    """Bytes that a Mask2DiTBlock keeps for its backward pass. A linear layer keeps its input only if it trains."""
    attention, feed_forward, learns = block.attn1, block.ff, _trains(block.norm1.linear)
    low, casts, width = arithmetic.low, arithmetic.casts, block.norm1.linear.out_features // 6
    inner = feed_forward.net[0].proj.out_features // width
    queries, keys = [group.queries for group in groups], [group.keys for group in groups]
    gathered = _gathered(queries, layout, casts) + _gathered(keys, layout, casts) + _gathered(keys, layout, False)

    # Bytes per token and channel: what enters the two adaptive norms and those of q and k, what they gave where the scale learns, …
    wide: float = arithmetic.norm * (2 + 2 + 2 * learns)
    wide += low * 2 * learns  # what is gated, where the gate learns
    wide += _inputs((attention.to_q, attention.to_k, attention.to_v), arithmetic) + _inputs((attention.to_out[0],), arithmetic)
    wide += low * gathered / layout.num_tokens  # queries, keys and values of the groups
    if len(groups) > 1 or _inputs((attention.to_out[0],), arithmetic) != low:  # of one group, it is the output layer's input
        wide += low  # what they attended to
    wide += _inputs((feed_forward.net[0].proj,), arithmetic) + inner * (low + _inputs((feed_forward.net[2],), arithmetic))
    # Bytes per token: mean and deviation of every norm, attention's log-sum-exp, what adapters have between their two matrices.
    narrow = 4 * (2 * 2 + (2 * 2 + 1) * attention.heads)
    narrow += 4 * sum(value.shape[0] for name, value in block.named_parameters() if "lora_A" in name)
    return int(batch * layout.num_tokens * (width * wide + narrow))


def _inputs(layers: Iterable[nn.Module], arithmetic: Arithmetic) -> int:
    """Bytes per number that layers keep of the input that they share. Adapters read float32, and each casts for itself."""
    trained = [layer for layer in layers if _trains(layer)]
    if arithmetic.low < 4 and any(hasattr(layer, "lora_A") for layer in trained):
        return 4 * len(trained)
    return arithmetic.low * (len(trained) if arithmetic.casts else min(len(trained), 1))


def _gathered(groups: list[tuple[slice, ...]], layout: SceneLayout, casts: bool) -> int:
    """Tokens kept for a plan's groups: a group in one piece is a view of the whole, unless a cast copies it."""
    copied = [group for group in groups if casts or len(group) > 1]
    return sum(map(_length, copied)) + (layout.num_tokens if len(copied) < len(groups) else 0)


def sample_flop(transformer: Mask2DiTTransformer3DModel, layout: SceneLayout, groups: Groups, checkpointing: bool) -> int:
    """FLOP of one sample, forward and backward; a frozen layer has no gradient of its weights, blocks run twice with checkpointing."""
    total = 0
    for name, layer in transformer.named_modules():
        if isinstance(layer, nn.Linear | nn.Conv2d):
            passes = 2 + layer.weight.requires_grad + (checkpointing and name.startswith("transformer_blocks."))
            total += passes * 2 * _rows(name, layout) * layer.weight.numel()
    pairs = sum(_length(group.queries) * _length(group.keys) for group in groups)
    return total + (3 + checkpointing) * len(transformer.transformer_blocks) * 4 * pairs * int(transformer.proj_out.in_features)


def _rows(name: str, layout: SceneLayout) -> int:
    """How many rows of one sample a layer sees."""
    if ".attn1." in name or ".ff." in name:
        return layout.num_tokens
    if name == "patch_embed.text_proj":
        return layout.num_text_tokens
    return layout.num_video_tokens if name in ("patch_embed.proj", "proj_out") else layout.num_scenes


def _length(pieces: tuple[slice, ...]) -> int:
    return sum(piece.stop - piece.start for piece in pieces)


def _micro_batch(recipe: DiffusionRecipe, num_devices: int) -> int:
    share = recipe.batch_size // num_devices
    return min(recipe.micro_batch_size or share, share)


def _trains(module: nn.Module) -> bool:
    return any(value.requires_grad for value in module.parameters())


def _count(module: nn.Module, trained_only: bool = False) -> int:
    return sum(value.numel() for value in module.parameters() if value.requires_grad or not trained_only)
