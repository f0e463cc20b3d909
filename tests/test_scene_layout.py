"""Laws of the joint sequence: slices tile it, text comes first, and what cannot be a layout is refused."""

import random

import pytest

from mask2dit import SceneLayout
from mask2dit.errors import InputError, Mask2DiTError
from mask2dit.scene_layout import join_slices


def random_layout(rng: random.Random) -> SceneLayout:
    scenes = rng.randint(1, 6)
    return SceneLayout(tuple(rng.randint(0, 5) for _ in range(scenes)), tuple(rng.randint(1, 9) for _ in range(scenes)))


@pytest.mark.parametrize("seed", range(20))
def test_slices_tile_the_sequence(seed: int) -> None:
    layout = random_layout(random.Random(seed))
    scenes = range(layout.num_scenes)
    pieces = [layout.text(scene) for scene in scenes] + [layout.video(scene) for scene in scenes]
    assert [position for piece in pieces for position in range(piece.start, piece.stop)] == list(range(layout.num_tokens))


def test_text_of_all_scenes_comes_before_video_of_all_scenes() -> None:
    layout = SceneLayout((6, 4), (72, 9))
    assert (layout.text(0), layout.text(1)) == (slice(0, 6), slice(6, 10))
    assert (layout.video(0), layout.video(1)) == (slice(10, 82), slice(82, 91))
    assert (layout.num_scenes, layout.num_text_tokens, layout.num_video_tokens, layout.num_tokens) == (2, 10, 81, 91)


def test_equal_layouts_are_one_key() -> None:
    assert len({SceneLayout((1,), (2,)), SceneLayout((1,), (2,))}) == 1


@pytest.mark.parametrize(
    ("text_lengths", "video_lengths", "words"),
    [
        ((), (), "0 text lengths and 0 video lengths"),
        ((1, 2), (3,), "2 text lengths and 1 video lengths"),
        ((-1,), (3,), r"text \(-1,\)"),
        ((1,), (0,), r"video \(0,\)"),
    ],
)
def test_what_is_no_layout_is_refused(text_lengths: tuple[int, ...], video_lengths: tuple[int, ...], words: str) -> None:
    with pytest.raises(InputError, match=words) as caught:
        SceneLayout(text_lengths, video_lengths)
    assert isinstance(caught.value, Mask2DiTError) and isinstance(caught.value, ValueError)


def test_joined_slices_keep_positions_and_are_few() -> None:
    assert join_slices([slice(4, 6), slice(0, 2), slice(2, 4), slice(7, 9)]) == (slice(0, 6), slice(7, 9))
    assert join_slices([]) == ()
