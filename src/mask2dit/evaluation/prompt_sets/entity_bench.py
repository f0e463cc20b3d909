"""EntityBench: episodes of up to 50 shots, each with a schedule of who and what is seen in which shot; one JSON file per episode.

The layout is known from the released evaluator and from programs that read the files; no episode was at hand. In its folder:
`data/scripts/<episode>.json`, and `data/splits/final_split_validated_ids.json` with the episodes of the tiers easy, medium and hard. In an
episode: `story_overview` and `scenes` as in a StoryMem script (`scene_num`, `video_prompts`, `cut`, besides `action_descriptions`);
`entity_schedule`, a mapping from "scene:shot", both counted from 1, to lists of names `characters`, `places` and `objects`; and
`entity_descriptions`, a mapping from labels ("Character…", "Location…") to `name` and `description`.

Every shot becomes a scene of ours. Its prompt already says how everybody looks, so the storyboard describes no characters.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mask2dit.errors import StoryboardError
from mask2dit.evaluation.prompt_sets.files import data_in, files_of
from mask2dit.evaluation.prompt_sets.item import Cast, PromptSetItem
from mask2dit.foreign_storyboards import read_foreign
from mask2dit.foreign_storyboards.common import filled_list, mapping, shortened
from mask2dit.storyboard import describe_value

FOLDERS = ("data/scripts", "scripts")
SPLIT = "final_split_validated_ids.json"
TIERS = ("easy", "medium", "hard")
KINDS = ("characters", "places", "objects")
OWN_KEYS = ("entity_schedule", "entity_descriptions", "action_descriptions")


def read_entity_bench(path: str | Path) -> tuple[PromptSetItem, ...]:
    """Read an episode, a folder of them, or the folder that EntityBench was unpacked to. Raises InputError or StoryboardError.

    The tag `tier` says how hard an episode is, where the file of the tiers lies beside the folder of the episodes.
    """
    found = files_of(Path(path), (".json",), inside=FOLDERS)
    tiers = _tiers(found[0].parent.parent / "splits" / SPLIT)
    return tuple(_read(file, tiers) for file in found)


def is_entity_bench(data: Any) -> bool:
    """Whether values of a file are an episode."""
    return isinstance(data, Mapping) and "entity_schedule" in data


def _read(file: Path, tiers: Mapping[str, str]) -> PromptSetItem:
    found = read_foreign(file, "storymem")
    data = data_in(file)
    try:
        data = mapping(data, "EntityBench", "scenes and entity_schedule")
        shots = _shots(data["scenes"])
        schedule = mapping(data.get("entity_schedule"), "EntityBench, entity_schedule", "one entry per shot")
        characters, places, objects = (_cast(schedule, shots, kind) for kind in KINDS)
    except StoryboardError as error:
        raise StoryboardError(f"{file}: {error}") from None
    unknown = [str(key) for key in schedule if key not in shots]
    notes = [note for note in found.notes if not any(key in note for key in OWN_KEYS)]
    if unknown:
        notes.append(f"EntityBench, entity_schedule: left out, since there are no such shots: {shortened(unknown)}")
    tags = {"tier": tiers[file.stem]} if file.stem in tiers else {}
    return PromptSetItem(file.stem, found.storyboard, characters, places, objects, tags=tags, notes=tuple(notes))


def _shots(scenes: Sequence[Mapping[str, Any]]) -> list[str]:
    """Keys of the schedule, in the order of the shots."""
    return [
        f"{scene.get('scene_num', number)}:{shot}"
        for number, scene in enumerate(scenes, start=1)
        for shot in range(1, len(scene["video_prompts"]) + 1)
    ]


def _cast(schedule: Mapping[str, Any], shots: Sequence[str], kind: str) -> Cast:
    """Names of one kind per shot; a shot that the schedule leaves out has none."""
    return tuple(_names(schedule.get(shot) or {}, f"EntityBench, entity_schedule, shot {shot}", kind) for shot in shots)


def _names(entry: Any, place: str, kind: str) -> frozenset[str]:
    value = mapping(entry, place, ", ".join(KINDS)).get(kind) or []
    if not isinstance(value, list) or not all(isinstance(name, str) and name for name in value):
        raise StoryboardError(f"{place}, {kind}: got {describe_value(value)}, expected a list of names; check that the file is whole")
    return frozenset(value)


def _tiers(path: Path) -> dict[str, str]:
    """Which tier an episode is in, by its name."""
    if not path.is_file():
        return {}
    try:
        data = mapping(data_in(path), "EntityBench", ", ".join(TIERS))
        return {str(name): tier for tier in TIERS if data.get(tier) for name in filled_list(data[tier], f"EntityBench, {tier}", "episodes")}
    except StoryboardError as error:
        raise StoryboardError(str(error) if str(error).startswith(f"{path}: ") else f"{path}: {error}") from None
