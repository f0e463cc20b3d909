"""A piece scanned: shots, their measures and pictures; and the law that pieces, sewn together, are the video scanned as one."""

import json
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mask2dit.curation.curating import _WithLook
from mask2dit.curation.pieces import find_footage, look_into
from mask2dit.curation.rows import ScanRow, ShotRow, VideoRow
from mask2dit.curation.running import Here
from mask2dit.curation.scanning import MOST_PICTURES, Video, _Cutter
from mask2dit.curation.settings import ShotSettings
from mask2dit.curation.shots import Worker, collect, find_all, read_features, read_pictures
from mask2dit.curation.stretches import from_jpeg
from mask2dit.cut_detectors import detector_named
from mask2dit.extractors import load_extractor
from small_footage import moving, of_varying_rate, shots, write


class Silent:
    """Nobody watches; `stages` remembers what was to be done."""

    def __init__(self) -> None:
        self.stages: dict[str, int] = {}

    def start(self, stage: str, total: int) -> None:
        self.stages[stage] = total

    def step(self) -> None: ...

    def done(self) -> None: ...


def load() -> dict:
    return {"colours": load_extractor("colours")}


def worker(folder: Path, settings: ShotSettings) -> Worker:
    return Worker(folder, settings, _WithLook(load), {"look": "look", "colours": "colours"})


def scanned(video: Path, folder: Path, piece_seconds: float, max_seconds: float = 5.0) -> tuple[ScanRow, list[ShotRow], Worker, VideoRow]:
    (row,) = look_into(find_footage([video]), piece_seconds, (), lambda: None)
    does = worker(folder, ShotSettings(max_seconds=max_seconds, piece_seconds=piece_seconds))
    problems = find_all([row], does, Here(), Silent())
    return *collect(row, does, problems.get(row.digest, ())), does, row


def spans(rows: Iterable[ShotRow]) -> list[tuple[int, int, str, str]]:
    return [(row.start, row.stop, row.begins, row.ends) for row in rows]


LENGTHS = (40, 31, 9, 55, 24, 90, 33, 47)


def test_pieces_sewn_together_are_the_whole(tmp_path: Path) -> None:
    video = tmp_path / "a.mp4"
    cuts = shots(video, LENGTHS)
    whole, of_whole, *_ = scanned(video, tmp_path / "one", 1000)
    assert list(whole.cuts) == cuts and [row.start for row in of_whole] == [0, *cuts]
    found, rows, does, facts = scanned(video, tmp_path / "many", 1.5)
    assert len(facts.piece_starts) >= 9
    assert found == replace(whole, num_decoded=found.num_decoded) and spans(rows) == spans(of_whole)
    assert [row.index for row in rows] == list(range(len(rows)))
    for one, other in zip(of_whole, rows, strict=True):
        assert other.lightness == pytest.approx(one.lightness, abs=0.5) and other.contrast == pytest.approx(one.contrast, abs=0.5)
        assert other.motion == pytest.approx(one.motion, rel=0.25, abs=0.3)
    # Every frame once, and of each piece the video's first, and the one that says how long the last is shown.
    assert sum(LENGTHS) <= found.num_decoded <= sum(LENGTHS) + 3 * len(facts.piece_starts)
    assert set(read_features([facts], does, "colours")) == {row.shot for row in rows}
    assert not list((tmp_path / "many").rglob("*.npz")) or all("features" in str(path) for path in (tmp_path / "many").rglob("*.npz"))


def test_a_cut_on_a_border_and_beside_it_is_found(tmp_path: Path) -> None:
    for place in (-1, 0, 1):
        folder = tmp_path / str(place)
        folder.mkdir()
        cuts = shots(folder / "a.mp4", (48 + place, 60, 52), seed=7)  # keyframes are 12 frames apart: a border at 48
        found, rows, _, facts = scanned(folder / "a.mp4", folder / "work", 2.0)
        assert facts.piece_starts[1] == 48 and list(found.cuts) == cuts and [row.start for row in rows] == [0, *cuts]


def test_what_is_there_is_not_done_again(tmp_path: Path) -> None:
    video = tmp_path / "a.mp4"
    shots(video, LENGTHS)
    *_, does, row = scanned(video, tmp_path / "work", 3.0)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "work").rglob("*") if path.is_file()}
    progress = Silent()
    assert find_all([row], does, Here(), progress) == {} and progress.stages == {}
    gone = sorted((tmp_path / "work").rglob("piece-0002.json"))[0]
    gone.unlink()
    find_all([row], does, Here(), progress)
    assert progress.stages == {"pieces": 1}
    after = {path: path.stat().st_mtime_ns for path in (tmp_path / "work").rglob("*") if path.is_file() and not path.match("*piece-0002*")}
    assert after == {path: time for path, time in before.items() if not path.match("*piece-0002*")}


