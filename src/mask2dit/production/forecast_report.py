"""A forecast in lines for the terminal."""

import re
from collections.abc import Iterator
from dataclasses import replace
from textwrap import wrap

import torch

from mask2dit.amounts import duration
from mask2dit.memory import Part, gib
from mask2dit.production.forecast import Forecast

COLUMNS, NAMES = 100, 19  # of the whole, and of the names to the left

Rows = Iterator[tuple[str, str]]


def report(forecast: Forecast) -> list[str]:
    """What will be made and what it takes, a line each; then notes, then problems, which are never broken."""
    rows = (*_film(forecast), *_memory(forecast), *_time(forecast))
    lines = [line for name, value in rows for line in _lines(name, value)]
    return [*lines, *(f"note: {note}" for note in forecast.notes), *(f"problem: {problem}" for problem in forecast.problems)]


def verdict(forecast: Forecast) -> str:
    """The last word, in a sentence."""
    count, choice = len(forecast.problems), forecast.choice
    if forecast.shortage is not None:
        limit, more = choice.limit_bytes or 0, f"; there {'are' if count > 2 else 'is'} {_count(count - 1, 'more problem')}"
        what = f"{gib(choice.peak_bytes)} are needed, and there are {gib(limit)}" if choice.peak_bytes > limit else "too little main memory"
        return f"It does not fit: {what}{more if count > 1 else ''}."
    if count:
        return f"It fits, but {_count(count, 'problem')} must be put right first."
    return f"It fits, and computes for about {duration(sum(forecast.stage_seconds.values()))}."


def device_name(device: torch.device) -> str:
    """A device for a person."""
    if device.type == "cuda":
        return f"{device}, {torch.cuda.get_device_name(device)}"
    return f"cpu, {_count(torch.get_num_threads(), 'thread')}" if device.type == "cpu" else str(device)


def _lines(name: str, value: str) -> list[str]:
    kept_together = re.sub(r"(?<=\d) (?=\w)", "\N{NO-BREAK SPACE}", value)  # a number and its unit
    first, *rest = (line.replace("\N{NO-BREAK SPACE}", " ") for line in wrap(kept_together, COLUMNS - NAMES))
    return [f"{name:<{NAMES}}{first}", *(" " * NAMES + line for line in rest)]


def _film(forecast: Forecast) -> Rows:
    request, window, own = forecast.request, forecast.window, forecast.subject.values.window
    frames, fps, layout = request.num_frames, request.fps, request.shape.layout(forecast.max_text_seq_length)
    scenes, whole = _count(len(frames), "scene"), f"{sum(frames) / fps:.1f} s in all, at {fps} frames per second"
    if len(set(frames)) == 1:
        yield "film", f"{scenes} of {_frames(frames[0], fps)}; {whole}"
        tokens = f"{layout.text_lengths[0]:,} text + {layout.video_lengths[0]:,} video per scene"
    else:
        yield "film", f"{scenes}; {whole}"
        yield from ((f"  scene {number}", _frames(each, fps)) for number, each in enumerate(frames, start=1))
        tokens = f"{layout.num_text_tokens:,} text + {layout.num_video_tokens:,} video"
    yield "size", f"{request.width} by {request.height} pixels"
    solver, cache = request.shortcuts.solver, request.shortcuts.step_cache
    yield "steps", f"{request.num_inference_steps}{f' of {solver}' if solver else ''}, {_guidance(forecast)}"
    if cache is not None:
        yield "step cache", f"{cache}, approximate; what it saves is not known beforehand, so the time is the longest that it may take"
    calls = len(forecast.calls)
    at_once = scenes if calls == 1 else f"{_count(min(window, len(frames)), 'scene')}, in {calls} calls of the model"
    yield "at once", f"{at_once}; the model was trained on {'up to ' * (own > 1)}{own}"
    yield "tokens", f"{tokens}, {layout.num_tokens:,} in all"
    yield "captions", _captions(forecast)
    longest = "; known scenes are computed once, so the time is the longest that it may take" if forecast.keeps_context else ""
    yield "plan", f"{forecast.plan}{longest}"
    yield "model", f"{forecast.subject.name}, in {str(forecast.dtype).removeprefix('torch.')}"
    yield "device", device_name(forecast.device)


