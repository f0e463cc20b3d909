"""The forecast of a film: what will be made, what it takes in memory and time, and what is amiss. Nothing is made, no weights are read.

A problem is what the making of the film would stop at; a note is what would be made, though perhaps not as it was meant. Bytes and
arithmetic are counted by memory and footprint; here they are set beside what is there. How it is told is forecast_report's.
"""

import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch

from mask2dit.errors import InputError
from mask2dit.film_request import FilmRequest, check_interval_matters, resolve_request
from mask2dit.latents import use_tiles
from mask2dit.memory import Choice, MemoryMode, Needs, choose, count_needs, gib
from mask2dit.plans import get_plan
from mask2dit.production.descriptions import differing_descriptions
from mask2dit.production.planning import Call, kept_by, plan_calls, remembered
from mask2dit.production.record import FilmSettings
from mask2dit.production.speed import measure_speed, try_networks
from mask2dit.production.subject import Subject
from mask2dit.storyboard import Storyboard
from mask2dit.text import check_caption, count_tokens
from mask2dit.transformer import Mask2DiTTransformer3DModel
from mask2dit.video_shape import VideoShape
from mask2dit.weight_formats import Weights, apply_weights

TRIED_SECONDS = 1.0  # what takes less than this is ruled by what each call costs besides arithmetic, and can be tried in a moment


@dataclass(frozen=True, slots=True)
class Room:
    """Memory that a film may take, in bytes: on the device, and in main memory where that is not the device's own.

    `asked`: somebody has said so; else a small model is kept whole, whatever is free. `weights`: how the transformer's are kept.
    """

    limit_bytes: int
    main_bytes: int | None = None
    weights: Weights = "plain"
    asked: bool = False


@dataclass(frozen=True, slots=True)
class Timing:
    """Seconds for one text, for one prediction of all scenes, and for decoding one latent frame. `source`: what they follow from."""

    text: float
    prediction: float
    latent_frame: float
    source: str


@dataclass(frozen=True, slots=True)
class Forecast:
    """All that is known of a film before it is made. `choice`: how the model is kept; where nothing fits, the way that takes least."""

    subject: Subject
    window: int
    request: FilmRequest
    calls: tuple[Call, ...]
    device: torch.device
    dtype: torch.dtype
    plan: str
    """Of attention."""
    max_text_seq_length: int
    caption_lengths: tuple[int, ...] | None
    """Tokens per scene; None where they cannot be counted."""
    needs: Needs
    choice: Choice
    timing: Timing
    shortage: str | None
    """Why it does not fit into memory; this is also the first of the problems."""
    problems: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def keeps_context(self) -> bool:
        """Whether known scenes are computed once, and their keys and values are kept."""
        return not get_plan(self.plan).known_reads_generated and any(call.known for call in self.calls)

    @property
    def num_texts(self) -> int:
        """Texts to encode: captions and negative prompts, each once."""
        return len({*self.request.captions, *self.request.negative_prompts})

    @property
    def num_predictions(self) -> int:
        """How often the transformer is called."""
        return (self.request.num_inference_steps + self.request.num_guided_steps) * len(self.calls)

    @property
    def stage_seconds(self) -> dict[str, float]:
        """How long the stages take."""
        return {
            "encoding": self.num_texts * self.timing.text,
            "denoising": self.num_predictions * self.timing.prediction,
            "decoding": sum(self.request.shape.num_latent_frames) * self.timing.latent_frame,
        }


