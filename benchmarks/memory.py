"""Memory by mode and by number of scenes, measured, beside what is counted; and what each graphics card can make, by estimate.

    python benchmarks/memory.py [--rounds 5] [--block-scenes 3] [--out benchmarks/results/memory.json]
    python benchmarks/memory.py --cards                # the table of the README
    python benchmarks/memory.py --gpu 12GiB 24GiB      # 5B with random weights under a limit; needs CUDA

On the CPU a model of reduced width with random weights is written to a temporary folder, and every figure is the largest resident memory of
a stage in a process of its own, median over the rounds, without what Python and its libraries take before the model is loaded. One block of
5B's own width computes at true shapes. Needs Linux.
"""

import argparse
import datetime
import gc
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

GIB = 2**30
SCENES = (1, 3, 12)
MODES = {
    "plain": {},
    "text first": {"text_first": True},
    "text first, VAE in tiles": {"text_first": True, "tiled_vae": True},
    "blocks from disk": {"text_first": True, "tiled_vae": True, "offload": "disk"},
    "fp8-storage": {"weights": "fp8-storage"},
    "fp8": {"weights": "fp8"},
    "int8": {"weights": "int8"},
}
HEIGHT, WIDTH, FRAMES, TEXT = 96, 144, 17, 64
VAE_TARGET = 1.1
# Rates in bfloat16 without sparsity, as the maker publishes them, of which 40 % are taken.
CARDS = (
    ("RTX 4060", 8, 30e12),
    ("RTX 4070", 12, 58e12),
    ("RTX 4080", 16, 97e12),
    ("RTX 4090", 24, 165e12),
    ("L40S", 48, 362e12),
    ("H100", 80, 989e12),
)
RATE_SHARE = 0.4
ROOM = 0.97  # of a card's memory that a program may have
STEPS, BRANCHES = 50, 2


def main() -> None:
    """Measure, print tables, and write JSON if asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--block-scenes", type=int, default=3, help="of the block at 5B's width; 0 leaves it out")
    parser.add_argument("--block-frames", type=int, default=49)
    parser.add_argument("--cards", action="store_true")
    parser.add_argument("--gpu", nargs="*", metavar="LIMIT")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        print(json.dumps(child(*options.child, options)))
    elif options.cards:
        print("\n".join(cards()))
    elif options.gpu is not None:
        print(json.dumps([gpu(limit) for limit in options.gpu or ("12GiB", "24GiB")], indent=2))
    else:
        result = measure(options)
        show(result)
        if options.out:
            options.out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """All figures of the CPU."""
    import torch

    names = [line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    result: dict[str, Any] = {
        "machine": {"cpu": names[0], "cores": os.cpu_count(), "threads": options.threads, "torch": torch.__version__},
        "python": platform.python_version(),
        "date": datetime.date.today().isoformat(),
        "rounds": options.rounds,
        "size": {"height": HEIGHT, "width": WIDTH, "frames": FRAMES},
    }
    with tempfile.TemporaryDirectory() as folder:
        result["parameters"] = write_model(Path(folder))
        result["modes"] = {name: rounds(options, folder, json.dumps(MODES[name]), 3) for name in MODES}
        result["scenes"] = {count: rounds(options, folder, "{}", count) for count in SCENES}
        result["decode"] = {count: rounds(options, folder, "decode", count) for count in (1, 12)}
    result["growth_5b"] = {count: stages_5b(count) for count in SCENES}
    if options.block_scenes:
        result["block"] = run_child(options, "", "block", options.block_scenes)
    return result


def rounds(options: argparse.Namespace, folder: str, mode: str, scenes: int) -> dict[str, Any]:
    """Medians of a mode; what was counted is the same every time."""
    every = [run_child(options, folder, mode, scenes) for _ in range(options.rounds)]
    return {key: statistics.median(each[key] for each in every) for key in every[0]}


def run_child(options: argparse.Namespace, folder: str, mode: str, scenes: int) -> Any:
    command = [sys.executable, __file__, "--child", folder, mode, str(scenes), "--block-frames", str(options.block_frames)]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": str(options.threads)})
    if done.returncode:
        sys.exit(f"{' '.join(command)} ended with {done.returncode}: {done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def write_model(folder: Path) -> dict[str, int]:
    """CogVideoX's shape at a fraction of its width, random weights; returns the parameters of each part."""
    import torch
    from diffusers import AutoencoderKLCogVideoX, CogVideoXDDIMScheduler
    from transformers import T5Config, T5EncoderModel

    from mask2dit import Mask2DiTPipeline, Mask2DiTTransformer3DModel
    from mask2dit.playhouse.captions import words
    from mask2dit.playhouse.tokenizer import build_tokenizer

    tokenizer = build_tokenizer(words(), TEXT)
    parts = {
        "transformer": Mask2DiTTransformer3DModel(
            num_attention_heads=12,
            num_layers=10,
            text_embed_dim=768,
            sample_height=HEIGHT // 8,
            sample_width=WIDTH // 8,
            sample_frames=FRAMES,
            max_text_seq_length=TEXT,
        ),
        "vae": AutoencoderKLCogVideoX(
            block_out_channels=(16, 32, 32, 64),
            layers_per_block=1,
            norm_num_groups=8,
            down_block_types=("CogVideoXDownBlock3D",) * 4,
            up_block_types=("CogVideoXUpBlock3D",) * 4,
            latent_channels=16,
            sample_height=HEIGHT,
            sample_width=WIDTH,
        ),
        "text_encoder": T5EncoderModel(
            T5Config(
                vocab_size=len(tokenizer), d_model=768, d_kv=64, d_ff=2048, num_layers=10, num_heads=12, feed_forward_proj="gated-gelu"
            )
        ),
    }
    own = {"window": 3, "height": HEIGHT, "width": WIDTH, "num_frames": FRAMES, "num_inference_steps": 1, "guidance_scale": 1.0}
    scheduler = CogVideoXDDIMScheduler(prediction_type="v_prediction", rescale_betas_zero_snr=True, timestep_spacing="trailing")
    with torch.no_grad():
        Mask2DiTPipeline(tokenizer, scheduler=scheduler, **parts, **own).save_pretrained(folder)
    return {name: sum(value.numel() for value in part.parameters()) for name, part in parts.items()}


