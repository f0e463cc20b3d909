"""The transformer: CogVideoX with one scene, its definition with several, and who notices a changed caption."""

from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import CogVideoXTransformer3DModel

import tiny
from mask2dit import Mask2DiTTransformer3DModel, SceneLayout
from mask2dit.errors import InputError, ModelError
from reference import MEETINGS, PlainTransformer

TEXT, FRAMES = (3, 5, 4), (2, 1, 3)  # unequal scenes


def forward(model: Mask2DiTTransformer3DModel, **arguments: Any) -> torch.Tensor:
    with torch.no_grad():
        return model(**arguments).sample


def check_near(fast: torch.Tensor, exact: torch.Tensor) -> None:
    # Most of it is the angle of timesteps near 1000 in float32.
    torch.testing.assert_close(fast.double(), exact, rtol=0, atol=3e-5)


def stock(model: Mask2DiTTransformer3DModel) -> CogVideoXTransformer3DModel:
    config = {key: value for key, value in model.config.items() if key != "attention_plan" and not key.startswith("_")}
    twin = CogVideoXTransformer3DModel(**config)
    twin.load_state_dict(model.state_dict())
    return twin.eval()


@pytest.mark.parametrize("plan", MEETINGS)
def test_one_scene_is_cogvideox_bit_for_bit(plan: str) -> None:
    model = tiny.transformer(attention_plan=plan)
    arguments = tiny.inputs(model, (5,), (3,))
    rotary = model.rotary_table(3, (2, 3))
    theirs = stock(model)(
        arguments["hidden_states"],
        arguments["encoder_hidden_states"],
        arguments["timestep"][:, 0],
        image_rotary_emb=rotary,
        return_dict=False,
    )[0]
    assert torch.equal(forward(model, **arguments), theirs)
    assert torch.equal(forward(model, **arguments | {"timestep": arguments["timestep"][:, 0]}), theirs)


@pytest.mark.parametrize("plan", MEETINGS)
@pytest.mark.parametrize(("text", "frames"), [(TEXT, FRAMES), ((4, 4), (2, 2)), ((4, 4), (3, 1))], ids=str)
def test_several_scenes_are_the_definition_in_float64(plan: str, text: tuple[int, ...], frames: tuple[int, ...]) -> None:
    model = tiny.transformer(attention_plan=plan)
    arguments = tiny.inputs(model, text, frames)
    arguments["timestep"][0, 1] = 0  # a known scene
    exact = PlainTransformer(model, plan)(**arguments)
    check_near(forward(model, **arguments), exact)


def test_another_size_than_the_trained_one() -> None:
    model = tiny.transformer()
    generator = torch.Generator().manual_seed(0)
    layout = SceneLayout((2, 2), (2 * 4 * 3, 1 * 4 * 3))
    arguments = {
        "hidden_states": torch.randn(1, 3, 4, 8, 6, generator=generator),
        "encoder_hidden_states": torch.randn(1, 4, 20, generator=generator),
        "timestep": torch.tensor([[500, 0]]),
        "layout": layout,
    }
    check_near(forward(model, **arguments), PlainTransformer(model, "symmetric")(**arguments))


def test_one_timestep_for_all_scenes_is_the_same_one_for_each() -> None:
    model = tiny.transformer()
    arguments = tiny.inputs(model, TEXT, FRAMES)
    shared = torch.tensor([999, 321])
    once = forward(model, **arguments | {"timestep": shared})
    assert torch.equal(once, forward(model, **arguments | {"timestep": shared[:, None].expand(2, 3)}))
    assert not torch.equal(once, forward(model, **arguments | {"timestep": torch.tensor([[999, 999, 0], [321, 321, 0]])}))


def test_a_batch_of_two_is_two_batches_of_one() -> None:
    model = tiny.transformer()
    arguments = tiny.inputs(model, TEXT, FRAMES)
    both = forward(model, **arguments)
    for index in range(2):
        alone = {name: value if name == "layout" else value[[index]] for name, value in arguments.items()}
        assert torch.allclose(forward(model, **alone), both[[index]], atol=1e-6)


def changed_scenes(model: Mask2DiTTransformer3DModel, scene: int) -> set[int]:
    """The scenes whose prediction is not bit for bit the same after another caption for `scene`."""
    arguments = tiny.inputs(model, TEXT, FRAMES)
    before = forward(model, **arguments)
    text = arguments["layout"].text(scene)
    arguments["encoder_hidden_states"][:, text] += 1.0
    after = forward(model, **arguments)
    pairs = zip(before.split(FRAMES, dim=1), after.split(FRAMES, dim=1), strict=True)
    return {index for index, (one, other) in enumerate(pairs) if not torch.equal(one, other)}


@pytest.mark.parametrize(
    ("plan", "in_one_block", "in_three"),
    [
        ("isolated", {1}, {1}),
        ("symmetric", {1}, {0, 1, 2}),
        ("shared-text", {1}, {0, 1, 2}),
        ("video-reads-text", {0, 1, 2}, {0, 1, 2}),
        ("full", {0, 1, 2}, {0, 1, 2}),
    ],
)
def test_who_notices_another_caption(plan: str, in_one_block: set[int], in_three: set[int]) -> None:
    assert changed_scenes(tiny.transformer(attention_plan=plan, num_layers=1), scene=1) == in_one_block
    assert changed_scenes(tiny.transformer(attention_plan=plan), scene=1) == in_three


