"""The tiny pipeline, and a storyboard for it."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

import tiny
from mask2dit.loading import load_pipeline
from mask2dit.pipeline import Mask2DiTPipeline
from mask2dit.production import make_film
from mask2dit.storyboard import Storyboard
from production.filming import SETTINGS

STORY = "a red fox walks; the fox jumps; a bear sleeps"


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    tiny.save_pipeline(folder)
    return folder


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> Iterator[None]:
    """Tiny tensors lose more by waiting for a second core than they gain."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


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
