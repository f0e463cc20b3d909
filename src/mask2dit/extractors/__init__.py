"""Extractors by name. `mask2dit.extractors.base` says what they all do; each lives in a file of its name, with a function `load`.

Nothing heavy is imported before an extractor is loaded.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from mask2dit.errors import InputError, one_line
from mask2dit.extractors.base import Extractor

if TYPE_CHECKING:
    import torch

NAMES = ("viclip", "clip", "siglip2", "dinov2", "videomae", "i3d", "colours")


def load_extractor(name: str, weights: str | None = None, *, device: torch.device | str = "cpu", offline: bool = False) -> Extractor:
    """Load one of `NAMES`, in float32 and evaluation mode.

    weights: a folder, a file, or a Hub id, which is downloaded where it is not in the cache; None is the extractor's own Hub id; i3d has
    none, and colours needs no weights. offline: nothing is contacted. Raises InputError for an unknown name or device, ModelError where the
    weights are missing, damaged, of another network, or not exactly the tensors that are needed; each in one line.
    """
    if name not in NAMES:
        raise InputError(f"extractor: got {name!r}, expected one of {', '.join(NAMES)}; choose one of them")
    extractor: Extractor = import_module(f"mask2dit.extractors.{name}").load(weights, _usable(device), offline)
    return extractor


def _usable(device: torch.device | str) -> torch.device:
    import torch

    try:
        place = torch.device(device)
        torch.empty(1, device=place)
    except (RuntimeError, AssertionError) as error:  # torch asserts that it was built for a device
        raise InputError(
            f"device: got {str(device)!r}, expected one that torch can use here ({one_line(error, 100)}); try device cpu"
        ) from None
    return place
