"""The training loop of base, pretrain and sft, on one device or many; reads as a table of contents.

Data come from `samples`, the objective is `objective`, devices are `parallel`, what is kept is `checkpoints`.
"""

import importlib.util
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs
from torch import nn
from torch.utils.data import DataLoader

from mask2dit.compiling import compile_blocks
from mask2dit.errors import InputError, Mask2DiTError
from mask2dit.loading import load_component
from mask2dit.model_folder import load_config
from mask2dit.scene_layout import SceneLayout
from mask2dit.training.checkpoints import RunFolder, StepLog, load_tensors, save_tensors, state_of
from mask2dit.training.config import DiffusionRecipe, VideoConfig
from mask2dit.training.data.report import ClipReport
from mask2dit.training.encoding import Encoder
from mask2dit.training.export import export
from mask2dit.training.latent_cache import LatentCache
from mask2dit.training.model import DTYPES, encoder_dtype, layout_of, load_transformer, starting_folder, video_of
from mask2dit.training.objective import scene_loss
from mask2dit.training.parallel import (
    check_batch,
    clip_gradients,
    distribute,
    distribute_zero,
    gradients_meet,
    own_numbers,
    uses_zero,
    whole_state,
)
from mask2dit.training.samples import Guarded, Sample, Samples
from mask2dit.training.screen import Progress, Screen
from mask2dit.training.sources import bad_clips_file, caches_captions, check_cache, open_cache, open_source, settings_of, usable_windows
from mask2dit.training.state import EMA, averaged, learning_rate_factor
from mask2dit.training.stopping import StopRequest, TrainingStopped, leave_signals
from mask2dit.training.validation import Validation


def train_diffusion(recipe: DiffusionRecipe, path: Path, screen: Screen) -> Path:
    """Train one stage, going on from the newest checkpoint in `path`; returns the exported folder, `model/` or `lora/`.

    Raises TrainingStopped after a SIGTERM or Ctrl-C, with a checkpoint written.
    """
    accelerator = start_accelerator(recipe, path)
    folder = RunFolder(path, recipe, accelerator.is_main_process, accelerator.wait_for_everyone)
    training = prepare(recipe, folder, accelerator, screen)
    first_step = training.resume()
    log = StepLog(path / "log.jsonl", first_step, accelerator.is_main_process)
    progress = Progress(recipe, first_step, screen)
    saved_at = time.monotonic()
    with StopRequest() as stop:
        for step, (samples, waited) in enumerate(read_ahead(training, first_step), start=first_step):
            values = take_step(training, step, samples)
            save_now = training.save_due(step + 1, saved_at)
            loss, save, stopped = training.agree(values["loss"], save_now, bool(stop.signal))
            values = {"step": step + 1} | values | {"loss": loss}
            log.write(values)
            accelerator.log({key: value for key, value in values.items() if key != "step"}, step=step + 1)
            progress.step(values, waited)
            if save or stopped or step + 1 == recipe.num_steps:
                training.save(step + 1)
                saved_at = time.monotonic()
            if not stopped:
                training.validate(step + 1)
            if stopped and step + 1 < recipe.num_steps:
                accelerator.end_training()
                raise TrainingStopped(f"stopped after step {step + 1}; the same command goes on from there", 128 + (stop.signal or 15))
    screen.line(training.samples.report.take_in(path.glob("bad_clips-*.jsonl")).summary())
    result = export(recipe, training.start, training.whole_states(), training.video, folder)
    accelerator.end_training()
    return result


