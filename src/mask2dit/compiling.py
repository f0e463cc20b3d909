"""Regional compilation: a block is compiled once, and all blocks of a transformer run what came of it.

Blocks are compiled inside of the hooks that diffusers puts around them, so step caches by whole blocks and offloading go on working.
"""

from typing import Any

import torch

from mask2dit.errors import InputError, one_line

MOST_KERNELS = 10_000  # of one block: each layout of scenes has its own, under context-blind each set of known ones; torch stops at 8


def compile_blocks(transformer: Any, device: torch.device, remedy: str) -> None:
    """Compile a transformer's blocks, at their first call; do it before memory modes are applied. Exact but for rounding.

    remedy: what to do without a compiler. Raises InputError, in one line, where torch.compile has none that works on the device.
    """
    try:
        torch.compile(lambda tensor: tensor * 2 + 1)(torch.ones(8, device=device))
    except Exception as error:  # each platform's compiler fails in its own way
        raise InputError(f"compile: does not work here ({one_line(error)}); {remedy}") from None
    allow_kernels()
    transformer.compile_repeated_blocks(fullgraph=True)


def allow_kernels() -> None:
    """Let torch compile one function for as many inputs as films have."""
    config = torch._dynamo.config
    config.recompile_limit = max(config.recompile_limit, MOST_KERNELS)
    config.accumulated_recompile_limit = max(config.accumulated_recompile_limit, MOST_KERNELS)
