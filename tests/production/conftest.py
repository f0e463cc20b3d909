"""The tiny pipeline, and a storyboard for it."""

from pathlib import Path

import pytest

import tiny
from mask2dit.loading import load_pipeline
from mask2dit.pipeline import Mask2DiTPipeline
from mask2dit.storyboard import Storyboard


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    tiny.save_pipeline(folder)
    return folder


@pytest.fixture(scope="session")
def pipeline(model_folder: Path) -> Mask2DiTPipeline:
    return load_pipeline(model_folder)


@pytest.fixture
def board() -> Storyboard:
    return Storyboard.from_text("a red fox walks; the fox jumps; a bear sleeps", title="The fox")
