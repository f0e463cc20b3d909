"""What is measured of a shot: each number is near what was done to the pictures, and near nothing where nothing was done."""

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont

from foreign_films import footage as foreign
from mask2dit.curation.measures import (
    black_bars,
    dissolves,
    lightness,
    longest_still,
    look,
    same_look,
    text_overlay,
    thumbnail,
)
from mask2dit.playhouse.facts import VALIDATION_SEEDS, draw_story
from mask2dit.playhouse.footage import footage, plan_footage
from mask2dit.video_files import Frame, read_video

FILM_RATE = Fraction(24)
TEXT_SHARE = 0.003  # of the picture: what parts pictures with text from those without


def source(name: str, count: int = 16, every: int = 3, height: int = 180, width: int = 320) -> Frame:
    """Pictures of one of FFmpeg's sources, eight a second."""
    return np.stack(list(foreign.source_frames(name, count * every, FILM_RATE, (height, width)))[::every])


def encoded(folder: Path, frames: Frame, crf: int = 28) -> Frame:
    path = folder / "film.mp4"
    foreign.encode(path, list(frames), FILM_RATE, crf=str(crf))
    return read_video(path)


def scene(seed: int, number: int = 0) -> Frame:
    return list(footage(plan_footage([seed], "A")))[number]


# Light and stillness


def test_lightness_by_hand() -> None:
    halves = np.zeros((3, 32, 48, 3), np.uint8)
    halves[:, :, 24:] = 255
    assert lightness(halves) == pytest.approx((50, 50))
    assert lightness(np.full((2, 8, 8, 3), 119, np.uint8)) == pytest.approx((50, 0), abs=0.1)


@pytest.mark.parametrize("crf", [23, 35])
def test_a_frozen_picture_stands_still_whatever_the_encoder(crf: int, tmp_path: Path) -> None:
    for name in ("mandelbrot", "testsrc2"):
        frozen = encoded(tmp_path, source(name, 1).repeat(49, axis=0), crf)[::3]
        assert longest_still(frozen, 8) == 2.0


def test_the_longest_run_counts() -> None:
    moving = source("mandelbrot", 12)
    pictures = np.concatenate([moving[:4], moving[3:4].repeat(6, axis=0), moving[4:]])
    assert longest_still(pictures, 8) == pytest.approx(6 / 8)
    assert longest_still(moving, 8) == longest_still(moving[:1], 8) == 0


def sleepers() -> Iterator[tuple[int, int]]:
    for seed in VALIDATION_SEEDS[:400]:
        for number, stage in enumerate(draw_story(seed, "A").stages):
            if [role.action for role in stage.roles] == ["sleeps"] and (stage.camera, stage.weather) == ("still", "clear"):
                yield seed, number


def test_a_sleeper_does_not_stand_still(tmp_path: Path) -> None:
    """The least that moves in the playhouse: it breathes."""
    found = list(sleepers())[:4]
    assert found
    for seed, number in found:
        assert longest_still(scene(seed, number), 8) == 0
        assert longest_still(encoded(tmp_path, scene(seed, number)), 8) <= 0.125


# Bars


def barred(pictures: Frame, top: float, bottom: float, left: float, right: float, level: int = 0) -> tuple[Frame, tuple[float, ...]]:
    """Pictures made smaller between bars, and the shares that these take."""
    height, width = pictures.shape[1:3]
    up, down, west, east = (round(share * side) for share, side in ((top, height), (bottom, height), (left, width), (right, width)))
    made = np.full_like(pictures, level)
    for number, picture in enumerate(pictures):
        inner = Image.fromarray(picture).resize((width - west - east, height - up - down))
        made[number, up : height - down, west : width - east] = np.asarray(inner)
    return made, (up / height, down / height, west / width, east / width)


@pytest.mark.parametrize("shares", [(0.125, 0.125, 0, 0), (0, 0, 0.2, 0.2), (0.1, 0.1, 0.15, 0.15), (0.04, 0.04, 0, 0), (0, 0.12, 0, 0)])
def test_bars_are_measured(shares: tuple[float, float, float, float], tmp_path: Path) -> None:
    for name in ("mandelbrot", "gradients", "testsrc2"):
        for level in (0, 16):
            made, expected = barred(source(name, 8), *shares, level)
            assert black_bars(made) == pytest.approx(expected), (name, level)
        assert black_bars(encoded(tmp_path, barred(source(name, 8), *shares)[0], 23)) == pytest.approx(expected, abs=0.03), name


