"""Model folders: what is sound loads as it is, and what is not is one line that names the file and the remedy."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import CogVideoXDPMScheduler, CogVideoXPipeline, CogVideoXTransformer3DModel
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict
from safetensors.torch import load_file, save_file

import mask2dit.loading
import tiny
from mask2dit import Mask2DiTPipeline, Mask2DiTTransformer3DModel, load_pipeline
from mask2dit.errors import InputError, ModelError
from mask2dit.loading import builtin_adapters, builtin_model
from mask2dit.memory import MemoryMode

WEIGHTS = "transformer/diffusion_pytorch_model.safetensors"
PROJECTION = "patch_embed.proj.weight"
CAPTIONS = ["a red fox walks", "the fox jumps"]


@pytest.fixture
def folder(model_folder: Path, tmp_path: Path) -> Path:
    """A copy to spoil."""
    return shutil.copytree(model_folder, tmp_path / "model")


def film(pipeline: Mask2DiTPipeline) -> torch.Tensor:
    return torch.cat(pipeline(CAPTIONS, generator=torch.Generator().manual_seed(0), output_type="latent").scenes)


def write(path: Path, **changes: Any) -> None:
    values = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({key: value for key, value in values.items() if value is not ...}))


def change_tensors(path: Path, change: Callable[[dict[str, torch.Tensor]], Any]) -> None:
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path, metadata={"format": "pt"})


# What loads


def test_save_then_load_is_the_same_pipeline(model_folder: Path) -> None:
    made, loaded = tiny.pipeline(), load_pipeline(model_folder)
    assert torch.equal(film(made), film(loaded))
    assert loaded.values == made.values
    for name in ("transformer", "vae", "text_encoder"):
        mine, theirs = getattr(made, name).state_dict(), getattr(loaded, name).state_dict()
        assert mine.keys() == theirs.keys() and all(torch.equal(mine[key], theirs[key]) for key in mine)
        assert not getattr(loaded, name).training


def test_shards_load_as_one(folder: Path) -> None:
    expected = film(load_pipeline(folder))
    (folder / WEIGHTS).unlink()
    load_of_tiny = tiny.pipeline().transformer
    load_of_tiny.save_pretrained(folder / "transformer", max_shard_size="50KB")
    assert len(list((folder / "transformer").glob("*.safetensors"))) > 1
    assert torch.equal(film(load_pipeline(folder)), expected)


def test_the_released_layout_loads(folder: Path) -> None:
    """Its index names the stock transformer, its configuration holds keys of other code, and our values are not in it."""
    values = load_pipeline(folder).values
    write(folder / "model_index.json", _class_name="CogVideoXPipeline", transformer=["diffusers", "CogVideoXTransformer3DModel"])
    write(folder / "model_index.json", **dict.fromkeys(values.saved(), ...))
    write(folder / "transformer/config.json", _class_name="Other", attn_msk_version=2, add_noise_in_inpaint_model=False, attention_plan=...)
    pipeline = load_pipeline(folder)
    assert type(pipeline) is Mask2DiTPipeline and type(pipeline.transformer) is Mask2DiTTransformer3DModel
    assert (pipeline.values.window, pipeline.values.known_sets, pipeline.values.num_frames) == (3, "last", 49)
    assert pipeline.transformer.config.attention_plan == "symmetric"


def test_cogvideox_2b_loads(folder: Path) -> None:
    """Its positions are sinusoidal; they are in no file."""
    rotary = film(load_pipeline(folder))
    write(folder / "model_index.json", transformer=["diffusers", "CogVideoXTransformer3DModel"])
    write(folder / "transformer/config.json", use_rotary_positional_embeddings=False)
    pipeline = load_pipeline(folder)
    assert pipeline.transformer.rotary_table(3, (2, 3)) is None
    assert film(pipeline).isfinite().all() and not torch.equal(film(pipeline), rotary)


@pytest.mark.parametrize("absent", [..., [None, None]])
def test_a_folder_may_lack_its_text_side(folder: Path, absent: Any) -> None:
    write(folder / "model_index.json", tokenizer=absent, text_encoder=absent)
    shutil.rmtree(folder / "tokenizer")
    shutil.rmtree(folder / "text_encoder")
    pipeline = load_pipeline(folder)
    assert pipeline.tokenizer is None and pipeline.text_encoder is None
    assert len(pipeline(prompt_embeds=torch.zeros(2, 64, 20), guidance_scale=1, output_type="latent").scenes) == 2


def test_plan_dtype_and_device(model_folder: Path) -> None:
    pipeline = load_pipeline(model_folder, plan="isolated", dtype=torch.bfloat16, device="cpu")
    assert pipeline.transformer.config.attention_plan == "isolated"
    assert {part.dtype for part in (pipeline.transformer, pipeline.vae, pipeline.text_encoder)} == {torch.bfloat16}
    assert load_pipeline(model_folder).transformer.dtype == torch.float32
    with pytest.raises(InputError, match="plan: got 'x', expected one of isolated"):
        load_pipeline(model_folder, plan="x")


def test_weights_in_half_precision_are_computed_in_float32(folder: Path) -> None:
    for name in (WEIGHTS, "text_encoder/model.safetensors"):
        change_tensors(folder / name, lambda tensors: tensors.update({key: value.half() for key, value in tensors.items()}))
    pipeline = load_pipeline(folder)
    assert pipeline.transformer.dtype == pipeline.text_encoder.dtype == torch.float32


def test_the_dpm_scheduler_loads(folder: Path) -> None:
    write(folder / "model_index.json", scheduler=["diffusers", "CogVideoXDPMScheduler"])
    assert isinstance(load_pipeline(folder).scheduler, CogVideoXDPMScheduler)


def test_an_inp_checkpoint_loads_when_it_is_asked_for(folder: Path) -> None:
    """What it reads beside the latents is cut away; all other weights are what they were."""
    expected = film(load_pipeline(folder))
    of_weights(lambda tensors: tensors.update({PROJECTION: torch.cat([tensors[PROJECTION], torch.ones(32, 5, 2, 2)], dim=1)}))(folder)
    write(folder / "transformer/config.json", in_channels=9)
    refused(folder, "in_channels: got 9 with out_channels 4 .* or --inp")
    assert torch.equal(film(load_pipeline(folder, inp=True)), expected)
    (folder / WEIGHTS).rename(folder / "transformer/other.safetensors")
    with pytest.raises(ModelError, match=r"expected diffusion_pytorch_model.safetensors"):
        load_pipeline(folder, inp=True)


def test_inp_of_a_model_that_is_none(model_folder: Path) -> None:
    with pytest.raises(ModelError, match="has no input channels beside the latents' 4; leave out --inp"):
        load_pipeline(model_folder, inp=True)


def test_large_models_are_computed_as_they_are_stored(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    of_weights(lambda tensors: tensors.update({key: value.bfloat16() for key, value in tensors.items()}))(folder)
    monkeypatch.setattr(mask2dit.loading, "LARGE_MODEL", 1000)
    assert load_pipeline(folder).transformer.dtype == torch.bfloat16
    assert load_pipeline(folder, dtype=torch.float32).transformer.dtype == torch.float32


def test_published_single_scene_weights_say_so(folder: Path) -> None:
    published = folder.rename(folder.with_name("CogVideoX-5b"))
    assert load_pipeline(published).values.window == 3  # it says so itself
    write(published / "model_index.json", window=...)
    pipeline = load_pipeline(published)
    assert pipeline.values.window == 1
    with pytest.warns(UserWarning, match="2 scenes are more than the 1 that this model was trained on at once"):
        film(pipeline)


def test_adapters_of_single_scene_cogvideox_load(model_folder: Path, tmp_path: Path) -> None:
    """A file that diffusers' own pipeline wrote for the stock transformer changes ours as it changes the stock one."""
    stock = CogVideoXTransformer3DModel.from_config(
        {**tiny.TRANSFORMER_CONFIG, "max_text_seq_length": 64, "use_rotary_positional_embeddings": True}
    )
    stock.load_state_dict(tiny.pipeline().transformer.state_dict())
    stock.add_adapter(LoraConfig(r=2, lora_alpha=2, target_modules=["to_q", "to_k", "to_v", "to_out.0", "ff.net.0.proj", "ff.net.2"]))
    tiny.randomise(torch.nn.ModuleList(each for name, each in stock.named_modules() if "lora_" in name and hasattr(each, "in_features")), 3)
    CogVideoXPipeline.save_lora_weights(tmp_path, transformer_lora_layers=get_peft_model_state_dict(stock))
    ours = load_pipeline(model_folder, lora=tmp_path).transformer
    inputs = tiny.inputs(ours, (64,), (3,), batch=1)
    layout = inputs.pop("layout")
    with torch.no_grad():
        expected = stock.eval()(
            inputs["hidden_states"],
            inputs["encoder_hidden_states"],
            inputs["timestep"][:, 0],
            image_rotary_emb=ours.rotary_table(3, (2, 3)),
            return_dict=False,
        )[0]
        torch.testing.assert_close(ours(**inputs, layout=layout).sample, expected, rtol=0, atol=1e-5)
        assert not torch.allclose(load_pipeline(model_folder).transformer(**inputs, layout=layout).sample, expected, atol=1e-2)


