"""What every test may use: a tiny model folder, made once."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # for the processes that tests start, as `one_thread` is for this one

import pytest
import torch

import tiny


@pytest.fixture(scope="session", autouse=True)
def interrupts() -> None:
    """Ctrl-C is tested; shells have what they start in the background ignore it, and so all that is started from there."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> Iterator[None]:
    """Tiny tensors lose more by waiting for a second core than they gain."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny random model folder, only to be read."""
    return tiny.save_pipeline(tmp_path_factory.mktemp("tiny") / "model")
