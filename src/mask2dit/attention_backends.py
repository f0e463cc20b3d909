"""The attention backends by name, and which of them a device takes. All compute the same; see attention."""

import logging
from importlib.util import find_spec

import torch

from mask2dit.attention import GroupedAttnProcessor, SceneAttnProcessor
from mask2dit.errors import InputError
from mask2dit.flex_attention import FlexAttnProcessor
from mask2dit.merged_attention import MergedAttnProcessor, find_kernel

logger = logging.getLogger(__name__)

BACKENDS: dict[str, type[SceneAttnProcessor]] = {
    "grouped": GroupedAttnProcessor,
    "merged": MergedAttnProcessor,
    "flex": FlexAttnProcessor,
}


def choose_attention(name: str, device: torch.device, dtype: torch.dtype, head_dim: int) -> str:
    """The backend to take: "auto" is merged where a kernel tells its log-sum-exp, and grouped elsewhere. Logs what "auto" took.

    Raises InputError for an unknown name, and for a backend that the device lacks.
    """
    if name not in ("auto", *BACKENDS):
        raise InputError(f"attention: got {name!r}, expected auto, {', '.join(BACKENDS)}")
    where, numbers = str(device.type), str(dtype).removeprefix("torch.")
    if name == "flex" and device.type != "cuda":
        raise InputError(f"attention: got flex on {where}, expected a CUDA device; use auto, merged or grouped")
    if name == "flex" and find_spec("triton") is None:
        raise InputError("attention: got flex without triton, which compiles it; install triton, or use auto, merged or grouped")
    kernel = find_kernel(device, dtype, head_dim) if name in ("auto", "merged") else None
    if name == "merged" and kernel is None:
        raise InputError(f"attention: got merged on {where} in {numbers}, where no kernel tells its log-sum-exp; use auto or grouped")
    if name != "auto":
        return name
    chosen = "merged" if kernel else "grouped"
    logger.info("attention: %s on %s in %s%s", chosen, where, numbers, f", by {kernel.name}" if kernel else "")
    return chosen
