"""What was measured, as tables for a terminal."""

from collections.abc import Iterator

from rich.table import Table

from mask2dit.amounts import duration
from mask2dit.benchmarking.attention_cases import AttentionCase
from mask2dit.benchmarking.exactness import Error
from mask2dit.benchmarking.results import Results, goals
from mask2dit.benchmarking.settings import ROUNDS
from mask2dit.benchmarking.steps import StepCase, Steps
from mask2dit.memory import gib

NONE = "–"
VERDICTS = {True: "holds", False: "[red]falls short[/red]", None: "not all measured"}
FEW_ROUNDS = f"less than {ROUNDS} rounds"
NOISY = 1.1  # between two measurements of the same
BUSY = 0.5  # processes that wanted a core, for each core


def report(results: Results) -> Iterator[Table | str]:
    """Lines and tables, of all that was measured."""
    yield from _machine(results)
    for direction in dict.fromkeys(case.direction for case in results.attention):
        yield _attention(results, [case for case in results.attention if case.direction == direction], direction)
    if results.errors:
        yield _errors(results.errors)
    for steps in results.steps:
        if steps.comparison:
            yield _variants(results, steps, steps.comparison)
        if steps.scaling:
            yield _scaling(steps)
    films = _films(results)
    if films.row_count:
        yield films
    found = goals(results)
    if found:
        table = _table("Against the goals", "ratio", "worst at", "measured", "goal", "", right=(2, 3))
        for goal in found:
            words, value = f"{'≤' if goal.is_most else '≥'} {goal.goal:g}", NONE if goal.value is None else f"{goal.value:.3g}"
            place = ", not at ".join(filter(None, (goal.place, " and ".join(map(str, goal.missing)))))
            verdict = FEW_ROUNDS if goal.has_few_rounds and goal.value is not None else VERDICTS[goal.holds]
            table.add_row(goal.name, place, value, words, verdict)
        yield table


def _machine(results: Results) -> Iterator[str]:
    machine, settings = results.machine, results.settings
    if machine is None:
        return
    where = f"{machine.name}, {machine.memory_gib:g} GiB"
    yield f"{where} · torch {machine.torch}, {machine.threads} of {machine.cores} cores · {machine.dtype}"
    rates = f"matrix products {_rate(machine.matmul_flop_per_second)}, copies {machine.copied_bytes_per_second / 1e9:.3g} GB/s"
    yield f"at its best here and now: {rates}"
    if machine.load is not None and machine.load > BUSY * machine.cores:
        yield f"[red]the machine was busy: {machine.load:g} processes wanted a core; close other programs and measure again[/red]"
    noise = max((each for each in _noise(results) if each is not None), default=None)
    if noise is not None:
        words = f"two measurements of the same differ by {noise - 1:.0%} at most"
        yield f"[red]{words}: ratios say no more than that[/red]" if noise > NOISY else words
    if machine.clock == "processor":
        yield "seconds are those of the processor: what other programs took of it is not in them, but caches and its pace are shared"
    for name, why in settings.absent.items():
        yield f"{name}: not measured ({why.partition(';')[0]})"


def _noise(results: Results) -> Iterator[float | None]:
    yield from (case.noise for case in results.attention)
    yield from (steps.noise(steps.comparison) for steps in results.steps if steps.comparison)


def _rate(flop_per_second: float) -> str:
    return f"{flop_per_second / 1e12:.3g} TFLOP/s" if flop_per_second >= 1e12 else f"{flop_per_second / 1e9:.3g} GFLOP/s"


def _attention(results: Results, cases: list[AttentionCase], direction: str) -> Table:
    settings = results.settings
    shape = settings.shape(1, settings.attention_video)
    scenes = f"scenes of {shape.num_frames[0]} frames at {shape.height} × {shape.width}"
    title = f"Attention, {direction}: {settings.attention_heads} heads, {scenes}"
    table = _table(title, "scenes", "form", "time", "÷ floor", "of matmul", "calls", "K/V copied", "memory", right=(0, *range(2, 8)))
    table.caption = "÷ floor: time over the unmasked softmax by the same kernel, over the ratio of their arithmetic"
    rate = results.machine.matmul_flop_per_second if results.machine else 0.0
    for case in cases:
        if case.problem:
            table.add_row(f"{case.scenes}", NONE, *[""] * 6)
            table.caption += f"\n{case.scenes} scenes: {case.problem}"
        for index, (form, found) in enumerate(case.forms.items()):
            if found.median is None:
                numbers = [NONE, *[""] * 5]
                table.caption += f"\n{case.scenes} scene{'s' * (case.scenes > 1)}, {form}: {found.problem}"
            else:
                ratio, share = case.over_unmasked(form), case.share_of_matmul(form, rate)
                copied = None if found.copied_bytes is None else f"{found.copied_bytes / case.key_value_bytes:.2f} ×"
                numbers = [
                    seconds(found.median),
                    NONE if ratio is None else f"{ratio:.2f}",
                    f"{share:.0%}" if share else NONE,
                    NONE if found.calls is None else f"{found.calls}",
                    copied or NONE,
                    NONE if found.peak_bytes is None else gib(found.peak_bytes),
                ]
            table.add_row(f"{case.scenes}" if index == 0 else "", form, *numbers)
        table.add_section()
    return table


