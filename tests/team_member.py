"""One of several processes: `torchrun tests/team_member.py WHAT FOLDER`. What it made, or the message it ended with, is put into FOLDER."""

import os
import signal
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from diffusers import ContextParallelConfig, ParallelConfig
from safetensors.torch import save_file
from torch.distributed.device_mesh import init_device_mesh

import tiny
from mask2dit import Mask2DiTPipeline, Mask2DiTTransformer3DModel
from mask2dit.errors import Mask2DiTError
from mask2dit.team import Team, follow

CAPTIONS = ["a red fox walks", "the fox jumps", "a blue bear sleeps"]
FRAMES = (9, 1, 5)
HEADS = 4


def pipeline(plan: str = "symmetric", attention: str = "merged") -> Mask2DiTPipeline:
    made = tiny.pipeline()
    denoiser = tiny.transformer(num_attention_heads=HEADS, attention_head_dim=16, max_text_seq_length=64, attention_plan=plan)
    denoiser.set_attention(attention)
    made.register_modules(transformer=denoiser)
    return made


def film(made: Mask2DiTPipeline, captions: list[str] = CAPTIONS, **options: object) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.cat(made(captions, num_frames=FRAMES, generator=generator, output_type="latent", **options).scenes)


def known() -> dict[int, torch.Tensor]:
    generator = torch.Generator().manual_seed(7)
    return {0: torch.randn(3, 4, 4, 6, generator=generator), 1: torch.randn(1, 4, 4, 6, generator=generator)}


def forward(model: Mask2DiTTransformer3DModel) -> torch.Tensor:
    with torch.no_grad():
        return model(**tiny.inputs(model, (3, 5, 4), (2, 1, 3))).sample


def films(guided: bool) -> dict[str, torch.Tensor]:
    """Every process makes the same films."""
    results = {}
    for plan, attention in (("symmetric", "merged"), ("symmetric", "grouped"), ("full", "merged"), ("context-blind", "merged")):
        made = pipeline(plan, attention)
        made.join_team(Team.form(guided=guided))
        results[f"{plan} {attention}"] = film(made)
        results[f"{plan} {attention} known"] = film(made, known_scenes=known())
    results["unguided"] = film(made, guidance_scale=1.0)
    return results


def through_diffusers() -> dict[str, torch.Tensor]:
    model = tiny.transformer(num_attention_heads=HEADS)
    model.enable_parallelism(config=ContextParallelConfig(ulysses_degree=dist.get_world_size()))
    on_a_mesh = tiny.transformer(num_attention_heads=HEADS)  # of every other process, with four
    mesh = init_device_mesh("cpu", (2, 1, dist.get_world_size() // 2), mesh_dim_names=("ulysses", "ring", "data"))
    on_a_mesh.enable_parallelism(config=ParallelConfig(context_parallel_config=ContextParallelConfig(ulysses_degree=2, mesh=mesh)))
    return {"forward": forward(model), "forward on a mesh": forward(on_a_mesh)}


def led(rank: int) -> dict[str, torch.Tensor]:
    """The first process makes two films, the others know nothing of them."""
    made = pipeline()
    team = Team.form(led=True)
    made.join_team(team)
    if rank:
        follow(made.transformer, team)
        return {}
    results = {"first": film(made), "second": film(made, known_scenes=known(), num_inference_steps=3)}
    team.send(("stop",))
    return results


def with_offload() -> dict[str, torch.Tensor]:
    """Blocks wait elsewhere while others compute."""
    made = pipeline()
    made.join_team(Team.form(guided=False))
    made.transformer.enable_group_offload(onload_device=torch.device("cpu"), offload_type="block_level", num_blocks_per_group=1)
    return {"offloaded": film(made)}


DIFFERENT: tuple[dict[str, Any], ...] = (
    {"captions": [*CAPTIONS[:2], "a green bear sleeps"]},
    {"guidance_scale": 2.0},
    {"num_inference_steps": 3},
    {"solver": "dpm++"},
    {"guidance_interval": (0.0, 0.5)},
)


def different(rank: int, options: dict[str, Any]) -> None:
    """All processes but the first one have other options."""
    made = pipeline()
    made.join_team(Team.form())
    film(made, **(options if rank else {}))


def drifting(rank: int) -> None:
    """The same noise at first, and then each process draws its own."""
    made = pipeline()
    made.join_team(Team.form())
    torch.manual_seed(rank)
    latents = torch.randn(1, 6, 4, 4, 6, generator=torch.Generator().manual_seed(0))
    made(CAPTIONS, num_frames=FRAMES, latents=latents, solver="sde-dpm++", output_type="latent")


def cached() -> dict[str, torch.Tensor]:
    """Guidance branches side by side with either cache; a shared sequence with the one whose steps are fixed."""
    results = {}
    side, shared = pipeline(), pipeline()
    side.join_team(Team.form())
    shared.join_team(Team.form(guided=False))
    if dist.get_world_size() == 2:
        results["first-block"] = film(side, num_inference_steps=10, step_cache="first-block:1e9")
    results["pyramid"] = film(shared, num_inference_steps=10, step_cache="pyramid:2")
    return results


def compiled() -> dict[str, torch.Tensor]:
    """A shared sequence, with compiled blocks."""
    made = pipeline()
    made.transformer.compile_repeated_blocks(fullgraph=True, backend="aot_eager")
    made.join_team(Team.form(guided=False))
    return {"compiled": film(made)}


def heads() -> None:
    made = pipeline()
    made.register_modules(transformer=tiny.transformer(num_attention_heads=3))
    made.join_team(Team.form(guided=False))


def wrong_mesh() -> None:
    mesh = init_device_mesh("cpu", (1, dist.get_world_size()), mesh_dim_names=("ulysses", "ring"))
    tiny.transformer().enable_parallelism(config=ContextParallelConfig(ulysses_degree=2, mesh=mesh))


def dies(rank: int) -> None:
    def die(_: object, step: int, *rest: object) -> dict[str, object]:
        if rank == 1 and step == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        return {}

    made = pipeline()
    made.join_team(Team.form())
    film(made, num_inference_steps=50, callback_on_step_end=die)


def message(call: Callable[[], object]) -> str:
    """How a call ends."""
    try:
        call()
    except Mask2DiTError as error:
        return f"{type(error).__name__}: {error}"
    return "no error"


def main() -> None:
    what, folder = sys.argv[1], Path(sys.argv[2])
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    rank = dist.get_rank()
    if what == "dies":
        (folder / f"{rank}.txt").write_text(message(lambda: dies(rank)), encoding="utf-8")
        return
    tensors = {f"side by side, {name}": each for name, each in films(guided=True).items()}
    tensors |= {f"sequence, {name}": each for name, each in films(guided=False).items()}
    tensors |= through_diffusers() | led(rank) | with_offload() | cached() | compiled()
    save_file({name: each.contiguous() for name, each in tensors.items()}, folder / f"{rank}.safetensors")
    lines = [message(partial(different, rank, options)) for options in DIFFERENT]
    lines += [message(lambda: drifting(rank)), message(heads), message(wrong_mesh)]
    (folder / f"{rank}.txt").write_text("\n".join(lines), encoding="utf-8")


if __name__ == "__main__":
    main()
