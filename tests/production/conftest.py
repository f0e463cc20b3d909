"""The tiny pipeline, and a storyboard for it."""

import shutil
from pathlib import Path

import pytest

from mask2dit.loading import load_pipeline
from mask2dit.pipeline import Mask2DiTPipeline
from mask2dit.production import make_film
from mask2dit.storyboard import Storyboard
from production.filming import SETTINGS

STORY = "a red fox walks; the fox jumps; a bear sleeps"


@pytest.fixture(scope="session")
def pipeline(model_folder: Path) -> Mask2DiTPipeline:
    return load_pipeline(model_folder)


@pytest.fixture
def board() -> Storyboard:
    return Storyboard.from_text(STORY, title="The fox")


@pytest.fixture(scope="session")
def whole(pipeline: Mask2DiTPipeline, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The film of `board`, made without a stop; only to be looked at."""
    folder = tmp_path_factory.mktemp("films") / "fox"
    make_film(pipeline, Storyboard.from_text(STORY, title="The fox"), folder, SETTINGS)
    return folder


@pytest.fixture
def finished(whole: Path, tmp_path: Path) -> Path:
    """A copy of `whole` to go on with."""
    return shutil.copytree(whole, tmp_path / "finished")
