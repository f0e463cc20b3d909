"""Recipes: the published ones are read, and a mistake is one line that names the key."""

from pathlib import Path

import pytest

from mask2dit.errors import InputError
from mask2dit.training.config import DiffusionRecipe, read_recipe

RECIPES = Path(__file__).parents[2] / "recipes"


@pytest.mark.parametrize("path", sorted(RECIPES.rglob("*.yaml")), ids=lambda path: path.stem)
def test_the_published_recipes_are_read(path: Path) -> None:
    recipe = read_recipe(path, ["num_steps=3"], Path("runs"))
    assert recipe.num_steps == 3
    assert "{runs}" not in recipe.model_dump_json()


def test_changes_reach_into_sections_and_runs_is_filled_in(tmp_path: Path) -> None:
    recipe = read_recipe(RECIPES / "playhouse-a" / "sft.yaml", ["data.num_stories=7", "lora.rank=3", "known_sets={none: 1}"], tmp_path)
    assert isinstance(recipe, DiffusionRecipe)
    assert (recipe.data.num_stories, recipe.lora.rank, recipe.known_sets) == (7, 3, {"none": 1.0})
    assert recipe.start_from == f"{tmp_path}/pretrain/model"


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ("num_stepps=3", "num_stepps: no such key"),
        ("num_steps=many", "num_steps: got 'many', "),
        ("learning_rate=-1", "learning_rate: got -1, "),
        ("num_steps=0", "num_steps: got 0, "),
        ("num_steps", "got 'num_steps', expected key=value"),
        ("kind=x", "got "),
        ("stage=finetune", "stage: got 'finetune', "),
        ("data.level=D", "data.level: got 'D', "),
        ("data.storys=3", "data.storys: no such key"),
        ("data.source=disk", "data: got "),
        ("num_steps.x=3", "num_steps holds no keys"),
        ("known_sets={none: 0}", "known_sets: expected at least one probability above 0"),
        ("known_sets={some: 1}", "known_sets.some"),
        ("num_scenes=1", "with num_scenes 1 there is nothing to know"),
        ("transformer={num_layers: 3}", "transformer.num_attention_heads: is missing"),
        ("vae_from=vae", "expected either start_from, or all of"),
        ("train_text_encoder=true lora.rank=4", "not together with lora"),
        ("batch_size=[1", "the value cannot be read as YAML"),
        ("data={source: csv, file: a.csv}", "validation.storyboards: got none, expected storyboard files"),
    ],
)
def test_a_mistake_is_one_line_that_names_the_key(change: str, told: str) -> None:
    with pytest.raises(InputError) as error:
        read_recipe(RECIPES / "playhouse-a" / "sft.yaml", change.split(" ") if "lora" in change else [change], Path("runs"))
    assert told in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(("text", "told"), [("", "got no keys"), ("a: [", "cannot be read as YAML"), ("- a", "got no keys")])
def test_a_file_that_is_no_recipe_is_refused(tmp_path: Path, text: str, told: str) -> None:
    (tmp_path / "recipe.yaml").write_text(text)
    with pytest.raises(InputError, match=told):
        read_recipe(tmp_path / "recipe.yaml", [], tmp_path)
    with pytest.raises(InputError, match="there is no such file"):
        read_recipe(tmp_path / "none.yaml", [], tmp_path)
