"""From a film's seed to the noise of each of its scenes."""

import hashlib

import torch


def scene_generator(seed: int, number: int, take: int = 0) -> torch.Generator:
    """The CPU generator of one take of scene `number` (from 1).

    It depends on these three alone, so that a scene's noise is the same on any device, whatever other scenes there are.
    """
    text = f"mask2dit scene noise: seed {seed}, scene {number}, take {take}"
    digest = hashlib.sha256(text.encode()).digest()
    return torch.Generator("cpu").manual_seed(int.from_bytes(digest[:8]) >> 1)
