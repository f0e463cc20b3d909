"""Every extractor at a tiny size, from its real class, with random weights, as folders like those that are published."""

import gzip
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models, normalizers
from transformers import (
    CLIPConfig,
    CLIPModel,
    CLIPTokenizer,
    Dinov2Config,
    Dinov2Model,
    PreTrainedModel,
    SiglipConfig,
    SiglipModel,
    VideoMAEConfig,
    VideoMAEForPreTraining,
)
from transformers.utils import logging

from mask2dit.extractors.viclip_network import Sizes, ViClipNetwork
from tiny import randomise

MERGES = ["t h", "th e</w>", "d o", "do g</w>", "c a", "ca t</w>", "1 2", "r u"]
TEXT = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}
VISION = TEXT | {"image_size": 32, "patch_size": 16}
CLIP_MEAN, CLIP_STD = [0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711]
IMAGENET_MEAN, IMAGENET_STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
CLIP_PICTURES = {  # in the form of 2021
    "crop_size": 32,
    "do_center_crop": True,
    "do_normalize": True,
    "do_resize": True,
    "feature_extractor_type": "CLIPFeatureExtractor",
    "image_mean": CLIP_MEAN,
    "image_std": CLIP_STD,
    "resample": 3,
    "size": 32,
}
SIGLIP_PICTURES = {
    "do_convert_rgb": None,
    "do_normalize": True,
    "do_rescale": True,
    "do_resize": True,
    "image_mean": [0.5, 0.5, 0.5],
    "image_processor_type": "SiglipImageProcessor",
    "image_std": [0.5, 0.5, 0.5],
    "resample": 2,
    "rescale_factor": 1 / 255,
    "size": {"height": 32, "width": 32},
}
DINO_PICTURES = {
    "crop_size": {"height": 28, "width": 28},
    "do_center_crop": True,
    "do_convert_rgb": True,
    "do_normalize": True,
    "do_rescale": True,
    "do_resize": True,
    "image_mean": IMAGENET_MEAN,
    "image_std": IMAGENET_STD,
    "resample": 3,
    "rescale_factor": 1 / 255,
    "size": {"shortest_edge": 36},
}
VIDEOMAE_PICTURES = {  # without a size to cut out: the size itself
    "do_center_crop": True,
    "do_normalize": True,
    "do_resize": True,
    "feature_extractor_type": "VideoMAEFeatureExtractor",
    "image_mean": IMAGENET_MEAN,
    "image_std": IMAGENET_STD,
    "resample": 2,
    "size": 32,
}
VICLIP = Sizes(
    num_frames=8,
    image_size=32,
    patch_size=16,
    vision_width=24,
    vision_layers=2,
    vision_heads=2,
    vocabulary=2 * 256 + len(MERGES) + 2,
    text_length=12,
    text_width=16,
    text_layers=2,
    text_heads=2,
    embedding=8,
)


