"""Keys and values of known scenes, kept under the plan in which these see no generated one, change nothing but the work."""

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

import tiny
from mask2dit import Mask2DiTTransformer3DModel, SceneLayout
from mask2dit.context_cache import ContextCache
from mask2dit.errors import InputError

TEXT, FRAMES = (3, 5, 4), (2, 1, 3)


@pytest.fixture(params=["grouped", "merged"])
def model(request: pytest.FixtureRequest) -> Mask2DiTTransformer3DModel:
    made = tiny.transformer(attention_plan="context-blind")
    made.set_attention(request.param)
    return made


def inputs_of(model: Mask2DiTTransformer3DModel, known: set[int]) -> dict[str, Any]:
    inputs = tiny.inputs(model, TEXT, FRAMES, batch=1)
    inputs["timestep"] = torch.tensor([[0 if scene in known else 700 for scene in range(3)]])
    return inputs


def only(model: Mask2DiTTransformer3DModel, inputs: dict[str, Any], scenes: Sequence[int], context: ContextCache) -> Tensor:
    """The transformer over some of the scenes."""

    def some(states: Tensor, lengths: Sequence[int], dim: int) -> Tensor:
        pieces = states.split(list(lengths), dim=dim)
        return torch.cat([pieces[scene] for scene in scenes], dim=dim)

    layout = inputs["layout"]
    lengths = ([each[scene] for scene in scenes] for each in (layout.text_lengths, layout.video_lengths))
    return model(
        some(inputs["hidden_states"], FRAMES, 1),
        some(inputs["encoder_hidden_states"], TEXT, 1),
        inputs["timestep"][:, list(scenes)],
        SceneLayout(*(tuple(each) for each in lengths)),
        image_rotary_emb=tuple(some(table, layout.video_lengths, 0) for table in model.rotary_table(sum(FRAMES), (2, 3))),
        context=context,
    ).sample


@pytest.mark.parametrize("generated", [(2,), (1,), (0,), (0, 2), (1, 2)])
@torch.no_grad()
def test_the_cached_result_is_the_whole_one(model: Mask2DiTTransformer3DModel, generated: tuple[int, ...]) -> None:
    known = {0, 1, 2} - set(generated)
    inputs = inputs_of(model, known)
    context = ContextCache(model.config.num_layers)
    assert not context.is_filled
    first = only(model, inputs, sorted(known), context)
    assert context.num_tokens == sum(inputs["layout"].video_lengths[scene] for scene in known)
    for step in (700, 650):
        inputs["timestep"] = torch.tensor([[0 if scene in known else step for scene in range(3)]])
        inputs["hidden_states"] = inputs["hidden_states"].clone()
        for scene in generated:
            inputs["hidden_states"].split(FRAMES, dim=1)[scene].mul_(0.9)
        whole = model(**inputs, known_scenes=known).sample.split(FRAMES, dim=1)
        torch.testing.assert_close(only(model, inputs, generated, context), torch.cat([whole[s] for s in generated], dim=1))
        torch.testing.assert_close(first, torch.cat([whole[s] for s in sorted(known)], dim=1))


@torch.no_grad()
def test_known_scenes_do_not_see_generated_ones_and_generated_ones_see_all() -> None:
    model = tiny.transformer(attention_plan="context-blind")
    inputs = inputs_of(model, {0, 1})
    before = model(**inputs, known_scenes={0, 1}).sample.split(FRAMES, dim=1)

    def changed(scene: int) -> tuple[Tensor, ...]:
        other = {**inputs, "hidden_states": inputs["hidden_states"].clone()}
        other["hidden_states"].split(FRAMES, dim=1)[scene].add_(1)
        return model(**other, known_scenes={0, 1}).sample.split(FRAMES, dim=1)

    after = changed(2)
    assert torch.equal(after[0], before[0]) and torch.equal(after[1], before[1])
    after = changed(0)
    assert not torch.equal(after[1], before[1]) and not torch.equal(after[2], before[2])
    joint = tiny.transformer()(**inputs).sample
    assert torch.equal(model(**inputs).sample, joint)  # where nothing is known it is the symmetric plan


@torch.no_grad()
def test_samples_may_know_different_scenes() -> None:
    model = tiny.transformer(attention_plan="context-blind")
    inputs = tiny.inputs(model, TEXT, FRAMES, batch=2)
    both = model(**inputs, known_scenes=[{0}, {1, 2}]).sample
    for index, known in enumerate(({0}, {1, 2})):
        alone = {name: each[[index]] if isinstance(each, Tensor) else each for name, each in inputs.items()}
        torch.testing.assert_close(both[[index]], model(**alone, known_scenes=known).sample)
    symmetric = tiny.transformer()
    assert torch.equal(symmetric(**inputs, known_scenes=[{0}, {1, 2}]).sample, symmetric(**inputs).sample)


@torch.no_grad()
def test_blocks_are_called_for_each_sample_whatever_the_sets_are() -> None:
    """So that processes that share weights, with other samples each, gather them equally often."""
    model = tiny.transformer(attention_plan="context-blind")
    calls: list[int] = []
    model.transformer_blocks[0].register_forward_pre_hook(lambda *_: calls.append(1))
    inputs = tiny.inputs(model, TEXT, FRAMES, batch=2)
    same = model(**inputs, known_scenes=[{0}, {0}]).sample
    assert len(calls) == 2
    model(**inputs, known_scenes=[{0}, {1, 2}])
    assert len(calls) == 4
    torch.testing.assert_close(model(**inputs, known_scenes={0}).sample, same)
    assert len(calls) == 5


@pytest.mark.parametrize("plan", ["symmetric", "context-blind"])
@pytest.mark.parametrize(
    ("known", "message"),
    [
        ({7}, r"known_scenes: got \[7\], expected indices from 0 to 2"),
        ([{0}], "known_scenes: got 1 sets for 2 samples, expected one for all, or one for each"),
        ([{0}] * 3, "known_scenes: got 3 sets for 2 samples"),
    ],
)
def test_sets_that_do_not_fit_are_refused(plan: str, known: Any, message: str) -> None:
    model = tiny.transformer(attention_plan=plan)
    with pytest.raises(InputError, match=message):
        model(**tiny.inputs(model, TEXT, FRAMES, batch=2), known_scenes=known)


def test_a_pass_that_fails_fills_nothing() -> None:
    model = tiny.transformer(attention_plan="context-blind")
    inputs, context = inputs_of(model, {0}), ContextCache(model.config.num_layers)
    hook = model.transformer_blocks[1].register_forward_pre_hook(lambda *_: (_ for _ in ()).throw(MemoryError()))
    with pytest.raises(MemoryError):
        only(model, inputs, [0], context)
    hook.remove()
    assert not context.is_filled and context.num_tokens == 0
    with torch.no_grad():
        only(model, inputs, [0], context)
    assert context.is_filled
    with pytest.raises(InputError, match="context: got one for 2 layers, expected 3"):
        only(model, inputs, [0], ContextCache(2))


def test_a_plan_that_forbids_it_is_refused() -> None:
    model = tiny.transformer()
    with pytest.raises(InputError, match="context: got one with the plan symmetric and a rotary table, expected the plan context-blind"):
        only(model, inputs_of(model, {0}), [0], ContextCache(model.config.num_layers))
