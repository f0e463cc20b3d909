"""Keys and values of known scenes, computed once for a film and not at every step.

Exact only under a plan in which known scenes do not see generated ones ("context-blind"): nothing that they compute changes from step to
step then, for their latents are clean and their timestep is 0. The transformer is given the known scenes alone first, and the generated
ones alone from then on; so a step costs what these cost.
"""

import torch
from torch import Tensor


class LayerContext:
    """One attention layer's keys and values of the known scenes' video, [B, C, h, d] each, once they were seen."""

    def __init__(self, num_text_tokens: int) -> None:
        self._num_text_tokens = num_text_tokens
        self._kept: tuple[Tensor, Tensor] | None = None

    def __call__(self, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values [B, N, h, d] of known scenes: keeps those of their video. Of generated ones: puts the kept ones behind them."""
        if self._kept is None:
            self._kept = (key[:, self._num_text_tokens :].clone(), value[:, self._num_text_tokens :].clone())
            return key, value
        return torch.cat([key, self._kept[0]], dim=1), torch.cat([value, self._kept[1]], dim=1)


class ContextCache:
    """What the known scenes of one film are to all layers in one guidance branch; to be filled by one pass over them alone."""

    def __init__(self, num_layers: int) -> None:
        self.num_layers = num_layers
        self.is_filled = False
        """Whether a whole pass has seen the known scenes."""
        self._num_tokens = 0
        self._layers: list[LayerContext] = []

    @property
    def num_tokens(self) -> int:
        """Video tokens that are kept; 0 until it is filled."""
        return self._num_tokens if self.is_filled else 0

    def layers(self, num_text_tokens: int, num_video_tokens: int) -> list[LayerContext]:
        """One for each layer, for a pass over so many tokens: the first pass fills them."""
        if not self.is_filled:
            self._layers = [LayerContext(num_text_tokens) for _ in range(self.num_layers)]
            self._num_tokens = num_video_tokens
        return self._layers
