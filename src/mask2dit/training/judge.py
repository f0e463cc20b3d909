"""Training of the judge on renders that are spoilt as a small autoencoder and an imperfect generator would spoil them.

Owns the pool of scenes with their truth, the spoiling, the loss and the measuring; the network is `playhouse.judge`.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKLCogVideoX
from torch import Tensor
from torch.nn import functional

from mask2dit.errors import InputError
from mask2dit.playhouse.facts import SPECIES, TRAINING_SEEDS, VALIDATION_SEEDS, Story, draw_story
from mask2dit.playhouse.judge import (
    ACTOR_ATTRIBUTES,
    SCENE_ATTRIBUTES,
    TRAIT_SPREAD,
    TRAITS,
    VALUES,
    Judge,
    is_visible,
    load_judge,
    view_scene,
)
from mask2dit.playhouse.render import render_scenes
from mask2dit.playhouse.staging import scene_visibility
from mask2dit.training.config import JudgeRecipe
from mask2dit.training.draws import generator_for
from mask2dit.training.state import EMA, StateFile, learning_rate_factor
from mask2dit.training.vae import Report

_UNASKED = -100  # cross_entropy's own mark for labels that do not count
_SPOILT_ALIKE = 8  # clips of a batch that share one blur, one shift, one strength of noise

Scene = tuple[Story, int]


@dataclass(frozen=True, slots=True)
class Pool:
    """Scenes as the judge looks at them, uint8 [N, 9, 3, 64, 96], and what is true of each, by attribute.

    species [N, 8] is 1, 0 or nan (hardly visible); actors' attributes [N, 8] and the scene's [N] are indices or _UNASKED; traits
    [N, 8, 4] are nan where the species is not on stage.
    """

    views: Tensor
    truth: dict[str, Tensor]

    def rows(self, rows: Tensor, device: torch.device) -> tuple[Tensor, dict[str, Tensor]]:
        """Views in 0..1 and their truth."""
        return self.views[rows].to(device).float() / 255, {name: value[rows].to(device) for name, value in self.truth.items()}

    def __add__(self, other: "Pool") -> "Pool":
        truth = {name: torch.cat([value, other.truth[name]]) for name, value in self.truth.items()}
        return Pool(torch.cat([self.views, other.views]), truth)


def train_judge(recipe: JudgeRecipe, folder: Path, device: torch.device, report: Report) -> Path:
    """Train, resuming from `folder`; returns the folder of the finished judge, with its accuracy measured."""
    began = time.monotonic()
    judge = new_judge(recipe).to(device)
    optimizer = torch.optim.AdamW(judge.parameters(), lr=recipe.learning_rate, betas=(0.9, 0.99), weight_decay=recipe.weight_decay)
    ema = EMA({"judge": judge}, recipe.ema_decay)
    run = StateFile(folder)
    first_step = run.resume({"judge": judge}, ema, [optimizer])
    vae = _load_vae(recipe, device)
    report(f"rendering {3 * recipe.num_stories} scenes, then {recipe.round_trips if vae else 0} round trips")
    pool, renders = gather(recipe, vae, device)
    report("training")
    saved_at = time.monotonic()
    for step in range(first_step, recipe.num_steps):
        views, truth = draw_batch(recipe, pool, renders, step, device)
        loss = train_step(judge, optimizer, recipe, views, truth, step)
        ema.update(step)
        if (step + 1) % 50 == 0:
            report(f"step {step + 1}/{recipe.num_steps}  loss {loss:.4f}  {(time.monotonic() - began) / 60:.1f} min")
        if time.monotonic() - saved_at > 60 * recipe.save_every_minutes:
            run.save({"judge": judge}, ema, [optimizer], step + 1)
            saved_at = time.monotonic()
    run.save({"judge": judge}, ema, [optimizer], recipe.num_steps)
    ema.swap()
    accuracy = measure(judge.eval(), recipe, vae, device)
    for kind, values in accuracy.items():
        report(f"{kind}: " + "  ".join(f"{name} {value}" for name, value in values.items()))
    training = recipe.model_dump(exclude={"vae", "start_from"}) | {"minutes_of_last_run": round((time.monotonic() - began) / 60, 1)}
    if judge.training_record:
        training["before"] = judge.training_record
    return judge.save(folder / "judge", accuracy, training)


def new_judge(recipe: JudgeRecipe) -> Judge:
    """The judge of `start_from`, or an untrained one of the recipe's size."""
    if recipe.start_from is not None:
        judge = load_judge(Path(recipe.start_from))
        if judge.level != recipe.level:
            raise InputError(f"start_from: got a judge of level {judge.level}, expected level {recipe.level}; change one of them")
        return judge.train()
    torch.manual_seed(recipe.seed)
    return Judge(recipe.level, recipe.channels)


