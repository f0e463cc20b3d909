"""The training loop measured: samples per second, peak memory, waiting for data, and the achieved share of the machine's matmul rate.

    python benchmarks/training.py [--steps 10] [--rounds 3] [--settings full cache …] [--model FOLDER] [--out FILE]
    python benchmarks/training.py --gpu-5b        one optimiser step at the sizes of CogVideoX-5b with random weights; needs CUDA

Every measurement is a fresh process that trains recipes/playhouse-a/sft.yaml, from the built-in model, through the loop's own functions;
the settings take turns within a round, and figures are medians over the rounds. A round leaves out its first steps.

* Peak memory: of the process till its last timed step (VmHWM, from the kernel: Linux only), of which the libraries take about 0.4 GiB, and
  where it compiles, the compiler some; on CUDA what torch had allocated.
* Waiting: the share of the steps' time in which `read_ahead` had no samples yet.
* FLOP: torch's FlopCounterMode over one real step, run without compiling: two for each multiply-add of matmuls, convolutions and attention
  (whose backward pass computes its scores once more); nothing for norms, softmax, AdamW or the average. `done`: all that the step does.
  `model`: without the encoders and without what gradient checkpointing computes again. Frozen weights have no gradients to compute.
* Matmul rate: of one micro batch's tokens × D by D × 4D, and of large squares, in the same process once the steps are over: in float32, and
  where the recipe computes in bfloat16 also in that. The achieved share is FLOP/s of whole steps, waiting included, over that rate.
"""

import argparse
import datetime
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import CogVideoXDDIMScheduler
from film import process_memory
from torch.utils.benchmark import Timer
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count

from mask2dit.cli.quiet import quieten_libraries
from mask2dit.errors import Mask2DiTError, ModelError
from mask2dit.loading import builtin_model
from mask2dit.model_folder import check_model_folder
from mask2dit.training import loop
from mask2dit.training.checkpoints import RunFolder
from mask2dit.training.config import DiffusionRecipe, read_recipe
from mask2dit.training.data.playhouse import PlayhouseScenes
from mask2dit.training.data.report import ClipReport
from mask2dit.training.draws import generator_for
from mask2dit.training.encoding import Encoder
from mask2dit.training.estimate import Networks, build_networks, step_memory
from mask2dit.training.loop import Training
from mask2dit.training.model import DTYPES
from mask2dit.training.parallel import distribute, own_numbers
from mask2dit.training.precompute import precompute
from mask2dit.training.run import best_device
from mask2dit.training.samples import Sample, Samples
from mask2dit.training.sources import settings_of
from mask2dit.training.state import EMA

RECIPES = Path(__file__).parents[1] / "recipes"
RESULTS = Path(__file__).parent / "results"
GIB = 2**30
WARMUP_STEPS = 2
SLOWER = 8  # than float32, and bfloat16 is not measured
WHYS = ("failed", "skipped")
TARGET_WAITING = 0.05  # with cached latents
TARGET_LORA_GIB = 22.0  # of a card of 24: the rest is CUDA's own


@dataclass(frozen=True, slots=True)
class Setting:
    """A published recipe, what is changed in it, and whether the weights are random, at the sizes of CogVideoX-5b."""

    label: str
    changes: dict[str, Any]
    file: str = "playhouse-a/sft.yaml"
    random: bool = False

    def recipe(self, options: argparse.Namespace, cache: Path) -> DiffusionRecipe:
        """Long enough for the steps that are left out, timed and counted."""
        changes: dict[str, Any] = {"compile": False, "validation": None, "save_every_minutes": None, "log_with": []}
        changes |= {"num_steps": WARMUP_STEPS + options.steps + 1, "latent_cache": str(cache)}
        if self.random:  # a folder by that name need not be there: its sizes are known
            changes |= {"start_from": str(options.model or "CogVideoX-5b"), "batch_size": 1, "sharding": "none", "data_workers": 0}
        else:
            data = {"source": "playhouse", "level": "A", "num_stories": options.stories, "by_reference": 0.5}
            changes |= {"start_from": str(options.model or builtin_model()), "data": data}
            changes |= {"batch_size": options.batch_size, "data_workers": options.data_workers}
        recipe = read_recipe(RECIPES / self.file, [], Path("runs"))
        return DiffusionRecipe.model_validate(recipe.model_dump() | changes | self.changes)


