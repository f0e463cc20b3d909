"""One step of a whole transformer with random weights: by backend, by number of scenes, and what its time goes into.

Where not all blocks fit into memory or into the time, fewer are measured; a whole step is then what is outside of the blocks, plus one
block times the number that the model has.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from mask2dit.benchmarking.forms import BOOLEAN_MASK, COMPARED, NFOLD_COPY, UNMASKED, extra_bytes, forget_mask
from mask2dit.benchmarking.measuring import AGAIN, Call, Measured, Progress, describe, left_out, measure, median_seconds, noise_of
from mask2dit.benchmarking.networks import (
    CACHED,
    COMPILED,
    FUSED,
    choose_blocks,
    random_network,
    step_bytes,
    step_call,
    step_flop,
    step_footprint,
    variant_of,
    without_blocks,
)
from mask2dit.benchmarking.profiling import Times, profiled
from mask2dit.benchmarking.settings import PLAN, ROOM, Settings, free_bytes
from mask2dit.memory import gib
from mask2dit.plans import get_plan

OUTSIDE = "outside of the blocks"
SHORT = 0.5  # seconds of a step


@dataclass(slots=True)
class StepCase:
    """Steps of so many scenes, as measured, with `measured_blocks` blocks; `flop`: of a whole step."""

    scenes: int
    tokens: int
    flop: int
    variants: dict[str, Measured] = field(default_factory=dict)
    outside: Measured | None = None
    """What is outside of the blocks; None where all blocks are measured."""
    times: Times | None = None
    """What a whole step of the main variant goes into."""
    again: Measured = field(default_factory=Measured)
    """The main variant once more, in the same rounds: what is between the two is noise."""
    attention_flop: int = 0
    linear_flop: int = 0


@dataclass(slots=True)
class Steps:
    """`measured_blocks` of `blocks` blocks. `main`: the variant that a film would take."""

    main: str
    blocks: int
    measured_blocks: int
    comparison: StepCase | None = None
    """All variants, in the same rounds."""
    scaling: list[StepCase] = field(default_factory=list)
    """The main variant by number of scenes, all in the same rounds."""
    rate: float = 0.0
    """FLOP per second of the machine's matrix products; 0 where it is not known."""

    def seconds(self, case: StepCase, variant: str) -> float | None:
        """Of a whole step, scaled up to all blocks."""
        found = case.variants.get(variant)
        if found is None or found.median is None:
            return None
        if CACHED in variant:  # computes the first block alone, however many there are
            return found.median
        outside = (case.outside and case.outside.median) or 0.0
        return outside + (found.median - outside) * self.blocks / self.measured_blocks

    def share_of_matmul(self, case: StepCase, variant: str) -> float | None:
        """The speed of a whole step as a share of that of a matrix product; None where less, or more, is computed."""
        taken = self.seconds(case, variant)
        is_other = CACHED in variant or variant.startswith(UNMASKED)
        return None if taken is None or is_other or not self.rate else case.flop / self.rate / taken

    def floor(self, case: StepCase) -> Times:
        """The least that arithmetic of attention and of linear layers takes, at the speed of the machine's matrix products."""
        return Times(case.attention_flop / self.rate, case.linear_flop / self.rate) if self.rate else Times()

    def noise(self, case: StepCase) -> float | None:
        """How far two measurements of the main variant are from each other: 1.05 is 5 per cent."""
        return noise_of(case.again, case.variants.get(self.main))

    def growth(self, case: StepCase) -> float | None:
        """step(n)/step(1) over the ratio of their arithmetic; None for one scene."""
        if case.scenes == 1:
            return None
        first = next((each for each in self.scaling if each.scenes == 1), None)
        mine, one = self.seconds(case, self.main), first and self.seconds(first, self.main)
        return mine / one / (case.flop / first.flop) if first and mine and one else None


def measure_steps(settings: Settings, rate: float, progress: Progress, found: list[Steps]) -> None:
    """Append what is measured, and fill it: first the variants side by side, then the numbers of scenes. rate: FLOP per second."""
    blocks = choose_blocks(settings, rate, ROOM * free_bytes(settings.device))
    steps = Steps(settings.backend, settings.model_config["num_layers"], blocks, rate=rate)
    found.append(steps)
    network = random_network(settings, blocks)
    _compare(settings, steps, network, progress)
    _scale(settings, steps, network, progress)


