"""Recipes: what a training run is, read from YAML and refused where a key or a value is not known."""

from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from mask2dit.errors import InputError


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class _Run(_Strict):
    """What every run has. `num_steps` is the end of the run; the learning rate falls to zero over its last `decay` share.

    `start_from` is a path beside the run's own folder, so that the steps of one model stand side by side.
    """

    level: Literal["A", "B", "C"]
    start_from: str | None = None
    seed: int = 0
    num_steps: int = Field(gt=0)
    batch_size: int = Field(gt=0)
    learning_rate: float = Field(gt=0)
    warmup_steps: int = 100
    decay: float = Field(default=0.2, ge=0, le=1)
    max_grad_norm: float = 1.0
    ema_decay: float = Field(default=0.999, ge=0, lt=1)
    save_every_minutes: float = 3.0


class VAERecipe(_Run):
    """The video autoencoder, trained on crops of playhouse clips.

    Until `image_steps` a sample is single frames, then whole clips; crops have `crop` (height, width) pixels until
    `full_size_steps` before the end, then the whole frame. `train: decoder` keeps the encoder, and with it all cached latents, as they are.
    """

    kind: Literal["vae"]
    train: Literal["all", "decoder"] = "all"
    num_stories: int = Field(gt=0)
    image_steps: int = 0
    image_batch_size: int = 32
    full_size_steps: int = 0
    full_size_batch_size: int = 2
    crop: tuple[int, int]
    kl_weight: float = 1e-6
    channels: tuple[int, ...] = (16, 32, 64)
    latent_channels: int = 8
    layers_per_block: int = 1
    norm_num_groups: int = 4


class TransformerConfig(_Strict):
    """The sizes that a small transformer needs; the rest follows from the VAE, the text encoder and the level."""

    num_attention_heads: int
    attention_head_dim: int
    num_layers: int
    time_embed_dim: int
    patch_size: int


class TextConfig(_Strict):
    """A small T5 encoder over the playhouse's words."""

    max_length: int
    dim: int
    num_layers: int
    num_heads: int


class TextRecipe(_Run):
    """The text encoder's first training: every token tells all facts of its caption. Level A only: it takes one actor a scene."""

    kind: Literal["text"]
    level: Literal["A"]
    text: TextConfig


class DiffusionRecipe(_Run):
    """One of the steps base (single scenes), pretrain (unrelated scenes joined) and sft (stories, some scenes known).

    A new model has `transformer` sizes, the autoencoder of `start_from` and the text encoder of `text_from`; any other continues the model
    folder `start_from`.
    """

    kind: Literal["diffusion"]
    stage: Literal["base", "pretrain", "sft"]
    text_from: str | None = None
    num_stories: int = Field(gt=0)
    num_scenes: int = Field(gt=0)
    train_text_encoder: bool = False
    empty_caption: float = Field(default=0.1, ge=0, le=1)
    by_reference: float = Field(default=0.0, ge=0, le=1)
    known_sets: dict[Literal["none", "all-but-last", "random"], float] = {"none": 1.0}
    plan: str = "symmetric"
    weight_decay: float = 0.01
    transformer: TransformerConfig | None = None


class JudgeRecipe(_Run):
    """The network that reads scenes, trained on spoilt renders and, where a `vae` (its folder) is given, on what comes back from it.

    `round_trips` clips are encoded and decoded once, with up to `latent_noise` added in between, and make `round_trip_share` of a batch.
    """

    kind: Literal["judge"]
    start_from: str | None = None
    num_stories: int = Field(gt=0)
    channels: tuple[int, int, int] = (32, 64, 96)
    weight_decay: float = 0.05
    vae: str | None = None
    round_trips: int = Field(default=300, ge=0)
    round_trip_share: float = Field(default=0.25, ge=0, le=1)
    latent_noise: float = Field(default=0.3, ge=0)
    validation_stories: int = Field(default=200, gt=0, le=1000)
    validation_round_trips: int = Field(default=150, ge=0)


Recipe = Annotated[VAERecipe | TextRecipe | DiffusionRecipe | JudgeRecipe, Field(discriminator="kind")]


def read_recipe(path: Path, changes: list[str]) -> VAERecipe | TextRecipe | DiffusionRecipe | JudgeRecipe:
    """Read a recipe and apply `key=value` changes; InputError in one line names the file, the key and what was expected."""
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InputError(f"{path}: cannot be read as YAML: {' '.join(str(error).split())}") from None
    if not isinstance(values, dict):
        raise InputError(f"{path}: got no keys, expected a recipe; see recipes/ for examples")
    for change in changes:
        key, separator, value = change.partition("=")
        if not separator:
            raise InputError(f"got {change!r}, expected key=value")
        _set(values, key.split("."), yaml.safe_load(value))
    try:
        return TypeAdapter(Recipe).validate_python(values)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"][1:]) or "recipe"
        raise InputError(f"{path}: {place}: got {first['input']!r}, {first['msg']}") from None


def _set(values: dict[str, Any], keys: list[str], value: Any) -> None:
    for key in keys[:-1]:
        values = values.setdefault(key, {})
    values[keys[-1]] = value