FULL_SIZE = {"video": {"height": 480, "width": 720, "num_frames": 49, "fps": 8}}
SETTINGS = {
    "full": Setting("full, encodes every step", {"latent_cache": None}),
    "cache": Setting("full, cached latents", {}),
    "checkpointed": Setting("cache, checkpointed", {"gradient_checkpointing": True}),
    "lora": Setting("cache, LoRA rank 16", {"lora": {"rank": 16, "alpha": 16}}),
    "bfloat16": Setting("cache, bfloat16", {"precision": "bfloat16"}),
    "compile": Setting("cache, compiled", {"compile": True}),
}
SETTINGS_5B = {
    "lora-24gb": Setting("5B LoRA, recipe for 24 GB", {}, "cogvideox-5b-lora-24gb.yaml", random=True),
    "lora-full-size": Setting("5B LoRA, 3 × 49 × 480 × 720", FULL_SIZE, "cogvideox-5b-lora-24gb.yaml", random=True),
    "full-full-size": Setting("5B full, 3 × 49 × 480 × 720", FULL_SIZE, "cogvideox-5b-sft.yaml", random=True),
}


# ---- in the process of one setting


class Silence:
    """A screen that shows nothing."""

    def line(self, text: str) -> None:
        """Nothing."""

    live = line


@dataclass(frozen=True, slots=True)
class Arithmetic:
    """FLOP of one step. `model` is None where counting it needs memory that may not be there."""

    done: int
    encoding: int
    model: int | None


def measure(recipe: DiffusionRecipe, folder: Path, num_steps: int) -> dict[str, Any]:
    """Train some steps as `mask2dit train` does, in an empty folder, and measure them."""
    if obstacle := obstacle_to(recipe):
        return {"skipped": obstacle}
    at_start = process_memory("VmRSS")
    accelerator = loop.start_accelerator(recipe, folder)
    run = RunFolder(folder, recipe, accelerator.is_main_process, accelerator.wait_for_everyone)
    training = loop.prepare(recipe, run, accelerator, Silence())
    numbers = measure_steps(training, loop.read_ahead(training, 0), num_steps, count_model=True)
    return numbers | {"host_memory_at_start_gib": at_start}


def obstacle_to(recipe: DiffusionRecipe) -> str | None:
    """Why the recipe makes no sense on this machine, in one line; None if it does."""
    if recipe.compile:
        try:
            torch.compile(lambda tensor: tensor * 2 + 1)(torch.ones(8, device=best_device()))
        except Exception as error:  # whatever is missing, every back end says it in its own way
            return f"torch.compile does not work here: {' '.join(str(error).split())[:200]}"
    if recipe.precision == "bfloat16":
        own, plain = (matmul_rate(256, 256, 256, dtype) / 1e9 for dtype in (torch.bfloat16, torch.float32))
        if own < plain / SLOWER:  # a CPU without instructions for it takes minutes a step
            return f"matmuls reach {own:.2g} GFLOP/s in bfloat16 and {plain:.2g} in float32: this processor has no instructions for it"
    return None


def measure_steps(training: Training, batches: Iterator[tuple[list[Sample], float]], num_steps: int, count_model: bool) -> dict[str, Any]:
    """Warm up, time `num_steps` steps, read the peak of the memory, then count one step and time matmuls."""
    warmup = [timed_step(training, step, batches) for step in range(WARMUP_STEPS)]
    timed = [timed_step(training, step, batches) for step in range(WARMUP_STEPS, WARMUP_STEPS + num_steps)]
    memory = peak_memory()
    samples, _ = next(batches)
    flop = count(training, WARMUP_STEPS + num_steps, samples, count_model)
    dtypes = dict.fromkeys((torch.float32, DTYPES[training.recipe.precision]))
    rates = {str(dtype).removeprefix("torch."): matmul_rates(training, dtype) for dtype in dtypes}
    numbers = summary(timed, training.recipe.batch_size, flop, rates)
    return numbers | memory | {"warmup_seconds": sum(seconds for seconds, _ in warmup)}


