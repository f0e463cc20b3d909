"""CLIP, SigLIP 2, DINOv2 and VideoMAE: features are those of a plain computation with transformers' network and its own preparation."""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from transformers import CLIPModel, Dinov2Model, SiglipModel, VideoMAEForPreTraining
from transformers.models.bit.image_processing_pil_bit import BitImageProcessorPil
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil
from transformers.models.videomae.image_processing_pil_videomae import VideoMAEImageProcessorPil

import tiny_extractors
from mask2dit.errors import InputError, ModelError
from mask2dit.extractors import load_extractor
from mask2dit.extractors.base import SCENE_FRAMES, Extractor, evenly, mean_of_unit
from mask2dit.extractors.pictures import BATCH
from tiny_extractors import pictures

PROCESSORS = {
    "clip": CLIPImageProcessorPil,
    "siglip2": SiglipImageProcessorPil,
    "dinov2": BitImageProcessorPil,
    "videomae": VideoMAEImageProcessorPil,
}
SHAPES = [(64, 96), (96, 64), (45, 77), (31, 33), (20, 20), (200, 61)]
CAPTIONS = ["a dog", "The cat and the dog run, and then they run again and again and again.", "12"]


@pytest.fixture(scope="module")
def loaded(folders: dict[str, Path]) -> dict[str, Extractor]:
    return {name: load_extractor(name, str(folders[name])) for name in PROCESSORS}


def plain_pixels(name: str, folder: Path, images: np.ndarray) -> torch.Tensor:
    """Prepared by transformers, picture by picture."""
    processor = PROCESSORS[name].from_pretrained(folder, **({"crop_size": 32} if name == "videomae" else {}))
    if name == "videomae":
        return processor([list(images)], return_tensors="pt")["pixel_values"][0]
    return processor(list(images), return_tensors="pt")["pixel_values"]


@torch.no_grad()
def plain_features(name: str, folder: Path, images: np.ndarray) -> np.ndarray:
    pixels = plain_pixels(name, folder, images)
    match name:
        case "clip":
            network = CLIPModel.from_pretrained(folder)
            return network.visual_projection(network.vision_model(pixel_values=pixels).pooler_output).numpy()
        case "siglip2":
            return SiglipModel.from_pretrained(folder).vision_model(pixel_values=pixels).pooler_output.numpy()
    return Dinov2Model.from_pretrained(folder)(pixel_values=pixels).last_hidden_state[:, 0].numpy()


@pytest.mark.parametrize("name", PROCESSORS)
@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: f"{shape[0]}x{shape[1]}")
def test_pictures_are_prepared_as_transformers_does(name: str, shape: tuple[int, int], loaded: dict, folders: dict) -> None:
    images = pictures(3, *shape)
    torch.testing.assert_close(loaded[name].preparation(images), plain_pixels(name, folders[name], images).float(), atol=2e-6, rtol=0)


@pytest.mark.parametrize("name", ["clip", "siglip2", "dinov2"])
def test_a_picture_s_feature_is_the_network_s(name: str, loaded: dict, folders: dict) -> None:
    images = pictures(5)
    features = loaded[name].frames(images)
    assert features.dtype == np.float32 and len(features) == 5
    np.testing.assert_allclose(features, plain_features(name, folders[name], images), atol=2e-6)
    assert np.abs(features - features[0]).max() > 1e-3


@pytest.mark.parametrize("name", ["clip", "siglip2", "dinov2"])
def test_batches_do_not_change_features(name: str, loaded: dict) -> None:
    images = pictures(BATCH + 3, 32, 40)
    one_by_one = np.concatenate([loaded[name].frames(image[None]) for image in images])
    np.testing.assert_allclose(loaded[name].frames(images), one_by_one, atol=2e-6)


@pytest.mark.parametrize("name", ["clip", "siglip2", "dinov2"])
@pytest.mark.parametrize("count", [1, 3, 25])
def test_a_scene_is_the_mean_direction_of_eight_pictures(name: str, count: int, loaded: dict) -> None:
    images = pictures(count)
    features = loaded[name].scene(images)
    np.testing.assert_allclose(features, mean_of_unit(loaded[name].frames(evenly(images, SCENE_FRAMES))), atol=1e-6)
    if count == 1:
        alone = loaded[name].frames(images)[0]
        np.testing.assert_allclose(features, alone / np.linalg.norm(alone), atol=1e-6)


@pytest.mark.parametrize("count", [1, 7, 16, 40])
def test_videomae_is_the_mean_of_all_tokens(count: int, loaded: dict, folders: dict) -> None:
    images = pictures(count)
    network = VideoMAEForPreTraining.from_pretrained(folders["videomae"]).videomae
    with torch.no_grad():
        tokens = network(plain_pixels("videomae", folders["videomae"], evenly(images, 16))[None]).last_hidden_state
    features = loaded["videomae"].scene(images)
    assert features.dtype == np.float32 and features.shape == (16,)
    np.testing.assert_allclose(features, tokens.mean(1)[0].numpy(), atol=2e-6)


@torch.no_grad()
def test_clip_reads_captions(loaded: dict, folders: dict) -> None:
    network, tokenizer = CLIPModel.from_pretrained(folders["clip"]), tiny_extractors.clip_tokenizer()
    plain = []
    for caption in CAPTIONS:
        tokens = tokenizer(caption, truncation=True, max_length=12, return_tensors="pt")  # no padding
        plain.append(network.text_projection(network.text_model(**tokens).pooler_output)[0].numpy())
    np.testing.assert_allclose(loaded["clip"].text(CAPTIONS), plain, atol=2e-6)


