"""Ways to watch and to stop the making of a film."""

from collections.abc import Callable
from pathlib import Path

from mask2dit.production import FilmSettings

STEPS = 3
SETTINGS = FilmSettings(num_inference_steps=STEPS, display_scale=2)


class Watched:
    """Progress that writes down what it is told, and may call something at a given step of a stage."""

    def __init__(self, stage: str = "", step: int = 0, action: Callable[[], None] | None = None) -> None:
        self.seen: list[tuple[str, int, int]] = []
        self._stop = (stage, step)
        self._action = action
        self.now = ("", 0, 0)
        self.finished = True
        self._tell()

    def _tell(self) -> None:
        if self._action and (self.now[0], self.now[1]) == self._stop:
            self._action()

    def start(self, stage: str, total: int) -> None:
        self.now, self.finished = (stage, 0, total), False
        self._tell()

    def step(self) -> None:
        self.now = (self.now[0], self.now[1] + 1, self.now[2])
        self._tell()

    def done(self) -> None:
        self.finished = True
        self.seen.append(self.now)

    @property
    def stages(self) -> list[str]:
        return [stage for stage, _, _ in self.seen]


def press_control_c() -> None:
    raise KeyboardInterrupt


def files_in(folder: Path) -> dict[str, bytes]:
    """Every file of a folder by its name."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}
