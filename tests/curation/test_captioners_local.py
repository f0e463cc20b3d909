"""Captions by a model on this machine: tiny networks of real kinds, with random weights."""

import io
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedTokenizerFast,
    Qwen2VLConfig,
    Qwen2VLForConditionalGeneration,
)
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil
from transformers.utils import logging

from mask2dit.chat import QuestionRefusedError
from mask2dit.curation.captioners.answers import Limits
from mask2dit.curation.captioners.base import CaptionError, CaptionerStoppedError, GroupView, ShotView
from mask2dit.curation.captioners.local import LocalModel
from mask2dit.curation.captioners.opening import CaptionerSettings, open_captioner
from mask2dit.curation.captioners.spending import Budget
from mask2dit.curation.captioners.vision import cast_question, instruction
from mask2dit.errors import InputError, ModelError

TEMPLATE = (
    "{% for m in messages %}{{ m['role'] }}: {% for p in m['content'] %}{% if p['type'] == 'image' %}PICTURE{% else %}{{ p['text'] }}"
    "{% endif %}{% endfor %}\n{% endfor %}{% if add_generation_prompt %}assistant: {% endif %}"
)
TEXT = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 2}


def tokenizer(*special: str) -> PreTrainedTokenizerFast:
    """One token per byte, and special ones from 0 on: <unk>, </s>, and these."""
    letters = ["<unk>", "</s>", *special, *sorted(pre_tokenizers.ByteLevel.alphabet())]
    bytewise = Tokenizer(models.BPE(vocab={letter: index for index, letter in enumerate(letters)}, merges=[], unk_token="<unk>"))
    bytewise.pre_tokenizer, bytewise.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    return PreTrainedTokenizerFast(
        tokenizer_object=bytewise, unk_token="<unk>", eos_token="</s>", pad_token="</s>", additional_special_tokens=list(special)
    )


def save_llava(folder: Path) -> None:
    words = tokenizer("<image>")
    vision = CLIPVisionConfig(
        hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2, image_size=28, patch_size=14, projection_dim=16
    )
    config = LlavaConfig(
        vision_config=vision.to_dict(),
        text_config=LlamaConfig(vocab_size=len(words), max_position_embeddings=16384, **TEXT).to_dict(),
        image_token_index=2,
        vision_feature_select_strategy="default",
        image_seq_length=4,
    )
    pictures = CLIPImageProcessorPil(size={"shortest_edge": 28}, crop_size={"height": 28, "width": 28})
    torch.manual_seed(0)
    LlavaForConditionalGeneration(config).save_pretrained(folder)
    LlavaProcessor(
        image_processor=pictures,
        tokenizer=words,
        patch_size=14,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=TEMPLATE.replace("PICTURE", "<image>"),
    ).save_pretrained(folder)


def save_qwen(folder: Path) -> None:
    """Of a kind that has a part for videos, saved as they were published: without processor_config.json."""
    words = tokenizer("<|image_pad|>", "<|video_pad|>", "<|vision_start|>", "<|vision_end|>")
    text = TEXT | {"vocab_size": len(words), "rope_parameters": {"rope_type": "default", "mrope_section": [1, 1, 2], "rope_theta": 10000.0}}
    vision = {"depth": 2, "embed_dim": 16, "hidden_size": 16, "num_heads": 2, "mlp_ratio": 2, "patch_size": 14}
    ids = {"image_token_id": 2, "video_token_id": 3, "vision_start_token_id": 4, "vision_end_token_id": 5}
    torch.manual_seed(0)
    Qwen2VLForConditionalGeneration(Qwen2VLConfig(text_config=text, vision_config=vision, **ids)).save_pretrained(folder)
    words.save_pretrained(folder)
    Qwen2VLImageProcessorPil(size={"shortest_edge": 784, "longest_edge": 3136}).save_pretrained(folder)
    (folder / "chat_template.jinja").write_text(TEMPLATE.replace("PICTURE", "<|vision_start|><|image_pad|><|vision_end|>"))


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Path]]:
    """Tiny models, only to be read."""
    logging.disable_progress_bar()
    places = {kind: tmp_path_factory.mktemp(kind) for kind in ("llava", "qwen2_vl")}
    save_llava(places["llava"])
    save_qwen(places["qwen2_vl"])
    logging.enable_progress_bar()
    yield places


@pytest.fixture
def llava(folders: dict[str, Path], tmp_path: Path) -> Path:
    """One of one's own."""
    return shutil.copytree(folders["llava"], tmp_path / "own")


def group() -> GroupView:
    file = io.BytesIO()
    Image.new("RGB", (48, 32), (200, 30, 90)).save(file, "JPEG")
    shots = (ShotView(f"s{index}", Path("film.mp4"), 0, 48, 24.0, (file.getvalue(),) * 2, {}) for index in range(2))
    return GroupView("g", tuple(shots))