@dataclass(slots=True)
class Training:
    """Everything that a step needs. `modules` are the trained networks as they are, `wrapped` as they run on the devices."""

    recipe: DiffusionRecipe
    accelerator: Accelerator
    folder: RunFolder
    start: Path
    video: VideoConfig
    modules: dict[str, nn.Module]
    wrapped: dict[str, nn.Module]
    optimizer: torch.optim.Optimizer
    ema: EMA | None
    encoder: Encoder
    samples: Samples
    scheduler: Any
    layout: SceneLayout
    validation: Validation | None

    @property
    def dtype(self) -> torch.dtype:
        """What captions and latents come in: float32 where autocast takes care of the rest."""
        return torch.float32 if self.autocast else DTYPES[self.recipe.precision]

    @property
    def autocast(self) -> bool:
        sharded = self.recipe.sharding == "fsdp" and self.accelerator.num_processes > 1
        return self.recipe.precision == "bfloat16" and self.recipe.lora is None and not sharded and not uses_zero(self.accelerator)

    @property
    def trained(self) -> list[nn.Parameter]:
        return [p for module in self.modules.values() for p in module.parameters() if p.requires_grad]

    def state(self) -> dict[str, Any]:
        return state_of(self.modules, self.optimizer, self.ema)

    def save(self, step: int) -> None:
        """Write a checkpoint after `step` finished steps."""
        if uses_zero(self.accelerator):
            self.folder.save(lambda place: self.accelerator.save_state(str(place)), step)
        else:
            self.folder.save(lambda place: save_tensors(self.state(), place), step)

    def resume(self) -> int:
        """Go on from the newest checkpoint; the number of finished steps."""
        step = self.folder.finished_steps()
        if step and uses_zero(self.accelerator):
            self.accelerator.load_state(str(self.folder.checkpoint(step)))
        elif step:
            load_tensors(self.state(), self.folder.checkpoint(step))
        return step

    def whole_states(self) -> dict[str, dict[str, torch.Tensor]]:
        """The averaged weights of the trained modules, whole, on the CPU. Every device must call it."""
        if uses_zero(self.accelerator):
            return {name: self.accelerator.get_state_dict(module) for name, module in self.wrapped.items()}
        with averaged(self.ema):
            return {name: whole_state(module, self.folder.is_main) for name, module in self.modules.items()}

    def save_due(self, step: int, saved_at: float) -> bool:
        recipe = self.recipe
        if recipe.save_every_steps is not None and step % recipe.save_every_steps == 0:
            return True
        return recipe.save_every_minutes is not None and time.monotonic() - saved_at > 60 * recipe.save_every_minutes

    def agree(self, loss: float, save: bool, stop: bool) -> tuple[float, bool, bool]:
        """The loss over all devices, whether the main one wants to save, and whether any was asked to stop."""
        if self.accelerator.num_processes == 1:
            return loss, save, stop
        mine = torch.tensor([loss, save and self.accelerator.is_main_process, stop], dtype=torch.float64, device=self.accelerator.device)
        total = self.accelerator.reduce(mine, "sum").tolist()
        return total[0], total[1] > 0, total[2] > 0

    def validate(self, step: int) -> None:
        """Film the validation storyboards with the averaged weights, where that is due."""
        if self.validation is None or not self.validation.is_due(step):
            return
        with averaged(self.ema):
            values = self.validation.film(self.modules["transformer"], self.modules.get("text_encoder"), step)
        if values:
            self.accelerator.log(values, step=step)


def start_accelerator(recipe: DiffusionRecipe, path: Path) -> Accelerator:
    """Accelerate finds the devices and the processes; precision and accumulation are the recipe's, and done here."""
    for name in recipe.log_with:
        if importlib.util.find_spec(name) is None:
            raise InputError(f"log_with: {name} is not installed; pip install {name}, or leave it out")
    zero = os.environ.get("ACCELERATE_USE_DEEPSPEED", "false").lower() == "true"  # what `accelerate launch` tells its processes
    accelerator = Accelerator(
        cpu=not torch.accelerator.is_available() and not zero,  # otherwise several processes on the CPU do not find each other
        mixed_precision="bf16" if zero and recipe.precision == "bfloat16" else "no",
        log_with=list(recipe.log_with) or None,
        project_dir=str(path / "logs"),
        kwargs_handlers=[DistributedDataParallelKwargs(gradient_as_bucket_view=True)],  # one copy of the gradients
    )
    check_batch(recipe, accelerator.num_processes)
    if recipe.log_with:
        settings = {key: value for key, value in recipe.model_dump(mode="json").items() if isinstance(value, int | float | str)}
        (path / "logs").mkdir(parents=True, exist_ok=True)
        accelerator.init_trackers("mask2dit", config=settings, init_kwargs={"wandb": wandb_run(path)})
    return accelerator