def test_another_extractor_needs_no_decoding(tmp_path: Path) -> None:
    video = tmp_path / "a.mp4"
    shots(video, (40, 40))
    *_, does, row = scanned(video, tmp_path / "work", 1000)
    first = read_features([row], does, "colours")
    video.unlink()
    other = Worker(does.root, does.settings, does.load, {"colours": "colours of another kind"})
    assert find_all([row], other, Here(), Silent()) == {}
    second = read_features([row], other, "colours")
    assert first.keys() == second.keys() and all(np.array_equal(first[name], second[name]) for name in first)


def test_long_shots_are_split_and_say_so(tmp_path: Path) -> None:
    write(tmp_path / "a.mp4", np.concatenate([moving(130, 0), moving(30, 1)]))
    _, rows, *_ = scanned(tmp_path / "a.mp4", tmp_path / "work", 1000, max_seconds=2.0)
    assert spans(rows) == [
        (0, 43, "edge", "split"),
        (43, 86, "split", "split"),
        (86, 130, "split", "cut"),
        (130, 160, "cut", "edge"),
    ]
    # A piece's border splits such a shot, too; no part is longer, nothing is lost.
    _, rows, *_ = scanned(tmp_path / "a.mp4", tmp_path / "others", 2.6, max_seconds=2.0)
    assert [row.start for row in rows[1:]] == [row.stop for row in rows[:-1]] and rows[-1].stop == 160
    assert all(row.stop - row.start <= 48 for row in rows) and 130 in {row.start for row in rows}


def test_a_shot_without_an_end_is_divided_as_it_goes_by(tmp_path: Path) -> None:
    one, other = moving(260, 0), moving(300, 4)
    share = (np.arange(1, 13) / 13)[:, None, None, None]
    mixed = (one[248:] * (1 - share) + other[:12] * share).astype(np.uint8)
    write(tmp_path / "a.mp4", np.concatenate([one[:248], mixed, other[12:]]))  # the dissolve begins just before a split would
    for piece_seconds in (1000, 3.0):
        found, rows, *_ = scanned(tmp_path / "a.mp4", tmp_path / f"{piece_seconds}", piece_seconds, max_seconds=2.5)
        ((first, clean),) = found.dissolves
        assert abs(first - 248) <= 2 and abs(clean - 260) <= 2 and found.cuts == ()
        assert all(20 <= row.stop - row.start <= 60 for row in rows)
        assert sum(row.stop - row.start for row in rows) == 548 - (clean - first)
        assert {row.begins for row in rows} == {"edge", "split", "dissolve"}


def test_damage_is_counted_to_the_shot_that_has_it(tmp_path: Path) -> None:
    video = Video(tmp_path, "a", "aa", 24.0)
    cutter = _Cutter(video, 0, None, detector_named("adaptive"), 2.0)
    frames = moving(300, 0)
    for number, frame in enumerate(frames):
        cutter.add(frame, num_damaged=(number >= 10) + (number >= 118))
    shots_found = cutter.finished(300, "").shots
    damaged = {(shot.row.start, shot.row.stop): shot.row.num_damaged for shot in shots_found}
    assert sum(damaged.values()) == 2 and len(damaged) >= 5
    assert all(count == sum(start <= number < stop for number in (10, 118)) for (start, stop), count in damaged.items())


def test_dissolves_that_the_detector_tells_part_shots(tmp_path: Path) -> None:
    class Telling(type(detector_named("adaptive"))):
        def start(self, kept: object = ()) -> object:
            finder = super().start()
            finder.transitions = [(40, 52)]
            return finder

    cutter = _Cutter(Video(tmp_path, "a", "aa", 24.0), 0, None, Telling(), 20.0)
    for frame in moving(100, 0):
        cutter.add(frame, 0)
    found = cutter.finished(100, "")
    assert found.dissolves == ((40, 52),) and [(shot.row.start, shot.row.stop) for shot in found.shots] == [(0, 40), (52, 100)]


def test_a_dissolve_is_no_cut_and_its_mixed_frames_belong_to_no_shot(tmp_path: Path) -> None:
    one, other = moving(60, 3), moving(60, 9)
    share = (np.arange(1, 13) / 13)[:, None, None, None]
    mixed = (one[48:] * (1 - share) + other[:12] * share).astype(np.uint8)
    write(tmp_path / "a.mp4", np.concatenate([one[:48], mixed, other[12:]]))
    found, rows, *_ = scanned(tmp_path / "a.mp4", tmp_path / "work", 1000)
    assert found.cuts == () and len(found.dissolves) == 1
    ((first, clean),) = found.dissolves
    assert abs(first - 48) <= 2 and abs(clean - 60) <= 2
    assert spans(rows) == [(0, first, "edge", "dissolve"), (clean, 108, "dissolve", "edge")]


