"""ViCLIP's network: CLIP's, with a picture tower that reads all frames of a video at once (Wang et al., 2023, InternVid).

Parameter names equal those of the released weights, so that they load as they are. Shapes: B videos or captions, T frames, P patches of a
frame, L tokens of a caption, D width, E width of what both towers end in.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention


@dataclass(frozen=True, slots=True)
class Sizes:
    """A network's sizes; the defaults are those of the L/14 weights."""

    num_frames: int = 8
    image_size: int = 224
    patch_size: int = 14
    vision_width: int = 1024
    vision_layers: int = 24
    vision_heads: int = 16
    vocabulary: int = 49408
    text_length: int = 32
    text_width: int = 768
    text_layers: int = 12
    text_heads: int = 12
    embedding: int = 768


SIZES = {
    "l": Sizes(),
    "b": Sizes(patch_size=16, vision_width=768, vision_layers=12, vision_heads=12, text_width=512, text_heads=8, embedding=512),
}
"""By the letter that a released config.json has under `size`."""


class ViClipNetwork(nn.Module):
    """Videos and captions in one space."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.sizes = sizes
        self.vision_encoder = VideoTower(sizes)
        self.text_encoder = TextTower(sizes)
        self.temp = nn.Parameter(torch.tensor(0.01))  # of the loss; features do not depend on it


class VideoTower(nn.Module):
    """A vision transformer in which every patch of every frame meets every other; the output is its class token's."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        width, patch = sizes.vision_width, sizes.patch_size
        self.conv1 = nn.Conv3d(3, width, (1, patch, patch), (1, patch, patch), bias=False)
        self.class_embedding = nn.Parameter(torch.zeros(width))
        self.positional_embedding = nn.Parameter(torch.zeros((sizes.image_size // patch) ** 2 + 1, width))
        self.temporal_positional_embedding = nn.Parameter(torch.zeros(1, sizes.num_frames, width))
        self.ln_pre = nn.LayerNorm(width)
        self.transformer = Layers(width, sizes.vision_layers, sizes.vision_heads)
        self.ln_post = nn.LayerNorm(width)
        self.proj = nn.Parameter(torch.zeros(width, sizes.embedding))

    def forward(self, video: Tensor) -> Tensor:
        """[B, 3, T, image_size, image_size], T as in the sizes → [B, E]"""
        patches = self.conv1(video).flatten(3).permute(0, 2, 3, 1)  # [B, T, P, D]
        patches = patches + self.positional_embedding[1:] + self.temporal_positional_embedding[:, :, None]
        first = (self.class_embedding + self.positional_embedding[0]).expand(len(video), 1, -1)  # one for all frames, of no time
        tokens = torch.cat([first, patches.flatten(1, 2)], dim=1)  # [B, 1 + T·P, D]
        tokens = self.transformer(self.ln_pre(tokens), causal=False)
        embedding: Tensor = self.ln_post(tokens[:, 0]) @ self.proj
        return embedding


class TextTower(nn.Module):
    """A transformer in which every token meets those before it; the output is that of the end of the text."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        width = sizes.text_width
        self.token_embedding = nn.Embedding(sizes.vocabulary, width)
        self.positional_embedding = nn.Parameter(torch.zeros(sizes.text_length, width))
        self.transformer = Layers(width, sizes.text_layers, sizes.text_heads)
        self.ln_final = nn.LayerNorm(width)
        self.text_projection = nn.Parameter(torch.zeros(width, sizes.embedding))

    def forward(self, tokens: Tensor) -> Tensor:
        """[B, L], L as in the sizes, the end being the highest number of all → [B, E]. What stands behind the end does not matter."""
        hidden = self.transformer(self.token_embedding(tokens) + self.positional_embedding, causal=True)  # [B, L, D]
        end = tokens.argmax(dim=1)  # the first of several
        embedding: Tensor = self.ln_final(hidden[torch.arange(len(tokens), device=tokens.device), end]) @ self.text_projection
        return embedding


class Layers(nn.Module):
    """Attention and feed-forward, again and again."""

    def __init__(self, width: int, layers: int, heads: int) -> None:
        super().__init__()
        self.resblocks = nn.ModuleList(Layer(width, heads) for _ in range(layers))

    def forward(self, hidden: Tensor, causal: bool) -> Tensor:
        """[B, tokens, D] → the same; causal: no token sees a later one."""
        for layer in self.resblocks:
            hidden = layer(hidden, causal)
        return hidden


class Layer(nn.Module):
    """Attention, then feed-forward, each behind a norm and added to what was there."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.ln_1 = nn.LayerNorm(width)
        self.attn = Attention(width, heads)
        self.ln_2 = nn.LayerNorm(width)
        self.mlp = nn.ModuleDict({"c_fc": nn.Linear(width, 4 * width), "c_proj": nn.Linear(4 * width, width)})

    def forward(self, hidden: Tensor, causal: bool) -> Tensor:
        """[B, tokens, D] → the same"""
        hidden = hidden + self.attn(self.ln_1(hidden), causal)
        inner = self.mlp["c_fc"](self.ln_2(hidden))
        inner = inner * torch.sigmoid(1.702 * inner)  # CLIP's own approximation of GELU
        return hidden + self.mlp["c_proj"](inner)  # type: ignore[no-any-return]


class Attention(nn.Module):
    """Attention with the parameters of `nn.MultiheadAttention`, and no mask to be stored."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        if width % heads:
            raise ValueError(f"{heads} attention heads do not divide a width of {width}")
        self.heads = heads
        self.in_proj_weight = nn.Parameter(torch.zeros(3 * width, width))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * width))
        self.out_proj = nn.Linear(width, width)

    def forward(self, hidden: Tensor, causal: bool) -> Tensor:
        """[B, tokens, D] → the same"""
        joint: Any = nn.functional.linear(hidden, self.in_proj_weight, self.in_proj_bias)
        query, key, value = joint.unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)  # each [B, heads, tokens, d]
        output = scaled_dot_product_attention(query, key, value, is_causal=causal).transpose(1, 2).flatten(2)
        return self.out_proj(output)  # type: ignore[no-any-return]
