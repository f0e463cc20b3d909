"""StoryMem and its ST-Bench: `story_overview`, and `scenes` with `scene_num`, `video_prompts` and `cut`.

Every video prompt is a clip of five seconds and becomes a scene of ours; the overview becomes the title. `cut` says whether a prompt begins
with a cut (true, or the text "True") or goes on from the last frame of the prompt before; ours always begin with a cut.
"""

import json
from collections.abc import Mapping
from typing import Any

from mask2dit.foreign_storyboards.common import Source, filled_list, keys_left_out, left_out, mapping, scenes_named, written_text
from mask2dit.storyboard import Storyboard

SCENE_KEYS = ("scene_num", "video_prompts", "cut")


class StoryMem:
    name = "storymem"
    title = "StoryMem"
    sign = "scenes with video_prompts"

    def knows(self, source: Source) -> bool:
        scenes = source.data.get("scenes") if isinstance(source.data, Mapping) else None
        holds_prompts = isinstance(scenes, list) and any(isinstance(scene, Mapping) and "video_prompts" in scene for scene in scenes)
        return holds_prompts or (isinstance(source.data, Mapping) and "story_overview" in source.data)

    def read(self, source: Source, fps: float | None) -> tuple[dict[str, Any], list[str]]:
        data = mapping(source.data, "StoryMem", "story_overview and scenes")
        prompts: list[str] = []
        going_on: list[int] = []
        notes = keys_left_out(data, ("story_overview", "scenes"))
        unsure: list[int] = []
        for number, scene in enumerate(filled_list(data.get("scenes"), "StoryMem, scenes", "scenes"), start=1):
            place = f"StoryMem, scene {number}"
            scene = mapping(scene, place, "video_prompts")
            notes += keys_left_out(scene, SCENE_KEYS, place)
            own = filled_list(scene.get("video_prompts"), f"{place}, video_prompts", "texts")
            cuts = [_is_cut(value) for value in scene["cut"]] if isinstance(scene.get("cut"), list) else []
            if len(cuts) != len(own) or None in cuts:
                unsure.append(number)
            for index, prompt in enumerate(own):
                prompts.append(written_text(prompt, f"{place}, prompt {index + 1}"))
                if len(prompts) > 1 and cuts[index : index + 1] == [False]:
                    going_on.append(len(prompts))
        if unsure:
            notes.append(
                f"StoryMem, {scenes_named(unsure)}: cut is not one true or false per prompt; the prompts without one begin with a cut"
            )
        if going_on:
            goes = "goes" if len(going_on) == 1 else "go"
            notes.append(f"{scenes_named(going_on)}: {goes} on without a cut in StoryMem; here every scene begins with one")
        overview = data.get("story_overview")
        return {
            "title": " ".join(overview.split()) if isinstance(overview, str) else "",
            "scenes": [{"prompt": text} for text in prompts],
        }, notes

    def write(self, board: Storyboard, fps: float | None) -> tuple[str, list[str]]:
        scenes = [
            {"scene_num": number, "video_prompts": [caption], "cut": [True]} for number, caption in enumerate(board.captions, start=1)
        ]
        text = json.dumps({"story_overview": board.title, "scenes": scenes}, indent=2, ensure_ascii=False) + "\n"
        return text, left_out(board, self.title, ("title", "prompt"))


def _is_cut(value: object) -> bool | None:
    if isinstance(value, bool):
        return value
    return {"true": True, "false": False}.get(value.strip().lower()) if isinstance(value, str) else None