@torch.no_grad()
def test_siglip2_reads_captions_in_lower_case_to_the_end_and_padded(loaded: dict, folders: dict) -> None:
    network = SiglipModel.from_pretrained(folders["siglip2"])
    words = tiny_extractors.gemma_tokenizer().get_vocab()

    def row(caption: str) -> list[int]:
        letters = [words.get(letter, words["<unk>"]) for letter in caption.lower().replace(" ", "▁")][:11]
        return [*letters, words["<eos>"], *[words["<pad>"]] * (11 - len(letters))]

    plain = network.text_model(input_ids=torch.tensor([row(caption) for caption in CAPTIONS])).pooler_output
    np.testing.assert_allclose(loaded["siglip2"].text(CAPTIONS), plain.numpy(), atol=2e-6)
    np.testing.assert_array_equal(loaded["siglip2"].text(["A DOG"]), loaded["siglip2"].text(["a dog"]))


@pytest.mark.parametrize("name", ["clip", "siglip2"])
def test_many_captions_are_one_by_one(name: str, loaded: dict) -> None:
    captions = [f"the {'dog ' * number}" for number in range(BATCH + 2)]
    assert loaded[name].text(captions).shape[0] == BATCH + 2
    np.testing.assert_allclose(loaded[name].text(captions)[-1:], loaded[name].text(captions[-1:]), atol=2e-6)


@pytest.mark.parametrize(
    ("name", "kinds", "frames"),
    [("clip", "frame scene text", 8), ("siglip2", "frame scene text", 8), ("dinov2", "frame scene", 8), ("videomae", "scene", 16)],
)
def test_kinds_are_told_and_the_others_refused(name: str, kinds: str, frames: int, loaded: dict) -> None:
    extractor = loaded[name]
    assert isinstance(extractor, Extractor)
    assert (extractor.name, extractor.kinds, extractor.num_frames) == (name, set(kinds.split()), frames)
    calls = {
        "frame": lambda: extractor.frames(pictures()),
        "scene": lambda: extractor.scene(pictures()),
        "text": lambda: extractor.text(["a"]),
    }
    for kind, call in calls.items():
        if kind in extractor.kinds:
            call()
        else:
            with pytest.raises(InputError, match=f"^{name}: has no features of kind {kind}, expected .*; choose"):
                call()


@pytest.mark.parametrize(
    "wrong",
    [
        pictures()[0],
        pictures().astype(np.float32),
        pictures()[..., :2],
        pictures()[:0],
        pictures()[:, :0],
        [1, 2],
    ],
)
@pytest.mark.parametrize("name", PROCESSORS)
def test_what_is_no_picture_is_refused(name: str, wrong: object, loaded: dict) -> None:
    with pytest.raises(InputError, match=rf"^{name}: pictures: got .*, expected uint8 \[T, Y, X, 3\], at least one; convert"):
        loaded[name].scene(wrong)


@pytest.mark.parametrize("wrong", ["a dog", [], [1], ["a", None]])
@pytest.mark.parametrize("name", ["clip", "siglip2"])
def test_what_is_no_caption_is_refused(name: str, wrong: object, loaded: dict) -> None:
    with pytest.raises(InputError, match=f"^{name}: captions: got .*, expected a list of at least one caption; pass a list$"):
        loaded[name].text(wrong)


def test_nothing_is_learned_or_random(loaded: dict) -> None:
    for extractor in loaded.values():
        assert not extractor._network.training and not any(value.requires_grad for value in extractor._network.parameters())
        np.testing.assert_array_equal(extractor.scene(pictures()), extractor.scene(pictures()))


# How pictures are prepared


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ({"size": {"shortest_edge": 40}, "crop_size": {"height": 32, "width": 32}}, SimpleNamespace(size=40, crop=(32, 32))),
        ({"size": 32, "crop_size": 32, "do_center_crop": True}, SimpleNamespace(size=32, crop=(32, 32))),
        ({"size": {"height": 32, "width": 32}, "do_center_crop": False}, SimpleNamespace(size=(32, 32), crop=None)),
        ({}, SimpleNamespace(size=32, crop=(32, 32))),
    ],
)
def test_preparations_are_read_in_all_forms(said: dict, expected: SimpleNamespace, folders: dict, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(folders["clip"], tmp_path / "clip"))
    (folder / "preprocessor_config.json").write_text(json.dumps(said))
    found = load_extractor("clip", str(folder)).preparation
    assert (found.size, found.crop) == (expected.size, expected.crop)
    (folder / "preprocessor_config.json").unlink()
    (folder / "processor_config.json").write_text(json.dumps({"image_processor": said}))
    assert load_extractor("clip", str(folder)).preparation == found


@pytest.mark.parametrize(
    "said",
    [
        {"do_resize": False},
        {"do_rescale": False},
        {"rescale_factor": 1},
        {"size": "large"},
        {"size": {"longest_edge": 32}},
        {"size": 0},
        {"size": 16, "crop_size": 32},
        {"size": 40, "crop_size": 40},
        {"size": 32, "do_center_crop": False},
        {"image_mean": [0.5]},
        {"image_std": [0, 0, 0]},
        {"resample": 17},
        [],
    ],
)
def test_preparations_that_cannot_be_followed_are_refused(said: object, folders: dict, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(folders["clip"], tmp_path / "clip"))
    (folder / "preprocessor_config.json").write_text(json.dumps(said))
    with pytest.raises(ModelError, match=r"^clip: [^\n]*; (fetch|check)[^\n]*$"):
        load_extractor("clip", str(folder))
