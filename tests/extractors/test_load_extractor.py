"""Extractors by name: exactly the network's tensors or one line, and a name of the weights that follows from every byte."""

import json
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import huggingface_hub
import numpy as np
import pytest
import torch
from huggingface_hub import constants
from safetensors.torch import load_file

import tiny_extractors
from hub_server import HubServer, Repository
from mask2dit.errors import InputError, ModelError
from mask2dit.extractors import NAMES, load_extractor
from mask2dit.extractors.base import Extractor
from tiny_extractors import FOLDERS, change, pictures

TENSORS = {  # one of each network that the extractor needs
    "clip": "vision_model.encoder.layers.1.mlp.fc1.weight",
    "siglip2": "text_model.encoder.layers.0.self_attn.q_proj.bias",
    "dinov2": "encoder.layer.1.norm2.weight",
    "videomae": "videomae.encoder.layer.0.attention.attention.q_bias",
    "viclip": "vision_encoder.temporal_positional_embedding",
}
MOVED = {"videomae": "encoder.layer.0.attention.attention.query.bias"}  # as transformers 5 calls it


@pytest.fixture
def copy(folders: dict[str, Path], tmp_path: Path) -> Callable[[str], Path]:
    """A folder that may be changed."""
    return lambda name: Path(shutil.copytree(folders[name], tmp_path / name))


def refusal(name: str, weights: object, **options: object) -> str:
    """What the error says: one line, not too long, with the extractor in front and a remedy behind a semicolon."""
    with pytest.raises(ModelError) as caught:
        load_extractor(name, str(weights), **options)
    message = str(caught.value)
    assert message.isprintable() and len(message) < 600 and message.startswith(f"{name}: ") and "; " in message, message
    return message


@pytest.mark.parametrize("name", [name for name in NAMES if name != "colours"])
def test_every_name_loads(name: str, folders: dict[str, Path]) -> None:
    extractor = load_extractor(name, str(folders[name]))
    assert isinstance(extractor, Extractor) and extractor.name == name
    assert re.fullmatch(rf"{folders[name].name} · [0-9a-f]{{12}}", extractor.weights)
    assert extractor.scene(pictures(1)).ndim == 1


@pytest.mark.parametrize("name", NAMES)
def test_scenes_together_are_scenes_one_by_one(name: str, folders: dict[str, Path]) -> None:
    extractor = load_extractor(name, str(folders[name]) if name in folders else None)
    scenes = [pictures(3), pictures(20, 48, 40, seed=1), pictures(9, seed=2), pictures(1, seed=3), pictures(9, seed=4)]
    together = extractor.scenes(scenes)
    for pictures_of_one, feature in zip(scenes, together, strict=True):
        np.testing.assert_allclose(extractor.scene(pictures_of_one), feature, rtol=1e-4, atol=1e-5)


def test_colours_tell_scenes_apart_by_their_colours_alone() -> None:
    extractor = load_extractor("colours")
    one, other = pictures(9), pictures(9, seed=5) // 4
    mirrored = np.ascontiguousarray(one[:, :, ::-1])
    feature = extractor.scene(one)
    assert np.linalg.norm(feature) == pytest.approx(1, abs=1e-4)
    assert feature @ extractor.scene(mirrored) == pytest.approx(1, abs=1e-3)
    assert feature @ extractor.scene(np.clip(one.astype(int) + 2, 0, 255).astype(np.uint8)) > 0.98
    assert feature @ extractor.scene(other) < 0.6
    with pytest.raises(InputError, match="expected no weights"):
        load_extractor("colours", "some/folder")


@pytest.mark.parametrize("name", TENSORS)
def test_a_missing_tensor_is_named(name: str, copy: Callable[[str], Path]) -> None:
    folder = copy(name)
    change(folder, lambda tensors: tensors.pop(TENSORS[name]))
    message = refusal(name, folder)
    assert f"tensor {MOVED.get(name, TENSORS[name])} is missing (1 missing, 0 unknown, 0 of another shape, of " in message


