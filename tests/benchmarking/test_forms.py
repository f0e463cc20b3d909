"""All forms of attention that are compared compute the same, in the number of calls and with the copies that are claimed of them."""

import pytest
import torch
from torch import Tensor

from mask2dit.benchmarking.forms import BOOLEAN_MASK, NFOLD_COPY, UNMASKED, boolean_mask, extra_bytes, make_processor, num_pairs
from mask2dit.benchmarking.measuring import Counting
from mask2dit.merged_attention import find_kernel
from mask2dit.plans import AttentionPattern, get_plan
from mask2dit.scene_layout import SceneLayout

HEADS, WIDTH = 2, 16
FORMS = ("grouped", "merged", BOOLEAN_MASK, NFOLD_COPY)
LAYOUTS = {"equal": SceneLayout((8,) * 3, (96,) * 3), "unequal": SceneLayout((8, 3, 5), (96, 20, 45)), "one": SceneLayout((8,), (40,))}


def pattern_of(layout: SceneLayout) -> AttentionPattern:
    return get_plan("symmetric").pattern(layout)


def states(layout: SceneLayout) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(1, layout.num_tokens, HEADS, WIDTH, generator=generator) for _ in range(3)]


def dense(inputs: list[Tensor], mask: Tensor) -> Tensor:
    query, key, value = (each.double().transpose(1, 2) for each in inputs)
    scores = (query @ key.transpose(2, 3) * WIDTH**-0.5).masked_fill(~mask, -torch.inf)
    return (scores.softmax(-1) @ value).transpose(1, 2).float()


def symmetric(layout: SceneLayout) -> Tensor:
    """Of one scene, or both video."""
    lengths = torch.tensor((*layout.text_lengths, *layout.video_lengths))
    count = len(layout.text_lengths)
    scene = torch.arange(count).repeat(2).repeat_interleave(lengths)
    is_video = (torch.arange(2 * count) >= count).repeat_interleave(lengths)
    return (scene[:, None] == scene) | (is_video[:, None] & is_video)


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=list(LAYOUTS))
def test_every_form_is_the_dense_softmax(layout: SceneLayout) -> None:
    inputs, pattern = states(layout), pattern_of(layout)
    mask = symmetric(layout)
    assert torch.equal(boolean_mask(pattern, torch.device("cpu")), mask) and num_pairs(pattern) == int(mask.sum())
    for form in FORMS:
        torch.testing.assert_close(make_processor(form).attend(*inputs, pattern), dense(inputs, mask), rtol=0, atol=2e-6)
    everything = dense(inputs, torch.ones_like(mask))
    for floor in (UNMASKED, f"{UNMASKED} by _native_math"):
        torch.testing.assert_close(make_processor(floor).attend(*inputs, pattern), everything, rtol=0, atol=2e-6)
    if layout is not LAYOUTS["one"]:
        assert (everything - dense(inputs, mask)).abs().max() > 0.01


@pytest.mark.parametrize("scenes", [2, 3, 6])
def test_calls_and_copies_are_those_that_are_claimed(scenes: int) -> None:
    layout = SceneLayout((8,) * scenes, (96,) * scenes)
    query, key, value = states(layout)
    assert find_kernel(query.device, query.dtype, WIDTH)  # looked for here, or trying it would be counted
    counted = {}
    for form in (*FORMS, UNMASKED):
        with Counting((key, value)) as counted[form], torch.no_grad():
            make_processor(form).attend(query, key, value, pattern_of(layout))
    whole = key.nbytes + value.nbytes
    assert {form: each.calls for form, each in counted.items()} == {
        "grouped": 2 * scenes, "merged": 3, BOOLEAN_MASK: 1, NFOLD_COPY: 2 * scenes, UNMASKED: 1
    }  # fmt: skip
    assert counted["merged"].copied_bytes <= 1.2 * whole
    video = scenes * 2 * (scenes * 96) * HEADS * WIDTH * 4  # of each scene, the video of all
    assert counted[NFOLD_COPY].copied_bytes >= video and counted[UNMASKED].copied_bytes == 0
    assert counted[BOOLEAN_MASK].peak_bytes >= layout.num_tokens**2
    if scenes == 6:
        assert counted["merged"].peak_bytes < layout.num_tokens**2 < counted[NFOLD_COPY].peak_bytes


def test_what_a_form_takes_is_known_before() -> None:
    """Less than what is counted would let a machine without memory try."""
    layout = SceneLayout((8,) * 6, (96,) * 6)
    query, key, value = states(layout)
    pattern = pattern_of(layout)
    for form in FORMS:
        with Counting((key, value)) as counted, torch.no_grad():
            make_processor(form).attend(query, key, value, pattern)
        assert extra_bytes(form, pattern, HEADS * WIDTH * 4, 4) >= 0.8 * counted.peak_bytes, form