def test_where_there_are_no_bars() -> None:
    for seed in VALIDATION_SEEDS[:12]:
        assert not any(black_bars(scene(seed))), seed
    for name in ("mandelbrot", "gradients", "life", "testsrc2", "smptebars"):
        assert not any(black_bars(source(name, 4)))
        assert not any(black_bars((source(name, 4) * 0.5).astype(np.uint8)))
    assert not any(black_bars(np.zeros((4, 64, 96, 3), np.uint8)))
    night = np.full((4, 90, 160, 3), 8, np.uint8)
    night[:, 60:] = np.linspace(8, 90, 30).astype(np.uint8)[None, :, None, None]
    assert not any(black_bars(night))


# Text


def titled(pictures: Frame, *lines: str, share: float = 0.06, top: float | None = None) -> Frame:
    """White letters with a black outline, at the bottom or from `top` on."""
    height, width = pictures.shape[1:3]
    size = max(11, round(share * height))
    font, made = ImageFont.load_default(size=size), []
    for picture in map(Image.fromarray, pictures):
        draw = ImageDraw.Draw(picture)
        for number, line in enumerate(lines):
            y = height * 0.96 - size * 1.3 * (len(lines) - number) if top is None else height * top + size * 1.3 * number
            x = (width - draw.textlength(line, font=font)) / 2
            draw.text((x, y), line, font=font, fill=(255, 255, 255), stroke_width=1, stroke_fill=(0, 0, 0))
        made.append(np.asarray(picture))
    return np.stack(made)


QUIET = ("mandelbrot", "gradients", "zoneplate")
SUBTITLES = [
    ("I never said that I would come back.",),
    ("We have to go. Now!", "said the old man, and he laughed."),
    ("Where were you last night?",),
]


@pytest.mark.parametrize("name", [QUIET[0], *(pytest.param(name, marks=pytest.mark.slow) for name in QUIET[1:])])
def test_subtitles_are_seen(name: str, tmp_path: Path) -> None:
    pictures = source(name, 10, height=336, width=596)
    for lines in SUBTITLES:
        assert TEXT_SHARE < text_overlay(encoded(tmp_path, titled(pictures, *lines))) < 0.15, lines
    some = np.concatenate([pictures[:5], titled(pictures[5:], *SUBTITLES[0])])
    assert text_overlay(some) > TEXT_SHARE


def test_a_small_title_takes_little() -> None:
    pictures = source("gradients", 10, height=336, width=596)
    assert TEXT_SHARE < text_overlay(titled(pictures, "NEWS 24", share=0.05, top=0.05)) < 0.02


@pytest.mark.slow
def test_where_there_is_no_text(tmp_path: Path) -> None:
    for name in ("gradients", "zoneplate", "smptebars", "colorspectrum"):
        assert text_overlay(source(name, 8)) == 0, name
    for seed in VALIDATION_SEEDS[:12]:
        assert text_overlay(scene(seed)) < TEXT_SHARE, seed
    rows, columns = np.mgrid[:180, :320]
    rng = np.random.default_rng(0)
    fence = np.where(columns % 12 < 4, 230, 60)
    plaid = 128 + 60 * np.sign(np.sin(columns / 2)) + 40 * np.sign(np.sin(rows / 3))
    for pattern in (fence, plaid, 128 + rng.normal(0, 40, rows.shape)):
        grain = rng.normal(0, 4, (8, 180, 320, 1))
        assert text_overlay((pattern[None, :, :, None] + grain).clip(0, 255).repeat(3, axis=3).astype(np.uint8)) < TEXT_SHARE


# Dissolves


def looks(frames: Iterator[Frame] | list[Frame]) -> Frame:
    return np.stack([thumbnail(frame) for frame in frames])


