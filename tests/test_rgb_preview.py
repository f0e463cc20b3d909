"""Small pictures of latents show what the decoder would, without it."""

import numpy as np
import pytest
import torch
from torch.nn.functional import avg_pool2d

from mask2dit.loading import load_pipeline
from mask2dit.pipeline import Mask2DiTPipeline
from mask2dit.playhouse.facts import VALIDATION_SEEDS, draw_story
from mask2dit.playhouse.render import render_scenes
from mask2dit.rgb_preview import RgbPreview, is_due


@pytest.fixture(scope="module")
def pipeline() -> Mask2DiTPipeline:
    return load_pipeline()


def test_it_agrees_with_the_decoder(pipeline: Mask2DiTPipeline) -> None:
    """On scenes that it was not fitted on: the first frame, of which the first latent frame is made, to a few hundredths."""
    preview, values = RgbPreview.fit(pipeline), pipeline.values
    stories = [(draw_story(seed, "A"), 0) for seed in VALIDATION_SEEDS[:4]]
    clips = render_scenes(stories, num_frames=values.num_frames, height=values.height, width=values.width)
    for clip in clips:
        latents = pipeline.encode_scene(clip)
        decoded = torch.from_numpy(pipeline.decode_scene(latents)[:1]).permute(0, 3, 1, 2)
        small = avg_pool2d(decoded, values.compression.spatial)[0].permute(1, 2, 0).numpy()
        shown = preview.frames(latents)[0] / 255
        assert np.abs(shown - small).mean() < 0.06
        assert np.corrcoef(shown.ravel(), small.ravel())[0, 1] > 0.9


def test_it_is_the_same_every_time_and_draws_nothing(pipeline: Mask2DiTPipeline) -> None:
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    one, other = RgbPreview.fit(pipeline), RgbPreview.fit(pipeline)
    assert torch.equal(one.weight, other.weight) and torch.equal(torch.random.get_rng_state(), before)


def test_a_picture_has_a_row_for_each_scene(pipeline: Mask2DiTPipeline) -> None:
    preview = RgbPreview.fit(pipeline)
    scenes = {number: torch.randn(3, 8, 16, 24) for number in (1, 2, 4)}
    picture, single = preview.picture(scenes, "step 3 of 20"), preview.picture({4: scenes[4][:1]}, "step 3 of 20")
    assert picture.height > 2.5 * (single.height - 40) and picture.width > 2.5 * (single.width - 40)


def test_pictures_come_a_few_times_and_at_the_end() -> None:
    for total in (1, 2, 7, 20, 50):
        due = [step for step in range(1, total + 1) if is_due(step, total)]
        assert due[-1] == total and len(due) <= 16
