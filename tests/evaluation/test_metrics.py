"""Every metric against a case computed by hand, and against another implementation where there is one."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from mask2dit.cuts import check_frames
from mask2dit.evaluation.facts import FilmFacts, Look, SceneLook, Value
from mask2dit.evaluation.metrics import METRICS, FilmMetric
from mask2dit.evaluation.metrics.diversity import diversity
from mask2dit.evaluation.metrics.frechet_video_distance import frechet_distance
from mask2dit.evaluation.metrics.inter_scene_consistency import inter_scene_consistency
from mask2dit.evaluation.metrics.semantic_consistency import semantic_consistency
from mask2dit.evaluation.metrics.sequence_consistency import sequence_consistency
from mask2dit.evaluation.metrics.subject_consistency import steadiness
from mask2dit.evaluation.metrics.visual_consistency import visual_consistency
from mask2dit.motion import motion

RANDOM = np.random.default_rng(0)
X, Y, XY = [1.0, 0.0], [0.0, 2.0], [3.0, 3.0]  # at 0, 90 and 45 degrees, of several lengths
HALF = math.sqrt(0.5)


def vectors(*rows: list[float]) -> np.ndarray:
    return np.array(rows, np.float32)


def film_of(levels: list[int], asked: list[int], **known: object) -> FilmFacts:
    """A film of grey scenes of four frames each."""
    frames = [np.full((32, 48, 3), level, np.uint8) for level in levels for _ in range(4)]
    scenes = tuple(SceneLook(start=start, stop=start + length, num_pictures=1, motion=None) for start, length in starts(asked))
    look = Look(digest="", cuts_are="asked", fps=8, height=32, width=48, check=check_frames(frames, asked), scenes=scenes)
    return replace(FilmFacts("film", look), **known)


def starts(lengths: list[int]) -> list[tuple[int, int]]:
    return [(sum(lengths[:index]), length) for index, length in enumerate(lengths)]


def measured(name: str, film: FilmFacts, extractor: str = "") -> Value:
    return METRICS[name].measure(film, extractor)


def test_visual_consistency_is_the_mean_of_all_pairs() -> None:
    assert visual_consistency(vectors(X, Y, XY)) == Value(pytest.approx((0 + HALF + HALF) / 3), 3)
    scenes = RANDOM.normal(size=(5, 16)).astype(np.float32)
    whole = torch.nn.functional.cosine_similarity(torch.from_numpy(scenes)[:, None], torch.from_numpy(scenes)[None], dim=-1)
    assert visual_consistency(scenes).value == pytest.approx((whole.sum() - 5).item() / 20, abs=1e-6)


def test_one_scene_has_no_visual_consistency() -> None:
    found = visual_consistency(vectors(X))
    assert found.value is None and "one scene" in found.reason


def test_semantic_consistency_pairs_each_scene_with_its_own_caption() -> None:
    assert semantic_consistency(vectors(X, Y), vectors(X, XY)) == Value(pytest.approx((1 + HALF) / 2), 2)
    swapped = semantic_consistency(vectors(X, Y), vectors(XY, X))
    assert swapped.value == pytest.approx(HALF / 2)


def test_a_caption_that_says_nothing_is_left_out() -> None:
    assert semantic_consistency(vectors(X, Y), vectors(X, [0.0, 0.0])) == Value(pytest.approx(1), 1)


@pytest.mark.parametrize(("visual", "semantic", "sequence"), [(55.01, 22.64, 38.82), (70.95, 23.94, 47.45), (75.33, 24.29, 49.81)])
def test_sequence_consistency_reproduces_the_published_rows(visual: float, semantic: float, sequence: float) -> None:
    assert sequence_consistency(Value(visual, 3), Value(semantic, 3)).value == pytest.approx(sequence, abs=0.0051)


def test_sequence_consistency_needs_both() -> None:
    assert sequence_consistency(Value(1.0, 3), Value(None, reason="no captions")) == Value(None, reason="no captions")


def test_steadiness_compares_with_the_first_and_the_previous_picture() -> None:
    assert steadiness(vectors(X, XY, Y)) == pytest.approx(((HALF + HALF) / 2 + (0 + HALF) / 2) / 2)
    assert steadiness(vectors(X, X, X)) == pytest.approx(1)
    assert steadiness(vectors(X)) is None
    assert steadiness(vectors(X, [-1.0, 0.0])) == 0  # opposite counts as nothing in common


def test_scenes_that_share_a_character_are_compared() -> None:
    cast = (frozenset({"A"}), frozenset({"B"}), frozenset({"A", "B"}))
    assert inter_scene_consistency(vectors(X, Y, XY), cast) == Value(pytest.approx(HALF), 2)
    alone = inter_scene_consistency(vectors(X, Y), (frozenset({"A"}), frozenset({"B"})))
    assert alone.value is None and "share" in alone.reason


def test_cut_metrics_of_cuts_where_they_were_asked_for() -> None:
    film = film_of([40, 120, 200], [4, 4, 4])
    assert measured("sca", film) == Value(1.0, 2)
    assert measured("transition-deviation", film) == Value(0.0, 2)
    assert measured("transition-confidence", film).value == pytest.approx(1 - 1 / 255)


def test_cut_metrics_of_a_cut_that_is_off_by_one_and_one_that_is_missing() -> None:
    film = film_of([40, 120, 200], [5, 3, 4])
    assert measured("sca", film).value == pytest.approx(math.exp(-1 / 12))
    assert measured("transition-deviation", film) == Value(0.5, 2)
    assert measured("transition-confidence", film).value == pytest.approx((1 - 1 / 255) / 2)
    missing = film_of([40, 40, 200], [4, 4, 4])
    assert measured("sca", missing).value == pytest.approx(math.exp(-4 / 12))  # the price is a scene's mean length
    assert measured("transition-deviation", missing) == Value(0.0, 1)


def test_beside_a_single_frame_nobody_is_sure() -> None:
    film = film_of([40, 120], [7, 1])
    found = measured("transition-confidence", film)
    assert found.value is None and "one frame" in found.reason and measured("sca", film).value < 1


def test_detected_cuts_are_not_compared_with_themselves() -> None:
    film = film_of([40, 120], [4, 4])
    detected = replace(film, look=film.look.model_copy(update={"cuts_are": "detected"}))
    for name in ("sca", "transition-deviation", "transition-confidence"):
        found = measured(name, detected)
        assert found.value is None and "--cuts" in found.reason


def test_drift_is_that_of_the_lightness_of_grey() -> None:
    film = film_of([0, 119, 255], [4, 4, 4])  # L* 0, 50 and 100
    assert measured("colour-drift", film).value == pytest.approx((50.03 + 100) / 2, abs=0.05)
    assert measured("contrast-drift", film) == Value(pytest.approx(0, abs=1e-6), 2)
    assert measured("colour-drift", film_of([40], [4])).value is None


def test_motion_is_the_speed_of_what_moves() -> None:
    rows, columns = np.mgrid[:64, :128]
    pictures = []
    for step in range(5):  # a textured square of 32 pixels that moves two pixels a picture to the right
        picture = np.full((64, 128), 90.0)
        inside = (abs(rows - 32) < 16) & (abs(columns - 40 - 2 * step) < 16)
        picture[inside] = (128 + 90 * np.sin((columns - 2 * step) * 0.7) * np.cos(rows * 0.6))[inside]
        pictures.append(np.repeat(picture[:, :, None], 3, axis=2).astype(np.uint8))
    found = motion(np.stack(pictures), per_second=8)
    assert found == pytest.approx(100 * 2 * 8 / 128, rel=0.25)
    assert motion(np.stack(pictures[:1] * 4), per_second=8) == pytest.approx(0, abs=0.05)
    assert motion(np.stack(pictures[:1]), per_second=8) is None
    twice = motion(np.stack(pictures[::2]), per_second=8)
    assert twice is not None and found is not None and twice > 1.5 * found


def test_diversity_is_one_less_the_mean_cosine_across_films() -> None:
    films = [RANDOM.normal(size=(count, 8)).astype(np.float32) for count in (3, 2, 4)]
    cosines = [
        torch.nn.functional.cosine_similarity(torch.from_numpy(one), torch.from_numpy(other), dim=0).item()
        for a in range(3)
        for b in range(a)
        for one in films[a]
        for other in films[b]
    ]
    assert diversity(films) == pytest.approx(1 - np.mean(cosines), abs=1e-6)
    assert diversity([vectors(X, Y), vectors(X, Y)]) == pytest.approx(0.5)


def test_frechet_distance_by_hand() -> None:
    # In one dimension it is (difference of means)² + (difference of standard deviations)².
    ones, others = np.array([[0.0], [2.0]]), np.array([[5.0], [11.0]])  # means 1 and 8, variances 2 and 18
    assert frechet_distance(ones, others) == pytest.approx(49 + (math.sqrt(18) - math.sqrt(2)) ** 2)
    assert frechet_distance(ones, ones) == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize(("count", "other_count", "size"), [(40, 50, 6), (5, 7, 12)])
def test_frechet_distance_equals_the_root_of_the_product(count: int, other_count: int, size: int) -> None:
    ones, others = RANDOM.normal(size=(count, size)), RANDOM.normal(1.0, 2.0, size=(other_count, size))
    covariances = np.cov(ones, rowvar=False), np.cov(others, rowvar=False)
    root = np.sqrt(np.linalg.eigvals(covariances[0] @ covariances[1]).astype(complex)).sum().real
    expected = np.sum((ones.mean(0) - others.mean(0)) ** 2) + np.trace(covariances[0]) + np.trace(covariances[1]) - 2 * root
    assert frechet_distance(ones, others) == pytest.approx(expected, rel=1e-5)


def test_fvd_needs_a_reference_and_two_scenes_on_both_sides() -> None:
    fvd = METRICS["fvd"]
    assert "--reference" in fvd.missing([vectors(X)], None)
    assert fvd.missing([vectors(X)], vectors(X, Y)) == "1 scene, and a distribution needs at least 2"
    assert fvd.missing([vectors(X), vectors(Y)], vectors(X)) == "1 reference scene, and a distribution needs at least 2"
    assert fvd.missing([vectors(X), vectors(Y)], vectors(X, Y)) == ""
    assert fvd.statistic([vectors(X), vectors(Y)], [0, 1], vectors(X, Y)) == pytest.approx(0, abs=1e-9)
    assert math.isnan(fvd.statistic([vectors(X), vectors(Y)], [1], vectors(X, Y)))


def test_a_film_that_counts_twice_does_not_differ_from_itself() -> None:
    films = [vectors(X), vectors(Y), vectors(XY)]
    assert diversity(films, [0, 0, 1]) == pytest.approx(1) and math.isnan(diversity(films, [2, 2]))
    assert diversity(films, [0, 0, 2, 1]) == pytest.approx(1 - (2 * HALF + HALF + 0) / 5)


def test_every_metric_says_where_it_is_from() -> None:
    for name, metric in METRICS.items():
        assert metric.name == name and metric.about and metric.title
        function = metric.measure if isinstance(metric, FilmMetric) else metric.statistic
        home = __import__(function.__module__, fromlist=["_"])
        assert len(home.__doc__) > 150, name
