"""The training loop of base, pretrain and sft on playhouse stories; one process, resumable.

Reads as a table of contents: build or load the model, draw a batch, take a step, keep the average, save.
"""

import time
from pathlib import Path

import torch
from torch import Tensor

from mask2dit.playhouse.facts import LEVELS
from mask2dit.text import encode_tokens, tokenize
from mask2dit.training.config import DiffusionRecipe
from mask2dit.training.model import ModelParts, export_model, load_parts, new_parts
from mask2dit.training.objective import scene_loss
from mask2dit.training.state import EMA, RunFolder, learning_rate_factor
from mask2dit.training.stories import Sample, StoryLatents
from mask2dit.training.vae import Report
from mask2dit.video_shape import VideoShape


def train_diffusion(recipe: DiffusionRecipe, folder: Path, device: torch.device, report: Report) -> Path:
    """Train one stage, resuming from `folder`; returns the finished model folder (float16, moving average).

    `start_from` is a model folder, or a folder with only a `vae/` for a new model.
    """
    parts = (new_parts(recipe) if recipe.transformer else load_parts(recipe)).to(device)
    parts.transformer.set_attention_plan(recipe.plan)
    parts.text_encoder.requires_grad_(recipe.train_text_encoder)
    modules = {"transformer": parts.transformer, "text_encoder": parts.text_encoder}
    stories = StoryLatents(parts.vae, recipe, folder.parent, device, report)
    optimizer = build_optimizer(modules, recipe)
    ema = EMA(modules, recipe.ema_decay)
    run = RunFolder(folder)
    first_step = run.resume(modules, ema, [optimizer])
    parts.transformer.train()

    saved_at = began = time.monotonic()
    losses: list[float] = []
    for step in range(first_step, recipe.num_steps):
        loss = take_step(parts, recipe, stories, optimizer, step, device)
        ema.update(step)
        losses.append(loss)
        if (step + 1) % 50 == 0:
            minutes = (time.monotonic() - began) / 60
            left = minutes / (step + 1 - first_step) * (recipe.num_steps - step - 1)
            report(f"step {step + 1}/{recipe.num_steps}  loss {sum(losses) / len(losses):.4f}  {minutes:.1f} min, {left:.1f} left")
            losses.clear()
        if time.monotonic() - saved_at > 60 * recipe.save_every_minutes:
            run.save(modules, ema, [optimizer], step + 1)
            ema.swap()
            export_model(parts, recipe, folder / "model")
            ema.swap()
            saved_at = time.monotonic()
    run.save(modules, ema, [optimizer], recipe.num_steps)
    ema.swap()
    return export_model(parts, recipe, folder / "model")


def build_optimizer(modules: dict[str, torch.nn.Module], recipe: DiffusionRecipe) -> torch.optim.Optimizer:
    """AdamW; matrices decay, vectors do not."""
    trained = [p for module in modules.values() for p in module.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in trained if p.ndim > 1], "weight_decay": recipe.weight_decay},
        {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=recipe.learning_rate, betas=(0.9, 0.99), eps=1e-8)


def take_step(
    parts: ModelParts, recipe: DiffusionRecipe, stories: StoryLatents, optimizer: torch.optim.Optimizer, step: int, device: torch.device
) -> float:
    """One optimiser step on the samples that belong to it; the loss before the step."""
    num_train_timesteps = parts.scheduler.config.num_train_timesteps
    first = step * recipe.batch_size
    samples = [stories.draw(recipe, number, num_train_timesteps) for number in range(first, first + recipe.batch_size)]
    loss = sample_loss(parts, recipe, samples, device)
    for group in optimizer.param_groups:
        group["lr"] = recipe.learning_rate * learning_rate_factor(step, recipe.num_steps, recipe.warmup_steps, recipe.decay)
    optimizer.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    torch.nn.utils.clip_grad_norm_([p for group in optimizer.param_groups for p in group["params"]], recipe.max_grad_norm)
    optimizer.step()
    return float(loss.detach())


def sample_loss(parts: ModelParts, recipe: DiffusionRecipe, samples: list[Sample], device: torch.device) -> Tensor:
    """The objective on a batch of samples."""
    world = LEVELS[recipe.level]
    length = parts.transformer.config.max_text_seq_length
    captions = [caption for sample in samples for caption in sample.captions]
    with torch.set_grad_enabled(recipe.train_text_encoder):
        rows = encode_tokens(tokenize(captions, parts.tokenizer, length), parts.text_encoder)  # [B·S, L, E]
    shape = VideoShape(world.height, world.width, (world.num_frames,) * recipe.num_scenes, parts.compression)
    loss, _, _ = scene_loss(
        parts.transformer,
        torch.stack([sample.latents for sample in samples]).to(device),
        torch.stack([sample.noise for sample in samples]).to(device),
        torch.tensor([sample.timestep for sample in samples], device=device),
        [sample.known for sample in samples],
        torch.unflatten(rows, 0, (len(samples), -1)).flatten(1, 2),
        shape.layout(length),
        parts.scheduler,
    )
    return loss