def test_the_name_of_the_folder_means_nothing(folder: Path) -> None:
    """A folder that is called like a pipeline of diffusers is still ours."""
    assert torch.equal(film(load_pipeline(folder.rename(folder.with_name("cogvideo")))), film(tiny.pipeline()))


def test_the_built_in_model_is_in_the_package() -> None:
    assert builtin_model().parts[-3:] == ("mask2dit", "weights", "playhouse")


def test_the_built_in_model_has_adapters_for_the_context_blind_plan() -> None:
    own, plain = load_pipeline(plan="context-blind"), load_pipeline()
    names = {name for name in own.transformer.state_dict() if ".lora_" in name}
    assert names and not any(".lora_" in name for name in plain.transformer.state_dict())
    assert own.transformer.is_context_blind and own.fingerprint() != plain.fingerprint()
    assert load_pipeline(plan="context-blind", lora=builtin_adapters("context-blind")).fingerprint() == own.fingerprint()


def test_weights_that_change_are_not_compiled(model_folder: Path) -> None:
    with pytest.raises(InputError, match="compile: got weights fp8-storage, which become others while a block computes, expected plain"):
        load_pipeline(model_folder, compile=True, memory=MemoryMode(weights="fp8-storage"))


# What does not load


def refused(folder: Path, words: str) -> None:
    with pytest.raises(ModelError, match=words) as caught:
        load_pipeline(folder)
    message = str(caught.value)
    assert str(folder) in message and "\n" not in message and len(message) < 600


