"""Memory modes: each gives the film of the plain mode, takes what was counted, and is chosen when it must be."""

import gc
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from diffusers.hooks.hooks import BaseState
from torch.utils._pytree import tree_leaves

import tiny
from mask2dit import Mask2DiTPipeline, load_pipeline
from mask2dit.context_cache import ContextCache
from mask2dit.errors import InputError
from mask2dit.footprint import Footprint, footprint
from mask2dit.latents import decode_latents, use_tiles
from mask2dit.loading import builtin_model, choose_memory, folder_needs
from mask2dit.memory import (
    GIB,
    Choice,
    Kept,
    MemoryMode,
    Needs,
    Part,
    choose,
    count_needs,
    modes,
    parse_bytes,
)
from mask2dit.video_shape import Compression, VideoShape
from mask2dit.weight_formats import WEIGHTS, apply_weights, eligible_layers

CAPTIONS = ["a red fox walks", "the fox jumps", "a blue bear sleeps"]
EXACT = [
    MemoryMode(text_first=True),
    MemoryMode(offload="model"),
    MemoryMode(text_first=True, offload="model"),
    MemoryMode(text_first=True, offload="group"),
    MemoryMode(text_first=True, offload="disk"),
]
# The largest error of latents, as a share of their spread, on the built-in model (8 bits keep 2 to 3 digits of a weight).
APPROXIMATE = {"bf16": 0.05, "fp8-storage": 0.15, "fp8": 0.15, "int8": 0.05}
TILED_VAE = 0.02  # mean difference of pixels in 0..1


def film(pipeline: Mask2DiTPipeline, **options: object) -> torch.Tensor:
    generators = [torch.Generator().manual_seed(seed) for seed in range(len(CAPTIONS))]
    return torch.cat(pipeline(CAPTIONS, generator=generators, output_type="latent", **options).scenes)


@pytest.fixture(scope="module")
def plain(model_folder: Path) -> torch.Tensor:
    return film(load_pipeline(model_folder))


