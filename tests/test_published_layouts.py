"""Folders as they lie on the Hub, at their true size: true names, shapes, number formats and shards, in files that are all holes."""

import json
import struct
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKLCogVideoX
from transformers import T5Config, T5EncoderModel

from mask2dit import Mask2DiTTransformer3DModel
from mask2dit.errors import ModelError
from mask2dit.loading import folder_needs, is_large, own_dtype
from mask2dit.memory import GIB
from mask2dit.model_folder import check_model_folder, digest_of_text, load_values, model_values, stored_dtype
from mask2dit.published import TEXT_ENCODER
from mask2dit.video_shape import VideoShape

FORMATS = {torch.bfloat16: "BF16", torch.float16: "F16"}
SHARD = 4_900_000_000  # bytes
INDEX = {
    "_class_name": "CogVideoXPipeline",
    "_diffusers_version": "0.30.0.dev0",
    "scheduler": ["diffusers", "CogVideoXDDIMScheduler"],
    "text_encoder": ["transformers", "T5EncoderModel"],
    "tokenizer": ["transformers", "T5Tokenizer"],
    "transformer": ["diffusers", "CogVideoXTransformer3DModel"],
    "vae": ["diffusers", "AutoencoderKLCogVideoX"],
}
FIVE_B = {"attn_msk_version": 2, "add_noise_in_inpaint_model": False}  # keys that the released model has beyond CogVideoX's
TWO_B = {"num_attention_heads": 30, "num_layers": 30, "use_rotary_positional_embeddings": False}


def write_holes(path: Path, tensors: dict[str, torch.Tensor], dtype: torch.dtype) -> None:
    """A safetensors file without data: a header, and then nothing for as long as it takes."""
    header, offset = {}, 0
    for name, tensor in tensors.items():
        end = offset + tensor.numel() * dtype.itemsize
        header[name] = {"dtype": FORMATS[dtype], "shape": list(tensor.shape), "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(header).encode()
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        file.truncate(8 + len(text) + offset)


def write_network(folder: Path, config: dict[str, Any], network: torch.nn.Module, dtype: torch.dtype, stem: str) -> None:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config))
    tensors = {name: tensor for name, tensor in network.state_dict().items() if name != "encoder.embed_tokens.weight"}
    shards: list[dict[str, torch.Tensor]] = [{}]
    room = SHARD
    for name, tensor in tensors.items():
        size = tensor.numel() * dtype.itemsize
        if size > room:
            shards.append({})
            room = SHARD
        shards[-1][name] = tensor
        room -= size
    if len(shards) == 1:
        write_holes(folder / f"{stem}.safetensors", tensors, dtype)
        return
    files = [f"{stem}-{number:05}-of-{len(shards):05}.safetensors" for number in range(1, len(shards) + 1)]
    for file, shard in zip(files, shards, strict=True):
        write_holes(folder / file, shard, dtype)
    named = {name: file for file, shard in zip(files, shards, strict=True) for name in shard}
    (folder / f"{stem}.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": named}))


def write_published(folder: Path, dtype: torch.dtype, changes: dict[str, Any]) -> Path:
    ours = {"attention_plan", *(key for key in changes if key in FIVE_B)}
    with torch.device("meta"):
        transformer = Mask2DiTTransformer3DModel(**{key: value for key, value in changes.items() if key not in ours})
        vae, text_encoder = AutoencoderKLCogVideoX(), T5EncoderModel(T5Config.from_dict(TEXT_ENCODER))
    config = {key: value for key, value in transformer.config.items() if key not in ours} | changes
    config |= {"_class_name": "CogVideoXTransformer3DModel", "_diffusers_version": "0.30.0.dev0"}
    write_network(folder / "transformer", config, transformer, dtype, "diffusion_pytorch_model")
    write_network(folder / "vae", dict(vae.config), vae, dtype, "diffusion_pytorch_model")
    write_network(folder / "text_encoder", {**TEXT_ENCODER, "model_type": "t5"}, text_encoder, dtype, "model")
    for name in ("tokenizer", "scheduler"):
        (folder / name).mkdir()
    (folder / "tokenizer" / "spiece.model").write_bytes(b"not read here")
    (folder / "model_index.json").write_text(json.dumps(INDEX))
    return folder


