"""An extractor's weights: where they are, which they are, and that they are exactly those of the network.

Owns the look-up, the digest, and strict loading of transformers' networks. Files named by a Hub id are fetched by `mask2dit.hub`. Code
that lies beside weights is never run, and pickled weights are opened as tensors only.
"""

import hashlib
import os
import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from torch import nn

from mask2dit.errors import ModelError, one_line
from mask2dit.extractors.pictures import FILES, read_json
from mask2dit.hub import Choose, fetch_files, is_hub_id

CONFIG = "config.json"
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "vocab.json", "merges.txt", "special_tokens_map.json", "added_tokens.json")
WEIGHT_FILES = (  # the first that is there counts; transformers opens .bin as tensors only
    ("model.safetensors",),
    ("model.safetensors.index.json", "model-*-of-*.safetensors"),
    ("pytorch_model.bin",),
    ("pytorch_model.bin.index.json", "pytorch_model-*-of-*.bin"),
)
Shape = tuple[int, ...]

_ESCAPES = re.compile(r"\x1b\[[0-9;]*m|[^\s -~\u00a0-\U0010ffff]")


@dataclass(frozen=True, slots=True)
class Weights:
    """Weights on disk."""

    path: Path
    """A folder or a file."""
    origin: str
    """A Hub id at a commit, or the name of the folder or file."""

    def named(self, files: Iterable[Path]) -> str:
        """The origin, and 12 hex digits that follow from every byte of the files that features depend on."""
        total = hashlib.sha256()
        for path in sorted(files, key=lambda path: path.name):
            with path.open("rb") as file:
                total.update(f"{path.name} {hashlib.file_digest(file, 'sha256').hexdigest()}\n".encode())
        return f"{self.origin} · {total.hexdigest()[:12]}"


def find_weights(extractor: str, weights: str, choose: Choose, *, offline: bool) -> Weights:
    """A folder or file of that name, else the files that `choose` picks out of a Hub id's. Raises ModelError."""
    if os.path.exists(weights):  # a name may be too long for Path.exists
        return Weights(Path(weights), Path(weights).resolve().name)
    if not is_hub_id(weights):
        raise ModelError(f"{extractor}: {weights!r}: no such folder or file, expected one, or a Hub id such as owner/name; check the name")
    try:
        folder = fetch_files(weights, choose, offline=offline)
    except ModelError as error:
        raise ModelError(f"{extractor}: {error} (there is no folder of that name, either)") from error
    return Weights(folder, f"{weights}@{folder.name[:12]}")


def names_in(folder: Path) -> set[str]:
    """The files that lie in a folder itself."""
    return {path.name for path in folder.iterdir() if path.is_file()}


# Networks of transformers


@dataclass(frozen=True, slots=True)
class Family:
    """What a folder of transformers must be for one extractor."""

    extractor: str
    network: type[Any]
    model_type: str
    """As config.json names it."""
    droppable: tuple[str, ...] = ()
    """Beginnings of the names of tensors that published weights hold and features do not need."""


def find_pretrained(family: Family, weights: str, *, offline: bool) -> Weights:
    """The folder of a family's weights; its files are not looked into. Raises ModelError."""
    found = find_weights(family.extractor, weights, _choose, offline=offline)
    if not found.path.is_dir():
        raise ModelError(
            f"{family.extractor}: {found.path}: got a file, expected a folder with {CONFIG} and {WEIGHT_FILES[0][0]}; give the folder"
        )
    return found


def load_pretrained(family: Family, found: Weights, device: torch.device) -> tuple[Any, str]:
    """The network, and the name of its weights. Raises ModelError unless the folder holds exactly its tensors."""
    name, folder = family.extractor, found.path
    kind = read_json(name, folder / CONFIG).get("model_type")
    if kind != family.model_type:
        raise ModelError(f"{name}: {folder}: is a model of type {kind}, expected {family.model_type}; use weights of that family")
    files = _files(f"{name}: {folder}", names_in(folder))
    safe = any(file.endswith(".safetensors") for file in files)
    try:
        with quiet():
            network, report = family.network.from_pretrained(
                folder,
                dtype=torch.float32,
                local_files_only=True,
                use_safetensors=safe,
                ignore_mismatched_sizes=True,  # told below, in one line, with all else that does not fit
                output_loading_info=True,
            )
    except Exception as error:  # whatever a library says of files that it did not expect
        raise ModelError(f"{name}: {folder}: cannot be loaded: {said(error)}; fetch the weights again") from error
    check_fit(
        name,
        folder,
        missing=report["missing_keys"],
        unknown=[key for key in report["unexpected_keys"] if not key.startswith(family.droppable)],
        misshapen={key: (tuple(got), tuple(expected)) for key, got, expected in report["mismatched_keys"]},
        total=len(network.state_dict()),
    )
    return frozen(network, device), found.named(folder / file for file in files)


