"""A vision-language model on this machine: a folder in transformers' layout, asked as an endpoint is.

Weights are opened as tensors only, must be exactly those of the network, and code that lies beside them is never run. Pictures are prepared
by Pillow where torchvision is missing. Greedy, one question at a time: the same question has the same answer on the same machine.
"""

import base64
import hashlib
import io
import threading
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from mask2dit.chat import Answer, Message, Meter, QuestionRefusedError, Request, measured
from mask2dit.chat_protocols import parts_of, picture_of
from mask2dit.errors import InputError, ModelError
from mask2dit.extractors.pictures import FILES as PICTURE_FILES
from mask2dit.extractors.pictures import read_json
from mask2dit.extractors.pretrained import CONFIG, WEIGHT_FILES, check_fit, frozen, names_in, quiet, said

CAPTIONER = "local captioner"
TOKENIZERS = ("tokenizer.json", "tokenizer.model", "vocab.json")
NAMING = ("*.json", "*.jinja", "*.txt", "*.model", "*.safetensors", "*.bin")
"""Files that answers depend on."""
NAMED_BYTES = 2**20  # of each file's beginning and end: enough to tell two trainings apart, and quick at 15 GB
_LOCAL: Mapping[str, Any] = {"local_files_only": True, "trust_remote_code": False}


class LocalModel:
    """Answers messages with pictures. What the folder lacks is told at once; weights are loaded with the first question.

    `meter` counts questions as those of an endpoint. Raises InputError, ModelError.
    """

    def __init__(self, folder: Path, *, device: str = "cpu", max_new_tokens: int = 512, meter: Meter | None = None) -> None:
        if max_new_tokens < 1:
            raise InputError(f"{CAPTIONER}: got {max_new_tokens} tokens of an answer, expected at least 1; allow more")
        try:
            self._device = torch.device(device)
        except RuntimeError:
            raise InputError(f"{CAPTIONER}: got the device {device[:40]!r}, expected for example cpu or cuda; correct it") from None
        _check_folder(folder)
        self.folder, self.meter = folder, meter
        self.name = f"{read_json(CAPTIONER, folder / CONFIG).get('model_type')} {_digest(folder)}"
        self._max_new_tokens = max_new_tokens
        self._lock = threading.Lock()
        self._network: Any = None
        self.processor: Any = None

    def close(self) -> None:
        self._network = self.processor = None

    def ask(self, messages: Sequence[Message], schema: Mapping[str, Any] | None = None, schema_name: str = "answer") -> Answer:
        """One answer; the schema is not enforced. Raises QuestionRefusedError, and ModelError where the weights cannot be loaded."""
        with self._lock, self.meter(measured(messages)) if self.meter else nullcontext(Request()) as request:
            self._load()
            try:
                answer = self._generated(self.inputs(messages))
            except Exception as error:  # whatever a library says of a question that is too long, or too large for the memory
                remedy = "give fewer or smaller pictures"
                raise QuestionRefusedError(f"{CAPTIONER}: {self.folder}: cannot answer ({said(error)}); {remedy}") from None
            request.outcome = "answered"
            request.tokens_in, request.tokens_out = answer.tokens_in, answer.tokens_out
        return answer

    def inputs(self, messages: Sequence[Message]) -> Any:
        """What the network reads. The system's words head the first question, since not every template has a place for them."""
        self._load()
        system = [part for message in messages if message["role"] == "system" for part in _parts(message)]
        turns = [{"role": message["role"], "content": _parts(message)} for message in messages if message["role"] != "system"]
        turns[0]["content"] = system + turns[0]["content"]
        return self.processor.apply_chat_template(turns, tokenize=True, add_generation_prompt=True, return_dict=True, return_tensors="pt")

    def _generated(self, inputs: Any) -> Answer:
        network, length = self._network, inputs["input_ids"].shape[1]
        with torch.inference_mode(), quiet():
            inputs = inputs.to(self._device, dtype=network.dtype)
            tokens = network.generate(**inputs, do_sample=False, num_beams=1, max_new_tokens=self._max_new_tokens)[0, length:].tolist()
        end = network.generation_config.eos_token_id
        ends = end if isinstance(end, list) else [end]
        complete = len(tokens) < self._max_new_tokens or tokens[-1] in ends
        text = self.processor.decode(tokens, skip_special_tokens=True)
        return Answer(text, complete, "stop" if complete else "length", length, len(tokens))

    def _load(self) -> None:
        if self._network is not None:
            return
        from transformers import AutoModelForImageTextToText

        safe = any(name.endswith(".safetensors") for name in names_in(self.folder))
        options: dict[str, Any] = {"dtype": "auto", "use_safetensors": safe, "ignore_mismatched_sizes": True, "output_loading_info": True}
        try:
            with quiet():
                self.processor = _processor(self.folder)
                network, report = AutoModelForImageTextToText.from_pretrained(self.folder, **options, **_LOCAL)
        except Exception as error:  # whatever a library says of files that it did not expect
            raise ModelError(
                f"{CAPTIONER}: {self.folder}: cannot be loaded: {said(error)}; fetch the model again, or use another"
            ) from error
        check_fit(
            CAPTIONER,
            self.folder,
            missing=report["missing_keys"],
            unknown=report["unexpected_keys"],
            misshapen={key: (tuple(got), tuple(expected)) for key, got, expected in report["mismatched_keys"]},
            total=len(network.state_dict()),
        )
        if not self.processor.chat_template:
            raise ModelError(f"{CAPTIONER}: {self.folder}: has no chat template, expected a model that was trained to answer; use another")
        try:
            self._network = frozen(network, self._device)
        except (RuntimeError, AssertionError) as error:  # torch without CUDA asserts
            raise ModelError(f"{CAPTIONER}: {self._device}: cannot hold the model ({said(error)}); choose another device") from None


