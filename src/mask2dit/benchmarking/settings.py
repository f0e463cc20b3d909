"""What is measured: the sizes by name, and everything that the command says, checked before anything is measured."""

import inspect
import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import torch

from mask2dit.attention_backends import BACKENDS, DIFFUSERS_KERNELS, choose_attention, kernel_problem
from mask2dit.benchmarking.forms import BOOLEAN_MASK, NFOLD_COPY, UNMASKED
from mask2dit.errors import InputError
from mask2dit.loading import builtin_model
from mask2dit.model_folder import load_config, model_values
from mask2dit.published import COGVIDEOX_2B, COGVIDEOX_5B, Published
from mask2dit.scene_layout import SceneLayout
from mask2dit.transformer import Mask2DiTTransformer3DModel
from mask2dit.video_shape import Compression, VideoShape

SCENES = 3
SCENE_COUNTS = (1, 2, 3, 6, 12)
PLAN = "symmetric"
ROUNDS = 5
HEADS_ON_CPU = 4  # heads are alike and computed one after the other, so fewer of them say the same
ROOM = 0.9  # of the memory that is free
CUDA_KERNELS = ("_native_cudnn", "_native_flash", "_flash_3")  # beside ours, where nobody asks for some by name
# For attention in one direction; for the variants of a step; for its numbers of scenes.
SECONDS = {"cuda": (300.0, 600.0, 700.0), "cpu": (200.0, 90.0, 120.0), "quick": (15.0, 6.0, 6.0)}
STEP_SECONDS = {"cuda": 20.0, "cpu": 4.0, "quick": 0.5}  # of one step at most, as far as fewer blocks can keep it so

Video = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class Size:
    """A model's widths, and frames, height and width of one scene: a whole one, one for a CPU, one for `--quick`, one for attention alone.

    `config`: of the transformer, with everything that differs from its defaults.
    """

    name: str
    config: Mapping[str, Any]
    compression: Compression
    whole: Video
    on_cpu: Video
    quick: Video
    attention_on_cpu: Video
    attention_quick: Video


def size_names() -> tuple[str, ...]:
    """What can be asked for."""
    return ("playhouse", "2b", "5b")


def find_size(name: str) -> Size:
    """Look a size up by its name; InputError names the choices."""
    if name == "playhouse":
        folder = builtin_model()
        values = model_values(folder)
        own = (values.num_frames, values.height, values.width)
        config = {key: value for key, value in load_config(folder, "transformer").items() if not key.startswith("_")}
        # Attention at more pixels than the model's films have, or starting it would be all that there is to measure.
        return Size(name, config, values.compression, own, own, own, attention_on_cpu=(17, 128, 192), attention_quick=(9, 128, 192))
    published = {"2b": COGVIDEOX_2B, "5b": COGVIDEOX_5B}
    if name not in published:
        raise InputError(f"--size: got {name!r}, expected {', '.join(size_names()[:-1])} or {size_names()[-1]}")
    return _published(name, published[name])


def _published(name: str, model: Published) -> Size:
    values = model.values()
    whole = (values.num_frames, values.height, values.width)
    return Size(name, model.transformer, values.compression, whole, (5, 240, 352), (1, 96, 144), (5, 240, 352), (5, 128, 192))


@dataclass(frozen=True, slots=True)
class Settings:
    """`forms`: of attention, in the order in which they are shown. `absent`: those that this machine lacks, and why.

    `seconds`: what attention may take in each direction, and what either part of the step may, by estimate; `step_seconds`: one step.
    """

    size: Size
    device: torch.device
    dtype: torch.dtype
    video: Video
    attention_video: Video
    scenes: int
    scene_counts: tuple[int, ...]
    rounds: int
    backward: bool
    compiled: bool
    backends: tuple[str, ...]
    absent: Mapping[str, str]
    seconds: tuple[float, float, float]
    step_seconds: float

    @property
    def forms(self) -> tuple[str, ...]:
        """Of attention, in the order in which they are shown."""
        return (*self.floors, *self.backends, BOOLEAN_MASK, NFOLD_COPY)

    @property
    def floors(self) -> tuple[str, ...]:
        """The unmasked softmax by what diffusers takes unasked, and by every other kernel that is measured."""
        return (UNMASKED, *(f"{UNMASKED} by {name}" for name in self.backends if name in DIFFUSERS_KERNELS))

    @property
    def backend(self) -> str:
        """The one of ours that a film would take."""
        try:
            chosen = choose_attention("auto", self.device, self.dtype, self.model_config["attention_head_dim"])
        except InputError:
            chosen = "grouped"
        return chosen if chosen in self.backends else self.backends[0]

    @property
    def model_config(self) -> Mapping[str, Any]:
        """All of it, defaults too."""
        return _whole_config(self.size)

    @property
    def attention_heads(self) -> int:
        """Heads that attention alone is measured with."""
        heads: int = self.model_config["num_attention_heads"]
        return heads if self.device.type == "cuda" else min(heads, HEADS_ON_CPU)

    def shape(self, scenes: int, video: Video | None = None) -> VideoShape:
        """A film of so many scenes."""
        frames, height, width = video or self.video
        return VideoShape(height, width, (frames,) * scenes, self.size.compression)

    def attention_layout(self, scenes: int) -> SceneLayout:
        """The tokens that attention alone is measured on."""
        return self.shape(scenes, self.attention_video).layout(self.model_config["max_text_seq_length"])


