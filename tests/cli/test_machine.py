"""Threads and main memory of one process, and of several that share the machine."""

import os
from collections.abc import Iterator

import pytest
import torch

from mask2dit.cli.machine import free_bytes, processes_here, usable_cores, use_all_cores, wait_briefly
from mask2dit.cli.model_options import memory_room

CPU, ELSEWHERE = torch.device("cpu"), torch.device("meta")


@pytest.fixture(autouse=True)
def threads_as_before() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def together(monkeypatch: pytest.MonkeyPatch, processes: str) -> None:
    """As torchrun starts them."""
    for name, value in (
        ("RANK", "1"),
        ("LOCAL_RANK", "1"),
        ("WORLD_SIZE", processes),
        ("LOCAL_WORLD_SIZE", processes),
        ("MASTER_ADDR", ""),
    ):
        monkeypatch.setenv(name, value)


@pytest.mark.parametrize(
    ("said", "processes", "expected"),
    [(None, None, 6), (None, "3", 2), ("1", "3", 2), ("5", "3", 1), ("1", None, 1), (None, "40", 1)],
)
def test_processes_share_the_cores(said: str | None, processes: str | None, expected: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """torchrun says one thread where nobody has said anything; what a person says stays."""
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if said is not None:
        monkeypatch.setenv("OMP_NUM_THREADS", said)
    if processes is not None:
        together(monkeypatch, processes)
    monkeypatch.setattr("mask2dit.cli.machine.usable_cores", lambda: 6)
    torch.set_num_threads(8 if said is None and processes is None else 1 if said else 8)
    use_all_cores()
    assert torch.get_num_threads() == expected


def test_main_memory_is_shared_by_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mask2dit.cli.together.free_bytes", lambda device: 600 if device is None or device.type == "cpu" else 900)
    assert (memory_room(None, CPU), memory_room(None, ELSEWHERE), memory_room("1MiB", CPU)) == (
        (600, None),
        (900, 600),
        (2**20, None),
    )
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    assert processes_here() == 1  # other people's
    together(monkeypatch, "4")
    assert processes_here() == 4
    assert (memory_room(None, CPU), memory_room(None, ELSEWHERE)) == ((150, None), (900, 150))


@pytest.mark.parametrize("said", [{}, {"OMP_WAIT_POLICY": "ACTIVE"}, {"GOMP_SPINCOUNT": "7"}])
def test_threads_wait_briefly_unless_somebody_says_otherwise(said: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    names = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")
    for name in names:
        monkeypatch.setenv(name, "")  # so that it is put back
        monkeypatch.delenv(name)
    os.environ.update(said)
    wait_briefly()
    expected = dict.fromkeys(names) | said if said else {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "3000"}
    assert {name: os.environ.get(name) for name in names} == expected


def test_there_is_something_to_compute_with() -> None:
    assert usable_cores() >= 1 and free_bytes(None) > 2**20
