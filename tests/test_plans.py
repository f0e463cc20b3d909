"""Every plan, as groups, is its definition as a dense mask, on random unequal layouts."""

import random
from collections.abc import Iterable

import pytest
import torch
from torch import Tensor

from mask2dit import SceneLayout
from mask2dit.errors import InputError
from mask2dit.plans import PLANS, AttentionGroup, get_plan
from reference import MEETINGS, dense_mask


def random_layout(seed: int) -> SceneLayout:
    rng = random.Random(seed)
    scenes = rng.randint(1, 5)
    return SceneLayout(tuple(rng.randint(0, 4) for _ in range(scenes)), tuple(rng.randint(1, 6) for _ in range(scenes)))


def met(groups: Iterable[AttentionGroup], num_queries: int, num_keys: int) -> Tensor:
    """[queries, keys]: how often each pair meets."""
    counts = torch.zeros(num_queries, num_keys, dtype=torch.int)
    for group in groups:
        for queries in group.queries:
            for keys in group.keys:
                counts[queries, keys] += 1
    return counts


def test_the_plans_are_those_that_are_defined() -> None:
    assert list(PLANS) == [*MEETINGS, "context-blind"]


@pytest.mark.parametrize("plan", PLANS)
def test_groups_and_calls_are_the_dense_mask(plan: str) -> None:
    for seed in range(20):
        layout = random_layout(seed)
        known = set(random.Random(seed).sample(range(layout.num_scenes), k=seed % layout.num_scenes))
        pattern = get_plan(plan).pattern(layout, known)
        expected = dense_mask(plan, layout, known).int()  # 1, not 2: no token is asked or read twice
        assert torch.equal(met(pattern.groups, *expected.shape), expected), layout
        assert torch.equal(met([group for call in pattern.calls for group in call.groups], *expected.shape), expected), layout


def test_context_is_read_by_every_video_and_by_no_text() -> None:
    layout = SceneLayout((2, 3), (4, 5))
    pattern = get_plan("context-blind").pattern(layout, frozenset(), num_context=6)
    expected = torch.cat([dense_mask("symmetric", layout), torch.zeros(layout.num_tokens, 6, dtype=torch.bool)], dim=1).int()
    expected[layout.num_text_tokens :, layout.num_tokens :] = 1
    assert torch.equal(met(pattern.groups, *expected.shape), expected)
    assert torch.equal(met([group for call in pattern.calls for group in call.groups], *expected.shape), expected)


@pytest.mark.parametrize(
    ("plan", "count"), [("symmetric", 3), ("context-blind", 3), ("shared-text", 4), ("video-reads-text", 2), ("full", 1)]
)
@pytest.mark.parametrize("num_scenes", [2, 3, 12])
def test_equal_scenes_need_few_calls_however_many_they_are(plan: str, count: int, num_scenes: int) -> None:
    assert len(get_plan(plan).pattern(SceneLayout((2,) * num_scenes, (5,) * num_scenes)).calls) == count


def test_all_video_meets_in_one_call_without_a_copied_key() -> None:
    layout = SceneLayout((20,) * 4, (150,) * 4)
    whole, *others = get_plan("symmetric").pattern(layout).calls
    video = slice(layout.num_text_tokens, layout.num_tokens)
    assert whole.groups[0].queries == whole.groups[0].keys == (video,) and len(whole.groups) == 1
    copied = sum(stop - start for call in others for group in call.groups if len(group.keys) > 1 for start, stop in spans(group.keys))
    assert copied <= 1.2 * layout.num_tokens  # what is not in one piece is gathered


def spans(pieces: tuple[slice, ...]) -> list[tuple[int, int]]:
    return [(piece.start, piece.stop) for piece in pieces]


@pytest.mark.parametrize("plan", PLANS)
def test_queries_are_every_token_once(plan: str) -> None:
    layout = SceneLayout((3, 0, 2), (4, 5, 6))
    positions = [
        position
        for group in get_plan(plan).pattern(layout).groups
        for piece in group.queries
        for position in range(piece.start, piece.stop)
    ]
    assert sorted(positions) == list(range(layout.num_tokens))


@pytest.mark.parametrize(("plan", "count"), [("isolated", 3), ("symmetric", 6), ("shared-text", 6), ("video-reads-text", 4), ("full", 1)])
def test_tokens_with_the_same_keys_are_one_group(plan: str, count: int) -> None:
    assert len(get_plan(plan).pattern(SceneLayout((2, 3, 2), (4, 5, 6))).groups) == count


@pytest.mark.parametrize("plan", PLANS)
def test_one_scene_is_one_group_with_everything(plan: str) -> None:
    (group,) = get_plan(plan).pattern(SceneLayout((2,), (4,))).groups
    assert group.queries == group.keys == (slice(0, 6),)


def test_an_unknown_plan_is_refused_with_the_choices() -> None:
    with pytest.raises(
        InputError, match="plan: got 'ful', expected one of isolated, symmetric, shared-text, video-reads-text, full, context-blind"
    ):
        get_plan("ful")
