"""Video files: what is written comes back, at the right times, and a broken write leaves nothing."""

import os
from fractions import Fraction
from io import BytesIO
from pathlib import Path

import av
import numpy as np
import pytest

from mask2dit.errors import InputError, OutputError
from mask2dit.video_files import VideoFacts, join_videos, open_video, read_video, resize_and_crop, write_video


def moving_square(count: int, height: int = 64, width: int = 96, colour: tuple[int, int, int] = (200, 60, 40)) -> np.ndarray:
    frames = np.full((count, height, width, 3), (90, 160, 210), np.uint8)
    for index in range(count):
        left = index * (width - 24) // max(1, count - 1) // 2 * 2
        frames[index, 20:44, left : left + 24] = colour
    return frames


def flat(levels: list[int], size: int = 32) -> np.ndarray:
    return np.stack([np.full((size, size, 3), level, np.uint8) for level in levels])


def test_frames_come_back(tmp_path: Path) -> None:
    frames = moving_square(9)
    assert write_video(tmp_path / "a.mp4", iter(frames), 8) == 9
    back = read_video(tmp_path / "a.mp4")
    assert back.shape == frames.shape and back.dtype == np.uint8
    assert np.abs(back.astype(int) - frames).mean() < 3


@pytest.mark.parametrize("colour", [(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 0), (250, 250, 250), (5, 5, 5)])
def test_colours_are_true(colour: tuple[int, int, int], tmp_path: Path) -> None:
    write_video(tmp_path / "a.mp4", [np.full((48, 64, 3), colour, np.uint8)] * 2, 8)
    assert np.abs(read_video(tmp_path / "a.mp4").astype(int) - colour).max() <= 4


def test_browsers_can_play_it(tmp_path: Path) -> None:
    write_video(tmp_path / "a.mp4", moving_square(5), 8)
    with av.open(str(tmp_path / "a.mp4")) as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.name, stream.codec_context.pix_fmt) == ("h264", "yuv420p")
        assert (stream.average_rate, stream.frames) == (8, 5)
    raw = (tmp_path / "a.mp4").read_bytes()
    assert raw.find(b"moov") < raw.find(b"mdat")


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity") or len(os.sched_getaffinity(0)) < 2, reason="needs two cores to choose from")
def test_a_video_is_the_same_on_any_number_of_cores(tmp_path: Path) -> None:
    frames = np.random.default_rng(0).integers(0, 256, (40, 128, 192, 3), dtype=np.uint8)
    write_video(tmp_path / "many.mp4", frames, 8)
    cores = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(cores)})
        write_video(tmp_path / "one.mp4", frames, 8)
    finally:
        os.sched_setaffinity(0, cores)
    assert (tmp_path / "many.mp4").read_bytes() == (tmp_path / "one.mp4").read_bytes()


def test_odd_sizes_grow_to_even_ones(tmp_path: Path) -> None:
    write_video(tmp_path / "a.mp4", moving_square(2, 63, 95), 8)
    assert read_video(tmp_path / "a.mp4").shape == (2, 64, 96, 3)


@pytest.mark.parametrize("fps", [8, 12.5, Fraction(24000, 1001), 30])
def test_the_rate_is_kept(fps: float, tmp_path: Path) -> None:
    write_video(tmp_path / "a.mp4", moving_square(7), fps)
    with av.open(str(tmp_path / "a.mp4")) as container:
        assert container.streams.video[0].average_rate == Fraction(fps).limit_denominator(1001)
    assert len(read_video(tmp_path / "a.mp4")) == 7


def test_reading_at_another_rate_goes_by_time(tmp_path: Path) -> None:
    levels = list(range(20, 180, 20))
    write_video(tmp_path / "a.mp4", flat(levels), 8)
    for fps, expected in ((4, levels[::2]), (16, np.repeat(levels, 2)), (8, levels), (24, np.repeat(levels, 3))):
        means = read_video(tmp_path / "a.mp4", fps).mean(axis=(1, 2, 3))
        assert len(means) == len(expected) and np.abs(means - expected).max() < 3


def test_uneven_times_are_read_at_an_even_rate(tmp_path: Path) -> None:
    """Pictures at 0, 1, 2, 6 and 7 tenths of a second: the third one is shown for four ticks."""
    path = tmp_path / "uneven.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=10, options={"bf": "0", "crf": "5"})
        stream.width = stream.height = 32
        stream.pix_fmt = "yuv420p"
        for time, picture in zip((0, 1, 2, 6, 7), flat([30, 60, 90, 120, 150]), strict=True):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = time, Fraction(1, 10)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    means = read_video(path, 10).mean(axis=(1, 2, 3))
    assert np.abs(means - [30, 60, 90, 90, 90, 90, 120, 150]).max() < 4