@pytest.mark.parametrize("kind", ["llava", "qwen2_vl"])
def test_the_model_reads_the_pictures_and_the_instruction(folders: dict[str, Path], kind: str) -> None:
    model = LocalModel(folders[kind], max_new_tokens=4)
    messages = cast_question(group().shots, Limits())
    inputs = model.inputs(messages)
    read = model.processor.decode(inputs["input_ids"][0], skip_special_tokens=True)
    assert read.startswith(f"user: {instruction()}") and "Shot 2:" in read and read.endswith("assistant: ")
    pictures = inputs["pixel_values"].shape[0] if kind == "llava" else inputs["image_grid_thw"].shape[0]
    assert pictures == 4 and (inputs["input_ids"] == 2).sum() >= 4
    answer = model.ask(messages)
    assert answer == model.ask(messages) and answer.tokens_in == inputs["input_ids"].shape[1] and 0 < (answer.tokens_out or 0) <= 4
    assert answer.complete or answer.reason == "length"


def test_junk_ends_in_an_error_after_one_repair(folders: dict[str, Path], tmp_path: Path) -> None:
    settings = CaptionerSettings("local", str(folders["llava"]), max_new_tokens=8)
    with open_captioner(settings, tmp_path) as captioner:
        assert captioner.at_once == 1 and captioner.name.startswith("local llava ")
        with pytest.raises(CaptionError, match="cast: the answer is not as asked, also after one repair"):
            captioner.caption(group())
        assert captioner.summary()["requests"] == 2 and captioner.summary()["tokens_out"] <= 16
    spent = CaptionerSettings("local", str(folders["llava"]), budget=Budget(max_requests=2))
    with open_captioner(spent, tmp_path) as captioner, pytest.raises(CaptionerStoppedError, match="--max-requests 2"):
        captioner.caption(group())


def test_equal_weights_have_equal_names(folders: dict[str, Path], llava: Path) -> None:
    name = LocalModel(folders["llava"]).name
    assert LocalModel(llava).name == name
    (llava / "README.md").write_text("words")
    assert LocalModel(llava).name == name != LocalModel(folders["qwen2_vl"]).name
    weights = (llava / "model.safetensors").read_bytes()
    (llava / "model.safetensors").write_bytes(weights[:-1] + bytes([weights[-1] ^ 1]))
    assert LocalModel(llava).name != name


@pytest.mark.parametrize(
    ("lacking", "words"),
    [
        ("config.json", "holds no configuration, expected config.json"),
        ("model.safetensors", "holds no weights, expected model.safetensors or "),
        ("tokenizer.json", "holds no tokenizer"),
        ("processor_config.json", "holds no preparation, expected preprocessor_config.json or processor_config.json"),
    ],
)
def test_a_folder_that_lacks_something(llava: Path, lacking: str, words: str) -> None:
    (llava / lacking).unlink()
    with pytest.raises(ModelError) as caught:
        LocalModel(llava)
    assert words in str(caught.value) and "\n" not in str(caught.value)


def change_config(folder: Path, **values: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


@pytest.mark.slow
def test_folders_that_cannot_be_loaded(llava: Path, tmp_path: Path) -> None:
    def failing(words: str) -> None:
        settings = CaptionerSettings("local", str(llava))
        with open_captioner(settings, tmp_path) as captioner, pytest.raises(CaptionerStoppedError) as caught:
            captioner.caption(group())
        assert words in str(caught.value) and "\n" not in str(caught.value) and len(str(caught.value)) < 600

    (llava / "chat_template.jinja").unlink()
    failing("has no chat template")
    change_config(
        llava, image_token_index=2, text_config=json.loads((llava / "config.json").read_text())["text_config"] | {"vocab_size": 99}
    )
    failing("has shape")
    (llava / "model.safetensors").write_bytes(b"junk")
    failing("cannot be loaded")
    change_config(llava, model_type="bert")
    failing("cannot be loaded")
    change_config(llava, model_type="own", auto_map={"AutoConfig": "own.Config", "AutoModelForImageTextToText": "own.Model"})
    (llava / "own.py").write_text("raise SystemExit('this code ran')")
    failing("cannot be loaded")


def test_what_cannot_be_meant(folders: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no such folder"):
        LocalModel(tmp_path / "nowhere")
    with pytest.raises(InputError, match="got the device 'gpu'"):
        LocalModel(folders["llava"], device="gpu")
    with pytest.raises(InputError, match="got 0 tokens"):
        LocalModel(folders["llava"], max_new_tokens=0)


def test_a_question_that_does_not_fit(folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    model = LocalModel(folders["llava"], max_new_tokens=2)
    model.ask([{"role": "user", "content": "a fox?"}])

    def full(*_: Any, **__: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory.\nTried to allocate")

    monkeypatch.setattr(model._network, "generate", full)
    with pytest.raises(
        QuestionRefusedError, match=r"cannot answer \(CUDA out of memory\. Tried to allocate\); give fewer or smaller pictures"
    ):
        model.ask([{"role": "user", "content": "a fox?"}])
