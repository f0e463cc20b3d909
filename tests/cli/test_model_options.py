"""The options that say which model makes a film and how it is kept in memory."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from typer.testing import Result

import tiny
from mask2dit import Mask2DiTPipeline
from mask2dit.cli.machine import usable_cores
from mask2dit.loading import choose_memory
from mask2dit.video_shape import Compression, VideoShape

Command = Callable[..., Result]
STORY = "a red fox walks; the fox jumps; a bear sleeps"


def latents(folder: str) -> torch.Tensor:
    return torch.cat([load_file(file)["latents"] for file in sorted(Path(folder, "latents").iterdir())])


def made(result: Result) -> str:
    assert result.exit_code == 0, result.output
    return result.stderr


def refused(result: Result) -> str:
    lines = [line for line in result.stderr.splitlines() if line and not line.startswith(("note: ", "loading", "memory: ", "   "))]
    assert result.exit_code == 2 and len(lines) == 1 and "Traceback" not in result.output, result.output
    assert not Path("films").exists()
    return lines[0]


def test_memory_says_what_it_chose_and_why(command: Command, model_folder: Path) -> None:
    small = ("--model", model_folder, "--display-scale", 1)
    assert "memory: " not in made(command("generate", STORY, "-o", "films/plain", *small))
    roomy = made(command("generate", STORY, "-o", "films/roomy", *small, "--memory", "4GiB"))
    assert "memory: everything at once; about 61" in roomy and "of 4.0 GiB, at its fullest while " in roomy
    assert torch.equal(latents("films/roomy"), latents("films/plain"))


@pytest.mark.slow
def test_captions_are_encoded_before_anything_else_is_loaded(command: Command, model_folder: Path, tmp_path: Path) -> None:
    small = ("--model", model_folder, "--display-scale", 1)
    made(command("generate", STORY, "-o", "films/plain", *small))
    shutil.rmtree(tmp_path / "cache")
    shape = VideoShape(16, 24, (9, 9, 9), Compression(4, 4, 2))
    place = {"device": torch.device("cpu"), "dtype": torch.float32, "shape": shape, "weights": "fp8-storage"}
    limit = choose_memory(model_folder, None, **place).ladder[1][1] / 2**20 + 0.001  # text encoder first, but not less
    told = made(command("generate", STORY, "-o", "films/tight", *small, "--weights", "fp8-storage", "--memory", f"{limit:.4f}MiB"))
    assert "memory: text encoder let go" in told and "transformer stored in 8-bit floats (approximate)" in told
    assert "because the next larger setting (" in told
    assert len(list((tmp_path / "cache" / "mask2dit" / "prompts").rglob("*.safetensors"))) == 4  # three captions and the negative one
    error = (latents("films/tight") - latents("films/plain")).std() / latents("films/plain").std()
    assert 0 < error < 0.5


def test_adapters(command: Command, model_folder: Path, tmp_path: Path) -> None:
    from peft import LoraConfig
    from peft.utils import get_peft_model_state_dict

    pipeline = tiny.pipeline()
    pipeline.transformer.add_adapter(LoraConfig(r=2, target_modules=["to_q"]))
    tiny.randomise(torch.nn.ModuleList(each for name, each in pipeline.transformer.named_modules() if name.endswith("default")), 3)
    Mask2DiTPipeline.save_lora_weights(tmp_path / "lora", transformer_lora_layers=get_peft_model_state_dict(pipeline.transformer))
    small = ("--model", model_folder, "--display-scale", 1)
    made(command("generate", STORY, "-o", "films/plain", *small))
    made(command("generate", STORY, "-o", "films/adapted", *small, "--lora", tmp_path / "lora"))
    assert not torch.equal(latents("films/adapted"), latents("films/plain"))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--memory", "plenty"], "error: --memory: got 'plenty', expected a size such as 12GiB or 900MiB"),
        (["--memory", "5MiB"], "error: memory: got 5 MiB, expected at least 61"),
        (["--weights", "int4"], "error: --weights: got 'int4', expected plain, bf16, fp8-storage, fp8 or int8"),
        (["--weights", "fp8-storage", "--compile"], "error: --compile: got it with --weights fp8-storage, which become others"),
        (["--revision", "main"], "error: revision: got 'main' with "),
        (["--inp"], "has no input channels beside the latents' 4; leave out --inp"),
        (["--lora", "none"], "error: none: no such file, expected adapters as .safetensors"),
        (["--model", "nobody/nothing", "--offline"], "error: nobody/nothing: not in the cache at "),
    ],
)
def test_what_cannot_be_is_one_line_and_nothing_is_written(words: list[str], message: str, command: Command, model_folder: Path) -> None:
    model = () if "--model" in words else ("--model", model_folder)
    assert message in refused(command("generate", STORY, *model, *words))


@pytest.mark.parametrize(("limits", "cores"), [("100000 100000", 1), ("max 100000", None), ("640000 10000", None), ("nonsense", None)])
def test_a_container_is_given_as_many_threads_as_it_may_use(limits: str, cores: int | None, tmp_path: Path) -> None:
    (tmp_path / "cpu.max").write_text(limits)
    bound = len(os.sched_getaffinity(0))
    assert usable_cores(tmp_path / "cpu.max") == (cores or bound) and usable_cores(tmp_path / "none") == bound
