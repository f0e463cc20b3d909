"""Laws of compression: 4k + 1 frames ↔ k + 1 latent frames, sizes in whole patches, and errors that name the remedy."""

import pytest

from mask2dit.errors import InputError
from mask2dit.video_shape import Compression, VideoShape, check_num_frames, nearest_num_frames, num_frames_for

RELEASED = Compression(spatial=8, temporal=4, patch=2)


def test_released_size() -> None:
    shape = VideoShape(480, 720, (49, 49, 49), RELEASED)
    assert shape.latent_size == (60, 90)
    assert shape.num_latent_frames == (13, 13, 13)
    assert shape.tokens_per_latent_frame == 1350
    layout = shape.layout(text_length=226)
    assert layout.text_lengths == (226, 226, 226)
    assert layout.video_lengths == (17550, 17550, 17550)


def test_every_scene_is_counted_on_its_own() -> None:
    shape = VideoShape(32, 48, (1, 9, 5), RELEASED)
    assert shape.num_latent_frames == (1, 3, 2)
    assert shape.layout(4).video_lengths == (6, 18, 12)


@pytest.mark.parametrize("ratio", [1, 2, 4, 8])
def test_the_nearest_frame_count_is_legal_and_near(ratio: int) -> None:
    for tenths in range(-20, 500, 7):
        count = tenths / 10
        nearest = nearest_num_frames(count, ratio)
        check_num_frames(nearest, "here", ratio)
        assert nearest == 1 or abs(nearest - count) <= ratio / 2


def test_durations_become_at_least_a_moving_picture() -> None:
    assert num_frames_for(6.0, fps=8) == 49
    assert num_frames_for(2.0, fps=8) == 17
    assert num_frames_for(0.001, fps=8) == 5


@pytest.mark.parametrize(
    ("num_frames", "remedy"), [(0, "take 1$"), (-3, "take 1$"), (2, "take 1 or 5"), (8, "take 5 or 9"), (48, "take 45 or 49")]
)
def test_other_frame_counts_are_refused(num_frames: int, remedy: str) -> None:
    with pytest.raises(InputError, match=f"^scene 2: got {num_frames} frames, expected 4k \\+ 1 .*{remedy}"):
        check_num_frames(num_frames, "scene 2")


@pytest.mark.parametrize(
    ("height", "width", "words"),
    [
        (481, 720, "height: got 481, expected a multiple of 16 pixels; take 480 or 496"),
        (480, 8, "width: got 8, expected a multiple of 16 pixels; take 16"),
        (0, 720, "height: got 0, .* take 16"),
        (-16, 720, "height: got -16, .* take 16"),
    ],
)
def test_sizes_that_are_not_whole_patches_are_refused(height: int, width: int, words: str) -> None:
    with pytest.raises(InputError, match=words):
        VideoShape(height, width, (49,), RELEASED)


def test_a_film_needs_scenes_with_legal_frames() -> None:
    with pytest.raises(InputError, match="scenes: got none"):
        VideoShape(480, 720, (), RELEASED)
    with pytest.raises(InputError, match="scene 2, num_frames: got 48 frames"):
        VideoShape(480, 720, (49, 48), RELEASED)
