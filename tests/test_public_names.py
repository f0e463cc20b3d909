"""Frozen surfaces: what other people's code, files and checkpoints rely on. A change here is a change for them."""

import importlib
import inspect
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from diffusers import CogVideoXTransformer3DModel

import mask2dit
import tiny
from mask2dit import Mask2DiTTransformer3DModel

FROZEN = Path(__file__).parent / "frozen"
RELEASED_5B = {
    "use_rotary_positional_embeddings": True,
    "num_attention_heads": 48,
    "num_layers": 42,
    "sample_height": 60,
    "sample_width": 90,
}


def frozen(name: str) -> list[str]:
    return (FROZEN / f"{name}.txt").read_text(encoding="utf-8").splitlines()


def test_public_names() -> None:
    assert list(mask2dit.__all__) == sorted(mask2dit.__all__) == frozen("public_names")
    for name in mask2dit.__all__:
        made = getattr(mask2dit, name)
        assert made.__name__ == name and getattr(importlib.import_module(made.__module__), name) is made
    with pytest.raises(AttributeError, match="module 'mask2dit' has no attribute 'nothing'"):
        _ = mask2dit.nothing


def test_importing_the_package_does_not_import_torch() -> None:
    code = "import sys, mask2dit; mask2dit.Storyboard; sys.exit(any(name in sys.modules for name in ('torch', 'diffusers', 'numpy')))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    ("name", "owner"),
    [
        ("transformer_forward", Mask2DiTTransformer3DModel.forward),
        ("pipeline_call", mask2dit.Mask2DiTPipeline.__call__),
        ("load_pipeline", mask2dit.load_pipeline),
    ],
)
def test_public_arguments(name: str, owner: object) -> None:
    assert list(inspect.signature(owner).parameters) == frozen(name)


def test_state_dict_of_the_tiny_model() -> None:
    lines = [f"{key} {' '.join(map(str, value.shape))}" for key, value in tiny.transformer().state_dict().items()]
    assert lines == frozen("tiny_state_dict")


def test_the_released_size_has_the_keys_and_shapes_of_cogvideox() -> None:
    with torch.device("meta"):
        ours, theirs = Mask2DiTTransformer3DModel(), CogVideoXTransformer3DModel(**RELEASED_5B)
    shapes = {key: value.shape for key, value in ours.state_dict().items()}
    assert shapes == {key: value.shape for key, value in theirs.state_dict().items()}
    assert len(shapes) == 1024
    assert sum(parameter.numel() for parameter in ours.parameters()) == 5_570_283_072


def test_configuration_names_and_defaults_are_those_of_cogvideox_5b() -> None:
    ours, theirs = (
        {name: each.default for name, each in inspect.signature(cls.__init__).parameters.items() if name != "self"}
        for cls in (Mask2DiTTransformer3DModel, CogVideoXTransformer3DModel)
    )
    assert ours.keys() - theirs.keys() == {"attention_plan"} and not theirs.keys() - ours.keys()
    differing = {name for name in theirs if ours[name] != theirs[name]}
    assert differing == {"num_attention_heads", "num_layers", "use_rotary_positional_embeddings"}


def test_model_index(model_folder: Path) -> None:
    """The dotted module path of our transformer is in the files of every saved pipeline."""
    index = json.loads((model_folder / "model_index.json").read_text(encoding="utf-8"))
    assert sorted(key for key in index if key != "_diffusers_version") == frozen("model_index_keys")
    assert index["_class_name"] == "Mask2DiTPipeline"
    assert index["transformer"] == ["mask2dit.transformer", "Mask2DiTTransformer3DModel"]
    assert index["scheduler"] == ["diffusers", "CogVideoXDDIMScheduler"]
    assert index["vae"] == ["diffusers", "AutoencoderKLCogVideoX"]


def test_class_attributes_that_diffusers_reads() -> None:
    model = Mask2DiTTransformer3DModel
    assert model._supports_gradient_checkpointing
    assert model._no_split_modules == ["Mask2DiTBlock", "CogVideoXPatchEmbed"]
    assert model._repeated_blocks == ["Mask2DiTBlock"]
    assert model._skip_layerwise_casting_patterns == ["patch_embed", "norm"]
    assert getattr(model, "_cp_plan", None) is None  # until parallelism keeps the scene pattern
    assert "ModelMixin" in vars(importlib.import_module(model.__module__))  # loading looks it up there
    assert mask2dit.Mask2DiTPipeline.model_cpu_offload_seq == "text_encoder->transformer->vae"
