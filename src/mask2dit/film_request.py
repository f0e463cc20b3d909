"""What a film is asked to be, resolved once against what the model can make.

Owns the order of precedence (scene, then argument, then model) and the checks of numbers. Tensors belong to the pipeline.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, TypeAlias, TypeVar

from mask2dit.errors import InputError
from mask2dit.solvers import check_solver, make_scheduler
from mask2dit.step_caches import read_step_cache, words_of
from mask2dit.storyboard import Scene, Storyboard
from mask2dit.video_shape import Compression, VideoShape, num_frames_for

Number = TypeVar("Number", int, float)
PerScene: TypeAlias = Number | Sequence[Number] | None


@dataclass(frozen=True, slots=True)
class ModelValues:
    """A model's own values. `window`: scenes per call; `known_sets`: what it was trained for, "any" or "last"."""

    window: int
    known_sets: str
    height: int
    width: int
    num_frames: int
    fps: int
    num_inference_steps: int
    guidance_scale: float
    negative_prompt: str
    compression: Compression

    def saved(self) -> dict[str, int | float | str]:
        """The values that are kept in `model_index.json`; the compression follows from the components."""
        return {field.name: getattr(self, field.name) for field in fields(self) if field.name != "compression"}


@dataclass(frozen=True, slots=True)
class Shortcuts:
    """Fewer and cheaper steps, checked; all None is the model's own scheduler with nothing left out.

    `solver`: a name of solvers. `guidance_interval`: the share of the run (0 is pure noise, 1 is clean) in which negative prompts count
    (arXiv 2404.07724); in the rest, captions alone. `step_cache`: see step_caches; written with its number.
    """

    solver: str | None = None
    guidance_interval: tuple[float, float] | None = None
    step_cache: str | None = None

    def __post_init__(self) -> None:
        check_solver(self.solver)
        if self.guidance_interval is not None:
            _check_interval(self.guidance_interval)
        if self.step_cache is not None:
            object.__setattr__(self, "step_cache", words_of(read_step_cache(self.step_cache)))

    def guides(self, step: int, num_steps: int) -> bool:
        """Whether negative prompts count in a step, from 0."""
        start, end = self.guidance_interval or (0.0, 1.0)
        return start <= step / num_steps < end


def check_interval_matters(interval: tuple[float, float] | None, is_guided: bool) -> None:
    """Raise InputError for a guidance interval where no scene is guided."""
    if interval is not None and not is_guided:
        raise InputError(
            f"guidance interval: got {_written(interval)} and no scene with guidance above 1, expected one at least; raise guidance, or "
            "leave the interval out"
        )


def _written(interval: tuple[float, float]) -> str:
    return "-".join(f"{each:g}" for each in interval)


def _check_interval(interval: tuple[float, float]) -> None:
    if len(interval) != 2 or not 0 <= interval[0] < interval[1] <= 1:
        raise InputError(
            f"guidance interval: got {_written(interval)}, expected two shares of the run from 0 to 1, the smaller "
            "one first; use for example 0.0-0.6"
        )


@dataclass(frozen=True, slots=True)
class FilmRequest:
    """Every number of one film; tuples have one entry per scene. Without a storyboard there are no captions."""

    captions: tuple[str, ...]
    negative_prompts: tuple[str, ...]
    guidance_scale: tuple[float, ...]
    num_inference_steps: int
    shape: VideoShape
    fps: int
    shortcuts: Shortcuts = Shortcuts()

    @property
    def num_scenes(self) -> int:
        """The number of scenes, S."""
        return len(self.shape.num_frames)

    @property
    def num_frames(self) -> tuple[int, ...]:
        """Frames per scene."""
        return self.shape.num_frames

    @property
    def height(self) -> int:
        """Pixel rows, Y."""
        return self.shape.height

    @property
    def width(self) -> int:
        """Pixel columns, X."""
        return self.shape.width

    @property
    def is_guided(self) -> bool:
        """Whether any scene needs the negative branch."""
        return max(self.guidance_scale) > 1

    @property
    def num_guided_steps(self) -> int:
        """Steps in which the negative branch is computed, too."""
        return sum(self.guides(step) for step in range(self.num_inference_steps))

    def guides(self, step: int) -> bool:
        """Whether the negative branch is computed in a step, from 0."""
        return self.is_guided and self.shortcuts.guides(step, self.num_inference_steps)

    def effective_guidance(self, scene: int) -> float:
        """A scene's scale; 1 or less means the caption's prediction alone."""
        return max(self.guidance_scale[scene], 1.0)


