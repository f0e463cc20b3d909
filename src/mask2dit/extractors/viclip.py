"""ViCLIP, the paper's extractor: videos of eight frames and captions in one space (Wang et al., 2023, InternVid).

Weights are the folder that the authors publish in transformers' layout, or one of their .pth files; code that lies beside them is not
run. Frames are chosen, resized and normalised as in the authors' evaluation: ImageNet's mean, not CLIP's, and no regard to proportions.
"""

import gzip
from collections import OrderedDict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file

from mask2dit.errors import ModelError, one_line
from mask2dit.extractors.base import Features, Frames, Kind
from mask2dit.extractors.pictures import (
    BATCH,
    IMAGENET_MEAN,
    IMAGENET_STD,
    SCENES,
    Preparation,
    batches,
    check_captions,
    check_pictures,
    lacking,
    read_json,
)
from mask2dit.extractors.pretrained import (
    CONFIG,
    TOKENIZER_FILES,
    check_fit,
    find_weights,
    frozen,
    has_clip_tokenizer,
    load_clip_tokenizer,
    names_in,
    said,
    to_numpy,
)
from mask2dit.extractors.viclip_network import SIZES, Sizes, ViClipNetwork

NAME, WEIGHTS = "viclip", "OpenGVLab/ViCLIP-L-14-hf"
FILES = ("model.safetensors", "ViClip-InternVid-10M-FLT.pth", "ViCLIP-L_InternVid-FLT-10M.pth")
"""The authors' names for the weights that InternVid's filtered ten million clips made; of several in a folder the first counts."""
ENDINGS = (".safetensors", ".pth", ".pt")
MERGES, MERGES_READ = "bpe_simple_vocab_16e6.txt.gz", 49152 - 256 - 2
"""CLIP's merges as OpenAI and the authors publish them, and how many of the file's lines CLIP uses."""
TOKENIZER = "openai/clip-vit-large-patch14"
"""Where the same vocabulary comes from if none lies beside the weights."""
SPECIAL = ("<|startoftext|>", "<|endoftext|>")
CONTAINERS = ("model", "module", "state_dict")
SETTINGS = ("utils.easydict.EasyDict", "easydict.EasyDict")
"""The authors' dictionary of settings, pickled beside the weights in some files: read as a plain one."""
TEXT_LENGTHS = (32, 77)
"""Tokens of a caption: of the authors' training, and of the CLIP weights that it began with."""
UNUSED = frozenset({"temp"})
"""May be missing: the loss's temperature."""


class ViClip:
    """ViCLIP's two towers."""

    name = NAME
    kinds: frozenset[Kind] = frozenset({"scene", "text"})

    def __init__(self, network: ViClipNetwork, weights: str, device: torch.device, tokenizer: Any) -> None:
        sizes = network.sizes
        self.weights = weights
        self.num_frames = sizes.num_frames
        self.preparation = Preparation((sizes.image_size, sizes.image_size), None, IMAGENET_MEAN, IMAGENET_STD, resample=3)
        self._network = network
        self._device = device
        self._tokenizer = tokenizer

    def frames(self, pictures: Frames) -> Features:
        """Raise InputError: the network reads video."""
        raise lacking(self.name, "frame", self.kinds)

    def scene(self, pictures: Frames) -> Features:
        """[T, Y, X, 3] → [D], from the middle frame of each of `num_frames` equal parts."""
        return np.asarray(self.scenes([pictures])[0])

    def scenes(self, scenes: Sequence[Frames]) -> Features:
        """N scenes → [N, D]"""
        for pictures in scenes:
            check_pictures(self.name, pictures)
        prepared = (self.preparation(middles(pictures, self.num_frames)) for pictures in scenes)  # [T, 3, height, width] each
        pixels = torch.stack([each.transpose(0, 1) for each in prepared])  # [N, 3, T, height, width]
        with torch.no_grad():
            features: Features = to_numpy([self._network.vision_encoder(batch.to(self._device)) for batch in batches(pixels, SCENES)])
        return features

    def text(self, captions: Sequence[str]) -> Features:
        """N captions → [N, D]; what exceeds 32 tokens is cut off."""
        captions = check_captions(self.name, captions)
        parts, length = [], self._network.sizes.text_length
        for start in range(0, len(captions), BATCH):
            batch = captions[start : start + BATCH]
            tokens = self._tokenizer(batch, padding="max_length", truncation=True, max_length=length, return_tensors="pt")
            with torch.no_grad():
                parts.append(self._network.text_encoder(tokens["input_ids"].to(self._device)))
        features: Features = to_numpy(parts)
        return features


