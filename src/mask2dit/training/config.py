"""Recipes: what a training run is, read from YAML and refused where a key or a value is not known."""

from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, model_validator

from mask2dit.errors import InputError, one_line


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class _Run(_Strict):
    """What every part of the built-in model has. The learning rate falls to zero over the last `decay` share of `num_steps`."""

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


class VideoConfig(_Strict):
    """Size, length and rate of one scene."""

    height: int = Field(gt=0)
    width: int = Field(gt=0)
    num_frames: int = Field(gt=0)
    fps: float = Field(gt=0)


class PlayhouseData(_Strict):
    """Stories of the built-in world, three scenes each. With probability `by_reference` only one scene of a story names the colour."""

    source: Literal["playhouse"]
    level: Literal["A", "B", "C"]
    num_stories: int = Field(gt=0)
    by_reference: float = Field(default=0.0, ge=0, le=1)


class FileData(_Strict):
    """A list of videos: `csv` (single clips) and `json` (groups of shots) as the paper's authors release them, or our own `jsonl`.

    Paths inside the list are relative to `folder`, and that to the list's own where it is not given.
    """

    source: Literal["csv", "json", "jsonl"]
    file: str
    folder: str | None = None
    min_groups: int = Field(default=1, gt=0)


class ShardData(_Strict):
    """webdataset shards: a pattern such as `train-{000000..000009}.tar`, or a list of files."""

    source: Literal["webdataset"]
    shards: str | list[str]
    min_groups: int = Field(default=1, gt=0)


DataConfig = Annotated[PlayhouseData | FileData | ShardData, Field(discriminator="source")]


class LoRAConfig(_Strict):
    """Low-rank adapters on the attention's linear layers, instead of training all weights."""

    rank: int = Field(default=64, gt=0)
    alpha: float = Field(default=64, gt=0)
    target_modules: list[str] = ["to_q", "to_k", "to_v", "to_out.0"]


class ValidationConfig(_Strict):
    """Storyboards that are filmed as the training goes. Playhouse data bring their own: the first `num_stories` validation stories."""

    every_steps: int = Field(gt=0)
    storyboards: list[str] = []
    num_stories: int = Field(default=4, gt=0)
    num_inference_steps: int | None = Field(default=None, gt=0)


class DiffusionRecipe(_Strict):
    """One of the steps base (single scenes), pretrain (unrelated scenes joined) and sft (groups of scenes, some of them known).

    `start_from` is a model folder. A new model has `transformer` sizes instead, the autoencoder of the folder `vae_from` and the text
    encoder of `text_from`. In paths, `{runs}` stands for the folder in which the run's own folder lies.

    `batch_size` counts the samples of one optimiser step over all devices; each device takes `micro_batch_size` of them at a time
    (null: all of its share), which changes speed and memory, and nothing else.
    """

    kind: Literal["diffusion"]
    stage: Literal["base", "pretrain", "sft"]
    start_from: str | None = None
    transformer: TransformerConfig | None = None
    vae_from: str | None = None
    text_from: str | None = None
    train_text_encoder: bool = False
    lora: LoRAConfig | None = None
    plan: str = "symmetric"
    video: VideoConfig | None = None
    """None: what the model's own values say."""
    num_scenes: int = Field(gt=0)

    data: DataConfig
    data_workers: int = Field(default=0, ge=0)
    latent_cache: str | None = None
    """A folder that `mask2dit train --precompute` fills; None encodes every sample anew."""
    known_sets: dict[Literal["none", "all-but-last", "random"], Annotated[float, Field(ge=0)]] = {"none": 1.0}
    empty_caption: float = Field(default=0.1, ge=0, le=1)

    seed: int = 0
    num_steps: int = Field(gt=0)
    batch_size: int = Field(gt=0)
    micro_batch_size: int | None = Field(default=None, gt=0)
    learning_rate: float = Field(gt=0)
    warmup_steps: int = Field(default=100, ge=0)
    decay: float = Field(default=0.0, ge=0, le=1)
    """The share of the steps, at the end, over which the learning rate falls to zero."""
    betas: tuple[Annotated[float, Field(ge=0, lt=1)], Annotated[float, Field(ge=0, lt=1)]] = (0.9, 0.99)
    eps: float = Field(default=1e-8, gt=0)
    weight_decay: float = Field(default=0.01, ge=0)
    max_grad_norm: float = Field(default=1.0, gt=0)
    ema_decay: float | None = Field(default=0.999, ge=0, lt=1)
    """None keeps no average: what is exported are the weights themselves."""

    precision: Literal["float32", "bfloat16"] = "float32"
    export_dtype: Literal["float32", "float16", "bfloat16"] = "bfloat16"
    attention: Literal["auto", "grouped", "merged", "flex"] = "auto"
    """How it is computed, all exact: merged keeps keys and values once for the backward pass, grouped once for each group of a plan."""
    gradient_checkpointing: bool = False
    compile: bool = False
    sharding: Literal["none", "fsdp"] = "none"

    save_every_steps: int | None = Field(default=None, gt=0)
    save_every_minutes: float | None = Field(default=10.0, ge=0)
    keep_last: int = Field(default=2, gt=0)
    log_every_steps: int = Field(default=10, gt=0)
    log_with: list[Literal["tensorboard", "wandb"]] = []
    validation: ValidationConfig | None = None

    @model_validator(mode="after")
    def _agree(self) -> Self:
        new = (self.transformer, self.vae_from, self.text_from)
        if (self.start_from is None) != all(new) or (self.start_from is not None and any(new)):
            raise ValueError("expected either start_from, or all of transformer, vae_from and text_from for a new model")
        if sum(self.known_sets.values()) <= 0:
            raise ValueError("known_sets: expected at least one probability above 0")
        if self.num_scenes == 1 and any(weight for kind, weight in self.known_sets.items() if kind != "none"):
            raise ValueError("known_sets: with num_scenes 1 there is nothing to know, expected none only")
        if self.stage == "base" and self.num_scenes != 1:
            raise ValueError("stage base: expected num_scenes 1; use pretrain or sft for several scenes")
        if self.lora is not None and self.train_text_encoder:
            raise ValueError("train_text_encoder: not together with lora; leave one out")
        if self.validation is not None and not self.validation.storyboards and self.data.source != "playhouse":
            raise ValueError("validation.storyboards: got none, expected storyboard files to film; playhouse data alone bring their own")
        if self.transformer is not None and self.video is None and self.data.source != "playhouse":
            raise ValueError("video: a new model needs a size; add height, width, num_frames and fps")
        return self


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


