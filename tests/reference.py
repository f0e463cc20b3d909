"""Slow and obvious twins of the core, in float64, written from the definitions and not from the package.

The dense mask lives here and nowhere else.
"""

import math
from collections.abc import Set

import torch
from torch import Tensor

from mask2dit import Mask2DiTTransformer3DModel, SceneLayout

# Who may meet across scenes: text reads text, text reads video, video reads text, video reads video.
MEETINGS = {
    "isolated": (False, False, False, False),
    "symmetric": (False, False, False, True),
    "shared-text": (True, False, False, True),
    "video-reads-text": (False, False, True, True),
    "full": (True, True, True, True),
}


def dense_mask(plan: str, layout: SceneLayout, known: Set[int] = frozenset()) -> Tensor:
    """[N, N] of booleans: may the row's token attend to the column's? "context-blind": a known scene reads no generated one."""
    blind = plan == "context-blind"
    text_text, text_video, video_text, video_video = MEETINGS["symmetric" if blind else plan]
    allowed = {("text", "text"): text_text, ("text", "video"): text_video, ("video", "text"): video_text, ("video", "video"): video_video}
    tokens = [("text", scene) for scene, length in enumerate(layout.text_lengths) for _ in range(length)]
    tokens += [("video", scene) for scene, length in enumerate(layout.video_lengths) for _ in range(length)]

    def meet(kind: str, scene: int, read: str, other: int) -> bool:
        return scene == other or (allowed[kind, read] and not (blind and scene in known and other not in known))

    return torch.tensor([[meet(*asking, *read) for read in tokens] for asking in tokens])


def scene_of_token(layout: SceneLayout) -> tuple[Tensor, Tensor]:
    """The scene of each text token [ΣL] and of each video token [ΣV]."""
    scenes = torch.arange(layout.num_scenes)
    return scenes.repeat_interleave(torch.tensor(layout.text_lengths)), scenes.repeat_interleave(torch.tensor(layout.video_lengths))


def dense_attention(query: Tensor, key: Tensor, value: Tensor, mask: Tensor) -> Tensor:
    """Softmax over the allowed keys; [B, N, h, d] each, mask [N, N]."""
    scores = torch.einsum("bqhd,bkhd->bhqk", query, key) / math.sqrt(query.shape[-1])
    weights = scores.masked_fill(~mask, -math.inf).softmax(dim=-1)
    return torch.einsum("bhqk,bkhd->bqhd", weights, value)