@pytest.mark.parametrize("name", TENSORS)
def test_an_unknown_tensor_is_named(name: str, copy: Callable[[str], Path]) -> None:
    folder = copy(name)
    change(folder, lambda tensors: tensors.update({"extra.weight": torch.zeros(2)}))
    assert "tensor extra.weight is not known to this network (0 missing, 1 unknown, 0 of another shape, of " in refusal(name, folder)


@pytest.mark.parametrize("name", TENSORS)
def test_a_tensor_of_another_shape_is_named(name: str, copy: Callable[[str], Path]) -> None:
    folder = copy(name)
    change(folder, lambda tensors: tensors.update({TENSORS[name]: torch.zeros(3, 5)}))
    message = refusal(name, folder)
    assert f"tensor {MOVED.get(name, TENSORS[name])} has shape (3, 5), expected (" in message
    assert "(0 missing, 0 unknown, 1 of another shape, of " in message


def test_what_published_files_hold_beside_the_network_is_left_out(copy: Callable[[str], Path]) -> None:
    clip, dinov2 = copy("clip"), copy("dinov2")
    expected = load_extractor("clip", str(clip)).scene(pictures())
    change(clip, lambda tensors: tensors.update({"text_model.embeddings.position_ids": torch.arange(12)[None]}))
    np.testing.assert_array_equal(load_extractor("clip", str(clip)).scene(pictures()), expected)
    change(dinov2, lambda tensors: tensors.update({"classifier.weight": torch.zeros(3, 32)}))
    load_extractor("dinov2", str(dinov2))


@pytest.mark.parametrize("name", ["clip", "siglip2", "dinov2", "videomae"])
def test_weights_of_another_family_are_refused(name: str, folders: dict[str, Path]) -> None:
    other, kind = ("dinov2", "dinov2") if name != "dinov2" else ("clip", "clip")
    assert f"{folders[other]}: is a model of type {kind}, expected " in refusal(name, folders[other])


@pytest.mark.parametrize("name", FOLDERS)
def test_missing_and_damaged_files_are_refused(name: str, copy: Callable[[str], Path], tmp_path: Path) -> None:
    for nothing in (tmp_path / "nowhere", "", "a/b/c", "nul\0"):
        with pytest.raises(ModelError, match=rf"^{name}: [^\n]*: no such folder or file, expected one, or a Hub id[^\n]*; check the name$"):
            load_extractor(name, str(nothing))
    folder = copy(name)
    weights = folder / "model.safetensors"
    whole = weights.read_bytes()
    for damaged in (b"", whole[:100], whole[:-10]):
        weights.write_bytes(damaged)
        assert str(folder) in refusal(name, folder)
    weights.unlink()
    assert "holds no weights, expected model.safetensors or " in refusal(name, folder)
    weights.write_bytes(whole)
    for damaged in ("", "[]", "{", "\x00"):
        (folder / "config.json").write_text(damaged)
        refusal(name, folder)
    (folder / "config.json").write_text('{"model_type": "clip", "text_config": 3}')
    refusal(name, folder)
    (folder / "config.json").unlink()
    refusal(name, folder)


@pytest.mark.parametrize("name", ["clip", "siglip2"])
def test_tokenizers_that_are_missing_or_damaged_are_refused(name: str, copy: Callable[[str], Path]) -> None:
    folder = copy(name)
    (folder / "tokenizer.json").write_text("{}")
    assert "cannot be loaded" in refusal(name, folder)
    (folder / "tokenizer.json").unlink()
    assert "expected tokenizer.json" in refusal(name, folder) or name == "siglip2"


def test_siglip2_wants_gemma_s_tokenizer(copy: Callable[[str], Path]) -> None:
    folder = copy("siglip2")
    tiny_extractors.clip_tokenizer().backend_tokenizer.save(str(folder / "tokenizer.json"))
    assert "has no <eos> and <pad>, expected Gemma's tokenizer; use weights of SigLIP 2" in refusal("siglip2", folder)
    (folder / "tokenizer.json").unlink()
    assert "SigLIP 1 has another" in refusal("siglip2", folder)


