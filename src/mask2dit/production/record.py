"""What a film's folder says about itself in run.json, and when two runs make the same latents."""

import hashlib
import json
import math
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from mask2dit.errors import InputError
from mask2dit.film import choose_scale
from mask2dit.storyboard import LARGEST_SEED
from mask2dit.video_shape import check_num_frames


@dataclass(frozen=True, slots=True)
class FilmSettings:
    """What a command may say beside the storyboard; None is the model's own value. A scene's own value goes first."""

    seed: int = 0
    height: int | None = None
    width: int | None = None
    num_inference_steps: int | None = None
    guidance_scale: float | None = None
    num_frames: int | None = None
    negative_prompt: str | None = None
    display_scale: int | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.seed <= LARGEST_SEED:
            raise InputError(f"seed: got {self.seed}, expected a whole number from 0 to {LARGEST_SEED}; use for example 7")
        if self.guidance_scale is not None and not (math.isfinite(self.guidance_scale) and self.guidance_scale >= 0):
            raise InputError(f"guidance scale: got {self.guidance_scale}, expected a number of at least 0; use for example 6")
        choose_scale(1, self.display_scale)
        if self.num_frames is not None:
            check_num_frames(self.num_frames, "frames per scene")

    def asked(self) -> dict[str, Any]:
        """What `Mask2DiTPipeline.check` and `loading.check_film` take."""
        names = ("height", "width", "num_inference_steps", "guidance_scale", "num_frames", "negative_prompt")
        return {name: getattr(self, name) for name in names}


class SceneRecord(BaseModel):
    """One scene of run.json; `latents` and `video` are file names in the folder once they are written."""

    model_config = ConfigDict(frozen=True)

    number: int
    caption: str
    seed: int
    num_frames: int
    guidance_scale: float
    latents: str | None = None
    video: str | None = None


class FilmRecord(BaseModel):
    """run.json: how the film was made, how far it came, and what it took."""

    model_config = ConfigDict(frozen=True)

    status: Literal["running", "complete", "interrupted", "failed"] = "running"
    stage: str = "encoding"
    model: str
    attention_plan: str
    digest: str
    height: int
    width: int
    display_scale: int
    fps: float
    num_inference_steps: int
    scenes: tuple[SceneRecord, ...]
    storyboard: dict[str, Any]
    versions: dict[str, str]
    timings_seconds: dict[str, float] = {}

    @property
    def title(self) -> str:
        captions = [scene.caption for scene in self.scenes]
        return str(self.storyboard.get("title") or next(iter(captions), "untitled"))

    @property
    def duration_seconds(self) -> float:
        return sum(scene.num_frames for scene in self.scenes) / self.fps


def installed_versions() -> dict[str, str]:
    """Of everything that may change a pixel."""
    names = ("mask2dit", "torch", "diffusers", "transformers", "av")
    return {"python": platform.python_version()} | {name: version(name) for name in names}


def digest_of(facts: Mapping[str, Any]) -> str:
    """A short name for everything that the latents follow from: equal digests, equal latents."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True, ensure_ascii=True).encode()).hexdigest()[:16]