def _processor(folder: Path) -> Any:
    """The model's processor, without its part for videos, which needs torchvision."""
    from transformers import AutoConfig, AutoImageProcessor, AutoProcessor, AutoTokenizer
    from transformers.models.auto.processing_auto import PROCESSOR_MAPPING

    config = type(AutoConfig.from_pretrained(folder, **_LOCAL))
    kind: Any = PROCESSOR_MAPPING.get(config, None)
    if kind is None or set(kind.get_attributes()) != {"image_processor", "tokenizer", "video_processor"}:
        return AutoProcessor.from_pretrained(folder, **_LOCAL)

    class ForPictures(kind):  # type: ignore[misc]
        def check_argument_for_proper_class(self, argument_name: str, argument: Any) -> Any:
            return None if argument is None else super().check_argument_for_proper_class(argument_name, argument)

    parts = {
        "image_processor": AutoImageProcessor.from_pretrained(folder, **_LOCAL),
        "tokenizer": AutoTokenizer.from_pretrained(folder, **_LOCAL),
        "video_processor": None,
    }
    values, _ = kind.get_processor_dict(folder, local_files_only=True)
    return ForPictures.from_args_and_dict([parts[name] for name in kind.get_attributes()], values)


def _check_folder(folder: Path) -> None:
    """Raise ModelError, naming what is not there."""
    if not folder.is_dir():
        raise ModelError(f"{CAPTIONER}: {folder}: no such folder, expected one with a model in transformers' layout; check the name")
    names = names_in(folder)
    weights = [patterns[0] for patterns in WEIGHT_FILES]
    for what, wanted in (("configuration", (CONFIG,)), ("weights", weights), ("tokenizer", TOKENIZERS), ("preparation", PICTURE_FILES)):
        if not names.intersection(wanted):
            raise ModelError(f"{CAPTIONER}: {folder}: holds no {what}, expected {' or '.join(wanted)}; fetch the whole model")


def _digest(folder: Path) -> str:
    """12 hex digits that follow from the size, beginning and end of every file that answers depend on; not from the folder's name."""
    total = hashlib.sha256()
    for name in sorted(names_in(folder)):
        if any(fnmatchcase(name, pattern) for pattern in NAMING):
            with (folder / name).open("rb") as file:
                size = (folder / name).stat().st_size
                total.update(f"{name} {size} ".encode() + file.read(NAMED_BYTES))
                file.seek(max(0, size - NAMED_BYTES))
                total.update(file.read())
    return total.hexdigest()[:12]


def _parts(message: Message) -> list[dict[str, Any]]:
    """A message's parts as transformers has them."""
    parts: list[dict[str, Any]] = []
    for part in parts_of(message):
        picture = picture_of(part)
        if picture is None:
            parts.append({"type": "text", "text": part["text"]})
        else:
            parts.append({"type": "image", "image": Image.open(io.BytesIO(base64.b64decode(picture[1]))).convert("RGB")})
    return parts