def wandb_run(path: Path) -> dict[str, str]:
    """A run that is gone on with stays one run."""
    return {"dir": str(path / "logs"), "name": path.name, "id": sha256(str(path.resolve()).encode()).hexdigest()[:16], "resume": "allow"}


def prepare(recipe: DiffusionRecipe, folder: RunFolder, accelerator: Accelerator, screen: Screen) -> Training:
    """Load the model that the run starts from, open its data, and place everything on the devices."""
    with accelerator.main_process_first():
        start = starting_folder(recipe, folder.path)
    source, video = open_source(recipe), video_of(recipe, start)
    cache = open_cache(recipe, source, start, video)
    report = open_report(recipe, folder, cache, accelerator)
    windows = usable_windows(recipe, source, report, report_is_complete=cache is not None)
    if cache is not None:
        check_cache(cache, source, windows)
    scheduler = load_component(start, "scheduler")
    samples = Samples(recipe, source, windows, settings_of(video), report, scheduler.config.num_train_timesteps, cache)
    transformer = load_transformer(recipe, start)
    transformer.set_attention(recipe.attention, accelerator.device, DTYPES[recipe.precision])
    needs_text = cache is None or not caches_captions(recipe, source)
    encoder = open_encoder(recipe, start, accelerator.device, needs_text, needs_vae=cache is None)
    modules: dict[str, nn.Module] = {"transformer": transformer}
    if recipe.train_text_encoder:
        modules["text_encoder"] = encoder.text_encoder
    if uses_zero(accelerator):
        engine, optimizer = distribute_zero(accelerator, recipe, transformer, build_optimizer(modules, recipe), needs_text)
        wrapped = {"transformer": engine}
    else:
        wrapped = distribute(accelerator, recipe, modules)
        optimizer = build_optimizer(modules, recipe)
    encoder.text_encoder = wrapped.get("text_encoder", encoder.text_encoder)
    if recipe.compile:
        compile_blocks(transformer, accelerator.device, "set compile=false")
    return Training(
        recipe=recipe,
        accelerator=accelerator,
        folder=folder,
        start=start,
        video=video,
        modules=modules,
        wrapped=wrapped,
        optimizer=optimizer,
        ema=EMA(modules, recipe.ema_decay) if recipe.ema_decay is not None else None,
        encoder=encoder,
        samples=samples,
        scheduler=scheduler,
        layout=layout_of(recipe, start, video),
        validation=Validation(recipe, start, folder.path / "samples", accelerator, screen) if recipe.validation is not None else None,
    )


def open_encoder(recipe: DiffusionRecipe, start: Path, device: torch.device, needs_text: bool, needs_vae: bool) -> Encoder:
    """What makes samples into tensors, with the networks that no cache stands in for."""
    length = load_config(start, "transformer")["max_text_seq_length"]
    encoder = Encoder(load_component(start, "tokenizer"), length, device, train_text=recipe.train_text_encoder)
    dtype = encoder_dtype(recipe, device)
    if needs_text:
        text = load_component(start, "text_encoder", torch.float32 if recipe.train_text_encoder else dtype)
        encoder.text_encoder = text.requires_grad_(recipe.train_text_encoder).to(device)
    if needs_vae:
        encoder.vae = load_component(start, "vae", dtype).requires_grad_(False).to(device)
    return encoder


def open_report(recipe: DiffusionRecipe, folder: RunFolder, cache: LatentCache | None, accelerator: Accelerator) -> ClipReport:
    """The account of bad clips: that of the cache, or one in the run's folder; devices other than the main one have files of their own."""
    if cache is not None:
        report = ClipReport(cache.folder / bad_clips_file(recipe))
        report.path = None  # it is complete
        return report
    name = bad_clips_file(recipe, accelerator.process_index)
    if folder.finished_steps() == 0:
        (folder.path / name).unlink(missing_ok=True)  # what has been mended since is tried again
    return ClipReport(folder.path / name)


