"""The estimate: what it counts equals what real networks have, keep and compute; and the published recipes are read and estimated."""

import time
import weakref
from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path

import pytest
import torch
import yaml
from diffusers import AutoencoderKLCogVideoX
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter
from torch.utils.flop_counter import FlopCounterMode

import tiny
from mask2dit.errors import InputError, ModelError
from mask2dit.plans import PLANS, get_plan
from mask2dit.scene_layout import SceneLayout
from mask2dit.training.config import DiffusionRecipe, LoRAConfig, read_recipe
from mask2dit.training.estimate import (
    AUTOCAST,
    BFLOAT16,
    FLOAT32,
    VAE_LIVE_FRAMES,
    Arithmetic,
    block_activations,
    build_networks,
    described,
    estimate,
    groups_kept,
    sample_flop,
    step_activations,
)
from mask2dit.training.model import add_lora

RECIPES = Path(__file__).parents[2] / "recipes"
LIKE_5B = {"stage": "sft", "start_from": "weights/CogVideoX-5b", "num_scenes": 3, "latent_cache": "latents", "ema_decay": None}
LIKE_5B |= {"kind": "diffusion", "data": {"source": "json", "file": "a.json"}, "num_steps": 10, "batch_size": 8, "learning_rate": 1e-5}
LIKE_5B |= {"precision": "bfloat16", "gradient_checkpointing": True, "sharding": "fsdp"}


def published(name: str, runs: Path) -> DiffusionRecipe:
    recipe = read_recipe(RECIPES / f"cogvideox-5b-{name}.yaml", ["start_from=weights/CogVideoX-5b"], runs)
    assert isinstance(recipe, DiffusionRecipe)
    return recipe


def small(num_layers: int = 1, lora: bool = False, **changes: object) -> nn.Module:
    model = tiny.transformer(num_attention_heads=4, num_layers=num_layers, **changes)
    if lora:
        add_lora(model, LoRAConfig(rank=4, alpha=4), seed=0)
    return model.train()


def in_bfloat16(model: nn.Module) -> nn.Module:
    """As fsdp gathers the weights, or as they lie frozen under float32 adapters."""
    for name, parameter in model.named_parameters():
        parameter.data = parameter.data if "lora_" in name else parameter.data.bfloat16()
    return model


def kept_bytes(block: nn.Module, layout: SceneLayout, plan: str, batch: int, arithmetic: Arithmetic) -> int:
    """What autograd holds after one block's forward pass, each storage once; weights, their casts and the rotary table left out."""
    dtype = torch.float32 if arithmetic.low == 4 else torch.bfloat16
    width, head_dim = block.norm1.linear.out_features // 6, block.attn1.norm_q.normalized_shape[0]
    joint = torch.randn(batch, layout.num_tokens, width, dtype=dtype, requires_grad=True)
    learns = block.norm1.linear.weight.requires_grad
    temb = torch.randn(batch, layout.num_scenes, block.norm1.linear.in_features, dtype=dtype, requires_grad=learns)
    table = torch.randn(layout.num_tokens, head_dim), torch.randn(layout.num_tokens, head_dim)
    left_out = {tuple(value.shape) for value in block.parameters()} | {(1, len(table[0]), 1, head_dim)}
    left_out |= {shape[::-1] for shape in left_out}
    kept: dict[int, torch.UntypedStorage] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.shape not in left_out:
            kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor), torch.autocast("cpu", dtype, arithmetic.casts):
        block(joint, temb, layout.segment_lengths, get_plan(plan).pattern(layout), table)
    return sum(storage.nbytes() for storage in kept.values())


class LiveBytes(TorchDispatchMode):
    """The most bytes that were alive at once, of tensors that are made inside; those of `before` are not counted."""

    def __init__(self, before: Iterable[torch.Tensor]) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._sizes = {tensor.untyped_storage()._cdata: 0 for tensor in before}

    def __torch_dispatch__(self, function, types, arguments=(), options=None):
        made = function(*arguments, **(options or {}))
        for tensor in tree_iter(made):
            storage = tensor.untyped_storage() if isinstance(tensor, torch.Tensor) else None
            if storage is not None and storage._cdata not in self._sizes:
                self._sizes[storage._cdata] = storage.nbytes()
                self.now += storage.nbytes()
                self.peak = max(self.peak, self.now)
                weakref.finalize(storage, self._forget, storage._cdata)
        return made

    def _forget(self, key: int) -> None:
        self.now -= self._sizes.pop(key)


@pytest.fixture
def norms_as_on_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    """CUDA's autocast runs layer norms in float32, the CPU's does not."""
    layer_norm = nn.functional.layer_norm
    monkeypatch.setattr(nn.functional, "layer_norm", lambda states, *options: layer_norm(states.float(), *options))


