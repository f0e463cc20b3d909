"""Every plan, as groups, is its definition as a dense mask, on random unequal layouts."""

import random

import pytest
import torch

from mask2dit import SceneLayout
from mask2dit.errors import InputError
from mask2dit.plans import PLANS, get_plan
from reference import MEETINGS, dense_mask


def random_layout(seed: int) -> SceneLayout:
    rng = random.Random(seed)
    scenes = rng.randint(1, 5)
    return SceneLayout(tuple(rng.randint(0, 4) for _ in range(scenes)), tuple(rng.randint(1, 6) for _ in range(scenes)))


def test_the_plans_are_the_five_that_are_defined() -> None:
    assert list(PLANS) == list(MEETINGS)


@pytest.mark.parametrize("plan", MEETINGS)
def test_groups_are_the_dense_mask(plan: str) -> None:
    for seed in range(20):
        layout = random_layout(seed)
        met = torch.zeros(layout.num_tokens, layout.num_tokens, dtype=torch.int)
        for group in get_plan(plan).groups(layout):
            for queries in group.queries:
                for keys in group.keys:
                    met[queries, keys] += 1
        assert torch.equal(met, dense_mask(plan, layout).int()), layout  # 1, not 2: no token is asked or read twice


@pytest.mark.parametrize("plan", MEETINGS)
def test_queries_are_every_token_once(plan: str) -> None:
    layout = SceneLayout((3, 0, 2), (4, 5, 6))
    positions = [
        position for group in get_plan(plan).groups(layout) for piece in group.queries for position in range(piece.start, piece.stop)
    ]
    assert sorted(positions) == list(range(layout.num_tokens))


@pytest.mark.parametrize(("plan", "count"), [("isolated", 3), ("symmetric", 6), ("shared-text", 6), ("video-reads-text", 4), ("full", 1)])
def test_tokens_with_the_same_keys_are_one_group(plan: str, count: int) -> None:
    assert len(get_plan(plan).groups(SceneLayout((2, 3, 2), (4, 5, 6)))) == count


@pytest.mark.parametrize("plan", MEETINGS)
def test_one_scene_is_one_group_with_everything(plan: str) -> None:
    (group,) = get_plan(plan).groups(SceneLayout((2,), (4,)))
    assert group.queries == group.keys == (slice(0, 6),)


def test_an_unknown_plan_is_refused_with_the_choices() -> None:
    with pytest.raises(InputError, match="plan: got 'ful', expected one of isolated, symmetric, shared-text, video-reads-text, full"):
        get_plan("ful")
