"""SIGTERM and Ctrl-C become a request that is met after the running step, with a checkpoint."""

import signal
import threading
from types import FrameType
from typing import Any, Self

from mask2dit.errors import Mask2DiTError


class TrainingStopped(Mask2DiTError):
    """A training was asked to stop; its checkpoint is written. `status`: the exit status that the signal stands for."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


class StopRequest:
    """Within the block, the first SIGTERM or SIGINT is noted in `signal`; a second one ends the process as usual."""

    def __init__(self) -> None:
        self.signal = 0
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._note) for number in (signal.SIGTERM, signal.SIGINT)}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, _: FrameType | None) -> None:
        self.signal = number
        signal.signal(number, self._before[number])


def leave_signals(_: int) -> None:
    """For data workers: a signal to the whole group of processes is the main one's to answer."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
