"""Small footage to curate: playhouse stories, moving colours with known cuts, and files that nothing can be made of."""

import struct
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from foreign_films import footage as foreign
from mask2dit.playhouse.footage import plan_footage, write_footage

FIRST_STORY = 2_000_000


def stories(path: Path, count: int = 3, first: int = FIRST_STORY) -> Path:
    """A playhouse video with its truth beside it: three shots of about two seconds a story."""
    write_footage(path, plan_footage(range(first, first + count), shot_lengths=(16, 18, 20)))
    return path


def moving(length: int, seed: int, size: tuple[int, int] = (48, 80)) -> np.ndarray:
    """Frames [T, Y, X, 3] of soft blobs that drift: one shot."""
    rng = np.random.default_rng(seed)
    height, width = size
    y, x = np.mgrid[:height, :width]
    base, colours = rng.integers(30, 200, 3), rng.integers(-90, 90, (4, 3))
    places, speeds = rng.uniform(0, 1, (4, 2)) * size, rng.uniform(-0.6, 0.6, (4, 2))
    frames = np.empty((length, height, width, 3), np.uint8)
    for number in range(length):
        picture = np.broadcast_to(base, (height, width, 3)).astype(float)
        for place, speed, colour in zip(places, speeds, colours, strict=True):
            top, left = place + speed * number
            picture = picture + np.exp(-((y - top) ** 2 + (x - left) ** 2) / 120)[..., None] * colour
        frames[number] = picture.clip(0, 255)
    return frames


def write(path: Path, frames: Sequence[np.ndarray] | np.ndarray, fps: int = 24, keyframes: int = 12) -> Path:
    """As H.264 with a keyframe every so many frames, and none for a cut."""
    foreign.encode(path, iter(frames), Fraction(fps), g=str(keyframes), sc_threshold="0", crf="12")
    return path


def shots(path: Path, lengths: Sequence[int], fps: int = 24, keyframes: int = 12, seed: int = 0) -> list[int]:
    """A video of one shot for each length; returns the first frames of all but the first."""
    write(path, [frame for number, length in enumerate(lengths) for frame in moving(length, seed + number)], fps, keyframes)
    return [int(cut) for cut in np.cumsum(lengths)[:-1]]


def rotate(path: Path) -> None:
    """Write into an mp4 that it is to be shown a quarter turn clockwise."""
    content = path.read_bytes()
    place = content.index(b"tkhd") + 4 + 40  # version 0: the matrix lies 40 bytes behind the version
    matrix = struct.pack(">9i", 0, 1 << 16, 0, -(1 << 16), 0, 0, 0, 0, 1 << 30)
    path.write_bytes(content[:place] + matrix + content[place + 36 :])


def sound(path: Path) -> Path:
    """A file with sound alone."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=8000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 8000
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def of_no_use(folder: Path, whole: Path) -> dict[str, str]:
    """Bad files in a folder, and what must be said of each."""
    (folder / "text.mp4").write_text("no video at all\n" * 99)
    (folder / "empty.mp4").write_bytes(b"")
    content = whole.read_bytes()
    (folder / "broken.mp4").write_bytes(content[len(content) // 2 :])
    sound(folder / "sound.m4v")
    return {
        "text.mp4": "cannot be read as a video",
        "empty.mp4": "the file is empty",
        "broken.mp4": "cannot be read as a video",
        "sound.m4v": "holds no video",
    }


def of_varying_rate(path: Path, frames: np.ndarray, times_ms: Sequence[int]) -> Path:
    """A video whose pictures are shown from these times on."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=24, options={"bf": "0"})
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt, stream.time_base, stream.codec_context.time_base = "yuv420p", Fraction(1, 1000), Fraction(1, 1000)
        for pixels, time in zip(frames, times_ms, strict=True):
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts, frame.time_base = time, Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path