def check_fit(
    extractor: str,
    place: Path,
    missing: Collection[str],
    unknown: Collection[str],
    misshapen: dict[str, tuple[Shape, Shape]],
    total: int,
) -> None:
    """Raise ModelError, naming the first tensor that does not fit and how many there are, unless all do.

    misshapen: the shapes found and expected. total: tensors that the network has.
    """
    if not (missing or unknown or misshapen):
        return
    if missing:
        first = f"tensor {min(missing)} is missing"
    elif unknown:
        first = f"tensor {min(unknown)} is not known to this network"
    else:
        key = min(misshapen)
        first = f"tensor {key} has shape {misshapen[key][0]}, expected {misshapen[key][1]}"
    counts = f"{len(missing)} missing, {len(unknown)} unknown, {len(misshapen)} of another shape, of {total} that the network has"
    raise ModelError(
        f"{extractor}: {place}: {first} ({counts}), expected exactly those; fetch the weights again, or check that {CONFIG} fits"
    )


def check_vocabulary(extractor: str, folder: Path, words: int, rows: int) -> None:
    """Raise ModelError where the tokenizer has more tokens than the network."""
    if words > rows:
        raise ModelError(f"{extractor}: {folder}: the tokenizer has {words} tokens, expected at most the network's {rows}; fetch it again")


def load_clip_tokenizer(extractor: str, folder: Path) -> Any:
    """CLIP's byte-pair tokenizer from tokenizer.json, or from vocab.json and merges.txt. Raises ModelError."""
    from transformers import CLIPTokenizer

    if not has_clip_tokenizer(names_in(folder)):
        raise ModelError(f"{extractor}: {folder}: got no tokenizer, expected tokenizer.json, or vocab.json with merges.txt; fetch it again")
    try:
        with quiet():
            return CLIPTokenizer.from_pretrained(folder, local_files_only=True)
    except Exception as error:  # whatever a library says of files that it did not expect
        raise ModelError(f"{extractor}: {folder}: the tokenizer cannot be loaded: {said(error)}; fetch it again") from error


def has_clip_tokenizer(names: Collection[str]) -> bool:
    """Whether files of these names make CLIP's tokenizer."""
    return "tokenizer.json" in names or {"vocab.json", "merges.txt"} <= set(names)


def _choose(hub_id: str, names: Collection[str]) -> list[str]:
    if CONFIG not in names:
        raise ModelError(f"{hub_id}: holds no {CONFIG}, expected a model in transformers' layout; check the name")
    return _files(hub_id, names)


def _files(place: str, names: Collection[str]) -> list[str]:
    """The files that features depend on, by name."""
    for patterns in WEIGHT_FILES:
        if patterns[0] in names:
            weights = [name for name in names if any(fnmatchcase(name, pattern) for pattern in patterns)]
            return sorted(name for name in (CONFIG, *FILES, *TOKENIZER_FILES) if name in names) + sorted(weights)
    raise ModelError(f"{place}: holds no weights, expected {WEIGHT_FILES[0][0]} or {WEIGHT_FILES[2][0]}; check the folder")


@contextmanager
def quiet() -> Iterator[None]:
    """Without transformers' bars and reports: what matters of them is told as an error."""
    from transformers.utils import logging

    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity(logging.CRITICAL)
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


def to_numpy(parts: Sequence[torch.Tensor]) -> Any:
    """Features of several batches → one float32 array."""
    return torch.cat([part.float().cpu() for part in parts]).numpy()


def frozen(network: nn.Module, device: torch.device) -> nn.Module:
    """A network as extractors use it: in place, in evaluation mode, without gradients."""
    for value in network.parameters():  # TorchScript has no requires_grad_ for all
        value.requires_grad_(False)
    return network.to(device).eval()


def said(error: Exception) -> str:
    """What a library says of a file that cannot be loaded, in one line; torch's advice to run what a file holds is left out."""
    if isinstance(error, UnpicklingError) and "weights_only" in str(error):
        return "it holds more than tensors, or is damaged"
    return one_line(ValueError(_ESCAPES.sub("", str(error))))