def gather(recipe: JudgeRecipe, vae: Any, device: torch.device) -> tuple[Pool, int]:
    """All training scenes: first renders, of which there are as many as the number says, then round trips of other stories."""
    pool = render_pool(recipe, TRAINING_SEEDS[: recipe.num_stories], device)
    renders = len(pool.views)
    if vae is not None and recipe.round_trips:
        after = TRAINING_SEEDS[recipe.num_stories : recipe.num_stories + -(-recipe.round_trips // 3)]
        pool += render_pool(recipe, after, device, vae, recipe.latent_noise)
    return pool, renders


def render_pool(recipe: JudgeRecipe, seeds: range, device: torch.device, vae: Any = None, latent_noise: float = 0.0) -> Pool:
    """Every scene of the stories, as it is or as it comes back from the autoencoder."""
    views, scenes = [], []
    for start in range(0, len(seeds), 16):
        part = _scenes_of(seeds[start : start + 16], recipe.level)
        frames = render_scenes(part, device=device)
        if vae is not None:
            frames = round_trip(vae, frames, latent_noise, generator_for(recipe.seed, seeds[start]))
        views += [(view_scene(clip) * 255).round().byte().cpu() for clip in frames]
        scenes += part
    return Pool(torch.stack(views), truth_of(scenes))


@torch.no_grad()
def round_trip(vae: Any, frames: Tensor, latent_noise: float, generator: torch.Generator) -> Tensor:
    """Frames [B, T, Y, X, 3] in 0..1 through the autoencoder; each clip's latents get noise of up to `latent_noise` of their spread."""
    returned = []
    for clip in frames:
        latents = vae.encode(clip[None].permute(0, 4, 1, 2, 3).to(vae.dtype) * 2 - 1).latent_dist.mean
        strength = latent_noise * float(torch.rand((), generator=generator)) / vae.config.scaling_factor
        latents = latents + strength * torch.randn(latents.shape, generator=generator).to(latents)
        returned.append(vae.decode(latents).sample[0].permute(1, 2, 3, 0).float().clamp(-1, 1) / 2 + 0.5)
    return torch.stack(returned)


def truth_of(scenes: Sequence[Scene]) -> dict[str, Tensor]:
    """The labels of scenes; what cannot be seen is not asked."""
    truth = {name: torch.full((len(scenes), len(SPECIES)), _UNASKED) for name in ACTOR_ATTRIBUTES}
    truth |= {name: torch.full((len(scenes),), _UNASKED) for name in SCENE_ATTRIBUTES}
    truth |= {"species": torch.zeros(len(scenes), len(SPECIES)), "traits": torch.full((len(scenes), len(SPECIES), len(TRAITS)), torch.nan)}
    for row, (story, index) in enumerate(scenes):
        stage = story.stages[index]
        for name in SCENE_ATTRIBUTES:
            truth[name][row] = VALUES[name].index(getattr(stage, name))
        for seen in scene_visibility(story, index):
            actor = story.actors[seen.actor]
            slot = SPECIES.index(actor.species)
            truth["species"][row, slot] = 1.0 if is_visible(seen, "species") else torch.nan
            for name in ACTOR_ATTRIBUTES:
                if is_visible(seen, name):
                    truth[name][row, slot] = VALUES[name].index(seen.action if name == "action" else getattr(actor, name))
            if is_visible(seen, "species"):
                built = actor.proportions
                truth["traits"][row, slot] = torch.tensor([actor.size, built.width, built.head, built.ears]) - 1
    return truth


def draw_batch(recipe: JudgeRecipe, pool: Pool, renders: int, step: int, device: torch.device) -> tuple[Tensor, dict[str, Tensor]]:
    """The spoilt views of one step and their truth; a function of the step alone."""
    generator = generator_for(recipe.seed, step)
    returned = len(pool.views) - renders
    others = round(recipe.batch_size * recipe.round_trip_share) if returned else 0
    rows = torch.cat(
        [
            torch.randint(renders, (recipe.batch_size - others,), generator=generator),
            renders + torch.randint(max(returned, 1), (others,), generator=generator),
        ]
    )
    views, truth = pool.rows(rows[torch.randperm(len(rows), generator=generator)], device)
    return spoil(views, generator), truth


def spoil(views: Tensor, generator: torch.Generator) -> Tensor:
    """Shift, smear, blur, tint and add noise to views [B, 9, 3, 64, 96], so that the judge reads imperfect films too."""
    return torch.cat([_spoil_alike(part, generator) for part in torch.split(views, _SPOILT_ALIKE)])


def _spoil_alike(views: Tensor, generator: torch.Generator) -> Tensor:
    count, frames, _, height, width = views.shape
    chances: list[float] = torch.rand(8, generator=generator).tolist()
    down, right = torch.randint(-3, 4, (2,), generator=generator).tolist()
    if chances[0] < 0.25:
        return views
    flat = functional.pad(views.flatten(0, 1), (3, 3, 3, 3), mode="replicate")
    flat = flat[..., 3 + down : 3 + down + height, 3 + right : 3 + right + width]
    if chances[1] < 0.6:  # as temporal compression does: groups of four frames after the first
        groups = flat.reshape(views.shape)
        later = groups[:, 1:].reshape(count, -1, 4, *flat.shape[1:])
        smeared = torch.lerp(later, later.mean(2, keepdim=True).expand_as(later), 0.8 * chances[2])
        flat = torch.cat([groups[:, :1], smeared.flatten(1, 2)], dim=1).flatten(0, 1)
    if chances[3] < 0.6:
        factor = 1.3 + 1.7 * chances[4] ** 2
        small = functional.interpolate(flat, (round(height / factor), round(width / factor)), mode="bilinear", antialias=False)
        flat = functional.interpolate(small, (height, width), mode="bilinear", antialias=False)
    vivid, gain, lift = torch.rand(3, count, 1, 1, 1, 1, generator=generator) - 0.5
    # What all frames of a clip share is drawn once: drawing is what costs.
    noise = 0.04 * chances[5] * torch.randn(count, 1, 3, height, width, generator=generator) + 0.08 * lift
    pixels: Tensor = flat.reshape(views.shape)
    pixels = torch.lerp(pixels.mean(2, keepdim=True).expand_as(pixels), pixels, (1 + 0.4 * vivid).to(pixels.device))
    pixels = pixels * (1 + 0.2 * gain).to(pixels.device) + noise.to(pixels.device)
    if chances[6] < 0.3:
        coarse = torch.randn(count * frames, 3, height // 4, width // 4, generator=generator).to(pixels.device)
        clouds = functional.interpolate(coarse, (height, width), mode="bilinear").view(views.shape)
        pixels = pixels + 0.06 * chances[7] * clouds
    return pixels.clamp(0, 1)


def train_step(
    judge: Judge, optimizer: torch.optim.Optimizer, recipe: JudgeRecipe, views: Tensor, truth: dict[str, Tensor], step: int
) -> float:
    """One optimiser step; the loss before it."""
    for group in optimizer.param_groups:
        group["lr"] = recipe.learning_rate * learning_rate_factor(step, recipe.num_steps, recipe.warmup_steps, recipe.decay)
    loss = reading_loss(judge(views), truth)
    optimizer.zero_grad()
    torch.autograd.backward(loss)
    torch.nn.utils.clip_grad_norm_(judge.parameters(), recipe.max_grad_norm)
    optimizer.step()
    return float(loss.detach())


def reading_loss(logits: dict[str, Tensor], truth: dict[str, Tensor]) -> Tensor:
    """Sum over attributes of the mean cross-entropy where they are asked, and the squared error of the traits in units of their spread."""
    total = torch.zeros((), device=truth["species"].device)
    for name, value in logits.items():
        wanted = truth[name]
        asked = wanted != _UNASKED if name in ACTOR_ATTRIBUTES + SCENE_ATTRIBUTES else ~wanted.isnan()
        if not asked.any():
            continue
        if name == "species":
            # Seven of eight are absent: as a mean over the eight it would hardly weigh.
            total = total + len(SPECIES) * functional.binary_cross_entropy_with_logits(value[asked], wanted[asked])
        elif name == "traits":
            total = total + functional.mse_loss(value[asked] / TRAIT_SPREAD, wanted[asked] / TRAIT_SPREAD)
        else:
            total = total + functional.cross_entropy(value.flatten(0, -2), wanted.flatten(), ignore_index=_UNASKED)
    return total


def measure(judge: Judge, recipe: JudgeRecipe, vae: Any, device: torch.device) -> dict[str, dict[str, float]]:
    """Accuracy on validation stories: "clean" on renders, "round_trip" on what comes back from the autoencoder."""
    accuracy = {}
    for kind, count, through in (("clean", recipe.validation_stories, None), ("round_trip", -(-recipe.validation_round_trips // 3), vae)):
        if kind == "clean" or (vae is not None and count):
            pool = render_pool(recipe, VALIDATION_SEEDS[:count], device, through)
            accuracy[kind] = score(judge, pool, device)
    return accuracy


@torch.no_grad()
def score(judge: Judge, pool: Pool, device: torch.device) -> dict[str, float]:
    """Share read right per attribute, of what can be seen; species: all eight right at once. Traits: correlation with the truth."""
    found: dict[str, list[Tensor]] = {}
    for rows in torch.split(torch.arange(len(pool.views)), 64):
        for name, value in judge(pool.rows(rows, device)[0]).items():
            found.setdefault(name, []).append(value.cpu())
    logits = {name: torch.cat(values) for name, values in found.items()}
    right: dict[str, float] = {"scenes": len(pool.views)}
    for name in judge.attributes:
        wanted = pool.truth[name]
        if name == "species":
            hit = (((logits[name] > 0) == (wanted == 1)) | wanted.isnan()).all(1)
        else:
            hit = (logits[name].argmax(-1) == wanted)[wanted != _UNASKED]
        right[name] = round(float(hit.float().mean()), 4)
    for number, trait in enumerate(TRAITS):
        wanted, told = pool.truth["traits"][..., number], logits["traits"][..., number]
        pair = torch.stack([wanted, told])[:, ~wanted.isnan()]
        right[f"{trait} (correlation)"] = round(float(torch.corrcoef(pair)[0, 1]), 3)
    return right


def _scenes_of(seeds: range, level: str) -> list[Scene]:
    return [(story, index) for story in (draw_story(seed, level) for seed in seeds) for index in range(len(story.stages))]


def _load_vae(recipe: JudgeRecipe, device: torch.device) -> Any:
    if recipe.vae is None:
        return None
    if not (Path(recipe.vae) / "config.json").is_file():
        raise InputError(f"vae: got {recipe.vae!r}, expected the folder of a trained autoencoder; train recipes/playhouse-a/vae.yaml first")
    return AutoencoderKLCogVideoX.from_pretrained(recipe.vae).eval().requires_grad_(False).to(device)
