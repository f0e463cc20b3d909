"""What is known of films, kept: one look and one feature per scene, extractor and kind, named by content.

The store is a folder. A look is named by the film's bytes and its cut list; a scene's feature by the film's bytes, the scene's frames, and
the extractor's weights; a caption's by its words. So whatever is there is right, nothing is computed twice, several processes may fill one
store, and a run that is killed goes on where it was. No decoding is needed for what is there.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydantic import ValidationError

from mask2dit.errors import InputError
from mask2dit.evaluation.facts import Features, FilmFacts, Look
from mask2dit.evaluation.films import FilmSource
from mask2dit.evaluation.looking import (
    MOST_PICTURES,
    PICTURES_PER_SECOND,
    SHORT_SIDE,
    ScenePictures,
    digest_of_video,
    look_at,
    take_pictures,
)
from mask2dit.evaluation.metrics import METRICS, FilmMetric
from mask2dit.extractors.base import Extractor
from mask2dit.files import written_aside

FORMAT = 4  # raised by any change of what a look or a feature is
STRIP_HEIGHT, STRIP_GAP = 120, 4  # pixels
PICTURES = f"{PICTURES_PER_SECOND:g}/{SHORT_SIDE}/{MOST_PICTURES}"
"""How pictures are taken; another way is another feature."""

Wanted = Mapping[str, frozenset[str]]
"""What is wanted of each extractor, by its name: "scene", "frame", "text"."""


@cache
def looked_at_with() -> list[str]:
    """The cut detector, the optical flow, and their versions; another one is another look."""
    return sorted({metric.instrument() for metric in METRICS.values() if isinstance(metric, FilmMetric) and not metric.needs})


@dataclass(frozen=True, slots=True)
class Store:
    """Looks and features on disk; the extractors compute what is not there."""

    folder: Path
    extractors: Mapping[str, Extractor]

    def facts(self, film: FilmSource, wanted: Wanted) -> FilmFacts:
        """All that is wanted of a film; decodes it once, or not at all. Raises InputError where it cannot be read."""
        if film.problem:
            raise InputError(film.problem)
        if not film.video.is_file():
            raise InputError(f"{film.video}: there is no such file, expected a video; check the name")
        digest = digest_of_video(film.video)
        look = self._read_look(self._look_path(film, digest))
        if look is None:
            look = look_at(film, digest, lambda scene: self._keep(digest, scene, wanted))
            with written_aside(self._look_path(film, digest)) as part:
                part.write_text(look.model_dump_json(), encoding="utf-8")
        for path in self._paths(look, wanted):
            _remove_damaged(path)
        if not all(path.exists() for path in (*self._paths(look, wanted), *self.strips(look))):
            take_pictures(film, look, lambda scene: self._keep(digest, scene, wanted))
        return self._told(film, look, wanted)

    def _told(self, film: FilmSource, look: Look, wanted: Wanted) -> FilmFacts:
        scenes, captions, characters, amiss = len(look.scenes), film.captions, film.characters, ""
        if captions is not None and len(captions) != scenes:
            how = "has" if look.cuts_are == "asked" else "was found to have"
            amiss = f"the storyboard has {len(captions)} scenes, the film {how} {scenes}"
            captions = characters = None
        return FilmFacts(
            name=film.name,
            look=look,
            captions=captions,
            characters=characters,
            amiss=amiss,
            scenes={name: np.stack(self._read(name, "scene", look)) for name, kinds in wanted.items() if "scene" in kinds},
            pictures={name: tuple(self._read(name, "frame", look)) for name, kinds in wanted.items() if "frame" in kinds},
            texts={name: self._texts(name, captions) for name, kinds in wanted.items() if "text" in kinds and captions},
        )

    def strips(self, look: Look) -> list[Path]:
        """For each scene of a film that was looked at, a JPEG of three of its pictures side by side."""
        return [self._strip_path(look.digest, scene.start, scene.stop) for scene in look.scenes]

    def _strip_path(self, digest: str, start: int, stop: int) -> Path:
        return self.folder / "pictures" / f"{_digest(FORMAT, digest, start, stop)}.jpg"

    def _keep(self, digest: str, scene: ScenePictures, wanted: Wanted) -> None:
        """Compute and write what is wanted of a scene and not there."""
        strip = self._strip_path(digest, scene.start, scene.stop)
        if not strip.exists():
            with written_aside(strip) as part:
                _strip(scene.pictures).save(part, "JPEG", quality=82)
        for name, kinds in wanted.items():
            for kind in sorted(kinds & {"scene", "frame"}):
                path = self._path(name, kind, f"{digest}/{scene.start}/{scene.stop}/{PICTURES}")
                if not path.exists():
                    extractor = self.extractors[name]
                    _write(path, extractor.scene(scene.pictures) if kind == "scene" else extractor.frames(scene.pictures))

    def _texts(self, name: str, captions: Sequence[str]) -> Features:
        paths = [self._path(name, "text", caption) for caption in captions]
        for path in paths:
            _remove_damaged(path)
        missing = list(dict.fromkeys(caption for caption, path in zip(captions, paths, strict=True) if not path.exists()))
        if missing:
            for caption, feature in zip(missing, self.extractors[name].text(missing), strict=True):
                _write(self._path(name, "text", caption), feature)
        return np.stack([np.load(path) for path in paths])

    def _read(self, name: str, kind: str, look: Look) -> list[Features]:
        return [np.load(path) for path in self._paths(look, {name: frozenset({kind})})]

    def _paths(self, look: Look, wanted: Wanted) -> list[Path]:
        return [
            self._path(name, kind, f"{look.digest}/{scene.start}/{scene.stop}/{PICTURES}")
            for name, kinds in wanted.items()
            for kind in sorted(kinds & {"scene", "frame"})
            for scene in look.scenes
        ]

    def _path(self, name: str, kind: str, content: str) -> Path:
        extractor = self.extractors[name]
        return self.folder / f"{name}-{kind}" / f"{_digest(FORMAT, extractor.weights, extractor.num_frames, content)}.npy"

    def _look_path(self, film: FilmSource, digest: str) -> Path:
        cuts = film.cut_list and (film.cut_list.are_cuts, film.cut_list.numbers, film.cut_list.in_seconds)
        return self.folder / "looks" / f"{_digest(FORMAT, digest, cuts, PICTURES, looked_at_with())}.json"

    def _read_look(self, path: Path) -> Look | None:
        with suppress(OSError, ValidationError, ValueError):
            return Look.model_validate_json(path.read_text(encoding="utf-8"))
        return None


def _strip(pictures: NDArray[np.uint8]) -> Image.Image:
    """The first, the middle and the last of a scene's pictures, side by side."""
    height, width = pictures.shape[1:3]
    across = max(1, round(width * STRIP_HEIGHT / height))
    strip = Image.new("RGB", (3 * across + 2 * STRIP_GAP, STRIP_HEIGHT), "#f7f5f0")
    for column, index in enumerate((0, len(pictures) // 2, -1)):
        picture = Image.fromarray(pictures[index]).resize((across, STRIP_HEIGHT), Image.Resampling.LANCZOS)
        strip.paste(picture, (column * (across + STRIP_GAP), 0))
    return strip


def _digest(*parts: object) -> str:
    return hashlib.sha256(json.dumps(parts, ensure_ascii=True).encode()).hexdigest()[:24]


def _write(path: Path, feature: Features) -> None:
    if not np.isfinite(feature).all():
        raise InputError(f"{path.parent.name}: got numbers that are not finite, expected a feature; the extractor's weights may be damaged")
    with written_aside(path) as part:
        np.save(part, np.asarray(feature, np.float32))


def _remove_damaged(path: Path) -> None:
    """A file that no feature can be read from, as a failing disk leaves it, goes, so that the feature is computed again."""
    try:
        np.load(path, mmap_mode="r")
    except FileNotFoundError:
        return
    except (OSError, ValueError, EOFError):
        path.unlink(missing_ok=True)
