from dataclasses import replace
from itertools import pairwise

import pytest
import torch

from mask2dit.errors import Mask2DiTError
from mask2dit.playhouse.facts import ACCESSORIES, ACTIONS, COLOURS, LIGHTS, PLACES, SPECIES, Role, draw_story
from mask2dit.playhouse.render import render_scenes
from mask2dit.playhouse.staging import scene_visibility
from playhouse.staged import staged


def film(*stories, **sizes):
    return render_scenes([(story, 0) for story in stories], **sizes)


def silhouettes(action, **facts):
    """Where the actor and its shadow are, [T, Y, X]: what differs from the same place with a hidden actor."""
    shown = staged(action=action, **facts)
    stage = shown.stages[0]
    gone = replace(shown, stages=(replace(stage, roles=(replace(stage.roles[0], position=9.0),)),))
    frames, empty = film(shown, gone)
    return (frames - empty).abs().amax(-1) > 0.15


def middles(mask):
    """Mean column and row of each frame's silhouette."""
    rows, columns = torch.meshgrid(torch.arange(mask.shape[1]), torch.arange(mask.shape[2]), indexing="ij")
    weight = mask.float()
    total = weight.sum((1, 2))
    return (weight * columns).sum((1, 2)) / total, (weight * rows).sum((1, 2)) / total


@pytest.mark.parametrize("level", ["A", "B", "C"])
def test_a_batch_is_each_scene_alone(level):
    scenes = [(draw_story(seed, level), seed % 3) for seed in range(10)]
    together = render_scenes(scenes, num_frames=5, height=48, width=80)
    for scene, frames in zip(scenes, together, strict=True):
        torch.testing.assert_close(render_scenes([scene], num_frames=5, height=48, width=80)[0], frames, atol=2e-5, rtol=0)


def test_the_level_gives_the_size_and_values_are_colours():
    frames = film(draw_story(1, "A"), draw_story(2, "A"))
    assert frames.shape == (2, 9, 64, 96, 3) and frames.dtype == torch.float32
    assert frames.min() >= 0.0 and frames.max() <= 1.0 and torch.equal(frames, film(draw_story(1, "A"), draw_story(2, "A")))


@pytest.mark.parametrize("size", [(32, 32), (64, 96), (50, 91), (128, 192)])
def test_any_size_shows_the_same_picture(size):
    height, width = size
    story = staged(species="fox", colour="blue")
    small = torch.nn.functional.adaptive_avg_pool2d(film(story, num_frames=1, height=height, width=width)[0].permute(0, 3, 1, 2), 8)
    large = film(story, num_frames=1, height=256, width=round(256 * width / height))[0].permute(0, 3, 1, 2)
    assert (small - torch.nn.functional.adaptive_avg_pool2d(large, 8)).abs().mean() < 0.02


@pytest.mark.parametrize("species", SPECIES)
def test_walking_moves_the_actor_the_way_it_says(species):
    left, _ = middles(silhouettes("walks left", species=species))
    right, _ = middles(silhouettes("walks right", species=species))
    assert 0.25 * 96 < left[0] - left[-1] < 0.5 * 96
    assert 0.25 * 96 < right[-1] - right[0] < 0.5 * 96


@pytest.mark.parametrize("species", SPECIES)
def test_rising_and_growing(species):
    _, jump = middles(silhouettes("jumps", species=species))
    assert jump[4] < jump[0] - 8 and abs(jump[0] - jump[-1]) < 1
    _, flight = middles(silhouettes("flies up", species=species))
    assert flight[-1] < flight[0] - 8
    grown, shrunk = (silhouettes(action, species=species).float().sum((1, 2)) for action in ("grows", "shrinks"))
    assert 2.0 < grown[-1] / grown[0] < 3.0 and 2.0 < shrunk[0] / shrunk[-1] < 3.0


