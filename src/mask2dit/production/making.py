"""Making a film: encode, denoise, decode, join; nothing that is finished is lost or made twice.

Read `make_film` and `_Making.run`. The order on disk: latents of all scenes as soon as they are clean, then each scene's video the moment
it is decoded, then what is made of all scenes. run.json is written after every step of that.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

from PIL import Image
from torch import Tensor

from mask2dit import film
from mask2dit.errors import Mask2DiTError, OutputError
from mask2dit.film_request import FilmRequest
from mask2dit.memory import is_out_of_memory
from mask2dit.pipeline import Mask2DiTPipeline
from mask2dit.production.folder import FilmFolder
from mask2dit.production.progress import Progress, Silent
from mask2dit.production.record import FilmRecord, FilmSettings, SceneRecord, digest_of, installed_versions
from mask2dit.production.seeds import scene_generator
from mask2dit.storyboard import Storyboard
from mask2dit.video_files import join_videos, read_video, write_video


class FilmInterrupted(KeyboardInterrupt):
    """The making of a film was stopped by the user; says in one line what is on disk."""


def make_film(
    pipeline: Mask2DiTPipeline,
    storyboard: Storyboard,
    folder: str | Path,
    settings: FilmSettings | None = None,
    *,
    model: str = "built-in",
    overwrite: bool = False,
    progress: Progress | None = None,
) -> FilmRecord:
    """Make the film of a storyboard in `folder`, or go on with what an interrupted run of the same left there.

    `model` is the name that run.json gives to the pipeline. An earlier film of this storyboard with other settings stays until the
    latents of the new one are there. Raises StoryboardError or InputError before anything is written; OutputError, with what is on disk,
    when a file cannot be written; FilmInterrupted for Ctrl-C.
    """
    settings = settings or FilmSettings()
    request = check_request(pipeline, storyboard, settings)
    film_folder = FilmFolder(folder)
    earlier = film_folder.check(storyboard, overwrite)
    record = _new_record(pipeline, storyboard, settings, request, model)
    making = _Making(pipeline, storyboard, request, film_folder, record, progress or Silent())
    try:
        making.run(earlier)
    except KeyboardInterrupt:
        making.stop("interrupted")
        raise FilmInterrupted(f"interrupted while {making.record.stage}; {making.state()}") from None
    except OutputError as error:
        making.stop("failed")
        raise OutputError(f"{error}; {making.state()}") from error
    except BaseException as error:
        making.stop("failed")
        if is_out_of_memory(error):
            smaller = "make smaller pictures or fewer frames (--height, --width, --frames)"
            remedy = pipeline.memory.remedy() if pipeline.memory else smaller
            raise Mask2DiTError(f"out of memory while {making.record.stage}; {remedy}; {making.state()}") from error
        raise
    return making.record


def check_request(pipeline: Mask2DiTPipeline, storyboard: Storyboard, settings: FilmSettings) -> FilmRequest:
    """What the pipeline makes of storyboard and settings; raises StoryboardError or InputError."""
    return pipeline.check(storyboard, **settings.asked())


def _new_record(pipeline: Mask2DiTPipeline, storyboard: Storyboard, settings: FilmSettings, request: FilmRequest, model: str) -> FilmRecord:
    scenes = tuple(
        SceneRecord(
            number=number,
            caption=caption,
            seed=settings.seed if scene.seed is None else scene.seed,
            num_frames=num_frames,
            guidance_scale=guidance_scale,
        )
        for number, (scene, caption, num_frames, guidance_scale) in enumerate(
            zip(storyboard.scenes, request.captions, request.num_frames, request.guidance_scale, strict=True), start=1
        )
    )
    versions = installed_versions()
    plan = pipeline.transformer.config.attention_plan
    facts = {
        "scenes": [scene.model_dump() for scene in scenes],
        "negative_prompts": list(request.negative_prompts),
        "size": [request.height, request.width],
        "num_inference_steps": request.num_inference_steps,
        "attention_plan": plan,
        "weights": pipeline.fingerprint(),
        "scheduler": repr(sorted(pipeline.scheduler.config.items(), key=str)),
        "versions": versions,
    }
    return FilmRecord(
        model=model,
        attention_plan=plan,
        digest=digest_of(facts),
        height=request.height,
        width=request.width,
        display_scale=film.choose_scale(request.height, settings.display_scale),
        fps=request.fps,
        num_inference_steps=request.num_inference_steps,
        scenes=scenes,
        storyboard=storyboard.to_data(),
        versions=versions,
    )


class _Making:
    """One run: the record grows as files appear."""

    def __init__(
        self,
        pipeline: Mask2DiTPipeline,
        storyboard: Storyboard,
        request: FilmRequest,
        folder: FilmFolder,
        record: FilmRecord,
        progress: Progress,
    ) -> None:
        self.pipeline = pipeline
        self.storyboard = storyboard
        self.request = request
        self.folder = folder
        self.record = record
        self.progress = progress
        self.guarded = False  # an earlier film lies there and is still the better one

    def run(self, earlier: FilmRecord | None) -> None:
        latents = self._resume(earlier)
        if self.record.status == "complete":
            return
        if self.guarded:
            self.folder.try_writing()
        else:
            self._settle(keep=latents is not None)
        if latents is None:
            prompt_embeds = self._encode()
            latents = self._denoise(*prompt_embeds)
            self._keep(latents)
        self._decode(latents)
        self._join()
        self._update(status="complete", stage="finished")

    def _resume(self, earlier: FilmRecord | None) -> list[Tensor] | None:
        """Take over what an earlier run with the same digest finished: latents of all scenes or of none, and scenes."""
        self.guarded = self.folder.film.exists()
        if earlier is None or earlier.digest != self.record.digest:
            return None
        kept = [self.folder.read_latents(scene.number) if scene.latents else None for scene in earlier.scenes]
        latents = [each for each in kept if each is not None]
        if len(latents) < len(kept):
            return None
        self.guarded = False
        same_look = earlier.display_scale == self.record.display_scale
        finished = [scene if same_look and self._has_video(scene) else scene.model_copy(update={"video": None}) for scene in earlier.scenes]
        results = (self.folder.film, self.folder.contact_sheet, self.folder.preview, self.folder.storyboard)
        done = earlier.status == "complete" and all(scene.video for scene in finished) and all(path.exists() for path in results)
        self.record = self.record.model_copy(
            update={
                "scenes": tuple(finished),
                "timings_seconds": earlier.timings_seconds,
                "stage": "finished" if done else "decoding",
                "status": "complete" if done else "running",
            }
        )
        return latents

    def _has_video(self, scene: SceneRecord) -> bool:
        return scene.video is not None and self.folder.scene_video(scene.number).exists()

    def _settle(self, keep: bool) -> None:
        """Make the folder this film's own."""
        self.guarded = False
        if not keep:
            self.folder.clear()
        self.storyboard.write(self.folder.storyboard)
        self._update()

    def _encode(self) -> tuple[Tensor, Tensor]:
        with self._stage("encoding", 1):
            prompt_embeds = self.pipeline.encode_prompt(self.request.captions, self.request.negative_prompts)
            self.progress.step()
        return prompt_embeds

    def _denoise(self, prompt_embeds: Tensor, negative_prompt_embeds: Tensor) -> list[Tensor]:
        def step_done(pipeline: Any, step: int, timestep: Any, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
            self.progress.step()
            return tensors

        with self._stage("denoising", self.request.num_inference_steps):
            result = self.pipeline(
                self.storyboard,
                prompt_embeds=prompt_embeds,
                negative_prompt_embeds=negative_prompt_embeds,
                height=self.request.height,
                width=self.request.width,
                num_inference_steps=self.request.num_inference_steps,
                guidance_scale=list(self.request.guidance_scale),
                num_frames=list(self.request.num_frames),
                generator=[scene_generator(scene.seed, scene.number) for scene in self.record.scenes],
                output_type="latent",
                callback_on_step_end=step_done,
            )
        return list(result.scenes)

    def _keep(self, latents: list[Tensor]) -> None:
        if self.guarded:  # from here on the new film is worth more than the earlier one
            self._settle(keep=False)
        self._update(stage="saving the latents")
        for scene, each in zip(self.record.scenes, latents, strict=True):
            self.folder.write_latents(scene.number, each)
            self._update_scene(scene.number, latents=self.folder.name(self.folder.scene_latents(scene.number)))

    def _decode(self, latents: list[Tensor]) -> None:
        scale = self.record.display_scale
        todo = [scene.number for scene in self.record.scenes if scene.video is None]
        with self._stage("decoding", len(todo)):
            for number in todo:
                frames = film.frames_to_bytes(self.pipeline.decode_scene(latents[number - 1]))
                write_video(self.folder.scene_video(number), (film.enlarge(frame, scale) for frame in frames), self.record.fps)
                self._update_scene(number, video=self.folder.name(self.folder.scene_video(number)))
                self.progress.step()

    def _join(self) -> None:
        """What is made of all scenes, from their videos, so that a resumed run ends in the same files."""
        with self._stage("joining", len(self.record.scenes) + 3):
            rows: list[film.SheetRow] = []
            preview: list[Image.Image] = []
            step = film.preview_step(sum(scene.num_frames for scene in self.record.scenes))
            for scene in self.record.scenes:
                frames = read_video(self.folder.scene_video(scene.number), self.record.fps)
                rows.append(film.SheetRow(film.pick(frames), scene.caption, self._note(scene)))
                preview += [film.preview_frame(frame) for frame in frames[::step]]
                self.progress.step()
            join_videos(self.folder.film, [self.folder.scene_video(scene.number) for scene in self.record.scenes])
            self.progress.step()
            self.folder.write_image(self.folder.contact_sheet, film.contact_sheet(self.record.title, self._subtitle(), rows))
            self.progress.step()
            self.folder.write_bytes(self.folder.preview, film.animated_preview(preview, self.record.fps / step))
            self.progress.step()

    def _note(self, scene: SceneRecord) -> str:
        seconds = scene.num_frames / self.record.fps
        return f"{seconds:.1f} s  ·  {scene.num_frames} frames  ·  seed {scene.seed}  ·  guidance {scene.guidance_scale:g}"

    def _subtitle(self) -> str:
        record, count = self.record, len(self.record.scenes)
        size = f"{record.width * record.display_scale} by {record.height * record.display_scale} pixels"
        enlarged = f" ({record.width} by {record.height}, enlarged)" if record.display_scale > 1 else ""
        facts = (
            f"{count} scene{'s' * (count > 1)}",
            f"{record.duration_seconds:.1f} s",
            size + enlarged,
            f"{record.num_inference_steps} steps",
        )
        return "  ·  ".join(facts)

    @contextmanager
    def _stage(self, stage: str, total: int) -> Iterator[None]:
        self._update(stage=stage)
        self.progress.start(stage, total)
        began = time.perf_counter()
        yield
        spent = self.record.timings_seconds.get(stage, 0.0) + time.perf_counter() - began
        self.record = self.record.model_copy(update={"timings_seconds": {**self.record.timings_seconds, stage: round(spent, 3)}})
        self.progress.done()

    def _update(self, **changes: Any) -> None:
        self.record = self.record.model_copy(update=changes)
        if not self.guarded:
            self.folder.write_record(self.record)

    def _update_scene(self, number: int, **changes: Any) -> None:
        scenes = tuple(scene.model_copy(update=changes) if scene.number == number else scene for scene in self.record.scenes)
        self._update(scenes=scenes)

    def stop(self, status: Literal["interrupted", "failed"]) -> None:
        """Leave a record of how far it came, as far as the disk takes it."""
        with suppress(OSError):
            self._update(status=status)

    def state(self) -> str:
        """What is on disk and what is missing, for a person."""
        if self.guarded:
            return f"the earlier film in {self.folder.path} is untouched; the same command makes the new one"
        have = [f"latents of {_numbers(kept)}"] if (kept := [s.number for s in self.record.scenes if s.latents]) else []
        have += [f"video of {_numbers(made)}"] if (made := [s.number for s in self.record.scenes if s.video]) else []
        results = {self.folder.name(path): path.exists() for path in (self.folder.film, self.folder.contact_sheet, self.folder.preview)}
        have += [name for name, exists in results.items() if exists]
        lack = [f"video of {_numbers(todo)}"] if (todo := [s.number for s in self.record.scenes if not s.video]) else []
        lack += [name for name, exists in results.items() if not exists]
        on_disk = f"in {self.folder.path}: {', '.join(have) or 'no scene yet'}"
        return f"{on_disk}; missing: {', '.join(lack) or 'nothing'}; the same command goes on from there"


def _numbers(numbers: list[int]) -> str:
    """[1, 2, 3, 7] → 'scenes 1 to 3, 7'."""
    breaks = [0, *(index for index, (a, b) in enumerate(pairwise(numbers), start=1) if b != a + 1), len(numbers)]
    runs = [numbers[start:stop] for start, stop in pairwise(breaks)]
    words = [str(run[0]) if len(run) == 1 else f"{run[0]} to {run[-1]}" for run in runs]
    return f"scene{'s' * (len(numbers) > 1)} {', '.join(words)}"
