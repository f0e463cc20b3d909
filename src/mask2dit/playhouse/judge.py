"""The judge: a small network that reads one scene of the playhouse and says who does what, where, and under which light.

Owns the network, its readings and its files. Training it is `training.judge`; what its readings are worth stands in
`Judge.accuracy`, measured on scenes that it never saw, and belongs beside every number that it gives.
"""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn
from torch.nn import functional

from mask2dit.errors import InputError, ModelError, OutputError, one_line
from mask2dit.playhouse import facts
from mask2dit.playhouse.facts import SPECIES
from mask2dit.playhouse.staging import RoleVisibility

VIEW = (9, 64, 96)
"""Frames, height and width at which every scene is looked at, whatever its own are."""

VALUES: dict[str, tuple[str, ...]] = {
    "species": facts.SPECIES,
    "colour": facts.COLOURS,
    "accessory": facts.ACCESSORIES,
    "action": facts.ACTIONS,
    "place": facts.PLACES,
    "light": facts.LIGHTS,
    "weather": facts.WEATHERS,
    "camera": facts.CAMERAS,
}
ACTOR_ATTRIBUTES = ("colour", "accessory", "action")
SCENE_ATTRIBUTES = ("place", "light", "weather", "camera")

TRAITS = ("size", "width", "head", "ears")
"""What no caption names: `Actor.size` and its proportions, read as differences from 1."""

TRAIT_SPREAD = 0.1
"""About the standard deviation of every trait."""

VISIBLE = 0.6
"""Share of an actor, or of what it wears, that a scene must show before anyone is asked about it."""

_CHUNK = 32  # scenes read at once


def attributes_of(level: str) -> tuple[str, ...]:
    """The attributes that vary at a level; a judge of that level knows no others."""
    if level not in facts.LEVELS:
        raise InputError(f"level {level!r} does not exist; choose one of {', '.join(facts.LEVELS)}")
    world = facts.LEVELS[level]
    fixed = {"accessory": not world.accessories, "weather": not world.weathers, "camera": not world.cameras}
    return tuple(name for name in VALUES if not fixed.get(name, False))


def is_visible(seen: RoleVisibility, attribute: str) -> bool:
    """Whether a scene shows enough of an actor to be asked about an attribute of it."""
    return seen.body >= VISIBLE and (attribute != "accessory" or seen.accessory >= VISIBLE)


@dataclass(frozen=True, slots=True)
class ActorReading:
    """One species in one scene. An attribute that the judge's level does not vary is None."""

    species: str
    presence: float
    """Probability that it is on stage."""
    colour: str
    accessory: str | None
    action: str
    confidence: Mapping[str, float]
    """Probability of the value read, per attribute."""
    traits: Mapping[str, float]
    """Estimates of what no caption names, as differences from 1."""


@dataclass(frozen=True, slots=True)
class Reading:
    """What the judge sees in one scene. An attribute that its level does not vary is None."""

    species: tuple[str, ...]
    """Those on stage with a probability over one half, the most certain first."""
    main_species: str
    """The most certain one, also where none is over one half."""
    actors: Mapping[str, ActorReading]
    """Every species as it would be if it were on stage."""
    place: str
    light: str
    weather: str | None
    camera: str | None
    confidence: Mapping[str, float]

    @property
    def main(self) -> ActorReading:
        """The reading of the main species."""
        return self.actors[self.main_species]

    def leading(self, count: int) -> tuple[ActorReading, ...]:
        """The `count` most certain species."""
        return tuple(sorted(self.actors.values(), key=lambda actor: -actor.presence)[:count])


def view_scene(frames: Tensor | NDArray[Any]) -> Tensor:
    """Frames [T, Y, X, 3], uint8 or 0..1, of any length and size, as the judge looks at them: [9, 3, 64, 96] in 0..1."""
    pixels = torch.as_tensor(frames)
    if pixels.ndim != 4 or pixels.shape[-1] != 3 or 0 in pixels.shape:
        raise InputError(f"frames: got shape {tuple(pixels.shape)}, expected [T, Y, X, 3]; give one scene at a time")
    count, height, width = VIEW
    chosen = torch.linspace(0, len(pixels) - 1, count).round().long()
    scale = 255.0 if pixels.dtype == torch.uint8 else 1.0
    picked = pixels[chosen].permute(0, 3, 1, 2).float() / scale
    return picked if picked.shape[-2:] == (height, width) else functional.interpolate(picked, (height, width), mode="area")