def _errors(errors: list[Error]) -> Table:
    table = _table("Errors against float64, equal and unequal scenes", "backend", "numbers", "largest", "÷ boolean mask's", right=(2, 3))
    for key in dict.fromkeys((each.backend, each.dtype) for each in errors):
        own = [each for each in errors if (each.backend, each.dtype) == key]
        there = [each for each in own if each.largest is not None]
        if there:
            worst = max(each.largest or 0.0 for each in there), max(each.over_mask or 0.0 for each in there)
            table.add_row(*key, f"{worst[0]:.1e}", f"{worst[1]:.2f}")
        else:
            table.add_row(*key, own[0].problem or NONE, "")
    return table


def _variants(results: Results, steps: Steps, case: StepCase) -> Table:
    settings, main = results.settings, case.variants[steps.main]
    title = f"One step of {settings.size.name}, {settings.shape(case.scenes).words}: {case.tokens} tokens, {_part(steps)}"
    table = _table(title, "attention", "a step", f"÷ {steps.main}", "of matmul", "memory beside the weights", right=(1, 2, 3, 4))
    problems = []
    for name, found in case.variants.items():
        taken, ratio = steps.seconds(case, name), found.over(main)
        if taken is None:
            table.add_row(name, NONE, "", "", "")
            problems.append(f"{name}: {found.problem}")
            continue
        share = steps.share_of_matmul(case, name)
        peak = NONE if found.peak_bytes is None else gib(found.peak_bytes)
        table.add_row(name, seconds(taken), f"{ratio:.2f}" if ratio else NONE, f"{share:.0%}" if share else NONE, peak)
    table.caption = "\n".join(problems) or None
    return table


def _part(steps: Steps) -> str:
    if steps.measured_blocks == steps.blocks:
        return f"all {steps.blocks} blocks"
    return f"{steps.measured_blocks} of {steps.blocks} blocks measured and scaled up"


def _scaling(steps: Steps) -> Table:
    title = f"A step by number of scenes, {steps.main}; and what it would take at the speed of matrix products"
    table = _table(title, "scenes", "a step", "÷ 1 scene", "attention", "at least", "linear", "at least", "rest", right=range(8))
    table.caption = "÷ 1 scene: time over that of one scene, over the ratio of their arithmetic"
    for case in steps.scaling:
        taken, growth = steps.seconds(case, steps.main), steps.growth(case)
        if taken is None:
            table.add_row(f"{case.scenes}", NONE, *[""] * 6)
            table.caption += f"\n{case.scenes} scenes: {case.variants[steps.main].problem}"
            continue
        found, shares = case.times, case.times.shares if case.times else {}
        parts = [f"{seconds(getattr(found, kind))}, {share:.0%}" for kind, share in shares.items()] or [NONE] * 3
        least = (seconds(steps.floor(case).attention), seconds(steps.floor(case).linear))
        table.add_row(
            f"{case.scenes}", seconds(taken), f"{growth:.2f}" if growth else NONE, parts[0], least[0], parts[1], least[1], parts[2]
        )
    return table


def _films(results: Results) -> Table:
    settings = results.settings
    found = list(results.films())
    columns = list(dict.fromkeys((steps, how) for _, steps, how, _ in found))
    title = f"Estimates for a film, {settings.shape(settings.scenes).words}: steps alone, without text encoder and VAE"
    table = _table(title, "attention", *(f"{steps} steps {how}" for steps, how in columns), right=range(1, 1 + len(columns)))
    for variant in dict.fromkeys(each[0] for each in found):
        table.add_row(variant, *(duration(taken) for name, _, _, taken in found if name == variant))
    return table


def seconds(taken: float) -> str:
    """A short time for a person."""
    return f"{taken:.3g} s" if taken >= 1 else f"{taken * 1e3:.3g} ms"


def _table(title: str, *columns: str, right: tuple[int, ...] | range) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", caption_justify="left")
    for index, column in enumerate(columns):
        table.add_column(column, justify="right" if index in right else "left")
    return table
