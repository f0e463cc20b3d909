"""Latents as small pictures without decoding: a linear map from a latent cell to a colour, fitted to the VAE at hand.

Good enough to see what a denoising comes to; not for anything that is kept.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import avg_pool2d, interpolate

from mask2dit import film
from mask2dit.latents import encode_frames

PICTURES = 3
CELLS = (8, 12)  # latent rows and columns of a picture that the map is fitted on
FRAMES = 5  # of such a clip, all alike: the first latent frame stands for one of them, the second for four
RIDGE = 1e-3
TIMES = 8  # pictures of a denoising, evenly over its steps
SHOWN_HEIGHT = 128


@dataclass(frozen=True, slots=True)
class RgbPreview:
    """`weight` [C + 1, 3]: from a latent cell, and a one, to red, green and blue in 0..1."""

    weight: Tensor

    @classmethod
    def fit(cls, pipeline: Any) -> Self:
        """Least squares between what the VAE makes of a few soft pictures and their mean colours, cell by cell. Draws nothing."""
        vae, scale = pipeline.vae, pipeline.values.compression.spatial
        cells, colours = [], []
        for number in range(PICTURES):
            picture = _soft_picture(number, (CELLS[0] * scale, CELLS[1] * scale))  # [3, Y, X]
            clip = picture[None].expand(FRAMES, -1, -1, -1) * 2 - 1
            latents = encode_frames(vae, clip, pipeline._execution_device).float().cpu()  # [2, C, H, W]
            target = avg_pool2d(picture[None], scale).expand(len(latents), -1, -1, -1)
            cells.append(_cells(latents))
            colours.append(target.permute(0, 2, 3, 1).flatten(0, 2))
        pipeline.maybe_free_model_hooks()
        known, wanted = torch.cat(cells).double(), torch.cat(colours).double()
        gram = known.T @ known
        ridge = RIDGE * gram.diagonal().mean() * torch.eye(len(gram), dtype=gram.dtype)
        return cls(torch.linalg.solve(gram + ridge, known.T @ wanted).float())

    def frames(self, latents: Tensor) -> np.ndarray[Any, np.dtype[np.uint8]]:
        """Latents [F, C, H, W] as colours [F, H, W, 3]."""
        count, _, height, width = latents.shape
        colours = _cells(latents.float().cpu()) @ self.weight
        return film.frames_to_bytes(colours.reshape(count, height, width, 3).numpy())

    def picture(self, scenes: Mapping[int, Tensor], title: str) -> Image.Image:
        """Scene number → its latents [F, C, H, W]: a row per scene with its first, middle and last latent frame."""
        rows = []
        for number, latents in sorted(scenes.items()):
            frames = self.frames(latents[sorted({0, len(latents) // 2, len(latents) - 1})])
            factor = max(1, round(SHOWN_HEIGHT / frames.shape[1]))
            rows.append((number, [film.enlarge(frame, factor) for frame in frames]))
        return film.preview_sheet(title, rows)


def is_due(step: int, total: int) -> bool:
    """Whether there is a new picture after this step: about TIMES of them, and one at the end."""
    return step == total or step % max(1, total // TIMES) == 0


def _cells(latents: Tensor) -> Tensor:
    """[F, C, H, W] → a row per cell, with a one at its end: [F·H·W, C + 1]."""
    rows = latents.permute(0, 2, 3, 1).flatten(0, 2)
    return torch.cat([rows, torch.ones(len(rows), 1)], dim=1)


def _soft_picture(number: int, size: tuple[int, int]) -> Tensor:
    """Soft patches of all colours, light and dark: [3, Y, X] in 0..1, always the same."""
    generator = torch.Generator().manual_seed(number)
    coarse = torch.rand(1, 3, 4 + number, 5 + number, generator=generator)
    return interpolate(coarse, size, mode="bilinear", align_corners=True)[0]