def _whole_config(size: Size) -> dict[str, Any]:
    defaults = inspect.signature(Mask2DiTTransformer3DModel.__init__).parameters
    return {name: each.default for name, each in defaults.items() if name != "self"} | dict(size.config)


def choose_settings(
    size: str | None = None,
    *,
    device: torch.device,
    dtype: torch.dtype | None = None,
    scenes: int = SCENES,
    frames: int | None = None,
    height: int | None = None,
    width: int | None = None,
    backends: Sequence[str] = (),
    backward: bool = False,
    compiled: bool | None = None,
    rounds: int = ROUNDS,
    quick: bool = False,
) -> Settings:
    """What to measure; None and () leave the choice to the device. Raises InputError for what this device cannot do."""
    is_cuda = device.type == "cuda"
    pace = "quick" if quick else "cuda" if is_cuda else "cpu"
    found = find_size(size or ("5b" if is_cuda and not quick else "playhouse"))
    numbers = dtype or (torch.bfloat16 if is_cuda else torch.float32)
    own = found.quick if quick else found.whole if is_cuda else found.on_cpu
    alone = found.attention_quick if quick else found.whole if is_cuda else found.attention_on_cpu
    asked = (frames, height, width)
    taken, absent = _find_backends(backends, device, numbers, _whole_config(found)["attention_head_dim"])
    settings = Settings(
        size=found,
        device=device,
        dtype=numbers,
        video=_asked(own, asked),
        attention_video=_asked(alone, asked),
        scenes=scenes,
        scene_counts=tuple(sorted({*SCENE_COUNTS, scenes})),
        rounds=rounds,
        backward=backward,
        compiled=is_cuda and not quick if compiled is None else compiled,
        backends=taken,
        absent=absent,
        seconds=SECONDS[pace],
        step_seconds=STEP_SECONDS[pace],
    )
    settings.shape(scenes)  # raises for a size that cannot be
    return settings


def _asked(own: Video, asked: tuple[int | None, int | None, int | None]) -> Video:
    frames, height, width = (given or default for given, default in zip(asked, own, strict=True))
    return frames, height, width


def _find_backends(
    asked: Sequence[str], device: torch.device, dtype: torch.dtype, head_dim: int
) -> tuple[tuple[str, ...], Mapping[str, str]]:
    """Those that work, and why the others do not. Raises InputError where one was asked for that does not."""
    names = tuple(dict.fromkeys(asked)) or (*BACKENDS, *(CUDA_KERNELS if device.type == "cuda" else ()))
    taken, absent = [], {}
    for name in names:
        if name not in BACKENDS and name not in DIFFUSERS_KERNELS:
            raise InputError(
                f"--backend: got {name!r}, expected {', '.join(BACKENDS)}, or a kernel of diffusers, such as _flash_3_hub; leave it out "
                "for all that work here"
            )
        problem = _problem_of(name, device, dtype, head_dim)
        if problem is None:
            taken.append(name)
        elif asked:
            raise InputError(f"--backend: got {name}, which does not work on {device} ({problem}); leave it out to measure what does")
        else:
            absent[name] = problem
    return tuple(taken), absent


def _problem_of(name: str, device: torch.device, dtype: torch.dtype, head_dim: int) -> str | None:
    """Why a backend cannot be used; it is tried on a few tokens, but for flex, which would be compiled for them."""
    if name not in BACKENDS:
        return kernel_problem(name, device, dtype, head_dim)
    try:
        choose_attention(name, device, dtype, head_dim)
    except InputError as error:
        return str(error).removeprefix("attention: ")
    return None


def free_bytes(device: torch.device) -> int:
    """Memory that is free on a device, with what torch keeps for later there."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
        return int(torch.cuda.mem_get_info(device)[0])
    return int(psutil.virtual_memory().available)


def check_output(folder: Path) -> None:
    """Raise InputError unless files can be written there; makes the folder."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=folder)
        os.close(handle)
        Path(name).unlink()
    except OSError as error:
        raise InputError(
            f"--output: got {folder}, where nothing can be written ({error.strerror or error}); choose another place"
        ) from None
