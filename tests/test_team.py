"""Several processes make the film that one makes, and end together. Two and four of them, over gloo on the CPU."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from diffusers import ContextParallelConfig
from safetensors.torch import load_file
from torch import Tensor

import team_member
import tiny
from mask2dit.errors import InputError
from mask2dit.sequence_parallel import SequenceParallel, check_heads
from mask2dit.team import Team

Made = tuple[int, list[dict[str, Tensor]], list[list[str]]]
PLANS = ("symmetric merged", "symmetric grouped", "full merged", "context-blind merged")


def run(what: str, count: int, folder: Path) -> subprocess.CompletedProcess[str]:
    member = Path(team_member.__file__)
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node",
        str(count),
        str(member),
        what,
        str(folder),
    ]
    return subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)


@pytest.fixture(scope="module", params=[2, 4])
def team(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Made:
    """What each process made, and the messages of its mistakes."""
    folder = tmp_path_factory.mktemp("team")
    ended = run("everything", request.param, folder)
    assert ended.returncode == 0, ended.stderr
    made = [load_file(folder / f"{rank}.safetensors") for rank in range(request.param)]
    return request.param, made, [(folder / f"{rank}.txt").read_text().splitlines() for rank in range(request.param)]


def alone(name: str) -> Tensor:
    plan, attention, *known = name.split()
    return team_member.film(team_member.pipeline(plan, attention), known_scenes=team_member.known() if known else None)


@pytest.mark.slow
@pytest.mark.parametrize("how", ["side by side", "sequence"])
@pytest.mark.parametrize("name", [f"{plan}{known}" for plan in PLANS for known in ("", " known")])
def test_a_team_makes_the_film_of_one_process(team: Made, how: str, name: str) -> None:
    """Equal to 1e-5, on every process, and so with the scenes' pattern: other plans are other films."""
    expected = alone(name)
    for made in team[1]:
        torch.testing.assert_close(made[f"{how}, {name}"], expected, rtol=0, atol=1e-5 * float(expected.std()))
    if name == "symmetric merged":
        assert (team[1][0][f"{how}, full merged"] - expected).abs().max() > 0.05


@pytest.mark.slow
def test_a_film_without_guidance(team: Made) -> None:
    expected = team_member.film(team_member.pipeline("context-blind"), guidance_scale=1.0)
    for made in team[1]:
        for how in ("side by side", "sequence"):
            torch.testing.assert_close(made[f"{how}, unguided"], expected, rtol=0, atol=1e-5)


@pytest.mark.slow
def test_diffusers_way_to_ask_for_it(team: Made) -> None:
    expected = team_member.forward(tiny.transformer(num_attention_heads=team_member.HEADS))
    for made in team[1]:
        for name in ("forward", "forward on a mesh"):
            torch.testing.assert_close(made[name], expected, rtol=0, atol=1e-5)


@pytest.mark.slow
def test_the_first_process_leads(team: Made) -> None:
    _, (made, *others), _ = team
    pipeline = team_member.pipeline()
    torch.testing.assert_close(made["first"], team_member.film(pipeline), rtol=0, atol=1e-5)
    second = team_member.film(pipeline, known_scenes=team_member.known(), num_inference_steps=3)
    torch.testing.assert_close(made["second"], second, rtol=0, atol=1e-5)
    assert all("first" not in other for other in others)


@pytest.mark.slow
def test_it_works_together_with_offload(team: Made) -> None:
    for made in team[1]:
        torch.testing.assert_close(made["offloaded"], made["sequence, symmetric merged"], rtol=0, atol=0)


@pytest.mark.slow
def test_it_works_together_with_step_caches_and_compiled_blocks(team: Made) -> None:
    size, films, _ = team
    caches = {"pyramid": "pyramid:2"} | ({"first-block": "first-block:1e9"} if size == 2 else {})
    expected = {name: team_member.film(team_member.pipeline(), num_inference_steps=10, step_cache=text) for name, text in caches.items()}
    exact = team_member.film(team_member.pipeline(), num_inference_steps=10)
    expected["compiled"] = team_member.film(team_member.pipeline())
    for made in films:
        for name, each in expected.items():
            torch.testing.assert_close(made[name], each, rtol=0, atol=1e-5 * float(each.std()))
    assert all((expected[name] - exact).abs().max() > 1e-3 for name in caches)


@pytest.mark.slow
def test_mistakes_are_told_by_all(team: Made) -> None:
    size, _, messages = team
    for *different, heads, mesh in messages:
        assert len(different) == len(team_member.DIFFERENT) + 1
        for each in different:
            assert each.startswith("InputError: several devices: got another film on process 1")
            assert each.endswith("give them the same, or let the first one lead")
        assert heads == (
            f"InputError: several devices: got {size} processes for one sequence and 3 heads of attention, expected a number that "
            "divides them; use 1, 3"
        )
        assert mesh.startswith("InputError: enable_parallelism: got DeviceMesh(")
        assert mesh.endswith("expected one with 2 processes along a dimension named ulysses")


def test_how_many_processes_go_with_guidance_branches() -> None:
    check_heads(30, 5, branches=2)
    with pytest.raises(InputError, match=r"got 4 processes for one sequence, of 2, and 30 heads .*; use 2, 4, 6, 10, 12, 20, 30, 60$"):
        check_heads(30, 4, branches=2)
    with pytest.raises(InputError, match=r"got 2 processes for one sequence and 1 heads .*; use 1$"):
        check_heads(1, 2)


@pytest.mark.slow
def test_where_one_dies_the_others_end_with_a_message(tmp_path: Path) -> None:
    assert run("dies", 2, tmp_path).returncode != 0
    told = (tmp_path / "0.txt").read_text()
    assert told == (
        "Mask2DiTError: several devices: another process ended before the film was made; its own message says why, or it was killed, as "
        "where memory runs out"
    )
    assert not (tmp_path / "1.txt").exists()


@pytest.mark.parametrize("size", [2, 3, 5])
@pytest.mark.parametrize("lengths", [(3, 5, 2, 6, 18, 12), (0, 4, 12, 6), (1, 2)])
def test_shares_tile_the_sequence(size: int, lengths: tuple[int, ...]) -> None:
    places = [SequenceParallel(None, rank, size) for rank in range(size)]
    tokens = [position for place in places for position in range(sum(lengths))[place.share(sum(lengths))]]
    assert tokens == list(range(sum(lengths)))
    own = [place.lengths(lengths) for place in places]
    assert tuple(map(sum, zip(*own, strict=True))) == lengths
    assert [sum(each) for each in own] == [place.share(sum(lengths)).stop - place.share(sum(lengths)).start for place in places]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (Team.form, "several devices: got one process, expected several that were started together; use torchrun"),
        (lambda: tiny.transformer().share_sequence(), "several devices: got one process"),
        (
            lambda: tiny.transformer().enable_parallelism(config=ContextParallelConfig(ulysses_degree=2)),
            "enable_parallelism: got ulysses_degree 2 for 1 process, expected a divisor of their number; start a multiple of 2 processes",
        ),
        (
            lambda: tiny.transformer().enable_parallelism(config=ContextParallelConfig(ring_degree=2)),
            "with ulysses_degree 1 and ring_degree 2, expected a ContextParallelConfig with ulysses_degree of at least 2, no ring",
        ),
    ],
)
def test_what_cannot_be_shared_is_refused(call: Callable[[], object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        call()
