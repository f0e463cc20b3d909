"""The storyboard: a title, characters, and scenes, in the file that people write.

Owns the file's words, what is legal in it by itself, and reading and writing it as YAML or JSON. What a given model can
make of it (sizes, caption lengths, how many scenes at once) is the pipeline's business.
"""

import difflib
import json
import re
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import ErrorDetails, PydanticCustomError

from mask2dit.errors import StoryboardError
from mask2dit.files import written_aside

LARGEST_FILE = 16 * 2**20  # bytes; a longer "storyboard" is a video that was named by mistake
LONGEST_SCENE_SECONDS = 3600.0  # guards against 1e300, not against ambition
LONGEST_SCENE_FRAMES = 86_401  # an hour at 24 frames per second
LARGEST_SEED = 2**63 - 1
SHOWN = 40  # characters of a wrong value that a message repeats


def _not_blank(text: str) -> str:
    if not text.strip():
        raise PydanticCustomError("blank", "blank")
    return text


def _one_more_than_a_multiple_of_four(num_frames: int) -> int:
    if num_frames % 4 != 1:
        below = max(1, (num_frames - 1) // 4 * 4 + 1)
        raise PydanticCustomError("frames", "frames", {"remedy": f"use {below} or {below + 4}"})
    return num_frames


def _writable(text: str) -> str:
    if any("\ud800" <= character <= "\udfff" for character in text):  # half of a pair, from a cut JSON escape
        raise PydanticCustomError("surrogate", "surrogate", {"remedy": "take out the broken character"})
    return text


def _scenes_to_remember(value: object) -> object:
    is_list = isinstance(value, list | tuple) and value and all(type(number) is int and number > 0 for number in value)
    if not is_list and value not in ("latest", "first", "characters", None):
        raise PydanticCustomError("remembered", "remembered")
    return value


Text = Annotated[str, Field(strict=True), AfterValidator(_writable)]
WrittenText = Annotated[Text, AfterValidator(_not_blank)]
Remembered = Annotated[Literal["latest", "first", "characters"] | tuple[int, ...], BeforeValidator(_scenes_to_remember)]
"""Which scenes stay known while a scene beyond the model's window is made: the latest before it; the first one and the latest; those
that share a character with it, then the latest; or scenes by number."""
FrameCount = Annotated[int, Field(strict=True, ge=1, le=LONGEST_SCENE_FRAMES), AfterValidator(_one_more_than_a_multiple_of_four)]


class Scene(BaseModel):
    """One caption and how its frames are made; None leaves the choice to the model, the storyboard or the command.

    `given`: a video that is this scene, named from the storyboard's folder on; it is not made. `skip`: left out of the film, and kept.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    prompt: WrittenText
    duration_seconds: Annotated[float, Field(strict=True, gt=0, le=LONGEST_SCENE_SECONDS, allow_inf_nan=False)] | None = None
    num_frames: FrameCount | None = None
    seed: Annotated[int, Field(strict=True, ge=0, le=LARGEST_SEED)] | None = None
    guidance_scale: Annotated[float, Field(strict=True, ge=0, allow_inf_nan=False)] | None = None
    negative_prompt: Text | None = None
    given: WrittenText | None = None
    remember: Remembered | None = None
    skip: Annotated[bool, Field(strict=True)] = False

    @model_validator(mode="after")
    def _one_length(self) -> Self:
        if self.duration_seconds is not None and self.num_frames is not None:
            raise PydanticCustomError("two_lengths", "two lengths")
        return self


def _at_least_one(scenes: tuple[Scene, ...]) -> tuple[Scene, ...]:
    if not scenes:
        raise PydanticCustomError("no_scenes", "no scenes")
    if all(scene.skip for scene in scenes):
        raise PydanticCustomError("all_skipped", "all skipped")
    return scenes


@dataclass(frozen=True, slots=True)
class Character:
    """A name that prompts use, and the description that a caption gives with it."""

    name: str
    description: str


class Storyboard(BaseModel):
    """A film as written down: scenes in order, and the characters that their prompts may name.

    A mistake raises StoryboardError with one line; scenes are counted from 1 there.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    title: Text = ""
    characters: dict[WrittenText, WrittenText] = {}
    remember: Remembered = "latest"
    scenes: Annotated[tuple[Scene, ...], AfterValidator(_at_least_one)]

    @model_validator(mode="after")
    def _remembers_what_there_is(self) -> Self:
        for place, remembered in [(None, self.remember), *((index, scene.remember) for index, scene in enumerate(self.scenes))]:
            for number in remembered if isinstance(remembered, tuple) else ():
                if number > len(self.scenes) or number - 1 == place:
                    raise PydanticCustomError("remember", "remember", {"place": place, "number": number, "count": len(self.scenes)})
        return self

    def __init__(self, /, **data: Any) -> None:
        try:
            super().__init__(**data)
        except ValidationError as error:
            raise StoryboardError(_one_line(error)) from None

    @classmethod
    def from_data(cls, data: Any, source: str = "") -> Self:
        """Check what a file or a program holds; `source` is named in errors."""
        try:
            if not isinstance(data, Mapping):
                raise StoryboardError(f"got {describe_value(data)}, expected a mapping with the key scenes; begin with `scenes:`")
            odd = [key for key in data if not isinstance(key, str)]
            if odd:
                raise StoryboardError(f"got the unknown key {describe_value(odd[0])}, expected {_listed(cls)}; remove it")
            return cls(**data)
        except StoryboardError as error:
            raise StoryboardError(f"{source}: {error}" if source else str(error)) from None

    @classmethod
    def from_captions(cls, captions: Sequence[str], title: str = "") -> Self:
        """One scene per caption, everything else left to the model."""
        return cls(title=title, scenes=[{"prompt": caption} for caption in captions])

    @classmethod
    def from_text(cls, text: str, title: str = "") -> Self:
        """Captions with ';' between them."""
        pieces = [piece.strip() for piece in text.split(";")]
        while pieces and not pieces[-1]:
            pieces.pop()
        return cls.from_captions(pieces, title)

    @classmethod
    def read(cls, path: str | Path) -> Self:
        """Read YAML or JSON: by suffix, else by the first character."""
        path = Path(path)
        text = read_text(path)
        is_json = path.suffix.lower() == ".json" or (path.suffix.lower() not in (".yaml", ".yml") and text.lstrip()[:1] in ("{", "["))
        try:
            data = parse_json(text) if is_json else parse_yaml(text)
        except StoryboardError as error:
            raise StoryboardError(f"{path}: {error}") from None
        return cls.from_data(data, source=str(path))

    def write(self, path: str | Path) -> None:
        """Write YAML, or JSON where the name says so; an existing file is replaced only by a complete one."""
        path = Path(path)
        text = self.to_json() if path.suffix.lower() == ".json" else self.to_yaml()
        with written_aside(path) as part:
            part.write_text(text, encoding="utf-8")

    def to_data(self) -> dict[str, Any]:
        """Plain values with defaults left out, in the order of the file."""
        return self.model_dump(mode="json", exclude_defaults=True)

    def to_yaml(self) -> str:
        return yaml.dump(self.to_data(), Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100)

    def to_json(self) -> str:
        return json.dumps(self.to_data(), indent=2, ensure_ascii=False) + "\n"

    def with_scenes(self, scenes: Sequence[Scene | Mapping[str, Any]]) -> Self:
        """The same film with other scenes, as they are or as in a file. Raises StoryboardError."""
        return type(self)(**{**dict(self), "scenes": tuple(scenes)})

    def shown(self) -> Self:
        """Without the scenes that are skipped; which scenes are remembered has no meaning any more."""
        scenes = [scene.model_copy(update={"remember": None}) for scene in self.scenes if not scene.skip]
        return type(self)(title=self.title, characters=self.characters, scenes=scenes)

    def cast_of(self, index: int) -> frozenset[str]:
        """Names of the characters that a scene's prompt mentions."""
        found = re.findall(_names_pattern(self.cast), self.scenes[index].prompt) if self.characters else []
        return frozenset(name for name, _ in found)

    @property
    def cast(self) -> tuple[Character, ...]:
        return tuple(Character(name, description) for name, description in self.characters.items())

    @property
    def captions(self) -> tuple[str, ...]:
        """The prompts, each with the description put in brackets behind the first mention of a character."""
        return tuple(_introduce(scene.prompt, self.cast) for scene in self.scenes)


def _introduce(prompt: str, cast: Sequence[Character]) -> str:
    """Names count as whole words; one that is already followed by '(' was introduced by its author."""
    if not cast:
        return prompt
    descriptions = {character.name: character.description for character in cast}
    met: set[str] = set()

    def describe(match: re.Match[str]) -> str:
        name, bracket = match.group(1), match.group(2)
        first = name not in met
        met.add(name)
        return match.group(0) if bracket or not first else f"{name} ({descriptions[name]})"

    # One pass over the prompt, so that a name inside another one's description stays as it is.
    return re.sub(_names_pattern(cast), describe, prompt)


def _names_pattern(cast: Sequence[Character]) -> str:
    longest_first = sorted((character.name for character in cast), key=len, reverse=True)
    return r"(?<!\w)(" + "|".join(map(re.escape, longest_first)) + r")(?!\w)(\s*\()?"


# Messages: place, got, expected, remedy.

_EXPECTED = {
    "title": ("a text", "put it in quotes"),
    "characters": ("names with their descriptions", "write `Name: description` below it, or remove the key"),
    "scenes": ("a list with at least one scene", "write `- prompt: …` below `scenes:`"),
    "prompt": ("a text that says what the scene shows", "write a sentence; one that looks like a number or yes/no needs quotes"),
    "duration_seconds": (f"a number of seconds over 0, up to {LONGEST_SCENE_SECONDS:g}", "write for example 2.5"),
    "num_frames": (f"a whole number 4k+1 from 1 to {LONGEST_SCENE_FRAMES}", "write for example 49"),
    "seed": (f"a whole number from 0 to {LARGEST_SEED}", "write for example 7"),
    "guidance_scale": ("a number that is not negative", "write for example 6.0"),
    "negative_prompt": ("a text", "put it in quotes"),
    "given": ("the name of a video file", "write for example clips/walk.mp4"),
    "remember": ("latest, first, characters, or a list of scene numbers", "write for example [1, 3]"),
    "skip": ("true or false", "write true to leave the scene out"),
}


def _one_line(error: ValidationError) -> str:
    # A mistyped key also counts as a missing one: name the cause first.
    mistakes = sorted(error.errors(include_url=False), key=lambda mistake: mistake["type"] != "extra_forbidden")
    rest = len(mistakes) - 1
    return _sentence(mistakes[0]) + (f" (and {rest} more mistake{'s' * (rest > 1)})" if rest else "")


def _sentence(mistake: ErrorDetails) -> str:
    loc, kind, got = mistake["loc"], mistake["type"], describe_value(mistake["input"])
    if kind == "extra_forbidden":
        model = Scene if loc[0] == "scenes" else Storyboard
        key = str(loc[-1])
        near = difflib.get_close_matches(key, model.model_fields, n=1, cutoff=0.5)
        remedy = f"did you mean {near[0]!r}?" if near else "remove it"
        return f"{_place(loc[:-1])}got the unknown key {describe_value(key)}, expected {_listed(model)}; {remedy}"
    if kind == "remember":
        found = mistake["ctx"]
        scene = "" if found["place"] is None else f"scene {found['place'] + 1}, "
        last = "another scene" if found["place"] is not None else "a scene"
        return f"{scene}remember: got {found['number']}, expected {last} from 1 to {found['count']}; change the number"
    if kind == "all_skipped":
        return "scenes: all are skipped, expected at least one to show; remove a `skip: true`"
    if kind == "two_lengths":
        return f"{_place(loc)}got both duration_seconds and num_frames, expected at most one; remove one of them"
    if kind == "missing":
        got = "nothing"
    if loc[0] == "characters" and len(loc) > 1:
        what = "name" if loc[-1] == "[key]" else "description"
        remedy = "write `Name: description`, with quotes where YAML needs them"
        return f"character {describe_value(loc[1])}: got {got}, expected a {what}; {remedy}"
    if loc[0] == "scenes" and len(loc) == 2:
        return f"{_place(loc)}got {got}, expected a mapping with a prompt; write `- prompt: …`"
    expected, remedy = _EXPECTED[str(loc[-1])]
    return f"{_place(loc)}got {got}, expected {expected}; {mistake.get('ctx', {}).get('remedy', remedy)}"


def _place(loc: tuple[int | str, ...]) -> str:
    if loc[:1] == ("scenes",) and len(loc) > 1:
        loc = (f"scene {int(loc[1]) + 1}", *loc[2:])
    return f"{', '.join(map(str, loc))}: " if loc else ""


def _listed(model: type[BaseModel]) -> str:
    *most, last = model.model_fields
    return f"{', '.join(most)} or {last}"


def describe_value(value: object) -> str:
    """A wrong value in a few words: containers are named only, since aliases in YAML can make them endless."""
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return f"'{_shortened(' '.join(value.split()))}'" if value.strip() else "an empty text"
    if isinstance(value, int):
        return str(value) if abs(value) < 10**SHOWN else "a number with too many digits"
    if isinstance(value, float):
        return repr(value)
    if isinstance(value, Mapping):
        return "a mapping"
    if isinstance(value, list | tuple):
        return "a list" if value else "an empty list"
    return f"a {type(value).__name__}"


def _shortened(text: str) -> str:
    text = "".join(character if character.isprintable() else "�" for character in text)
    return text if len(text) <= SHOWN else text[: SHOWN - 1] + "…"


# Files: bytes → plain values.


def read_text(path: Path) -> str:
    expected = "expected a storyboard in YAML or JSON"
    try:
        with path.open("rb") as file:
            raw = file.read(LARGEST_FILE + 1)
    except FileNotFoundError:
        raise StoryboardError(f"{path}: there is no such file, {expected}; check the name") from None
    except IsADirectoryError:
        raise StoryboardError(f"{path}: is a folder, {expected}; name the file in it") from None
    except (OSError, ValueError) as error:  # ValueError: a name with a null character
        reason = (isinstance(error, OSError) and error.strerror) or error
        raise StoryboardError(f"{path}: cannot be read ({reason}), {expected}; check name and permissions") from None
    if len(raw) > LARGEST_FILE:
        raise StoryboardError(f"{path}: holds over {LARGEST_FILE // 2**20} MB, {expected}; name the right file")
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise StoryboardError(f"{path}: byte {error.start + 1} is not UTF-8 text, {expected}; save it as UTF-8") from None
    if not text.strip():
        raise StoryboardError(f"{path}: is empty, {expected}; begin with `scenes:`")
    return text


class _Loader(yaml.SafeLoader):
    """Plain YAML values; a key that is written twice is an error, since the first value would vanish silently."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value in seen:
                raise yaml.MarkedYAMLError(problem=f"got the key {describe_value(key.value)} twice", problem_mark=key.start_mark)
            seen.add(str(key.value))
        return super().construct_mapping(node, deep)


class _Dumper(yaml.SafeDumper):
    """Lines stay lines, and lists are indented."""

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        super().increase_indent(flow, False)


def _represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    style = "|" if "\n" in text else None
    if any(separator in text for separator in "\r\x85\u2028\u2029"):  # YAML turns these into plain line breaks outside double quotes
        style = '"'
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _represent_text)


def parse_yaml(text: str) -> Any:
    remedy = "expected YAML; check quotes, colons and indentation"
    try:
        return yaml.load(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f"line {mark.line + 1}: " if mark else ""
        problem = str(error.problem or error.context)
        if problem.startswith("but "):
            problem = f"{error.context}, {problem}"
        raise StoryboardError(f"{place}{' '.join(problem.split())}, {remedy}") from None
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position if isinstance(error.position, int) else 0) + 1
        raise StoryboardError(f"line {line}: got a control character, {remedy}") from None
    except RecursionError:
        raise StoryboardError(f"is nested too deeply, {remedy}") from None
    except (ValueError, yaml.YAMLError) as error:  # ValueError: a date or number that Python cannot hold
        raise StoryboardError(f"{_shortened(' '.join(str(error).split()))}, {remedy}") from None


def parse_json(text: str) -> Any:
    remedy = "expected JSON; check quotes, commas and brackets"

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        names = [name for name, _ in pairs]
        twice = [name for name in names if names.count(name) > 1] if len(set(names)) < len(names) else []
        if twice:
            raise StoryboardError(f"got the key {describe_value(twice[0])} twice, {remedy}")
        return dict(pairs)

    try:
        return json.loads(text, object_pairs_hook=unique)
    except json.JSONDecodeError as error:
        raise StoryboardError(f"line {error.lineno}: {error.msg[:1].lower()}{error.msg[1:]}, {remedy}") from None
    except RecursionError:
        raise StoryboardError(f"is nested too deeply, {remedy}") from None
    except StoryboardError:
        raise
    except ValueError as error:  # a number that Python cannot hold
        raise StoryboardError(f"{_shortened(str(error))}, {remedy}") from None
