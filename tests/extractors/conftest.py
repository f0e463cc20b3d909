"""Tiny extractors, made once and only to be read."""

from pathlib import Path

import pytest

import tiny_extractors


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A folder of weights for each name, and a file for i3d."""
    place = tmp_path_factory.mktemp("extractors")
    made = {name: make(place / f"tiny-{name}") for name, make in tiny_extractors.FOLDERS.items()}
    return made | {"i3d": tiny_extractors.i3d(place / "i3d_torchscript.pt")}