@pytest.fixture(scope="module")
def mask2dit_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_published(tmp_path_factory.mktemp("hub") / "Mask2DiT", torch.bfloat16, FIVE_B)


def test_the_released_folder_is_what_is_expected(mask2dit_folder: Path) -> None:
    check_model_folder(mask2dit_folder)
    size = sum(file.stat().st_size for file in mask2dit_folder.rglob("*.safetensors"))
    assert 20e9 < size < 22e9 and len(list(mask2dit_folder.rglob("transformer/*.safetensors"))) == 3
    assert is_large(mask2dit_folder) and own_dtype(mask2dit_folder) == stored_dtype(mask2dit_folder, "text_encoder") == torch.bfloat16
    values = load_values(mask2dit_folder)
    assert (values["window"], values["known_sets"], values["num_frames"], values["height"]) == (3, "last", 49, 480)
    assert len(digest_of_text(mask2dit_folder)) == 16


def test_what_the_released_model_takes(mask2dit_folder: Path) -> None:
    compression = model_values(mask2dit_folder).compression
    needs = folder_needs(mask2dit_folder, VideoShape(480, 720, (49,) * 3, compression), torch.bfloat16, torch.device("cuda"))
    assert needs.transformer.weights == 2 * 5_570_283_072
    assert needs.text is not None and needs.text.weights == pytest.approx(8.9 * GIB, rel=0.01)
    # 17,550 video and 226 text tokens per scene, 42 layers of 48 heads: arithmetic by hand.
    video, text, width = 3 * 17_550, 3 * 226, 3072
    pairs = 3 * 226 * (226 + 17_550) + 3 * 17_550 * (226 + video)
    assert needs.transformer.call.attention_flop == 42 * 4 * pairs * width
    assert needs.transformer.call.linear_flop == pytest.approx(42 * 2 * 12 * width**2 * (video + text), rel=0.01)
    assert 3 * GIB < needs.transformer.call.peak_bytes < 5 * GIB


def test_cogvideox_2b_is_what_is_expected(tmp_path: Path) -> None:
    folder = write_published(tmp_path / "CogVideoX-2b", torch.float16, TWO_B)
    check_model_folder(folder)
    assert own_dtype(folder) == torch.float16


def test_an_inp_folder_is_refused_and_then_taken(mask2dit_folder: Path, tmp_path: Path) -> None:
    folder = write_published(tmp_path / "CogVideoX-Fun-5b-InP", torch.bfloat16, FIVE_B)
    wide = {"patch_embed.proj.weight": torch.empty(3072, 33, 2, 2, device="meta")}
    config = json.loads((folder / "transformer/config.json").read_text()) | {"in_channels": 33}
    with torch.device("meta"):
        transformer = Mask2DiTTransformer3DModel()
    tensors = transformer.state_dict() | wide
    for file in (folder / "transformer").iterdir():
        file.unlink()
    (folder / "transformer/config.json").write_text(json.dumps(config))
    write_holes(folder / "transformer/diffusion_pytorch_model.safetensors", tensors, torch.bfloat16)
    with pytest.raises(ModelError, match=r"in_channels: got 33 with out_channels 16 \(CogVideoX-Fun InP has 33.*--inp"):
        check_model_folder(folder)
    check_model_folder(folder, inp=True)


def test_a_folder_with_a_shard_missing_is_refused(tmp_path: Path) -> None:
    folder = write_published(tmp_path / "Mask2DiT", torch.bfloat16, FIVE_B)
    (folder / "text_encoder/model-00002-of-00002.safetensors").unlink()
    with pytest.raises(ModelError, match=r"text_encoder: model-00002-of-00002.safetensors of 2 shards missing, which"):
        check_model_folder(folder)