@pytest.fixture
def bfloat16_pays(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a processor that multiplies it fast."""
    monkeypatch.setattr("mask2dit.weight_formats.multiplies_bfloat16", lambda _: True)


# Every mode gives the film of the plain one


@pytest.mark.parametrize("mode", EXACT, ids=lambda mode: f"{mode.offload}{'-text-first' * mode.text_first}")
def test_offloading_changes_nothing(mode: MemoryMode, model_folder: Path, plain: torch.Tensor) -> None:
    pipeline = load_pipeline(model_folder, memory=mode)
    assert (pipeline.text_encoder is None) == mode.text_first
    assert torch.equal(film(pipeline), plain)
    assert torch.equal(film(pipeline), plain)  # and again


@pytest.mark.parametrize("offload", ["none", "group", "disk"])
def test_the_name_of_the_weights_is_the_same_however_they_are_kept(offload: str, model_folder: Path) -> None:
    """So a film that is made already is known as such."""
    named = {load_pipeline(model_folder, memory=MemoryMode(text_first=first, offload=offload)).fingerprint() for first in (False, True)}
    assert named == {load_pipeline(model_folder).fingerprint()}


@pytest.mark.usefixtures("bfloat16_pays")
@pytest.mark.parametrize("weights", APPROXIMATE)
@pytest.mark.parametrize("offload", ["none", "model", "group", "disk"])
def test_weights_in_8_bits_stay_close(weights: str, offload: str) -> None:
    if offload == "disk" and weights in ("fp8", "int8"):
        pytest.skip("not offered: torchao's tensors cannot be written")
    exact = built_in_film(MemoryMode())
    rough = built_in_film(MemoryMode(weights=weights, offload=offload))
    error = (rough - exact).std() / exact.std()
    assert 0 < error < APPROXIMATE[weights]
    assert torch.equal(rough, built_in_film(MemoryMode(weights=weights)))


FILMS: dict[MemoryMode, torch.Tensor] = {}


def built_in_film(mode: MemoryMode) -> torch.Tensor:
    if mode not in FILMS:
        FILMS[mode] = film(load_pipeline(memory=mode), num_inference_steps=3)
    return FILMS[mode]


def test_tiles_stay_close() -> None:
    pipeline = load_pipeline()
    latents = pipeline(["a red fox walks right in the meadow"], num_inference_steps=3, output_type="latent").scenes[0]
    whole = pipeline.decode_scene(latents)
    tiled = load_pipeline(memory=MemoryMode(tiled_vae=True)).decode_scene(latents)
    assert tiled.shape == whole.shape
    assert 0 < abs(tiled - whole).mean() < TILED_VAE


@pytest.mark.parametrize("size", [(64, 96), (80, 112), (60, 92), (480, 720)])
def test_tiles_have_the_size_of_the_film(size: tuple[int, int]) -> None:
    """Whatever size the VAE was made for."""
    with torch.device("meta"):
        vae = type(tiny.vae()).from_config({**tiny.vae().config, "sample_height": size[0], "sample_width": size[1]})
    use_tiles(vae)
    scene = torch.empty(1, 4, size[0] // 4, size[1] // 4 + 2, device="meta")
    assert decode_latents(vae, scene, scene.device).shape == (1, 3, size[0] // 4 * 4, size[1] // 4 * 4 + 8)


@pytest.mark.slow
def test_adapters_go_into_weights_of_8_bits(model_folder: Path, tmp_path: Path) -> None:
    from peft import LoraConfig
    from peft.utils import get_peft_model_state_dict

    pipeline = tiny.pipeline()
    pipeline.transformer.add_adapter(LoraConfig(r=2, lora_alpha=2, target_modules=["to_q", "to_k", "to_v", "to_out.0"]))
    for name, value in pipeline.transformer.named_parameters():
        if "lora_B" in name:
            value.data.normal_(generator=torch.Generator().manual_seed(1))
    Mask2DiTPipeline.save_lora_weights(tmp_path, transformer_lora_layers=get_peft_model_state_dict(pipeline.transformer))
    adapted, base = film(load_pipeline(model_folder, lora=tmp_path)), film(load_pipeline(model_folder))
    for weights in ("fp8-storage", "int8"):
        kept = load_pipeline(model_folder, lora=tmp_path, memory=MemoryMode(weights=weights))
        assert not any("lora" in name for name, _ in kept.transformer.named_parameters())
        assert (film(kept) - adapted).norm() < 0.5 * (adapted - base).norm()
    for offload in ("model", "group", "disk"):
        assert torch.equal(film(load_pipeline(model_folder, lora=tmp_path, memory=MemoryMode(offload=offload))), adapted)


def test_every_layer_of_an_offloaded_network_comes_and_goes(model_folder: Path) -> None:
    """On the CPU nothing moves, so that the hooks are looked at: one for each block, and for each layer of the text encoder."""
    pipeline = load_pipeline(model_folder, memory=MemoryMode(offload="group"))
    for layer in (*pipeline.transformer.transformer_blocks, pipeline.text_encoder.encoder.block[0].layer[0].SelfAttention.q):
        assert layer._diffusers_hook.get_hook("group_offloading") is not None


def test_weights_on_disk_are_not_saved_from_there(model_folder: Path, tmp_path: Path) -> None:
    pipeline = load_pipeline(model_folder, memory=MemoryMode(offload="disk"))
    with pytest.raises(InputError, match="save_pretrained: the weights wait on disk; load the pipeline without that memory mode"):
        pipeline.save_pretrained(tmp_path / "saved")
    assert not (tmp_path / "saved").exists()


def test_what_a_killed_process_left_on_disk_goes(model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    left, other = tmp_path / f"mask2dit-offload-{process.pid}-x", tmp_path / f"mask2dit-offload-{os.getppid()}-x"
    for folder in (left, other):
        folder.mkdir()
    pipeline = load_pipeline(model_folder, memory=MemoryMode(offload="disk"))
    mine = list(tmp_path.glob(f"mask2dit-offload-{os.getpid()}-*"))
    assert not left.exists() and other.exists() and len(mine) == 2
    del pipeline
    gc.collect()
    assert not any(folder.exists() for folder in mine)


def test_captions_given_at_once_are_encoded_alone(model_folder: Path, plain: torch.Tensor, counted_encoder: list[str]) -> None:
    """Before the other networks are there, and without a cache on disk."""
    pipeline = load_pipeline(model_folder, memory=MemoryMode(text_first=True), captions=[*CAPTIONS, ""])
    assert sorted(counted_encoder) == sorted([*CAPTIONS, ""])
    assert torch.equal(film(pipeline), plain) and len(counted_encoder) == 4


def test_several_processes_of_a_branch_each_make_their_share() -> None:
    """Guidance branches side by side make as much each; what shares a sequence makes less, but for what goes in and out."""

    def working(processes: int, branches: int = 2) -> int:
        networks = [tiny.transformer(num_attention_heads=4, sample_height=16, sample_width=24), tiny.vae()]
        shape = VideoShape(64, 96, (9,) * 3, Compression(4, 4, 2))
        with torch.device("meta"):
            transformer, vae = (each.to("meta") for each in networks)
        return count_needs(transformer, vae, None, shape, torch.float32, "cuda", Kept(branches, processes=processes)).transformer.working

    alone = working(1)
    assert working(2) == working(1, branches=1) == alone
    assert alone / 2 < working(4) == working(2, branches=1) < 0.75 * alone
    assert alone / 4 < working(8) == working(4, branches=1) < 0.5 * alone
    assert working(3) == alone  # heads do not divide, which is told when the model is loaded


@pytest.mark.usefixtures("bfloat16_pays")
def test_weights_are_kept_in_fewer_bits(model_folder: Path) -> None:
    for weights in WEIGHTS[1:]:
        transformer = load_pipeline(model_folder, memory=MemoryMode(weights=weights)).transformer
        layers = eligible_layers(transformer)
        assert len(layers) == 3 * 6  # blocks × (q, k, v, out, two of the feed-forward)
        kept = [getattr(layer.weight, "qdata", layer.weight) for layer in layers]
        assert {value.element_size() for value in kept} == {2 if weights == "bf16" else 1}
        assert transformer.dtype == torch.float32  # what is computed in


def test_bfloat16_is_taken_where_it_pays(model_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mask2dit.weight_formats.multiplies_bfloat16", lambda _: False)
    with pytest.raises(InputError, match=r"--weights bf16: this processor multiplies bfloat16 no faster than float32, so .*; use plain"):
        load_pipeline(model_folder, memory=MemoryMode(weights="bf16"))


def test_fp8_needs_a_device_that_has_it(model_folder: Path) -> None:
    transformer = tiny.transformer()
    for weights in ("fp8-storage", "fp8"):
        with pytest.raises(InputError, match=f"--weights {weights}: mps cannot convert 8-bit floats; use int8 or plain"):
            apply_weights(transformer, weights, torch.device("mps"))  # none here


# What is counted


def needs(num_scenes: int = 3, device: str = "cpu") -> Needs:
    pipeline = tiny.pipeline()
    with torch.device("meta"):
        networks = [type(each).from_config(each.config) for each in (pipeline.transformer, pipeline.vae)]
        text = type(pipeline.text_encoder)(pipeline.text_encoder.config)
    return count_needs(*networks, text, VideoShape(16, 24, (9,) * num_scenes, Compression(4, 4, 2)), torch.float32, device)


def test_parts_are_counted_as_they_are() -> None:
    counted, pipeline = needs(), tiny.pipeline()
    for part, network in ((counted.text, pipeline.text_encoder), (counted.transformer, pipeline.transformer), (counted.vae, pipeline.vae)):
        assert part is not None and part.weights == sum(value.numel() * value.element_size() for value in network.parameters())
    blocks = pipeline.transformer.transformer_blocks
    assert counted.transformer.outside + len(blocks) * counted.transformer.block == counted.transformer.weights
    assert counted.quantized["plain"] == counted.transformer.weights


def test_arithmetic_of_all_blocks_follows_from_two() -> None:
    model = tiny.transformer(num_layers=3).to("meta")
    shape = VideoShape(16, 24, (9, 5), Compression(4, 4, 2))
    there = {
        "hidden_states": torch.empty(1, 5, 4, 4, 6, device="meta"),
        "encoder_hidden_states": torch.empty(1, 32, 20, device="meta"),
        "timestep": torch.empty(1, 2, device="meta"),
        "layout": shape.layout(16),
    }
    whole = footprint(lambda: model(**there))
    vae = tiny.vae().to("meta")
    counted = count_needs(model, vae, None, shape, torch.float32, "cpu").transformer.call
    assert counted == whole


@pytest.mark.usefixtures("bfloat16_pays")
@pytest.mark.parametrize("weights", WEIGHTS[1:])
def test_weights_of_fewer_bits_are_counted_as_they_are(weights: str) -> None:
    counted = needs().quantized[weights]
    transformer = tiny.pipeline().transformer
    apply_weights(transformer, weights, torch.device("cpu"))
    real = 0
    for value in transformer.parameters():
        parts = [getattr(value, name) for name in getattr(value, "tensor_data_names", ())] or [value]
        real += sum(part.numel() * part.element_size() for part in parts)
    assert counted == pytest.approx(real, rel=0.02)


@pytest.mark.parametrize(
    ("plan", "kept"),
    [
        ("context-blind", Kept(2, 3)),
        ("context-blind", Kept(1, 3)),
        ("symmetric", Kept(2, 0, "pyramid:2")),
        ("symmetric", Kept(1, 0, "first-block:0")),
        ("context-blind", Kept(2, 3, "first-block:0")),
        ("full", Kept(2)),
    ],
)
def test_what_is_kept_between_steps_is_counted_as_it_is(plan: str, kept: Kept) -> None:
    """Against the tensors that hooks and contexts hold after a step: three scenes of 2, 1 and 3 latent frames, of which two are known."""
    pipeline = tiny.pipeline()
    transformer = pipeline.transformer
    transformer.set_attention_plan(plan)
    known = {0: torch.randn(2, 4, 4, 6), 1: torch.randn(1, 4, 4, 6)} if kept.context_frames else {}
    held: list[int] = []

    def look(*_: object) -> dict[str, object]:
        contexts = [each for each in gc.get_objects() if isinstance(each, ContextCache) and each.is_filled]
        tensors = [tensor for context in contexts for layer in context._layers for tensor in layer._kept]
        states = [each for each in gc.get_objects() if isinstance(each, BaseState)]
        values = tree_leaves([vars(each) for each in states])
        cached = {id(value): value for value in values if isinstance(value, torch.Tensor)}
        held.append(sum(tensor.nbytes for tensor in [*tensors, *cached.values()]))
        return {}

    guidance, generator = 6.0 if kept.branches == 2 else 1.0, torch.Generator().manual_seed(0)
    options = {"num_frames": [5, 1, 9], "guidance_scale": guidance, "num_inference_steps": 1, "step_cache": kept.step_cache}
    gc.collect()
    pipeline(CAPTIONS, known_scenes=known, generator=generator, output_type="latent", callback_on_step_end=look, **options)
    shape = VideoShape(16, 24, (5, 1, 9), Compression(4, 4, 2))
    layout = shape.layout(transformer.config.max_text_seq_length)
    assert kept.num_bytes(transformer, layout, 6) == held[0] == 4 * replace(kept, processes=4).num_bytes(transformer, layout, 6)
    twin = type(transformer).from_config(transformer.config).to("meta")
    counted = count_needs(twin, tiny.vae().to("meta"), None, shape, torch.float32, "cpu", kept)
    assert counted.stages(MemoryMode())["denoising"] - replace(counted, kept_bytes=0).stages(MemoryMode())["denoising"] == held[0]


def test_tiles_are_counted_as_they_decode() -> None:
    """One tile is counted and the rest follows; here all of them are."""
    with torch.device("meta"):
        vae = type(tiny.vae()).from_config({**tiny.vae().config, "sample_height": 64, "sample_width": 96})
    shape = VideoShape(64, 96, (5,), Compression(4, 4, 2))
    counted = count_needs(tiny.transformer().to("meta"), vae, None, shape, torch.float32, "cuda").tiled_vae_bytes
    assert vae.use_tiling
    scene = torch.empty(2, 4, 16, 24, device="meta")
    real = footprint(lambda: decode_latents(vae, scene, scene.device)).peak_bytes
    assert counted == pytest.approx(real, rel=0.25)


def test_the_decoder_takes_one_scene_however_many_there_are() -> None:
    assert needs(12).vae == needs(1).vae
    assert needs(12).transformer.call.peak_bytes > 5 * needs(1).transformer.call.peak_bytes


# What is chosen


def part(weights: float, block: float, working: float) -> Part:
    return Part(int(weights * GIB), int(block * GIB), 0, Footprint(int(working * GIB), 0, 0))


LARGE = Needs(  # about 5B's
    text=part(9, 0.4, 0.1),
    transformer=part(10, 0.25, 5),
    vae=part(0.4, 0.4, 15),
    tiled_vae_bytes=4 * GIB,
    quantized={"plain": 10 * GIB, "bf16": 10 * GIB, "fp8-storage": 5 * GIB, "fp8": 5 * GIB, "int8": 5 * GIB},
)


@pytest.mark.parametrize(
    ("device", "limit", "sentence"),
    [
        ("cuda", 48, "everything at once"),
        ("cuda", 30, "text encoder let go"),
        ("cuda", 17, "text encoder let go, VAE in tiles"),
        ("cuda", 16.5, "text encoder let go, one network at a time on the device, VAE in tiles"),
        ("cuda", 12, "text encoder let go, transformer block by block from main memory, VAE in tiles"),
        ("cpu", 12, "text encoder let go, transformer block by block from disk, VAE in tiles"),
    ],
)
def test_the_fastest_that_fits_is_taken(device: str, limit: float, sentence: str) -> None:
    choice = choose(LARGE, device, int(limit * GIB))
    assert choice.mode.sentence == sentence and choice.peak_bytes <= limit * GIB
    lines = choice.lines()
    assert lines[0].startswith(f"memory: {sentence}; about ") and f" of {limit:.1f} GiB" in lines[0]
    assert len(lines) == 1 + (limit < 48)
    larger = [peak for mode, peak in choice.ladder[: [mode for mode, _ in choice.ladder].index(choice.mode)]]
    assert all(peak > limit * GIB for peak in larger)


def test_what_is_on_the_device_at_each_stage() -> None:
    spare = 1.1
    at_once = LARGE.stages(MemoryMode())
    assert at_once["denoising"] == pytest.approx((10 + 9 + 0.4 + 5 * spare) * GIB)
    assert at_once["encoding"] == pytest.approx((10 + 9 + 0.4 + 0.1 * spare) * GIB)
    assert at_once["decoding"] == pytest.approx((10 + 9 + 0.4 + 15 * spare) * GIB)
    alone = LARGE.stages(MemoryMode(text_first=True, tiled_vae=True, offload="model"))
    assert alone["encoding"] == pytest.approx((9 + 0.1 * spare) * GIB)
    assert alone["denoising"] == pytest.approx((10 + 5 * spare) * GIB)
    assert alone["decoding"] == pytest.approx((0.4 + 4 * spare) * GIB)
    small = LARGE.stages(MemoryMode(text_first=True, tiled_vae=True, offload="group", weights="int8"))
    assert small["denoising"] == pytest.approx((2 * 0.125 + 0.4 + 5 * spare) * GIB)


def test_a_text_encoder_that_comes_late_is_beside_the_others() -> None:
    mode = MemoryMode(text_first=True, tiled_vae=True)
    assert LARGE.stages(mode, ahead=False)["encoding"] == pytest.approx((9 + 0.11 + 10 + 0.4) * GIB)
    assert choose(LARGE, "cuda", 17 * GIB).mode == mode
    assert choose(LARGE, "cuda", 17 * GIB, ahead=False).mode.offload == "model"


def test_without_a_limit_everything_stays() -> None:
    choice = choose(LARGE, "cuda")
    assert choice.mode == MemoryMode() and len(choice.lines()) == 1


def test_what_waits_needs_room_in_main_memory() -> None:
    assert choose(LARGE, "cuda", 12 * GIB, main_bytes=20 * GIB).mode.offload == "group"
    assert choose(LARGE, "cuda", 12 * GIB, main_bytes=8 * GIB).mode.offload == "disk"
    assert choose(LARGE, "cuda", 8 * GIB, main_bytes=10 * GIB, weights="int8").mode.offload == "group"
    lines = choose(LARGE, "cuda", 12 * GIB, main_bytes=8 * GIB).lines()
    assert "transformer block by block from main memory, VAE in tiles) takes 20.0 GiB of main memory, of which 8.0 GiB is free" in lines[1]
    with pytest.raises(InputError, match=r"takes 10.0 GiB of main memory, of which 4.0 GiB is free, expected more of it"):
        choose(LARGE, "cuda", 8 * GIB, main_bytes=4 * GIB, weights="int8")


def test_nothing_fits() -> None:
    with pytest.raises(InputError, match=r"memory: got 2.0 GiB, expected at least 7.2 GiB for three scenes \(denoising 6.4 GiB"):
        choose(LARGE, "cuda", 2 * GIB, asked="three scenes")


def test_the_remedy_is_the_next_smaller_setting() -> None:
    choice = choose(LARGE, "cuda")
    assert choice.remedy() == "the next smaller setting is --memory 27.7GiB (text encoder let go)"
    assert choose(LARGE, "cuda", int(27.7 * GIB)).mode == MemoryMode(text_first=True)
    smallest = choose(LARGE, "cuda", int(7.3 * GIB))
    assert smallest.remedy().startswith("this is the smallest setting; make smaller pictures")


def test_torchao_is_never_offloaded_to_disk() -> None:
    for weights in ("fp8", "int8"):
        assert all(mode.offload != "disk" and mode.weights == weights for mode in modes("cuda", weights))


@pytest.mark.parametrize(
    ("text", "count"), [("12GiB", 12 * GIB), ("12", 12 * GIB), (" 1.5 gb ", 1_500_000_000), ("900MiB", 900 * 2**20), ("2g", 2 * GIB)]
)
def test_sizes_are_read(text: str, count: int) -> None:
    assert parse_bytes(text) == count


@pytest.mark.parametrize("text", ["", "0", "-1GiB", "12 parsecs", "lots", "1e400GiB", "GiB"])
def test_other_sizes_are_refused(text: str) -> None:
    with pytest.raises(InputError, match=r"--memory: got .*, expected a size such as 12GiB or 900MiB"):
        parse_bytes(text)


def test_a_limit_given_to_load_pipeline(model_folder: Path, plain: torch.Tensor) -> None:
    """It is for the model's own window, and the pipeline says what was chosen."""
    pipeline = load_pipeline(model_folder, memory="4GiB")
    assert isinstance(pipeline.memory, Choice) and pipeline.memory.mode == MemoryMode()
    assert torch.equal(film(pipeline), plain)
    smallest = min(peak for _, peak in pipeline.memory.ladder)
    tight = load_pipeline(model_folder, memory=f"{smallest / 2**20 + 1:.0f}MiB")
    assert tight.memory is not None and tight.memory.mode.text_first and tight.text_encoder is None
    with pytest.raises(InputError, match=r"memory: got 1 MiB, expected at least .* for 3 scenes of 9 frames at 16 × 24"):
        load_pipeline(model_folder, memory="1MiB")


def test_the_built_in_model_is_counted() -> None:
    choice = choose_memory(builtin_model(), None, device=torch.device("cpu"), dtype=torch.float32)
    assert 0.6 * GIB < choice.peak_bytes < 1.2 * GIB
    shape = VideoShape(64, 96, (9, 9, 9), Compression(8, 4, 4))
    assert folder_needs(builtin_model(), shape, torch.float32, torch.device("cpu")).text is not None


# Captions on disk


@pytest.fixture
def counted_encoder(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    import mask2dit.text

    encoded: list[str] = []
    real = mask2dit.text.encode_captions
    monkeypatch.setattr(mask2dit.text, "encode_captions", lambda captions, *rest: encoded.extend(captions) or real(captions, *rest))
    yield encoded


def test_captions_are_encoded_once(model_folder: Path, tmp_path: Path, plain: torch.Tensor, counted_encoder: list[str]) -> None:
    for mode in (MemoryMode(text_first=True), MemoryMode(), MemoryMode(text_first=True)):
        assert torch.equal(film(load_pipeline(model_folder, memory=mode, prompt_cache=tmp_path)), plain)
    assert sorted(counted_encoder) == sorted([*CAPTIONS, ""])


def test_the_cache_belongs_to_a_text_encoder_and_a_format(model_folder: Path, tmp_path: Path, counted_encoder: list[str]) -> None:
    other = tiny.save_pipeline(tmp_path / "other", seed=1)
    pipelines = [
        load_pipeline(model_folder, prompt_cache=tmp_path / "cache"),
        load_pipeline(other, prompt_cache=tmp_path / "cache"),
        load_pipeline(model_folder, prompt_cache=tmp_path / "cache", dtype=torch.bfloat16),
    ]
    rows = [pipeline.encode_prompt(["a red fox"], [""])[0] for pipeline in pipelines]
    assert counted_encoder == ["a red fox", ""] * 3
    assert not torch.equal(rows[0], rows[1]) and rows[2].dtype == torch.bfloat16


def test_a_damaged_row_is_encoded_again(model_folder: Path, tmp_path: Path, counted_encoder: list[str]) -> None:
    pipeline = load_pipeline(model_folder, prompt_cache=tmp_path)
    rows = pipeline.encode_prompt(["a red fox"], [""])
    for file in tmp_path.rglob("*.safetensors"):
        file.write_bytes(file.read_bytes()[:50])
    assert all(torch.equal(mine, first) for mine, first in zip(pipeline.encode_prompt(["a red fox"], [""]), rows, strict=True))
    assert len(counted_encoder) == 4
    assert not list(tmp_path.rglob("*.part"))


def test_a_cache_that_cannot_be_written_costs_nothing_else(model_folder: Path, tmp_path: Path, plain: torch.Tensor) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")
    assert torch.equal(film(load_pipeline(model_folder, prompt_cache=blocked)), plain)


def test_the_text_encoder_is_gone_before_the_first_step(model_folder: Path) -> None:
    from transformers import T5EncoderModel

    pipeline = load_pipeline(model_folder, memory=MemoryMode(text_first=True))
    seen: list[int] = []

    def step_done(pipeline: Mask2DiTPipeline, step: int, timestep: object, tensors: dict) -> dict:
        gc.collect()
        seen.append(sum(isinstance(each, T5EncoderModel) for each in gc.get_objects()))
        return tensors

    gc.collect()
    before = sum(isinstance(each, T5EncoderModel) for each in gc.get_objects())
    film(pipeline, callback_on_step_end=step_done)
    assert seen == [before] * 2
