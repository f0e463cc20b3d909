import itertools
import subprocess
import sys

import pytest

from mask2dit.errors import Mask2DiTError
from mask2dit.playhouse.facts import (
    ACTIONS,
    HELD_OUT_SEEDS,
    LARGE_HELD_OUT_SEEDS,
    LEVELS,
    PLACES,
    TRAINING_SEEDS,
    VALIDATION_SEEDS,
    draw_story,
)


def test_a_seed_gives_the_same_story_in_another_process():
    code = "from mask2dit.playhouse.facts import draw_story; print(draw_story(7, 'C', 4))"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
    assert told == str(draw_story(7, "C", 4))


def test_seeds_differ():
    assert len({str(draw_story(seed, "A").stages) for seed in range(100)}) == 100


@pytest.mark.parametrize("level", LEVELS)
def test_more_scenes_leave_the_first_ones_as_they_are(level):
    for seed in range(20):
        short, long = draw_story(seed, level, 3), draw_story(seed, level, 6)
        assert long.stages[:3] == short.stages and long.actors == short.actors and long.hills == short.hills


def test_level_a_is_one_actor_plainly_filmed():
    for seed in range(200):
        story = draw_story(seed, "A")
        assert len(story.actors) == 1 and story.actors[0].accessory == "none"
        assert all(stage.camera == "still" and stage.weather == "clear" and len(stage.roles) == 1 for stage in story.stages)
        assert len({stage.place for stage in story.stages}) == len({stage.roles[0].action for stage in story.stages}) == 3


@pytest.mark.parametrize("level", ["B", "C"])
@pytest.mark.parametrize("num_scenes", [1, 3])
def test_a_cast_is_distinct_and_all_of_it_plays(level, num_scenes):
    for seed in range(100):
        story = draw_story(seed, level, num_scenes)
        cast = range(len(story.actors))
        assert len(cast) <= LEVELS[level].max_actors
        assert len({actor.species for actor in story.actors}) == len({actor.colour for actor in story.actors}) == len(cast)
        played = [[role.actor for role in stage.roles] for stage in story.stages]
        assert {actor for scene in played for actor in scene} == set(cast)
        assert all(scene and len(set(scene)) == len(scene) for scene in played)


def test_every_value_turns_up():
    stages = [stage for seed in range(100) for stage in draw_story(seed, "C").stages]
    assert {stage.place for stage in stages} == set(PLACES)
    assert {role.action for stage in stages for role in stage.roles} == set(ACTIONS)


def test_seed_ranges_do_not_meet():
    assert LARGE_HELD_OUT_SEEDS[: len(HELD_OUT_SEEDS)] == HELD_OUT_SEEDS and len(HELD_OUT_SEEDS) == 64
    ranges = sorted((VALIDATION_SEEDS, LARGE_HELD_OUT_SEEDS, TRAINING_SEEDS), key=lambda seeds: seeds.start)
    assert all(before.stop <= after.start for before, after in itertools.pairwise(ranges))


def test_wrong_wishes_are_refused():
    with pytest.raises(Mask2DiTError, match="choose one of A, B, C"):
        draw_story(0, "D")
    with pytest.raises(Mask2DiTError, match="at least one scene"):
        draw_story(0, "A", 0)


def test_the_package_does_not_import_torch():
    code = "import sys, mask2dit.playhouse as p; p.draw_story(0, 'A'); p.words(); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
