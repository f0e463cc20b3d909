"""From a recipe to its data: the source of scenes, what of it can be used, and the cache of its latents."""

import random
from collections.abc import Callable, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

from mask2dit.training.config import DiffusionRecipe, FileData, PlayhouseData, VideoConfig
from mask2dit.training.data.files import read_clips_csv, read_groups_json, read_groups_jsonl
from mask2dit.training.data.playhouse import PlayhouseScenes
from mask2dit.training.data.report import ClipReport
from mask2dit.training.data.scenes import ClipSettings, FixedScenes, SceneRun, SceneSource, usable
from mask2dit.training.data.shards import read_shards
from mask2dit.training.latent_cache import LatentCache, encoder_digest, text_digest

READERS: dict[str, Callable[..., FixedScenes]] = {"csv": read_clips_csv, "json": read_groups_json, "jsonl": read_groups_jsonl}


def open_source(recipe: DiffusionRecipe) -> SceneSource:
    """The data that the recipe names; InputError where the list itself cannot be read."""
    match recipe.data:
        case PlayhouseData(level=level, num_stories=num_stories, by_reference=by_reference):
            return PlayhouseScenes(level, num_stories, by_reference)
        case FileData(source=source, file=file, folder=folder):
            return READERS[source](Path(file), Path(folder) if folder is not None else None)
        case data:
            return read_shards(data.shards)


def usable_windows(recipe: DiffusionRecipe, source: SceneSource, report: ClipReport, *, report_is_complete: bool) -> list[SceneRun]:
    """Runs of consecutive scenes that can be trained on; InputError, with the counts, where they are too few.

    report_is_complete: every clip has been read before (for a cache), and those that failed are left out. Otherwise what fails on the way
    is replaced sample by sample, so that it does not change which clip another sample has.
    """
    least = 1 if isinstance(recipe.data, PlayhouseData) else recipe.data.min_groups
    return usable(
        source,
        recipe.num_scenes,
        needs_groups=recipe.stage == "sft",
        report=report,
        min_groups=least,
        report_is_complete=report_is_complete,
    )


def settings_of(video: VideoConfig) -> ClipSettings:
    """What is read from every clip."""
    return ClipSettings(height=video.height, width=video.width, num_frames=video.num_frames, fps=video.fps)


def bad_clips_file(recipe: DiffusionRecipe, device: int = 0) -> str:
    """The name of the account of bad clips: one per list of clips, since lists may share a cache, and per device that finds some."""
    digest = sha256(recipe.data.model_dump_json().encode()).hexdigest()[:8]
    return f"bad_clips-{digest}{f'.{device}' if device else ''}.jsonl"


def caches_captions(recipe: DiffusionRecipe, source: SceneSource) -> bool:
    """Whether captions can be encoded once: not where they are drawn anew, nor where their encoder learns."""
    return source.fixed_captions and not recipe.train_text_encoder


def open_cache(recipe: DiffusionRecipe, source: SceneSource, start: Path, video: VideoConfig, create: bool = False) -> LatentCache | None:
    """The cache of the recipe, if it has one; InputError if it was made with another model or other settings."""
    if recipe.latent_cache is None:
        return None
    captions = caches_captions(recipe, source)
    made_with: dict[str, Any] = {"format": 1, "vae": encoder_digest(start), "video": video.model_dump()}
    if captions:
        made_with["text_encoder"] = text_digest(start)
    return LatentCache(Path(recipe.latent_cache), made_with, captions, create)


def check_cache(cache: LatentCache, source: SceneSource, windows: Sequence[tuple[int, int, int]]) -> None:
    """Raise InputError unless the cache holds every scene of the windows and, where it has captions, every caption and the empty one."""
    clips = [source.groups[group][scene] for group, first, count in windows for scene in range(first, first + count)]
    groups = dict.fromkeys(group for group, _, _ in windows) if cache.has_captions else {}
    cache.check(clips, ["", *(caption for group in groups for caption in source.captions(group, random.Random(0)))])
