"""The laws of the training benchmark's numbers, on the tiny model and in this process."""

import argparse
import importlib.util
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from mask2dit.training.precompute import precompute

BENCHMARK = Path(__file__).parents[1] / "benchmarks" / "training.py"


@pytest.fixture(scope="module")
def benchmark() -> ModuleType:
    spec = importlib.util.spec_from_file_location("training_benchmark", BENCHMARK)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(BENCHMARK.parent)  # as for a script, which finds its neighbours
        spec.loader.exec_module(module)
    module.WARMUP_STEPS = 1
    module.matmul_rate = lambda rows, inner, columns, dtype: 1e9 + 2 * rows  # half a second each, and no law holds of them
    return module


@pytest.fixture(scope="module")
def cache(benchmark: ModuleType, model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cache") / "latents"
    precompute(benchmark.SETTINGS["cache"].recipe(options(model_folder), folder), folder, torch.device("cpu"), benchmark.Silence())
    return folder


def options(model: Path, batch_size: int = 2, steps: int = 2) -> argparse.Namespace:
    return argparse.Namespace(model=model, steps=steps, batch_size=batch_size, stories=2, data_workers=0)


def check_laws(found: dict[str, Any], dtype: str = "float32", kind: str = "model") -> None:
    assert found["samples_per_second"] > 0 and found["peak_memory_gib"] > 0 and found["warmup_seconds"] > 0
    assert 0 <= found.get("waiting_share", 0) <= 1
    assert found["done_gflop_per_sample"] >= found[f"{kind}_gflop_per_sample"] > 0
    per_second = found[f"{kind}_gflop_per_sample"] * found["samples_per_second"]
    assert found[f"{kind}_gflop_per_second"] == pytest.approx(per_second)
    for shape in ("shapes", "square"):
        assert found[f"{kind}_share_of_{shape}"] == pytest.approx(per_second / found[f"matmul_{dtype}_{shape}_gflop_per_second"])


@pytest.mark.slow
def test_every_setting_obeys_the_laws(benchmark: ModuleType, model_folder: Path, cache: Path, tmp_path: Path) -> None:
    found = {}
    for name in ("full", "cache", "checkpointed", "lora", "bfloat16"):
        found[name] = benchmark.measure(benchmark.SETTINGS[name].recipe(options(model_folder), cache), tmp_path / name, 2)
        check_laws(found[name], "bfloat16" if name == "bfloat16" else "float32")
    done, model, encoding = (
        {name: each[f"{kind}_gflop_per_sample"] for name, each in found.items()} for kind in ("done", "model", "encoding")
    )
    assert all(done[name] == pytest.approx(model[name] + encoding[name]) for name in ("full", "cache", "lora", "bfloat16"))
    assert model["full"] == pytest.approx(model["cache"]) and encoding["full"] > encoding["cache"]
    assert model["checkpointed"] == pytest.approx(model["cache"]) and done["checkpointed"] > done["cache"]
    assert model["lora"] < model["cache"] == pytest.approx(model["bfloat16"])


def test_flop_grow_as_the_batch_does(benchmark: ModuleType, model_folder: Path, cache: Path, tmp_path: Path) -> None:
    per_sample = [
        benchmark.measure(benchmark.SETTINGS["cache"].recipe(options(model_folder, size, 1), cache), tmp_path / str(size), 1)[
            "model_gflop_per_sample"
        ]
        for size in (1, 3)
    ]
    assert per_sample[0] == pytest.approx(per_sample[1])


@pytest.mark.parametrize("name", ["lora-24gb", "full-full-size"])
def test_random_weights_take_a_step(benchmark: ModuleType, model_folder: Path, tmp_path: Path, name: str) -> None:
    small = {"video": {"height": 16, "width": 24, "num_frames": 9, "fps": 8}}
    setting = replace(benchmark.SETTINGS_5B[name], changes=small)
    found = benchmark.measure_random(setting.recipe(options(model_folder, steps=1), tmp_path), tmp_path, 1)
    check_laws(found, "bfloat16", "done")
    assert found["encoding_gflop_per_sample"] == 0 and found["estimated_memory_gib"] > 0


def test_the_table_shows_medians_ranges_and_what_failed(benchmark: ModuleType) -> None:
    flop = benchmark.Arithmetic(done=3 * 10**9, encoding=10**9, model=2 * 10**9)
    rounds = [
        benchmark.summary([(seconds, 0.04)] * 2, 4, flop, {"float32": {"shapes": 5e9, "square": 1e10}}) | {"peak_memory_gib": 0.5}
        for seconds in (1.0, 0.5, 2.0)
    ]
    settings = {"cache": benchmark.over_rounds("cached", rounds), "lora": benchmark.over_rounds("LoRA", [{"failed": "out of memory"}])}
    assert settings["cache"]["median"]["samples_per_second"] == 4 and settings["cache"]["samples_per_second_range"] == [2, 8]
    assert settings["cache"]["median"]["model_share_of_shapes"] == pytest.approx(0.4)
    about = {
        "machine": {"cpu": "some", "cores": 2, "threads": 1, "torch": "2"},
        "model": "tiny",
        "rounds": 3,
        "steps": 2,
        "batch_size": 4,
        "data_workers": 0,
        "date": "today",
    }
    lines = "\n".join(benchmark.table_lines(about | {"settings": settings}))
    assert "2 to 8" in lines and "failed: out of memory" in lines and "target ≤ 0.05: met" in lines


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_the_large_sizes_are_refused(benchmark: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    assert benchmark.main(["--gpu-5b"]) == 2
    assert capsys.readouterr().err.count("\n") == 1