@pytest.mark.parametrize("lora", [False, True])
@pytest.mark.parametrize("plan", PLANS)
@pytest.mark.parametrize(("head_dim", "batch", "per_scene"), [(16, 1, 96), (32, 2, 300)])
def test_a_block_keeps_what_the_law_says(lora: bool, plan: str, head_dim: int, batch: int, per_scene: int) -> None:
    block = small(lora=lora, attention_head_dim=head_dim).transformer_blocks[0]
    layout = SceneLayout((10,) * 3, (per_scene,) * 3)
    kept = kept_bytes(block, layout, plan, batch, FLOAT32)
    assert block_activations(block, layout, get_plan(plan).pattern(layout).groups, batch, FLOAT32) == pytest.approx(kept, rel=0.03)


@pytest.mark.parametrize("plan", PLANS)
@pytest.mark.usefixtures("norms_as_on_cuda")
def test_autocast_halves_what_the_law_halves(plan: str) -> None:
    block = small(attention_head_dim=32).transformer_blocks[0]
    layout = SceneLayout((10,) * 3, (300,) * 3)
    kept = kept_bytes(block, layout, plan, 1, AUTOCAST)
    assert block_activations(block, layout, get_plan(plan).pattern(layout).groups, 1, AUTOCAST) == pytest.approx(kept, rel=0.03)


@pytest.mark.parametrize("lora", [False, True])
@pytest.mark.parametrize("plan", PLANS)
def test_weights_in_bfloat16_keep_what_the_law_says(lora: bool, plan: str) -> None:
    block = in_bfloat16(small(lora=lora, attention_head_dim=32)).transformer_blocks[0]
    layout = SceneLayout((10,) * 3, (300,) * 3)
    kept = kept_bytes(block, layout, plan, 1, BFLOAT16)
    assert block_activations(block, layout, get_plan(plan).pattern(layout).groups, 1, BFLOAT16) == pytest.approx(kept, rel=0.05)


@pytest.mark.parametrize(
    ("lora", "arithmetic"), [(False, FLOAT32), (True, FLOAT32), (False, BFLOAT16), (True, BFLOAT16), (False, AUTOCAST)]
)
@pytest.mark.parametrize("plan", PLANS)
def test_merged_keeps_what_one_group_keeps(plan: str, arithmetic: Arithmetic, lora: bool, request: pytest.FixtureRequest) -> None:
    if arithmetic is AUTOCAST:
        request.getfixturevalue("norms_as_on_cuda")
    model = small(lora=lora, attention_head_dim=32)
    model.set_attention("merged", dtype=torch.bfloat16 if arithmetic.low == 2 else torch.float32)
    block = (in_bfloat16(model) if arithmetic is BFLOAT16 else model).transformer_blocks[0]
    layout = SceneLayout((10,) * 3, (300,) * 3)
    kept = kept_bytes(block, layout, plan, 1, arithmetic)
    assert block_activations(block, layout, get_plan("full").pattern(layout).groups, 1, arithmetic) == pytest.approx(kept, rel=0.05)


def test_the_estimate_counts_the_attention_that_trains(tmp_path: Path) -> None:
    layout, known = SceneLayout((10,) * 3, (300,) * 3), {("auto", "bfloat16"): 1, ("merged", "float32"): 1, ("flex", "bfloat16"): 1}
    known |= {("auto", "float32"): 6, ("grouped", "bfloat16"): 6}
    for (attention, precision), count in known.items():
        recipe = published("sft", tmp_path).model_copy(update={"attention": attention, "precision": precision})
        assert len(groups_kept(recipe, layout)) == count


@pytest.mark.parametrize("attention", ["grouped", "merged"])
@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize(
    ("lora", "arithmetic"), [(False, FLOAT32), (True, FLOAT32), (False, BFLOAT16), (True, BFLOAT16), (False, AUTOCAST)]
)
def test_a_whole_step_needs_what_the_estimate_says(
    attention: str, lora: bool, arithmetic: Arithmetic, checkpointing: bool, request: pytest.FixtureRequest
) -> None:
    if arithmetic is AUTOCAST:
        request.getfixturevalue("norms_as_on_cuda")
    model = small(num_layers=6, lora=lora)
    model.set_attention(attention)
    if checkpointing:
        model.enable_gradient_checkpointing()
    arguments = tiny.inputs(model, (8,) * 3, (32,) * 3, batch=1)
    if arithmetic is BFLOAT16:
        in_bfloat16(model)
        arguments |= {key: arguments[key].bfloat16() for key in ("hidden_states", "encoder_hidden_states")}
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter) if parameter.requires_grad else None
    gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    with LiveBytes([*model.parameters(), *gradients]) as live:
        with torch.autocast("cpu", torch.bfloat16, arithmetic.casts):
            loss = model(**arguments).sample.float().square().mean()
        loss.backward()
    layout = arguments["layout"]
    groups = get_plan("symmetric" if attention == "grouped" else "full").pattern(layout).groups
    forward, backward = step_activations(model, layout, groups, 1, arithmetic, checkpointing)
    if arithmetic.casts:  # and autocast's copies of the weights
        forward += 2 * sum(value.numel() for value in model.parameters())
        backward += 2 * sum(value.numel() for value in (model.transformer_blocks[0] if checkpointing else model).parameters())
    assert max(forward, backward) == pytest.approx(live.peak, rel=0.05)


