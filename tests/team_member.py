"""One of several processes: `torchrun tests/team_member.py WHAT FOLDER`. What it made, or the message it ended with, is put into FOLDER."""

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import torch
import torch.distributed as dist
from diffusers import ContextParallelConfig
from safetensors.torch import save_file

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
    return {"forward": forward(model)}


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


def different(rank: int) -> None:
    made = pipeline()
    made.join_team(Team.form())
    film(made, CAPTIONS if rank == 0 else [*CAPTIONS[:2], "a green bear sleeps"])


def heads() -> None:
    made = pipeline()
    made.register_modules(transformer=tiny.transformer(num_attention_heads=3))
    made.join_team(Team.form(guided=False))


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
    tensors |= through_diffusers() | led(rank) | with_offload()
    save_file({name: each.contiguous() for name, each in tensors.items()}, folder / f"{rank}.safetensors")
    lines = [message(lambda: different(rank)), message(heads)]
    (folder / f"{rank}.txt").write_text("\n".join(lines), encoding="utf-8")


if __name__ == "__main__":
    main()
