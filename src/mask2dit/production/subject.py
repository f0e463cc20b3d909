"""The model of a forecast: known from its folder, or, where it is not downloaded, from what was published of it. Nothing is downloaded."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from mask2dit.errors import ModelError
from mask2dit.film_request import ModelValues
from mask2dit.hub import is_hub_id
from mask2dit.loading import find_model, is_large, load_component, own_dtype
from mask2dit.model_folder import build_network, check_model_folder, model_values, read_index
from mask2dit.published import MODELS, NUM_TRAIN_TIMESTEPS, Published, published

Networks = tuple[Any, Any, Any | None]


@dataclass(frozen=True, slots=True)
class Subject:
    """What a forecast knows of a model.

    `networks`: transformer, VAE and text encoder (None where it has none) on the meta device, new each time. `tokenizer`: None where
    captions cannot be read. `is_large`: whether it matters how it is kept in memory. `remark`: how it is known, if not from its folder.
    """

    name: str
    values: ModelValues
    networks: Callable[[], Networks]
    tokenizer: Any | None
    num_train_timesteps: int
    dtype: torch.dtype
    is_large: bool
    built_in: bool
    remark: str | None = None


def find_subject(model: str | None, *, revision: str | None = None, offline: bool = False, inp: bool = False) -> Subject:
    """None for the built-in model, else a folder or a Hub id, as `load_pipeline` takes them.

    offline: an id that is not there is an error, for nobody is going to download it. Raises ModelError.
    """
    is_id = model is not None and is_hub_id(model) and not Path(model).exists()
    try:
        folder = find_model(model, revision=revision, offline=True)
    except ModelError as error:
        if not is_id or offline:
            raise
        return _not_downloaded(str(model), inp, error)
    check_model_folder(folder, inp=inp)
    return _of_folder(folder, model, inp)


def _of_folder(folder: Path, model: str | None, inp: bool) -> Subject:
    return Subject(
        name=model or "built-in",
        values=model_values(folder),
        networks=partial(_build, folder, inp),
        tokenizer=load_component(folder, "tokenizer") if "tokenizer" in read_index(folder) else None,
        num_train_timesteps=int(load_component(folder, "scheduler").config.num_train_timesteps),
        dtype=own_dtype(folder),
        is_large=is_large(folder),
        built_in=model is None,
    )


def _build(folder: Path, inp: bool) -> Networks:
    text_encoder = build_network(folder, "text_encoder") if "text_encoder" in read_index(folder) else None
    return build_network(folder, "transformer", inp=inp), build_network(folder, "vae"), text_encoder


def _not_downloaded(hub_id: str, inp: bool, error: ModelError) -> Subject:
    known = published(hub_id)
    if known is None:
        names = ", ".join(each.hub_id for each in MODELS)
        raise ModelError(
            f"{hub_id}: not downloaded, or not all of it, and nothing is downloaded here, expected a model folder, a downloaded id, or one "
            f"whose sizes are known ({names}); `mask2dit generate` downloads it"
        ) from error
    if inp:
        raise ModelError(f"{hub_id}: has no input channels beside the latents'; leave out --inp")
    return _of_published(known)


def _of_published(known: Published) -> Subject:
    return Subject(
        name=known.hub_id,
        values=known.values(),
        networks=known.networks,
        tokenizer=None,
        num_train_timesteps=NUM_TRAIN_TIMESTEPS,
        dtype=known.dtype,
        is_large=True,
        built_in=False,
        remark=f"{known.hub_id} is not downloaded: counted with its published sizes; how long captions are cannot be checked",
    )
