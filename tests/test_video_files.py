"""Video files: what is written comes back, at the right times, and a broken write leaves nothing."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from mask2dit.errors import InputError, OutputError
from mask2dit.video_files import join_videos, read_video, write_video


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
