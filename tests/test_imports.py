"""A module imports only from levels above its own, satellites never from each other, and the core not from satellites."""

import ast
from pathlib import Path

import pytest

import mask2dit

PACKAGE = Path(mask2dit.__file__).parent
LEVELS = [
    {"errors", "amounts", "page_parts"},
    {"files", "ray_cluster", "chat_protocols", "chat_answers"},
    {"storyboard", "scene_layout", "video_shape", "chat", "cut_lists", "shards", "motion"},
    {"foreign_storyboards", "storyboard_writer"},
    {"plans", "rope", "sinusoidal", "modulation", "footprint", "framewise", "fingerprint", "compiling", "_diffusers_private"},
    {"sequence_parallel"},
    {"attention", "context_cache"},
    {"merged_attention", "flex_attention", "solvers", "step_caches"},
    {"attention_backends"},
    {"transformer", "text", "latents", "stepper", "film_request", "weight_formats"},
    {"memory", "cut_detectors", "predictor"},
    {"team", "denoising"},
    {"pipeline", "film", "video_files", "cuts"},
    {"model_folder", "hub", "rgb_preview"},
    {"published"},
    {"loading"},
    {"extractors", "playhouse"},
    {"production", "training", "curation", "evaluation", "benchmarking"},
    {"studio"},
    {"cli"},
    {"__main__"},
]
LEVEL = {name: level for level, names in enumerate(LEVELS) for name in names}
SAME_LEVEL = {("video_shape", "scene_layout")}  # token counts become a layout
TORCH_FREE = LEVELS[0] | LEVELS[1] | LEVELS[2]


def imported(tree: ast.AST) -> set[str]:
    """Dotted names of every import, wherever it stands."""
    names = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            names |= {node.module} if node.module != "mask2dit" else {f"mask2dit.{alias.name}" for alias in node.names}
    return {name for name in names if name}


MODULES = sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_imports_go_up(path: Path) -> None:
    own = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    for name in imported(ast.parse(path.read_text(encoding="utf-8"))):
        if not name.startswith("mask2dit."):
            assert not (own in TORCH_FREE and name.split(".")[0] in ("torch", "diffusers", "transformers")), name
        elif name != "mask2dit.__version__":
            other = mask2dit._HOMES.get(name.removeprefix("mask2dit."), name).split(".")[1]
            assert other == own or LEVEL[other] < LEVEL[own] or (own, other) in SAME_LEVEL, f"{own} imports {other}"


def test_private_parts_of_diffusers_are_imported_in_one_place() -> None:
    for path in MODULES:
        private = {name for name in imported(ast.parse(path.read_text(encoding="utf-8"))) if name.startswith("diffusers.") and "._" in name}
        assert not private or path.name == "_diffusers_private.py", (path, private)