def spoil_header(content: bytes) -> Callable[[Path], Any]:
    return lambda folder: (folder / WEIGHTS).write_bytes(len(content).to_bytes(8, "little") + content)


def shorten(folder: Path, part: float) -> None:
    content = (folder / WEIGHTS).read_bytes()
    (folder / WEIGHTS).write_bytes(content[: int(len(content) * part)])


def of_weights(change: Callable[[dict[str, torch.Tensor]], Any], name: str = WEIGHTS) -> Callable[[Path], Any]:
    return lambda folder: change_tensors(folder / name, change)


def of_config(name: str, **changes: Any) -> Callable[[Path], Any]:
    return lambda folder: write(folder / name, **changes)


def only_bin(folder: Path) -> None:
    (folder / WEIGHTS).rename(folder / "transformer/diffusion_pytorch_model.bin")


def pickle_beside(folder: Path) -> None:
    """A file with another name satisfies the check; the pickle must not be opened in its place."""
    (folder / WEIGHTS).rename(folder / "transformer/other.safetensors")
    torch.save({}, folder / "transformer/diffusion_pytorch_model.bin")


def of_another_model(folder: Path) -> None:
    tiny.transformer(in_channels=8, out_channels=8).save_pretrained(folder / "transformer")


def of_another_text(folder: Path) -> None:
    tiny.transformer(text_embed_dim=24).save_pretrained(folder / "transformer")


def in_shards(folder: Path) -> Path:
    """Split the transformer's file; returns its index."""
    (folder / WEIGHTS).unlink()
    tiny.pipeline().transformer.save_pretrained(folder / "transformer", max_shard_size="50KB")
    return folder / "transformer/diffusion_pytorch_model.safetensors.index.json"


def without_a_shard(folder: Path) -> None:
    index = in_shards(folder)
    sorted(index.parent.glob("*.safetensors"))[1].unlink()


