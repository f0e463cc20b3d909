"""Video files through PyAV: read at a constant rate by timestamp, write H.264, join without encoding again.

Frames are uint8 [Y, X, 3] in sRGB. Every file is written aside and renamed, so that a name never stands for half a video. What the
frames show, and how large they should be, is decided elsewhere (film, production).
"""

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from fractions import Fraction
from itertools import chain
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.container import InputContainer, OutputContainer
from av.video.frame import VideoFrame
from av.video.reformatter import ColorRange, Colorspace
from av.video.stream import VideoStream
from numpy.typing import NDArray

from mask2dit.errors import InputError, OutputError

Frame = NDArray[np.uint8]

QUALITY = "14"  # x264's rate factor; 18 is called visually lossless, and flat drawings cost little
# Without B-frames decoding and showing order agree, so that files join without a gap in their time stamps.
H264_OPTIONS = {"crf": QUALITY, "preset": "medium", "bf": "0"}
TIMESTAMP_TOLERANCE = 1e-3  # seconds; Matroska rounds to milliseconds
FAST_START = {"movflags": "+faststart"}  # the index before the pictures: a browser plays while it loads
_BT709_PRIMARIES = 1
_BT709_TRANSFER = 1


@contextmanager
def written_aside(path: Path) -> Iterator[Path]:
    """Give a name to write to beside `path`; it takes the place of `path` when the block ends well, and vanishes otherwise.

    Raises OutputError, naming `path`, where the system refuses.
    """
    part = path.with_name(f".{path.stem}.part{path.suffix}")  # the suffix stays: writers choose the format by it
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield part
        os.replace(part, path)
    except OSError as error:
        if isinstance(error, OutputError):
            raise
        raise OutputError(f"{path}: cannot be written ({error.strerror or error}); make room or choose another place") from error
    finally:
        with suppress(OSError):
            part.unlink(missing_ok=True)


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
    """Read a whole video as [T, Y, X, 3]: at each tick of `fps` (None: the file's own mean rate) the picture shown then."""
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: there is no such file, expected a video; check the name")
    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise InputError(f"{path}: holds no video, expected one; name another file")
            frames = list(_ticked(container, container.streams.video[0], fps))
    except (av.error.FFmpegError, OSError) as error:
        raise InputError(f"{path}: cannot be read as a video ({error.strerror}); name another file") from error
    if not frames:
        raise InputError(f"{path}: holds no pictures, expected a video; name another file")
    return np.stack(frames)


def _ticked(container: InputContainer, stream: VideoStream, fps: float | Fraction | None) -> Iterator[Frame]:
    own_rate = stream.guessed_rate or stream.average_rate or Fraction(25)
    rate = Fraction(fps) if fps is not None else own_rate
    if rate <= 0:
        raise InputError(f"fps: got {fps}, expected a positive number of frames per second; use for example 8")
    start: float | None = None
    shown: Frame | None = None
    given, end = 0, 0.0
    for picture in container.decode(stream):
        if picture.time is None:
            continue
        start = picture.time if start is None else start
        time = picture.time - start
        while shown is not None and given / rate < time - TIMESTAMP_TOLERANCE:
            yield shown
            given += 1
        shown = picture.to_ndarray(format="rgb24").astype(np.uint8, copy=False)
        length = picture.duration * picture.time_base if picture.duration and picture.time_base else 1 / own_rate
        end = time + float(length)
    if shown is not None:
        for _ in range(max(1, round(end * rate)) - given):
            yield shown
