"""The check of a film: cuts are found and nothing else is, matched as by hand, and colours drift by what was done to them."""

import math
import random
import weakref
from collections.abc import Iterator, Sequence
from itertools import combinations, permutations
from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError

from mask2dit.cuts import (
    FilmCheck,
    check_cuts,
    check_frames,
    cut_confidence,
    detect_cuts,
    match_cuts,
    shot_cut_accuracy,
    srgb_to_lab,
    table,
)
from mask2dit.errors import InputError
from mask2dit.playhouse.facts import VALIDATION_SEEDS
from mask2dit.playhouse.footage import footage, plan_footage
from mask2dit.video_files import Frame, open_video, write_video

COLOURS = [(200, 60, 40), (40, 90, 180), (60, 160, 70), (220, 200, 60)]


def flat(count: int, colour: Sequence[float], height: int = 32, width: int = 48) -> list[Frame]:
    return [np.full((height, width, 3), colour, np.uint8)] * count


def film_of(*lengths: int) -> list[Frame]:
    """Scenes of one plain colour each."""
    return [frame for length, colour in zip(lengths, COLOURS * len(lengths), strict=False) for frame in flat(length, colour)]


def panned(seed: int, count: int, step: int = 1, height: int = 64, width: int = 96) -> list[Frame]:
    """Patches of many colours, moving to the left by `step` pixels a frame."""
    rng = np.random.default_rng(seed)
    size = height // 8
    patches = rng.uniform(-70, 70, (9, (width + step * count) // size + 1, 3)) + rng.uniform(70, 190, 3)
    wide = patches.clip(0, 255).astype(np.uint8).repeat(size, axis=0).repeat(size, axis=1)
    return [wide[:height, step * number : step * number + width] for number in range(count)]


def lit(frame: Frame, light: float) -> Frame:
    return (frame * light).clip(0, 255).astype(np.uint8)


# Finding


def test_cuts_of_playhouse_films_are_found_and_nothing_else(tmp_path: Path) -> None:
    """Twenty films of three scenes of nine frames, as files."""
    for seed in VALIDATION_SEEDS[800:820]:
        truth = plan_footage([seed], "A")
        write_video(tmp_path / "film.mp4", (frame for shot in footage(truth) for frame in shot), truth.fps)
        with open_video(tmp_path / "film.mp4") as video:
            assert detect_cuts(video.frames()) == truth.cuts == (9, 18), seed


def test_long_scenes_at_full_size() -> None:
    frames = (frame for seed in range(3) for frame in panned(seed, 49, 2, 480, 720))
    assert detect_cuts(frames) == (49, 98)


@pytest.mark.parametrize("length", [4, 5, 9, 20])
def test_still_scenes_of_any_length_from_four_frames(length: int) -> None:
    assert detect_cuts(film_of(*[length] * 4)) == (length, 2 * length, 3 * length)


@pytest.mark.parametrize("length", [2, 3, 5, 9])
def test_moving_scenes_of_any_length_from_two_frames(length: int) -> None:
    assert detect_cuts(frame for seed in range(4) for frame in panned(seed, length)) == (length, 2 * length, 3 * length)


@pytest.mark.parametrize("times", [2, 3])
def test_a_film_whose_every_frame_is_repeated_has_the_same_cuts(times: int) -> None:
    """Without passing over repeats every step of what moves much would stand out like a cut."""
    film = [frame for seed in range(3) for frame in panned(seed, 12, step=3)]
    once = check_frames(film, [12, 12, 12])
    again = check_frames([frame for frame in film for _ in range(times)], [12 * times] * 3)
    assert again.found == tuple(times * cut for cut in once.found) and len(once.found) == 2
    assert again.sca == once.sca == 1 and again.confidences == pytest.approx(once.confidences)


def flash() -> Iterator[Frame]:
    for number, frame in enumerate(panned(1, 24)):
        yield np.full_like(frame, 250) if number == 12 else frame


def dissolve() -> Iterator[Frame]:
    for number, (before, after) in enumerate(zip(panned(1, 24), panned(2, 24), strict=True)):
        share = min(max((number - 8) / 8, 0), 1)
        yield (before * (1 - share) + after * share).astype(np.uint8)


def noise() -> Iterator[Frame]:
    rng = np.random.default_rng(0)
    return (rng.integers(0, 256, (64, 96, 3), np.uint8) for _ in range(24))


def swaying_grey(level: int = 150) -> Iterator[Frame]:
    """Fog, whose hue is all or nothing: a detector that looks at hue sees cuts here."""
    for number in range(40):
        yield from flat(1, [level + 2 * math.sin(number * pace) for pace in (0.3, 0.23, 0.4)])


NO_CUTS = {
    "still": lambda: panned(1, 24, 0),
    "pan": lambda: panned(1, 24, 4),
    "flash": flash,
    "dissolve": dissolve,
    "noise": noise,
    "grey": swaying_grey,
    "nearly black": lambda: swaying_grey(4),
    "dusk": lambda: (lit(frame, 1 - number / 24) for number, frame in enumerate(panned(1, 24))),
    "one frame": lambda: flat(1, COLOURS[0]),
    "a last frame": lambda: film_of(9, 1),
    "a first frame": lambda: film_of(1, 9),
}


@pytest.mark.parametrize("name", NO_CUTS)
def test_what_is_no_cut(name: str) -> None:
    assert detect_cuts(NO_CUTS[name]()) == ()


@pytest.mark.parametrize("size", [(480, 720), (720, 480), (64, 96), (3, 5), (1, 1)])
def test_any_size(size: tuple[int, int]) -> None:
    assert detect_cuts([*flat(5, COLOURS[0], *size), *flat(5, COLOURS[1], *size)]) == (5,)


def test_frames_are_let_go() -> None:
    alive: set[int] = set()
    most = 0

    def fresh() -> Iterator[Frame]:
        nonlocal most
        for number in range(30):
            frame = np.full((16, 16, 3), 8 * number, np.uint8)
            alive.add(number)
            weakref.finalize(frame, alive.discard, number)
            most = max(most, len(alive))
            yield frame

    check_frames(fresh(), [10, 20])
    assert most <= 2


# Matching


def cheapest(asked: Sequence[int], found: Sequence[int], reach: Sequence[int], price: float) -> float:
    """The least cost over every way to pair them."""
    costs = []
    for count in range(min(len(asked), len(found)) + 1):
        for some in combinations(range(len(asked)), count):
            for others in permutations(found, count):
                distances = [abs(asked[index] - cut) for index, cut in zip(some, others, strict=True)]
                if all(distance <= reach[index] for distance, index in zip(distances, some, strict=True)):
                    costs.append(sum(distances) + price * (len(asked) + len(found) - 2 * count))
    return min(costs)


def test_matching_is_the_cheapest_there_is() -> None:
    rng = random.Random(1)
    for _ in range(300):
        asked, found = (sorted(rng.sample(range(1, 30), rng.randint(0, 4))) for _ in range(2))
        reach = [rng.randint(0, 9)] * len(asked)
        price = rng.choice([0.5, 3.0, 9.0])
        pairs = match_cuts(asked, found, reach, price)
        assert len({cut for cut, _ in pairs}) == len({cut for _, cut in pairs}) == len(pairs)
        assert all(cut in asked and other in found and abs(cut - other) <= reach[0] for cut, other in pairs)
        cost = sum(abs(cut - other) for cut, other in pairs) + price * (len(asked) + len(found) - 2 * len(pairs))
        assert cost == pytest.approx(cheapest(asked, found, reach, price))


@pytest.mark.parametrize(
    ("asked", "found", "pairs"),
    [
        ([9, 18], [9, 18], [(9, 9), (18, 18)]),
        ([9, 18], [8, 10, 18], [(9, 10), (18, 18)]),
        ([9, 18], [13, 14], [(9, 13), (18, 14)]),
        ([9, 18], [12], [(9, 12)]),
        ([9], [14], []),
        ([], [4, 8], []),
        ([9, 18], [], []),
    ],
)
def test_matching_by_hand(asked: list[int], found: list[int], pairs: list[tuple[int, int]]) -> None:
    assert {cut: abs(other - cut) for cut, other in match_cuts(asked, found, [4] * len(asked), 9)} == {a: abs(f - a) for a, f in pairs}


# Shot cut accuracy


def test_every_cut_where_it_was_asked() -> None:
    check = check_frames(film_of(9, 9, 9), [9, 9, 9])
    assert (check.asked, check.found, check.pairs, check.sca, check.mean_deviation) == ((9, 18), (9, 18), ((9, 9), (18, 18)), 1.0, 0.0)
    assert check.missed == check.extra == check.unwanted_scenes == check.notes() == () and check.deviations == (0, 0)


@pytest.mark.parametrize(
    ("change", "ratio", "confidence"), [(40, 4, 0.75), (40, 2.5, 0.6), (40, 1, 0), (40, 0.5, 0), (4.9, 9, 0), (0, 0, 0)]
)
def test_confidence_by_hand(change: float, ratio: float, confidence: float) -> None:
    assert cut_confidence(change, ratio) == pytest.approx(confidence)


def test_confidence_is_that_of_the_asked_frame() -> None:
    assert check_frames(film_of(9, 9, 9), [9, 9, 9]).confidences == (pytest.approx(1 - 1 / 255),) * 2
    assert check_frames(film_of(9, 9, 9), [7, 12, 8]).confidences == (0, 0)
    assert check_frames(film_of(9, 1), [9, 1]).confidences == check_frames(film_of(1, 9), [1, 9]).confidences == (None,)


def test_cuts_that_are_off_cost_their_frames() -> None:
    check = check_frames(film_of(9, 9, 9), [7, 12, 8])
    assert (check.pairs, check.deviations, check.mean_deviation) == (((7, 9), (19, 18)), (2, -1), 1.5)
    assert check.sca == pytest.approx(math.exp(-(2 + 1) / 27))


def test_an_unwanted_cut_costs_a_mean_scene() -> None:
    check = check_frames(film_of(9, 9, 9), [9, 18])
    assert (check.extra, check.unwanted_scenes, check.missed, check.price_frames) == ((18,), (2,), (), 13.5)
    assert check.sca == pytest.approx(math.exp(-13.5 / 27))


def test_a_missed_cut_costs_the_same() -> None:
    check = check_frames(film_of(18, 9), [9, 9, 9])
    assert (check.missed, check.found, check.price_frames) == ((9,), (18,), 9)
    assert check.sca == pytest.approx(math.exp(-9 / 27))


def test_far_off_is_missed_and_unwanted() -> None:
    """A scene of nine frames reaches four: a cut five frames late is another one."""
    check = check_frames(film_of(14, 13), [9, 18])
    assert (check.missed, check.extra, check.unwanted_scenes, check.mean_deviation) == ((9,), (14,), (2,), None)
    assert check.sca == pytest.approx(math.exp(-2 * 13.5 / 27))
    assert check_frames(film_of(13, 14), [9, 18]).deviations == (4,)


def test_a_film_of_one_scene() -> None:
    check = check_frames(flat(9, COLOURS[0]), [9])
    assert (check.sca, check.asked, check.pairs, check.mean_deviation, len(check.scenes)) == (1.0, (), (), None, 1)
    check = check_cuts(film_of(5, 4), [])
    assert (check.extra, check.unwanted_scenes) == ((5,), (1,)) and check.sca == pytest.approx(math.exp(-1))


def test_accuracy_by_hand() -> None:
    assert shot_cut_accuracy([], 0, 9, 27) == 1
    assert shot_cut_accuracy([2, -1], 1, 9, 27) == pytest.approx(math.exp(-12 / 27))


def test_scenes_of_one_frame_are_noted() -> None:
    check = check_frames(film_of(1, 1, 5), [1, 1, 5])
    assert check.notes() == ("scenes 1, 2: one frame, which no detector can tell from a flash",)
    assert check_frames(flat(1, COLOURS[0]), [1]).notes() == ()


# Colour and contrast


@pytest.mark.parametrize(
    ("srgb", "lab"),
    [
        ((255, 255, 255), (100, 0, 0)),
        ((0, 0, 0), (0, 0, 0)),
        ((119, 119, 119), (50.03, 0, 0)),
        ((255, 0, 0), (53.24, 80.09, 67.20)),
        ((0, 255, 0), (87.73, -86.18, 83.18)),
        ((0, 0, 255), (32.30, 79.19, -107.86)),
    ],
)
def test_lab_of_known_colours(srgb: tuple[int, int, int], lab: tuple[float, float, float]) -> None:
    assert srgb_to_lab(np.array([[srgb]], np.uint8))[0, 0].tolist() == pytest.approx(lab, abs=0.02)


def test_equal_scenes_do_not_drift() -> None:
    scene = panned(3, 9)
    for colours in check_frames([*scene, *scene, *scene], [9, 9, 9]).scenes[1:]:
        assert (colours.colour_drift, colours.contrast_drift) == pytest.approx((0, 0), abs=1e-9)


def test_a_tint_drifts_the_more_the_stronger_it_is() -> None:
    scene = panned(3, 9)
    tinted = [(frame.astype(float) + [tint, 0, -tint]).clip(0, 255).astype(np.uint8) for tint in (0, 5, 10, 20, 40) for frame in scene]
    drifts = [colours.colour_drift for colours in check_frames(tinted, [9] * 5).scenes]
    assert drifts[0] == 0 and drifts == sorted(drifts) and drifts[1] > 1


def test_drift_and_contrast_by_hand() -> None:
    halves = np.zeros((32, 48, 3), np.uint8)
    halves[:, 24:] = 255
    first, second = check_frames([*flat(4, (119, 119, 119)), *[halves] * 4], [4, 4]).scenes
    assert (first.contrast, first.inner_drift, first.num_frames) == pytest.approx((0, 0, 4))
    assert (second.contrast, second.contrast_drift) == pytest.approx((50, 50))
    assert second.colour_drift == pytest.approx(0.03, abs=0.02)  # mid grey is of lightness 50, and so are black and white together


def test_a_scene_that_fades_drifts_inside() -> None:
    fading = [*flat(4, (119, 119, 119)), *flat(4, (0, 0, 0))]
    (scene,) = check_frames(fading, [8]).scenes
    assert scene.inner_drift == pytest.approx(50.03, abs=0.02) and scene.colour[0] == pytest.approx(25.02, abs=0.02)


def test_an_enlarged_film_has_the_same_colours() -> None:
    small = [*panned(3, 5, height=64, width=128), *panned(4, 5, height=64, width=128)]
    large = [frame.repeat(4, axis=0).repeat(4, axis=1) for frame in small]
    assert check_frames(large, [5, 5]) == check_frames(small, [5, 5])


# The record and the table


def test_a_check_comes_back_from_json() -> None:
    check = check_frames(film_of(9, 9, 9), [7, 20])
    assert FilmCheck.model_validate_json(check.model_dump_json()) == check
    with pytest.raises(ValidationError):
        check.sca = 1.0
    with pytest.raises(ValidationError):
        FilmCheck.model_validate({**check.model_dump(), "mood": 1})


def test_the_table_says_it_all() -> None:
    lines = table(check_frames(film_of(9, 9, 9), [7, 7, 13]))
    text = "\n".join(lines)
    assert lines[1].split()[:2] == ["1", "0"]
    assert lines[2].split()[:4] == ["2", "7", "9", "+2"]
    assert lines[3].split()[:4] == ["3", "14", "missed", "1"]
    assert "SCA 0.477 = exp(-(2 + 2 × 9) / 27): frames off, and 9 for each cut missed or unwanted" in text
    assert "1 of 2 cuts found, 2.00 frames off on average\nunwanted cuts: 18 in scene 3\n" in text
    assert "PySceneDetect AdaptiveDetector 0." in text and "change 5, ratio 2.5" in text


def test_the_table_fits_long_and_bad_films() -> None:
    long = check_frames(film_of(*[4] * 120), [4] * 120)
    bad = check_frames(film_of(*[4] * 60), [1, 239])
    for check in (long, bad):
        assert max(len(line) for fps in (None, 8, 0.01) for line in table(check, fps)) <= 98
    assert "48 in scene 2 and 47 more detector" in " ".join(" ".join(table(bad)).split())
    assert table(bad)[-1].startswith("note: scene 1: one frame")
    assert len(table(long)) < 130


def test_the_table_in_seconds() -> None:
    assert table(check_frames(film_of(9, 9), [8, 10]), fps=8)[2].split()[:6] == ["2", "1.00", "s", "1.12", "s", "+1"]


def test_scenes_are_called_by_their_numbers_in_the_storyboard() -> None:
    check = check_frames(film_of(9, 9, 1), [18, 1])
    text = "\n".join(table(check, numbers=(2, 5)))
    assert "9 in scene 2\n" in text and "drift: ΔE from scene 2;" in text and "note: scene 5: one frame" in text


# Mistakes


@pytest.mark.parametrize(
    ("lengths", "message"),
    [
        ([], "scene lengths: got nothing"),
        ([9, 0], "scene lengths: got 9, 0, expected frames of at least 1"),
        ([9, 8], "scene lengths: got 9, 8, 17 frames in all, but the film has 18"),
        ([9, 10], "scene lengths: got 9, 10, 19 frames in all, but the film has 18"),
        ([9, 9, 9], "cuts: got 18, but the film's 18 frames are counted from 0 to 17"),
    ],
)
def test_wrong_lengths(lengths: list[int], message: str) -> None:
    with pytest.raises(InputError, match=message):
        check_frames(film_of(9, 9), lengths)


@pytest.mark.parametrize("cuts", [[0], [-1], [9, 9], [9, 3]])
def test_cuts_must_rise(cuts: list[int]) -> None:
    with pytest.raises(InputError, match=r"^cuts: got .*expected rising first frames"):
        check_cuts(film_of(9, 9), cuts)


@pytest.mark.parametrize(
    "frames",
    [
        [np.zeros((4, 4, 3), np.float32)],
        [np.zeros((4, 4), np.uint8)],
        [np.zeros((4, 4, 4), np.uint8)],
        [np.zeros((0, 4, 3), np.uint8)],
        [np.zeros((4, 4, 3), np.uint8), np.zeros((4, 6, 3), np.uint8)],
    ],
)
def test_frames_that_are_none(frames: list[Frame]) -> None:
    with pytest.raises(InputError, match=rf"^frame {len(frames) - 1}: got .*expected uint8 \[Y, X, 3\], all of one size"):
        detect_cuts(frames)


def test_a_film_without_frames() -> None:
    with pytest.raises(InputError, match="got no frames"):
        check_cuts([], [])
    assert detect_cuts([]) == ()