def test_joined_videos_hold_the_same_pictures(tmp_path: Path) -> None:
    paths = []
    for index, count in enumerate((9, 1, 13)):
        paths.append(tmp_path / f"{index}.mp4")
        write_video(paths[-1], moving_square(count, colour=(40 * index, 200, 90)), 8)
    join_videos(tmp_path / "film.mp4", paths)
    joined = read_video(tmp_path / "film.mp4")
    assert np.array_equal(joined, np.concatenate([read_video(path) for path in paths]))
    with av.open(str(tmp_path / "film.mp4")) as container:
        times = [frame.time for frame in container.decode(video=0)]
        assert container.streams.video[0].average_rate == 8
    assert times == [index / 8 for index in range(23)]


def test_what_is_no_video(tmp_path: Path) -> None:
    (tmp_path / "noise.mp4").write_bytes(np.random.default_rng(0).bytes(2000))
    for name, words in (("absent.mp4", "no such file"), ("noise.mp4", "cannot be read as a video"), (".", "no such file")):
        with pytest.raises(InputError, match=words):
            read_video(tmp_path / name)


def test_frames_that_cannot_be_written(tmp_path: Path) -> None:
    good = moving_square(1)[0]
    for frames, fps, words in (
        ([], 8, "no frames"),
        ([good.astype(np.float32)], 8, "float32"),
        ([good[..., 0]], 8, "expected uint8"),
        ([good, good[:32]], 8, "expected uint8"),
        ([good], 0, "fps"),
    ):
        with pytest.raises(InputError, match=words):
            write_video(tmp_path / "a.mp4", frames, fps)
    with pytest.raises(InputError):
        join_videos(tmp_path / "a.mp4", [])
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_leaves_the_old_video(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.mp4"
    write_video(path, moving_square(2), 8)
    before = path.read_bytes()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", full)
    with pytest.raises(OutputError, match=r"a\.mp4: cannot be written \(No space left on device\)"):
        write_video(path, moving_square(3), 8)
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]


def test_an_interrupted_write_leaves_nothing(tmp_path: Path) -> None:
    def frames():
        yield moving_square(1)[0]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_video(tmp_path / "a.mp4", frames(), 8)
    assert list(tmp_path.iterdir()) == []


def grey_video(path: Path, times: list[int], ticks_per_second: int, codec: str = "libx264", **options: str) -> list[int]:
    """Write pictures shown from these times on, each of one grey that tells which it is; returns the greys."""
    levels = [20 + 4 * index for index in range(len(times))]
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=ticks_per_second, options={"crf": "5", **options})
        stream.width = stream.height = 32
        stream.pix_fmt = "yuv420p"
        for time, picture in zip(times, flat(levels), strict=True):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = time, Fraction(1, ticks_per_second)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return levels


EVEN = list(range(48))
UNEVEN = [0, 1, 2, 6, 7, 9, 10, 11, 12, 20, 21, 22, 23, 30, 31, 33, 34, 35, 36, 44, 45, 46, 47]
B_FRAMES = {"bf": "3", "g": "12", "b-adapt": "0"}


@pytest.mark.parametrize("times", [EVEN, UNEVEN], ids=["even", "uneven"])
@pytest.mark.parametrize(
    ("ending", "options"), [("mp4", {"bf": "0", "g": "7"}), ("mp4", B_FRAMES), ("mkv", B_FRAMES), ("mov", B_FRAMES), ("ts", B_FRAMES)]
)
def test_a_part_shows_the_picture_of_each_tick(times: list[int], ending: str, options: dict[str, str], tmp_path: Path) -> None:
    path = tmp_path / f"a.{ending}"
    levels = grey_video(path, times, 10, **options)
    for start in (0.0, 0.1, 0.7, 1.15, 1.2, 2.9, 3.0, 4.4):
        for fps in (10, 7.5, 24):
            ticks = [start + index / fps for index in range(5) if start + index / fps < 4.7]
            expected = [levels[max(i for i, time in enumerate(times) if time / 10 <= tick + 1e-3)] for tick in ticks]
            with open_video(path) as video:
                got = [frame.mean() for frame, _ in zip(video.frames(fps, start), ticks, strict=False)]
            assert np.abs(np.subtract(got, expected)).max() < 2, (start, fps)


