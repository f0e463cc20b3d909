"""Lists of {prompt, duration}, with durations in seconds; also plain lists of prompts, and either of them below a key such as `scenes`.

Names of our own schema beside them (`seed`, `negative_prompt`, `title`, `characters`, …) are taken as they are.
"""

import json
import re
from collections.abc import Mapping
from typing import Any

from mask2dit.errors import StoryboardError
from mask2dit.foreign_storyboards.common import (
    Source,
    filled_list,
    keys_left_out,
    left_out,
    mapping,
    plain_number,
    seconds,
    written_text,
)
from mask2dit.storyboard import Scene, Storyboard, describe_value

CONTAINERS = ("scenes", "shots", "prompts", "timeline", "segments", "storyboard")
BESIDE = ("title", "characters", "remember")
_SECONDS = re.compile(r"\s*(\d+(?:\.\d+)?|\.\d+)\s*(?:s|sec|secs|seconds?)?\s*", re.IGNORECASE)


class PromptList:
    name = "list"
    title = "a list of prompts"
    sign = "a list of {prompt, duration}"

    def knows(self, source: Source) -> bool:
        items = _items(source.data)
        return isinstance(items, list) and any(isinstance(item, str) or (isinstance(item, Mapping) and "prompt" in item) for item in items)

    def read(self, source: Source, fps: float | None) -> tuple[dict[str, Any], list[str]]:
        items = filled_list(_items(source.data), "the list", "{prompt, duration}")
        data: dict[str, Any] = {}
        notes: list[str] = []
        if isinstance(source.data, Mapping):
            data = {key: source.data[key] for key in BESIDE if key in source.data}
            notes = keys_left_out(source.data, (*BESIDE, *CONTAINERS))
        scenes, odd = [], []
        for number, item in enumerate(items, start=1):
            if isinstance(item, str):
                item = {"prompt": item}
            item = mapping(item, f"item {number}", "a prompt")
            scene = {key: item[key] for key in Scene.model_fields if key in item}
            scene["prompt"] = written_text(item.get("prompt"), f"item {number}, prompt")
            if item.get("duration") is not None:
                scene["duration_seconds"] = _seconds(item["duration"], f"item {number}, duration")
            odd += [key for key in item if key not in (*Scene.model_fields, "duration")]
            scenes.append(scene)
        return data | {"scenes": scenes}, notes + keys_left_out(odd, ())

    def write(self, board: Storyboard, fps: float | None) -> tuple[str, list[str]]:
        items = []
        for number, (scene, caption) in enumerate(zip(board.scenes, board.captions, strict=True), start=1):
            length = seconds(scene, number, fps, self.title)
            items.append({"prompt": caption} | ({} if length is None else {"duration": plain_number(length)}))
        text = json.dumps(items, indent=2, ensure_ascii=False) + "\n"
        return text, left_out(board, self.title, ("prompt", "duration_seconds", "num_frames"))


def _items(data: object) -> object:
    if isinstance(data, Mapping):
        return next((data[key] for key in CONTAINERS if isinstance(data.get(key), list)), None)
    return data


def _seconds(value: object, place: str) -> float:
    match = _SECONDS.fullmatch(value) if isinstance(value, str) else None
    if match:
        return float(match.group(1))
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise StoryboardError(f"{place}: got {describe_value(value)}, expected seconds; write for example 4.5")
    try:
        return float(value)
    except OverflowError:
        raise StoryboardError(f"{place}: got {describe_value(value)}, expected seconds; write for example 4.5") from None
