"""A built wheel carries its weights: installed by itself, it makes the same film outside the repository."""

import json
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
from safetensors.torch import load_file

ROOT = Path(__file__).parents[1]

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    source = tmp_path_factory.mktemp("source") / "mask2dit"
    subprocess.run(["git", "worktree", "prune"], cwd=ROOT, check=False)
    subprocess.run(["git", "clone", "--quiet", str(ROOT), str(source)], check=True)
    subprocess.run([sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(source)], check=True)
    (path,) = folder.glob("*.whl")
    return path


def test_the_wheel_makes_the_same_film(wheel: Path, tmp_path: Path) -> None:
    environment = tmp_path / "environment"
    subprocess.run([sys.executable, "-m", "venv", str(environment)], check=True)
    python = environment / "bin" / "python"
    # The dependencies are those of this environment: the wheel itself is what is new.
    site = next((environment / "lib").glob("python*/site-packages"))
    (site / "dependencies.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
    subprocess.run([str(python), "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--force-reinstall", str(wheel)], check=True)
    where = subprocess.run(
        [str(python), "-c", "import mask2dit; print(mask2dit.__file__)"], cwd=tmp_path, check=True, capture_output=True, text=True
    ).stdout
    assert str(environment) in where
    code = "import mask2dit.evaluation.prompt_sets as sets; print(sets.check_prompt_set(), len(sets.load_prompt_set('benchmark')))"
    found = subprocess.run([str(python), "-c", code], cwd=tmp_path, check=True, capture_output=True, text=True).stdout
    assert found.split() == ["[]", "50"]

    storyboard = ROOT / "storyboards" / "fox.yaml"
    for command, folder in (([str(environment / "bin" / "mask2dit")], "wheel"), ([sys.executable, "-m", "mask2dit"], "repository")):
        subprocess.run([*command, "generate", str(storyboard), "-o", folder, "--steps", "3"], cwd=tmp_path, check=True, timeout=600)
    for number in (1, 2, 3):
        name = f"latents/scene-{number:02d}.safetensors"
        ours, theirs = load_file(tmp_path / "repository" / name), load_file(tmp_path / "wheel" / name)
        assert all((ours[key] == theirs[key]).all() for key in ours)
    assert json.loads((tmp_path / "wheel" / "run.json").read_text())["status"] == "complete"
