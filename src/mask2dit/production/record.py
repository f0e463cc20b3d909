"""What a film's folder says about itself in run.json: scenes, their takes, how each was made, and how far a run came."""

import hashlib
import json
import math
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from mask2dit.cuts import FilmCheck
from mask2dit.errors import InputError
from mask2dit.film import choose_scale
from mask2dit.film_request import Shortcuts
from mask2dit.storyboard import LARGEST_SEED
from mask2dit.video_shape import check_num_frames

FORMAT = 2
NOT_READ = "not read"  # of weights, before they are loaded


@dataclass(frozen=True, slots=True)
class FilmSettings:
    """What a command may say beside the storyboard; None is the model's own value. A scene's own value goes first.

    `window`: scenes made together at most; 1 makes each by itself. `solver`, `guidance_interval`, `step_cache`: see `Shortcuts`.
    """

    seed: int = 0
    height: int | None = None
    width: int | None = None
    num_inference_steps: int | None = None
    guidance_scale: float | None = None
    num_frames: int | None = None
    negative_prompt: str | None = None
    display_scale: int | None = None
    window: int | None = None
    solver: str | None = None
    guidance_interval: tuple[float, float] | None = None
    step_cache: str | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.seed <= LARGEST_SEED:
            raise InputError(f"seed: got {self.seed}, expected a whole number from 0 to {LARGEST_SEED}; use for example 7")
        if self.guidance_scale is not None and not (math.isfinite(self.guidance_scale) and self.guidance_scale >= 0):
            raise InputError(f"guidance scale: got {self.guidance_scale}, expected a number of at least 0; use for example 6")
        choose_scale(1, self.display_scale)
        if self.window is not None and self.window < 1:
            raise InputError(f"window: got {self.window}, expected at least one scene; use for example 3")
        if self.num_frames is not None:
            check_num_frames(self.num_frames, "frames per scene")
        _ = self.shortcuts  # checks them

    @property
    def shortcuts(self) -> Shortcuts:
        """Which steps are left out or made cheaper."""
        return Shortcuts(self.solver, self.guidance_interval, self.step_cache)

    def asked(self) -> dict[str, Any]:
        """What `Mask2DiTPipeline.check` and `loading.check_film` take."""
        names = ("height", "width", "num_inference_steps", "guidance_scale", "num_frames", "negative_prompt")
        return {name: getattr(self, name) for name in names} | {"shortcuts": self.shortcuts}


@dataclass(frozen=True, slots=True)
class ModelAsked:
    """Which model a film was asked of, as `load_pipeline` takes it; None is the built-in one, or the model's own value.

    `stamp`: of the folder's files as they were, to find out without reading them whether they are the same still.
    """

    model: str | None = None
    revision: str | None = None
    inp: bool = False
    lora: str | None = None
    plan: str | None = None
    dtype: str | None = None
    weights: str = "plain"
    stamp: str | None = None

    @property
    def name(self) -> str:
        return self.model or "built-in"


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class SceneInputs(_Record):
    """What one scene is made from; `caption` has the characters' descriptions in it, `given` is the digest of a given video."""

    caption: str
    negative_prompt: str
    seed: int
    num_frames: int
    guidance_scale: float
    given: str | None = None


class MadeWith(_Record):
    """What all scenes of a film are made with. `weights`: fingerprint of the networks as they were."""

    model: str
    weights: str
    lora: str | None
    attention_plan: str
    scheduler: str
    height: int
    width: int
    fps: float
    num_inference_steps: int
    solver: str | None = None
    guidance_interval: tuple[float, float] | None = None
    step_cache: str | None = None

    @property
    def steps(self) -> str:
        """How many, and what is not as the model was trained: "20", or "12 of dpm++, guided from 0 to 0.6"."""
        words = f"{self.num_inference_steps}{f' of {self.solver}' if self.solver else ''}"
        guided = f"guided from {self.guidance_interval[0]:g} to {self.guidance_interval[1]:g}" if self.guidance_interval else None
        return ", ".join(filter(None, (words, guided, self.step_cache)))

    def fits(self, other: "MadeWith", anything: bool) -> bool:
        """Whether scenes made so go into a film made with `other`; anything: of another model, too, if size and rate are the same."""
        names = ("height", "width", "fps") if anything else tuple(MadeWith.model_fields.keys() - {"model", "lora"})
        return all(getattr(self, name) == getattr(other, name) for name in names)


