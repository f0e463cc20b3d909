"""Films of validation storyboards while a model trains: a contact sheet every so many steps, and the judge's numbers in the playhouse."""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator

from mask2dit.files import written_aside
from mask2dit.film import SheetRow, contact_sheet, enlarge, frames_to_bytes, pick
from mask2dit.loading import load_component
from mask2dit.model_folder import load_values
from mask2dit.pipeline import Mask2DiTPipeline
from mask2dit.storyboard import Storyboard
from mask2dit.training.config import DiffusionRecipe, PlayhouseData
from mask2dit.training.draws import generator_for
from mask2dit.training.parallel import reshard
from mask2dit.training.screen import Screen

SMALL_PICTURE = 128  # pixels of height; smaller ones are enlarged on the sheet


@dataclass(slots=True)
class Board:
    """One storyboard to film; `truth`: a playhouse story, so that a judge can tell what came out right."""

    name: str
    captions: list[str]
    truth: Any = None


@dataclass(slots=True)
class Validation:
    """Films with the live transformer; autoencoder and text encoder are in memory only while it does.

    Every device must call `film`, because sharded weights are gathered in the forward pass; the main one writes.
    """

    recipe: DiffusionRecipe
    start: Path
    folder: Path
    accelerator: Accelerator
    screen: Screen
    boards: list[Board] = field(init=False)

    def __post_init__(self) -> None:
        self.boards = list(_boards(self.recipe))

    def is_due(self, step: int) -> bool:
        """Every `every_steps`, and at the end."""
        if self.recipe.validation is None:
            return False
        return step % self.recipe.validation.every_steps == 0 or step == self.recipe.num_steps

    @torch.no_grad()
    def film(self, transformer: Any, text_encoder: Any, step: int) -> dict[str, float]:
        """Write `samples/step-000100.png` and return the judge's shares, by attribute (empty without a truth)."""
        pipeline = self._pipeline(transformer, text_encoder)
        steps = self.recipe.validation.num_inference_steps if self.recipe.validation is not None else None
        rows, films = [], []
        device = self.accelerator.device.type
        for number, board in enumerate(self.boards):
            generators = [generator_for(self.recipe.seed, number, scene) for scene in range(len(board.captions))]
            with torch.autocast(device, torch.bfloat16, enabled=self.recipe.precision == "bfloat16"):
                scenes = pipeline(board.captions, generator=generators, num_inference_steps=steps, output_type="np").scenes
            films.append(scenes)
            rows += [SheetRow(_pictures(frames), caption, board.name) for frames, caption in zip(scenes, board.captions, strict=True)]
        reshard(transformer)
        if not self.accelerator.is_main_process:
            return {}
        shares = self._judged(films)
        told = "  ".join(f"{name} {share:.0%}" for name, share in shares.items())
        sheet = contact_sheet(f"Step {step}", f"judge: {told}" if told else f"{len(films)} validation storyboards", rows)
        path = self.folder / f"step-{step:06d}.png"
        with written_aside(path) as part:
            sheet.save(part)
        for tracker in self.accelerator.trackers:
            layout = {"dataformats": "NHWC"} if tracker.name == "tensorboard" else {}
            tracker.log_images({"validation": np.asarray(sheet)[None]}, step=step, **layout)
        self.screen.line(f"step {step}: {path}" + (f"  judge: {told}" if told else ""))
        return {f"judge/{name}": share for name, share in shares.items()}

    def _pipeline(self, transformer: Any, text_encoder: Any) -> Mask2DiTPipeline:
        device, values = self.accelerator.device, load_values(self.start)
        dtype = next(transformer.parameters()).dtype
        pipeline = Mask2DiTPipeline(
            load_component(self.start, "tokenizer"),
            (text_encoder or load_component(self.start, "text_encoder", dtype)).to(device),
            load_component(self.start, "vae").to(device),
            transformer,
            load_component(self.start, "scheduler"),
            **(values | _video_values(self.recipe)),
        )
        pipeline.set_progress_bar_config(disable=True)
        return pipeline

    def _judged(self, films: Sequence[Sequence[Any]]) -> dict[str, float]:
        if not isinstance(self.recipe.data, PlayhouseData):
            return {}
        from mask2dit.playhouse.judge import load_judge

        judge = load_judge()
        if judge.level != self.recipe.data.level:
            return {}
        right: dict[str, list[bool]] = {}
        for board, scenes in zip(self.boards, films, strict=True):
            if board.truth is None:
                continue
            for stage, reading in zip(board.truth.stages, judge.read(scenes), strict=False):
                role, read = stage.roles[0], reading.main
                actor = board.truth.actors[role.actor]
                asked = {"species": actor.species, "colour": actor.colour, "action": role.action}
                for name, value in asked.items():
                    right.setdefault(name, []).append(getattr(read, name) == value)
                for name in ("place", "light"):
                    right.setdefault(name, []).append(getattr(reading, name) == getattr(stage, name))
        return {name: sum(answers) / len(answers) for name, answers in right.items()}


def _video_values(recipe: DiffusionRecipe) -> dict[str, Any]:
    if recipe.video is None:
        return {}
    return recipe.video.model_dump() | {"fps": round(recipe.video.fps)}


def _boards(recipe: DiffusionRecipe) -> Iterator[Board]:
    """The storyboards of the recipe; without any, the first validation stories of the playhouse, in the recipe's number of scenes."""
    validation = recipe.validation
    if validation is None:
        return
    for path in validation.storyboards:
        board = Storyboard.read(Path(path))
        yield Board(board.title or Path(path).stem, list(board.captions))
    if isinstance(recipe.data, PlayhouseData) and not validation.storyboards:
        from mask2dit.playhouse.captions import caption_story
        from mask2dit.playhouse.facts import VALIDATION_SEEDS, draw_story

        for seed in VALIDATION_SEEDS[: validation.num_stories]:
            story = draw_story(seed, recipe.data.level)
            captions = caption_story(story, random.Random(f"validation/{seed}"))[: recipe.num_scenes]
            yield Board(f"story {seed}", captions, story)


def _pictures(frames: Any) -> list[Any]:
    pictures = pick(frames_to_bytes(frames))
    scale = -(-SMALL_PICTURE // pictures[0].shape[0])
    return [enlarge(picture, scale) for picture in pictures]
