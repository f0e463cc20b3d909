"""Steps of a tiny transformer: their arithmetic by hand, all of their variants measured, and goals that only a GPU has."""

from dataclasses import replace
from typing import Any

import pytest
import torch

import tiny
from mask2dit.benchmarking import Results, check_output, check_room, choose_settings
from mask2dit.benchmarking.attention_cases import BOTH, FORWARD, AttentionCase, measure_attention
from mask2dit.benchmarking.exactness import Error
from mask2dit.benchmarking.forms import BOOLEAN_MASK, NFOLD_COPY, UNMASKED
from mask2dit.benchmarking.measuring import Measured
from mask2dit.benchmarking.networks import CACHED, COMPILED, FUSED, random_network, step_bytes, step_call, step_flop, variant_of
from mask2dit.benchmarking.profiling import Times
from mask2dit.benchmarking.results import HALF, goals
from mask2dit.benchmarking.settings import SECONDS, Settings, Size
from mask2dit.benchmarking.steps import StepCase, Steps, _problem_of, _variant_names, measure_steps
from mask2dit.errors import InputError
from mask2dit.video_shape import Compression

CPU = torch.device("cpu")
VIDEO = (5, 16, 24)  # 2 latent frames of 2 × 3 tokens
EVERY = {"grouped", "merged", f"merged, {FUSED}", f"merged, {CACHED}", UNMASKED, BOOLEAN_MASK, NFOLD_COPY}


class Silent:
    def start(self, stage: str, total: int) -> None: ...

    def step(self) -> None: ...

    def done(self) -> None: ...


