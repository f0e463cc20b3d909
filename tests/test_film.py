"""Film: enlarged frames, the contact sheet and the preview are what a person can look at, whatever the film is like."""

import io

import numpy as np
import pytest
from PIL import Image

from mask2dit import film
from mask2dit.errors import InputError


def frames_of(count: int, height: int = 64, width: int = 96, seed: int = 0) -> np.ndarray:
    coarse = np.random.default_rng(seed).integers(0, 255, (count, height // 8, width // 8, 3), dtype=np.uint8)
    return coarse.repeat(8, axis=1).repeat(8, axis=2)


@pytest.mark.parametrize(("height", "scale"), [(64, 8), (96, 5), (240, 2), (479, 2), (480, 1), (1080, 1)])
def test_small_films_are_enlarged_to_a_comfortable_height(height: int, scale: int) -> None:
    assert film.choose_scale(height) == scale


def test_a_wanted_scale_is_taken() -> None:
    assert film.choose_scale(64, 3) == 3
    for wanted in (0, -1, 65):
        with pytest.raises(InputError, match="display scale"):
            film.choose_scale(64, wanted)


def test_enlarging_keeps_the_picture() -> None:
    frame = frames_of(1)[0]
    large = film.enlarge(frame, 4)
    assert large.shape == (256, 384, 3) and large.dtype == np.uint8
    assert film.enlarge(frame, 1) is frame
    back = np.asarray(Image.fromarray(large).resize((96, 64), Image.Resampling.BOX))
    assert np.abs(back.astype(int) - frame).mean() < 6


def test_bytes_are_rounded_and_cut_off() -> None:
    frames = np.array([[[[-0.5, 0.0, 0.5], [1.0, 2.0, np.nan]]]], dtype=np.float32)
    assert film.frames_to_bytes(frames).tolist() == [[[[0, 0, 128], [255, 255, 0]]]]


@pytest.mark.parametrize(
    ("count", "expected"), [(9, [0, 2, 4, 6, 8]), (5, [0, 1, 2, 3, 4]), (2, [0, 1]), (1, [0]), (49, [0, 12, 24, 36, 48])]
)
def test_picked_frames_are_evenly_spaced(count: int, expected: list[int]) -> None:
    frames = np.arange(count, dtype=np.uint8)[:, None, None, None]
    assert [int(frame[0, 0, 0]) for frame in film.pick(frames)] == expected


def test_a_contact_sheet_shows_every_scene_in_order() -> None:
    colours = [(200, 30, 30), (30, 200, 30), (30, 30, 200)]
    rows = [film.SheetRow([np.full((64, 96, 3), colour, np.uint8)] * 5, f"scene in {colour}", "seed 1") for colour in colours]
    sheet = np.asarray(film.contact_sheet("A film", "3 scenes", rows)).astype(int)
    tops = []
    for colour in colours:
        where = np.argwhere(np.abs(sheet - colour).max(axis=2) < 3)
        assert len(where) > 5 * 100 * 100
        tops.append(where[:, 0].min())
        assert where[:, 1].max() - where[:, 1].min() > 0.8 * sheet.shape[1]
    assert tops == sorted(tops)
    assert sheet.shape[1] < 1600 and sheet.shape[0] < 1200


def test_text_is_drawn_below_its_scene() -> None:
    pictures = [np.full((64, 96, 3), 128, np.uint8)]
    blank = np.asarray(film.contact_sheet("", "", [film.SheetRow(pictures, "")]))
    lettered = np.asarray(film.contact_sheet("", "", [film.SheetRow(pictures, "a red fox", "seed 7")]))
    assert blank.shape == lettered.shape
    changed = np.argwhere((blank != lettered).any(axis=2))
    picture_bottom = np.argwhere((blank == 128).all(axis=2))[:, 0].max()
    assert len(changed) > 100 and changed[:, 0].min() > picture_bottom


@pytest.mark.parametrize("caption", ["🦊 漢字 العربية", "x" * 10_000, "word " * 2000, "", "\n\t\0", "’–—"])
def test_any_caption_can_be_drawn(caption: str) -> None:
    sheet = film.contact_sheet(caption, caption[:200], [film.SheetRow(list(frames_of(5)), caption)])
    assert sheet.height < 700


def test_sheets_of_long_and_of_odd_films_stay_a_size_that_opens() -> None:
    for count, height, width in ((500, 64, 96), (3, 96, 64), (3, 8, 512), (3, 512, 8), (1, 1080, 1920)):
        rows = [film.SheetRow([np.zeros((height, width, 3), np.uint8)], "a caption")] * count
        sheet = film.contact_sheet("t", "s", rows)
        assert sheet.width * sheet.height < Image.MAX_IMAGE_PIXELS


def test_wrapped_lines_fit_and_lose_nothing() -> None:
    font = film._font(19)
    text = "a red fox walks right in the meadow " * 4
    lines = film._wrap(text, font, 300, 99)
    assert " ".join(lines).split() == text.split()
    assert all(font.getlength(line) <= 300 for line in lines)
    assert film._wrap(text, font, 300, 2)[1].endswith("…")


def read_webp(content: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(content))
    assert image.format == "WEBP"
    return image


def test_the_preview_moves_at_the_films_rate() -> None:
    image = read_webp(film.animated_preview([film.preview_frame(frame) for frame in frames_of(9)], 8))
    assert image.n_frames == 9 and image.size == (96, 64)
    image.seek(1)
    image.load()
    assert image.info["duration"] == 125


def test_a_preview_never_exceeds_its_bytes() -> None:
    noise = np.random.default_rng(0).integers(0, 255, (12, 320, 480, 3), dtype=np.uint8)
    frames = [film.preview_frame(frame) for frame in noise]
    sizes = []
    for limit in (2_000_000, 200_000, 20_000):
        content = film.animated_preview(frames, 8, limit)
        assert len(content) <= limit
        sizes.append(read_webp(content).width)
    assert sizes == sorted(sizes, reverse=True)


def test_the_preview_of_a_long_film_skips_frames() -> None:
    assert [film.preview_step(count) for count in (1, 240, 241, 24_500)] == [1, 1, 2, 103]


def test_a_preview_needs_frames_and_room() -> None:
    with pytest.raises(InputError, match="no frames"):
        film.animated_preview([], 8)
    with pytest.raises(InputError, match="one frame"):
        film.animated_preview([film.preview_frame(frames_of(1)[0])], 8, max_bytes=10)
