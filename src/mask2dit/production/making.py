"""Making a film: encode, denoise, decode, join; nothing that is finished is lost or made twice.

Read `make_film` and `_Making.run`. The order on disk: where the denoising is, after every step; the latents of a call's scenes as soon as
they are clean; each scene's video the moment it is decoded; then what is made of all scenes. run.json is written after each of these, and
is what decides: a file that it does not name does not count.
"""

import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal, TypeVar

import torch
from torch import Tensor

from mask2dit import film
from mask2dit.errors import InputError, Mask2DiTError, OutputError, is_out_of_memory
from mask2dit.film_request import FilmRequest
from mask2dit.pipeline import Mask2DiTPipeline
from mask2dit.production.given import read_given
from mask2dit.production.joining import join, page_of
from mask2dit.production.planning import Call, Directions, list_scenes, lost_latents
from mask2dit.production.preparing import Prepared, prepare
from mask2dit.production.progress import Progress, Silent
from mask2dit.production.record import FilmRecord, FilmSettings, KnownScene, MadeWith, ModelAsked, SceneInputs, SceneRecord, Take, digest_of
from mask2dit.production.seeds import scene_generator
from mask2dit.rgb_preview import RgbPreview, is_due
from mask2dit.stepper import DenoisingState
from mask2dit.storyboard import Storyboard
from mask2dit.video_files import write_video

Result = TypeVar("Result")


class FilmInterrupted(KeyboardInterrupt):
    """The making of a film was stopped by the user; says in one line what is on disk."""


def make_film(
    pipeline: Mask2DiTPipeline,
    storyboard: Storyboard,
    folder: str | Path,
    settings: FilmSettings | None = None,
    directions: Directions | None = None,
    *,
    asked: ModelAsked | None = None,
    base: str | Path = ".",
    progress: Progress | None = None,
) -> FilmRecord:
    """Make the film of a storyboard in `folder`: what is not there yet, or is there with other inputs; the rest stays as it is.

    asked: how the pipeline was loaded, for run.json. base: the folder that names of given videos start from. Raises StoryboardError or
    InputError before anything is written; OutputError, with what is on disk, when a file cannot be written; FilmInterrupted for Ctrl-C.
    """
    with _at_work(pipeline, storyboard, folder, settings, directions, asked, base, progress) as making:
        return making.guarded(making.run)


def arrange_film(prepared: Prepared, progress: Progress | None = None) -> FilmRecord:
    """Join a film anew of what is there; no model is needed. Raises as `make_film` does."""
    with prepared.folder.locked():
        making = _Making(None, prepared, progress or Silent())
        return making.guarded(making.run)


def make_candidates(
    pipeline: Mask2DiTPipeline,
    storyboard: Storyboard,
    folder: str | Path,
    index: int,
    seeds: Sequence[int],
    settings: FilmSettings | None = None,
    *,
    asked: ModelAsked | None = None,
    progress: Progress | None = None,
) -> list[Take]:
    """Make takes of one scene, one per seed, with all others known; the film goes on showing the one that it has.

    The folder holds a film of all other scenes of the storyboard. Raises as `make_film` does.
    """
    directions = Directions(stay=True, again=frozenset({index}))
    with _at_work(pipeline, storyboard, folder, settings, directions, asked, folder, progress) as making:
        return making.guarded(lambda: making.make_candidates(index, seeds))


@contextmanager
def _at_work(
    pipeline: Mask2DiTPipeline,
    storyboard: Storyboard,
    folder: str | Path,
    settings: FilmSettings | None,
    directions: Directions | None,
    asked: ModelAsked | None,
    base: str | Path,
    progress: Progress | None,
) -> Iterator["_Making"]:
    """Prepare twice: before the folder is locked, so that a mistake leaves no trace, and behind the lock, for what holds there."""
    settings, asked = settings or FilmSettings(), asked or ModelAsked()
    fingerprint = pipeline.fingerprint()

    def made_with(request: FilmRequest, earlier: FilmRecord | None) -> MadeWith:
        return MadeWith(
            model=asked.name,
            weights=fingerprint,
            lora=asked.lora,
            attention_plan=pipeline.transformer.config.attention_plan,
            scheduler=digest_of({"config": repr(sorted(pipeline.scheduler.config.items(), key=str))}),
            height=request.height,
            width=request.width,
            fps=request.fps,
            num_inference_steps=request.num_inference_steps,
            **asdict(request.shortcuts),
        )

    def prepared() -> Prepared:
        return prepare(
            storyboard,
            folder,
            settings,
            directions or Directions(),
            asked,
            base,
            pipeline.values,
            lambda board: pipeline.check(board, **settings.asked()),
            made_with,
        )

    with prepared().folder.locked():
        yield _Making(pipeline, prepared(), progress or Silent())


