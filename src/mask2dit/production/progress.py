"""How the making of a film tells what it is at."""

from typing import Protocol


class Progress(Protocol):
    """Told of every stage as it begins, of each of its steps, and of its end; an interrupted stage is not ended."""

    def start(self, stage: str, total: int) -> None: ...

    def step(self) -> None: ...

    def done(self) -> None: ...


class Silent:
    """Progress that nobody watches."""

    def start(self, stage: str, total: int) -> None:
        pass

    def step(self) -> None:
        pass

    def done(self) -> None:
        pass