def test_a_tokenizer_with_more_tokens_than_the_network_is_refused(copy: Callable[[str], Path]) -> None:
    folder = copy("clip")
    tokenizer = tiny_extractors.clip_tokenizer()
    tokenizer.add_tokens(["word"])
    tokenizer.save_pretrained(folder)
    assert "the tokenizer has 523 tokens, expected at most the network's 522" in refusal("clip", folder)


def test_pickled_weights_load_as_tensors_only(copy: Callable[[str], Path]) -> None:
    folder = copy("clip")
    expected = load_extractor("clip", str(folder)).scene(pictures())
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    np.testing.assert_array_equal(load_extractor("clip", str(folder)).scene(pictures()), expected)
    torch.save({"a": Path("b")}, folder / "pytorch_model.bin")
    refusal("clip", folder)


def test_shards_are_one(copy: Callable[[str], Path]) -> None:
    from transformers import CLIPModel

    folder = copy("clip")
    expected = load_extractor("clip", str(folder)).scene(pictures())
    network = CLIPModel.from_pretrained(folder)
    (folder / "model.safetensors").unlink()
    network.save_pretrained(folder, max_shard_size="20KB")
    shards = sorted(folder.glob("model-*-of-*.safetensors"))
    assert len(shards) > 1
    extractor = load_extractor("clip", str(folder))
    np.testing.assert_array_equal(extractor.scene(pictures()), expected)
    shards[1].unlink()
    assert str(folder) in refusal("clip", folder)


def test_a_file_where_a_folder_is_needed(folders: dict[str, Path]) -> None:
    assert "got a file, expected a folder with config.json" in refusal("clip", folders["clip"] / "model.safetensors")


@pytest.mark.parametrize("name", FOLDERS)
def test_the_name_of_weights_follows_from_every_byte(name: str, copy: Callable[[str], Path], folders: dict[str, Path]) -> None:
    folder = copy(name)
    before = load_extractor(name, str(folder)).weights
    assert before.split(" · ")[1] == load_extractor(name, str(folders[name])).weights.split(" · ")[1]
    names = {before}
    key = TENSORS[name]
    change(folder, lambda tensors: tensors.update({key: tensors[key] + 1e-3}))
    names.add(load_extractor(name, str(folder)).weights)
    config = folder / "config.json"
    config.write_text(config.read_text() + "\n")
    names.add(load_extractor(name, str(folder)).weights)
    assert len(names) == 3


def test_half_precision_weights_are_computed_in_float32(copy: Callable[[str], Path]) -> None:
    for name in FOLDERS:
        folder = copy(name)
        change(folder, lambda tensors: tensors.update({key: value.half() for key, value in tensors.items()}))
        extractor = load_extractor(name, str(folder))
        assert {value.dtype for value in extractor._network.parameters()} == {torch.float32}


def test_unknown_names_and_devices(folders: dict[str, Path]) -> None:
    with pytest.raises(
        InputError, match=r"^extractor: got 'resnet', expected one of viclip, clip, siglip2, dinov2, videomae, i3d, colours; choose"
    ):
        load_extractor("resnet")
    for device in ("toaster", "cuda:99"):
        with pytest.raises(InputError, match=f"^device: got '{device}', expected [^\n]*; try device cpu$"):
            load_extractor("clip", str(folders["clip"]), device=device)


def test_nothing_heavy_is_imported_to_know_the_names() -> None:
    code = "import sys, mask2dit.extractors; print([name for name in ('torch', 'transformers', 'PIL') if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_loading_says_nothing(folders: dict[str, Path], capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture) -> None:
    from transformers.utils import logging

    before = logging.get_verbosity(), logging.is_progress_bar_enabled()
    for name in folders:
        load_extractor(name, str(folders[name]))
    assert capfd.readouterr() == ("", "") and not caplog.records
    assert (logging.get_verbosity(), logging.is_progress_bar_enabled()) == before


