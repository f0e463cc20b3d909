"""The folder of a film: what lies where, who may work in it, and safe writing and reading of it.

Every file is written aside and renamed. Latents of takes are written once and never change; what a person looks at (scenes/,
latents/) are second names of the takes that the film shows. Files that are not a film's own are never touched.
"""

import os
import platform
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from PIL import Image
from pydantic import ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import load, save
from torch import Tensor

from mask2dit.errors import InputError, OutputError, StoryboardError
from mask2dit.files import written_aside
from mask2dit.production.record import FORMAT, FilmRecord, Process, Take, digest_of_bytes, digest_of_file
from mask2dit.stepper import DenoisingState
from mask2dit.storyboard import Storyboard


class FilmFolder:
    """Paths and files of one film. Scenes are counted from 1; takes lie under their scene's own number."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.film = self.path / "film.mp4"
        self.contact_sheet = self.path / "contact_sheet.png"
        self.preview = self.path / "film.webp"
        self.storyboard = self.path / "storyboard.yaml"
        self.record = self.path / "run.json"
        self.page = self.path / "index.html"
        self.edl = self.path / "film.edl"
        self.otio = self.path / "film.otio"
        self.subtitles = self.path / "film.srt"
        self.denoising = self.path / "latents" / "denoising.safetensors"
        self.denoising_preview = self.path / "preview.png"

    def scene_video(self, number: int) -> Path:
        return self.path / "scenes" / f"scene-{number:02d}.mp4"

    def scene_latents(self, number: int) -> Path:
        return self.path / "latents" / f"scene-{number:02d}.safetensors"

    def take_video(self, take: Take) -> Path:
        return self.take_latents(take.scene, take.number).with_suffix(".mp4")

    def take_latents(self, scene: int, number: int) -> Path:
        return self.path / "takes" / f"scene-{scene:02d}" / f"take-{number}.safetensors"

    def given(self, digest: str) -> Path:
        """Where a given video is kept."""
        return self.path / "given" / f"{digest}.mp4"

    def shown(self, numbers: Iterable[int]) -> list[Path]:
        """What a person finds of these scenes."""
        return [path for number in numbers for path in (self.scene_video(number), self.scene_latents(number))]

    def name(self, path: Path) -> str:
        """A path as run.json and messages write it: from the folder on, with '/'."""
        return path.relative_to(self.path).as_posix()

    def results(self, subtitles: bool = False) -> list[Path]:
        """What is made of all scenes."""
        files = [self.film, self.contact_sheet, self.preview, self.storyboard, self.edl, self.otio, self.page]
        return [*files, self.subtitles] if subtitles else files

    # Whether it may be used

    def check(self, fresh: bool = False) -> FilmRecord | None:
        """The record of what was made here; None for a new or empty folder, or, with `fresh`, for one whose record says nothing.

        Raises InputError for a folder that cannot or must not be written to. Writes nothing.
        """
        self._check_place()
        if not self.path.exists() or not any(not entry.name.startswith(".") for entry in self.path.iterdir()):
            return None
        if not self.record.exists() and not fresh:
            raise InputError(
                f"{self.path}: holds files that are no film, expected a new folder or a film's; choose another folder, or --fresh"
            )
        try:
            return self.read_record()
        except InputError:
            if fresh:
                return None
            raise

    def _check_place(self) -> None:
        try:
            nearest = next(place for place in (self.path, *self.path.absolute().parents) if place.exists())
        except OSError as error:
            raise InputError(f"{self.path}: cannot be a folder ({error.strerror}); choose another name") from None
        if not nearest.is_dir():
            raise InputError(f"{self.path}: {nearest} is a file, expected a folder; choose another folder")
        if not os.access(nearest, os.R_OK | os.W_OK | os.X_OK):
            raise InputError(f"{self.path}: {nearest} may not be written to; choose another folder")

    def read_record(self) -> FilmRecord:
        """Raises InputError where there is none, or one that cannot be read."""
        remedy = "put a good copy back, or make the film again with --fresh (takes/ stays)"
        try:
            content = self.record.read_bytes()
        except FileNotFoundError:
            raise InputError(f"{self.path}: holds no run.json, expected a film folder; name one that `mask2dit generate` made") from None
        except OSError as error:
            raise InputError(f"{self.record}: cannot be read ({error.strerror}), expected a film's record; {remedy}") from None
        try:
            return FilmRecord.model_validate_json(content)
        except ValidationError as error:
            place = ".".join(map(str, error.errors()[0]["loc"]))
            what = "is of another version" if place in ("format", "settings") else f"is damaged at {place!r}" if place else "is damaged"
            raise InputError(f"{self.record}: {what}, expected a film's record of format {FORMAT}; {remedy}") from None

    @contextmanager
    def locked(self) -> Iterator[None]:
        """No other thread or process works on the folder meanwhile. Raises InputError, with who does; OutputError where that cannot be."""
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            lock = FileLock(self.path / ".lock", timeout=0, is_singleton=True)  # once taken, this thread may take it again
            lock.acquire()
        except Timeout:
            raise InputError(f"{self.path}: {self._who()} is at work on it; wait for its end, or choose another folder") from None
        except OSError as error:
            raise OutputError(f"{self.path}: cannot be written to ({error.strerror}); make room or choose another folder") from error
        try:
            yield
        finally:
            if lock.lock_counter == 1:
                with suppress(OSError):
                    (self.path / ".lock").unlink(missing_ok=True)
            lock.release()

    def _who(self) -> str:
        try:
            process = self.read_record().process
        except InputError:
            process = None
        return f"another run (process {process.pid} on {process.host})" if process else "another run"

    # Writing

    def tidy(self) -> None:
        """Remove what a killed run wrote aside and could not finish."""
        for place in (".", "scenes", "latents", "given", "takes/*"):
            for part in self.path.glob(f"{place}/.*.part*"):
                part.unlink(missing_ok=True)

    def write_record(self, record: FilmRecord) -> None:
        self.write_bytes(self.record, (record.model_dump_json(indent=2) + "\n").encode())

    def write_bytes(self, path: Path, content: bytes) -> None:
        with written_aside(path) as part:
            part.write_bytes(content)

    def write_image(self, path: Path, image: Image.Image) -> None:
        with written_aside(path) as part:
            image.save(part, "PNG", compress_level=3)  # a third of the time of level 6, for an eighth more bytes

    def write_storyboard(self, storyboard: Storyboard) -> None:
        """Unless the file there says the same already, perhaps with remarks of its author; another one is kept beside it."""
        if self.storyboard.exists():
            with suppress(StoryboardError):
                if Storyboard.read(self.storyboard) == storyboard:
                    return
            self.write_bytes(self.storyboard.with_name("storyboard.before.yaml"), self.storyboard.read_bytes())
        storyboard.write(self.storyboard)

    def storyboard_data(self) -> dict[str, Any] | None:
        """What storyboard.yaml says; None where it says nothing."""
        with suppress(StoryboardError):
            return Storyboard.read(self.storyboard).to_data()
        return None

    def keep_given(self, source: Path, digest: str) -> None:
        """Keep a copy of a given video."""
        if not self.given(digest).exists():
            with written_aside(self.given(digest)) as part:
                shutil.copyfile(source, part)

    def write_latents(self, scene: int, after: int, latents: Tensor) -> tuple[int, str]:
        """Keep a take's clean, scaled latents [F, C, H, W] as the first take beyond `after`; returns its number and the file's digest.

        A number whose files nobody wrote down is left alone, unless it is this very take, of a run that was killed.
        """
        content, number = save({"latents": latents.detach().cpu().contiguous()}), after + 1
        digest = digest_of_bytes(content)
        while (there := self.take_latents(scene, number)).exists() or there.with_suffix(".mp4").exists():
            if there.exists() and not there.with_suffix(".mp4").exists() and digest_of_file(there) == digest:
                break
            number += 1
        self.write_bytes(self.take_latents(scene, number), content)
        return number, digest

    def has_video(self, take: Take, scale: int) -> bool:
        """Whether a take's video at this scale lies there, as it was written."""
        with suppress(OSError):
            return take.display_scale == scale and self.take_video(take).stat().st_size == take.video_bytes
        return False

    def read_latents(self, take: Take, number: int | None = None) -> Tensor | None:
        """The latents of a take, or None where there is no sound file; `number`: the scene that may have them by a second name."""
        paths = [self.take_latents(take.scene, take.number)] + ([] if number is None else [self.scene_latents(number)])
        for path in paths:
            with suppress(OSError, SafetensorError, KeyError):
                content = path.read_bytes()
                if digest_of_bytes(content) == take.latents:
                    latents: Tensor = load(content)["latents"]
                    return latents
        return None

    def write_state(self, call: str, state: DenoisingState) -> None:
        """Keep where a call's denoising is; `call` is its digest."""
        self.write_bytes(self.denoising, save(state.tensors(), {"call": call}))

    def read_state(self, call: str) -> DenoisingState | None:
        """Where this very call was; None where there is no sound file of it."""
        try:
            with safe_open(str(self.denoising), "pt") as file:
                if (file.metadata() or {}).get("call") != call:
                    return None
                return DenoisingState.from_tensors({name: file.get_tensor(name) for name in file.keys()})  # noqa: SIM118 - no mapping
        except (OSError, SafetensorError, KeyError, ValueError, IndexError):
            return None

    def forget_state(self) -> None:
        for path in (self.denoising, self.denoising_preview):
            path.unlink(missing_ok=True)

    def publish(self, number: int, take: Take) -> None:
        """Let scenes/ and latents/ show a take under the number of its scene; what is the same already stays untouched."""
        latents, second = self.take_latents(take.scene, take.number), self.scene_latents(number)
        if not latents.exists() and self.read_latents(take, number) is not None:
            self._link(second, latents)
        for source, target in ((latents, second), (self.take_video(take), self.scene_video(number))):
            if source.exists() and not _same(source, target):
                self._link(source, target)

    def _link(self, source: Path, target: Path) -> None:
        """A second name, or a copy where the disk has no such thing."""
        with written_aside(target) as part:
            part.unlink(missing_ok=True)
            try:
                os.link(source, part)
            except OSError:
                shutil.copyfile(source, part)

    def withdraw(self, numbers: Iterable[int]) -> None:
        """Remove the second names of all but these scenes; their takes stay."""
        keep = self.shown(numbers)
        for path in (*self.path.glob("scenes/scene-*.mp4"), *self.path.glob("latents/scene-*.safetensors")):
            if path not in keep:
                path.unlink(missing_ok=True)


def this_process() -> Process:
    return Process(pid=os.getpid(), host=platform.node())


def _same(one: Path, other: Path) -> bool:
    try:
        mine, theirs = one.stat(), other.stat()
        return os.path.samestat(mine, theirs) or (mine.st_size == theirs.st_size and one.read_bytes() == other.read_bytes())
    except OSError:
        return False
