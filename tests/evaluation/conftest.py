"""Small films and small extractors, made once."""

from fractions import Fraction
from pathlib import Path

import pytest

import tiny_extractors
from foreign_films import footage
from mask2dit.extractors import load_extractor
from mask2dit.extractors.base import Extractor

LENGTH = 12  # frames of a scene


@pytest.fixture(scope="session")
def clip_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_extractors.clip(tmp_path_factory.mktemp("networks") / "clip")


@pytest.fixture(scope="session")
def networks(clip_folder: Path) -> dict[str, Extractor]:
    """A CLIP and a DINOv2 of random weights."""
    folder = tiny_extractors.dinov2(clip_folder.parent / "dinov2")
    return {"clip": load_extractor("clip", str(clip_folder)), "dinov2": load_extractor("dinov2", str(folder))}


@pytest.fixture(scope="session")
def films(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three films of three scenes, with lists of their cuts; not to be written to."""
    folder = tmp_path_factory.mktemp("films")
    for name, sources in {
        "one": ("testsrc2", "mandelbrot", "gradients"),
        "three": ("mandelbrot", "life", "testsrc2"),
        "two": ("gradients", "testsrc2", "life"),
    }.items():
        parts = tuple(footage.Part(source, LENGTH) for source in sources)
        footage.write_film(footage.Plan(name, parts, Fraction(12), (48, 64)), folder)
    return folder