def forecast(
    storyboard: Storyboard,
    subject: Subject,
    settings: FilmSettings,
    room: Room,
    *,
    device: torch.device,
    dtype: torch.dtype | None = None,
    plan: str | None = None,
) -> Forecast:
    """Say beforehand what a film takes on `device`. dtype, plan (of attention): None is the model's own.

    Raises StoryboardError or InputError where it cannot be said what is to be made; what else is amiss is in the answer.
    """
    storyboard = storyboard.shown()
    request, dtype = _resolve(storyboard, subject, settings), dtype or subject.dtype
    film = range(request.num_scenes)
    window = settings.window or subject.values.window
    calls = tuple(plan_calls(film, film, window, subject.values.known_sets, remembered(storyboard, window)))
    shape = request.shape.largest(window)
    _check_weights(room.weights, device, dtype)
    transformer, vae, text_encoder = subject.networks()
    length = int(transformer.config.max_text_seq_length)
    plan = get_plan(plan or transformer.config.attention_plan).name
    kept = kept_by(calls, request.shape.num_latent_frames, plan, request.is_guided, request.shortcuts.step_cache)
    needs = count_needs(transformer, vae, text_encoder, shape, dtype, device.type, kept)
    choice, shortage = _choose(needs, subject, shape, room, device.type)
    problems = [*([shortage] if shortage else []), *_problems(subject, request, length), *_too_little_disk(needs, choice.mode)]
    return Forecast(
        subject=subject,
        window=window,
        request=request,
        calls=calls,
        device=device,
        dtype=dtype,
        plan=plan,
        max_text_seq_length=length,
        caption_lengths=tuple(count_tokens(each, subject.tokenizer) for each in request.captions) if subject.tokenizer else None,
        needs=needs,
        choice=choice,
        timing=_time(subject, shape, needs, choice.mode, device, dtype, may_try=shortage is None),
        shortage=shortage,
        problems=tuple(problems),
        notes=(*_notes(storyboard, subject, request, window), *_slow_format(device, dtype)),
    )


def _resolve(storyboard: Storyboard, subject: Subject, settings: FilmSettings) -> FilmRequest:
    request = resolve_request(storyboard, subject.values, **settings.asked(), num_scenes=None)
    if request.num_inference_steps > subject.num_train_timesteps:
        raise InputError(f"num_inference_steps: got {request.num_inference_steps}, expected 1 to {subject.num_train_timesteps}")
    check_interval_matters(request.shortcuts.guidance_interval, request.is_guided)
    return request


def _check_weights(weights: Weights, device: torch.device, dtype: torch.dtype) -> None:
    """Raise InputError where the device or the installation cannot keep weights so."""
    if weights != "plain":
        smallest = Mask2DiTTransformer3DModel(num_attention_heads=1, num_layers=1, time_embed_dim=8, text_embed_dim=8)
        apply_weights(smallest.to(device, dtype), weights, device)


# Memory


def _choose(needs: Needs, subject: Subject, shape: VideoShape, room: Room, device: str) -> tuple[Choice, str | None]:
    """How the model is kept, as `generate` would choose it, and why that cannot be."""
    whole = choose(needs, device, weights=room.weights)
    if not (room.asked or subject.is_large):
        there, needed = gib(room.limit_bytes), gib(whole.peak_bytes)
        problem = (
            f"memory: got {there} that are free, expected {needed}; --memory {there.replace(' ', '')} looks for a way to keep it in less"
        )
        return replace(whole, limit_bytes=room.limit_bytes), problem if whole.peak_bytes > room.limit_bytes else None
    try:
        return choose(needs, device, room.limit_bytes, weights=room.weights, main_bytes=room.main_bytes, asked=shape.words), None
    except InputError as error:
        mode, peak = min(whole.ladder, key=lambda rung: rung[1])
        return Choice(mode, peak, needs.stages(mode), room.limit_bytes, whole.ladder), str(error)


def _too_little_disk(needs: Needs, mode: MemoryMode) -> Iterator[str]:
    if mode.offload == "disk":
        folder = tempfile.gettempdir()
        size, free = max(needs.quantized[mode.weights], needs.text.weights if needs.text else 0), shutil.disk_usage(folder).free
        if free < size:
            yield f"{folder}: got {gib(free)} of free disk, expected {gib(size)} for what waits there; set TMPDIR, or make room"


# Time


