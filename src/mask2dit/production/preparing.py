"""From what is asked to what is to be done: the record of the film as it will be, and the plan. Nothing is computed or written."""

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from mask2dit import film
from mask2dit.errors import InputError
from mask2dit.film_request import FilmRequest, ModelValues
from mask2dit.memory import Kept
from mask2dit.production.folder import FilmFolder, this_process
from mask2dit.production.given import Given, find_given
from mask2dit.production.planning import Directions, FilmPlan, kept_by, plan_film
from mask2dit.production.record import (
    NOT_READ,
    FilmRecord,
    FilmSettings,
    MadeWith,
    ModelAsked,
    SceneInputs,
    SceneRecord,
    installed_versions,
)
from mask2dit.storyboard import Storyboard
from mask2dit.video_shape import VideoShape


@dataclass(frozen=True, slots=True)
class Prepared:
    """A film before it is made. `storyboard` is as the folder will keep it; `record` as run.json will be when the run begins."""

    folder: FilmFolder
    storyboard: Storyboard
    earlier: FilmRecord | None
    record: FilmRecord
    plan: FilmPlan
    given: dict[int, Given]
    directions: Directions
    shape: VideoShape
    """Of all scenes, skipped or not."""

    @property
    def fullest_call(self) -> VideoShape:
        """The largest thing that the model has to do: a call, or, without any, to decode one scene."""
        frames = self.shape.num_frames
        calls = [tuple(frames[index] for index in call.scenes) for call in self.plan.calls] or [(max(frames),)]
        return replace(self.shape, num_frames=max(calls, key=sum))

    @property
    def is_guided(self) -> bool:
        """Whether any scene needs the negative branch."""
        return any(scene.inputs.guidance_scale > 1 for scene in self.record.scenes)

    @property
    def kept(self) -> Kept:
        """The most that a call keeps from step to step."""
        frames, made_with = self.shape.num_latent_frames, self.record.made_with
        return kept_by(self.plan.calls, frames, made_with.attention_plan, self.is_guided, made_with.step_cache)

    @property
    def needs_model(self) -> bool:
        """Whether anything is to be made or decoded."""
        shown = [self.record.take(scene.number, scene.take) for _, scene in self.record.shown]
        scale = self.record.display_scale
        seen = all(take and self.folder.has_video(take, scale) for take in shown)
        return bool(self.plan.reasons) or not seen

    @property
    def is_complete(self) -> bool:
        """Nothing is to be made, and everything that is made of all scenes is there."""
        earlier, record = self.earlier, self.record
        if earlier is None or earlier.status != "complete" or self.plan.reasons or earlier.joined != record.composition:
            return False
        same = (earlier.scenes, earlier.storyboard) == (record.scenes, record.storyboard) and not self.needs_model
        files = [*self.folder.results(self.directions.subtitles), *self.folder.shown([number for number, _ in record.shown])]
        return same and all(path.exists() and path.stat().st_size for path in files)

    def lines(self) -> list[str]:
        """What will be done and why, for a person."""
        if self.is_complete:
            return [f"{self.folder.path}: nothing changed; nothing to make"]
        if not self.plan.reasons:
            return [f"{self.folder.path}: every scene is made; the film is joined again"]
        return [f"{self.folder.path}: {len(self.plan.reasons)} of {len(self.record.shown)} scenes to make", *self.plan.lines()]