def timed_step(training: Training, step: int, batches: Iterator[tuple[list[Sample], float]]) -> tuple[float, float]:
    """Seconds of one optimiser step with the reading of its data, and of the waiting in it."""
    _synchronize()
    began = time.perf_counter()
    samples, waited = next(batches)
    loop.take_step(training, step, samples)
    _synchronize()
    return time.perf_counter() - began, waited


def count(training: Training, step: int, samples: list[Sample], count_model: bool) -> Arithmetic:
    """Take the same real step under the counter, once as it is and, for `model`, once without checkpointing."""
    micro = training.recipe.micro_batch_size or len(samples)
    parts = [samples[start : start + micro] for start in range(0, len(samples), micro)]
    transformer: Any = training.modules["transformer"]
    torch.compiler.set_stance("force_eager")  # the counter sees nothing of compiled code
    try:
        with counter() as encoding:
            for part in parts:
                training.encoder.batch(training.recipe, part, training.dtype)
        with counter() as done:
            loop.take_step(training, step, samples)
        plain = done
        if training.recipe.gradient_checkpointing and count_model:
            transformer.disable_gradient_checkpointing()
            with counter() as plain:
                loop.take_step(training, step, samples)
            transformer.enable_gradient_checkpointing()
    finally:
        torch.compiler.set_stance("default")
    encoded = encoding.get_total_flops()
    return Arithmetic(done.get_total_flops(), encoded, plain.get_total_flops() - encoded if count_model else None)


def counter() -> Any:
    """Torch's counter; the CPU's kernel of attention is not among those that it knows."""

    def forward(query: Any, key: Any, value: Any, *args: Any, **kwargs: Any) -> int:
        return int(sdpa_flop_count(query, key, value))  # type: ignore[no-untyped-call]

    def backward(grad: Any, query: Any, key: Any, value: Any, *args: Any, **kwargs: Any) -> int:
        return int(sdpa_backward_flop_count(grad, query, key, value))  # type: ignore[no-untyped-call]

    aten = torch.ops.aten
    known = {
        aten._scaled_dot_product_flash_attention_for_cpu: forward,
        aten._scaled_dot_product_flash_attention_for_cpu_backward: backward,
    }
    return FlopCounterMode(display=False, custom_mapping=known)


def matmul_rates(training: Training, dtype: torch.dtype) -> dict[str, float]:
    """FLOP/s of the feed-forward's first product over one micro batch, and of large squares."""
    config: Any = training.modules["transformer"].config
    width = config.num_attention_heads * config.attention_head_dim
    tokens = (training.recipe.micro_batch_size or training.recipe.batch_size) * training.layout.num_tokens
    square = 8192 if torch.cuda.is_available() else 2048
    return {"shapes": matmul_rate(tokens, width, 4 * width, dtype), "square": matmul_rate(square, square, square, dtype)}


def matmul_rate(rows: int, inner: int, columns: int, dtype: torch.dtype) -> float:
    """FLOP/s of one product, the median of half a second."""
    left, right = (torch.randn(shape, device=best_device()).to(dtype) for shape in ((rows, inner), (inner, columns)))
    timer = Timer("left @ right", globals={"left": left, "right": right}, num_threads=torch.get_num_threads())
    timer.timeit(2)
    return 2 * rows * inner * columns / timer.blocked_autorange(min_run_time=0.5).median