def middles(pictures: Frames, count: int) -> Frames:
    """The middle one of each of `count` equal parts; of fewer pictures all of them, and the last again and again."""
    edges = np.linspace(0, len(pictures), min(count, len(pictures)) + 1).astype(int)
    chosen = (edges[:-1] + edges[1:] - 1) // 2
    found: Frames = pictures[np.pad(chosen, (0, count - len(chosen)), mode="edge")]
    return found


def load(weights: str | None, device: torch.device, offline: bool) -> ViClip:
    """Load ViCLIP from a folder or Hub id, or from a .safetensors or .pth file. Raises ModelError.

    A config.json beside the weights says `size`, "l" or "b", or `sizes` with some of the fields of `Sizes`; without it they are L/14.
    The vocabulary lies beside the weights, or is fetched by its Hub id.
    """
    found = find_weights(NAME, WEIGHTS if weights is None else weights, _choose, offline=offline)
    folder = found.path if found.path.is_dir() else found.path.parent
    names = names_in(folder)
    file = folder / _weight_file(f"{NAME}: {folder}", names) if found.path.is_dir() else found.path
    tensors = _read(file)
    sizes = _sizes(folder, names, tensors)
    network = _build(sizes, file, tensors)
    tokenizer, tokenizer_files = _load_tokenizer(folder, names, offline)
    if len(tokenizer) != sizes.vocabulary:
        raise ModelError(
            f"{NAME}: {tokenizer_files[0].parent}: the tokenizer has {len(tokenizer)} tokens, expected the network's {sizes.vocabulary}; "
            "fetch the vocabulary again"
        )
    files = [file, *tokenizer_files, *([folder / CONFIG] if CONFIG in names else [])]
    frozen(network, device)
    return ViClip(network, found.named(files), device, tokenizer)


def _choose(hub_id: str, names: Collection[str]) -> list[str]:
    beside = (CONFIG, MERGES, *TOKENIZER_FILES)
    return [_weight_file(hub_id, names), *(name for name in beside if name in names)]


def _weight_file(place: str, names: Collection[str]) -> str:
    usual = [name for name in FILES if name in names]
    found = usual[:1] or sorted(name for name in names if name.endswith(ENDINGS) and "/" not in name)
    if len(found) != 1:
        got = f"{len(found)} files of weights, {', '.join(found[:3])}" if found else "no weights"
        raise ModelError(f"{place}: holds {got}, expected {' or '.join(FILES[:2])}; download the file you mean and give its path")
    return found[0]


# Weights


def _read(path: Path) -> dict[str, torch.Tensor]:
    """The tensors of a file by the network's names, in float32. Nothing in the file is run."""
    try:
        if path.suffix == ".safetensors":
            held: Any = load_file(path)
        else:
            with torch.serialization.safe_globals([(OrderedDict, name) for name in SETTINGS]):
                held = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever a library says of a file that it did not expect
        raise ModelError(f"{NAME}: {path}: cannot be opened as tensors ({said(error)}); fetch it again, or use {WEIGHTS}") from error
    while isinstance(held, Mapping) and (inner := next((key for key in CONTAINERS if isinstance(held.get(key), Mapping)), None)):
        held = held[inner]
    plain = isinstance(held, Mapping) and all(isinstance(key, str) and isinstance(value, torch.Tensor) for key, value in held.items())
    if not plain or not held:
        raise ModelError(f"{NAME}: {path}: got a {type(held).__name__} of other things than tensors, expected ViCLIP's; use {WEIGHTS}")
    wrapped = all(key.startswith("module.") for key in held)  # by data parallel training
    return {key.removeprefix("module.") if wrapped else key: value.float() for key, value in held.items()}