def test_parts_of_one_open_video_do_not_disturb_each_other(tmp_path: Path) -> None:
    levels = grey_video(tmp_path / "a.mkv", EVEN, 10, **B_FRAMES)
    with open_video(tmp_path / "a.mkv") as video:
        for start in (0, 30, 4, 0, 47):
            assert abs(next(video.frames(10, start / 10)).mean() - levels[start]) < 2
            assert video.facts.duration_seconds == pytest.approx(4.8)


def test_a_video_in_memory_reads_like_a_file(tmp_path: Path) -> None:
    write_video(tmp_path / "a.mp4", moving_square(9), 8)
    with open_video(BytesIO((tmp_path / "a.mp4").read_bytes()), "bytes") as video:
        assert np.array_equal(np.stack(list(video.frames(8))), read_video(tmp_path / "a.mp4"))


def test_what_a_video_says_of_itself(tmp_path: Path) -> None:
    write_video(tmp_path / "a.mp4", moving_square(12), 8)
    with open_video(tmp_path / "a.mp4") as video:
        assert video.facts == VideoFacts(height=64, width=96, fps=8.0, duration_seconds=1.5)


def test_sound_that_outlasts_the_pictures_does_not_count(tmp_path: Path) -> None:
    with av.open(str(tmp_path / "a.mkv"), "w") as container:
        pictures, sound = container.add_stream("libx264", rate=10), container.add_stream("aac", rate=48000)
        pictures.width = pictures.height = 32
        pictures.pix_fmt = "yuv420p"
        for index, picture in enumerate(flat([50] * 12)):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = index, Fraction(1, 10)
            container.mux(pictures.encode(frame))
        container.mux(pictures.encode(None))
        for index in range(150):
            silence = av.AudioFrame.from_ndarray(np.zeros((2, 1024), np.float32), format="fltp", layout="stereo")
            silence.sample_rate, silence.pts = 48000, 1024 * index
            container.mux(sound.encode(silence))
        container.mux(sound.encode(None))
    with open_video(tmp_path / "a.mkv") as video:
        assert video.facts.duration_seconds == pytest.approx(1.2, abs=0.01)
        assert len(list(video.frames(10))) == 12


def test_only_what_is_needed_is_decoded(tmp_path: Path) -> None:
    grey_video(tmp_path / "a.mp4", EVEN, 10, bf="0", g="12")
    whole = (tmp_path / "a.mp4").read_bytes()
    with av.open(str(tmp_path / "a.mp4")) as container:
        places = [(packet.pos, packet.size) for packet in container.demux(video=0) if packet.size]
    broken = bytearray(whole)
    for position, size in (*places[14:24], *places[40:]):  # neither the run from 2.4 s on nor the start needs these
        broken[position : position + size] = bytes(size)
    with open_video(BytesIO(whole)) as intact, open_video(BytesIO(bytes(broken))) as video:
        for part, expected, _ in zip(video.frames(10, 2.5), intact.frames(10, 2.5), range(8), strict=False):
            assert np.array_equal(part, expected)


@pytest.mark.parametrize("shape", [(64, 96), (48, 96), (64, 40), (100, 30), (31, 33)])
def test_frames_are_covered_and_cropped_in_the_middle(shape: tuple[int, int]) -> None:
    """A ramp stays the same ramp about the middle, at the one scale that covers."""
    height, width = 32, 48
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    down, across = rows + 0.5 - shape[0] / 2, columns + 0.5 - shape[1] / 2
    ramp = np.stack([128 + down, 128 + across, np.full(shape, 77.0)], axis=-1).round().astype(np.uint8)
    fitted = resize_and_crop([ramp, ramp], height, width)
    assert fitted.shape == (2, height, width, 3) and fitted.dtype == np.uint8 and np.array_equal(fitted[0], fitted[1])
    scale = max(height / shape[0], width / shape[1])
    middle = fitted[0, 4:-4, 4:-4].astype(float)
    assert np.abs(middle[..., 0] - (128 + (np.arange(height) + 0.5 - height / 2) / scale)[4:-4, None]).max() <= 1.5
    assert np.abs(middle[..., 1] - (128 + (np.arange(width) + 0.5 - width / 2) / scale)[None, 4:-4]).max() <= 1.5
    assert (fitted[..., 2] == 77).all()


def test_frames_of_the_right_size_are_left_alone() -> None:
    frames = np.random.default_rng(0).integers(0, 256, (2, 32, 48, 3)).astype(np.uint8)
    assert np.array_equal(resize_and_crop(frames, 32, 48), frames)