def build_optimizer(modules: dict[str, nn.Module], recipe: DiffusionRecipe) -> torch.optim.Optimizer:
    """AdamW; matrices decay, vectors do not."""
    trained = [p for module in modules.values() for p in module.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in trained if p.ndim > 1], "weight_decay": recipe.weight_decay},
        {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW([group for group in groups if group["params"]], lr=recipe.learning_rate, betas=recipe.betas, eps=recipe.eps)


def read_ahead(training: Training, first_step: int) -> Iterator[tuple[list[Sample], float]]:
    """This device's samples, step by step, and the seconds that each step waited for them."""
    recipe, accelerator = training.recipe, training.accelerator
    numbers = [
        own_numbers(recipe, step, accelerator.process_index, accelerator.num_processes) for step in range(first_step, recipe.num_steps)
    ]
    loader = DataLoader(
        Guarded(training.samples),
        batch_sampler=numbers,  # type: ignore[arg-type]
        num_workers=recipe.data_workers,
        collate_fn=list,
        worker_init_fn=leave_signals,
    )
    batches = iter(loader)
    for _ in numbers:
        began = time.perf_counter()
        samples = next(batches)
        for sample in samples:
            if isinstance(sample, Mask2DiTError):
                raise sample
        yield samples, time.perf_counter() - began


def take_step(training: Training, step: int, samples: list[Sample]) -> dict[str, float]:
    """One optimiser step on this device's samples: this device's part of the loss, the gradients' norm and the learning rate.

    Every micro batch counts by its share of the generated scenes of the whole step, so that the loss is their mean however the samples
    are dealt out.
    """
    recipe, accelerator = training.recipe, training.accelerator
    everywhere = range(step * recipe.batch_size, (step + 1) * recipe.batch_size)
    generated = sum(recipe.num_scenes - len(training.samples.draw(number).known) for number in everywhere)
    micro = recipe.micro_batch_size or len(samples)
    parts = [samples[start : start + micro] for start in range(0, len(samples), micro)]
    rate = recipe.learning_rate * learning_rate_factor(step, recipe.num_steps, recipe.warmup_steps, recipe.decay)
    for group in training.optimizer.param_groups:
        group["lr"] = rate
    zero = uses_zero(accelerator)
    # Devices take the mean of their gradients, and DeepSpeed that of the micro batches.
    times = accelerator.num_processes * (len(parts) if zero else 1)
    loss = 0.0
    for index, part in enumerate(parts):
        share = sum(recipe.num_scenes - len(sample.draw.known) for sample in part) / generated
        with gradients_meet(accelerator, list(training.wrapped.values()), index == len(parts) - 1):
            part_loss = share * sample_loss(training, part)
            accelerator.backward(part_loss * times)
        loss += float(part_loss.detach())
    if zero:  # its engine has clipped and stepped
        norm = float(training.wrapped["transformer"].get_global_grad_norm())  # type: ignore[operator]
    else:
        norm = clip_gradients(training.trained, recipe.max_grad_norm)
        training.optimizer.step()
        training.optimizer.zero_grad(set_to_none=True)
    if training.ema is not None:
        training.ema.update(step)
    return {"loss": loss, "grad_norm": norm, "learning_rate": rate}


def sample_loss(training: Training, samples: list[Sample]) -> torch.Tensor:
    """The objective on some samples of this device."""
    device = training.accelerator.device
    batch = training.encoder.batch(training.recipe, samples, training.dtype)
    # Its cache would hold a second copy of all weights until the end of the forward pass.
    cached = not training.recipe.gradient_checkpointing
    with torch.autocast(device.type, torch.bfloat16, enabled=training.autocast, cache_enabled=cached):
        loss, _, _ = scene_loss(
            training.wrapped["transformer"],
            batch.latents,
            batch.noise,
            batch.timestep,
            batch.known,
            batch.prompt_embeds,
            training.layout,
            training.scheduler,
        )
    return loss