class Peak:
    """The largest resident set of a stage, sampled every two milliseconds."""

    def __init__(self) -> None:
        self.largest = 0
        self._page = os.sysconf("SC_PAGE_SIZE")
        self._stopped = threading.Event()

    def now(self) -> int:
        """Bytes."""
        return int(Path("/proc/self/statm").read_text().split()[1]) * self._page

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Keep the largest of what is seen meanwhile."""
        self.largest = self.now()
        self._stopped.clear()
        watcher = threading.Thread(target=self._watch, daemon=True)
        watcher.start()
        yield
        self._stopped.set()
        watcher.join()

    def _watch(self) -> None:
        while not self._stopped.wait(0.002):
            self.largest = max(self.largest, self.now())


def child(folder: str, mode: str, scenes: str, options: argparse.Namespace) -> Any:
    """One film of one step, or one block, in this process: bytes above what was taken before."""
    match mode:
        case "block":
            return block(int(scenes), options.block_frames)
        case "decode":
            return decode(Path(folder), int(scenes))
    return film(Path(folder), mode, int(scenes))


def decode(folder: Path, scenes: int) -> dict[str, float]:
    """Decode scenes one after the other and write each at once, with nothing before it in this process."""
    import torch

    from mask2dit.loading import load_pipeline

    pipeline, peak = load_pipeline(folder), Peak()
    latents = torch.randn((FRAMES - 1) // 4 + 1, 16, HEIGHT // 8, WIDTH // 8)
    before = peak.now()
    with peak.watched():
        for number in range(scenes):
            (folder / f"scene-{number}.bin").write_bytes((pipeline.decode_scene(latents) * 255).astype("uint8").tobytes())
    return {"peak": peak.largest - before}


def film(folder: Path, mode_text: str, scenes: int) -> dict[str, float]:
    """Encode, one step, decode scene by scene, as the command does it."""
    from mask2dit.loading import load_pipeline
    from mask2dit.memory import BASE_BYTES, MemoryMode
    from mask2dit.model_folder import model_values
    from mask2dit.video_shape import VideoShape

    mode = MemoryMode(**json.loads(mode_text))
    captions = [f"a red fox walks right in the meadow {number}" for number in range(scenes)]
    shape = VideoShape(HEIGHT, WIDTH, (FRAMES,) * scenes, model_values(folder).compression)
    counted = needs_of(folder, shape, mode)
    gc.collect()
    peak, found = Peak(), {}
    before = peak.now()
    with tempfile.TemporaryDirectory() as cache:
        with peak.watched():
            pipeline = load_pipeline(folder, memory=mode, prompt_cache=cache, captions=[*captions, ""])
        found["loading"] = peak.largest - before  # with the text encoder, where that is let go
        with peak.watched():
            rows = pipeline.encode_prompt(captions, [""] * scenes)[0]
        found["encoding"] = peak.largest - before
    with peak.watched():
        latents = pipeline(prompt_embeds=rows, guidance_scale=1, num_inference_steps=1, output_type="latent").scenes
    found["denoising"] = peak.largest - before
    with peak.watched():
        for number, scene in enumerate(latents):
            (folder / f"scene-{number}.bin").write_bytes((pipeline.decode_scene(scene) * 255).astype("uint8").tobytes())
    found["decoding"] = peak.largest - before
    return found | {f"counted_{stage}": size for stage, size in counted.items()} | {"base": before, "base_assumed": BASE_BYTES["cpu"]}


def needs_of(folder: Path, shape: Any, mode: Any) -> dict[str, int]:
    """What is counted for a mode."""
    import torch

    from mask2dit.loading import folder_needs

    return folder_needs(folder, shape, torch.float32, torch.device("cpu")).stages(mode)


def block(scenes: int, frames: int) -> dict[str, float]:
    """One block at 5B's width, 480 × 720, float32, beside what is counted for it."""
    import torch

    from mask2dit import Mask2DiTTransformer3DModel
    from mask2dit.footprint import footprint
    from mask2dit.plans import get_plan
    from mask2dit.video_shape import Compression, VideoShape

    with torch.device("meta"):
        model = Mask2DiTTransformer3DModel(num_layers=1)
    width, layout = 3072, VideoShape(480, 720, (frames,) * scenes, Compression(8, 4, 2)).layout(226)
    pattern = get_plan("symmetric").pattern(layout)

    def arguments(device: str) -> tuple[Any, ...]:
        tensors = (torch.full(shape, 0.1, device=device) for shape in ((1, layout.num_tokens, width), (1, scenes, 512)))
        rotary = tuple(torch.ones(layout.num_tokens, 64, device=device) for _ in range(2))
        return (*tensors, layout.segment_lengths, pattern, rotary)

    there = arguments("meta")
    counted = footprint(lambda: model.transformer_blocks[0](*there))
    real = model.transformer_blocks[0].to_empty(device="cpu")
    here = arguments("cpu")
    with torch.no_grad():
        for value in real.parameters():
            value.fill_(0.01)
    gc.collect()
    peak = Peak()
    before, began = peak.now(), time.perf_counter()
    with torch.no_grad(), peak.watched():
        real(*here)
    taken = peak.largest - before
    return {
        "scenes": scenes,
        "frames": frames,
        "tokens": layout.num_tokens,
        "weights": sum(value.numel() * 4 for value in real.parameters()),
        "measured": taken,
        "counted": counted.peak_bytes,
        "flop": counted.flop,
        "seconds": time.perf_counter() - began,
    }