# The Hub


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    """An empty Hub, which huggingface_hub takes for the only one, and an empty cache."""
    wait = time.sleep
    monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")
    huggingface_hub.close_session()
    with HubServer() as server:
        for name, value in {
            "ENDPOINT": server.url,
            "HUGGINGFACE_CO_URL_TEMPLATE": server.url + "/{repo_id}/resolve/{revision}/{filename}",
            "HF_HUB_CACHE": str(tmp_path / "hub"),
            "HF_HUB_DISABLE_IMPLICIT_TOKEN": True,
            "HF_HUB_DISABLE_XET": True,
            "HF_HUB_OFFLINE": False,
        }.items():
            monkeypatch.setattr(constants, name, value)
        monkeypatch.setattr(time, "sleep", lambda seconds: wait(min(seconds, 0.01)))
        yield server
    huggingface_hub.close_session()


def publish(hub: HubServer, hub_id: str, folder: Path, **more: bytes) -> str:
    hub.repositories[hub_id] = Repository()
    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    unwanted = {"flax_model.msgpack": b"flax", "tf_model.h5": b"tf", "modelling.py": b"raise SystemExit", "onnx/model.onnx": b"onnx"}
    return hub.repositories[hub_id].commit(unwanted | files | more, "main")


@pytest.mark.parametrize(
    ("name", "hub_id"),
    [
        ("clip", "openai/clip-vit-base-patch32"),
        ("siglip2", "google/siglip2-base-patch16-224"),
        ("dinov2", "facebook/dinov2-base"),
        ("videomae", "MCG-NJU/videomae-base"),
        ("viclip", "OpenGVLab/ViCLIP-L-14-hf"),
    ],
)
def test_the_default_is_a_hub_id_and_then_the_cache(name: str, hub_id: str, hub: HubServer, folders: dict[str, Path]) -> None:
    commit = publish(hub, hub_id, folders[name], **{"pytorch_model.bin": b"pickled"})
    extractor = load_extractor(name)
    digest = load_extractor(name, str(folders[name])).weights.split(" · ")[1]
    assert extractor.weights == f"{hub_id}@{commit[:12]} · {digest}"
    assert {path.split()[0] for path in hub.gets} <= {path.name for path in folders[name].iterdir()}
    hub.close()
    again = load_extractor(name, offline=True)
    assert again.weights == extractor.weights
    np.testing.assert_array_equal(again.scene(pictures()), extractor.scene(pictures()))


def test_viclip_fetches_the_vocabulary_that_its_weights_lack(hub: HubServer, copy: Callable[[str], Path], tmp_path: Path) -> None:
    expected = load_extractor("viclip", str(folder := copy("viclip"))).text(["the dog"])
    (folder / "bpe_simple_vocab_16e6.txt.gz").unlink()
    tiny_extractors.clip_tokenizer().save_pretrained(tmp_path / "tokenizer")
    (tmp_path / "tokenizer" / "model.safetensors").write_bytes(b"weights that nobody needs")
    publish(hub, "openai/clip-vit-large-patch14", tmp_path / "tokenizer")
    np.testing.assert_array_equal(load_extractor("viclip", str(folder)).text(["the dog"]), expected)
    assert set(hub.gets) == {"tokenizer.json", "tokenizer_config.json"}


@pytest.mark.parametrize("name", FOLDERS)
def test_offline_without_a_cache_is_one_line(name: str, hub: HubServer) -> None:
    with pytest.raises(ModelError) as caught:
        load_extractor(name, offline=True)
    assert re.fullmatch(rf"{name}: [\w/.-]+: not in the cache at \S+, and offline; run once without --offline, .*", str(caught.value))
    assert not hub.asked and not hub.gets


def test_a_repository_of_something_else_is_refused_before_anything_is_fetched(hub: HubServer, folders: dict[str, Path]) -> None:
    hub.repositories["a/b"] = Repository()
    hub.repositories["a/b"].commit({"README.md": b"#"}, "main")
    assert "clip: a/b: holds no config.json, expected a model in transformers' layout" in refusal("clip", "a/b")
    assert refusal("viclip", "a/b").startswith("viclip: a/b: holds no weights")
    hub.repositories["a/b"].commit({"config.json": json.dumps({"model_type": "clip"}).encode()}, "main")
    assert refusal("clip", "a/b").startswith("clip: a/b: holds no weights, expected model.safetensors or pytorch_model.bin")
    assert not hub.gets and "a/none: no such model on the Hub" in refusal("clip", "a/none")
