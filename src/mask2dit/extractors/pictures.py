"""Pictures as they come → the numbers that a network reads: resized, cut, normalised.

Pillow resizes, as it did for all these networks when they were published; transformers' own processors would need torchvision.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from mask2dit.errors import InputError, ModelError, one_line
from mask2dit.extractors.base import Frames, Kind

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
FILES = ("preprocessor_config.json", "processor_config.json")
"""Where a model says how its pictures are prepared; the second is what transformers 5 writes."""
Many = TypeVar("Many", Frames, Tensor)

BATCH, SCENES = 32, 4
"""Pictures that go through a network at once."""

Numbers = tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Preparation:
    """How a picture becomes what a network reads: resized, the middle cut out, (value / 255 - mean) / std."""

    size: int | tuple[int, int]
    """Pixels of the shorter side, which keeps the proportions; or height and width, which does not."""
    crop: tuple[int, int] | None
    """Height and width of the middle that is cut out."""
    mean: Numbers
    std: Numbers
    resample: int
    """Pillow's number of the filter: 2 is bilinear, 3 bicubic; both look at all the pixels that they shrink."""

    @property
    def input_size(self) -> tuple[int, int]:
        """Height and width of what the network reads."""
        if self.crop is not None:
            return self.crop
        return (self.size, self.size) if isinstance(self.size, int) else self.size

    def __call__(self, pictures: Frames) -> Tensor:
        """[T, Y, X, 3] → [T, 3, height, width], float32 on the CPU."""
        resized = np.stack([self._resize(picture) for picture in pictures])
        values = torch.from_numpy(resized).permute(0, 3, 1, 2).float() / 255
        return (values - torch.tensor(self.mean)[:, None, None]) / torch.tensor(self.std)[:, None, None]

    def _resize(self, picture: Frames) -> Frames:
        height, width = picture.shape[:2]
        if isinstance(self.size, int):
            short = min(height, width)
            height, width = self.size * height // short, self.size * width // short  # rounded down, as published
        else:
            height, width = self.size
        image = Image.fromarray(np.ascontiguousarray(picture)).resize((width, height), Image.Resampling(self.resample))
        rows, columns = self.crop or (height, width)
        top, left = (height - rows) // 2, (width - columns) // 2
        return np.asarray(image)[top : top + rows, left : left + columns]


def read_preparation(extractor: str, folder: Path, family: Preparation) -> Preparation:
    """What a model's folder says of the preparation, and the family's values for what it does not say. Raises ModelError for nonsense."""
    path = next((folder / name for name in FILES if (folder / name).is_file()), None)
    if path is None:
        return family
    said = read_json(extractor, path)
    said = said.get("image_processor", said) if path.name == FILES[1] else said
    try:
        return _said(said, family)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ModelError(
            f"{extractor}: {path}: cannot be followed ({one_line(error)}), expected size, crop_size, image_mean, image_std and resample "
            "as transformers writes them; fetch the weights again"
        ) from None


def read_json(extractor: str, path: Path) -> dict[str, Any]:
    """An object from a file beside the weights; ModelError where there is none."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ModelError(f"{extractor}: {path}: no such file, expected it beside the weights; check the folder") from None
    except (OSError, ValueError) as error:
        raise ModelError(f"{extractor}: {path}: cannot be read as JSON ({one_line(error)}); fetch the weights again") from None
    if not isinstance(values, dict):
        raise ModelError(f"{extractor}: {path}: got a {type(values).__name__}, expected a JSON object; fetch the weights again")
    return values


def _said(said: dict[str, Any], family: Preparation) -> Preparation:
    for step in ("do_resize", "do_rescale", "do_normalize"):
        if said.get(step, True) is not True:
            raise ValueError(f"{step} is {said[step]!r}")
    if abs(float(said.get("rescale_factor", 1 / 255)) * 255 - 1) > 1e-3:
        raise ValueError(f"rescale_factor is {said['rescale_factor']!r}")
    size = _size(said["size"]) if "size" in said else family.size
    cut = said.get("do_center_crop")
    crop = _pair(said["crop_size"]) if said.get("crop_size") is not None else (size, size) if isinstance(size, int) else size
    mean, std = (tuple(map(float, said.get(key, own))) for key, own in (("image_mean", family.mean), ("image_std", family.std)))
    found = Preparation(
        size=size,
        crop=crop if cut or (cut is None and family.crop is not None) else None,
        mean=mean,
        std=std,
        resample=Image.Resampling(said.get("resample", family.resample)),
    )
    if isinstance(size, int) and found.crop is None:
        raise ValueError("pictures would keep their proportions and have no one size")
    resized = (size, size) if isinstance(size, int) else size
    if min(resized) < 1 or len(mean) != 3 or len(std) != 3 or min(std) <= 0:
        raise ValueError(f"got size {resized}, mean {mean}, std {std}")
    if found.crop is not None and not all(1 <= part <= whole for part, whole in zip(found.crop, resized, strict=True)):
        raise ValueError(f"{found.crop} pixels cannot be cut out of {resized}")
    return replace(found, resample=int(found.resample))


def _size(said: Any) -> int | tuple[int, int]:
    if isinstance(said, dict) and "shortest_edge" in said:
        return int(said["shortest_edge"])
    return int(said) if isinstance(said, int) else _pair(said)


def _pair(said: Any) -> tuple[int, int]:
    return (said, said) if isinstance(said, int) else (int(said["height"]), int(said["width"]))


def batches(pictures: Many, size: int = BATCH) -> Iterator[Many]:
    """At most `size` pictures, or scenes, at a time."""
    for start in range(0, len(pictures), size):
        yield pictures[start : start + size]


def check_pictures(extractor: str, pictures: Frames) -> None:
    """Raise InputError unless these are pictures."""
    shape, kind = getattr(pictures, "shape", None), getattr(pictures, "dtype", None)
    if kind != np.uint8 or shape is None or len(shape) != 4 or shape[3] != 3 or 0 in shape:
        got = type(pictures).__name__ if shape is None else f"{kind} {list(shape)}"
        raise InputError(f"{extractor}: pictures: got {got}, expected uint8 [T, Y, X, 3], at least one; convert them first")


def check_captions(extractor: str, captions: Sequence[str]) -> list[str]:
    """The captions as a list; InputError unless there is one."""
    if isinstance(captions, str) or not len(captions) or not all(isinstance(caption, str) for caption in captions):
        got = "one string" if isinstance(captions, str) else f"{len(captions)} of which not all are strings" if len(captions) else "none"
        raise InputError(f"{extractor}: captions: got {got}, expected a list of at least one caption; pass a list")
    return list(captions)


def lacking(extractor: str, kind: Kind, kinds: frozenset[Kind]) -> InputError:
    """The error for a kind of feature that an extractor has not got."""
    return InputError(f"{extractor}: has no features of kind {kind}, expected {' or '.join(sorted(kinds))}; choose another extractor")