def summary(timed: Sequence[tuple[float, float]], batch_size: int, flop: Arithmetic, rates: dict[str, dict[str, float]]) -> dict[str, Any]:
    """The numbers of one round. timed: seconds of each step, and of the waiting in it; rates: FLOP/s by dtype, the recipe's own last."""
    seconds = sum(step for step, _ in timed)
    per_second = len(timed) / seconds
    own = list(rates.values())[-1]
    numbers: dict[str, Any] = {
        "samples_per_second": batch_size * per_second,
        "step_seconds": statistics.median(step for step, _ in timed),
        "waiting_share": sum(waited for _, waited in timed) / seconds,
        "encoding_gflop_per_sample": flop.encoding / batch_size / 1e9,
    }
    for name, one_step in (("done", flop.done), ("model", flop.model)):
        if one_step is not None:
            numbers[f"{name}_gflop_per_sample"] = one_step / batch_size / 1e9
            numbers[f"{name}_gflop_per_second"] = one_step * per_second / 1e9
            numbers |= {f"{name}_share_of_{kind}": one_step * per_second / rate for kind, rate in own.items()}
    return numbers | {
        f"matmul_{dtype}_{kind}_gflop_per_second": rate / 1e9 for dtype, kinds in rates.items() for kind, rate in kinds.items()
    }


def peak_memory() -> dict[str, float]:
    """GiB, the most so far: of this process, and on CUDA of the device."""
    host = process_memory("VmHWM")
    if not torch.cuda.is_available():
        return {"peak_memory_gib": host}
    allocated, reserved = torch.cuda.max_memory_allocated(), torch.cuda.max_memory_reserved()
    return {"peak_memory_gib": allocated / GIB, "peak_reserved_gib": reserved / GIB, "peak_host_gib": host}


def _synchronize() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


# ---- the sizes of CogVideoX-5b with random weights


def measure_random(recipe: DiffusionRecipe, folder: Path, num_steps: int) -> dict[str, Any]:
    """As `measure`, with random weights and random latents; skipped where the formulas of `training.estimate` say that it cannot fit."""
    networks = build_networks(recipe)
    estimated = step_memory(recipe, networks, 1, "none").total / GIB
    free = torch.cuda.mem_get_info()[0] / GIB if torch.cuda.is_available() else float("inf")
    if estimated > free:
        return {"skipped": f"needs {estimated:.1f} GiB by formula, {free:.1f} are free"}
    training = random_training(recipe, networks, folder)
    made = [(random_samples(training, networks, step), 0.0) for step in range(WARMUP_STEPS + num_steps + 1)]
    numbers = measure_steps(training, iter(made), num_steps, count_model=False)
    return {key: value for key, value in numbers.items() if key != "waiting_share"} | {"estimated_memory_gib": estimated}


def random_training(recipe: DiffusionRecipe, networks: Networks, folder: Path) -> Training:
    """What `loop.prepare` makes, around a transformer that never was on the disk nor in the host's memory."""
    if recipe.video is None or recipe.start_from is None:
        raise AssertionError("the recipes of this benchmark name both")
    accelerator = loop.start_accelerator(recipe, folder)
    transformer = networks.transformer
    transformer.set_attention_plan(recipe.plan)
    if recipe.gradient_checkpointing:
        transformer.enable_gradient_checkpointing()
    place_at_random(transformer, recipe, accelerator.device)
    modules: dict[str, torch.nn.Module] = {"transformer": transformer.train()}
    scheduler = CogVideoXDDIMScheduler(prediction_type="v_prediction")
    source = PlayhouseScenes("A", 1, 0.0)  # never read: only what the samples draw is asked for
    steps = scheduler.config.num_train_timesteps
    return loop.Training(
        recipe=recipe,
        accelerator=accelerator,
        folder=RunFolder(folder, recipe, accelerator.is_main_process, accelerator.wait_for_everyone),
        start=Path(recipe.start_from),
        video=recipe.video,
        modules=modules,
        wrapped=distribute(accelerator, recipe, modules),
        optimizer=loop.build_optimizer(modules, recipe),
        ema=EMA(modules, recipe.ema_decay) if recipe.ema_decay is not None else None,
        encoder=Encoder(None, None, None, transformer.config.max_text_seq_length, accelerator.device),
        samples=Samples(recipe, source, [(0, 0, recipe.num_scenes)], settings_of(recipe.video), ClipReport(), steps),
        scheduler=scheduler,
        layout=networks.layout,
        validation=None,
    )


