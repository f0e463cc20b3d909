"""`mask2dit train --precompute`: every usable clip and caption of a recipe through autoencoder and text encoder, once."""

import random
import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from mask2dit.errors import InputError
from mask2dit.loading import load_component
from mask2dit.model_folder import load_config
from mask2dit.training.config import DiffusionRecipe
from mask2dit.training.data.report import ClipReport
from mask2dit.training.data.scenes import Clip, ClipError, ClipSettings
from mask2dit.training.encoding import Encoder
from mask2dit.training.latent_cache import CAPTIONS_PER_SHARD, CLIPS_PER_SHARD, LatentCache
from mask2dit.training.model import encoder_dtype, layout_of, starting_folder, video_of
from mask2dit.training.screen import Screen
from mask2dit.training.sources import bad_clips_file, caches_captions, open_cache, open_source, settings_of, usable_windows


def precompute(recipe: DiffusionRecipe, run: Path, device: torch.device, screen: Screen) -> Path:
    """Fill the recipe's latent cache, going on where an earlier call stopped; returns its folder."""
    if recipe.latent_cache is None:
        raise InputError("latent_cache: is not set in the recipe, expected a folder to fill; add latent_cache=FOLDER")
    start = starting_folder(recipe, run)
    source, video = open_source(recipe), video_of(recipe, start)
    cache = open_cache(recipe, source, start, video, create=True)
    if cache is None:
        raise AssertionError("the recipe has a cache")
    account = cache.folder / bad_clips_file(recipe)
    account.unlink(missing_ok=True)  # what has been mended since is tried again, once
    report = ClipReport(account)
    windows = usable_windows(recipe, source, report, report_is_complete=False)
    clips = [source.groups[group][scene] for group, first, count in windows for scene in range(first, first + count)]
    layout_of(recipe, start, video)  # raises where the size is none
    dtype = encoder_dtype(recipe, device)
    encoder = Encoder(load_component(start, "tokenizer"), load_config(start, "transformer")["max_text_seq_length"], device)
    encoder.vae = load_component(start, "vae", dtype).requires_grad_(False).to(device)
    _encode_clips(clips, settings_of(video), encoder, cache, report, screen, recipe.data_workers)
    encoder.vae = None
    if caches_captions(recipe, source):
        encoder.text_encoder = load_component(start, "text_encoder", dtype).requires_grad_(False).to(device)
        told = (source.captions(group, random.Random(0)) for group in range(len(source.groups)))
        _encode_captions(["", *(caption for captions in told for caption in captions)], encoder, cache, screen)
    cache.save_fingerprints()
    screen.line(report.summary())
    usable_windows(recipe, source, report, report_is_complete=True)  # raises where too few are left
    return cache.folder


def _encode_clips(
    clips: Sequence[Clip],
    settings: ClipSettings,
    encoder: Encoder,
    cache: LatentCache,
    report: ClipReport,
    screen: Screen,
    workers: int,
) -> None:
    missing = [clip for clip in clips if _lacks(cache, clip, report)]
    if missing:
        screen.line(f"{len(clips) - len(missing)} of {len(clips)} clips are in {cache.folder}")
    began, done = time.monotonic(), 0
    with ThreadPoolExecutor(max(workers, 1)) as readers:
        for first in range(0, len(missing), CLIPS_PER_SHARD):
            shard = missing[first : first + CLIPS_PER_SHARD]
            kept: list[Clip] = []
            means, stds = [], []
            for clip, frames in _read_ahead(readers, shard, settings, report, max(workers, 1)):
                done += 1
                if frames is None:
                    continue
                mean, std = encoder.encode_frames(frames[None])
                kept.append(clip)
                means.append(mean[0])
                stds.append(std[0])
                left = (time.monotonic() - began) / done * (len(missing) - done) / 60
                screen.live(f"encoded {done}/{len(missing)} clips  {left:.1f} min left")
            if kept:
                cache.add_clips(kept, torch.stack(means), torch.stack(stds))


def _read_ahead(
    readers: ThreadPoolExecutor, clips: Sequence[Clip], settings: ClipSettings, report: ClipReport, count: int
) -> Iterator[tuple[Clip, Tensor | None]]:
    """Clips with their frames, in order, `count` of them being read meanwhile: more would only fill the memory."""
    waiting: deque[tuple[Clip, Future[Tensor | None]]] = deque()
    for clip in clips:
        waiting.append((clip, readers.submit(_read, clip, settings, report)))
        if len(waiting) > count:
            first, frames = waiting.popleft()
            yield first, frames.result()
    for first, frames in waiting:
        yield first, frames.result()


def _lacks(cache: LatentCache, clip: Clip, report: ClipReport) -> bool:
    """Whether the clip has to be encoded; one that cannot be read is reported."""
    try:
        return clip not in cache
    except ClipError as error:
        report.add(clip.name, error.kind, str(error))
        return False


def _read(clip: Clip, settings: ClipSettings, report: ClipReport) -> Tensor | None:
    """One window of the clip, always the same; None, and a line in the report, where it cannot be read."""
    try:
        return torch.from_numpy(np.ascontiguousarray(clip.frames(settings, random.Random(clip.fingerprint()).random())))
    except ClipError as error:
        report.add(clip.name, error.kind, str(error))
        return None


def _encode_captions(captions: Sequence[str], encoder: Encoder, cache: LatentCache, screen: Screen) -> None:
    missing = cache.missing_captions(captions)
    for first in range(0, len(missing), CAPTIONS_PER_SHARD):
        some = missing[first : first + CAPTIONS_PER_SHARD]
        # Each alone: a row then does not depend on its neighbours.
        cache.add_captions(some, torch.cat([encoder.encode_captions([caption]) for caption in some]).cpu())
        screen.live(f"encoded {min(first + CAPTIONS_PER_SHARD, len(missing))}/{len(missing)} captions")
