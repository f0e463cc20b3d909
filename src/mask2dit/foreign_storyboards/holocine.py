"""HoloCine: `global_caption` and `shot_captions` with optional cuts, or one string `[global caption] … [per shot caption] … [shot cut] …`.

HoloCine reads the global caption with every shot; a caption of ours sees no other, so what the global caption says is brought to each
scene. A sentence "[character1] is …", with those behind it that begin with he, she or they, becomes our character Actor1, which is
described wherever a prompt names it. All other sentences (place, light, style) are put before every prompt. A shot that speaks of her or
him and names nobody gets the names of the whole cast before it. "This scene contains 5 shots." is dropped here and added there.

HoloCine counts one film: a cut at frame 37 begins a shot with frame 38. A scene of ours has 4k + 1 frames, of which the first is extra in
every scene but the first; so cuts at 4k + 1 become lengths and come back unchanged.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Any

from mask2dit.errors import StoryboardError
from mask2dit.foreign_storyboards.common import (
    Source,
    filled_list,
    frame_count,
    keys_left_out,
    left_out,
    length_of,
    mapping,
    whole_number,
    written_text,
)
from mask2dit.storyboard import Storyboard
from mask2dit.video_shape import nearest_num_frames

KEYS = ("global_caption", "shot_captions", "num_frames", "shot_cut_frames", "negative_prompt", "prompt")
NAME = "Actor"

_GLOBAL = re.compile(r"\[\s*global caption\s*\]", re.IGNORECASE)
_PER_SHOT = re.compile(r"\[\s*per[ -]shot caption\s*\]", re.IGNORECASE)
_CUT = re.compile(r"\[\s*shot cut\s*\]", re.IGNORECASE)
_TAG = re.compile(r"\[\s*character\s*(\d+)\s*\]", re.IGNORECASE)
_WHO = re.compile(r"\[\s*character\s*(\d+)\s*\] is (?!\w+ing\b)(.+)", re.IGNORECASE | re.DOTALL)
_COUNT = re.compile(r"this scene contains \w+ shots?\.?", re.IGNORECASE)
_PRONOUN = re.compile(r"\b(he|she|him|her|hers|his|they|them|their|theirs)\b", re.IGNORECASE)
_GOES_ON = re.compile(r"(he|she|his|her|they|their)\b", re.IGNORECASE)
_SENTENCES = re.compile(r"(?<!\bMr\.)(?<!\bMrs\.)(?<!\bMs\.)(?<!\bDr\.)(?<!\bSt\.)(?<=[.!?])\s+(?=[^\sa-z])")


class HoloCine:
    name = "holocine"
    title = "HoloCine"
    sign = "global_caption with shot_captions"

    def knows(self, source: Source) -> bool:
        data = source.data
        return isinstance(data, Mapping) and ("shot_captions" in data or "global_caption" in data or _is_one_string(data.get("prompt")))

    def read(self, source: Source, fps: float | None) -> tuple[dict[str, Any], list[str]]:
        if source.data is None and _is_one_string(source.text):
            return _storyboard(*_parts(source.text))
        data = mapping(source.data, "HoloCine", "global_caption and shot_captions")
        if "shot_captions" not in data and _is_one_string(data.get("prompt")):
            global_caption, shots = _parts(data["prompt"])
        else:
            captions = filled_list(data.get("shot_captions"), "HoloCine, shot_captions", "texts")
            shots = [written_text(shot, f"HoloCine, shot {number}") for number, shot in enumerate(captions, start=1)]
            global_caption = data["global_caption"] if isinstance(data.get("global_caption"), str) else ""
        board, notes = _storyboard(global_caption, shots)
        lengths, note = _lengths(data.get("num_frames"), data.get("shot_cut_frames"), len(shots), fps)
        negative = {"negative_prompt": data["negative_prompt"]} if isinstance(data.get("negative_prompt"), str) else {}
        board["scenes"] = [scene | length | negative for scene, length in zip(board["scenes"], lengths, strict=True)]
        return board, notes + note + keys_left_out(data, KEYS)

    def write(self, board: Storyboard, fps: float | None) -> tuple[str, list[str]]:
        global_caption, shots = _captions(board)
        num_frames, cuts, notes = _cut_frames(board, fps)
        data: dict[str, Any] = {"global_caption": global_caption, "shot_captions": shots}
        data |= {} if num_frames is None else {"num_frames": num_frames, "shot_cut_frames": cuts}
        negatives = {scene.negative_prompt for scene in board.scenes}
        if len(negatives) == 1 and None not in negatives:
            data["negative_prompt"] = negatives.pop()
        held = ("prompt", "characters", "duration_seconds", "num_frames", *(["negative_prompt"] if "negative_prompt" in data else []))
        return json.dumps(data, indent=2, ensure_ascii=False) + "\n", notes + left_out(board, self.title, held)


class HoloCineString:
    name = "holocine-string"
    title = "HoloCine's one string"
    sign = "[global caption] … [per shot caption] … [shot cut] …"

    def knows(self, source: Source) -> bool:
        return source.data is None and _is_one_string(source.text)

    def read(self, source: Source, fps: float | None) -> tuple[dict[str, Any], list[str]]:
        return _storyboard(*_parts(source.text))

    def write(self, board: Storyboard, fps: float | None) -> tuple[str, list[str]]:
        global_caption, shots = _captions(board)
        num_frames, cuts, notes = _cut_frames(board, fps)
        if num_frames is not None:
            notes.append(f"the string holds no lengths; pass num_frames={num_frames} and shot_cut_frames={cuts} beside it")
        text = f"[global caption] {global_caption} [per shot caption] {' [shot cut] '.join(shots)}\n"
        return text, notes + left_out(board, self.title, ("prompt", "characters", "duration_seconds", "num_frames"))


def _is_one_string(value: object) -> bool:
    return isinstance(value, str) and bool(_PER_SHOT.search(value) or _CUT.search(value))


def _parts(text: str) -> tuple[str, list[str]]:
    before, *behind = _PER_SHOT.split(text)
    if len(behind) != 1:
        raise StoryboardError(
            f"HoloCine: got [per shot caption] {len(behind)} times, expected it once, before the first shot; put it there"
        )
    shots = [shot.strip().removesuffix("|").strip() for shot in _CUT.split(behind[0])]  # some put a bar between shots
    if len(shots) > 1 and not shots[-1]:
        shots.pop()
    return _GLOBAL.sub(" ", before).strip(), [written_text(shot, f"HoloCine, shot {number}") for number, shot in enumerate(shots, start=1)]


# Their captions → ours


@dataclass(frozen=True, slots=True)
class _Global:
    """What a global caption says: of every shot, and of each character."""

    shared: str
    characters: dict[str, str]
    says_shots: str


def _understood(global_caption: str) -> _Global:
    shared: list[str] = []
    said: dict[str, list[str]] = {}
    says_shots, who = "", ""
    for sentence in _SENTENCES.split(global_caption.strip()):
        match = _WHO.fullmatch(sentence)
        if _COUNT.fullmatch(sentence):
            says_shots, who = sentence, ""
        elif match:
            who = f"{NAME}{int(match[1])}"
            said.setdefault(who, []).append(match[2])
        elif who and _GOES_ON.match(sentence):
            said[who].append(sentence)
        elif sentence:
            shared.append(sentence)
            who = ""
    characters = {name: _ours(" ".join(parts)).removesuffix(".") for name, parts in said.items()}
    return _Global(_ours(" ".join(shared)), characters, says_shots)


def _storyboard(global_caption: str, shots: Sequence[str]) -> tuple[dict[str, Any], list[str]]:
    found = _understood(global_caption)
    scenes = []
    for shot in map(_ours, shots):
        nobody = not any(re.search(rf"\b{name}\b", shot) for name in found.characters)
        lead = ", ".join(found.characters) + "." if found.characters and nobody and _PRONOUN.search(shot) else ""
        scenes.append({"prompt": " ".join(part for part in (found.shared, lead, shot) if part)})
    notes = []
    if found.says_shots and str(len(shots)) not in found.says_shots:
        notes.append(f"the global caption says {found.says_shots!r}, and there are {len(shots)}")
    if found.shared:
        notes.append("what the global caption says of the place is put before every prompt")
    return ({"characters": found.characters} if found.characters else {}) | {"scenes": scenes}, notes


def _ours(text: str) -> str:
    return _TAG.sub(lambda match: f"{NAME}{int(match[1])}", text)


# Our captions → theirs


def _captions(board: Storyboard) -> tuple[str, list[str]]:
    """The global caption and the shots: sentences that all prompts begin with are shared, and characters are described once."""
    prompts = [scene.prompt for scene in board.scenes]
    shared = _shared_beginning(prompts, list(board.characters))
    tags = _tags(list(board.characters))
    shots = [_theirs(prompt[len(shared) :].removeprefix(" " if shared else ""), tags) for prompt in prompts]
    cast = [f"{tags[name]} is {text if text.endswith(('.', '!', '?')) else text + '.'}" for name, text in board.characters.items()]
    many = "shots" if len(shots) > 1 else "shot"
    return " ".join([*([shared] if shared else []), *cast, f"This scene contains {len(shots)} {many}."]), shots


def _shared_beginning(prompts: Sequence[str], names: Sequence[str]) -> str:
    """Whole sentences, without names, that every prompt begins with and none ends with."""
    sentences = _SENTENCES.split(prompts[0])
    shared = ""
    for count in range(1, len(sentences)):
        text = " ".join(sentences[:count])
        if any(name in text for name in names) or not all(
            prompt.startswith(text + " ") and prompt[len(text) :].strip() for prompt in prompts
        ):
            break
        shared = text
    return shared if len(prompts) > 1 else ""


def _tags(names: Sequence[str]) -> dict[str, str]:
    """Actor2 is [character2]; other names take the numbers that are free."""
    own = {name: int(match[1]) for name in names if (match := re.fullmatch(rf"{NAME}([1-9]\d*)", name))}
    free = (number for number in range(1, len(names) + 1) if number not in own.values())
    return {name: f"[character{own[name] if name in own else next(free)}]" for name in names}


def _theirs(prompt: str, tags: Mapping[str, str]) -> str:
    if not tags:
        return prompt
    names = "|".join(map(re.escape, sorted(tags, key=len, reverse=True)))
    return re.sub(rf"(?<!\w)({names})(?!\w)", lambda match: tags[match[1]], prompt)


# Lengths


def _lengths(num_frames: object, cuts: object, count: int, fps: float | None) -> tuple[list[dict[str, Any]], list[str]]:
    """A length per shot, and a note where the file's numbers do not give one."""
    nothing: list[dict[str, Any]] = [{} for _ in range(count)]
    if num_frames is None and cuts is None:
        return nothing, []
    total = num_frames if whole_number(num_frames) else None
    notes = []
    if cuts is None and isinstance(total, int) and total > 4 * count:
        cuts = [nearest_num_frames(total * number / count) for number in range(1, count)]
        notes = ["the cuts are spaced evenly, as HoloCine does where shot_cut_frames is missing"] if count > 1 else []
    edges = [0, *cuts, *([total] if total is not None else [])] if isinstance(cuts, list) and all(map(whole_number, cuts)) else []
    if not isinstance(cuts, list) or len(cuts) != count - 1 or not edges or any(later <= earlier for earlier, later in pairwise(edges)):
        return nothing, [f"num_frames and shot_cut_frames do not give {count} lengths; the model chooses"]
    counts = [later - earlier for earlier, later in pairwise(edges)]
    if fps is None:  # the frame that every scene of ours has beyond HoloCine's
        counts = [frames + (index > 0) for index, frames in enumerate(counts)]
        notes += ["lengths are rounded to 4k + 1 frames"] if any(frames % 4 != 1 for frames in counts) else []
    return [length_of(frames, fps) for frames in counts] + nothing[len(counts) :], notes


def _cut_frames(board: Storyboard, fps: float | None) -> tuple[int | None, list[int], list[str]]:
    """All frames and the cuts among them, where every scene has a length."""
    counts = [frame_count(scene, number, fps, "HoloCine") for number, scene in enumerate(board.scenes, start=1)]
    known = [frames for frames in counts if frames is not None]
    if len(known) < len(counts):
        return None, [], ["lengths are left out, since not every scene has one"] if known else []
    edges = list(accumulate(frames - (index > 0) for index, frames in enumerate(known)))
    return edges[-1], edges[:-1], []
