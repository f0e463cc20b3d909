"""Attention alone, in every form, by the number of scenes."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from mask2dit.benchmarking.forms import UNMASKED, extra_bytes, forget_mask, make_processor, num_pairs
from mask2dit.benchmarking.measuring import AGAIN, Call, Measured, Progress, fastest, left_out, measure, noise_of
from mask2dit.benchmarking.settings import PLAN, ROOM, Settings, free_bytes
from mask2dit.memory import gib
from mask2dit.plans import AttentionPattern, get_plan

FORWARD, BOTH = "forward", "forward and backward"
BACKWARD_FLOP = 2.5  # of forward: five products of its size, where forward has two


@dataclass(frozen=True, slots=True)
class AttentionCase:
    """All forms on the tokens of so many scenes. `flop`: of the pairs that meet; `unmasked_flop`: of all pairs."""

    scenes: int
    direction: str
    tokens: int
    flop: float
    unmasked_flop: float
    key_value_bytes: int
    forms: dict[str, Measured] = field(default_factory=dict)
    problem: str | None = None
    again: Measured = field(default_factory=Measured)
    """The unmasked softmax once more, in the same rounds: what is between the two is noise."""

    def floor_of(self, form: str) -> str | None:
        """The unmasked softmax by the same kernel; of "merged", which has one of its own, the fastest."""
        if form == "merged":
            return fastest({name: each for name, each in self.forms.items() if name.startswith(UNMASKED)})
        own = f"{UNMASKED} by {form}"
        return own if own in self.forms else UNMASKED

    @property
    def noise(self) -> float | None:
        """How far two measurements of the same are from each other: 1.05 is 5 per cent."""
        return noise_of(self.again, self.forms.get(UNMASKED))

    def over_unmasked(self, form: str) -> float | None:
        """A form's time over that of the unmasked softmax by the same kernel, over the ratio of their arithmetic: 1 is its speed."""
        floor = self.floor_of(form)
        if form.startswith(UNMASKED) or form not in self.forms or floor not in self.forms:
            return None
        ratio = self.forms[form].over(self.forms[floor])
        return None if ratio is None else ratio * self.unmasked_flop / self.flop

    def share_of_matmul(self, form: str, rate: float) -> float | None:
        """The speed that a form reaches, as a share of that of a matrix product."""
        taken, flop = self.forms[form].median, self.unmasked_flop if form.startswith(UNMASKED) else self.flop
        return None if taken is None else flop / rate / taken


def measure_attention(settings: Settings, rate: float, progress: Progress, found: list[AttentionCase]) -> None:
    """Append a case for every direction and number of scenes; rate: FLOP per second that is expected at first."""
    for direction in (FORWARD, BOTH) if settings.backward else (FORWARD,):
        left, speed = settings.seconds[0], rate
        for scenes in settings.scene_counts:
            case, pattern = _case(settings, scenes, direction)
            taking = case.unmasked_flop / speed * len(settings.forms) * (settings.rounds + 2)
            if taking > left:
                found.append(replace(case, problem=left_out(taking, settings.seconds[0])))
                continue
            case = _measured_case(settings, case, pattern, progress)
            found.append(case)
            medians = [each.median for each in case.forms.values() if each.median]
            if medians:
                speed = case.unmasked_flop * len(medians) / sum(medians)
                left -= sum(medians) * (settings.rounds + 2)


def _case(settings: Settings, scenes: int, direction: str) -> tuple[AttentionCase, AttentionPattern]:
    pattern = get_plan(PLAN).pattern(settings.attention_layout(scenes))
    token = settings.attention_heads * settings.model_config["attention_head_dim"]
    per_pair = 4 * token * (1 if direction == FORWARD else 1 + BACKWARD_FLOP)
    tokens = pattern.num_queries
    size = 2 * tokens * token * settings.dtype.itemsize
    return AttentionCase(scenes, direction, tokens, num_pairs(pattern) * per_pair, tokens**2 * per_pair, size), pattern


def _measured_case(settings: Settings, case: AttentionCase, pattern: AttentionPattern, progress: Progress) -> AttentionCase:
    """The case with its forms."""
    heads, width = settings.attention_heads, settings.model_config["attention_head_dim"]
    generator = torch.Generator().manual_seed(0)
    sizes = (1, case.tokens, heads, width)
    query, key, value, wish = (torch.randn(sizes, generator=generator).to(settings.device, settings.dtype) for _ in range(4))
    calls: dict[str, Call] = {}
    for form in settings.forms:
        needed = extra_bytes(form, pattern, heads * width * settings.dtype.itemsize, settings.dtype.itemsize)
        free = free_bytes(settings.device)
        if needed > ROOM * free:
            case.forms[form] = Measured(problem=f"out of memory: takes about {gib(needed, up=True)}, {gib(free)} is free")
        else:
            calls[form] = _call(form, (query, key, value), pattern, wish if case.direction == BOTH else None)
    if UNMASKED in calls:
        calls[AGAIN] = calls[UNMASKED]
    progress.start(f"attention, {case.scenes} scene{'s' * (case.scenes > 1)}, {case.direction}", len(calls) * (settings.rounds + 1))
    made = measure(calls, settings.rounds, settings.device, progress, (key, value), uncounted=("flex",))
    progress.done()
    forget_mask()
    again = made.pop(AGAIN, Measured())
    return replace(case, forms={form: made.get(form) or case.forms[form] for form in settings.forms}, again=again)


def _call(form: str, states: Sequence[Tensor], pattern: AttentionPattern, wish: Tensor | None) -> Callable[[], object]:
    """One softmax, with its gradients where there is a wish."""
    processor = make_processor(form)
    query, key, value = states
    if wish is None:

        def forward() -> Tensor:
            with torch.no_grad():
                return processor.attend(query, key, value, pattern)

        return forward
    leaves = [each.detach().requires_grad_() for each in states]

    def both() -> object:
        return torch.autograd.grad(processor.attend(leaves[0], leaves[1], leaves[2], pattern), leaves, wish)

    return both
