"""Films that we did not generate are looked at, and what was done to them moves the right numbers the right way."""

from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from foreign_films import footage
from mask2dit.cut_lists import CutList
from mask2dit.errors import InputError
from mask2dit.evaluation.facts import FilmFacts, Look
from mask2dit.evaluation.films import FilmSource
from mask2dit.evaluation.looking import MOST_PICTURES, SHORT_SIDE, ScenePictures, digest_of_video, look_at, take_pictures
from mask2dit.evaluation.metrics import METRICS
from mask2dit.video_files import read_video

SMALL = replace(
    footage.PLANS[0],
    name="small",
    parts=(footage.Part("testsrc2", 24), footage.Part("mandelbrot", 24), footage.Part("gradients", 24)),
    size=(90, 160),
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("films")


@pytest.fixture(scope="module")
def film(folder: Path) -> Path:
    return footage.write_film(SMALL, folder)


def asked(path: Path, *cuts: int) -> FilmSource:
    return FilmSource(path.stem, path, cut_list=CutList(True, cuts, "test"))


def look(source: FilmSource) -> tuple[Look, list[ScenePictures]]:
    scenes: list[ScenePictures] = []
    return look_at(source, digest_of_video(source.video), scenes.append), scenes


def value(name: str, found: Look) -> float:
    measured = METRICS[name].measure(FilmFacts("film", found), "")
    assert measured.value is not None, measured.reason
    return measured.value


def changed(film: Path, name: str, change, fps: Fraction = Fraction(24), codec: str = "libx264", **options: str) -> Path:
    path = film.with_name(name)
    footage.encode(path, change(read_video(film)), fps, codec, **options)
    return path


def test_scenes_are_seen_where_they_were_asked_for(film: Path) -> None:
    found, scenes = look(asked(film, 24, 48))
    assert [(scene.start, scene.stop) for scene in found.scenes] == [(0, 24), (24, 48), (48, 72)]
    assert (found.check.found, found.cuts_are, found.height, found.width, found.fps) == ((24, 48), "asked", 90, 160, 24)
    assert [scene.pictures.shape for scene in scenes] == [(8, 90, 160, 3)] * 3 and scenes[0].per_second == 8
    whole = read_video(film)
    np.testing.assert_array_equal(scenes[1].pictures, whole[24:48:3])


def test_cuts_that_nobody_named_are_detected(film: Path) -> None:
    found, scenes = look(FilmSource("small", film))
    assert (found.cuts_are, found.check.asked, len(scenes)) == ("detected", (24, 48), 3)


def test_pictures_can_be_taken_again(film: Path) -> None:
    found, scenes = look(asked(film, 24, 48))
    again: list[ScenePictures] = []
    take_pictures(asked(film, 24, 48), found, again.append)
    for one, other in zip(scenes, again, strict=True):
        np.testing.assert_array_equal(one.pictures, other.pictures)
        assert (one.index, one.start, one.stop, one.per_second) == (other.index, other.start, other.stop, other.per_second)


QUICK = ("hard-12", "mpeg4", "short-scenes", "flashes", "one-scene")  # the others are among the slow tests


@pytest.mark.parametrize(
    "plan", [pytest.param(each, id=each.name, marks=() if each.name in QUICK else pytest.mark.slow) for each in footage.PLANS]
)
def test_hard_cuts_of_foreign_films_are_found_and_nothing_else(plan, tmp_path: Path) -> None:
    small = replace(plan, size=(plan.size[0] // 2 // 2 * 2, plan.size[1] // 2 // 2 * 2))
    found, _ = look(FilmSource(plan.name, footage.write_film(small, tmp_path)))
    assert found.check.found == plan.hard_cuts
    assert found.check.num_frames == plan.num_frames


@pytest.mark.parametrize(("codec", "suffix"), [("libx264", ".mkv"), ("mpeg4", ".avi"), ("mjpeg", ".mkv")])
def test_encoding_again_changes_next_to_nothing(film: Path, codec: str, suffix: str) -> None:
    before, scenes = look(asked(film, 24, 48))
    options = {"crf": "26"} if codec == "libx264" else {}
    after, again = look(asked(changed(film, f"again-{codec}{suffix}", lambda frames: frames, codec=codec, **options), 24, 48))
    assert after.check.found == before.check.found
    for name in ("sca", "transition-deviation"):
        assert value(name, after) == value(name, before)
    assert value("transition-confidence", after) == pytest.approx(value("transition-confidence", before), abs=0.05)
    assert value("colour-drift", after) == pytest.approx(value("colour-drift", before), rel=0.05)
    assert value("dynamic-degree", after) == pytest.approx(value("dynamic-degree", before), rel=0.25)
    for one, other in zip(scenes, again, strict=True):
        assert np.abs(one.pictures.astype(float) - other.pictures).mean() < 8


def test_a_film_at_twice_the_rate_is_the_same_film(folder: Path) -> None:
    busy = replace(SMALL, name="busy", parts=(footage.Part("testsrc2", 24), footage.Part("life", 24), footage.Part("gradients", 24)))
    film = footage.write_film(busy, folder)
    before, scenes = look(asked(film, 24, 48))
    doubled = changed(film, "doubled.mkv", lambda frames: frames.repeat(2, axis=0), Fraction(48), "ffv1")
    after, again = look(asked(doubled, 48, 96))
    for name in ("sca", "transition-deviation"):
        assert value(name, after) == value(name, before)
    assert value("transition-confidence", after) == pytest.approx(value("transition-confidence", before), abs=0.02)
    assert value("dynamic-degree", after) == pytest.approx(value("dynamic-degree", before), rel=0.05)
    for one, other in zip(scenes, again, strict=True):
        assert np.abs(one.pictures.astype(float) - other.pictures).mean() < 3


def test_slow_motion_halves_what_moves(film: Path) -> None:
    before, _ = look(asked(film, 24, 48))
    slow, _ = look(asked(changed(film, "slow.mp4", lambda frames: frames.repeat(2, axis=0)), 48, 96))
    assert 0.35 < value("dynamic-degree", slow) / value("dynamic-degree", before) < 0.75
    assert value("sca", slow) == 1


def test_a_frozen_film_does_not_move(film: Path) -> None:
    frozen = changed(film, "frozen.mp4", lambda frames: frames[[0] * 24 + [24] * 24 + [48] * 24])
    found, _ = look(asked(frozen, 24, 48))
    assert value("dynamic-degree", found) < 0.5 and value("sca", found) == 1


def test_trimming_a_scene_moves_its_cut(film: Path) -> None:
    trimmed = changed(film, "trimmed.mp4", lambda frames: frames[5:])
    found, _ = look(asked(trimmed, 24, 48))
    assert found.check.deviations == (-5, -5)
    assert value("transition-deviation", found) == 5 and value("sca", found) < 0.9 and value("transition-confidence", found) < 0.5


def test_a_film_that_grows_dark_drifts(film: Path) -> None:
    before, _ = look(asked(film, 24, 48))
    dark = changed(film, "dark.mp4", lambda frames: (frames * np.linspace(1, 0.2, len(frames))[:, None, None, None]).astype(np.uint8))
    after, _ = look(asked(dark, 24, 48))
    lighter = [scene.colour[0] for scene in before.check.scenes]
    assert [scene.colour[0] for scene in after.check.scenes] < lighter
    assert value("contrast-drift", after) != pytest.approx(value("contrast-drift", before), abs=1)


def test_a_dissolve_is_no_cut_and_costs_accuracy(tmp_path: Path) -> None:
    plan = replace(SMALL, name="dissolve", parts=(footage.Part("gradients", 30), footage.Part("mandelbrot", 30, dissolve=14)))
    found, _ = look(asked(footage.write_film(plan, tmp_path), 30))
    assert found.check.missed == (30,) and value("sca", found) < 0.7


def test_long_scenes_and_large_pictures_stay_small(tmp_path: Path) -> None:
    long = replace(SMALL, name="long", parts=(footage.Part("testsrc2", 700),), fps=Fraction(30), size=(48, 64))
    found, scenes = look(asked(footage.write_film(long, tmp_path)))
    assert len(scenes[0].pictures) <= MOST_PICTURES and scenes[0].per_second == 4 and found.scenes[0].motion is not None
    large = replace(SMALL, name="large", parts=(footage.Part("testsrc2", 4),), size=(600, 900))
    _, scenes = look(asked(footage.write_film(large, tmp_path)))
    assert min(scenes[0].pictures.shape[1:3]) == SHORT_SIDE


def test_a_scene_of_one_frame_is_seen_and_does_not_move(film: Path) -> None:
    found, scenes = look(asked(film, 24, 25))
    assert found.scenes[1].num_pictures == 1 and found.scenes[1].motion is None and len(scenes) == 3
    assert "one frame" in found.check.notes()[0]


def test_a_cut_list_of_another_film_is_refused(film: Path) -> None:
    with pytest.raises(InputError, match="counted from 0 to 71"):
        look(asked(film, 24, 100))
    with pytest.raises(InputError, match="100 frames in all, but the film has 72"):
        look(FilmSource("small", film, cut_list=CutList(False, (50, 50), "lengths")))