class _Making:
    """One run: the record grows as files appear."""

    def __init__(self, pipeline: Mask2DiTPipeline | None, prepared: Prepared, progress: Progress) -> None:
        self._pipeline, self.progress = pipeline, progress
        self.prepared, self.folder, self.plan = prepared, prepared.folder, prepared.plan
        self.record = prepared.record
        self.preview: RgbPreview | None = None
        self.rows: dict[str, Tensor] = {}  # encoded captions and negative prompts [L, E]

    @property
    def pipeline(self) -> Mask2DiTPipeline:
        assert self._pipeline is not None  # it is loaded for every film of which anything is to be made
        return self._pipeline

    def guarded(self, work: Callable[[], Result]) -> Result:
        """Do it, and leave the folder in order and a sentence about it, however it ends."""
        try:
            return work()
        except KeyboardInterrupt:
            self.stop("interrupted")
            raise FilmInterrupted(f"interrupted while {self.record.stage}; {self.state()}") from None
        except OSError as error:
            self.stop("failed")
            place = error.filename or self.folder.path
            refused = f"{place}: cannot be written to ({error.strerror or error}); make room or choose another place"
            raise OutputError(f"{error if isinstance(error, OutputError) else refused}; {self.state()}") from error
        except BaseException as error:
            self.stop("failed")
            if is_out_of_memory(error):
                smaller = "make smaller pictures or fewer frames (--height, --width, --frames)"
                remedy = self._pipeline.memory.remedy() if self._pipeline and self._pipeline.memory else smaller
                raise Mask2DiTError(f"out of memory while {self.record.stage}; {remedy}; {self.state()}") from error
            raise

    def run(self) -> FilmRecord:
        if self.prepared.is_complete and self.prepared.earlier:
            self.folder.write_storyboard(self.prepared.storyboard)
            if self.prepared.earlier.asked != self.record.asked:  # the same weights by another name or stamp: known next time
                self.folder.write_record(self.prepared.earlier.model_copy(update={"asked": self.record.asked}))
            return self.prepared.earlier
        self._settle()
        self._take_given()
        self._encode(self.plan.calls)
        for call in self.plan.calls:
            self._make(call)
            self._decode()
        self._decode()
        self._join()
        return self.record

    def make_candidates(self, index: int, seeds: Sequence[int]) -> list[Take]:
        """Takes of one scene; the film, its storyboard and what it shows stay as they are."""
        earlier, wanted = self.prepared.earlier, self.record.scenes[index]
        numbers = [scene.number for scene in self.plan.scenes]
        if earlier is None or set(self.plan.reasons) != {index} or [scene.number for scene in earlier.scenes] != numbers:
            raise InputError(
                f"{self.folder.path}: its storyboard has changed, or it is not complete, expected a film whose other scenes are made; "
                f"first make it (mask2dit generate {self.folder.path})"
            )
        (call,) = self.plan.calls
        self.record = earlier.model_copy(update={"status": "running", "process": self.record.process, "asked": self.record.asked})
        self._update(made_with=self.prepared.record.made_with, versions=self.prepared.record.versions)
        self._encode([call], wanted.inputs)
        takes = []
        for seed in seeds:
            inputs = wanted.inputs.model_copy(update={"seed": seed})
            (take,) = self._make(call, wanted.model_copy(update={"inputs": inputs}))
            with self._stage(f"decoding take {take.number}", 1):
                takes.append(self._write_video(take, index + 1))
                self.progress.step()
        self._update(status="complete", stage="finished", process=None)
        self.folder.write_bytes(self.folder.page, page_of(self.folder, self.record).encode())
        return takes

    def _settle(self) -> None:
        """Make the folder this film's own. The storyboard that lies there stays till the film is what the new one says."""
        self.folder.tidy()
        for given in self.prepared.given.values():
            self.folder.keep_given(given.path, given.digest)
        if not self.folder.storyboard.exists():
            self.folder.write_storyboard(self.prepared.storyboard)
        self._update()

    # Takes

    def _take_given(self) -> None:
        """Scenes that are given: encoded once, and shown as they are."""
        for index in sorted(set(self.plan.reasons) & set(self.prepared.given)):
            with self._stage(f"reading scene {index + 1}", 1):
                frames = torch.from_numpy(self._given_frames(index, self.record.scenes[index].inputs.num_frames))
                self._keep({index: self.pipeline.encode_scene(frames)}, ())
                self.progress.step()
            self.pipeline.maybe_free_model_hooks()

    def _given_frames(self, index: int, num_frames: int) -> film.Frame:
        made_with = self.record.made_with
        return read_given(self.prepared.given[index], num_frames, made_with.fps, made_with.height, made_with.width)

    def _encode(self, calls: Sequence[Call], *others: SceneInputs) -> None:
        inputs = [self.record.scenes[index].inputs for index in sorted({index for call in calls for index in call.scenes})]
        inputs += others
        if not inputs:
            return
        with self._stage("encoding", 1):
            captions, negative = [each.caption for each in inputs], [each.negative_prompt for each in inputs]
            rows = torch.cat(self.pipeline.encode_prompt(captions, negative))
            self.rows = dict(zip((*captions, *negative), rows, strict=True))
            self.preview = RgbPreview.fit(self.pipeline)
            self.progress.step()

    def _make(self, call: Call, candidate: SceneRecord | None = None) -> list[Take]:
        """Denoise the scenes of a call and keep their takes. candidate: the one that is made, where the film is not to show it."""
        own = [(candidate if candidate and index in call.make else self.record.scenes[index]).inputs for index in call.scenes]
        known = {index: self._latents(index) for index in call.known}
        made_with, digest = self.record.made_with, self._digest(call, own)
        state = self.folder.read_state(digest)

        def step_done(pipeline: Any, step: int, timestep: Any, tensors: dict[str, Any]) -> dict[str, Any]:
            self.folder.write_state(digest, tensors["state"])
            self._show(call, tensors["state"])
            self.progress.step()
            return {}

        name = "denoising" if len(call.make) > 1 else f"denoising scene {min(call.make) + 1}"
        with self._stage(name, made_with.num_inference_steps - (state.step if state else 0)):
            result = self.pipeline(
                None,
                known_scenes={place: known[index] for place, index in enumerate(call.scenes) if index in known},
                prompt_embeds=torch.stack([self.rows[each.caption] for each in own]),
                negative_prompt_embeds=torch.stack([self.rows[each.negative_prompt] for each in own]),
                height=made_with.height,
                width=made_with.width,
                num_inference_steps=made_with.num_inference_steps,
                guidance_scale=[each.guidance_scale for each in own],
                num_frames=[each.num_frames for each in own],
                generator=[
                    scene_generator(each.seed, self.record.scenes[index].number) for each, index in zip(own, call.scenes, strict=True)
                ],
                output_type="latent",
                callback_on_step_end=step_done,
                resume=state,
                solver=made_with.solver,
                guidance_interval=made_with.guidance_interval,
                step_cache=made_with.step_cache,
            )
        made = {index: result.scenes[place] for place, index in enumerate(call.scenes) if index in call.make}
        takes = self._keep(made, call.known, candidate)
        self.folder.forget_state()
        return takes

    def _latents(self, index: int) -> Tensor:
        scene = self.record.scenes[index]
        take = self.record.take(scene.number, scene.take)
        latents = self.folder.read_latents(take, index + 1) if take else None
        if latents is None:
            raise InputError(lost_latents(self.folder, index, scene))
        return latents

    def _digest(self, call: Call, own: Sequence[SceneInputs]) -> str:
        """A name for all that the outcome of a call follows from."""
        record, scenes = self.record, self.record.scenes
        known = [record.take(scenes[index].number, scenes[index].take) for index in call.known]
        return digest_of(
            {
                "scenes": [[scenes[index].number, each.model_dump()] for index, each in zip(call.scenes, own, strict=True)],
                "known": [take and [take.scene, take.latents] for take in known],
                "made_with": self.record.made_with.model_dump(),
                "versions": self.record.versions,
                "dtype": str(self.pipeline.transformer.dtype),
            }
        )

    def _keep(self, made: dict[int, Tensor], known: Collection[int], candidate: SceneRecord | None = None) -> list[Take]:
        """Write the takes of one call, then name all of them in the record at once."""
        self._update(stage="saving the latents")
        sources = [self.record.take(scene.number, scene.take) for scene in (self.record.scenes[index] for index in known)]
        takes = []
        for index, latents in made.items():
            scene = candidate or self.record.scenes[index]
            last = max((take.number for take in self.record.takes_of(scene.number)), default=0)
            number, digest = self.folder.write_latents(scene.number, last, latents)
            take = Take(
                scene=scene.number,
                number=number,
                prompt=scene.prompt,
                inputs=scene.inputs,
                made_with=self.record.made_with,
                jointly=tuple(self.record.scenes[other].number for other in made if other != index),
                known=tuple(KnownScene(scene=source.scene, latents=source.latents) for source in sources if source),
                latents=digest,
                versions=self.record.versions,
            )
            takes.append(take)
        shown = {} if candidate else {take.scene: take.number for take in takes}
        scenes = tuple(scene.model_copy(update={"take": shown.get(scene.number, scene.take)}) for scene in self.record.scenes)
        self._update(takes=(*self.record.takes, *takes), scenes=scenes)
        return takes

    def _decode(self) -> None:
        """Videos of all shown takes that have none at this scale; and second names for all."""
        shown = [(number, take) for number, scene in self.record.shown if (take := self.record.take(scene.number, scene.take))]
        todo = [(number, take) for number, take in shown if not self._has_video(take)]
        if todo:
            with self._stage("decoding", len(todo)):
                for number, take in todo:
                    self.folder.publish(number, self._write_video(take, number))
                    self.progress.step()
        for number, take in shown:
            self.folder.publish(number, take)

    def _has_video(self, take: Take) -> bool:
        return self.folder.has_video(take, self.record.display_scale)

    def _write_video(self, take: Take, number: int) -> Take:
        """A take's video, of its latents or, where it was given, of that."""
        if take.inputs.given:
            frames = self._given_frames(number - 1, take.inputs.num_frames)
        else:
            latents = self.folder.read_latents(take, number)
            if latents is None:
                raise InputError(lost_latents(self.folder, number - 1, self.record.scenes[number - 1]))
            frames = film.frames_to_bytes(self.pipeline.decode_scene(latents))
        scale = self.record.display_scale
        write_video(self.folder.take_video(take), (film.enlarge(frame, scale) for frame in frames), take.made_with.fps)
        seen = take.model_copy(update={"display_scale": scale, "video_bytes": self.folder.take_video(take).stat().st_size})
        self._update(takes=tuple(seen if each == take else each for each in self.record.takes))
        return seen

    # What is made of all scenes

    def _join(self) -> None:
        """storyboard.yaml comes last: as long as the old one lies there, the same directions lead to the same film; `open_film` knows."""
        self.folder.withdraw([number for number, _ in self.record.shown])
        self.folder.forget_state()
        with self._stage("joining", len(self.record.shown) + 3):
            check = join(self.folder, self.record, self.progress.step, subtitles=self.prepared.directions.subtitles)
        self.record = self.record.model_copy(update={"check": check, "joined": self.record.composition})
        self.folder.write_bytes(self.folder.page, page_of(self.folder, self.record).encode())
        there = self.folder.storyboard_data()
        before = there if there != self.record.storyboard else None
        self._update(status="complete", stage="finished", process=None, before=before)
        self.folder.write_storyboard(self.prepared.storyboard)
        if before is not None:
            self._update(before=None)

    def _show(self, call: Call, state: DenoisingState) -> None:
        """A picture of what the scenes come to, a few times in a denoising."""
        total = self.record.made_with.num_inference_steps
        if self.preview is not None and is_due(state.step, total):
            made = {index + 1: state.clean[place] for place, index in enumerate(call.scenes) if index in call.make and place in state.clean}
            self.folder.write_image(self.folder.denoising_preview, self.preview.picture(made, f"step {state.step} of {total}"))

    # The record

    @contextmanager
    def _stage(self, stage: str, total: int) -> Iterator[None]:
        self._update(stage=stage)
        self.progress.start(stage, total)
        began, name = time.perf_counter(), stage.split()[0]
        yield
        spent = self.record.timings_seconds.get(name, 0.0) + time.perf_counter() - began
        self.record = self.record.model_copy(update={"timings_seconds": {**self.record.timings_seconds, name: round(spent, 3)}})
        self.progress.done()

    def _update(self, **changes: Any) -> None:
        self.record = self.record.model_copy(update=changes)
        self.folder.write_record(self.record)

    def stop(self, status: Literal["interrupted", "failed"]) -> None:
        """Leave a record of how far it came, as far as the disk takes it."""
        with suppress(OSError):
            self._update(status=status, process=None)

    def state(self) -> str:
        """What is on disk and what is missing, for a person."""
        shown = [(number, scene, self.record.take(scene.number, scene.take)) for number, scene in self.record.shown]
        made_with, stay = self.record.made_with, self.prepared.directions.stay
        fitting = {
            number: take for number, scene, take in shown if take and take.inputs == scene.inputs and take.made_with.fits(made_with, stay)
        }
        seen = [number for number, take in fitting.items() if self._has_video(take)]
        unseen = [number for number, _, _ in shown if number not in seen]
        results = {self.folder.name(path): path.exists() and not self.record.joined for path in self.folder.results()[:3]}
        have = [f"latents of {list_scenes(list(fitting))}"] if fitting else []
        have += [f"video of {list_scenes(seen)}"] if seen else []
        have += ["a denoising that goes on"] if self.folder.denoising.exists() else []
        have += [name for name, exists in results.items() if exists]
        have += ["the film as it was"] if self.record.joined and self.folder.film.exists() else []
        lack = [f"video of {list_scenes(unseen)}"] if unseen else []
        lack += [name for name, exists in results.items() if not exists]
        on_disk = f"in {self.folder.path}: {', '.join(have) or 'no scene yet'}"
        return f"{on_disk}; missing: {', '.join(lack) or 'nothing'}; the same command goes on from there"
