from dataclasses import replace
from pathlib import Path

import pytest
import torch

import tiny
from mask2dit.errors import InputError
from mask2dit.playhouse.facts import (
    COLOURS,
    HELD_OUT_SEEDS,
    LARGE_HELD_OUT_SEEDS,
    PLACES,
    SPECIES,
    TRAINING_SEEDS,
    VALIDATION_SEEDS,
    draw_story,
)
from mask2dit.playhouse.judge import Judge, load_judge
from mask2dit.training import judge as training
from mask2dit.training.config import JudgeRecipe, read_recipe
from mask2dit.training.draws import generator_for

CPU = torch.device("cpu")
RECIPE = JudgeRecipe(
    kind="judge",
    level="A",
    num_steps=4,
    batch_size=8,
    learning_rate=3e-3,
    warmup_steps=1,
    num_stories=4,
    channels=(8, 8, 16),
    validation_stories=2,
    validation_round_trips=3,
    round_trips=3,
    save_every_minutes=0.0,
)


def silent(line: str) -> None:
    pass


def test_the_published_recipe_is_read():
    recipe = read_recipe(Path(__file__).parents[2] / "recipes" / "playhouse-a" / "judge.yaml", ["num_steps=3"], Path("runs"))
    assert isinstance(recipe, JudgeRecipe) and recipe.num_steps == 3


def test_training_brings_the_loss_down():
    pool = training.render_pool(RECIPE, TRAINING_SEEDS[:4], CPU)
    torch.manual_seed(0)
    judge = Judge("A", (8, 8, 16))
    optimizer = torch.optim.AdamW(judge.parameters(), lr=3e-3)
    recipe = RECIPE.model_copy(update={"num_steps": 15})
    views, truth = pool.rows(torch.arange(6), CPU)
    losses = [training.train_step(judge, optimizer, recipe, views, truth, step) for step in range(15)]
    assert losses[-1] < 0.7 * losses[0]


def test_a_run_that_was_stopped_goes_on_as_if_it_never_was(tmp_path, monkeypatch):
    whole = load_judge(training.train_judge(RECIPE, tmp_path / "whole", CPU, silent))
    one_step = training.train_step

    def stops_before_the_third(*arguments):
        if arguments[-1] == 2:
            raise KeyboardInterrupt
        return one_step(*arguments)

    monkeypatch.setattr(training, "train_step", stops_before_the_third)
    with pytest.raises(KeyboardInterrupt):
        training.train_judge(RECIPE, tmp_path / "stopped", CPU, silent)
    monkeypatch.setattr(training, "train_step", one_step)
    resumed = load_judge(training.train_judge(RECIPE, tmp_path / "stopped", CPU, silent))
    for key, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[key]), key
    assert whole.accuracy == resumed.accuracy


def test_round_trips_join_the_pool_and_the_accuracy(tmp_path):
    tiny.vae().save_pretrained(tmp_path / "vae")
    recipe = RECIPE.model_copy(update={"vae": str(tmp_path / "vae"), "num_steps": 1, "num_stories": 2})
    judge = load_judge(training.train_judge(recipe, tmp_path / "run", CPU, silent))
    assert set(judge.accuracy) == {"clean", "round_trip"}
    assert judge.accuracy["round_trip"]["scenes"] == 3
    pool, renders = training.gather(recipe, tiny.vae(), CPU)
    assert (renders, len(pool.views)) == (6, 9)
    again = recipe.model_copy(update={"start_from": str(tmp_path / "run" / "judge")})
    assert torch.equal(training.new_judge(again).kind, judge.kind)
    assert judge.training_record["num_steps"] == 1


def test_a_missing_autoencoder_or_another_level_is_one_line(tmp_path):
    with pytest.raises(InputError, match="vae: got"):
        training.train_judge(RECIPE.model_copy(update={"vae": str(tmp_path)}), tmp_path / "run", CPU, silent)
    folder = Judge("B", (8, 8, 16)).save(tmp_path / "judge", {})
    with pytest.raises(InputError, match="judge of level B"):
        training.new_judge(RECIPE.model_copy(update={"start_from": str(folder)}))


def test_no_story_that_is_measured_is_trained_on():
    recipe = read_recipe(Path(__file__).parents[2] / "recipes" / "playhouse-a" / "judge.yaml", [], Path("runs"))
    used = TRAINING_SEEDS[: recipe.num_stories + recipe.round_trips]
    for measured in (VALIDATION_SEEDS, HELD_OUT_SEEDS, LARGE_HELD_OUT_SEEDS):
        assert used.stop <= measured.start or measured.stop <= used.start


def test_the_truth_of_a_scene():
    story = draw_story(VALIDATION_SEEDS[0], "A")
    truth = training.truth_of([(story, 0), (story, 1)])
    actor, slot = story.actors[0], SPECIES.index(story.actors[0].species)
    assert truth["species"].sum(1).tolist() == [1.0, 1.0] and truth["species"][0, slot] == 1
    assert truth["colour"][0].tolist() == [COLOURS.index(actor.colour) if index == slot else -100 for index in range(8)]
    assert truth["place"].tolist() == [PLACES.index(stage.place) for stage in story.stages[:2]]
    assert truth["traits"][1, slot, 0].item() == pytest.approx(actor.size - 1, abs=1e-6)
    assert truth["traits"][:, [index for index in range(8) if index != slot]].isnan().all()


def test_nobody_is_asked_what_cannot_be_seen():
    story = draw_story(VALIDATION_SEEDS[0], "A")
    away = replace(story.stages[0], roles=(replace(story.stages[0].roles[0], position=9.0),))
    truth = training.truth_of([(replace(story, stages=(away,)), 0)])
    assert truth["species"].isnan().sum() == 1 and (truth["colour"] == -100).all() and truth["traits"].isnan().all()
    logits = {name: value[:1].requires_grad_() for name, value in Judge("A", (8, 8, 16))(torch.rand(1, 9, 3, 64, 96)).items()}
    assert training.reading_loss(logits, truth).isfinite()


def test_spoilt_views_are_views_and_depend_on_the_generator_alone():
    pool = training.render_pool(RECIPE, TRAINING_SEEDS[:4], CPU)
    views, _ = pool.rows(torch.arange(12), CPU)
    spoilt = training.spoil(views, generator_for(0, 1))
    assert spoilt.shape == views.shape and spoilt.min() >= 0 and spoilt.max() <= 1
    assert torch.equal(spoilt, training.spoil(views, generator_for(0, 1)))
    assert 0.005 < (spoilt - views).abs().mean() < 0.2
