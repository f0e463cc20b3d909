"""The attention backends by name, and which of them a device takes. All compute the same; see attention.

A kernel that diffusers can call, such as FlashAttention 3, is a backend, too: groups by that kernel.
"""

import logging
from importlib.util import find_spec

import torch
from diffusers import ModelMixin
from diffusers.models.attention_dispatch import AttentionBackendName, attention_backend
from torch.nn.functional import scaled_dot_product_attention

from mask2dit.attention import GroupedAttnProcessor, SceneAttention, SceneAttnProcessor
from mask2dit.errors import InputError, is_out_of_memory, one_line
from mask2dit.flex_attention import FlexAttnProcessor
from mask2dit.merged_attention import MergedAttnProcessor, find_kernel

logger = logging.getLogger(__name__)

BACKENDS: dict[str, type[SceneAttnProcessor]] = {
    "grouped": GroupedAttnProcessor,
    "merged": MergedAttnProcessor,
    "flex": FlexAttnProcessor,
}


DIFFUSERS_KERNELS = tuple(each.value for each in AttentionBackendName)
"""What diffusers can call, each on the devices and with the packages that it needs."""
OFF = 0.02  # of what is about 1, in 16 bits at most
INEXACT = "sage"  # in the names of those that round to 8 bits


def choose_attention(name: str, device: torch.device, dtype: torch.dtype, head_dim: int) -> str:
    """The backend to take: "auto" is merged where a kernel tells its log-sum-exp, and grouped elsewhere. Logs what "auto" took.

    Raises InputError for an unknown name, and for a backend that the device lacks.
    """
    if name not in ("auto", *BACKENDS, *DIFFUSERS_KERNELS):
        raise InputError(f"attention: got {name!r}, expected auto, {', '.join(BACKENDS)}, or a kernel of diffusers, such as _flash_3_hub")
    if name not in ("auto", *BACKENDS):
        problem = "it rounds to 8 bits" if INEXACT in name else kernel_problem(name, device, dtype, head_dim)
        if problem:
            raise InputError(f"attention: got {name} on {device.type}, expected an exact kernel that works there ({problem}); use auto")
        return name
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


def kernel_problem(name: str, device: torch.device, dtype: torch.dtype, head_dim: int) -> str | None:
    """Why a kernel of diffusers cannot be used; it is tried on a few tokens, and fetched if it is one from the Hub."""
    scratch = _OneAttention()
    generator = torch.Generator().manual_seed(0)
    states = [torch.randn(1, 128, 2, head_dim, generator=generator, device="cpu") for _ in range(3)]
    query, key, value = (each.transpose(1, 2) for each in states)
    expected = scaled_dot_product_attention(query, key, value).transpose(1, 2)
    try:
        with attention_backend("native"), torch.no_grad():  # puts diffusers' own choice back
            scratch.set_attention_backend(name)
            made = scratch.attention.processor.dispatch(*(each.to(device, dtype) for each in states))
    except Exception as error:  # a missing package, device or number format, each in words of its own
        if is_out_of_memory(error):
            raise  # says nothing of the kernel
        return one_line(error) or type(error).__name__
    off = float((made.cpu().float() - expected).abs().max())
    return None if off < OFF else f"its result is off by {off:.2g}"


class _OneAttention(ModelMixin):  # type: ignore[misc]
    def __init__(self) -> None:
        super().__init__()
        self.attention = SceneAttention(16, 1, 16, bias=False)