def test_the_black_between_a_fade_and_the_next_is_no_shot(tmp_path: Path) -> None:
    one, other = moving(60, 3), moving(60, 9)
    share = (np.arange(12, 0, -1) / 13)[:, None, None, None]
    black = np.zeros((15, *one.shape[1:]), np.uint8)
    faded = [one[:48], (one[48:] * share).astype(np.uint8), black, (other[:12] * share[::-1]).astype(np.uint8), other[12:]]
    write(tmp_path / "a.mp4", np.concatenate(faded))
    found, rows, *_ = scanned(tmp_path / "a.mp4", tmp_path / "work", 1000, max_seconds=20)
    assert found.cuts == () and len(found.dissolves) == 2
    assert [(row.begins, row.ends, row.index) for row in rows] == [("edge", "dissolve", 0), ("dissolve", "edge", 1)]
    assert abs(rows[0].stop - 48) <= 2 and abs(rows[1].start - 87) <= 2


def test_pictures_are_few_small_and_without_bars(tmp_path: Path) -> None:
    frames = np.zeros((60, 480, 640, 3), np.uint8)
    frames[:, 60:420] = moving(60, 5, (360, 640))
    write(tmp_path / "a.mp4", frames)
    _, (row,), does, _ = scanned(tmp_path / "a.mp4", tmp_path / "work", 1000)
    assert row.bars == pytest.approx((0.125, 0.125, 0, 0), abs=0.01)
    pictures = [from_jpeg(content) for content in read_pictures(does.root, row)]
    assert len(pictures) == row.num_pictures == MOST_PICTURES
    assert {picture.shape for picture in pictures} == {pictures[0].shape}
    height, width, _ = pictures[0].shape
    assert height == pytest.approx(336 * 0.75, abs=4) and width == 448 and pictures[0].min(axis=(1, 2)).max() > 0
    assert pictures[0][0].mean() > 20 and pictures[0][-1].mean() > 20


def test_a_video_that_breaks_off_gives_what_was_readable(tmp_path: Path) -> None:
    write(tmp_path / "b.mkv", np.concatenate([moving(60, 0), moving(60, 1), moving(60, 2)]))
    content = (tmp_path / "b.mkv").read_bytes()
    (tmp_path / "half.mkv").write_bytes(content[: int(len(content) * 0.5)])
    found, rows, *_ = scanned(tmp_path / "half.mkv", tmp_path / "work", 1000)
    assert rows and rows[0].stop == 60 and found.num_frames < 130
    assert found.problem.startswith(("ends after ", "breaks off at ")) and "; " in found.problem


@pytest.mark.parametrize("length", [1, 2, 3])
def test_the_shortest_videos(length: int, tmp_path: Path) -> None:
    write(tmp_path / "a.mp4", moving(length, 0))
    found, rows, *_ = scanned(tmp_path / "a.mp4", tmp_path / "work", 600)
    assert found.num_frames == length and spans(rows) == [(0, length, "edge", "edge")] and found.problem == ""
    assert rows[0].motion is None or rows[0].motion >= 0


def test_rows_of_units_are_plain_and_name_the_shot(tmp_path: Path) -> None:
    shots(tmp_path / "a.mp4", (40, 40))
    _, rows, _, row = scanned(tmp_path / "a.mp4", tmp_path / "work", 1000)
    written = json.loads(next((tmp_path / "work").rglob("piece-0000.json")).read_text())
    assert [ShotRow.from_data(each).shot for each in written["shots"]] == [each.shot for each in rows]
    assert rows[1].shot == f"{row.digest}-0000040-0000080"
    assert detector_named("adaptive").name.startswith("PySceneDetect AdaptiveDetector")


def test_frames_of_a_varying_rate_are_counted_by_time(tmp_path: Path) -> None:
    frames = np.concatenate([moving(48, 0), moving(24, 1), moving(60, 2)])
    times = [*(round(1000 * number / 24) for number in range(48)), *(2000 + 83 * number for number in range(24))]
    times += [4000 + round(1000 * number / 30) for number in range(60)]
    of_varying_rate(tmp_path / "a.mkv", frames, times)
    found, rows, *_ = scanned(tmp_path / "a.mkv", tmp_path / "work", 1000)
    assert found.problem == "" and [round(row.start / row.fps, 1) for row in rows] == [0.0, 2.0, 4.0]
    assert rows[-1].stop / rows[-1].fps == pytest.approx(6.0, abs=0.1)