def layer_norm(states: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    centred = states - states.mean(-1, keepdim=True)
    return centred / (centred.square().mean(-1, keepdim=True) + eps).sqrt() * weight + bias


def rotate(states: Tensor, angles: Tensor) -> Tensor:
    """Turn adjacent channel pairs of [B, N, h, d], as complex numbers, by angles [N, d / 2]."""
    pairs = torch.view_as_complex(states.unflatten(-1, (-1, 2)).contiguous())
    return torch.view_as_real(pairs * torch.polar(torch.ones_like(angles), angles)[None, :, None]).flatten(-2)


def rotary_angles(num_frames: int, grid: tuple[int, int], base_grid: tuple[int, int], head_dim: int) -> Tensor:
    """[F·rows·columns, head_dim / 2], token by token."""
    (rows, columns), (base_rows, base_columns) = grid, base_grid
    if rows / columns > base_rows / base_columns:
        height, width = base_rows, round(base_rows / rows * columns)
    else:
        height, width = round(base_columns / columns * rows), base_columns
    top, left = round((base_rows - height) / 2), round((base_columns - width) / 2)

    def angles(position: float, channels: int) -> list[float]:
        return [position / 10000.0 ** (2 * pair / channels) for pair in range(channels // 2)]

    return torch.tensor(
        [
            angles(frame, head_dim // 4)
            + angles(top + height * row / rows, head_dim * 3 // 8)
            + angles(left + width * column / columns, head_dim * 3 // 8)
            for frame in range(num_frames)
            for row in range(rows)
            for column in range(columns)
        ],
        dtype=torch.float64,
    )


class PlainTransformer:
    """The forward of method section 2, token by token where it can be, from a model's weights alone."""

    def __init__(self, model: Mask2DiTTransformer3DModel, plan: str) -> None:
        self.weights = {key: value.detach().double().requires_grad_() for key, value in model.state_dict().items()}
        self.config = model.config
        self.plan = plan
        self.dim = model.config.num_attention_heads * model.config.attention_head_dim

    def __call__(self, hidden_states: Tensor, encoder_hidden_states: Tensor, timestep: Tensor, layout: SceneLayout) -> Tensor:
        """[B, F, C, H, W]; timestep [B, S]."""
        batch, num_frames, _, height, width = hidden_states.shape
        patch = self.config.patch_size
        grid = (height // patch, width // patch)
        base_grid = (self.config.sample_height // patch, self.config.sample_width // patch)
        self.angles = rotary_angles(num_frames, grid, base_grid, self.config.attention_head_dim)
        self.mask = dense_mask(self.plan, layout)
        self.text_scene, self.video_scene = scene_of_token(layout)

        temb = self._embed_time(timestep)  # [B, S, time_embed_dim]
        text = self._linear("patch_embed.text_proj", encoder_hidden_states.double())
        video = self._patches(hidden_states.double(), grid)
        for index in range(self.config.num_layers):
            video, text = self._block(f"transformer_blocks.{index}", video, text, temb)
        video = self._norm("norm_final", video, self.config.norm_eps)
        shift, scale = self._linear("norm_out.linear", torch.nn.functional.silu(temb))[:, self.video_scene].chunk(2, dim=-1)
        video = self._norm("norm_out.norm", video, self.config.norm_eps) * (1 + scale) + shift
        output = torch.zeros(batch, num_frames, self.config.out_channels, height, width, dtype=torch.float64)
        tokens = self._linear("proj_out", video).reshape(batch, num_frames, *grid, -1, patch, patch)
        for row in range(grid[0]):
            for column in range(grid[1]):
                rows, columns = slice(row * patch, (row + 1) * patch), slice(column * patch, (column + 1) * patch)
                output[:, :, :, rows, columns] = tokens[:, :, row, column]
        return output

    def _block(self, name: str, video: Tensor, text: Tensor, temb: Tensor) -> tuple[Tensor, Tensor]:
        for norm, inner in (("norm1", self._attention), ("norm2", self._feed_forward)):
            rows = self._linear(f"{name}.{norm}.linear", torch.nn.functional.silu(temb))
            shift, scale, gate = rows[:, self.video_scene].chunk(6, dim=-1)[:3]
            text_shift, text_scale, text_gate = rows[:, self.text_scene].chunk(6, dim=-1)[3:]
            new_video = self._norm(f"{name}.{norm}.norm", video, self.config.norm_eps) * (1 + scale) + shift
            new_text = self._norm(f"{name}.{norm}.norm", text, self.config.norm_eps) * (1 + text_scale) + text_shift
            joint = inner(name, torch.cat([new_text, new_video], dim=1))
            text = text + text_gate * joint[:, : text.shape[1]]
            video = video + gate * joint[:, text.shape[1] :]
        return video, text

    def _attention(self, name: str, joint: Tensor) -> Tensor:
        num_text = len(self.text_scene)
        heads = []
        for letter in "qkv":
            states = self._linear(f"{name}.attn1.to_{letter}", joint).unflatten(2, (self.config.num_attention_heads, -1))
            if letter != "v":
                states = self._norm(f"{name}.attn1.norm_{letter}", states, 1e-6)
                states = torch.cat([states[:, :num_text], rotate(states[:, num_text:], self.angles)], dim=1)
            heads.append(states)
        return self._linear(f"{name}.attn1.to_out.0", dense_attention(*heads, self.mask).flatten(2))

    def _feed_forward(self, name: str, joint: Tensor) -> Tensor:
        return self._linear(f"{name}.ff.net.2", torch.nn.functional.gelu(self._linear(f"{name}.ff.net.0.proj", joint), approximate="tanh"))

    def _embed_time(self, timestep: Tensor) -> Tensor:
        half = self.dim // 2
        angles = timestep.double()[..., None] * torch.exp(-math.log(10000) * torch.arange(half, dtype=torch.float64) / half)
        sinusoid = torch.cat([angles.cos(), angles.sin()], dim=-1)
        return self._linear("time_embedding.linear_2", torch.nn.functional.silu(self._linear("time_embedding.linear_1", sinusoid)))

    def _patches(self, latents: Tensor, grid: tuple[int, int]) -> Tensor:
        patch = self.config.patch_size
        weight, bias = self.weights["patch_embed.proj.weight"], self.weights["patch_embed.proj.bias"]
        tokens = [
            latents[:, frame, :, row * patch : (row + 1) * patch, column * patch : (column + 1) * patch].flatten(1) @ weight.flatten(1).T
            + bias
            for frame in range(latents.shape[1])
            for row in range(grid[0])
            for column in range(grid[1])
        ]
        return torch.stack(tokens, dim=1)

    def _linear(self, name: str, states: Tensor) -> Tensor:
        return states @ self.weights[f"{name}.weight"].T + self.weights[f"{name}.bias"]

    def _norm(self, name: str, states: Tensor, eps: float) -> Tensor:
        return layer_norm(states, self.weights[f"{name}.weight"], self.weights[f"{name}.bias"], eps)
