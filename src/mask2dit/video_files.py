"""Video files through PyAV: read whole or in part at a constant rate by timestamp, write H.264, join without encoding again.

Frames are uint8 [Y, X, 3] in sRGB. Every file is written aside and renamed, so that a name never stands for half a video. What the
frames show, and how large they should be, is decided elsewhere (film, production, training).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO

import av
import numpy as np
from av.container import InputContainer, OutputContainer
from av.video.frame import VideoFrame
from av.video.reformatter import ColorRange, Colorspace, Interpolation
from av.video.stream import VideoStream
from numpy.typing import NDArray
from PIL import Image

from mask2dit.errors import InputError, OutputError
from mask2dit.files import written_aside

Frame = NDArray[np.uint8]

QUALITY = "14"  # x264's rate factor; 18 is called visually lossless, and flat drawings cost little
# Without B-frames decoding and showing order agree, so that files join without a gap in their time stamps. With as many threads as cores,
# the encoder would make other bytes on other machines.
H264_OPTIONS = {"crf": QUALITY, "preset": "medium", "bf": "0", "threads": "4"}
TIMESTAMP_TOLERANCE = 1e-3  # seconds; Matroska rounds to milliseconds
WORTH_IT = 0.75  # of its size; making a picture a little smaller takes longer than all that is done with the smaller one saves
FAST_START = {"movflags": "+faststart"}  # the index before the pictures: a browser plays while it loads
_BT709_PRIMARIES = 1
_BT709_TRANSFER = 1


def write_video(path: str | Path, frames: Iterable[Frame], fps: float | Fraction) -> int:
    """Write frames as H.264 as they come, and return their number. Odd sizes grow by one repeated row or column."""
    rate = Fraction(fps).limit_denominator(1001)
    if rate <= 0:
        raise InputError(f"fps: got {fps}, expected a positive number of frames per second; use for example 8")
    frames = iter(frames)
    first = next(frames, None)
    if first is None:
        raise InputError(f"{path}: got no frames, expected at least one; a video cannot be empty")
    shape = _checked(first, first.shape).shape
    path, count = Path(path), 0
    with written_aside(path) as part, av.open(str(part), "w", options=FAST_START) as container:
        stream = _h264_stream(container, rate, _even(first))
        for frame in chain([first], frames):
            container.mux(stream.encode(_picture(_checked(frame, shape))))
            count += 1
        container.mux(stream.encode(None))
    return count


def _checked(frame: Frame, shape: tuple[int, ...]) -> Frame:
    if frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3 or 0 in frame.shape or frame.shape != shape:
        got, expected = f"{frame.dtype} {list(frame.shape)}", f"uint8 {list(shape)}" if len(shape) == 3 else "uint8 [Y, X, 3]"
        raise InputError(f"frame: got {got}, expected {expected}; convert it first")
    return frame


def _even(frame: Frame) -> Frame:
    height, width, _ = frame.shape
    return np.pad(frame, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge") if height % 2 or width % 2 else frame


def _h264_stream(container: OutputContainer, rate: Fraction, frame: Frame) -> VideoStream:
    stream = container.add_stream("libx264", rate=rate, options=H264_OPTIONS)
    stream.height, stream.width, stream.pix_fmt = frame.shape[0], frame.shape[1], "yuv420p"
    context: Any = stream.codec_context
    context.colorspace, context.color_range = Colorspace.ITU709, ColorRange.MPEG
    context.color_primaries, context.color_trc = _BT709_PRIMARIES, _BT709_TRANSFER
    return stream


def _picture(frame: Frame) -> VideoFrame:
    return VideoFrame.from_ndarray(_even(frame), format="rgb24").reformat(
        format="yuv420p", dst_colorspace=Colorspace.ITU709, src_color_range=ColorRange.JPEG, dst_color_range=ColorRange.MPEG
    )


def join_videos(path: str | Path, parts: Sequence[str | Path]) -> None:
    """Lay videos of `write_video` with one size and rate end to end, packet by packet: no picture changes."""
    if not parts:
        raise InputError(f"{path}: got no videos to join, expected at least one")
    with written_aside(Path(path)) as part, av.open(str(part), "w", options=FAST_START) as container:
        joined: VideoStream | None = None
        offset = Fraction(0)
        for name in parts:
            with av.open(str(name)) as source:
                stream = source.streams.video[0]
                if joined is None:
                    joined = container.add_stream_from_template(stream)
                if stream.duration is None or stream.time_base is None:
                    raise InputError(f"{name}: has no length, expected a video of write_video; write it again")
                for packet in source.demux(stream):
                    if packet.dts is None or packet.pts is None or packet.time_base is None:
                        continue  # the empty packet at the end
                    shift = round(offset / packet.time_base)
                    packet.pts, packet.dts, packet.stream = packet.pts + shift, packet.dts + shift, joined
                    container.mux(packet)
                offset += stream.duration * stream.time_base


def read_video(path: str | Path, fps: float | Fraction | None = None) -> Frame:
    """Read a whole video as [T, Y, X, 3]: at each tick of `fps` (None: the file's own rate) the picture shown then."""
    with open_video(path) as video:
        return np.stack(list(video.frames(fps)))


def read_first_frame(path: str | Path) -> Frame:
    """The first picture of a video, [Y, X, 3]; no more of it is decoded."""
    with open_video(path) as video:
        return next(video.frames())


@contextmanager
def open_video(source: str | Path | BinaryIO, name: str = "") -> Iterator[OpenVideo]:
    """Open a video, on disk or in memory, to read parts of it; `name` is what an error calls it (a path is its own name).

    Whatever damaged bytes do to the decoder inside the block leaves it as an InputError.
    """
    if isinstance(source, str | Path):
        name = name or str(source)
        if not Path(source).is_file():
            raise InputError(f"{name}: there is no such file, expected a video; check the name")
        source = str(source)
    try:
        with av.open(source, "r", metadata_errors="replace") as container:
            if not container.streams.video:
                raise InputError(f"{name}: holds no video, expected one; name another file")
            yield OpenVideo(container, name)
    except OutputError:  # of what is done with the frames
        raise
    except (av.error.FFmpegError, OSError) as error:
        raise InputError(f"{name}: cannot be read as a video ({error.strerror}); name another file") from error


@dataclass(frozen=True, slots=True)
class VideoFacts:
    """A video's size, mean rate and length, found without decoding it."""

    height: int
    width: int
    fps: float
    duration_seconds: float


class OpenVideo:
    """A video open for reading. Times are seconds from its first picture; asking for anything ends an earlier reading of frames."""

    def __init__(self, container: InputContainer, name: str) -> None:
        self.num_damaged = 0
        """How many of the pictures given so far the decoder had to guess in part."""
        self.num_decoded = 0
        """How many pictures were decoded so far, given or not."""
        self._container, self._name = container, name
        self._stream = container.streams.video[0]
        self._own_rate = self._stream.guessed_rate or self._stream.average_rate or Fraction(25)
        self._time_base = self._stream.time_base or Fraction(1, av.time_base)
        pictures = self._decode()
        first = next(pictures, None)
        if first is None or first.time is None:
            raise InputError(f"{name}: holds no pictures, expected a video; name another file")
        self._origin = first.time
        self._turns = round(first.rotation / 90) % 4  # counter-clockwise, as a phone that was held upright wants it
        self._short_side: int | None = None
        self._from_start: Iterator[VideoFrame] | None = chain([first], pictures)

    @cached_property
    def facts(self) -> VideoFacts:
        """Size as it is shown, mean rate and length, found without decoding the whole."""
        stream = self._stream
        seconds = float(stream.duration * self._time_base) if stream.duration else self._measured_duration()
        size = (stream.width, stream.height) if self._turns % 2 else (stream.height, stream.width)
        return VideoFacts(*size, float(stream.average_rate or self._own_rate), seconds)

    @property
    def stated_seconds(self) -> float:
        """How long the file says that it is, sound included: more than there are pictures, where it was cut off."""
        return max(self.facts.duration_seconds, (self._container.duration or 0) / av.time_base)

    @property
    def rate(self) -> Fraction:
        """The rate at which `frames` counts where nothing else is asked: the file's own, as FFmpeg takes it where that varies."""
        return self._own_rate

    def keyframes(self, every_seconds: float) -> list[float]:
        """Seconds of the last keyframe before each multiple of `every_seconds`, each once, the first picture's 0 among them.

        Nothing is decoded. A file that cannot be wound so has fewer.
        """
        found = {0.0}
        for number in range(1, math.ceil(self.facts.duration_seconds / every_seconds)):
            self._seek(number * every_seconds)
            keys = (packet for packet in self._container.demux(self._stream) if packet.is_keyframe and packet.pts is not None)
            key = next(keys, None)
            if key is not None and key.pts is not None:
                seconds = float(key.pts * self._time_base) - self._origin
                if 0 < seconds <= number * every_seconds + TIMESTAMP_TOLERANCE:
                    found.add(seconds)
        return sorted(found)

    def frames(self, fps: float | Fraction | None = None, start_seconds: float = 0.0, *, short_side: int | None = None) -> Iterator[Frame]:
        """From `start_seconds` to the end, at each tick of `fps` (None: the file's own rate) the picture shown then.

        Decodes from the last keyframe before the start, and no further than it is read. short_side: pictures of which it is less than
        `WORTH_IT` are made so small while they are converted.
        """
        self._short_side = short_side
        rate = Fraction(fps) if fps is not None else self._own_rate
        if rate <= 0:
            raise InputError(f"fps: got {fps}, expected a positive number of frames per second; use for example 8")
        pictures, self._from_start = self._from_start, None
        if start_seconds > 0 or pictures is None:
            pictures = self._decode_from(start_seconds)
        return self._ticked(pictures, rate, self._origin + start_seconds)

    def _ticked(self, pictures: Iterable[VideoFrame], rate: Fraction, start: float) -> Iterator[Frame]:
        """At each tick from the time stamp `start` on the picture shown then."""
        shown: VideoFrame | None = None
        pixels: Frame | None = None
        given, end = 0, 0.0
        for picture in pictures:
            if picture.time is None:
                continue
            time = picture.time - start
            while shown is not None and given / rate < time - TIMESTAMP_TOLERANCE:
                pixels = self._pixels(shown) if pixels is None else pixels
                yield pixels
                given += 1
            shown, pixels = picture, None
            length = picture.duration * picture.time_base if picture.duration and picture.time_base else 1 / self._own_rate
            end = time + float(length)
        if shown is not None:
            pixels = self._pixels(shown) if pixels is None else pixels
            for _ in range(max(1, round(end * rate)) - given):
                yield pixels

    def _pixels(self, picture: VideoFrame) -> Frame:
        self.num_damaged += picture.is_corrupt
        scale = (self._short_side or math.inf) / min(picture.width, picture.height)
        if scale < WORTH_IT:
            size = {"width": max(1, round(picture.width * scale)), "height": max(1, round(picture.height * scale))}
            picture = picture.reformat(**size, format="rgb24", interpolation=Interpolation.AREA)
        pixels = picture.to_ndarray(format="rgb24").astype(np.uint8, copy=False)
        return np.ascontiguousarray(np.rot90(pixels, self._turns)) if self._turns else pixels

    def _decode(self) -> Iterator[VideoFrame]:
        for picture in self._container.decode(self._stream):
            self.num_decoded += 1
            if picture.time is not None:
                yield picture

    def _decode_from(self, seconds: float) -> Iterator[VideoFrame]:
        # A seek in a transport stream ends at a keyframe after the asked time, and so may one that goes by decoding order.
        for back in (0.0, 1.0, 4.0, 16.0, 64.0, seconds + 1.0):
            self._seek(seconds - min(back, seconds + 1.0))
            pictures = self._decode()
            first = next(pictures, None)
            if first is not None and first.time is not None and first.time - self._origin <= seconds + TIMESTAMP_TOLERANCE:
                return chain([first], pictures)
        raise InputError(
            f"{self._name}: cannot be read from {seconds:g} s on, expected a video that can be wound back; write it anew as mp4"
        )

    def _seek(self, seconds: float) -> None:
        self._from_start = None
        # A keyframe at this very time, but for rounding, is not before it.
        self._container.seek(math.floor((self._origin + seconds + TIMESTAMP_TOLERANCE) / self._time_base), stream=self._stream)

    def _measured_duration(self) -> float:
        # Matroska gives the length of the longest stream, which may be the sound: look where the last pictures end.
        whole = (self._container.duration or 0) / av.time_base
        self._seek(whole)
        length = round(1 / (self._own_rate * self._time_base))
        ends = [packet.pts + (packet.duration or length) for packet in self._container.demux(self._stream) if packet.pts is not None]
        return float(max(ends) * self._time_base) - self._origin if ends else whole


def resize_and_crop(frames: Iterable[Frame], height: int, width: int) -> Frame:
    """Scale frames until they cover height × width, keeping their proportions, and cut out the middle: [T, height, width, 3]."""
    return np.stack([_covering(frame, height, width) for frame in frames])


def _covering(frame: Frame, height: int, width: int) -> Frame:
    own_height, own_width, _ = frame.shape
    if (own_height, own_width) == (height, width):
        return frame
    scale = max(height / own_height, width / own_width)
    top, left = (own_height - height / scale) / 2, (own_width - width / scale) / 2
    middle = (max(0.0, left), max(0.0, top), min(own_width, left + width / scale), min(own_height, top + height / scale))
    return np.asarray(Image.fromarray(frame).resize((width, height), Image.Resampling.BICUBIC, box=middle))
