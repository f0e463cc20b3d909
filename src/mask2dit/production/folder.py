"""The folder of a film: what lies where, whether it may be used, and safe writing and reading of it.

Every file is written aside and renamed. Files that are not a film's own are never touched.
"""

import os
from pathlib import Path

from PIL import Image
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from mask2dit.errors import InputError
from mask2dit.production.record import FilmRecord
from mask2dit.storyboard import Storyboard
from mask2dit.video_files import written_aside


class FilmFolder:
    """Paths and files of one film. Scenes are counted from 1."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.film = self.path / "film.mp4"
        self.contact_sheet = self.path / "contact_sheet.png"
        self.preview = self.path / "film.webp"
        self.storyboard = self.path / "storyboard.yaml"
        self.record = self.path / "run.json"

    def scene_video(self, number: int) -> Path:
        return self.path / "scenes" / f"scene-{number:02d}.mp4"

    def scene_latents(self, number: int) -> Path:
        return self.path / "latents" / f"scene-{number:02d}.safetensors"

    def name(self, path: Path) -> str:
        """A path as run.json and messages write it: from the folder on, with '/'."""
        return path.relative_to(self.path).as_posix()

    def check(self, storyboard: Storyboard, overwrite: bool = False) -> FilmRecord | None:
        """The record of an earlier run of this storyboard; None for a new or empty folder, or one to be overwritten.

        Raises InputError for a folder that cannot or must not be written to. Writes nothing.
        """
        self._check_place()
        if overwrite or not self.path.exists() or not any(not entry.name.startswith(".") for entry in self.path.iterdir()):
            return None
        record = self.read_record()
        remedy = "choose another folder, or overwrite it (--overwrite)"
        if record is None:
            raise InputError(
                f"{self.path}: holds files that are no film, expected a new folder or an earlier run of this storyboard; {remedy}"
            )
        if record.storyboard != storyboard.to_data():
            raise InputError(
                f"{self.path}: holds a film of another storyboard ({record.title[:40]!r}), "
                f"expected a new folder or an earlier run of this storyboard; {remedy}"
            )
        return record

    def _check_place(self) -> None:
        try:
            nearest = next(place for place in (self.path, *self.path.absolute().parents) if place.exists())
        except OSError as error:
            raise InputError(f"{self.path}: cannot be a folder ({error.strerror}); choose another name") from None
        if not nearest.is_dir():
            raise InputError(f"{self.path}: {nearest} is a file, expected a folder; choose another folder")
        if not os.access(nearest, os.R_OK | os.W_OK | os.X_OK):
            raise InputError(f"{self.path}: {nearest} may not be written to; choose another folder")

    def read_record(self) -> FilmRecord | None:
        try:
            return FilmRecord.model_validate_json(self.record.read_bytes())
        except (OSError, ValidationError):
            return None

    def write_record(self, record: FilmRecord) -> None:
        self.write_bytes(self.record, (record.model_dump_json(indent=2) + "\n").encode())

    def try_writing(self) -> None:
        """Find out before the work begins whether the folder takes files; an earlier film in it stays as it is."""
        with written_aside(self.path / ".trial") as part:
            part.write_bytes(b"")
        (self.path / ".trial").unlink(missing_ok=True)

    def write_bytes(self, path: Path, content: bytes) -> None:
        with written_aside(path) as part:
            part.write_bytes(content)

    def write_image(self, path: Path, image: Image.Image) -> None:
        with written_aside(path) as part:
            image.save(part, "PNG")

    def write_latents(self, number: int, latents: Tensor) -> None:
        """Keep one scene's clean, scaled latents [F, C, H, W]."""
        self.write_bytes(self.scene_latents(number), save({"latents": latents.detach().cpu().contiguous()}))

    def read_latents(self, number: int) -> Tensor | None:
        """The latents of one scene, or None where there is no sound file."""
        try:
            tensors: dict[str, Tensor] = load_file(self.scene_latents(number))
        except (OSError, SafetensorError):
            return None
        return tensors.get("latents")

    def clear(self) -> None:
        """Remove the files of an earlier film, and nothing else."""
        own = [self.film, self.contact_sheet, self.preview, *self.path.glob("scenes/scene-*.mp4")]
        for path in [*own, *self.path.glob("latents/scene-*.safetensors")]:
            path.unlink(missing_ok=True)