def blended(before: Frame, after: Frame, mixed: int, clean: int) -> tuple[Frame, tuple[int, int]]:
    """So many clean thumbnails, so many mixed ones, and again clean ones; while they mix, both go on."""
    shares = (np.arange(mixed) + 1)[:, None, None, None] / (mixed + 1)
    mixture = before[clean : clean + mixed] * (1 - shares) + after[:mixed] * shares
    made = np.concatenate([before[:clean], mixture.astype(np.uint8), after[mixed : mixed + clean]])
    return made, (clean, clean + mixed)


@pytest.fixture(scope="module")
def some_looks() -> dict[str, Frame]:
    films = {name: looks(foreign.source_frames(name, 100, FILM_RATE, (90, 160))) for name in ("testsrc2", "gradients", "mandelbrot")}
    return {**films, "black": np.zeros((100, 9, 16, 3), np.uint8), "white": np.full((100, 9, 16, 3), 250, np.uint8)}


@pytest.mark.parametrize("mixed", [4, 6, 8, 12, 16])
@pytest.mark.parametrize("pair", ["mandelbrot gradients", "gradients mandelbrot", "mandelbrot black", "black testsrc2", "testsrc2 white"])
def test_dissolves_and_fades_are_found(pair: str, mixed: int, some_looks: dict[str, Frame]) -> None:
    before, after = pair.split()
    made, (first, clean) = blended(some_looks[before], some_looks[after], mixed, 30)
    ((found_first, found_clean),) = dissolves(made, 24)
    assert abs(found_first - first) <= 2 and abs(found_clean - clean) <= 2


def test_dissolves_of_foreign_films() -> None:
    plans = {plan.name: plan for plan in foreign.PLANS}
    for name, starts in {"dissolves": {48: 16, 96: 24}, "mixed": {96: 12}}.items():
        frames = list(foreign.film_frames(plans[name]))
        for start, mixed in starts.items():
            found = dissolves(looks(frames[start - 48 : start + 48]), 24)
            assert len(found) == 1 and abs(found[0][0] - 48) <= 3 and abs(found[0][1] - 48 - mixed) <= 3, name


@pytest.mark.slow
def test_what_is_no_dissolve(some_looks: dict[str, Frame]) -> None:
    picture = np.asarray(Image.fromarray(np.random.default_rng(1).integers(0, 256, (9, 40, 3), np.uint8)).resize((1600, 360)))
    dark = [(picture[:, :640] * light).astype(np.uint8) for light in np.linspace(1, 0.4, 24)]
    flicker = [(picture[:, :640] * (0.8 + 0.2 * np.sin(at))).astype(np.uint8) for at in range(48)]
    flash = [*some_looks["gradients"][:20], *some_looks["white"][:1], *some_looks["gradients"][20:40]]
    shots = {
        "pan": looks([picture[:, 8 * at : 8 * at + 640] for at in range(96)]),
        "pan that stops": looks([picture[:, max(0, min(8 * (at - 24), 400)) :][:, :640] for at in range(96)]),
        "zoom": looks([picture[: 360 - 2 * at, : 640 - 3 * at] for at in range(96)]),
        "dusk": looks([*[dark[0]] * 20, *dark, *[dark[-1]] * 20]),
        "flicker": looks(flicker),
        "flash": np.stack(flash),
        "one frame": some_looks["black"][:1],
        **some_looks,
    }
    assert {name: found for name, shot in shots.items() if (found := dissolves(shot, 24))} == {}
    for seed in VALIDATION_SEEDS[:12]:
        assert dissolves(looks(list(scene(seed))), 8) == []


# Look


def test_a_copy_has_the_same_look_and_another_actor_another(tmp_path: Path) -> None:
    for seed in VALIDATION_SEEDS[:3]:
        shot = scene(seed)
        enlarged = np.stack([np.asarray(Image.fromarray(picture).resize((480, 320), Image.Resampling.BICUBIC)) for picture in shot])
        for copy in (encoded(tmp_path, shot), encoded(tmp_path, enlarged)):
            assert same_look(look(shot), look(copy)) < 4.6
        for number in (1, 2):
            assert same_look(look(shot), look(scene(seed, number))) > 8.6
    assert look(shot).shape == (3, 9, 16, 3) and thumbnail(shot[0]).dtype == np.uint8
