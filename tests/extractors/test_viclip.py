"""ViCLIP: our network is CLIP's where it must be, looks at time where it must, and its files load strictly or not at all."""

import gzip
import json
import shutil
import sys
from collections import OrderedDict
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModelWithProjection, CLIPVisionConfig, CLIPVisionModelWithProjection

import tiny_extractors
from mask2dit.errors import InputError, ModelError
from mask2dit.extractors import load_extractor
from mask2dit.extractors.viclip import ViClip, middles
from mask2dit.extractors.viclip_network import SIZES, ViClipNetwork
from tiny_extractors import VICLIP, pictures, viclip_network

CAPTIONS = ["the dog", "the cat and the dog run 12 times and more", "Ça, it's"]
MERGES = "bpe_simple_vocab_16e6.txt.gz"


@pytest.fixture(scope="module")
def extractor(folders: dict[str, Path]) -> ViClip:
    return load_extractor("viclip", str(folders["viclip"]))


@pytest.fixture
def folder(folders: dict[str, Path], tmp_path: Path) -> Path:
    return Path(shutil.copytree(folders["viclip"], tmp_path / "viclip"))


# The network


def clip_layers(tower: nn.Module) -> dict[str, torch.Tensor]:
    """Our layers by transformers' names."""
    found = {}
    for number, layer in enumerate(tower.transformer.resblocks):
        to = f"encoder.layers.{number}."
        for part, weight, bias in zip("qkv", layer.attn.in_proj_weight.chunk(3), layer.attn.in_proj_bias.chunk(3), strict=True):
            found |= {f"{to}self_attn.{part}_proj.weight": weight, f"{to}self_attn.{part}_proj.bias": bias}
        parts = {"self_attn.out_proj": layer.attn.out_proj, "layer_norm1": layer.ln_1, "layer_norm2": layer.ln_2}
        parts |= {"mlp.fc1": layer.mlp["c_fc"], "mlp.fc2": layer.mlp["c_proj"]}
        found |= {f"{to}{name}.{key}": value for name, module in parts.items() for key, value in module.state_dict().items()}
    return found


@torch.no_grad()
def test_with_one_frame_and_no_time_the_video_tower_is_clip_s() -> None:
    sizes = replace(VICLIP, num_frames=1)
    tower = viclip_network(sizes).vision_encoder
    tower.temporal_positional_embedding.zero_()
    config = CLIPVisionConfig(
        hidden_size=sizes.vision_width,
        intermediate_size=4 * sizes.vision_width,
        num_hidden_layers=sizes.vision_layers,
        num_attention_heads=sizes.vision_heads,
        image_size=sizes.image_size,
        patch_size=sizes.patch_size,
        projection_dim=sizes.embedding,
        hidden_act="quick_gelu",
    )
    clip = CLIPVisionModelWithProjection(config).eval()
    state = {
        "embeddings.class_embedding": tower.class_embedding,
        "embeddings.patch_embedding.weight": tower.conv1.weight[:, :, 0],
        "embeddings.position_embedding.weight": tower.positional_embedding,
        "pre_layrnorm.weight": tower.ln_pre.weight,
        "pre_layrnorm.bias": tower.ln_pre.bias,
        "post_layernorm.weight": tower.ln_post.weight,
        "post_layernorm.bias": tower.ln_post.bias,
    } | clip_layers(tower)
    result = clip.load_state_dict(
        {f"vision_model.{key}": value for key, value in state.items()} | {"visual_projection.weight": tower.proj.T}
    )
    assert not result.missing_keys
    pixels = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(tower(pixels[:, :, None]), clip(pixel_values=pixels).image_embeds)


@torch.no_grad()
def test_the_text_tower_is_clip_s() -> None:
    tower = viclip_network().text_encoder
    config = CLIPTextConfig(
        vocab_size=VICLIP.vocabulary,
        hidden_size=VICLIP.text_width,
        intermediate_size=4 * VICLIP.text_width,
        num_hidden_layers=VICLIP.text_layers,
        num_attention_heads=VICLIP.text_heads,
        max_position_embeddings=VICLIP.text_length,
        projection_dim=VICLIP.embedding,
        hidden_act="quick_gelu",
        bos_token_id=VICLIP.vocabulary - 2,
        eos_token_id=VICLIP.vocabulary - 1,
    )
    clip = CLIPTextModelWithProjection(config).eval()
    state = {
        "embeddings.token_embedding.weight": tower.token_embedding.weight,
        "embeddings.position_embedding.weight": tower.positional_embedding,
        "final_layer_norm.weight": tower.ln_final.weight,
        "final_layer_norm.bias": tower.ln_final.bias,
    } | clip_layers(tower)
    clip.load_state_dict({f"text_model.{key}": value for key, value in state.items()} | {"text_projection.weight": tower.text_projection.T})
    tokens = tiny_extractors.clip_tokenizer()(CAPTIONS, padding="max_length", truncation=True, max_length=12, return_tensors="pt")
    torch.testing.assert_close(tower(tokens["input_ids"]), clip(**tokens).text_embeds)
    zeros = torch.where(tokens["attention_mask"].bool(), tokens["input_ids"], 0)  # as the authors pad
    torch.testing.assert_close(tower(zeros), tower(tokens["input_ids"]))