def _guidance(forecast: Forecast) -> str:
    guided, steps = forecast.request.num_guided_steps, forecast.request.num_inference_steps
    if guided == 0:
        return "without guidance: one prediction in each"
    scales = list(dict.fromkeys(f"{scale:g}" for scale in forecast.request.guidance_scale))
    return f"guidance {' and '.join(scales)}: two predictions in {'each' if guided == steps else f'{guided} of them, one in the others'}"


def _captions(forecast: Forecast) -> str:
    if forecast.caption_lengths is None:
        return f"not checked; {forecast.max_text_seq_length} tokens are read of each"
    longest = max(forecast.caption_lengths)
    number = forecast.caption_lengths.index(longest) + 1
    return f"the longest is that of scene {number}, {longest} of {forecast.max_text_seq_length} tokens"


def _memory(forecast: Forecast) -> Rows:
    needs, choice = forecast.needs, forecast.choice
    peaks, weights = needs.stages(choice.mode), choice.mode.weights
    base = choice.peak_bytes - max(peaks.values())
    yield "memory", "weights     at work"
    if needs.text is not None:
        yield "  text encoder", _part(needs.text, "for one caption")
    yield "  transformer", _part(needs.transformer, "for one prediction of all scenes")
    if weights != "plain":
        yield "", f"{gib(needs.quantized[weights]):<12}with --weights {weights}"
    if needs.kept_bytes:
        yield "", f"{'':<12}{gib(needs.kept_bytes):<12}kept between steps: {_kept(forecast)}"
    scene = f"for {'the longest' if len(set(forecast.request.num_frames)) > 1 else 'one'} scene"
    if choice.mode.tiled_vae:
        in_tiles = replace(needs.vae, call=replace(needs.vae.call, peak_bytes=needs.tiled_vae_bytes))
        yield "  VAE", _part(in_tiles, f"{scene} in tiles; {gib(needs.vae.working)} without")
    else:
        yield "  VAE", _part(needs.vae, scene)
    stages = ", ".join(f"{gib(base + peak)} while {stage}" for stage, peak in peaks.items())
    yield "  in use", f"{stages}, of which {gib(base)} are the system's own"
    if forecast.shortage is None:
        yield "  kept", ", ".join(line.strip() for line in choice.lines()).removeprefix("memory: ")
        return
    yield "  ways to keep it", "takes"
    for mode, peak in choice.ladder:
        yield "", f"{gib(peak):<12}{mode.sentence}"


def _kept(forecast: Forecast) -> str:
    cache = forecast.request.shortcuts.step_cache
    return ", ".join(filter(None, ("known scenes" if forecast.keeps_context else None, cache)))


def _part(part: Part, what: str) -> str:
    return f"{gib(part.weights):<12}{gib(part.working):<12}{what}"


def _time(forecast: Forecast) -> Rows:
    seconds, steps, mode = forecast.stage_seconds, forecast.request.num_inference_steps, forecast.choice.mode
    step = seconds["denoising"] / steps
    left_out = ["loading the model", "writing files"]
    if mode.offload == "disk":
        size = gib(forecast.needs.quantized[mode.weights])
        left_out.append(f"reading {size} from disk for each of {_count(forecast.num_predictions, 'prediction')}")
    elif mode.offload != "none":
        left_out.append("moving weights to the device")
    if mode.weights != "plain":
        left_out.append("making numbers of 8-bit weights")
    yield "time", f"an estimate for this machine, {forecast.timing.source}"
    yield "  encoding", f"{duration(seconds['encoding'])} for {_count(forecast.num_texts, 'text')}"
    yield "  denoising", f"{duration(seconds['denoising'])} for {_count(steps, 'step')} of {duration(step)}"
    yield "  decoding", f"{duration(seconds['decoding'])} for {_count(forecast.request.num_scenes, 'scene')}"
    yield "  together", f"{duration(sum(seconds.values()))}, not counting {', '.join(left_out)}"


def _frames(count: int, fps: int) -> str:
    return f"{_count(count, 'frame')} ({count / fps:.1f} s)"


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'s' * (number != 1)}"
