"""How a model is kept in memory: the modes, what each takes, and which one fits a limit.

What a mode takes is counted (footprint) on the networks and the video that are asked for. Modes that give the same film are tried from
the fastest to the smallest; weights in 8 bits change the film a little, so they are taken only when they are asked for by name.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from math import ceil
from typing import Any, Literal

import torch
from torch import nn

from mask2dit.errors import InputError
from mask2dit.footprint import Footprint, footprint
from mask2dit.framewise import use_framewise_convolutions
from mask2dit.latents import decode_latents, use_tiles
from mask2dit.scene_layout import SceneLayout
from mask2dit.sequence_parallel import SequenceParallel, branches_of
from mask2dit.step_caches import read_step_cache, tensors_of
from mask2dit.text import encode_tokens
from mask2dit.video_shape import VideoShape
from mask2dit.weight_formats import WEIGHTS, Weights, num_weight_bytes

Offload = Literal["none", "model", "group", "disk"]

GIB = 2**30
UNITS = {"gib": GIB, "g": GIB, "gb": 10**9, "mib": 2**20, "m": 2**20, "mb": 10**6}
BASE_BYTES = {"cuda": int(0.8 * GIB), "cpu": int(0.6 * GIB)}  # of CUDA itself; of Python with its libraries
SPARE = 0.1  # of what is made on the way: workspaces of kernels, and what the allocator cannot use
BLOCKS_AT_HAND = 2  # with group offload: the block that computes, and the next one
PINNED = 2  # memory that a stream copies from is handed out in powers of two, so it may be almost twice what it holds


@dataclass(frozen=True, slots=True)
class MemoryMode:
    """One way to keep a model. The default keeps all of it on the device.

    `text_first`: the text encoder is loaded when a caption needs it and is let go before the transformer computes. `offload`: what waits
    elsewhere: whole networks in main memory ("model"), or the transformer's blocks in main memory ("group") or on disk ("disk").
    `tiled_vae`: frames are decoded in overlapping tiles. `weights`: the transformer's linear layers as they are, stored and multiplied in
    bfloat16 ("bf16": faster on CPUs that have it), stored in 8-bit floats and computed as ever ("fp8-storage"), or in torchao's 8-bit
    weights ("fp8", "int8").
    """

    text_first: bool = False
    offload: Offload = "none"
    tiled_vae: bool = False
    weights: Weights = "plain"

    @property
    def sentence(self) -> str:
        """What it does, for a person."""
        parts = ["text encoder let go"] if self.text_first else []
        parts += {"none": [], "model": ["one network at a time on the device"]}.get(
            self.offload, [f"transformer block by block from {'main memory' if self.offload == 'group' else 'disk'}"]
        )
        parts += ["VAE in tiles"] if self.tiled_vae else []
        parts += {
            "plain": [],
            "bf16": ["linear layers in bfloat16 (approximate)"],
            "fp8-storage": ["transformer stored in 8-bit floats (approximate)"],
            "fp8": ["8-bit floating-point weights (approximate)"],
            "int8": ["8-bit integer weights (approximate)"],
        }[self.weights]
        return ", ".join(parts) if parts else "everything at once"


@dataclass(frozen=True, slots=True)
class Part:
    """One network: bytes of its weights, of its largest block, of what lies outside of its blocks, and what one call of it takes."""

    weights: int
    block: int
    outside: int
    call: Footprint

    @property
    def working(self) -> int:
        """Bytes made by a call, with spare."""
        return ceil(self.call.peak_bytes * (1 + SPARE))


@dataclass(frozen=True, slots=True)
class Kept:
    """What a denoising keeps from step to step, in each of so many guidance branches, and by how many processes it is done.

    `context_frames`: latent frames of known scenes whose keys and values are kept, under a plan that allows it. `step_cache`: its name.
    `processes`: among which all of it is shared out, and what is made on the way where several have one branch.
    """

    branches: int = 1
    context_frames: int = 0
    step_cache: str | None = None
    processes: int = 1

    @property
    def processes_of_branch(self) -> int:
        """Among how many one sequence is shared out."""
        return self.processes // branches_of(self.processes, guided=self.branches == 2)

    def num_bytes(self, transformer: Any, layout: SceneLayout, frames: int) -> int:
        """In the transformer's number format, for `frames` latent frames of all scenes."""
        width: int = transformer.config.num_attention_heads * transformer.config.attention_head_dim * transformer.dtype.itemsize
        layers: int = transformer.config.num_layers
        tokens = 2 * layers * self.context_frames * (layout.num_video_tokens // frames)
        if self.step_cache is not None:
            tokens += layout.num_tokens * tensors_of(read_step_cache(self.step_cache), layers)
        return -(-self.branches * tokens * width // self.processes)


NOTHING = Kept()


@dataclass(frozen=True, slots=True)
class Needs:
    """What one film takes by network. `text` is one caption, `transformer` one prediction for all scenes, `vae` the longest scene."""

    text: Part | None
    transformer: Part
    vae: Part
    tiled_vae_bytes: int
    quantized: Mapping[Weights, int]
    """Bytes of the transformer's weights, by what they are kept in."""
    kept_bytes: int = 0
    """Of what a denoising keeps from step to step."""

    def stages(self, mode: MemoryMode, *, ahead: bool = True) -> dict[str, int]:
        """Bytes on the device at the fullest moment of each stage, without the base.

        ahead: captions are encoded before the other networks are loaded, where the mode lets the text encoder go.
        """
        whole, blockwise = mode.offload == "none", mode.offload in ("group", "disk")
        transformer, share = self.quantized[mode.weights], self.quantized[mode.weights] / self.quantized["plain"]
        text, text_working = (self.text.weights, self.text.working) if self.text else (0, 0)
        decoding = ceil(self.tiled_vae_bytes * (1 + SPARE)) if mode.tiled_vae else self.vae.working
        if self.text and blockwise:
            text = self.text.outside + BLOCKS_AT_HAND * self.text.block
        # What waits on the device while another network works. Block by block, the VAE stays there.
        beside = transformer + self.vae.weights if whole else self.vae.weights if blockwise else 0
        text_beside = text if whole and not mode.text_first else 0
        if blockwise:
            transformer = self.transformer.outside + ceil(BLOCKS_AT_HAND * self.transformer.block * share)
        vae_beside = 0 if mode.offload == "model" else self.vae.weights
        return {
            "encoding": text + text_working + (0 if mode.text_first and ahead else beside),
            "denoising": transformer + self.transformer.working + self.kept_bytes + vae_beside + text_beside,
            "decoding": self.vae.weights + decoding + (beside - vae_beside) + text_beside,
        }

    def waiting(self, mode: MemoryMode) -> int:
        """Bytes of main memory for what waits there while it is not on the device; the text encoder passes through it before."""
        if mode.offload not in ("model", "group"):
            return 0
        rest = PINNED * self.quantized[mode.weights] if mode.offload == "group" else self.quantized[mode.weights] + self.vae.weights
        return max(rest, self.text.weights if self.text else 0)


@dataclass(frozen=True, slots=True)
class Choice:
    """The mode that was taken for a limit, and why. `ladder`: every mode that was looked at, with its bytes, from the fastest on."""

    mode: MemoryMode
    peak_bytes: int
    stages: Mapping[str, int]
    limit_bytes: int | None
    ladder: tuple[tuple[MemoryMode, int], ...]
    skipped: str | None = None
    """Why the next larger mode was not taken; None where this is the first."""

    def lines(self) -> list[str]:
        """What was chosen and why, for a person."""
        fullest = max(self.stages, key=self.stages.__getitem__)
        limit = f" of {gib(self.limit_bytes)}" if self.limit_bytes is not None else ""
        lines = [f"memory: {self.mode.sentence}; about {gib(self.peak_bytes)}{limit}, at its fullest while {fullest}"]
        return [*lines, f"        because {self.skipped}"] if self.skipped else lines

    def remedy(self) -> str:
        """What to try after the device ran out of memory all the same."""
        smaller = [(mode, peak) for mode, peak in self.ladder[self._place() + 1 :] if peak < self.peak_bytes]
        if not smaller:
            return "this is the smallest setting; make smaller pictures or fewer frames (--height, --width, --frames)"
        mode, peak = smaller[0]
        rounded = ceil(peak / GIB * 10) / 10
        size = f"{rounded:g}GiB" if rounded * GIB < self.peak_bytes else f"{ceil(peak / 2**20 * 100) / 100:g}MiB"
        return f"the next smaller setting is --memory {size} ({mode.sentence})"

    def _place(self) -> int:
        return [mode for mode, _ in self.ladder].index(self.mode)


def modes(device: str, weights: Weights = "plain") -> tuple[MemoryMode, ...]:
    """The modes for a kind of device, such as "cuda" or "cpu", from the fastest to the smallest."""
    ladder = [MemoryMode(), MemoryMode(text_first=True), MemoryMode(text_first=True, tiled_vae=True)]
    if device != "cpu":  # on the CPU, main memory is the device's own
        ladder += [
            MemoryMode(text_first=True, tiled_vae=True, offload="model"),
            MemoryMode(text_first=True, tiled_vae=True, offload="group"),
        ]
    if weights in ("plain", "bf16", "fp8-storage"):  # torchao's tensors cannot be written to the files that the offload uses
        ladder.append(MemoryMode(text_first=True, tiled_vae=True, offload="disk"))
    return tuple(replace(mode, weights=weights) for mode in ladder)


def choose(
    needs: Needs,
    device: str,
    limit_bytes: int | None = None,
    *,
    weights: Weights = "plain",
    main_bytes: int | None = None,
    ahead: bool = True,
    asked: str = "this film",
) -> Choice:
    """The fastest mode whose fullest moment stays within `limit_bytes` (None: the first) and whose waiting parts fit into `main_bytes`.

    ahead: see `Needs.stages`. asked: what the film is, for the error. Raises InputError where nothing fits.
    """
    base, skipped = BASE_BYTES.get(device, BASE_BYTES["cuda"]), None
    ladder = [(mode, base + max(needs.stages(mode, ahead=ahead).values())) for mode in modes(device, weights)]
    for mode, peak in ladder:
        if limit_bytes is not None and peak > limit_bytes:
            skipped = f"the next larger setting ({mode.sentence}) takes about {gib(peak, up=True)}"
        elif main_bytes is not None and needs.waiting(mode) > main_bytes:
            waiting = gib(needs.waiting(mode), up=True)
            skipped = f"the next larger setting ({mode.sentence}) takes {waiting} of main memory, of which {gib(main_bytes)} is free"
        else:
            return Choice(mode, peak, needs.stages(mode, ahead=ahead), limit_bytes, tuple(ladder), skipped)
    mode, peak = min(ladder, key=lambda rung: rung[1])
    if limit_bytes is None or peak <= limit_bytes:
        raise InputError(f"memory: {skipped}, expected more of it for {asked}; close other programs, or use --weights plain or fp8-storage")
    stage, size = max(needs.stages(mode, ahead=ahead).items(), key=lambda item: item[1])
    raise InputError(
        f"memory: got {gib(limit_bytes)}, expected at least {gib(peak, up=True)} for {asked} ({stage} {gib(size)} + {gib(base)} of the "
        f"system's own; with {mode.sentence}); make fewer scenes at once, fewer frames or smaller pictures (--frames, --height, --width)"
    )


def count_needs(
    transformer: Any, vae: Any, text_encoder: Any | None, shape: VideoShape, dtype: torch.dtype, device: str, kept: Kept = NOTHING
) -> Needs:
    """Count what a film of `shape` takes on a kind of device with these networks, which lie on the meta device and are used up."""
    if device == "cpu":
        use_framewise_convolutions(vae)
    transformer, vae = transformer.to(dtype), vae.to(dtype)
    length, config = transformer.config.max_text_seq_length, transformer.config
    frames, (height, width) = shape.num_latent_frames, shape.latent_size
    layout = shape.layout(length)
    with torch.device("meta"):
        latents = torch.empty(1, sum(frames), config.in_channels, height, width, dtype=dtype)
        captions = torch.empty(1, layout.num_text_tokens, config.text_embed_dim, dtype=dtype)
        timestep = torch.empty(1, layout.num_scenes)
        tokens = torch.zeros(1, length, dtype=torch.long)
        scene = torch.empty(max(frames), config.in_channels, height, width, dtype=dtype)
    if (each := kept.processes_of_branch) > 1 and config.num_attention_heads % each == 0:
        transformer.take_share(SequenceParallel(None, 0, each))
    text = None
    if text_encoder is not None:
        encoder = text_encoder.to(dtype)
        for name, value in encoder.named_parameters() if dtype == torch.float16 else ():
            if any(part in (encoder._keep_in_fp32_modules or ()) for part in name.split(".")):  # as transformers loads it
                value.data = value.data.float()
        text = _part(encoder, encoder.encoder.block, lambda: encode_tokens(tokens, encoder))
    return Needs(
        kept_bytes=kept.num_bytes(transformer, layout, sum(frames)),
        quantized={weights: num_weight_bytes(transformer, weights) for weights in WEIGHTS},
        text=text,
        transformer=_part(transformer, transformer.transformer_blocks, lambda: transformer(latents, captions, timestep, layout)),
        vae=Part(num_weight_bytes(vae), num_weight_bytes(vae), 0, footprint(lambda: decode_latents(vae, scene, scene.device))),
        tiled_vae_bytes=_tiled_bytes(vae, scene),
    )


def _part(network: nn.Module, blocks: nn.ModuleList, call: Callable[[], Any]) -> Part:
    """Blocks are alike, so two of them show the fullest moment, and the second of them what each further one computes."""
    whole, sizes = num_weight_bytes(network), [num_weight_bytes(block) for block in blocks]
    further = max(0, len(blocks) - 2)
    del blocks[2:]
    two = footprint(call)
    del blocks[1:]
    one = footprint(call)
    linear = two.linear_flop + further * (two.linear_flop - one.linear_flop)
    attention = two.attention_flop + further * (two.attention_flop - one.attention_flop)
    return Part(whole, max(sizes), whole - sum(sizes), Footprint(two.peak_bytes, linear, attention))


def _tiled_bytes(vae: Any, scene: torch.Tensor) -> int:
    """The fullest moment of decoding in tiles: one tile at work, beside all tiles, their rows, the whole and its float32 copy.

    One tile is counted; to count them all would take as long as it has operations.
    """
    use_tiles(vae)
    rows, columns = vae.tile_latent_min_height, vae.tile_latent_min_width
    frames, _, height, width = scene.shape
    if height <= rows and width <= columns:
        return footprint(lambda: decode_latents(vae, scene, scene.device)).peak_bytes
    tile = scene[:, :, : min(rows, height), : min(columns, width)]
    overlaps = (1 - vae.tile_overlap_factor_height) * (1 - vae.tile_overlap_factor_width)
    num_frames = (frames - 1) * int(vae.config.temporal_compression_ratio) + 1
    spatial = 2 ** (len(vae.config.block_out_channels) - 1)
    pixels: int = num_frames * vae.config.out_channels * height * width * spatial**2
    one = footprint(lambda: vae.decode(tile.transpose(0, 1)[None])).peak_bytes
    kept = ceil(pixels * scene.element_size() / overlaps)
    most: int = max(one + kept, kept + pixels * (2 * scene.element_size() + 4))
    return most


def parse_bytes(text: str) -> int:
    """'12GiB', '12 GB', '900MiB', or a plain number of GiB → bytes; InputError for anything else."""
    match = re.fullmatch(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([a-z]*)\s*", text.lower())
    unit = UNITS.get((match[2] or "gib") if match else "")
    if match is None or unit is None or float(match[1]) <= 0:
        raise InputError(f"--memory: got {text!r}, expected a size such as 12GiB or 900MiB")
    return int(float(match[1]) * unit)


def gib(count: int, *, up: bool = False) -> str:
    """Bytes for a person, rounded to the nearest, or up where less would not do."""
    unit, tenths, name = (GIB, 10, "GiB") if count >= GIB else (2**20, 1, "MiB") if count >= 2**20 or not count else (2**10, 1, "KiB")
    number = count / unit * tenths
    return f"{(ceil(number) if up else round(number)) / tenths:.{tenths // 10}f} {name}"