class Judge(nn.Module):
    """Reads scenes of one level. All frames, and how their brightness changes, enter as channels; attention finds each species."""

    def __init__(self, level: str = "A", channels: tuple[int, int, int] = (32, 64, 96)) -> None:
        super().__init__()
        self.level, self.channels = level, tuple(channels)
        self.attributes = attributes_of(level)
        self.accuracy: dict[str, Any] = {}
        self.training_record: dict[str, Any] = {}
        narrow, middle, wide = channels
        self.trunk = nn.Sequential(
            _Layer(4 * VIEW[0] - 1, narrow, stride=2),
            _Layer(narrow, middle, stride=2),
            _Residual(middle),
            _Layer(middle, wide, stride=2),
            _Residual(wide),
            _Residual(wide),
        )
        self.find = nn.Conv2d(wide, len(SPECIES), 1)
        self.presence = nn.Linear(wide, len(SPECIES))
        self.actor = nn.Linear(2 * wide, wide)
        self.kind = nn.Parameter(torch.zeros(len(SPECIES), wide))
        self.scene = nn.Linear(2 * wide, wide)
        self.heads = nn.ModuleDict({name: nn.Linear(wide, len(VALUES[name])) for name in self.attributes if name != "species"})
        self.traits = nn.Linear(wide, len(TRAITS))

    def forward(self, views: Tensor) -> dict[str, Tensor]:
        """Logits of views [B, 9, 3, 64, 96]: species [B, 8], the actors' [B, 8, values], the scene's [B, values]; and traits [B, 8, 4]."""
        pixels = 2 * views - 1
        changes = 2 * pixels.mean(2).diff(dim=1)
        features = self.trunk(torch.cat([pixels.flatten(1, 2), changes], dim=1))  # [B, D, 8, 12]
        found = self.find(features).flatten(2)  # [B, 8, 96]
        seen = found.softmax(-1) @ features.flatten(2).mT  # [B, 8, D]
        mean, peak = features.mean((2, 3)), features.amax((2, 3))
        actors = functional.silu(self.actor(torch.cat([seen, mean[:, None].expand_as(seen)], -1)) + self.kind)
        scene = functional.silu(self.scene(torch.cat([mean, peak], -1)))
        logits = {name: head(actors if name in ACTOR_ATTRIBUTES else scene) for name, head in self.heads.items()}
        return logits | {"species": self.presence(peak) + found.amax(-1), "traits": TRAIT_SPREAD * self.traits(actors)}

    @torch.no_grad()
    def read(self, scenes: Sequence[Tensor | NDArray[Any]] | Tensor) -> list[Reading]:
        """Read scenes, each [T, Y, X, 3], uint8 or 0..1, of any length and size."""
        device = self.find.weight.device
        views = [view_scene(frames) for frames in scenes]
        readings: list[Reading] = []
        for start in range(0, len(views), _CHUNK):
            logits = self(torch.stack(views[start : start + _CHUNK]).to(device))
            odds = {name: value.sigmoid() if name == "species" else value.softmax(-1) for name, value in logits.items() if name != "traits"}
            odds = {name: value.cpu() for name, value in odds.items()}
            readings += [_reading(odds, logits["traits"].cpu(), row) for row in range(len(logits["traits"]))]
        return readings

    def save(self, folder: Path, accuracy: Mapping[str, Any], training: Mapping[str, Any] | None = None) -> Path:
        """Write config.json, with what was measured and how it was trained, and the weights in float16."""
        config = {"level": self.level, "channels": list(self.channels), "accuracy": dict(accuracy), "training": dict(training or {})}
        weights = {key: value.detach().half().contiguous().cpu() for key, value in self.state_dict().items()}
        try:
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "model.safetensors.part").write_bytes(save(weights))  # save_file would keep others from reading it
            os.replace(folder / "model.safetensors.part", folder / "model.safetensors")
            (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
        except OSError as error:
            raise OutputError(
                f"{folder}: the judge cannot be written ({error.strerror or error}); free the disk or choose another"
            ) from None
        return folder


def builtin_judge() -> Path:
    """The folder of the judge that ships in the package."""
    return Path(str(files("mask2dit") / "weights" / "judge"))


def load_judge(folder: Path | None = None) -> Judge:
    """The judge of a folder, float32, on the CPU; None is the one that ships. ModelError in one line where it is missing or damaged."""
    folder = folder or builtin_judge()
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        weights = load_file(str(folder / "model.safetensors"))
    except FileNotFoundError as error:
        raise ModelError(f"{folder}: no judge here ({Path(str(error.filename or folder)).name} is missing); copy it again") from None
    except (OSError, ValueError, SafetensorError) as error:
        raise ModelError(f"{folder}: the judge is damaged ({one_line(error)}); copy it again") from None
    try:
        judge = Judge(config["level"], tuple(config["channels"]))
        judge.load_state_dict(weights)
        judge.accuracy, judge.training_record = dict(config["accuracy"]), dict(config["training"])
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        what = one_line(error)
        raise ModelError(f"{folder}: the judge's weights do not fit its config.json ({what}); copy both again") from None
    return judge.float().eval()


def _reading(odds: Mapping[str, Tensor], traits: Tensor, row: int) -> Reading:
    """One row of the probabilities, in words."""

    def best(name: str, *place: int) -> tuple[str | None, float]:
        if name not in odds:
            return None, 1.0
        probability, index = odds[name][row][place].max(-1)
        return VALUES[name][int(index)], float(probability)

    presence = odds["species"][row].tolist()
    actors = {}
    for number, species in enumerate(SPECIES):
        told = {name: best(name, number) for name in ACTOR_ATTRIBUTES}
        actors[species] = ActorReading(
            species=species,
            presence=presence[number],
            colour=str(told["colour"][0]),
            accessory=told["accessory"][0],
            action=str(told["action"][0]),
            confidence={name: sure for name, (value, sure) in told.items() if value is not None},
            traits=dict(zip(TRAITS, traits[row, number].tolist(), strict=True)),
        )
    ranked = sorted(SPECIES, key=lambda species: -actors[species].presence)
    around = {name: best(name) for name in SCENE_ATTRIBUTES}
    return Reading(
        species=tuple(species for species in ranked if actors[species].presence > 0.5),
        main_species=ranked[0],
        actors=actors,
        place=str(around["place"][0]),
        light=str(around["light"][0]),
        weather=around["weather"][0],
        camera=around["camera"][0],
        confidence={name: sure for name, (value, sure) in around.items() if value is not None},
    )


class _Layer(nn.Sequential):
    """Convolution, normalisation, activation."""

    def __init__(self, incoming: int, outgoing: int, stride: int = 1) -> None:
        super().__init__(
            nn.Conv2d(incoming, outgoing, 3, stride=stride, padding=1), nn.GroupNorm(max(outgoing // 8, 1), outgoing), nn.SiLU()
        )


class _Residual(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.layer = _Layer(channels, channels)

    def forward(self, features: Tensor) -> Tensor:
        return features + self.layer(features)  # type: ignore[no-any-return]
