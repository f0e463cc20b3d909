"""What a benchmark has found so far: run, kept as JSON, and set beside the goals."""

import datetime
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from mask2dit.benchmarking.attention_cases import AttentionCase, measure_attention
from mask2dit.benchmarking.exactness import Error, measure_errors
from mask2dit.benchmarking.forms import BOOLEAN_MASK, NFOLD_COPY, UNMASKED
from mask2dit.benchmarking.machine import Machine, describe_machine
from mask2dit.benchmarking.measuring import Measured, Progress
from mask2dit.benchmarking.networks import CACHED, COMPILED
from mask2dit.benchmarking.settings import Settings
from mask2dit.benchmarking.steps import Steps, measure_steps
from mask2dit.compiling import allow_kernels
from mask2dit.files import written_aside

STEPS, BRANCHES = (50, 25), {"with guidance": 2, "without guidance": 1}
HALF = "every other step from the cache"


@dataclass(slots=True)
class Results:
    """Parts are there once they are measured."""

    settings: Settings
    machine: Machine | None = None
    errors: list[Error] = field(default_factory=list)
    attention: list[AttentionCase] = field(default_factory=list)
    steps: list[Steps] = field(default_factory=list)
    """One, or none yet."""
    is_whole: bool = False

    def measure(self, progress: Progress) -> None:
        """Measure everything; what was measured stays when this is interrupted."""
        settings = self.settings
        width = settings.model_config["num_attention_heads"] * settings.model_config["attention_head_dim"]
        allow_kernels()  # flex compiles one for each number of scenes and direction
        self.machine = describe_machine(settings.device, settings.dtype, width, settings.rounds, progress)
        self.errors += measure_errors(settings.device, settings.backends)
        rate = self.machine.matmul_flop_per_second
        measure_attention(settings, rate, progress, self.attention)
        measure_steps(settings, rate, progress, self.steps)
        self.is_whole = True

    def films(self) -> Iterator[tuple[str, int, str, float]]:
        """Estimates: variant, steps, guidance, seconds of all predictions of a film; text and pictures are not in them."""
        for steps in self.steps:
            taken = {name: steps.seconds(steps.comparison, name) for name in steps.comparison.variants} if steps.comparison else {}
            cached = taken.pop(f"{steps.main}, {CACHED}", None)
            if cached and (whole := taken[steps.main]):
                taken[f"{steps.main}, {HALF}"] = (whole + cached) / 2
            for variant, seconds in taken.items():
                if seconds:
                    yield from ((variant, count, how, count * many * seconds) for count in STEPS for how, many in BRANCHES.items())

    def as_json(self) -> dict[str, Any]:
        """Everything, with the ratios that are shown."""
        settings, rate = self.settings, self.machine.matmul_flop_per_second if self.machine else None
        return {
            "date": datetime.date.today().isoformat(),
            "is_whole": self.is_whole,
            "machine": asdict(self.machine) if self.machine else None,
            "settings": {
                "size": settings.size.name,
                "scenes": settings.scenes,
                "frames, height, width": settings.video,
                "attention: frames, height, width": settings.attention_video,
                "attention heads": settings.attention_heads,
                "rounds": settings.rounds,
                "backends": settings.backends,
                "absent": dict(settings.absent),
            },
            "goals": [asdict(goal) for goal in goals(self)],
            "errors": [asdict(each) for each in self.errors],
            "attention": [_attention_json(case, rate) for case in self.attention],
            "steps": [_steps_json(each, rate) for each in self.steps],
            "film_estimates": [dict(zip(("variant", "steps", "guidance", "seconds"), each, strict=True)) for each in self.films()],
        }

    def write(self, path: Path) -> None:
        """Raises OutputError where it cannot be written."""
        with written_aside(path) as part:
            part.write_text(json.dumps(self.as_json(), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def _measured_json(found: Measured) -> dict[str, Any]:
    kept = {"median_seconds": found.median} | asdict(found)
    return {name: value for name, value in kept.items() if value is not None and value != ()}


def _attention_json(case: AttentionCase, rate: float | None) -> dict[str, Any]:
    forms = {
        form: _measured_json(found)
        | {"over_unmasked_and_flop": case.over_unmasked(form), "share_of_matmul": rate and case.share_of_matmul(form, rate)}
        for form, found in case.forms.items()
    }
    return asdict(case) | {"forms": forms}


def _steps_json(steps: Steps, rate: float | None) -> dict[str, Any]:
    def case_json(case: Any) -> dict[str, Any]:
        whole = {name: steps.seconds(case, name) for name in case.variants}
        return {
            "scenes": case.scenes,
            "tokens": case.tokens,
            "flop": case.flop,
            "variants": {
                name: _measured_json(found)
                | {"whole_step_seconds": whole[name], "share_of_matmul": rate and whole[name] and case.flop / rate / whole[name]}
                for name, found in case.variants.items()
            },
            "outside": case.outside and _measured_json(case.outside),
            "over_one_scene_and_flop": steps.growth(case) if case in steps.scaling else None,
            "shares": case.times and case.times.shares,
        }

    return {
        "main": steps.main,
        "blocks": steps.blocks,
        "measured_blocks": steps.measured_blocks,
        "comparison": steps.comparison and case_json(steps.comparison),
        "scaling": [case_json(case) for case in steps.scaling],
    }


@dataclass(frozen=True, slots=True)
class Goal:
    """A ratio to hold, and what it is here; `place`: where the worst was measured."""

    name: str
    value: float
    goal: float
    is_most: bool = True
    place: str = ""

    @property
    def holds(self) -> bool:
        """Whether it is reached."""
        return self.value <= self.goal if self.is_most else self.value >= self.goal


def goals(results: Results) -> list[Goal]:
    """Those of which something was measured."""
    found = [_error_goal(results, "float32", 5e-6), _error_goal(results, "bfloat16", 1.3)]
    for case_kind in dict.fromkeys(case.direction for case in results.attention):
        cases = [case for case in results.attention if case.direction == case_kind]
        grouped = ((case.over_unmasked("grouped"), case) for case in cases)
        merged = ((_ratio(case.forms, "merged", "grouped"), case) for case in cases)
        found.append(_worst(f"grouped over unmasked, over their FLOP, {case_kind}", 1.2, grouped))
        found.append(_worst(f"merged over grouped, {case_kind}", 1.2, merged))
    forward = [case for case in results.attention if "merged" in case.forms and case.direction == "forward"]
    found.append(_worst("attention calls of merged", 3, ((case.forms["merged"].calls, case) for case in forward)))
    copied = ((None if (each := case.forms["merged"].copied_bytes) is None else each / case.key_value_bytes, case) for case in forward)
    found.append(_worst("K/V copied over K/V, merged", 1.2, copied))
    peaks = {case.scenes: case.forms["merged"].peak_bytes for case in forward}
    if peaks.get(6) and peaks.get(12):
        found.append(Goal("peak memory of merged, 6 → 12 scenes", peaks[12] / peaks[6], 2.2))  # type: ignore[operator]
    for steps in results.steps:
        found.append(_worst("step(n)/step(1) over their FLOP", 1.35, ((steps.growth(case), case) for case in steps.scaling)))
        found += _step_goals(results, steps)
    return [goal for goal in found if goal]


def _error_goal(results: Results, dtype: str, goal: float) -> Goal | None:
    exact = dtype == "float32"
    numbers = [
        (each.largest if exact else each.over_mask, each) for each in results.errors if each.dtype == dtype and each.largest is not None
    ]
    if not numbers:
        return None
    value, each = max(numbers, key=lambda pair: pair[0] or 0.0)
    name = "largest error, float32" if exact else "error over the boolean mask's, bfloat16"
    return Goal(name, value or 0.0, goal, place=f"{each.backend}, {each.scenes} {'equal' if each.even else 'unequal'} scenes")


def _worst(name: str, goal: float, numbers: Any) -> Goal | None:
    there = [(value, case.scenes) for value, case in numbers if value is not None]
    if not there:
        return None
    value, scenes = max(there)
    return Goal(name, value, goal, place=f"{scenes} scene{'s' * (scenes > 1)}")


def _ratio(found: dict[str, Measured], mine: str, other: str) -> float | None:
    return found[mine].over(found[other]) if mine in found and other in found else None


def _step_goals(results: Results, steps: Steps) -> Iterator[Goal]:
    """Of a whole step on a GPU, where the forms to compare with are part of it."""
    if steps.comparison is None or results.settings.device.type != "cuda":
        return
    found = steps.comparison.variants
    ours = [*results.settings.backends, f"{steps.main}, {COMPILED}"]
    best = min((name for name in ours if name in found and found[name].median), key=lambda name: found[name].median or 0.0, default=None)
    if best is None:
        return
    speed, faster = _ratio(found, UNMASKED, best), _ratio(found, BOOLEAN_MASK, best)
    if speed:
        yield Goal(f"speed of a step, {best} over unmasked", speed, 0.9, False)
    if faster:
        yield Goal(f"speed of a step, {best} over boolean mask", faster, 3.0, False)
    mine, copies = found[best].peak_bytes, found[NFOLD_COPY].peak_bytes if NFOLD_COPY in found else None
    if mine and copies:
        yield Goal(f"peak of a step, {best} over n-fold copy", mine / copies, 0.5)
    seconds = steps.seconds(steps.comparison, best)
    if seconds and results.settings.size.name == "5b":
        yield Goal(f"seconds of a film of 50 steps with guidance, {best}", 100 * seconds, 480.0)
        for variant, count, how, taken in results.films():
            if HALF in variant and (count, how) == (50, "with guidance"):
                yield Goal(f"seconds of such a film, {variant}", taken, 240.0)
