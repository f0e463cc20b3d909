"""What a benchmark has found so far: run, kept as JSON, and set beside the goals."""

import datetime
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from mask2dit.benchmarking.attention_cases import BOTH, FORWARD, AttentionCase, measure_attention
from mask2dit.benchmarking.exactness import Error, measure_errors
from mask2dit.benchmarking.forms import BOOLEAN_MASK, NFOLD_COPY, UNMASKED
from mask2dit.benchmarking.machine import Machine, describe_machine, matmul_rate
from mask2dit.benchmarking.measuring import Measured, Progress, fastest
from mask2dit.benchmarking.networks import CACHED, COMPILED
from mask2dit.benchmarking.settings import ROUNDS, Settings
from mask2dit.benchmarking.steps import Steps, measure_steps
from mask2dit.compiling import allow_kernels
from mask2dit.files import written_aside

GUIDED = "with guidance"
STEPS, BRANCHES = (50, 25), {GUIDED: 2, "without guidance": 1}
HALF = "if half of the steps are from the cache"
FLASH_3 = "_flash_3"


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
    date: str = field(default_factory=lambda: datetime.date.today().isoformat())

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
        self._take_rate(matmul_rate(settings.device, settings.dtype, width, settings.rounds))
        self.is_whole = True

    def _take_rate(self, later: float) -> None:
        """Processors are not always equally fast: what they were at their best, before or after all else."""
        assert self.machine is not None
        best = max(later, self.machine.matmul_flop_per_second)
        self.machine = replace(self.machine, matmul_flop_per_second=best)
        for steps in self.steps:
            steps.rate = best

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
            "date": self.date,
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
            "goals": [asdict(goal) | {"holds": goal.holds} for goal in goals(self)],
            "errors": [asdict(each) for each in self.errors],
            "attention": [_attention_json(case, rate) for case in self.attention],
            "steps": [_steps_json(each) for each in self.steps],
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
    return asdict(case) | {"forms": forms, "noise": case.noise}


