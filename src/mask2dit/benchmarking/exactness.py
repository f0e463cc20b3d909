"""How far each backend is from the dense softmax in float64, for scenes of one length and of several."""

from dataclasses import dataclass

import torch
from torch import Tensor

from mask2dit.attention_backends import BACKENDS, choose_attention
from mask2dit.benchmarking.forms import BOOLEAN_MASK, boolean_mask, make_processor
from mask2dit.benchmarking.measuring import describe
from mask2dit.benchmarking.settings import PLAN
from mask2dit.errors import InputError
from mask2dit.plans import AttentionPattern, get_plan
from mask2dit.scene_layout import SceneLayout

TEXT, VIDEO = (20, 30, 10, 25), (90, 60, 150, 75)  # tokens of scenes of several lengths
HEADS, HEAD_DIM = 2, 64
FLEX_SCENES = 3  # each number is compiled for


@dataclass(frozen=True, slots=True)
class Error:
    """Of one backend on one layout. `largest`: of all numbers; `over_mask`: root mean square over that of the boolean mask."""

    backend: str
    dtype: str
    scenes: int
    even: bool
    largest: float | None
    over_mask: float | None
    problem: str | None = None


def measure_errors(device: torch.device, backends: tuple[str, ...]) -> list[Error]:
    """In float32 and bfloat16, for 1 to 4 scenes; inputs are those that the number format can hold."""
    found = []
    for dtype in (torch.float32, torch.bfloat16):
        for scenes in range(1, len(TEXT) + 1):
            for even in (True, False):
                layout = SceneLayout(TEXT[:1] * scenes, VIDEO[:1] * scenes) if even else SceneLayout(TEXT[:scenes], VIDEO[:scenes])
                pattern = get_plan(PLAN).pattern(layout)
                inputs = _inputs(pattern, device, dtype)
                exact = _dense(inputs, pattern)
                masked = _errors(BOOLEAN_MASK, inputs, pattern, exact)[1]
                for backend in backends:
                    if backend == "flex" and scenes != FLEX_SCENES:
                        continue
                    name = str(dtype).removeprefix("torch.")
                    try:
                        if backend in BACKENDS:
                            choose_attention(backend, device, dtype, HEAD_DIM)
                        largest, typical = _errors(backend, inputs, pattern, exact)
                    except InputError as error:
                        found.append(Error(backend, name, scenes, even, None, None, str(error).removeprefix("attention: ")))
                    except Exception as error:  # a kernel says in its own way what it does not take
                        found.append(Error(backend, name, scenes, even, None, None, describe(error)))
                    else:
                        found.append(Error(backend, name, scenes, even, largest, typical / masked))
    return found


def _inputs(pattern: AttentionPattern, device: torch.device, dtype: torch.dtype) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    sizes = (1, pattern.num_queries, HEADS, HEAD_DIM)
    return [torch.randn(sizes, generator=generator).to(device, dtype) for _ in range(3)]


def _dense(inputs: list[Tensor], pattern: AttentionPattern) -> Tensor:
    """The definition, in float64 on the CPU."""
    query, key, value = (each.cpu().double().transpose(1, 2) for each in inputs)
    scores = query @ key.transpose(2, 3) * HEAD_DIM**-0.5
    weights = scores.masked_fill(~boolean_mask(pattern, torch.device("cpu")), -torch.inf).softmax(dim=-1)
    exact: Tensor = (weights @ value).transpose(1, 2)
    return exact


@torch.no_grad()
def _errors(form: str, inputs: list[Tensor], pattern: AttentionPattern, exact: Tensor) -> tuple[float, float]:
    """The largest, and the root mean square."""
    query, key, value = inputs
    off = make_processor(form).attend(query, key, value, pattern).cpu().double() - exact
    return off.abs().max().item(), off.square().mean().sqrt().item()
