"""Training of the built-in model's video autoencoder: a small `AutoencoderKLCogVideoX` on playhouse clips.

Temporal compression is what takes the time, so single frames come first, then crops of clips, then whole clips.
"""

import time
from collections.abc import Callable
from pathlib import Path

import torch
from diffusers import AutoencoderKLCogVideoX
from torch import Tensor

from mask2dit.framewise import use_framewise_convolutions
from mask2dit.playhouse.facts import LEVELS, TRAINING_SEEDS, VALIDATION_SEEDS, draw_story
from mask2dit.playhouse.render import render_scenes
from mask2dit.training.config import VAERecipe
from mask2dit.training.draws import generator_for
from mask2dit.training.state import EMA, StateFile, learning_rate_factor

Report = Callable[[str], None]


def new_vae(recipe: VAERecipe) -> AutoencoderKLCogVideoX:
    """An untrained autoencoder of the recipe's size."""
    levels = len(recipe.channels)
    world = LEVELS[recipe.level]
    torch.manual_seed(recipe.seed)
    return AutoencoderKLCogVideoX(
        down_block_types=("CogVideoXDownBlock3D",) * levels,
        up_block_types=("CogVideoXUpBlock3D",) * levels,
        block_out_channels=recipe.channels,
        latent_channels=recipe.latent_channels,
        layers_per_block=recipe.layers_per_block,
        norm_num_groups=recipe.norm_num_groups,
        temporal_compression_ratio=4,
        sample_height=world.height,
        sample_width=world.width,
        scaling_factor=1.0,
    )


def render_stories(seeds: range, level: str, device: torch.device) -> Tensor:
    """All three scenes of every story, uint8 [N, T, Y, X, 3], kept on the CPU."""
    clips = []
    for start in range(0, len(seeds), 16):
        stories = [draw_story(seed, level) for seed in seeds[start : start + 16]]
        frames = render_scenes([(story, index) for story in stories for index in range(3)], device=device)
        clips.append((frames * 255).round().byte().cpu())
    return torch.cat(clips)


def train_vae(recipe: VAERecipe, folder: Path, device: torch.device, report: Report) -> Path:
    """Train, resuming from `folder`; returns the folder of the finished autoencoder (float32, moving average)."""
    vae = AutoencoderKLCogVideoX.from_pretrained(recipe.start_from) if recipe.start_from else new_vae(recipe)
    use_framewise_convolutions(vae)
    vae.to(device)
    if recipe.train == "decoder":
        vae.encoder.requires_grad_(False)
    trained = [p for p in vae.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=recipe.learning_rate, betas=(0.9, 0.99), weight_decay=0.0)
    ema = EMA({"vae": vae}, recipe.ema_decay)
    run = StateFile(folder)
    first_step = run.resume({"vae": vae}, ema, [optimizer])
    report(f"rendering {3 * recipe.num_stories} clips")
    clips = render_stories(TRAINING_SEEDS[: recipe.num_stories], recipe.level, device)
    saved_at = began = time.monotonic()
    for step in range(first_step, recipe.num_steps):
        for group in optimizer.param_groups:
            group["lr"] = recipe.learning_rate * learning_rate_factor(step, recipe.num_steps, recipe.warmup_steps, recipe.decay)
        pixels = draw_batch(recipe, clips, step).to(device)
        loss, error = autoencoder_loss(vae, pixels, recipe.kl_weight, generator_for(recipe.seed, step, 1))
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(trained, recipe.max_grad_norm)
        optimizer.step()
        ema.update(step)
        if (step + 1) % 50 == 0:
            minutes = (time.monotonic() - began) / 60
            left = minutes / (step + 1 - first_step) * (recipe.num_steps - step - 1)
            report(
                f"step {step + 1}/{recipe.num_steps}  loss {loss.item():.4f}  {decibels(error):.2f} dB  {minutes:.1f} min, {left:.1f} left"
            )
        if time.monotonic() - saved_at > 60 * recipe.save_every_minutes:
            run.save({"vae": vae}, ema, [optimizer], step + 1)
            saved_at = time.monotonic()
    run.save({"vae": vae}, ema, [optimizer], recipe.num_steps)
    ema.swap()
    return export_vae(vae, recipe, folder / "vae", device, report)


def draw_batch(recipe: VAERecipe, clips: Tensor, step: int) -> Tensor:
    """The pixels of one step, [B, 3, T, Y, X] in -1..1: frames, crops of clips, or whole clips; a function of the step alone."""
    generator = generator_for(recipe.seed, step)
    num_frames, height, width = clips.shape[1:4]
    whole = step >= recipe.num_steps - recipe.full_size_steps
    image = step < recipe.image_steps
    count = recipe.full_size_batch_size if whole else recipe.image_batch_size if image else recipe.batch_size
    crop_height, crop_width = (height, width) if whole else recipe.crop

    def draw(limit: int) -> list[int]:
        return torch.randint(limit, (count,), generator=generator).tolist()

    rows, tops, lefts = draw(len(clips)), draw(height - crop_height + 1), draw(width - crop_width + 1)
    frames = [slice(frame, frame + 1) for frame in draw(num_frames)] if image else [slice(None)] * count
    batch = torch.stack(
        [
            clips[row, frame, top : top + crop_height, left : left + crop_width]
            for row, frame, top, left in zip(rows, frames, tops, lefts, strict=True)
        ]
    )
    return batch.permute(0, 4, 1, 2, 3).float() / 127.5 - 1


def autoencoder_loss(vae: AutoencoderKLCogVideoX, pixels: Tensor, kl_weight: float, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Absolute error of pixels and of their differences (edges, motion), and a small pull to N(0, 1); also the squared error."""
    posterior = vae.encode(pixels).latent_dist
    noise = torch.randn(posterior.mean.shape, generator=generator).to(pixels.device)
    decoded = vae.decode(posterior.mean + posterior.std * noise).sample
    error = (decoded - pixels).abs()
    edges = sum((decoded.diff(dim=dim) - pixels.diff(dim=dim)).abs().mean() for dim in (2, 3, 4) if pixels.shape[dim] > 1)
    squared = error.square().mean()
    return error.mean() + 2 * squared + edges + kl_weight * posterior.kl().mean(), squared.detach()


def decibels(squared_error: Tensor | float) -> float:
    """PSNR in dB of a mean squared error of pixels in -1..1."""
    return float(10 * torch.log10(4 / torch.as_tensor(squared_error)))


@torch.no_grad()
def export_vae(vae: AutoencoderKLCogVideoX, recipe: VAERecipe, folder: Path, device: torch.device, report: Report) -> Path:
    """Measure on validation stories, set `scaling_factor` so that latents have unit variance, and write the diffusers folder."""
    clips = render_stories(VALIDATION_SEEDS[:16], recipe.level, device)
    means, errors = [], []
    for clip in clips:
        pixels = clip[None].to(device).permute(0, 4, 1, 2, 3).float() / 127.5 - 1
        latents = vae.encode(pixels).latent_dist.mean
        means.append(latents)
        errors.append((vae.decode(latents).sample - pixels).square().mean(dim=(0, 1, 3, 4)))
    if recipe.train == "all":
        vae.register_to_config(scaling_factor=round(1 / float(torch.cat(means).std()), 4))
    per_frame = " ".join(f"{decibels(error):.1f}" for error in torch.stack(errors).mean(0))
    report(f"validation {decibels(torch.stack(errors).mean()):.2f} dB, by frame: {per_frame}; scaling factor {vae.config.scaling_factor}")
    vae.save_pretrained(folder)
    return folder