def needs_5b(scenes: int, height: int = 480, width: int = 720, frames: int = 49) -> Any:
    """What 5B takes on a CUDA device, counted."""
    import torch
    from diffusers import AutoencoderKLCogVideoX
    from transformers import T5Config, T5EncoderModel

    from mask2dit import Mask2DiTTransformer3DModel
    from mask2dit.memory import count_needs
    from mask2dit.published import TEXT_ENCODER
    from mask2dit.video_shape import Compression, VideoShape

    with torch.device("meta"):
        networks = Mask2DiTTransformer3DModel(), AutoencoderKLCogVideoX(), T5EncoderModel(T5Config.from_dict(TEXT_ENCODER))
    return count_needs(*networks, VideoShape(height, width, (frames,) * scenes, Compression(8, 4, 2)), torch.bfloat16, "cuda")


def stages_5b(scenes: int) -> dict[str, float]:
    """Bytes by stage, block by block from main memory, and all at once."""
    from mask2dit.memory import MemoryMode

    needs = needs_5b(scenes)
    small = needs.stages(MemoryMode(text_first=True, tiled_vae=True, offload="group"))
    return {
        "at_once": max(needs.stages(MemoryMode()).values()),
        "denoising_by_blocks": small["denoising"],
        "decoding_in_tiles": small["decoding"],
    }


def cards() -> list[str]:
    """Markdown: how each card makes films of the released 5B weights when the choice is left to `--memory`."""
    from mask2dit.memory import choose, gib

    long, short = needs_5b(3), needs_5b(3, frames=25)
    head = ("card", "flags", "kept as", "memory, counted", "3 × 49 frames, estimated", "3 × 25 frames, estimated")
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for name, memory, rate in CARDS:
        choice = choose(long, "cuda", int(ROOM * memory * GIB))
        minutes = [f"{film_flop(needs) / (rate * RATE_SHARE) / 60:.0f} min" for needs in (long, short)]
        cells = (f"{memory} GiB ({name})", f"`--memory {memory}GiB`", choice.mode.sentence, gib(choice.peak_bytes), *minutes)
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def film_flop(needs: Any) -> int:
    """Of a guided film of three scenes."""
    return int(STEPS * BRANCHES * needs.transformer.call.flop + 3 * needs.vae.call.flop + 2 * 3 * needs.text.call.flop)