def _steps_json(steps: Steps) -> dict[str, Any]:
    def case_json(case: Any) -> dict[str, Any]:
        whole = {name: steps.seconds(case, name) for name in case.variants}
        return {
            "scenes": case.scenes,
            "tokens": case.tokens,
            "flop": case.flop,
            "variants": {
                name: _measured_json(found) | {"whole_step_seconds": whole[name], "share_of_matmul": steps.share_of_matmul(case, name)}
                for name, found in case.variants.items()
            },
            "outside": case.outside and _measured_json(case.outside),
            "over_one_scene_and_flop": steps.growth(case) if case in steps.scaling else None,
            "shares": case.times and case.times.shares,
            "seconds": case.times and asdict(case.times),
            "floor_seconds": asdict(steps.floor(case)),
            "noise": steps.noise(case),
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
    """A ratio to hold, and what it is here, None where it was not measured; `place`: where the worst was."""

    name: str
    value: float | None
    goal: float
    is_most: bool = True
    place: str = ""

    missing: tuple[int, ...] = ()
    """Numbers of scenes for which there was no time, or no memory."""

    is_timed: bool = True
    has_few_rounds: bool = False
    """It says nothing: a ratio of times needs ROUNDS of them."""

    @property
    def holds(self) -> bool | None:
        """Whether it is reached; None where it is as far as it was measured, and that is not all."""
        if self.value is None or self.has_few_rounds:
            return None
        is_reached = self.value <= self.goal if self.is_most else self.value >= self.goal
        return None if is_reached and self.missing else is_reached


def goals(results: Results) -> list[Goal]:
    """All that this device and this size have; of steps and films, those of a GPU alone."""
    settings = results.settings
    found = [_error_goal(results, "float32", 5e-6), _error_goal(results, "bfloat16", 1.3)]
    cases = {way: [case for case in results.attention if case.direction == way] for way in (FORWARD, BOTH)}
    for way in (FORWARD, BOTH) if settings.backward else (FORWARD,):
        grouped = {case.scenes: case.over_unmasked("grouped") for case in cases[way]}
        merged = {case.scenes: _ratio(case.forms, "merged", "grouped") for case in cases[way]}
        found.append(_worst(settings, f"grouped over unmasked, over their FLOP, {way}", 1.2, grouped))
        found.append(_worst(settings, f"merged over grouped, {way}", 1.2, merged))
    merged_cases = {case.scenes: (case.forms["merged"], case.key_value_bytes) for case in cases[FORWARD] if "merged" in case.forms}
    calls = {scenes: each.calls for scenes, (each, _) in merged_cases.items()}
    copied = {scenes: None if each.copied_bytes is None else each.copied_bytes / size for scenes, (each, size) in merged_cases.items()}
    found.append(replace(_worst(settings, "attention calls of merged", 3, calls), is_timed=False))
    found.append(replace(_worst(settings, "K/V copied over K/V, merged", 1.2, copied), is_timed=False))
    small, large = (merged_cases[scenes][0].peak_bytes if scenes in merged_cases else None for scenes in (6, 12))
    found.append(Goal("peak memory of merged, 6 → 12 scenes", large / small if small and large else None, 2.2, is_timed=False))
    growth = {case.scenes: steps.growth(case) for steps in results.steps for case in steps.scaling}
    found.append(_worst(settings, "step(n)/step(1) over their FLOP", 1.35, growth, first=2))
    for steps in results.steps:
        found += _step_goals(results, steps)
    return [replace(goal, has_few_rounds=goal.is_timed and settings.rounds < ROUNDS) for goal in found]


def _error_goal(results: Results, dtype: str, goal: float) -> Goal:
    exact = dtype == "float32"
    name = "largest error, float32" if exact else "error over the boolean mask's, bfloat16"
    there = [each for each in results.errors if each.dtype == dtype and each.largest is not None]
    numbers = [((each.largest if exact else each.over_mask) or 0.0, each) for each in there]
    if not numbers:
        return Goal(name, None, goal, is_timed=False)
    value, each = max(numbers, key=lambda pair: pair[0])
    return Goal(name, value, goal, place=f"{each.backend}, {each.scenes} {'equal' if each.even else 'unequal'} scenes", is_timed=False)


def _worst(settings: Settings, name: str, goal: float, numbers: Mapping[int, float | None], first: int = 1) -> Goal:
    """The largest of the numbers for `first` and more scenes, and for which of those there is none."""
    wanted = [scenes for scenes in settings.scene_counts if scenes >= first]
    there = [(value, scenes) for scenes in wanted if (value := numbers.get(scenes)) is not None]
    if not there:
        return Goal(name, None, goal)
    value, worst = max(there)
    missing = tuple(scenes for scenes in wanted if numbers.get(scenes) is None)
    return Goal(name, value, goal, place=f"{worst} scene{'s' * (worst > 1)}", missing=missing)


def _ratio(found: dict[str, Measured], mine: str | None, other: str | None) -> float | None:
    return found[mine].over(found[other]) if mine in found and other in found else None


def _step_goals(results: Results, steps: Steps) -> Iterator[Goal]:
    """Of a whole step on a GPU, where the forms to compare with are part of it."""
    if steps.comparison is None or results.settings.device.type != "cuda":
        return
    found, backends = steps.comparison.variants, results.settings.backends
    stock = {name: each for name, each in found.items() if name in backends and name != FLASH_3}
    floor = fastest({name: each for name, each in found.items() if name in results.settings.floors and not name.endswith(FLASH_3)})
    best = fastest(stock) or steps.main  # neither it nor the floor is compiled
    yield Goal(f"speed of a step, {best} over {floor or UNMASKED}", _ratio(found, floor, best), 0.9, False)
    yield Goal(f"speed of a step, {best} over boolean mask", _ratio(found, BOOLEAN_MASK, best), 3.0, False)
    mine, copies = (found[name].peak_bytes if name in found else None for name in (best, NFOLD_COPY))
    yield Goal(f"peak of a step, {best} over n-fold copy", mine / copies if mine and copies else None, 0.5, is_timed=False)
    if results.settings.size.name != "5b":
        return
    films = {variant: taken for variant, count, how, taken in results.films() if (count, how) == (STEPS[0], GUIDED)}
    words = f"seconds of a film of {STEPS[0]} steps {GUIDED}"
    compiled = f"{steps.main}, {COMPILED}"
    quickest = fastest(stock | {name: found[name] for name in (compiled,) if name in found}) or steps.main
    yield Goal(f"{words}, {quickest}", films.get(quickest), 480.0)
    if FLASH_3 in backends:
        yield Goal(f"{words}, {FLASH_3}", films.get(FLASH_3), 400.0)
    yield Goal(f"{words}, {steps.main}, {HALF}", films.get(f"{steps.main}, {HALF}"), 240.0)