def _sizes(folder: Path, names: Collection[str], tensors: Mapping[str, torch.Tensor]) -> Sizes:
    config = read_json(NAME, folder / CONFIG) if CONFIG in names else {}
    letter, changes = config.get("size", "l"), config.get("sizes", {})
    kind = config.get("model_type", NAME)
    known = {field.name for field in fields(Sizes)}
    if str(kind).lower() != NAME:
        raise ModelError(f"{NAME}: {folder}: is a model of type {kind}, expected ViCLIP's weights; use {WEIGHTS}")
    if (
        not isinstance(letter, str)
        or letter not in SIZES
        or not isinstance(changes, dict)
        or not set(changes) <= known
        or not all(map(_is_count, changes.values()))
    ):
        raise ModelError(
            f"{NAME}: {folder / CONFIG}: got size {letter!r} and sizes {changes!r}, expected size {' or '.join(SIZES)} and numbers above 0 "
            f"for some of {', '.join(sorted(known))}; use {WEIGHTS}"
        )
    sizes = replace(SIZES[letter], **changes)
    positions = tensors.get("text_encoder.positional_embedding")
    if "text_length" not in changes and positions is not None and len(positions.shape) == 2 and len(positions) in TEXT_LENGTHS:
        sizes = replace(sizes, text_length=len(positions))
    return sizes


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _build(sizes: Sizes, file: Path, tensors: Mapping[str, torch.Tensor]) -> ViClipNetwork:
    try:
        with torch.device("meta"):
            network = ViClipNetwork(sizes)
    except (RuntimeError, ValueError) as error:
        raise ModelError(f"{NAME}: {file}: no network has these sizes: {one_line(error)}; check {CONFIG}") from error
    expected = {key: tuple(value.shape) for key, value in network.state_dict().items()}
    check_fit(
        NAME,
        file,
        missing=expected.keys() - tensors.keys() - UNUSED,
        unknown=tensors.keys() - expected.keys(),
        misshapen={
            key: (tuple(value.shape), expected[key])
            for key, value in tensors.items()
            if key in expected and tuple(value.shape) != expected[key]
        },
        total=len(expected),
    )
    network.load_state_dict({key: torch.zeros(()) for key in UNUSED} | dict(tensors), assign=True)
    return network


# Tokenizer


def _load_tokenizer(folder: Path, names: Collection[str], offline: bool) -> tuple[Any, list[Path]]:
    """The tokenizer and the files that it was made of: beside the weights, in their folder `tokenizer`, or by its Hub id."""
    if MERGES in names:
        return _from_merges(folder / MERGES), [folder / MERGES]
    place = folder if has_clip_tokenizer(names) else folder / "tokenizer"
    if not place.is_dir():
        try:
            place = find_weights(NAME, TOKENIZER, _choose_tokenizer, offline=offline).path
        except ModelError as error:
            raise ModelError(f"{error}; or put {MERGES} beside the weights") from error
    return load_clip_tokenizer(NAME, place), [place / name for name in TOKENIZER_FILES if (place / name).is_file()]


def _choose_tokenizer(hub_id: str, names: Collection[str]) -> list[str]:
    del hub_id
    return [name for name in TOKENIZER_FILES if name in names]


def _from_merges(path: Path) -> Any:
    """CLIP's tokenizer from its merges alone: a token for every byte, for every byte that ends a word, and for every merge."""
    from transformers import CLIPTokenizer

    letters = _letters()
    try:
        lines = gzip.decompress(path.read_bytes()).decode("utf-8").split("\n")[1 : 1 + MERGES_READ]  # the first says what it is
        merges = [(left, right) for left, right in (line.split() for line in lines if line)]
        words = [*letters, *(f"{letter}</w>" for letter in letters), *(left + right for left, right in merges), *SPECIAL]
        return CLIPTokenizer(vocab={word: number for number, word in enumerate(words)}, merges=merges)
    except Exception as error:  # of zlib, of a line, or tokenizers' bare ones
        raise ModelError(f"{NAME}: {path}: cannot be read as CLIP's merges ({one_line(error)}); fetch it again") from error


def _letters() -> list[str]:
    """A letter that can be seen for each of the 256 bytes, in CLIP's order: first those that stand for themselves."""
    seen = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    return [chr(byte) for byte in seen] + [chr(256 + number) for number in range(256 - len(seen))]
