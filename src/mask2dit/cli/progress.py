"""Progress on the terminal: a bar with the time left, or a line per stage where nobody watches it move."""

import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn


class Bars:
    """A bar per stage; finished ones stay, with the time they took."""

    def __init__(self, bars: Progress) -> None:
        self._bars = bars
        self._task: TaskID | None = None

    def start(self, stage: str, total: int) -> None:
        self._task = self._bars.add_task(stage, total=total)

    def step(self) -> None:
        if self._task is not None:
            self._bars.advance(self._task)

    def done(self) -> None:
        if self._task is not None:
            self._bars.update(self._task, completed=self._bars.tasks[-1].total)


class Lines:
    """A line when a stage ends: for logs and pipes."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._stage, self._began = "", 0.0

    def start(self, stage: str, total: int) -> None:
        self._stage, self._began = f"{stage} ({total})" if total > 1 else stage, time.perf_counter()

    def step(self) -> None:
        pass

    def done(self) -> None:
        self._console.print(f"{self._stage}: {time.perf_counter() - self._began:.1f} s", highlight=False)


@contextmanager
def shown_notes() -> Iterator[Console]:
    """Show this package's own warnings as notes on stderr; those of libraries are dropped."""
    console = Console(stderr=True)

    def note(message: Warning | str, *_: object) -> None:
        console.print(f"note: {message}", style="yellow", highlight=False, markup=False, soft_wrap=True)

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore")
        # The pipeline's call is wrapped by torch.no_grad, to which its warnings are attributed.
        warnings.filterwarnings("always", category=UserWarning, module=r"mask2dit\b|torch\.utils\._contextlib")
        warnings.showwarning = note  # type: ignore[assignment]
        yield console


@contextmanager
def shown_progress(console: Console) -> Iterator[Bars | Lines]:
    """Bars where somebody watches, else lines."""
    if not console.is_terminal:
        yield Lines(console)
        return
    columns = (
        TextColumn("{task.description:<10}"),
        BarColumn(bar_width=36),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as bars:
        yield Bars(bars)