def prepare(
    storyboard: Storyboard,
    folder: str | Path,
    settings: FilmSettings,
    directions: Directions,
    asked: ModelAsked,
    base: str | Path,
    values: ModelValues,
    check: Callable[[Storyboard], FilmRequest],
    made_with: Callable[[FilmRequest, FilmRecord | None], MadeWith],
) -> Prepared:
    """Set what is asked beside what is there. `values`, `check`, `made_with`: the model's; weights need not be loaded for them.

    Raises StoryboardError or InputError.
    """
    film_folder = FilmFolder(folder)
    earlier = film_folder.check(directions.fresh)
    storyboard, given = find_given(storyboard, Path(base), values.fps, values.compression.temporal, earlier)
    request = check(unskipped(storyboard))
    if earlier is not None and earlier.fresh and earlier.status != "complete":
        directions = replace(directions, fresh=False)  # it goes on
    with_what, wanted = made_with(request, earlier), wanted_scenes(storyboard, request, settings, given)
    if earlier is not None and not (directions.fresh or directions.stay):
        _check_same_film(film_folder, earlier, storyboard, wanted)
    plan = plan_film(
        film_folder,
        earlier,
        storyboard,
        wanted,
        with_what,
        (settings.window or values.window, values.known_sets),
        directions,
    )
    if earlier is not None and with_what.weights == NOT_READ and not plan.reasons:
        with_what, asked = earlier.made_with, earlier.asked  # nothing is made, so nothing is learnt of the model
    kept_names = {index: film_folder.name(film_folder.given(each.digest)) for index, each in given.items()}
    board = storyboard.with_scenes(
        [scene.model_copy(update={"given": kept_names.get(index)}) for index, scene in enumerate(storyboard.scenes)]
    )
    takes = earlier.takes if earlier else ()
    record = FilmRecord(
        process=this_process(),
        settings=settings,
        asked=asked,
        made_with=with_what,
        display_scale=film.choose_scale(request.height, settings.display_scale),
        scenes=plan.scenes,
        takes=tuple(take.model_copy(update={"set_aside": True}) for take in takes) if directions.fresh else takes,
        fresh=directions.fresh or (earlier is not None and earlier.fresh and earlier.status != "complete"),
        joined=earlier.joined if earlier else (),
        storyboard=board.to_data(),
        versions=installed_versions(),
        timings_seconds=earlier.timings_seconds if earlier and earlier.status != "complete" else {},
        check=earlier.check if earlier else None,
    )
    return Prepared(film_folder, board, earlier, record, plan, given, directions, request.shape)


def _check_same_film(folder: FilmFolder, earlier: FilmRecord, storyboard: Storyboard, wanted: list[SceneRecord]) -> None:
    """Refuse a storyboard that has neither the title nor any caption of the film in the folder: most often the folder is a mistake."""
    had = {take.inputs.caption for take in earlier.takes} | {scene.inputs.caption for scene in earlier.scenes}
    title = storyboard.title or wanted[0].inputs.caption
    if title != earlier.title and not any(scene.inputs.caption in had for scene in wanted):
        raise InputError(
            f"{folder.path}: holds another film ({earlier.title[:40]!r}), expected a new folder or one with a scene of this storyboard; "
            "choose another folder, or --fresh"
        )


def assumed_made_with(request: FilmRequest, earlier: FilmRecord | None, asked: ModelAsked, attention_plan: str) -> MadeWith:
    """What a film will be made with, as far as that is known before weights are read: where nothing says otherwise, they are the same."""
    same = earlier is not None and (asked.stamp, asked.lora, asked.weights) == (
        earlier.asked.stamp, earlier.asked.lora, earlier.asked.weights
    )  # fmt: skip
    return MadeWith(
        model=asked.name,
        weights=earlier.made_with.weights if earlier and same else NOT_READ,
        lora=asked.lora,
        attention_plan=asked.plan or attention_plan,
        scheduler=earlier.made_with.scheduler if earlier and same else NOT_READ,
        height=request.height,
        width=request.width,
        fps=request.fps,
        num_inference_steps=request.num_inference_steps,
        **asdict(request.shortcuts),
    )


def unskipped(storyboard: Storyboard) -> Storyboard:
    """With every scene in the film, so that each keeps its number."""
    return storyboard.with_scenes([scene.model_copy(update={"skip": False}) for scene in storyboard.scenes])


def wanted_scenes(storyboard: Storyboard, request: FilmRequest, settings: FilmSettings, given: dict[int, Given]) -> list[SceneRecord]:
    """The scenes of a storyboard with all that they are made from, not yet numbered."""
    return [
        SceneRecord(
            number=0,
            prompt=scene.prompt,
            inputs=SceneInputs(
                caption=request.captions[index],
                negative_prompt=request.negative_prompts[index],
                seed=settings.seed if scene.seed is None else scene.seed,
                num_frames=request.num_frames[index],
                guidance_scale=request.guidance_scale[index],
                given=given[index].digest if index in given else None,
            ),
            skip=scene.skip,
        )
        for index, scene in enumerate(storyboard.scenes)
    ]