def _time(
    subject: Subject, shape: VideoShape, needs: Needs, mode: MemoryMode, device: torch.device, dtype: torch.dtype, *, may_try: bool
) -> Timing:
    """From the arithmetic and the speed of a few layers; where a small model's networks `may_try`, they are timed as they are."""
    transformer, vae, text_encoder = subject.networks()
    speed, longest = measure_speed(transformer, vae, shape, device, dtype), max(shape.num_latent_frames)
    call = needs.transformer.call
    prediction = call.linear_flop / speed.linear + call.attention_flop / speed.attention
    scene = needs.vae.call.flop / speed.decoding
    quick = max(prediction, scene) < TRIED_SECONDS and not _is_emulated(device, dtype)
    if may_try and quick and not subject.is_large:
        prediction, scene, text = try_networks(transformer, vae, text_encoder, shape, device, dtype)
        return Timing(text, prediction, scene / longest, "from calls of its networks with random weights")
    text_flop = needs.text.call.flop if needs.text else 0
    if mode.tiled_vae:
        scene *= _overlap(vae, shape)
    rates = f"{_rate(speed.linear)} in linear layers, {_rate(speed.attention)} in attention, {_rate(speed.decoding)} in the VAE"
    return Timing(text_flop / speed.linear, prediction, scene / longest, f"from a short measurement ({rates})")


def _is_emulated(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether numbers may be computed in another format, one by one: then some kinds of layers are a hundred times slower than others."""
    return device.type == "cpu" and dtype != torch.float32


def _rate(flop_per_second: float) -> str:
    name, unit = ("TFLOP/s", 1e12) if flop_per_second >= 1e12 else ("GFLOP/s", 1e9)
    return f"{flop_per_second / unit:.3g} {name}"


def _overlap(vae: Any, shape: VideoShape) -> float:
    """How often a pixel is decoded in tiles, on average."""
    use_tiles(vae)
    height, width = shape.latent_size
    if height <= vae.tile_latent_min_height and width <= vae.tile_latent_min_width:
        return 1.0
    return 1 / float((1 - vae.tile_overlap_factor_height) * (1 - vae.tile_overlap_factor_width))


# What is amiss


def _problems(subject: Subject, request: FilmRequest, max_length: int) -> Iterator[str]:
    if subject.tokenizer is None and subject.remark is None:
        yield f"{subject.name}: has no text encoder with its tokenizer, expected both for captions; use another model"
        return
    texts = [(number, "prompt", caption) for number, caption in enumerate(request.captions, start=1)]
    negative = {text: number for number, text in reversed([*enumerate(request.negative_prompts, start=1)])}  # most often one for all
    texts += [(number, "negative_prompt", text) for text, number in negative.items()]
    for number, place, text in sorted(texts) if subject.tokenizer else ():
        try:
            check_caption(text, subject.tokenizer, max_length, f"scene {number}, {place}")
        except InputError as error:
            yield str(error)


def _notes(storyboard: Storyboard, subject: Subject, request: FilmRequest, window: int) -> Iterator[str]:
    if subject.remark:
        yield subject.remark
    if request.num_scenes > window:
        joint = f"{window} scenes are made jointly, and each further one with {window - 1} known"
        yield joint if window > 1 else "each scene is made by itself, and knows no others"
    yield from differing_descriptions(storyboard, in_known_words=subject.built_in)
    if subject.built_in:
        yield from _unknown_words(request.captions)


def _slow_format(device: torch.device, dtype: torch.dtype) -> Iterator[str]:
    if _is_emulated(device, dtype):
        name = str(dtype).removeprefix("torch.")
        yield f"many processors have no {name} and imitate it slowly: --dtype float32 takes twice the memory and may take far less time"


def _unknown_words(captions: tuple[str, ...]) -> Iterator[str]:
    from mask2dit.playhouse.captions import tell_unknown, unknown_words

    for number, caption in enumerate(captions, start=1):
        unknown = unknown_words(caption)
        if unknown:
            yield f"scene {number}: {tell_unknown(unknown)}"