class KnownScene(_Record):
    """A scene that was known, by its own number, and the digest of its latents."""

    scene: int
    latents: str


class Take(_Record):
    """One making of a scene: its files lie in takes/.

    `scene`: the scene's own number. `jointly`: own numbers of the scenes made in the same call, `known`: those that were known there.
    `latents`: digest of the file. `display_scale`, `video_bytes`: of its video, None while there is none; at another scale the video is
    made anew from the latents, which never change. `set_aside`: not to be taken up by itself.
    """

    scene: int
    number: int
    prompt: str
    inputs: SceneInputs
    made_with: MadeWith
    jointly: tuple[int, ...] = ()
    known: tuple[KnownScene, ...] = ()
    latents: str
    display_scale: int | None = None
    video_bytes: int | None = None
    set_aside: bool = False
    versions: dict[str, str] = {}


class SceneRecord(_Record):
    """A scene of the storyboard. `number` is its own: it keeps it when others come and go; `take` is the one that the film shows."""

    number: int
    prompt: str
    inputs: SceneInputs
    take: int | None = None
    skip: bool = False


class Process(_Record):
    """Who is at work on the folder."""

    pid: int
    host: str


class FilmRecord(_Record):
    """run.json: the film's scenes in order, every take there is, and what the last run came to."""

    format: Literal[2] = 2
    status: Literal["running", "complete", "interrupted", "failed"] = "running"
    stage: str = "encoding"
    process: Process | None = None
    settings: FilmSettings
    asked: ModelAsked
    made_with: MadeWith
    display_scale: int
    fresh: bool = False
    """Made with every scene again; while that goes on, takes from before are set aside."""
    scenes: tuple[SceneRecord, ...]
    takes: tuple[Take, ...] = ()
    joined: tuple[tuple[int, int, int, int], ...] = ()
    """What film.mp4 consists of: scene number in the storyboard, own number, take, display scale."""
    storyboard: dict[str, Any]
    before: dict[str, Any] | None = None
    """What storyboard.yaml held when the film was complete and that file was still to be written; None at any other time."""
    versions: dict[str, str]
    timings_seconds: dict[str, float] = {}
    check: FilmCheck | None = None

    @property
    def title(self) -> str:
        return str(self.storyboard.get("title") or next((scene.inputs.caption for scene in self.scenes), "untitled"))

    @property
    def shown(self) -> list[tuple[int, SceneRecord]]:
        """The scenes of the film with their numbers in the storyboard, from 1."""
        return [(number, scene) for number, scene in enumerate(self.scenes, start=1) if not scene.skip]

    @property
    def duration_seconds(self) -> float:
        return sum(scene.inputs.num_frames for _, scene in self.shown) / self.made_with.fps

    def take(self, scene: int, number: int | None) -> Take | None:
        """A take by the scene's own number and its own."""
        return next((take for take in self.takes if (take.scene, take.number) == (scene, number)), None)

    def takes_of(self, scene: int) -> list[Take]:
        return [take for take in self.takes if take.scene == scene]

    @property
    def composition(self) -> tuple[tuple[int, int, int, int], ...]:
        """What the film would consist of now; complete only when every scene has a take with a video."""
        return tuple((number, scene.number, scene.take or 0, self.display_scale) for number, scene in self.shown)


def installed_versions() -> dict[str, str]:
    """Of everything that may change a pixel."""
    names = ("mask2dit", "torch", "diffusers", "transformers", "av")
    return {"python": platform.python_version()} | {name: version(name) for name in names}


def digest_of(facts: Mapping[str, Any]) -> str:
    """A short name for facts: equal digests, equal facts."""
    return digest_of_bytes(json.dumps(facts, sort_keys=True, ensure_ascii=True).encode())


def digest_of_bytes(content: bytes) -> str:
    """A short name for the content of a file."""
    return hashlib.sha256(content).hexdigest()[:16]


def digest_of_file(path: Path) -> str:
    """The same, of a file of any size."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]
