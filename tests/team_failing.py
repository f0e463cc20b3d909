"""The command of one of several processes, one of which fails on purpose: `torchrun tests/team_failing.py WHERE RANK generate …`."""

import os
import sys
from collections.abc import Callable
from typing import Any

import torch

import mask2dit.cli.together
import mask2dit.loading
from mask2dit.cli.main import main
from mask2dit.errors import InputError
from mask2dit.predictor import Predictor

CALLS_BEFORE = 2
LITTLE = 5 * 2**20


def fail(*_: Any, **__: Any) -> Any:
    raise torch.OutOfMemoryError("CUDA out of memory.")


def be_mistaken() -> Any:
    raise InputError("a mistake that process 1 alone meets")


def after_some(real: Any, end: Callable[[], Any]) -> Any:
    """A method that fails after some calls."""
    calls = iter(range(CALLS_BEFORE))

    def call(*given: Any) -> Any:
        return real(*given) if next(calls, None) is not None else end()

    return call


if __name__ == "__main__":
    where, rank = sys.argv.pop(1), sys.argv.pop(1)
    if os.environ["RANK"] == rank:
        if where == "loading":
            mask2dit.loading.load_pipeline = fail
        elif where == "crowded":
            mask2dit.cli.together.free_bytes = lambda _: LITTLE * int(os.environ["LOCAL_WORLD_SIZE"])
        else:
            Predictor._call = after_some(Predictor._call, be_mistaken if where == "mistaken" else fail)  # type: ignore[method-assign]
    main()
