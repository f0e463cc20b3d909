"""A scene's noise depends on seed, scene number and take, and on nothing else."""

import torch

from mask2dit.production import scene_generator

RECORDED = [4362078583658708424, 4854483867907407884, 8122414849825432327, 5491724946747980540]


def test_generators_are_the_same_for_ever() -> None:
    """Recorded: a change here changes every film that anyone made from a seed."""
    assert [scene_generator(*which).initial_seed() for which in ((0, 1), (0, 2), (1, 1), (0, 1, 1))] == RECORDED


def test_every_seed_scene_and_take_has_its_own_noise() -> None:
    draws = {
        tuple(torch.randn(4, generator=scene_generator(seed, number, take)).tolist())
        for seed in (0, 1, 12)
        for number in (1, 2, 21)
        for take in (0, 1)
    }
    assert len(draws) == 18
    assert scene_generator(2**63 - 1, 500).device.type == "cpu"
