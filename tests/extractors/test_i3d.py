"""I3D: a TorchScript file is asked as StyleGAN-V asks it, and must answer as that file does."""

from pathlib import Path

import numpy as np
import pytest
import torch

import tiny_extractors
from mask2dit.errors import InputError, ModelError
from mask2dit.extractors import load_extractor
from mask2dit.extractors.base import evenly
from tiny import randomise
from tiny_extractors import TinyI3d, pictures


@pytest.mark.parametrize("count", [1, 16, 21])
def test_the_feature_is_the_file_s_answer(count: int, folders: dict[str, Path]) -> None:
    extractor = load_extractor("i3d", str(folders["i3d"]))
    images = pictures(count)
    features = extractor.scene(images)
    video = torch.from_numpy(evenly(images, 16)).permute(3, 0, 1, 2)[None].float()
    with torch.no_grad():
        plain = randomise(TinyI3d(), 0)(video, rescale=True, resize=True, return_features=True)[0]
    assert features.dtype == np.float32 and features.shape == (400,)
    np.testing.assert_allclose(features, plain.numpy(), atol=1e-6)


def test_what_it_has(folders: dict[str, Path]) -> None:
    extractor = load_extractor("i3d", str(folders["i3d"]))
    assert (extractor.name, extractor.kinds, extractor.num_frames) == ("i3d", {"scene"}, 16)
    assert extractor.weights.startswith("i3d_torchscript.pt · ")
    for call in (lambda: extractor.frames(pictures()), lambda: extractor.text(["a"])):
        with pytest.raises(InputError, match=r"^i3d: has no features of kind (frame|text), expected scene; choose another extractor$"):
            call()


def test_it_has_no_weights_of_its_own(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"^i3d: has no weights of its own, expected the path of a TorchScript file[^\n]*$"):
        load_extractor("i3d")
    for missing in (tmp_path / "i3d.pt", tmp_path):
        with pytest.raises(ModelError, match=r"^i3d: [^\n]*: no such file, expected[^\n]*; check the name$"):
            load_extractor("i3d", str(missing))


@pytest.mark.parametrize("content", ["text", "tensors", "half"])
def test_files_that_are_not_torchscript_are_refused(content: str, tmp_path: Path, folders: dict[str, Path]) -> None:
    file = tmp_path / "i3d.pt"
    match content:
        case "text":
            file.write_bytes(b"not a network")
        case "tensors":
            torch.save({"a": torch.zeros(3)}, file)
        case "half":
            file.write_bytes(folders["i3d"].read_bytes()[:1000])
    with pytest.raises(ModelError, match=r"^i3d: [^\n]*: cannot be opened as TorchScript \([^\n]+\); fetch it again$"):
        load_extractor("i3d", str(file))


class Plain(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x


class Strict(torch.nn.Module):
    def forward(self, x: torch.Tensor, rescale: bool, resize: bool, return_features: bool) -> torch.Tensor:
        return x.reshape(7, -1, 11)


def test_networks_that_do_otherwise_are_refused(tmp_path: Path) -> None:
    torch.jit.script(Plain()).save(str(tmp_path / "plain.pt"))
    with pytest.raises(
        ModelError, match=r"^i3d: [^\n]*: its forward takes x, expected rescale, resize, return_features among them; use[^\n]*$"
    ):
        load_extractor("i3d", str(tmp_path / "plain.pt"))
    narrow = load_extractor("i3d", str(tiny_extractors.i3d(tmp_path / "narrow.pt", width=7)))
    with pytest.raises(ModelError, match=r"^i3d: narrow.pt · [^\n]*: gives \(1, 7\), expected \(1, 400\); use[^\n]*$"):
        narrow.scene(pictures())
    torch.jit.script(Strict()).save(str(tmp_path / "strict.pt"))
    with pytest.raises(ModelError, match=r"^i3d: strict.pt · [^\n]*: cannot compute a video of shape \(1, 3, 16, 64, 96\): [^\n]+$"):
        load_extractor("i3d", str(tmp_path / "strict.pt")).scene(pictures())