def of_shard_index(change: Callable[[dict[str, str]], Any]) -> Callable[[Path], Any]:
    def spoil(folder: Path) -> None:
        index = in_shards(folder)
        values = json.loads(index.read_text())
        change(values["weight_map"])
        index.write_text(json.dumps(values))

    return spoil


def elsewhere(shards: dict[str, str]) -> None:
    shards["proj_out.weight"] = next(file for file in shards.values() if file != shards["proj_out.weight"])


BAD: dict[str, tuple[Callable[[Path], Any], str]] = {
    "no index": (lambda folder: (folder / "model_index.json").unlink(), "model_index.json: no such file, expected it in a diffusers model"),
    "index of random bytes": (
        lambda folder: (folder / "model_index.json").write_bytes(bytes(range(256))),
        r"model_index.json: cannot be read as JSON \(.*\); fetch the model again",
    ),
    "index is a list": (lambda folder: (folder / "model_index.json").write_text("[]"), "model_index.json: got a list, expected a JSON obj"),
    "no transformer": (lambda folder: shutil.rmtree(folder / "transformer"), "component transformer is missing, expected a folder of that"),
    "no vae in the index": (of_config("model_index.json", vae=...), "component vae is missing"),
    "odd entry": (of_config("model_index.json", text_encoder=[]), "component text_encoder is missing"),
    "no tokenizer": (lambda folder: shutil.rmtree(folder / "tokenizer"), "component tokenizer is missing"),
    "broken tokenizer": (lambda folder: (folder / "tokenizer/tokenizer.json").write_text('{"'), "tokenizer: cannot be loaded: "),
    "no text encoder": (lambda folder: shutil.rmtree(folder / "text_encoder"), "component text_encoder is missing"),
    "no scheduler": (lambda folder: (folder / "scheduler/scheduler_config.json").unlink(), "no file named scheduler_config.json"),
    "other transformer": (
        of_config("model_index.json", transformer=["diffusers", "FluxTransformer2DModel"]),
        "the transformer is FluxTransformer2DModel, expected Mask2DiTTransformer3DModel or CogVideoXTransformer3DModel",
    ),
    "other scheduler": (
        of_config("model_index.json", scheduler=["diffusers", "EulerDiscreteScheduler"]),
        "the scheduler is EulerDiscreteScheduler, expected CogVideoXDDIMScheduler or CogVideoXDPMScheduler",
    ),
    "no configuration": (lambda folder: (folder / "transformer/config.json").unlink(), "config.json: no such file"),
    "configuration of nonsense": (
        of_config("transformer/config.json", num_layers="x"),
        "config.json: num_layers is 'x', expected a number above 0",
    ),
    "unknown plan": (of_config("transformer/config.json", attention_plan="x"), "config.json: plan: got 'x', expected one of"),
    "learned positions": (
        of_config("transformer/config.json", use_learned_positional_embeddings=True),
        "config.json: use_learned_positional_embeddings: got true .*CogVideoX-5b-I2V",
    ),
    "InP": (
        of_config("transformer/config.json", in_channels=33),
        "config.json: in_channels: got 33 with out_channels 4 .*CogVideoX-Fun InP.*--inp",
    ),
    "missing tensor": (
        of_weights(lambda tensors: tensors.pop("proj_out.weight")),
        "transformer: tensor proj_out.weight is missing, expected 88 tensors as in config.json; fetch the model again",
    ),
    "two missing": (
        of_weights(lambda tensors: [tensors.pop(f"proj_out.{name}") for name in ("weight", "bias")]),
        "tensors proj_out.bias, proj_out.weight are missing",
    ),
    "extra tensors": (
        of_weights(lambda tensors: tensors.update({name: torch.zeros(1) for name in "abcd"})),
        "tensors a, b and 2 more are not known to this model; check that config.json belongs to these weights",
    ),
    "mis-shaped tensor": (
        of_weights(lambda tensors: tensors.update({"proj_out.weight": torch.zeros(3, 32)})),
        r"tensor proj_out.weight has shape \(3, 32\), expected \(16, 32\); check that config.json belongs to these weights",
    ),
    "other size": (of_config("transformer/config.json", num_layers=4), "tensors transformer_blocks.3.* and .* more are missing"),
    "missing in the vae": (
        of_weights(lambda tensors: tensors.pop("encoder.conv_in.conv.bias"), "vae/diffusion_pytorch_model.safetensors"),
        "vae: tensor encoder.conv_in.conv.bias is missing",
    ),
    "missing in the text encoder": (
        of_weights(lambda tensors: tensors.pop("encoder.final_layer_norm.weight"), "text_encoder/model.safetensors"),
        "text_encoder: tensor encoder.final_layer_norm.weight is missing",
    ),
    "no token table": (
        of_weights(lambda tensors: tensors.pop("shared.weight"), "text_encoder/model.safetensors"),
        "text_encoder: tensor shared.weight is missing",
    ),
    "cut in the tensors": (
        lambda folder: shorten(folder, 0.5),
        r"safetensors: damaged or cut short \(148.* bytes, expected 296.*\); fetch the",
    ),
    "cut in the header": (lambda folder: shorten(folder, 0.01), "damaged or cut short"),
    "empty file": (lambda folder: shorten(folder, 0), "damaged or cut short"),
    "one byte more": (lambda folder: (folder / WEIGHTS).open("ab").write(b"x"), "damaged or cut short"),
    "random bytes": (lambda folder: (folder / WEIGHTS).write_bytes(bytes(range(255, -1, -1)) * 9), "the header is longer than the file"),
    "header is a list": (spoil_header(b"[]"), "damaged or cut short"),
    "header without offsets": (spoil_header(b'{"a": 1}'), "damaged or cut short"),
    "header without shape": (spoil_header(b'{"a": {"data_offsets": [0, 0]}}'), "damaged or cut short"),
    "weights as .bin": (
        only_bin,
        r"transformer: the weights are pickled \(diffusion_pytorch_model.bin\), which can run code when it is opened, expected",
    ),
    "a pickle beside": (
        pickle_beside,
        "transformer: got diffusion_pytorch_model.bin, other.safetensors, expected diffusion_pytorch_model.safetensors",
    ),
    "a shard missing": (without_a_shard, r"transformer: diffusion_pytorch_model-00002-of-\d+.safetensors of \d+ shards missing, which"),
    "an index that lies": (
        of_shard_index(elsewhere),
        "index.json: says that tensor proj_out.weight is in .*, and it is in .*, expected an",
    ),
    "an index with more": (
        of_shard_index(lambda shards: shards.update(a=shards["proj_out.weight"])),
        "that tensor a is in .* it is in none",
    ),
    "an index with less": (
        of_shard_index(lambda shards: shards.pop("proj_out.bias")),
        "proj_out.bias is in no shard, and it is in diffusion",
    ),
    "an index of nothing": (
        of_shard_index(lambda shards: shards.clear()),
        "index.json: got no weight_map, expected the file of every tensor",
    ),
    "shards without index": (
        lambda folder: in_shards(folder).unlink(),
        "expected diffusion_pytorch_model.safetensors, or shards with diff",
    ),
    "height of nonsense": (of_config("model_index.json", height="tall"), "model_index.json: height is 'tall', expected something like 480"),
    "window of nonsense": (of_config("model_index.json", window=0), "window is 0, expected something like 3; mend that file"),
    "guidance of nonsense": (of_config("model_index.json", guidance_scale=[6]), r"guidance_scale is \[6\], expected something like 6.0"),
    "known sets of nonsense": (of_config("model_index.json", known_sets="some"), "known_sets is 'some', expected something like 'last'"),
    "heads of nonsense": (of_config("transformer/config.json", num_attention_heads=-2), "transformer/config.json: "),
    "vae of nonsense": (of_config("vae/config.json", block_out_channels=[]), "vae/config.json: "),
    "transformer of another model": (of_another_model, "the transformer reads 8 latent channels and the vae makes 4, expected the same"),
    "another text width": (of_another_text, "the transformer reads text of width 24 and the text encoder makes 20, expected the same"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_spoilt_folder_is_refused_in_one_line(name: str, folder: Path) -> None:
    spoil, words = BAD[name]
    spoil(folder)
    refused(folder, words)


def test_a_missing_folder_and_a_file_are_refused(model_folder: Path, tmp_path: Path) -> None:
    for path in (tmp_path / "none", model_folder / "model_index.json"):
        refused(path, "no such folder, expected a model folder with model_index.json; check --model")
    refused(tmp_path, "model_index.json: no such file")