def test_isolated_scenes_are_films_of_one_scene_up_to_their_place_in_time() -> None:
    model = tiny.transformer(attention_plan="isolated")
    arguments = tiny.inputs(model, TEXT, FRAMES)
    first = {
        "hidden_states": arguments["hidden_states"][:, : FRAMES[0]],
        "encoder_hidden_states": arguments["encoder_hidden_states"][:, : TEXT[0]],
        "timestep": arguments["timestep"][:, :1],
        "layout": SceneLayout(TEXT[:1], arguments["layout"].video_lengths[:1]),
    }
    assert torch.allclose(forward(model, **first), forward(model, **arguments)[:, : FRAMES[0]], atol=1e-6)


def test_the_rotary_table_that_it_builds_is_the_one_it_gives() -> None:
    model = tiny.transformer()
    arguments = tiny.inputs(model, TEXT, FRAMES)
    cos, sin = model.rotary_table(sum(FRAMES), (2, 3))
    assert cos.shape == sin.shape == (36, 16)
    assert torch.equal(forward(model, **arguments, image_rotary_emb=(cos, sin)), forward(model, **arguments))
    assert not torch.equal(forward(model, **arguments, image_rotary_emb=(cos, -sin)), forward(model, **arguments))


def test_another_plan_is_another_result_and_stays_with_the_model(tmp_path: Path) -> None:
    model = tiny.transformer()
    arguments = tiny.inputs(model, TEXT, FRAMES)
    symmetric = forward(model, **arguments)
    model.set_attention_plan("isolated")
    isolated = forward(model, **arguments)
    assert not torch.equal(symmetric, isolated)
    model.save_pretrained(tmp_path)
    again = Mask2DiTTransformer3DModel.from_pretrained(tmp_path)
    assert again.config.attention_plan == "isolated"
    assert torch.equal(forward(again, **arguments), isolated)
    with pytest.raises(InputError, match="plan: got 'none', expected one of"):
        model.set_attention_plan("none")
    assert torch.equal(forward(model, **arguments), isolated)


def test_a_scene_without_text_is_legal() -> None:
    model = tiny.transformer()
    arguments = tiny.inputs(model, (0, 4), (1, 2))
    check_near(forward(model, **arguments), PlainTransformer(model, "symmetric")(**arguments))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_stays_near(dtype: torch.dtype) -> None:
    model = tiny.transformer()
    arguments = tiny.inputs(model, TEXT, FRAMES)
    exact = forward(model, **arguments)
    rough = forward(model.to(dtype), **arguments | {name: arguments[name].to(dtype) for name in ("hidden_states", "encoder_hidden_states")})
    assert rough.dtype == dtype
    assert (rough.float() - exact).abs().mean() < 0.05 * exact.abs().mean()


@pytest.mark.parametrize("max_shard_size", ["10GB", "50KB"])
def test_save_then_load_is_the_same_model(tmp_path: Path, max_shard_size: str) -> None:
    model = tiny.transformer()
    model.save_pretrained(tmp_path, max_shard_size=max_shard_size)
    assert len(list(tmp_path.glob("*.safetensors"))) == (1 if max_shard_size == "10GB" else 7)
    again = Mask2DiTTransformer3DModel.from_pretrained(tmp_path)
    assert {key: again.config[key] for key in model.config if not key.startswith("_")} == {
        key: value for key, value in model.config.items() if not key.startswith("_")
    }
    arguments = tiny.inputs(model, TEXT, FRAMES)
    assert torch.equal(forward(again, **arguments), forward(model, **arguments))


def test_a_folder_saved_by_cogvideox_loads(tmp_path: Path) -> None:
    model = tiny.transformer()
    theirs = stock(model)
    theirs.save_pretrained(tmp_path)
    ours = Mask2DiTTransformer3DModel.from_pretrained(tmp_path)
    arguments = tiny.inputs(model, (5,), (3,))
    expected = theirs(
        arguments["hidden_states"],
        arguments["encoder_hidden_states"],
        arguments["timestep"][:, 0],
        image_rotary_emb=ours.rotary_table(3, (2, 3)),
    ).sample
    assert ours.config.attention_plan == "symmetric"
    assert torch.equal(forward(ours, **arguments), expected)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"timestep": torch.zeros(2, 2)}, r"timestep: got shape \(2, 2\), expected \(2,\) or \(2, 3\)"),
        ({"layout": SceneLayout(TEXT, (12, 6, 12))}, "layout: got 30 video tokens, expected 36"),
        ({"layout": SceneLayout((3, 5, 5), (12, 6, 18))}, "layout: got 13 text tokens, expected 12"),
        ({"image_rotary_emb": (torch.zeros(6, 16), torch.zeros(6, 16))}, "image_rotary_emb: got 6 rows, expected 36"),
        ({"hidden_states": torch.zeros(2, 6, 4, 5, 6)}, "hidden_states: got 5 × 6 latent cells, expected multiples of the patch size 2"),
    ],
)
def test_arguments_that_disagree_are_refused(change: dict[str, Any], words: str) -> None:
    model = tiny.transformer()
    with pytest.raises(InputError, match=words):
        model(**tiny.inputs(model, TEXT, FRAMES) | change)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"use_rotary_positional_embeddings": False}, "use_rotary_positional_embeddings: got false"),
        ({"use_learned_positional_embeddings": True}, "learned positions"),
        ({"patch_size_t": 2}, "patch_size_t"),
        ({"ofs_embed_dim": 512}, "ofs_embed_dim"),
        ({"in_channels": 33}, "in_channels: got 33 .*CogVideoX-Fun InP has 33"),
        ({"attention_plan": "none"}, "plan: got 'none'"),
    ],
)
def test_other_variants_are_refused(change: dict[str, Any], words: str) -> None:
    with pytest.raises((ModelError, InputError), match=words):
        tiny.transformer(**change)
