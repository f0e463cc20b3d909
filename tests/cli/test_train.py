"""`mask2dit train`: mistakes are one line; the rest is in tests/training."""

from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import Result

RECIPES = Path(__file__).parents[2] / "recipes"
Command = Callable[..., Result]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["nothing.yaml"], "nothing.yaml: there is no such file, expected a recipe"),
        ([RECIPES / "playhouse-a" / "sft.yaml", "num_stepps=3"], "num_stepps: no such key"),
        ([RECIPES / "playhouse-a" / "sft.yaml", "learning_rate=-1"], "learning_rate: got -1"),
        ([RECIPES / "playhouse-a" / "sft.yaml", "start_from=nowhere"], "nowhere: no such folder, expected a model folder"),
        ([RECIPES / "playhouse-a" / "base.yaml", "vae_from=nowhere"], "vae_from: there is no nowhere/vae"),
        ([RECIPES / "playhouse-a" / "text.yaml", "--precompute"], "--precompute: got a recipe of kind text, expected diffusion"),
        ([RECIPES / "cogvideox-5b-sft.yaml", "start_from=nowhere", "--dry-run"], "start_from: got nowhere"),
        ([RECIPES / "cogvideox-5b-sft.yaml", "--dry-run", "--devices", "3"], "batch_size: got 8 for 3 devices"),
    ],
)
def test_mistakes_are_one_line(words: list[object], told: str, command: Command, tmp_path: Path) -> None:
    result = command("train", *words, "--output", tmp_path / "run")
    assert result.exit_code == 2
    assert result.stderr.startswith("error: ") and told in result.stderr and result.stderr.count("\n") == 1


def test_a_dry_run_shows_the_recipe_and_makes_nothing(command: Command, tmp_path: Path) -> None:
    result = command("train", RECIPES / "playhouse-a" / "text.yaml", "num_steps=7", "--dry-run", "--output", tmp_path / "run")
    assert result.exit_code == 0 and "num_steps: 7" in result.stdout
    assert not (tmp_path / "run").exists()