Recipe = VAERecipe | TextRecipe | DiffusionRecipe | JudgeRecipe
_ANY_RECIPE: TypeAdapter[Recipe] = TypeAdapter(Annotated[Recipe, Field(discriminator="kind")])


FREE_KEYS = frozenset(
    {"num_steps", "export_dtype", "micro_batch_size", "data_workers", "attention", "compile", "gradient_checkpointing", "sharding"}
    | {"save_every_steps", "save_every_minutes", "keep_last", "log_every_steps", "log_with", "validation"}
)
"""What a run may change and still go on: nothing of it is in the weights but how long they learn."""


def read_recipe(path: Path, changes: list[str], runs: Path) -> Recipe:
    """Read a recipe and apply `key=value` changes, with `{runs}` standing for the folder `runs`.

    Raises InputError, in one line that names the file, the key, what was got and what was expected.
    """
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{path}: there is no such file, expected a recipe; see recipes/") from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InputError(f"{path}: cannot be read as YAML: {one_line(error)}") from None
    if not isinstance(values, dict):
        raise InputError(f"{path}: got no keys, expected a recipe; see recipes/")
    for change in changes:
        _change(values, change)
    values = _fill_in(values, str(runs))
    try:
        return _ANY_RECIPE.validate_python(values)
    except ValidationError as error:
        raise InputError(f"{path}: {_explain(error, values)}") from None


def _change(values: dict[str, Any], change: str) -> None:
    name, separator, text = change.partition("=")
    *parents, last = name.split(".")
    if not separator or not last:
        raise InputError(f"got {change!r}, expected key=value, such as num_steps=100 or data.level=A")
    for key in parents:
        if values.get(key) is None:
            values[key] = {}
        values = values[key]
        if not isinstance(values, dict):
            raise InputError(f"{change}: {key} holds no keys, expected a section of the recipe")
    try:
        values[last] = yaml.safe_load(text)
    except yaml.YAMLError:
        raise InputError(f"{change}: the value cannot be read as YAML; put it into quotes") from None


def _fill_in(value: Any, runs: str) -> Any:
    match value:
        case str():
            return value.replace("{runs}", runs)
        case dict():
            return {key: _fill_in(one, runs) for key, one in value.items()}
        case list():
            return [_fill_in(one, runs) for one in value]
    return value


def _explain(error: ValidationError, values: Any) -> str:
    """The first mistake, at the key's own place: pydantic also names the chosen kind of a union."""
    first = error.errors()[0]
    place: list[str] = []
    for part in first["loc"]:
        known = isinstance(values, dict) and part in values
        values = values[part] if known else values[part] if isinstance(values, list) and isinstance(part, int) else values
        if known or isinstance(part, int) or part == first["loc"][-1]:
            place.append(str(part))
    name = ".".join(place)
    match first["type"]:
        case "extra_forbidden":
            return f"{name}: no such key, expected one of the recipe's keys; check the spelling"
        case "missing":
            return f"{name}: is missing; add it"
        case "value_error":
            return str(first["msg"]).removeprefix("Value error, ")
    message = str(first["msg"])
    return f"{name}: got {first['input']!r}, {message[:1].lower()}{message[1:]}"