def gpu(limit: str) -> dict[str, Any]:
    """5B with random weights in bfloat16, three scenes: one step and the decoding of one scene, with the allocator held to `limit`."""
    import torch
    from diffusers import AutoencoderKLCogVideoX, CogVideoXDDIMScheduler

    from mask2dit import Mask2DiTPipeline, Mask2DiTTransformer3DModel
    from mask2dit.loading import arrange
    from mask2dit.memory import choose, parse_bytes

    device, size = torch.device("cuda"), parse_bytes(limit)
    choice = choose(needs_5b(3), "cuda", size)
    torch.cuda.set_per_process_memory_fraction(min(1.0, size / torch.cuda.get_device_properties(device).total_memory))
    parts = []
    for build in (Mask2DiTTransformer3DModel, AutoencoderKLCogVideoX):
        with torch.device("meta"):
            network = build()
        parts.append(network.to(torch.bfloat16).to_empty(device="cpu").eval())
        for value in parts[-1].parameters():
            value.data.normal_(std=0.02)
    scheduler = CogVideoXDDIMScheduler(prediction_type="v_prediction", rescale_betas_zero_snr=True, timestep_spacing="trailing")
    pipeline = Mask2DiTPipeline(None, None, parts[1], parts[0], scheduler)
    arrange(pipeline, choice.mode, device)
    rows = torch.randn(3, 226, 4096, dtype=torch.bfloat16)
    torch.cuda.reset_peak_memory_stats()
    began = time.perf_counter()
    latents = pipeline(prompt_embeds=rows, guidance_scale=1, num_inference_steps=1, output_type="latent").scenes
    torch.cuda.synchronize()
    step, stepped = time.perf_counter() - began, torch.cuda.max_memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    pipeline.decode_scene(latents[0])
    return {
        "gpu": torch.cuda.get_device_name(),
        "limit": size,
        "mode": choice.mode.sentence,
        "counted": dict(choice.stages),
        "measured": {"denoising": stepped, "decoding": torch.cuda.max_memory_allocated()},
        "seconds_of_one_branch": step,
    }


def show(result: dict[str, Any]) -> None:
    """Tables for the terminal."""
    about = result["machine"]
    print(
        f"{about['cpu']}, {about['cores']} cores, {about['threads']} threads, torch {about['torch']}; medians of {result['rounds']} rounds"
    )
    size = result["size"]
    print(
        f"\nreduced width ({', '.join(f'{name} {count / 1e6:.0f} M' for name, count in result['parameters'].items())}), float32, ", end=""
    )
    print(f"{size['frames']} frames of {size['height']} × {size['width']}; MiB above Python and its libraries, measured (counted)")
    stages = {"loading, encoding": "encoding", "denoising": "denoising", "decoding": "decoding"}
    print(f"  {'mode, 3 scenes':<28}" + "".join(f"{stage:>20}" for stage in stages))
    for name, row in result["modes"].items():
        row = row | {"encoding": max(row["loading"], row["encoding"])}
        cells = "".join(f"{row[stage] / 2**20:>11.0f} ({row[f'counted_{stage}'] / 2**20:>6.0f})" for stage in stages.values())
        print(f"  {name:<28}{cells}")
    print("  (weights that are loaded as they are stored are mapped from their files: resident, and dropped when memory is short)")
    print(f"\n  {'scenes, plain':<28}{'denoising':>20}   5B counted, GiB: all at once; blocks from main memory, tiles")
    for count, row in result["scenes"].items():
        large = {key: value / GIB for key, value in result["growth_5b"][count].items()}
        denoising = f"{row['denoising'] / 2**20:>11.0f} ({row['counted_denoising'] / 2**20:>6.0f})"
        print(f"  {count:<28}{denoising}", end="")
        print(f"   {large['at_once']:.1f}; denoising {large['denoising_by_blocks']:.1f}, decoding {large['decoding_in_tiles']:.1f}")
    ratio = result["decode"][12]["peak"] / result["decode"][1]["peak"]
    print(f"\n  VAE decode peak, 12 scenes over 1: {ratio:.2f}   target ≤ {VAE_TARGET}: {'met' if ratio <= VAE_TARGET else 'missed'}")
    gone = result["modes"]["plain"]["denoising"] - result["modes"]["text first"]["denoising"]
    print(
        f"  text encoder gone before the first step: {gone / 2**20:.0f} MiB less of {result['parameters']['text_encoder'] * 4 / 2**20:.0f}"
    )
    if "block" in result:
        row = result["block"]
        print(
            f"\n  one block of 5B's width, float32, {row['scenes']} × {row['frames']} frames of 480 × 720, {row['tokens']:,} tokens: ",
            end="",
        )
        print(f"{row['measured'] / GIB:.2f} GiB measured, {row['counted'] / GIB:.2f} counted, ratio {row['measured'] / row['counted']:.2f}")


if __name__ == "__main__":
    main()