@pytest.mark.parametrize("lora", [False, True])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_the_arithmetic_is_what_torch_counts(lora: bool, checkpointing: bool) -> None:
    model = small(num_layers=3, lora=lora)
    if checkpointing:
        model.enable_gradient_checkpointing()
    arguments = tiny.inputs(model, (8,) * 3, (12,) * 3, batch=1)
    groups = get_plan("symmetric").pattern(arguments["layout"]).groups
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        model(**arguments).sample.square().mean().backward()
    # With adapters, backward stops before what lies under the first of them: a share that falls with the number of layers.
    assert sample_flop(model, arguments["layout"], groups, checkpointing) == pytest.approx(counter.get_total_flops(), rel=0.04)


@pytest.mark.parametrize("num_frames", [13, 49])
def test_the_vae_needs_no_more_than_its_formula(num_frames: int) -> None:
    with torch.device("meta"):
        vae = AutoencoderKLCogVideoX().eval()
        pixels = torch.empty(1, 3, num_frames, 480, 720)
    with torch.no_grad(), LiveBytes([pixels, *vae.parameters()]) as live:
        vae.encode(pixels)
    assert 0.7 < live.peak / (4 * VAE_LIVE_FRAMES * 128 * 480 * 720) <= 1


def test_the_published_sizes_are_those_of_the_released_weights() -> None:
    networks = build_networks(DiffusionRecipe(**LIKE_5B))
    counts = [sum(value.numel() for value in part.parameters()) for part in (networks.transformer, networks.vae, networks.text_encoder)]
    assert counts == [5_570_283_072, 215_583_907, 4_762_310_656]
    assert networks.layout == SceneLayout((226,) * 3, (17_550,) * 3)


def test_the_published_recipes_are_read_and_estimated(tmp_path: Path) -> None:
    for name, devices, fits in (("pretrain", 8, "fits 48 GiB"), ("sft", 8, "fits 48 GiB"), ("lora-24gb", 1, "fits 24 GiB")):
        recipe, began = published(name, tmp_path), time.perf_counter()
        made = estimate(recipe, devices)
        assert time.perf_counter() - began < 5
        assert made.num_parameters == 5_570_283_072 and made.memory.fits == fits
        lines = made.lines()
        assert "by formula, not measured" in lines[0] and "the weights are not here" in lines[0]
        assert max(map(len, lines)) <= 140 and any(fits in line for line in lines)


def test_the_recipes_have_the_released_values(tmp_path: Path) -> None:
    for name in ("pretrain", "sft", "lora-24gb"):
        recipe = published(name, tmp_path)
        assert (recipe.betas, recipe.eps, recipe.weight_decay, recipe.max_grad_norm) == ((0.9, 0.999), 1e-10, 0.03, 0.05)
        assert recipe.ema_decay is None and recipe.empty_caption == 0 and recipe.decay == 0 and recipe.num_scenes == 3
    pretrain, sft = published("pretrain", tmp_path), published("sft", tmp_path)
    assert (pretrain.known_sets, sft.known_sets) == ({"none": 1.0}, {"none": 0.5, "all-but-last": 0.5})
    assert pretrain.learning_rate == sft.learning_rate == 1e-5 and pretrain.warmup_steps == sft.warmup_steps == 100


def test_a_model_folder_is_counted_as_it_is(tmp_path: Path) -> None:
    model = tiny.save_pipeline(tmp_path / "model")
    recipe = DiffusionRecipe(**(LIKE_5B | {"start_from": str(model), "precision": "float32", "train_text_encoder": True}))
    made, pipeline = estimate(recipe), tiny.pipeline()
    assert made.note is None and made.num_parameters == sum(value.numel() for value in pipeline.transformer.parameters())
    assert made.num_text_encoder == sum(value.numel() for value in pipeline.text_encoder.parameters())
    assert made.layout == SceneLayout((64,) * 3, (18,) * 3)
    assert made.memory.weights == 4 * (made.num_parameters + made.num_text_encoder)