def _compare(settings: Settings, steps: Steps, network: Any, progress: Progress) -> None:
    """All variants that the time is enough for, of the number of scenes that was asked for."""
    case = _case(settings, settings.scenes)
    main = variant_of(network, settings, steps.main)
    calls: dict[str, Call] = {steps.main: step_call(settings, main, settings.scenes)}
    if steps.measured_blocks < steps.blocks:
        calls[OUTSIDE] = without_blocks(main, calls[steps.main])
    once = median_seconds(calls[steps.main], settings.device, 1)
    if once < SHORT:  # whatever came between would decide what is left out
        once = median_seconds(calls[steps.main], settings.device, 5)
    for name in _variant_names(settings)[1:]:
        problem = _problem_of(settings, name, len(calls), once)
        if problem is None:
            try:
                calls[name] = step_call(settings, variant_of(network, settings, name), settings.scenes)
                continue
            except Exception as error:  # a compiler that is not there, or memory
                problem = describe(error)
        case.variants[name] = Measured(problem=problem)
    calls[AGAIN] = calls[steps.main]  # last in every round, far from the first
    made = _measured(settings, calls, progress, f"a step, {settings.scenes} scene{'s' * (settings.scenes > 1)}")
    forget_mask()
    case.outside, case.again = made.pop(OUTSIDE, None), made.pop(AGAIN)
    problems = dict(case.variants)
    case.variants = {name: made.get(name) or problems[name] for name in _variant_names(settings)}
    steps.comparison = case


def _variant_names(settings: Settings) -> tuple[str, ...]:
    """From the most to the least wanted: those that the goals ask for are before other kernels."""
    main = settings.backend
    others = [name for name in settings.backends if name != main]
    compiled = [f"{main}, {COMPILED}"] if settings.compiled else []
    compared = (*settings.floors, BOOLEAN_MASK, NFOLD_COPY)
    return (main, *compiled, f"{main}, {CACHED}", *compared, *others, f"{main}, {FUSED}")


def _problem_of(settings: Settings, name: str, others: int, once: float) -> str | None:
    """Why a variant is left out."""
    taking = once * (settings.rounds + 1)
    if taking * (others + 1) > settings.seconds[1]:
        return left_out(taking, settings.seconds[1])
    config = settings.model_config
    token = config["num_attention_heads"] * config["attention_head_dim"] * settings.dtype.itemsize
    pattern = get_plan(PLAN).pattern(settings.shape(settings.scenes).layout(config["max_text_seq_length"]))
    needed, free = extra_bytes(name, pattern, token, settings.dtype.itemsize), free_bytes(settings.device)
    if name in COMPARED and needed > ROOM * free:
        return f"out of memory: takes about {gib(needed, up=True)}, {gib(free)} is free"
    return None


def _scale(settings: Settings, steps: Steps, network: Any, progress: Progress) -> None:
    """The main variant with every number of scenes that there is time and memory for."""
    model, is_part = variant_of(network, settings, steps.main), steps.measured_blocks < steps.blocks
    speed = _speed(steps)
    cases, calls, left = [], {}, settings.seconds[2]
    for scenes in settings.scene_counts:
        case = _case(settings, scenes)
        cases.append(case)
        taking = step_flop(settings, scenes, steps.measured_blocks) / speed * (settings.rounds + 1)
        needed, free = step_bytes(settings, scenes, 1), free_bytes(settings.device)
        if taking > left:
            case.variants[steps.main] = Measured(problem=left_out(taking, settings.seconds[2]))
        elif settings.device.type != "cuda" and needed > ROOM * free:  # a CUDA device says so itself
            case.variants[steps.main] = Measured(problem=f"out of memory: takes about {gib(needed, up=True)}, {gib(free)} is free")
        else:
            left -= taking
            calls[str(scenes)] = step_call(settings, model, scenes)
    bare = {f"{scenes}, {OUTSIDE}": without_blocks(model, call) for scenes, call in calls.items() if is_part}
    made = _measured(settings, calls | bare, progress, "a step by number of scenes")
    for case in cases:
        name = str(case.scenes)
        if name in made:
            case.variants[steps.main], case.outside = made[name], made.get(f"{name}, {OUTSIDE}")
            if made[name].seconds:
                rounds = settings.rounds if (made[name].median or 0.0) < SHORT else 1
                outside = profiled(bare[f"{name}, {OUTSIDE}"], settings.device, rounds) if is_part else Times()
                found = profiled(calls[name], settings.device, rounds).scaled(outside, steps.blocks / steps.measured_blocks)
                case.times = found.within(steps.seconds(case, steps.main) or 0.0)
        steps.scaling.append(case)


def _speed(steps: Steps) -> float:
    """FLOP per second of the main variant."""
    assert steps.comparison is not None
    seconds = steps.seconds(steps.comparison, steps.main)
    return steps.comparison.flop / seconds if seconds else float("inf")


def _measured(settings: Settings, calls: Mapping[str, Call], progress: Progress, stage: str) -> dict[str, Measured]:
    progress.start(stage, len(calls) * (settings.rounds + 1))
    compiled = [name for name in calls if COMPILED in name or "flex" in (name, settings.backend)]
    made = measure(calls, settings.rounds, settings.device, progress, uncounted=compiled)
    progress.done()
    return made


def _case(settings: Settings, scenes: int) -> StepCase:
    layout = settings.shape(scenes).layout(settings.model_config["max_text_seq_length"])
    counted = step_footprint(settings, scenes)
    return StepCase(scenes, layout.num_tokens, counted.flop, attention_flop=counted.attention_flop, linear_flop=counted.linear_flop)