def pictures(count: int = 9, height: int = 64, width: int = 96, seed: int = 0) -> np.ndarray:
    """Random pictures, smooth enough for filters to differ."""
    coarse = np.random.default_rng(seed).integers(0, 256, (count, (height + 7) // 8, (width + 7) // 8, 3), dtype=np.uint8)
    return np.ascontiguousarray(coarse.repeat(8, 1).repeat(8, 2)[:, :height, :width])


def clip_tokenizer() -> CLIPTokenizer:
    """A token for every byte and a few merges, in CLIP's order."""
    seen = [*range(33, 127), *range(161, 173), *range(174, 256)]
    letters = [chr(byte) for byte in seen] + [chr(256 + number) for number in range(256 - len(seen))]
    merges = [tuple(line.split()) for line in MERGES]
    words = [*letters, *(f"{letter}</w>" for letter in letters), *map("".join, merges), "<|startoftext|>", "<|endoftext|>"]
    return CLIPTokenizer(vocab={word: number for number, word in enumerate(words)}, merges=merges)


def gemma_tokenizer() -> Tokenizer:
    """Small letters only, so that a caption whose case was kept is all unknown; its own ends are other than SigLIP 2's."""
    words = ["<pad>", "<eos>", "<bos>", "<unk>", "▁", *"abcdefghijklmnopqrstuvwxyz.,"]
    tokenizer = Tokenizer(models.BPE(vocab={word: number for number, word in enumerate(words)}, merges=[], unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.enable_padding(direction="left", pad_token="<bos>", pad_id=2)
    return tokenizer


def clip(folder: Path) -> Path:
    tokenizer = clip_tokenizer()
    ends = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
    text = TEXT | ends | {"vocab_size": len(tokenizer), "max_position_embeddings": 12}
    save(CLIPModel(CLIPConfig(text_config=text, vision_config=VISION, projection_dim=8)), folder, CLIP_PICTURES)
    tokenizer.save_pretrained(folder)
    return folder


def siglip2(folder: Path) -> Path:
    text = TEXT | {"vocab_size": 40, "max_position_embeddings": 12}
    save(SiglipModel(SiglipConfig(text_config=text, vision_config=VISION)), folder, SIGLIP_PICTURES)
    gemma_tokenizer().save(str(folder / "tokenizer.json"))
    return folder


def dinov2(folder: Path) -> Path:
    config = Dinov2Config(hidden_size=16, num_hidden_layers=2, num_attention_heads=2, mlp_ratio=2, image_size=42, patch_size=14)
    return save(Dinov2Model(config), folder, DINO_PICTURES)


def videomae(folder: Path) -> Path:
    decoder = {f"decoder_{name}": value for name, value in TEXT.items()}
    config = VideoMAEConfig(**VISION, **decoder, num_frames=16, tubelet_size=2, use_mean_pooling=False)
    return save(VideoMAEForPreTraining(config), folder, VIDEOMAE_PICTURES)


def viclip_network(sizes: Sizes = VICLIP, seed: int = 0) -> ViClipNetwork:
    return randomise(ViClipNetwork(sizes), seed)


def viclip(folder: Path) -> Path:
    folder.mkdir()
    save_file(viclip_network().state_dict(), folder / "model.safetensors")
    sizes = {name: getattr(VICLIP, name) for name in VICLIP.__dataclass_fields__}
    (folder / "config.json").write_text(json.dumps({"architectures": ["ViCLIP"], "size": "l", "sizes": sizes}))
    save_merges(folder)
    return folder


def save_merges(folder: Path) -> None:
    lines = ["#version: 0.2", *MERGES, ""]
    (folder / "bpe_simple_vocab_16e6.txt.gz").write_bytes(gzip.compress("\n".join(lines).encode(), mtime=0))


class TinyI3d(torch.nn.Module):
    """With the signature of the published file, and 400 numbers that depend on every pixel, on time, and on the options."""

    def __init__(self, width: int = 400) -> None:
        super().__init__()
        self.proj = torch.nn.Linear(3 * 4, width)

    def forward(self, x: torch.Tensor, rescale: bool = False, resize: bool = False, return_features: bool = False) -> torch.Tensor:
        if resize:
            x = torch.nn.functional.interpolate(x, size=[16, 224, 224], mode="trilinear", align_corners=False)
        if rescale:
            x = x * (2.0 / 255.0) - 1.0
        output = self.proj(torch.nn.functional.adaptive_avg_pool3d(x, [4, 1, 1]).flatten(1))
        return output if return_features else output.softmax(1)


def i3d(file: Path, width: int = 400) -> Path:
    torch.jit.script(randomise(TinyI3d(width), 0)).save(str(file))
    return file


FOLDERS: dict[str, Callable[[Path], Path]] = {"clip": clip, "siglip2": siglip2, "dinov2": dinov2, "videomae": videomae, "viclip": viclip}


def save(network: PreTrainedModel, folder: Path, preparation: dict) -> Path:
    """As published folders are."""
    bars = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    randomise(network, 0).save_pretrained(folder)
    if bars:
        logging.enable_progress_bar()
    (folder / "preprocessor_config.json").write_text(json.dumps(preparation))
    return folder


def change(folder: Path, edit: Callable[[dict[str, torch.Tensor]], object]) -> None:
    """Change a folder's tensors."""
    file = folder / "model.safetensors"
    tensors = load_file(file)
    edit(tensors)
    save_file(tensors, file, metadata={"format": "pt"})