def place_at_random(transformer: Any, recipe: DiffusionRecipe, device: torch.device) -> None:
    """From the meta device to `device`, in the dtypes that `load_transformer` gives: frozen in the recipe's precision, trained float32."""
    frozen = DTYPES[recipe.precision] if recipe.lora is not None else torch.float32
    for parameter in transformer.parameters():
        parameter.data = parameter.data.to(torch.float32 if parameter.requires_grad else frozen)
    transformer.to_empty(device=device)
    generator = torch.Generator(device).manual_seed(recipe.seed)
    with torch.no_grad():
        for name, parameter in transformer.named_parameters():
            if parameter.ndim > 1:
                parameter.normal_(0.0, 0.02, generator=generator)
            else:
                parameter.fill_(float(name.endswith("weight")))  # a norm's scale, or some bias


def random_samples(training: Training, networks: Networks, step: int) -> list[Sample]:
    """The samples of a step as a latent cache would give them."""
    recipe, shape, config = training.recipe, networks.shape, networks.transformer.config
    size = (recipe.num_scenes, shape.num_latent_frames[0], config.in_channels, *shape.latent_size)
    made = []
    for number in own_numbers(recipe, step, 0, 1):
        generator = generator_for(recipe.seed, number)
        mean = torch.randn(size, generator=generator)
        text = torch.randn(recipe.num_scenes, config.max_text_seq_length, config.text_embed_dim, generator=generator)
        draw = training.samples.draw(number)
        made.append(Sample(number, draw, ("",) * recipe.num_scenes, mean=mean, std=torch.full_like(mean, 0.1), prompt_embeds=text))
    return made


# ---- in the parent