def test_a_new_model_is_counted_from_its_parts(tmp_path: Path) -> None:
    parts = str(tiny.save_pipeline(tmp_path / "model"))
    sizes = {"num_attention_heads": 2, "attention_head_dim": 16, "num_layers": 2, "time_embed_dim": 16, "patch_size": 2}
    new = {"start_from": None, "transformer": sizes, "vae_from": parts, "text_from": parts}
    made = estimate(DiffusionRecipe(**(LIKE_5B | new | {"data": {"source": "playhouse", "level": "A", "num_stories": 1}})))
    assert made.layout == SceneLayout((64,) * 3, (3 * 8 * 12,) * 3)
    assert made.memory.encoders > 0, "the playhouse's captions are drawn anew, so the text encoder stays"


def test_sharding_divides_and_copies_do_not() -> None:
    made = estimate(DiffusionRecipe(**(LIKE_5B | {"ema_decay": 0.999})), 8)
    sharded = [made.table[count, "fsdp"] for count in (1, 2, 4, 8)]
    copied = [made.table[count, "none"] for count in (1, 2, 4, 8)]
    assert all(more.total > less.total for more, less in pairwise(sharded))
    for part in ("weights", "optimizer", "ema"):
        assert len({getattr(memory, part) for memory in copied}) == 1
        assert getattr(copied[0], part) == 8 * getattr(sharded[-1], part)
    assert {memory.gradients for memory in copied} == {4 * made.num_trained}
    assert made.memory == sharded[-1] and made.micro_batch == 1


def test_fsdp_shards_gradients_while_micro_batches_add_up() -> None:
    made = estimate(DiffusionRecipe(**(LIKE_5B | {"micro_batch_size": 1})), 8)
    for count in (4, 8):
        assert made.table[count, "fsdp"].gradients == 4 * made.num_trained // count


def test_adapters_are_counted_as_they_are() -> None:
    made = estimate(DiffusionRecipe(**(LIKE_5B | {"lora": {"rank": 64}, "sharding": "none"})))
    model = small(num_layers=2, lora=True)
    trained = sum(value.numel() for value in model.parameters() if value.requires_grad)
    assert trained == 2 * 4 * 2 * 4 * 64, "layers, projections, matrices, rank, width"
    assert (made.num_parameters, made.num_trained) == (5_570_283_072, 42 * 4 * 2 * 64 * 3072)
    assert made.memory.gradients == 4 * made.num_trained and made.memory.ema == 0
    assert made.memory.weights == 2 * made.num_parameters + 4 * made.num_trained
    assert "LoRA, rank 64" in made.lines()[1]


def test_without_a_cache_the_encoders_are_there() -> None:
    made, cached = (estimate(DiffusionRecipe(**(LIKE_5B | {"latent_cache": folder}))) for folder in (None, "latents"))
    assert cached.memory.encoders == 0
    assert made.memory.encoders >= 2 * 215_583_907 + 2 * 4_762_310_656


def test_a_shown_recipe_has_all_its_values() -> None:
    recipe = DiffusionRecipe(**LIKE_5B)
    lines = described(recipe, 8)
    blank = lines.index("")
    assert DiffusionRecipe(**yaml.safe_load("\n".join(lines[:blank]))) == recipe
    assert lines[blank + 1 :] == estimate(recipe, 8).lines()


@pytest.mark.parametrize(
    ("changes", "devices", "words"),
    [
        ({"start_from": "runs/nothing/model"}, 1, "start_from: got runs/nothing/model"),
        ({}, 3, "batch_size: got 8 for 3 devices"),
        ({"lora": {"target_modules": ["to_z"]}}, 1, "lora.target_modules"),
        ({"plan": "none"}, 1, "plan: got 'none'"),
        ({"video": {"height": 481, "width": 720, "num_frames": 49, "fps": 8}}, 1, "height: got 481"),
    ],
)
def test_what_cannot_be_is_said_in_one_line(changes: dict, devices: int, words: str) -> None:
    with pytest.raises(InputError, match=words) as caught:
        estimate(DiffusionRecipe(**(LIKE_5B | changes)), devices)
    assert "\n" not in str(caught.value)


def test_a_folder_that_is_no_model_is_said_in_one_line(tmp_path: Path) -> None:
    model = tiny.save_pipeline(tmp_path / "model")
    (model / "vae" / "config.json").unlink()
    with pytest.raises(ModelError, match="vae") as caught:
        estimate(DiffusionRecipe(**(LIKE_5B | {"start_from": str(model)})))
    assert "\n" not in str(caught.value)
