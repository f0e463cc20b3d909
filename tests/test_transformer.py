"""The transformer: CogVideoX with one scene, its definition with several, and who notices a changed caption."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import CogVideoXTransformer3DModel
from diffusers.models.embeddings import get_3d_sincos_pos_embed
from torch import Tensor

import tiny
from mask2dit import Mask2DiTTransformer3DModel, SceneLayout, load_pipeline
from mask2dit.errors import InputError, ModelError
from mask2dit.sinusoidal import add_positions, sinusoidal_tables
from mask2dit.training.objective import scene_loss
from reference import MEETINGS, PlainTransformer

TEXT, FRAMES = (3, 5, 4), (2, 1, 3)  # unequal scenes
SINUSOIDAL = {"use_rotary_positional_embeddings": False, "temporal_interpolation_scale": 0.8}  # like CogVideoX-2b, whose 0.8 is 1


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
    return twin.eval().to(model.dtype)


@torch.no_grad()
def stock_forward(twin: CogVideoXTransformer3DModel, model: Mask2DiTTransformer3DModel, arguments: dict[str, Any]) -> torch.Tensor:
    """What CogVideoX makes of these frames and of this text as its one scene, at the first scene's timestep."""
    latents = arguments["hidden_states"]
    rotary = model.rotary_table(latents.shape[1], (latents.shape[3] // 2, latents.shape[4] // 2))
    return twin(latents, arguments["encoder_hidden_states"], arguments["timestep"][:, 0], image_rotary_emb=rotary).sample


@pytest.mark.parametrize("plan", MEETINGS)
@pytest.mark.parametrize("positions", [{}, SINUSOIDAL], ids=["rotary", "sinusoidal"])
@pytest.mark.parametrize(("frames", "size"), [(3, (4, 6)), (3, (8, 6)), (3, (4, 10)), (5, (4, 6))], ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_one_scene_is_cogvideox_bit_for_bit(
    plan: str, positions: dict[str, Any], frames: int, size: tuple[int, int], dtype: torch.dtype
) -> None:
    """At the trained size, at others, and for another number of frames."""
    model = tiny.transformer(attention_plan=plan, max_text_seq_length=5, **positions).to(dtype)
    generator = torch.Generator().manual_seed(1)
    arguments = {
        "hidden_states": torch.randn(2, frames, 4, *size, generator=generator).to(dtype),
        "encoder_hidden_states": torch.randn(2, 5, 20, generator=generator).to(dtype),
        "timestep": torch.tensor([[999], [321]]),
        "layout": SceneLayout((5,), (frames * size[0] * size[1] // 4,)),
    }
    theirs = stock_forward(stock(model), model, arguments)
    assert theirs.dtype == dtype
    assert torch.equal(forward(model, **arguments), theirs)
    assert torch.equal(forward(model, **arguments | {"timestep": arguments["timestep"][:, 0]}), theirs)


def test_dropout_falls_on_the_tokens_that_it_falls_on_in_cogvideox() -> None:
    model = tiny.transformer(max_text_seq_length=5, dropout=0.5, **SINUSOIDAL)
    arguments = tiny.inputs(model, (5,), (3,))
    outputs = []
    for trained, inputs in ((model, arguments), (stock(model), arguments | {"timestep": arguments["timestep"][:, 0]})):
        if trained is not model:
            del inputs["layout"]
        torch.manual_seed(0)
        outputs.append(trained.train()(**inputs).sample)
    assert torch.equal(*outputs)
    assert not torch.equal(outputs[0], forward(model.eval(), **arguments))


RELEASED = {  # CogVideoX-5b and -2b: what differs from the defaults of diffusers, which are those of 2b
    "5b": ({"num_attention_heads": 48, "num_layers": 42, "use_rotary_positional_embeddings": True}, 1024, 5_570_283_072),
    "2b": ({"num_attention_heads": 30, "num_layers": 30, "use_rotary_positional_embeddings": False}, 736, 1_693_783_872),
}


@pytest.mark.parametrize("name", RELEASED)
def test_parameters_are_named_and_shaped_as_in_cogvideox(name: str) -> None:
    config, num_tensors, num_parameters = RELEASED[name]
    with torch.device("meta"):
        ours, theirs = Mask2DiTTransformer3DModel(**config), CogVideoXTransformer3DModel(**config)
    shapes = {key: value.shape for key, value in ours.state_dict().items()}
    assert shapes == {key: value.shape for key, value in theirs.state_dict().items()}
    assert len(shapes) == num_tensors
    assert sum(parameter.numel() for parameter in ours.parameters()) == num_parameters
    assert not list(ours.buffers())


class PlainSinusoidal(PlainTransformer):
    """With positions that are added token by token, and nothing turned."""

    def _patches(self, latents: Tensor, grid: tuple[int, int]) -> Tensor:
        self.angles = torch.zeros_like(self.angles)
        space, time = self.config.spatial_interpolation_scale, self.config.temporal_interpolation_scale

        def waves(position: float, channels: int) -> list[float]:
            angles = [position / 10000.0 ** (2 * pair / channels) for pair in range(channels // 2)]
            return [math.sin(angle) for angle in angles] + [math.cos(angle) for angle in angles]

        table = [
            waves(frame / time, self.dim // 4) + waves(column / space, self.dim * 3 // 8) + waves(row / space, self.dim * 3 // 8)
            for frame in range(latents.shape[1])
            for row in range(grid[0])
            for column in range(grid[1])
        ]
        return super()._patches(latents, grid) + torch.tensor(table, dtype=torch.float64)


@pytest.mark.parametrize("plan", MEETINGS)
@pytest.mark.parametrize(("positions", "plain"), [({}, PlainTransformer), (SINUSOIDAL, PlainSinusoidal)], ids=["rotary", "sinusoidal"])
@pytest.mark.parametrize(("text", "frames"), [(TEXT, FRAMES), ((4, 4), (2, 2)), ((4, 4), (3, 1))], ids=str)
def test_several_scenes_are_the_definition_in_float64(
    plan: str, positions: dict[str, Any], plain: type[PlainTransformer], text: tuple[int, ...], frames: tuple[int, ...]
) -> None:
    model = tiny.transformer(attention_plan=plan, **positions)
    arguments = tiny.inputs(model, text, frames)
    arguments["timestep"][0, 1] = 0  # a known scene
    exact = plain(model, plan)(**arguments)
    check_near(forward(model, **arguments), exact)


# Sinusoidal positions


@pytest.mark.parametrize(("frames", "grid"), [(1, (1, 1)), (13, (2, 3)), (39, (3, 2))], ids=str)
def test_the_small_tables_are_the_table_of_diffusers(frames: int, grid: tuple[int, int]) -> None:
    tables = sinusoidal_tables(frames, grid, 1920, spatial_scale=1.875, temporal_scale=0.7)
    assert [tuple(table.shape) for table in tables] == [(frames, 480), (grid[1], 720), (grid[0], 720)]
    theirs = get_3d_sincos_pos_embed(1920, (grid[1], grid[0]), frames, 1.875, 0.7).flatten(0, 1)  # [F·rows·columns, D]
    assert theirs.dtype == torch.float64
    for dtype in (torch.float64, torch.float32, torch.bfloat16):
        ours = add_positions(torch.zeros(1, 4 + len(theirs), 1920, dtype=dtype), 4, tables)
        assert not ours[0, :4].any()
        assert torch.equal(ours[0, 4:], theirs.to(dtype))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_time_runs_on_over_scenes(dtype: torch.dtype) -> None:
    """Scenes that all meet are CogVideoX's one scene over the joined frames, with their captions as its text."""
    model = tiny.transformer(attention_plan="full", max_text_seq_length=sum(TEXT), **SINUSOIDAL).to(dtype)
    arguments = tiny.inputs(model, TEXT, FRAMES)
    arguments |= {name: arguments[name].to(dtype) for name in ("hidden_states", "encoder_hidden_states")}
    arguments["timestep"] = arguments["timestep"][:, :1].expand(-1, 3)
    twin = stock(model)
    entering: list[Tensor] = []  # the first block's joint sequence
    model.transformer_blocks[0].norm1.register_forward_pre_hook(lambda _, inputs: entering.append(inputs[0]))
    twin.transformer_blocks[0].norm1.register_forward_pre_hook(lambda _, inputs: entering.append(torch.cat(inputs[1::-1], dim=1)))
    ours, theirs = forward(model, **arguments), stock_forward(twin, model, arguments)
    assert len(entering) == 2 and torch.equal(*entering)
    torch.testing.assert_close(ours, theirs)  # not equal: three rows of timesteps are multiplied where theirs is one


def test_nothing_is_rotated_with_sinusoidal_positions() -> None:
    model = tiny.transformer(**SINUSOIDAL)
    arguments = tiny.inputs(model, TEXT, FRAMES)
    assert model.rotary_table(6, (2, 3)) is None
    with pytest.raises(InputError, match="image_rotary_emb: got a table for a model with sinusoidal positions, expected None"):
        model(**arguments, image_rotary_emb=tiny.transformer().rotary_table(6, (2, 3)))
    with pytest.raises(ModelError, match="got 24, expected a multiple of 16 for sinusoidal positions"):
        tiny.transformer(num_attention_heads=3, attention_head_dim=8, **SINUSOIDAL)


def test_trained_and_compiled_with_sinusoidal_positions() -> None:
    model = tiny.transformer(num_layers=2, **SINUSOIDAL)
    arguments = tiny.inputs(model, TEXT, FRAMES)
    arguments["timestep"][:, 0] = 0

    def gradients() -> dict[str, Tensor]:
        model.zero_grad()
        loss, _, _ = scene_loss(
            model,
            arguments["hidden_states"],
            arguments["hidden_states"].flip(0),
            torch.tensor([999, 321]),
            {0},
            arguments["encoder_hidden_states"],
            arguments["layout"],
            tiny.released_scheduler(),
        )
        loss.backward()
        return {name: parameter.grad.clone() for name, parameter in model.named_parameters()}

    plain = gradients()
    assert all(value.any() for value in plain.values())
    model.enable_gradient_checkpointing()
    checkpointed = gradients()
    assert all(torch.equal(plain[name], checkpointed[name]) for name in plain)
    exact = forward(model, **arguments)
    model.compile_repeated_blocks(fullgraph=True, backend="eager")
    assert torch.allclose(forward(model, **arguments), exact, atol=1e-5)


def test_films_with_sinusoidal_positions(tmp_path: Path) -> None:
    pipeline = tiny.pipeline()
    pipeline.register_modules(transformer=tiny.transformer(max_text_seq_length=64, **SINUSOIDAL))
    captions = ["a red fox walks", "the fox jumps", "a blue bear sleeps"]

    def film(**options: Any) -> list[Tensor]:
        return pipeline(captions, generator=torch.Generator().manual_seed(0), output_type="latent", **options).scenes

    made = film()
    assert [tuple(scene.shape) for scene in made] == [(3, 4, 4, 6)] * 3 and all(scene.isfinite().all() for scene in made)
    known = film(known_scenes={0: made[0] + 1})
    assert torch.equal(known[0], made[0] + 1) and not torch.equal(known[1], made[1])
    pipeline.save_pretrained(tmp_path)
    pipeline = load_pipeline(tmp_path, attention="grouped")
    assert not pipeline.transformer.config.use_rotary_positional_embeddings
    assert all(torch.equal(one, other) for one, other in zip(film(), made, strict=True))


# Either kind of positions


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
@pytest.mark.parametrize("positions", [{}, SINUSOIDAL], ids=["rotary", "sinusoidal"])
def test_save_then_load_is_the_same_model(tmp_path: Path, positions: dict[str, Any], max_shard_size: str) -> None:
    model = tiny.transformer(**positions)
    model.save_pretrained(tmp_path, max_shard_size=max_shard_size)
    assert len(list(tmp_path.glob("*.safetensors"))) == (1 if max_shard_size == "10GB" else 7)
    again = Mask2DiTTransformer3DModel.from_pretrained(tmp_path)
    assert {key: again.config[key] for key in model.config if not key.startswith("_")} == {
        key: value for key, value in model.config.items() if not key.startswith("_")
    }
    arguments = tiny.inputs(model, TEXT, FRAMES)
    assert torch.equal(forward(again, **arguments), forward(model, **arguments))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("positions", [{}, SINUSOIDAL], ids=["rotary", "sinusoidal"])
def test_a_folder_saved_by_cogvideox_loads(tmp_path: Path, positions: dict[str, Any], dtype: torch.dtype) -> None:
    stock(tiny.transformer(max_text_seq_length=5, **positions)).save_pretrained(tmp_path)
    ours, theirs = (
        cls.from_pretrained(tmp_path, torch_dtype=dtype).eval() for cls in (Mask2DiTTransformer3DModel, CogVideoXTransformer3DModel)
    )
    arguments = tiny.inputs(ours, (5,), (3,))
    arguments |= {name: arguments[name].to(dtype) for name in ("hidden_states", "encoder_hidden_states")}
    assert ours.config.attention_plan == "symmetric"
    assert torch.equal(forward(ours, **arguments), stock_forward(theirs, ours, arguments))


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
        ({"use_learned_positional_embeddings": True}, "use_learned_positional_embeddings: got true .*CogVideoX-5b-I2V"),
        (SINUSOIDAL | {"use_learned_positional_embeddings": True}, "use_learned_positional_embeddings: got true"),
        ({"patch_size_t": 2}, r"patch_size_t: got 2 \(CogVideoX 1.5\)"),
        ({"ofs_embed_dim": 512}, r"ofs_embed_dim: got 512 \(CogVideoX 1.5 image-to-video\)"),
        ({"in_channels": 33}, "in_channels: got 33 .*CogVideoX-Fun InP has 33"),
        ({"attention_plan": "none"}, "plan: got 'none'"),
    ],
)
def test_other_variants_are_refused(change: dict[str, Any], words: str) -> None:
    with pytest.raises((ModelError, InputError), match=words):
        tiny.transformer(**change)
