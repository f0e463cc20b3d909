"""The options that say which model makes a film and how it is kept in memory; one place for all commands."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    import torch

    from mask2dit.memory import Choice, Kept
    from mask2dit.pipeline import Mask2DiTPipeline
    from mask2dit.production import ModelAsked
    from mask2dit.video_shape import VideoShape

PANEL = "Model and memory"

Model = Annotated[str | None, typer.Option(help="A model folder, or a Hub id.", show_default="built-in", rich_help_panel=PANEL)]
Revision = Annotated[str | None, typer.Option(help="A branch, tag or commit of a Hub id.", show_default="main", rich_help_panel=PANEL)]
Offline = Annotated[bool, typer.Option("--offline", help="Use what was downloaded; contact nothing.", rich_help_panel=PANEL)]
Inp = Annotated[bool, typer.Option("--inp", help="Take a CogVideoX-Fun InP model, without its other inputs.", rich_help_panel=PANEL)]
Lora = Annotated[str | None, typer.Option(help="Adapters: a folder, a file, or a Hub id.", show_default=False, rich_help_panel=PANEL)]
Memory = Annotated[str | None, typer.Option(help="Stay within this, such as 12GiB.", show_default="what is free", rich_help_panel=PANEL)]
Weights = Annotated[str, typer.Option(help="plain; or, not exact: bf16, fp8-storage, fp8 or int8 (torchao).", rich_help_panel=PANEL)]
Device = Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1, mps, …", show_default="the best there is", rich_help_panel=PANEL)]
Dtype = Annotated[str | None, typer.Option(help="float32, bfloat16 or float16.", show_default="the model's", rich_help_panel=PANEL)]
Plan = Annotated[str | None, typer.Option(help="Attention plan.", show_default="the model's", rich_help_panel=PANEL)]
Attention = Annotated[
    str, typer.Option(help="auto, grouped, merged, flex, or a kernel of diffusers such as _flash_3_hub: all exact.", rich_help_panel=PANEL)
]
Compile = Annotated[bool, typer.Option("--compile", help="Compile the model's blocks: some time once, then faster.", rich_help_panel=PANEL)]


@dataclass(frozen=True, slots=True)
class Computing:
    """How a command computes: nothing that a film shows, and so no part of its record. `compiled`: the model's blocks are."""

    offline: bool = False
    memory: str | None = None
    device: str | None = None
    attention: str = "auto"
    compiled: bool = False


@dataclass(frozen=True, slots=True)
class ModelChoice:
    """What the options say, checked as far as that goes without weights."""

    folder: Path
    device: "torch.device"
    dtype: "torch.dtype"
    built_in: bool
    weights: str
    inp: bool
    computing: Computing

    def choose_memory(self, shape: "VideoShape", kept: "Kept", room: tuple[int, int | None] | None = None) -> "Choice | None":
        """The memory mode for a call of this shape; None for a small model where nobody asked, which is kept as it is.

        room: what `memory_room` said before anything was loaded; None asks it now.
        """
        from mask2dit.loading import choose_memory, is_large

        if not memory_is_asked(self.computing.memory, self.weights) and not is_large(self.folder):
            return None
        limit, main = room or memory_room(self.computing.memory, self.device)
        return choose_memory(
            self.folder,
            limit,
            device=self.device,
            dtype=self.dtype,
            shape=shape,
            kept=kept,
            inp=self.inp,
            weights=self.weights,
            main_bytes=main,
        )

    def load(self, choice: "Choice | None", captions: Sequence[str], plan: str | None, lora: str | None) -> "Mask2DiTPipeline":
        """The pipeline; where the text encoder is not to stay, captions are encoded first. Raises Mask2DiTError out of memory."""
        from mask2dit.cli.machine import cache_folder
        from mask2dit.errors import Mask2DiTError, is_out_of_memory
        from mask2dit.loading import load_pipeline

        computing = self.computing
        options: dict[str, Any] = {"plan": plan, "lora": lora, "offline": computing.offline, "inp": self.inp}
        options |= {"attention": computing.attention, "compile": computing.compiled}
        options |= {"prompt_cache": None if self.built_in else cache_folder() / "prompts", "captions": captions}
        try:
            return load_pipeline(self.folder, device=self.device, dtype=self.dtype, memory=choice, **options)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            remedy = choice.remedy() if choice else "close other programs, or use --memory to keep it in less"
            raise Mask2DiTError(f"out of memory while loading the model; {remedy}") from error


def chosen_model(asked: "ModelAsked", computing: Computing) -> ModelChoice:
    """Find the model, download it where it must be, and check its folder. Imports torch."""
    from mask2dit.attention_backends import choose_attention
    from mask2dit.errors import InputError
    from mask2dit.loading import find_model, own_dtype
    from mask2dit.model_folder import check_model_folder, load_config

    place, numbers = checked_machine(computing.memory, asked.weights, computing.device, asked.dtype, computing.compiled)
    folder = find_model(asked.model, revision=asked.revision, offline=computing.offline)
    check_model_folder(folder, inp=asked.inp)
    numbers = numbers or own_dtype(folder)
    if computing.offline and computing.attention.endswith("_hub"):
        raise InputError(f"--attention: got {computing.attention} with --offline, expected one that is installed; leave one of them out")
    if computing.attention != "auto":
        choose_attention(computing.attention, place, numbers, load_config(folder, "transformer")["attention_head_dim"])
    return ModelChoice(folder, place, numbers, asked.model is None, asked.weights, asked.inp, computing)


def checked_machine(
    memory: str | None, weights: str, device: str | None, dtype: str | None, compiled: bool = False
) -> "tuple[torch.device, torch.dtype | None]":
    """Check the options that need no model: where to compute, and in what, None for the model's own. Quietens libraries, imports torch."""
    import torch

    from mask2dit.cli.machine import checked_device, checked_dtype, use_all_cores
    from mask2dit.cli.quiet import quieten_libraries
    from mask2dit.errors import InputError
    from mask2dit.memory import parse_bytes
    from mask2dit.weight_formats import WEIGHTS

    quieten_libraries()
    use_all_cores()
    if weights not in WEIGHTS:
        raise InputError(f"--weights: got {weights!r}, expected {', '.join(WEIGHTS[:-1])} or {WEIGHTS[-1]}")
    if compiled and weights == "fp8-storage":
        raise InputError(
            "--compile: got it with --weights fp8-storage, which become others while a block computes, expected one of them; leave it out, "
            "or use --weights plain or int8"
        )
    if memory is not None:
        parse_bytes(memory)
    return torch.device(checked_device(device)), checked_dtype(dtype)


def memory_is_asked(memory: str | None, weights: str) -> bool:
    """Whether somebody has said how a model is to be kept; else a small one is kept as it is."""
    return memory is not None or weights != "plain"


def memory_room(memory: str | None, device: "torch.device") -> tuple[int, int | None]:
    """Bytes on the device, as asked or as free; and those free in main memory, None where that is the device's own.

    Of main memory, each of several processes on a machine may have its share; what is free is what each of them has.
    """
    from mask2dit.cli.together import least_room
    from mask2dit.memory import parse_bytes

    free, main = least_room(device)
    limit = parse_bytes(memory) if memory is not None else free
    return limit, main if device.type != "cpu" else None
