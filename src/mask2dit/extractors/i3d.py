"""I3D, trained on Kinetics-400, as a TorchScript file: the network of FVD (Unterthiner et al., 2018).

The file is the one that StyleGAN-V's FVD uses, `i3d_torchscript.pt`. It resizes and rescales by itself, so pictures go in as they are, and
what comes out are 400 numbers before the softmax.
"""

import os
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mask2dit.errors import ModelError, one_line
from mask2dit.extractors.base import Features, Frames, evenly
from mask2dit.extractors.pictures import check_pictures
from mask2dit.extractors.pretrained import Weights, frozen, to_numpy
from mask2dit.extractors.whole_scenes import SceneExtractor

NAME = "i3d"
FRAMES = 16
WIDTH = 400
OPTIONS = ("rescale", "resize", "return_features")
"""What the file's `forward` is told: 0…255 → -1…1, to 224 × 224 pixels, and numbers before the softmax."""


class I3d(SceneExtractor):
    """I3D, on 16 frames."""

    name = NAME
    num_frames = FRAMES

    def __init__(self, network: Any, weights: str, device: torch.device) -> None:
        self.weights = weights
        self._network = network
        self._device = device

    def scene(self, pictures: Frames) -> Features:
        """[T, Y, X, 3] → [400]. Raises ModelError where the file gives anything else."""
        check_pictures(self.name, pictures)
        chosen = np.ascontiguousarray(evenly(pictures, self.num_frames).transpose(3, 0, 1, 2))
        video = torch.from_numpy(chosen)[None].float().to(self._device)  # [1, 3, T, Y, X], 0…255
        try:
            with torch.no_grad():
                output = self._network(video, **dict.fromkeys(OPTIONS, True))
        except RuntimeError as error:
            raise ModelError(
                f"{NAME}: {self.weights}: cannot compute a video of shape {tuple(video.shape)}: {_last_line(error)}"
            ) from error
        shape = tuple(output.shape) if isinstance(output, torch.Tensor) else type(output).__name__
        if shape != (1, WIDTH):
            raise ModelError(f"{NAME}: {self.weights}: gives {shape}, expected {(1, WIDTH)}; use StyleGAN-V's i3d_torchscript.pt")
        features: Features = to_numpy([output])[0]
        return features


def load(weights: str | None, device: torch.device, offline: bool) -> I3d:
    """Load I3D from a TorchScript file; nothing is ever downloaded. Raises ModelError."""
    del offline
    if weights is None:
        raise ModelError(f"{NAME}: has no weights of its own, expected the path of a TorchScript file such as i3d_torchscript.pt; give it")
    if not os.path.isfile(weights):
        raise ModelError(f"{NAME}: {weights!r}: no such file, expected the path of a TorchScript file; check the name")
    found = Weights(Path(weights), Path(weights).name)
    try:
        network = torch.jit.load(str(found.path), map_location="cpu")  # type: ignore[no-untyped-call]
        arguments = {argument.name for argument in network.forward.schema.arguments}
    except (RuntimeError, OSError, ValueError, AttributeError) as error:
        raise ModelError(f"{NAME}: {found.path}: cannot be opened as TorchScript ({_last_line(error)}); fetch it again") from error
    if not set(OPTIONS) <= arguments:
        raise ModelError(
            f"{NAME}: {found.path}: its forward takes {', '.join(sorted(arguments - {'self'}))}, expected {', '.join(OPTIONS)} among them; "
            "use StyleGAN-V's i3d_torchscript.pt"
        )
    return I3d(frozen(network, device), found.named([found.path]), device)


def _last_line(error: Exception) -> str:
    """TorchScript's errors quote its code first; the reason is at the end."""
    lines = [line for line in str(error).splitlines() if line.strip()]
    return one_line(ValueError(lines[-1] if lines else type(error).__name__))