@pytest.mark.parametrize("species", SPECIES)
def test_spinning_narrows_and_sleeping_flattens(species):
    spin = silhouettes("spins", species=species).any(1).sum(-1)
    assert spin.min() < 0.75 * spin[0]
    awake, asleep = silhouettes("spins", species=species)[0], silhouettes("sleeps", species=species)[0]
    assert asleep.any(1).sum() < 0.9 * awake.any(1).sum()


def test_actions_look_different_on_everyone():
    for species in SPECIES:
        films = film(*(staged(species=species, action=action) for action in ACTIONS))
        gaps = torch.cdist(films.flatten(1), films.flatten(1)) + 100 * torch.eye(len(ACTIONS))
        assert gaps.min() > 5.0


def test_motion_is_smooth():
    for action in ACTIONS:
        across, up = middles(silhouettes(action))
        steps = torch.stack([across.diff(), up.diff()])
        assert steps.abs().max() < 9.0


@pytest.mark.parametrize("light", LIGHTS)
def test_colours_stay_apart_under_every_light(light):
    """Every species in every colour is nearest to its own colour's mean, by its most frequent body colours."""
    means = {}
    for colour in COLOURS:
        frames = film(*(staged(species=species, colour=colour, light=light, place="city") for species in SPECIES), num_frames=1)
        base = film(*(staged(species=species, colour="white", light=light, place="city") for species in SPECIES), num_frames=1)
        other = film(*(staged(species=species, colour="purple", light=light, place="city") for species in SPECIES), num_frames=1)
        body = (base - other).abs().amax(-1) > 0.3
        means[colour] = torch.stack([frame[mask].mean(0) for frame, mask in zip(frames, body, strict=True)])
        assert (body.float().mean((1, 2, 3)) > 0.025).all()
    centres = torch.stack([means[colour].mean(0) for colour in COLOURS])
    for index, colour in enumerate(COLOURS):
        assert (torch.cdist(means[colour], centres).argmin(1) == index).all(), colour
    assert (torch.cdist(centres, centres) + torch.eye(len(COLOURS))).min() > 0.15


def test_places_and_lights_differ():
    views = film(*(staged(place=place, light=light) for place in PLACES for light in LIGHTS), num_frames=1).flatten(1)
    gaps = torch.cdist(views, views) + 100 * torch.eye(len(views))
    assert gaps.min() > 8.0


def test_accessories_are_seen():
    for species in SPECIES:
        views = film(*(staged(species=species, accessory=accessory) for accessory in ACCESSORIES), num_frames=1).flatten(1)
        assert (torch.cdist(views, views) + 100 * torch.eye(len(ACCESSORIES))).min() > 1.5


def test_a_camera_moves_the_background_and_an_actor_does_not():
    corner = (slice(None), slice(0, 20))
    for action in ACTIONS:
        frames = film(staged(action=action))[0][corner][:, :, :16]
        assert torch.equal(frames[0], frames[-1])
    for camera in ("pans left", "pans right", "zooms in", "zooms out"):
        frames = film(staged(place="city", camera=camera))[0][corner]
        assert all((first - second).abs().mean() > 0.01 for first, second in pairwise(frames))


def test_weather_falls():
    for weather in ("rain", "snow"):
        frames = film(staged(weather=weather), staged())
        assert (frames[0] - frames[1]).abs().mean() > 0.01 and (frames[0, 0] - frames[0, 1]).abs().mean() > 0.005


def test_visibility():
    story = staged()
    (seen,) = scene_visibility(story, 0)
    assert seen.body > 0.99 and seen.accessory == 1.0
    (spinning,) = scene_visibility(staged(accessory="glasses", action="spins"), 0)
    assert 0.3 < spinning.accessory < 0.7
    stage = story.stages[0]
    away = replace(story, stages=(replace(stage, roles=(Role(actor=0, action="jumps", position=0.5),)),))
    assert 0.3 < scene_visibility(away, 0)[0].body < 0.7
    for seed in range(50):
        for index in range(3):
            assert all(role.body > 0.7 for role in scene_visibility(draw_story(seed, "C"), index))


def test_nothing_to_render_is_refused():
    with pytest.raises(Mask2DiTError, match="no scenes"):
        render_scenes([])