def resolve_request(
    storyboard: Storyboard | Sequence[str] | None,
    values: ModelValues,
    height: int | None,
    width: int | None,
    num_frames: PerScene[int],
    num_inference_steps: int | None,
    guidance_scale: PerScene[float],
    negative_prompt: str | None,
    num_scenes: int | None,
    shortcuts: Shortcuts | None = None,
) -> FilmRequest:
    """Resolve and check; see `Mask2DiTPipeline.check`."""
    board = _as_storyboard(storyboard)
    scenes: Sequence[Scene | None] = board.scenes if board is not None else [None] * (num_scenes or 0)
    if not scenes:
        raise InputError("storyboard: got none, expected a Storyboard, a list of captions, or prompt_embeds")
    if num_scenes is not None and num_scenes != len(scenes):
        raise InputError(f"prompt_embeds: got {num_scenes} rows, expected one for each of {len(scenes)} scenes")
    steps = values.num_inference_steps if num_inference_steps is None else num_inference_steps
    if isinstance(steps, bool) or not isinstance(steps, int) or steps < 1:
        raise InputError(f"num_inference_steps: got {steps!r}, expected a whole number of at least 1")
    frames = _per_scene("num_frames", num_frames, values.num_frames, len(scenes))
    guidance = _per_scene("guidance_scale", guidance_scale, values.guidance_scale, len(scenes))
    guidance = [
        scale if scene is None or scene.guidance_scale is None else scene.guidance_scale
        for scene, scale in zip(scenes, guidance, strict=True)
    ]
    for index, scale in enumerate(guidance):
        if not math.isfinite(scale) or scale < 0:
            raise InputError(f"scene {index + 1}, guidance_scale: got {scale}, expected a number of at least 0, usually 1 to 10")
    default_negative = values.negative_prompt if negative_prompt is None else negative_prompt
    written = [scene for scene in scenes if scene is not None]
    return FilmRequest(
        captions=board.captions if board is not None else (),
        negative_prompts=tuple(default_negative if scene.negative_prompt is None else scene.negative_prompt for scene in written),
        guidance_scale=tuple(guidance),
        num_inference_steps=steps,
        shape=VideoShape(
            height=values.height if height is None else height,
            width=values.width if width is None else width,
            num_frames=tuple(_num_frames(scene, count, values) for scene, count in zip(scenes, frames, strict=True)),
            compression=values.compression,
        ),
        fps=values.fps,
        shortcuts=shortcuts or Shortcuts(),
    )


def check_steps(request: FilmRequest, scheduler: Any) -> None:
    """Raise InputError for more steps than the model's own scheduler has, or a solver that does not go with it."""
    limit = int(scheduler.config.num_train_timesteps)
    if request.num_inference_steps > limit:
        raise InputError(f"num_inference_steps: got {request.num_inference_steps}, expected 1 to {limit}")
    make_scheduler(request.shortcuts.solver, scheduler)


def _as_storyboard(storyboard: Storyboard | Sequence[str] | None) -> Storyboard | None:
    if storyboard is None or isinstance(storyboard, Storyboard):
        return storyboard and storyboard.shown()
    if isinstance(storyboard, str):
        raise InputError("storyboard: got one text, expected a list with one caption per scene; put it in a list")
    return Storyboard.from_captions(storyboard)


def _num_frames(scene: Scene | None, default: int, values: ModelValues) -> int:
    if scene is not None and scene.num_frames is not None:
        return scene.num_frames
    if scene is not None and scene.duration_seconds is not None:
        return num_frames_for(scene.duration_seconds, values.fps, values.compression.temporal)
    return default


def _per_scene(name: str, given: PerScene[Number], default: Number, num_scenes: int) -> list[Number]:
    if given is None or isinstance(given, int | float):
        return [default if given is None else given] * num_scenes
    if len(given) != num_scenes:
        raise InputError(f"{name}: got {len(given)} values, expected one, or one for each of {num_scenes} scenes")
    return list(given)
