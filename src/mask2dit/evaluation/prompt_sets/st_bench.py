"""ST-Bench: the story scripts that come with StoryMem, one JSON file per story in its folder `story`.

A file holds `story_overview` and `scenes` with `scene_num`, `video_prompts` and `cut`; it is read by the importer of storyboards, so every
video prompt becomes a scene of ours that begins with a cut. The prompts of one of its scenes play in one place, which is all that a file
says about what scenes share: it lists no characters.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mask2dit.evaluation.prompt_sets.files import data_in, files_of
from mask2dit.evaluation.prompt_sets.item import Cast, PromptSetItem
from mask2dit.foreign_storyboards import read_foreign

FOLDERS = ("story",)


def read_st_bench(path: str | Path) -> tuple[PromptSetItem, ...]:
    """Read a story script, a folder of them, or the folder that StoryMem was unpacked to. Raises InputError or StoryboardError."""
    return tuple(_read(file) for file in files_of(Path(path), (".json",), inside=FOLDERS))


def is_st_bench(data: Any) -> bool:
    """Whether values of a file are a story script."""
    scenes = data.get("scenes") if isinstance(data, Mapping) else None
    return isinstance(scenes, list) and any(isinstance(scene, Mapping) and "video_prompts" in scene for scene in scenes)


def _read(file: Path) -> PromptSetItem:
    found = read_foreign(file, "storymem")
    return PromptSetItem(file.stem, found.storyboard, places=_places(data_in(file)), notes=found.notes)


def _places(data: Any) -> Cast | None:
    """The scene of the script that each prompt is from; None where only the importer can read the file (comments in JSON)."""
    if not is_st_bench(data):
        return None
    return tuple(frozenset({f"scene {number}"}) for number, scene in enumerate(data["scenes"], start=1) for _ in scene["video_prompts"])