def in_own_process(job: str, recipe: DiffusionRecipe, options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Do one of JOBS in a process of its own: its numbers, or {"skipped" or "failed": why}."""
    result = folder / "result.json"
    result.unlink(missing_ok=True)
    (folder / "recipe.json").write_text(recipe.model_dump_json(), encoding="utf-8")
    command = [sys.executable, __file__, "--job", job, "--work", str(folder), "--steps", str(options.steps)]
    environment = os.environ | {"OMP_NUM_THREADS": str(torch.get_num_threads())}
    done = subprocess.run(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, check=False)
    if done.returncode or not result.exists():
        said = [line for line in done.stderr.splitlines() if line.strip()]
        return {"failed": f"ended with {done.returncode}: {said[-1].strip()[:200] if said else 'without a word'}"}
    numbers: dict[str, Any] = json.loads(result.read_text(encoding="utf-8"))
    return numbers


def fill_cache(recipe: DiffusionRecipe, folder: Path, num_steps: int) -> dict[str, Any]:
    """Encode the clips once; the seconds that it took."""
    began = time.perf_counter()
    precompute(recipe, folder, best_device(), Silence())
    return {"seconds": time.perf_counter() - began}


JOBS = {"fill": fill_cache, "measure": measure, "measure-random": measure_random}


def do_job(options: argparse.Namespace) -> None:
    """What a process of `in_own_process` does."""
    quieten_libraries()
    recipe = DiffusionRecipe.model_validate_json((options.work / "recipe.json").read_text(encoding="utf-8"))
    with tempfile.TemporaryDirectory(dir=options.work) as folder:
        numbers = JOBS[options.job](recipe, Path(folder), options.steps)
    (options.work / "result.json").write_text(json.dumps(numbers), encoding="utf-8")


def run(options: argparse.Namespace) -> dict[str, Any]:
    """All rounds of all settings, by turns."""
    known = SETTINGS_5B if options.gpu_5b else SETTINGS
    settings = {name: known[name] for name in options.settings}
    rounds: dict[str, list[dict[str, Any]]] = {name: [] for name in settings}
    filled: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="mask2dit-training-") as path:
        folder, cache = Path(path), Path(path, "latents")
        if any(name in SETTINGS and name != "full" for name in settings):
            filled = in_own_process("fill", SETTINGS["cache"].recipe(options, cache), options, folder)
            if "failed" in filled:
                raise ModelError(f"the latent cache could not be filled: {filled['failed']}")
        for number, name in ((number, name) for number in range(options.rounds) for name in settings):
            if any("samples_per_second" not in each for each in rounds[name]):
                continue
            job = "measure-random" if settings[name].random else "measure"
            found = in_own_process(job, settings[name].recipe(options, cache), options, folder)
            rounds[name].append(found)
            said = f"{found['samples_per_second']:.3g} samples/s" if "samples_per_second" in found else next(iter(found))
            sys.stderr.write(f"round {number + 1}/{options.rounds}  {name:<14}  {said}\n")
    return {
        "date": datetime.date.today().isoformat(),
        "machine": machine(),
        "model": "random weights at the sizes of CogVideoX-5b" if options.gpu_5b else options.model.name if options.model else "built-in",
        "rounds": options.rounds,
        "steps": options.steps,
        "warmup_steps": WARMUP_STEPS,
        "batch_size": 1 if options.gpu_5b else options.batch_size,
        "data_workers": 0 if options.gpu_5b else options.data_workers,
        "fill_cache_seconds": filled.get("seconds"),
        "settings": {name: over_rounds(settings[name].label, numbers) for name, numbers in rounds.items()},
        "targets": {"waiting_share": TARGET_WAITING, "lora_24gb_gib": TARGET_LORA_GIB},
    }


def machine() -> dict[str, Any]:
    """What the figures belong to."""
    names = [line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    gpu = {"gpu": torch.cuda.get_device_name(), "cuda": torch.version.cuda} if torch.cuda.is_available() else {}
    return gpu | {
        "cpu": names[0] if names else platform.processor(),
        "cores": len(os.sched_getaffinity(0)),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "python": platform.python_version(),
    }


def over_rounds(label: str, rounds: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Medians, the range of the speed, and what every round said; or why there is nothing."""
    for why in WHYS:
        if any(why in each for each in rounds):
            return {"label": label, why: next(each[why] for each in rounds if why in each)}
    speeds = [each["samples_per_second"] for each in rounds]
    return {
        "label": label,
        "median": {key: statistics.median(each[key] for each in rounds) for key in rounds[0]},
        "samples_per_second_range": [min(speeds), max(speeds)],
        "rounds": list(rounds),
    }


def table_lines(result: dict[str, Any]) -> Iterator[str]:
    """The result as people read it. Of FLOP and shares, the model's own, where they were counted; else all that was done."""
    about = result["machine"]
    counts = f"{result['steps']} steps of {result['batch_size']} samples, {result['data_workers']} data workers, {result['rounds']} rounds"
    names = [about[key] for key in ("gpu", "cpu") if key in about]
    yield " · ".join([*names, f"{about['cores']} cores", f"{about['threads']} threads"])
    yield f"torch {about['torch']} · {result['model']} · {counts} · {result['date']}"
    yield ""
    head = f"{'setting':<30}{'samples/s':>10}{'min to max':>18}{'peak GiB':>10}{'waiting':>9}"
    yield head + f"{'GFLOP/sample':>14}{'all done':>10}{'GFLOP/s':>10}{'of shapes':>11}{'of squares':>12}"
    for found in result["settings"].values():
        yield f"{found['label']:<30}" + (_row(found) if "median" in found else next(f"{why}: {found[why]}" for why in WHYS if why in found))
    yield ""
    yield from _verdicts({name: found["median"] for name, found in result["settings"].items() if "median" in found})


def _row(found: dict[str, Any]) -> str:
    median, (low, high) = found["median"], found["samples_per_second_range"]
    kind = "model" if "model_gflop_per_sample" in median else "done"
    waiting = f"{median['waiting_share']:.1%}" if "waiting_share" in median else "-"
    speed = f"{median['samples_per_second']:>10.3g}{f'{low:.3g} to {high:.3g}':>18}{median['peak_memory_gib']:>10.3f}{waiting:>9}"
    flop = (
        f"{median[f'{kind}_gflop_per_sample']:>14,.4g}{median['done_gflop_per_sample']:>10,.4g}{median[f'{kind}_gflop_per_second']:>10,.4g}"
    )
    return speed + flop + f"{median[f'{kind}_share_of_shapes']:>11.1%}{median[f'{kind}_share_of_square']:>12.1%}"


def _verdicts(medians: dict[str, dict[str, float]]) -> Iterator[str]:
    """The machine's own rates, and the targets beside what was reached."""
    for key in dict.fromkeys(key for median in medians.values() for key in median if key.startswith("matmul_")):
        _, dtype, shape, *_ = key.split("_")
        rate = statistics.median(median[key] for median in medians.values() if key in median)
        yield f"matmul in {dtype}, {'large squares' if shape == 'square' else 'shapes of the model'}: {rate:,.1f} GFLOP/s"
    if "cache" in medians:
        share = medians["cache"]["waiting_share"]
        yield f"waiting with the cache: {share:.1%}" + _against(share, TARGET_WAITING)
    for name in SETTINGS_5B:
        if (median := medians.get(name)) is None:
            continue
        seconds, peak, formula = (median[key] for key in ("step_seconds", "peak_memory_gib", "estimated_memory_gib"))
        line = f"{SETTINGS_5B[name].label}: {seconds:.2f} s a step, {peak:.1f} GiB, by formula {formula:.1f}"
        yield line + (_against(peak, TARGET_LORA_GIB) if name == "lora-24gb" else "")


def _against(value: float, target: float) -> str:
    return f"   target ≤ {target:g}: {'met' if value <= target else 'missed'}"


def positive(text: str) -> int:
    """A count of at least 1."""
    if (value := int(text)) < 1:
        raise argparse.ArgumentTypeError(f"got {text}, expected at least 1")
    return value


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The options; see --help."""
    parser = argparse.ArgumentParser(description="Measure the training loop in its settings.")
    parser.add_argument("--steps", type=positive, help="timed steps of a measurement; 10, or 1 with --gpu-5b, where left out")
    parser.add_argument("--rounds", type=positive, help="3, or 1 with --gpu-5b, where left out")
    parser.add_argument("--settings", nargs="+", choices=[*SETTINGS, *SETTINGS_5B], help="all where left out")
    parser.add_argument("--model", type=Path, help="model folder; the built-in one where left out")
    parser.add_argument("--batch-size", type=positive, default=4)
    parser.add_argument("--stories", type=positive, default=16, help="of three scenes each, that are trained on")
    parser.add_argument("--data-workers", type=int, default=0)
    parser.add_argument("--threads", type=positive, help="CPU threads; torch's own choice where left out")
    parser.add_argument("--out", type=Path, help="results as JSON; benchmarks/results/training.json or training-5b.json where left out")
    parser.add_argument("--gpu-5b", action="store_true", help="the sizes of CogVideoX-5b with random weights, on CUDA")
    parser.add_argument("--job", help=argparse.SUPPRESS)
    parser.add_argument("--work", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    known = SETTINGS_5B if options.gpu_5b else SETTINGS
    options.settings = options.settings or list(known)
    if wrong := [name for name in options.settings if name not in known]:
        parser.error(f"--settings: got {wrong[0]}, expected some of {', '.join(known)}{'' if options.gpu_5b else '; or add --gpu-5b'}")
    options.steps = options.steps or (1 if options.gpu_5b else 10)
    options.rounds = options.rounds or (1 if options.gpu_5b else 3)
    options.out = options.out or RESULTS / ("training-5b.json" if options.gpu_5b else "training.json")
    return options


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print the table, write the results; 1 if a setting failed, 2 without the device that was asked for."""
    options = parse(arguments)
    if options.job:
        do_job(options)
        return 0
    if options.gpu_5b and not torch.cuda.is_available():
        sys.stderr.write("error: --gpu-5b: this torch finds no CUDA device, expected one; run it on a machine with a GPU\n")
        return 2
    torch.set_num_threads(options.threads or torch.get_num_threads())
    try:
        if options.model:
            check_model_folder(options.model)
        result = run(options)
    except Mask2DiTError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    print("\n".join(table_lines(result)))
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(result, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    print(f"\nwritten: {options.out}")
    return 1 if any("failed" in found for found in result["settings"].values()) else 0


if __name__ == "__main__":
    sys.exit(main())