@pytest.fixture(autouse=True)
def brief(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody reads the seconds, so nothing is repeated for them."""
    monkeypatch.setattr("mask2dit.benchmarking.measuring.LONG_ENOUGH", 1e-9)


def settings(**changes: Any) -> Settings:
    size = Size("tiny", tiny.TRANSFORMER_CONFIG, Compression(4, 4, 2), *[VIDEO] * 5)
    found = choose_settings(device=CPU, quick=True, rounds=1)
    return replace(found, **{"size": size, "video": VIDEO, "attention_video": VIDEO, "scenes": 2, "scene_counts": (1, 2)} | changes)


@pytest.mark.parametrize(("scenes", "blocks"), [(1, None), (3, 0), (3, None)])
def test_arithmetic_is_that_of_the_hand(scenes: int, blocks: int | None) -> None:
    """Two for each product of a matrix, four for each pair that meets, times the channels."""
    dim, time, caption, channels, patch, layers = 32, 24, 20, 4, 2, 3
    text, video = 16, 2 * 2 * 3  # tokens of a scene
    all_text, all_video, tokens = scenes * text, scenes * video, scenes * (text + video)
    outside = 2 * scenes * (dim * time + time * time)  # time embedding
    outside += 2 * all_text * caption * dim + 2 * all_video * channels * patch**2 * dim  # embedding of captions and patches
    outside += 2 * scenes * time * 2 * dim + 2 * all_video * dim * channels * patch**2  # last norm, output
    pairs = all_text * (text + video) + all_video * (text + all_video)
    block = 2 * (2 * scenes * time * 6 * dim)  # two norms
    block += 4 * (2 * tokens * dim * dim) + 2 * (2 * tokens * dim * 4 * dim)  # query, key, value and output; feed-forward
    block += 4 * pairs * dim
    assert step_flop(settings(), scenes, blocks) == outside + (layers if blocks is None else blocks) * block


def test_all_variants_but_the_compared_compute_the_same() -> None:
    found = settings()
    network = tiny.randomise(random_network(found, 3), 0)  # larger weights, which tell the forms apart
    made = {name: step_call(found, variant_of(network, found, name), 2)() for name in EVERY}
    for name in EVERY - {UNMASKED, f"merged, {CACHED}"}:
        torch.testing.assert_close(made[name], made["merged"], rtol=0, atol=1e-5)
    assert (made[UNMASKED] - made["merged"]).abs().max() > 1e-4


@pytest.mark.parametrize("blocks", [1, 3])
def test_a_step_from_the_cache_computes_the_first_block_alone(blocks: int) -> None:
    found = settings()
    network = random_network(found, blocks)
    twin = variant_of(network, found, f"merged, {CACHED}")
    assert {each.data_ptr() for each in twin.parameters()} == {each.data_ptr() for each in network.parameters()}
    seen: list[int] = []
    for index, block in enumerate(twin.transformer_blocks):
        block.ff.register_forward_hook(lambda *_, index=index: seen.append(index))
    call = step_call(found, twin, 2)
    call()
    first = list(range(max(blocks, 2)))  # of one block, a second is made to be skipped
    assert seen == first
    call()
    assert seen == [*first, 0]


def test_every_variant_and_number_of_scenes_is_measured_with_fewer_blocks() -> None:
    """With one block of three, the cache has a block to skip, too."""
    chosen = settings(step_seconds=1.0)
    rate = step_flop(chosen, 2, 1) + 1.0  # FLOP per second: a second is long enough for one block
    found: list[Steps] = []
    measure_steps(chosen, rate, Silent(), found)
    (steps,) = found
    case = steps.comparison
    assert case is not None and (steps.blocks, steps.measured_blocks) == (3, 1)
    assert case.variants.keys() == EVERY and [name for name, each in case.variants.items() if each.problem] == []
    outside, part = case.outside, case.variants["merged"].median
    assert outside is not None and outside.median is not None and part is not None and 0 < outside.median < part
    assert steps.seconds(case, "merged") == pytest.approx(outside.median + 3 * (part - outside.median))
    assert steps.seconds(case, f"merged, {CACHED}") == case.variants[f"merged, {CACHED}"].median
    assert [each.scenes for each in steps.scaling] == [1, 2] and steps.growth(steps.scaling[0]) is None
    for each in steps.scaling:
        assert each.outside and each.times and sum(each.times.shares.values()) == pytest.approx(1)
        assert each.times.attention + each.times.linear + each.times.rest == pytest.approx(steps.seconds(each, "merged"))
    assert case.flop == steps.scaling[1].flop == step_flop(chosen, 2)  # of a whole step


def test_what_there_is_no_time_for_is_told() -> None:
    found: list[Steps] = []
    measure_steps(settings(seconds=(0.0, 0.0, 0.0), scene_counts=(2,)), 1e12, Silent(), found)
    (steps,) = found
    assert steps.comparison is not None
    told = {name: each.problem for name, each in steps.comparison.variants.items() if each.problem}
    assert told.keys() == EVERY - {"merged"} and all(problem.startswith("left out: about ") for problem in told.values())
    assert all("left out" in (case.variants["merged"].problem or "") for case in steps.scaling)
    cases: list[AttentionCase] = []
    measure_attention(settings(seconds=(0.0, 0.0, 0.0)), 1e12, Silent(), cases)
    assert [case.scenes for case in cases] == [1, 2] and all((case.problem or "").startswith("left out: about ") for case in cases)


def test_attention_in_both_directions() -> None:
    cases: list[AttentionCase] = []
    measure_attention(settings(backward=True, scene_counts=(3,)), 1e12, Silent(), cases)
    forward, both = cases
    assert (forward.direction, both.direction) == (FORWARD, BOTH) and both.flop == 3.5 * forward.flop
    text, video = 16, 2 * 2 * 3
    pairs = 3 * text * (text + video) + 3 * video * (text + 3 * video)
    assert forward.flop == 4 * 32 * pairs and forward.unmasked_flop == 4 * 32 * (3 * (text + video)) ** 2
    for case in cases:
        assert {form: each.calls for form, each in case.forms.items()} == {
            UNMASKED: 1, "grouped": 6, "merged": 3, BOOLEAN_MASK: 1, NFOLD_COPY: 6
        }  # fmt: skip
        slowest = max(case.forms.values(), key=lambda each: each.median or 0.0)
        assert slowest.median and slowest.peak_bytes
        assert case.over_unmasked(UNMASKED) is None and case.noise is not None and case.noise >= 1


def test_growth_and_shares_are_of_whole_steps() -> None:
    def case(scenes: int, seconds: float, outside: float | None) -> StepCase:
        return StepCase(scenes, 10, scenes**2 * 100, {"merged": Measured((seconds,))}, None if outside is None else Measured((outside,)))

    steps = Steps("merged", 12, 3, scaling=[case(1, 4.0, 1.0), case(2, 20.0, 2.0)])
    one, two = steps.scaling
    assert (steps.seconds(one, "merged"), steps.seconds(two, "merged")) == (1 + 3 * 4, 2 + 18 * 4)
    assert steps.growth(two) == 74 / 13 / 4
    assert Steps("merged", 12, 12).seconds(case(1, 4.0, None), "merged") == 4
    assert steps.seconds(one, "grouped") is None and Steps("merged", 12, 3).growth(two) is None
    assert Times(5.0, 4.0, 3.0).scaled(Times(1.0, 4.0, 0.5), 10.0) == Times(41.0, 4.0, 25.5)


def test_goals_of_a_whole_step_are_those_of_a_gpu() -> None:
    seconds = {"merged": 2.0, f"merged, {COMPILED}": 1.0, f"merged, {CACHED}": 0.1, UNMASKED: 0.8, BOOLEAN_MASK: 4.0, NFOLD_COPY: 3.0}
    variants = {name: Measured((taken,), peak_bytes=int(10 * taken)) for name, taken in seconds.items()}
    steps = [Steps("merged", 42, 42, comparison=StepCase(3, 10, 10, variants))]
    chosen = settings(backends=("merged", "_flash_3"), rounds=5)
    on_cpu = {goal.name for goal in goals(Results(chosen, steps=steps))}
    on_gpu = replace(chosen, device=torch.device("cuda"), size=replace(chosen.size, name="5b"))

    def found(variants: dict[str, Measured]) -> dict[str, tuple[Any, Any]]:
        steps = [Steps("merged", 42, 42, comparison=StepCase(3, 10, 10, variants))]
        return {goal.name: (goal.value, goal.holds) for goal in goals(Results(on_gpu, steps=steps)) if goal.name not in on_cpu}

    compiled, film = f"merged, {COMPILED}", "seconds of a film of 50 steps with guidance"
    assert found(variants) == {  # ratios of what is not compiled, the film by what is quickest
        "speed of a step, merged over unmasked": (0.4, False),
        "speed of a step, merged over boolean mask": (2.0, False),
        "peak of a step, merged over n-fold copy": (20 / 30, False),
        f"{film}, {compiled}": (100.0, True),
        f"{film}, _flash_3": (None, None),
        f"{film}, merged, {HALF}": (pytest.approx(100 * (2 + 0.1) / 2), True),
    }
    faster = variants | {f"{UNMASKED} by _flash_3": Measured((0.5,)), "_flash_3": Measured((0.9,))}
    fast = found(faster)
    assert fast["speed of a step, merged over unmasked"] == (0.4, False)  # of what stock torch has, on both sides
    assert fast[f"{film}, _flash_3"] == (pytest.approx(90), True) and f"{film}, {compiled}" in fast
    assert all(each == (None, None) for each in found({}).values()) and len(found({})) == 6  # none goes missing
    on_gpu = replace(on_gpu, rounds=4)  # too few for ratios of times, enough for memory
    assert [name for name, (_, holds) in found(variants).items() if holds is not None] == ["peak of a step, merged over n-fold copy"]


def test_a_gpu_has_the_time_for_what_the_goals_ask(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 5B in 480 seconds a film, 4.8 s a prediction: what is compared is measured, before the kernels that are not ours."""
    chosen = choose_settings("5b", device=CPU, compiled=True)
    assert chosen.model_config["num_layers"] == 42 and choose_settings("2b", device=CPU).model_config["num_layers"] == 30
    on_gpu = replace(chosen, seconds=SECONDS["cuda"], dtype=torch.bfloat16, backends=("grouped", "merged", "_native_math", "_native_flash"))
    monkeypatch.setattr("mask2dit.benchmarking.steps.free_bytes", lambda _: 2**37)
    measured = [name for count, name in enumerate(_variant_names(on_gpu)) if _problem_of(on_gpu, name, count + 2, 4.8) is None]
    assert {f"merged, {COMPILED}", f"merged, {CACHED}", *on_gpu.floors, BOOLEAN_MASK, NFOLD_COPY, "grouped"} <= set(measured)


def test_the_largest_error_is_held_against_the_goal_and_failures_are_none() -> None:
    errors = [
        Error("grouped", "float32", 2, True, 1e-6, 9.0),
        Error("merged", "float32", 3, False, 6e-6, 1.0),
        Error("flex", "float32", 3, True, None, None, "no compiler"),
        Error("merged", "bfloat16", 1, True, 0.5, 1.3),
    ]
    exact, rounded, *_ = goals(Results(settings(), errors=errors))
    assert (exact.value, exact.place, exact.holds) == (6e-6, "merged, 3 unequal scenes", False)
    assert (rounded.value, rounded.place, rounded.holds) == (1.3, "merged, 1 equal scenes", True)


def test_a_kernel_that_does_not_work_here_is_told_and_one_that_does_is_taken() -> None:
    with pytest.raises(InputError, match=r"--backend: got _native_cudnn, which does not work on cpu \(.*\); leave it out") as caught:
        choose_settings(device=CPU, quick=True, backends=["merged", "_native_cudnn"])
    assert "\n" not in str(caught.value)
    chosen = choose_settings(device=CPU, quick=True, backends=["_native_math", "grouped", "_native_math"])
    assert chosen.backends == ("_native_math", "grouped") and chosen.forms == (
        UNMASKED,
        f"{UNMASKED} by _native_math",
        "_native_math",
        "grouped",
        BOOLEAN_MASK,
        NFOLD_COPY,
    )
    left = choose_settings(device=CPU, quick=True)
    assert left.backends == ("grouped", "merged") and left.absent.keys() == {"flex"} and left.backend == "merged"


def test_room_is_for_one_block_and_the_remedy_is_one_line(tmp_path: Any) -> None:
    chosen = settings()
    needed = step_bytes(chosen, 2, 1)
    check_room(chosen, needed / 0.9 + 1)
    with pytest.raises(InputError, match=r"for one block of tiny .*; take fewer --scenes or --frames, or a smaller --height") as room:
        check_room(chosen, needed / 0.9 - 1)
    check_output(tmp_path / "new" / "folder")
    assert list((tmp_path / "new" / "folder").iterdir()) == []
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"nothing can be written .*; choose another place") as place:
        check_output(tmp_path / "file" / "folder")
    assert "\n" not in f"{room.value}{place.value}"