@torch.no_grad()
def test_tokens_are_patches_at_their_place_and_time() -> None:
    """The video tower once more, patch by patch, with torch's attention."""
    tower = viclip_network().vision_encoder
    video = torch.randn(3, 8, 32, 32, generator=torch.Generator().manual_seed(1))
    tokens = [tower.class_embedding + tower.positional_embedding[0]]
    for time in range(8):
        for place in range(4):
            top, left = 16 * (place // 2), 16 * (place % 2)
            patch = video[:, time, top : top + 16, left : left + 16]
            token = (tower.conv1.weight[:, :, 0] * patch).sum((1, 2, 3))
            tokens.append(token + tower.positional_embedding[1 + place] + tower.temporal_positional_embedding[0, time])
    hidden = tower.ln_pre(torch.stack(tokens))[None]
    for layer in tower.transformer.resblocks:
        attention = nn.MultiheadAttention(VICLIP.vision_width, VICLIP.vision_heads, batch_first=True).eval()
        attention.load_state_dict(layer.attn.state_dict())
        normed = layer.ln_1(hidden)
        hidden = hidden + attention(normed, normed, normed, need_weights=False)[0]
        inner = layer.mlp["c_fc"](layer.ln_2(hidden))
        hidden = hidden + layer.mlp["c_proj"](inner * torch.sigmoid(1.702 * inner))
    torch.testing.assert_close(tower(video[None])[0], tower.ln_post(hidden[0, 0]) @ tower.proj)


@torch.no_grad()
def test_frames_meet_and_have_their_times() -> None:
    tower = viclip_network().vision_encoder
    video = torch.randn(2, 3, 8, 32, 32, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(tower(video)[1:], tower(video[1:]))
    tower.temporal_positional_embedding.mul_(30)
    assert (tower(video) - tower(video.flip(2))).abs().max() > 1e-3
    tower.temporal_positional_embedding.zero_()
    torch.testing.assert_close(tower(video), tower(video.flip(2)))  # tokens are a set, then


def test_the_published_sizes_and_names() -> None:
    """Numbers of values as the papers' checkpoints have, and the names that the authors' classes give them."""
    counts = {}
    for letter, sizes in SIZES.items():
        with torch.device("meta"):
            state = ViClipNetwork(sizes).state_dict()
        counts[letter] = sum(value.numel() for value in state.values())
        assert len(state) == 9 + 12 * (sizes.vision_layers + sizes.text_layers) + 5 + 1
    assert counts == {"l": 427_590_145, "b": 149_603_841}
    names = {key.replace(".0.", ".N.") for key in viclip_network().state_dict() if ".resblocks.1." not in key}
    layer = ["attn.in_proj_weight", "attn.in_proj_bias", "attn.out_proj.weight", "attn.out_proj.bias"]
    layer += [f"{part}.{key}" for part in ("ln_1", "ln_2", "mlp.c_fc", "mlp.c_proj") for key in ("weight", "bias")]
    vision = ["class_embedding", "positional_embedding", "temporal_positional_embedding", "conv1.weight", "proj"]
    vision += ["ln_pre.weight", "ln_pre.bias", "ln_post.weight", "ln_post.bias"]
    text = ["token_embedding.weight", "positional_embedding", "text_projection", "ln_final.weight", "ln_final.bias"]
    expected = {f"vision_encoder.{key}" for key in vision} | {f"text_encoder.{key}" for key in text} | {"temp"}
    assert names == expected | {f"{tower}_encoder.transformer.resblocks.N.{key}" for tower in ("vision", "text") for key in layer}


# Features


@pytest.mark.parametrize("count", [1, 5, 8, 41])
def test_a_scene_is_the_tower_s_output_of_its_middles(count: int, extractor: ViClip) -> None:
    images = pictures(count, 45, 77)
    features = extractor.scene(images)
    video = extractor.preparation(middles(images, 8))
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    assert video.shape == (8, 3, 32, 32)
    flat = extractor.preparation(np.full((1, 20, 30, 3), 51, np.uint8))[0, :, 0, 0]
    torch.testing.assert_close(flat, (0.2 - mean) / std)
    with torch.no_grad():
        plain = viclip_network().vision_encoder(video.permute(1, 0, 2, 3)[None])[0]
    assert features.dtype == np.float32 and features.shape == (8,)
    np.testing.assert_allclose(features, plain.numpy(), atol=2e-6)


def test_middles_are_those_of_equal_parts() -> None:
    numbers = np.arange(50)[:, None]
    assert middles(numbers[:16], 8)[:, 0].tolist() == [0, 2, 4, 6, 8, 10, 12, 14]
    assert middles(numbers[:24], 8)[:, 0].tolist() == [1, 4, 7, 10, 13, 16, 19, 22]
    assert middles(numbers[:8], 8)[:, 0].tolist() == list(range(8))
    assert middles(numbers[:3], 8)[:, 0].tolist() == [0, 1, 2, 2, 2, 2, 2, 2]
    assert middles(numbers[:1], 8)[:, 0].tolist() == [0] * 8
    for count in range(1, 50):
        chosen = middles(numbers[:count], 8)[:, 0]
        assert len(chosen) == 8 and (np.diff(chosen) >= 0).all()


def test_captions_are_read_with_the_vocabulary_beside_the_weights(extractor: ViClip) -> None:
    tokens = tiny_extractors.clip_tokenizer()(CAPTIONS, padding="max_length", truncation=True, max_length=12, return_tensors="pt")
    with torch.no_grad():
        plain = viclip_network().text_encoder(tokens["input_ids"])
    np.testing.assert_allclose(extractor.text(CAPTIONS), plain.numpy(), atol=2e-6)


def test_what_it_has(extractor: ViClip) -> None:
    assert (extractor.name, extractor.kinds, extractor.num_frames) == ("viclip", {"scene", "text"}, 8)
    with pytest.raises(InputError, match=r"^viclip: has no features of kind frame, expected scene or text; choose another extractor$"):
        extractor.frames(pictures())


# Files


def features(path: Path) -> np.ndarray:
    return load_extractor("viclip", str(path)).scene(pictures())


class EasyDict(dict):
    """As the authors' training settings are pickled."""

    def __init__(self, **values: object) -> None:
        super().__init__(values)
        self.__dict__.update(values)


EasyDict.__module__ = "utils.easydict"


def test_all_forms_of_the_file_are_one(folder: Path, extractor: ViClip, monkeypatch: pytest.MonkeyPatch) -> None:
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    package, module = ModuleType("utils"), ModuleType("utils.easydict")
    package.easydict, module.EasyDict = module, EasyDict
    monkeypatch.setitem(sys.modules, "utils", package)
    monkeypatch.setitem(sys.modules, "utils.easydict", module)
    file = folder / "ViClip-InternVid-10M-FLT.pth"
    expected = extractor.scene(pictures())
    for held in (
        tensors,
        {"model": tensors},
        {"module": OrderedDict((f"module.{key}", value) for key, value in tensors.items()), "epoch": 3},
        {"model": {key: value for key, value in tensors.items() if key != "temp"}, "config": EasyDict(lr=EasyDict(start=0.1))},
    ):
        torch.save(held, file)
        np.testing.assert_array_equal(features(folder), expected)
        np.testing.assert_array_equal(features(file), expected)


def test_nothing_in_a_file_is_run(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    torch.save({"model": {"a": Path("b")}}, folder / "weights.pth")
    with pytest.raises(
        ModelError, match=r"^viclip: [^\n]*weights.pth: cannot be opened as tensors \([^\n]*; fetch it again, or use [^\n]*$"
    ):
        features(folder)


@pytest.mark.parametrize("held", [{}, {"model": {}}, [1], {"model": {"a": 1}}, {"a": torch.zeros(1), "b": "text"}, {0: torch.zeros(1)}])
def test_files_of_other_things_are_refused(held: object, folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    torch.save(held, folder / "weights.pt")
    with pytest.raises(ModelError, match=r"^viclip: [^\n]*weights.pt: got a [^\n]*expected ViCLIP's; use OpenGVLab/ViCLIP-L-14-hf$"):
        features(folder)


def test_the_usual_name_comes_first_and_others_must_be_alone(folder: Path, extractor: ViClip) -> None:
    (folder / "other.pth").write_bytes(b"not looked at")
    np.testing.assert_array_equal(features(folder), extractor.scene(pictures()))
    (folder / "model.safetensors").rename(folder / "mine.safetensors")
    with pytest.raises(ModelError, match=r"holds 2 files of weights, mine.safetensors, other.pth, expected .*; download the file you mean"):
        features(folder)
    (folder / "other.pth").unlink()
    np.testing.assert_array_equal(features(folder), extractor.scene(pictures()))
    (folder / "mine.safetensors").unlink()
    with pytest.raises(ModelError, match=r"holds no weights, expected model.safetensors or ViClip-InternVid-10M-FLT.pth"):
        features(folder)


@pytest.mark.parametrize(
    "config",
    [
        {"size": "g"},
        {"size": ["l"]},
        {"sizes": 3},
        {"sizes": {"depth": 3}},
        {"sizes": {"vision_layers": 0}},
        {"sizes": {"vision_layers": True}},
        {"sizes": {"vision_heads": 5}},
        {"model_type": "clip"},
        {"size": "b"},
        [],
    ],
)
def test_configurations_that_do_not_fit_are_refused(config: object, folder: Path) -> None:
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match=r"^viclip: [^\n]*; (use|check|fetch)[^\n]*$"):
        features(folder)


def test_the_text_may_be_as_long_as_clip_s(folder: Path) -> None:
    sizes = json.loads((folder / "config.json").read_text())["sizes"]
    del sizes["text_length"]
    (folder / "config.json").write_text(json.dumps({"sizes": sizes}))
    tiny_extractors.change(
        folder, lambda tensors: tensors.update({"text_encoder.positional_embedding": torch.zeros(77, VICLIP.text_width)})
    )
    assert load_extractor("viclip", str(folder))._network.sizes.text_length == 77
    tiny_extractors.change(
        folder, lambda tensors: tensors.update({"text_encoder.positional_embedding": torch.zeros(40, VICLIP.text_width)})
    )
    with pytest.raises(ModelError, match=r"text_encoder.positional_embedding has shape \(40, 16\), expected \(32, 16\)"):
        features(folder)


# The vocabulary


def test_other_forms_of_the_vocabulary_are_one(folder: Path, extractor: ViClip) -> None:
    expected = extractor.text(CAPTIONS)
    (folder / MERGES).unlink()
    tiny_extractors.clip_tokenizer().save_pretrained(folder / "tokenizer")
    np.testing.assert_array_equal(load_extractor("viclip", str(folder)).text(CAPTIONS), expected)
    for file in (folder / "tokenizer").iterdir():
        file.rename(folder / file.name)
    np.testing.assert_array_equal(load_extractor("viclip", str(folder)).text(CAPTIONS), expected)


def test_without_a_vocabulary_it_is_fetched_or_asked_for(folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    (folder / MERGES).unlink()
    with pytest.raises(ModelError, match=rf"^viclip: openai/clip-vit-large-patch14: not in the cache[^\n]*; or put {MERGES} beside[^\n]*$"):
        load_extractor("viclip", str(folder), offline=True)


# Named by hand: compressed bytes hold the time, and every process of pytest must find the same names.
@pytest.mark.parametrize(
    ("content", "compressed"),
    [(b"plain", False), (b"#version\nonly-one\n", True), (b"#\na b c\n", True), (b"\xff", True)],
    ids=["not compressed", "one word", "three words", "not text"],
)
def test_damaged_vocabularies_are_refused(content: bytes, compressed: bool, folder: Path) -> None:
    (folder / MERGES).write_bytes(gzip.compress(content) if compressed else content)
    with pytest.raises(ModelError, match=rf"^viclip: [^\n]*{MERGES}: cannot be read as CLIP's merges[^\n]*; fetch it again$"):
        features(folder)


@pytest.mark.parametrize(("merges", "count"), [([*tiny_extractors.MERGES, "t r"], 523), (tiny_extractors.MERGES[:-1], 521), ([], 514)])
def test_a_vocabulary_of_another_size_is_refused(merges: list[str], count: int, folder: Path) -> None:
    (folder / MERGES).write_bytes(gzip.compress("\n".join(["#", *merges, ""]).encode()))
    message = rf"^viclip: [^\n]*: the tokenizer has {count} tokens, expected the network's 522; fetch the vocabulary again$"
    with pytest.raises(ModelError, match=message):
        features(folder)
