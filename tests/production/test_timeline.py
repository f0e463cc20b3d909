"""Timeline: every program reads the same frames out of the cut list, the timeline and the subtitles as the film has."""

import json
import re
from dataclasses import replace
from fractions import Fraction
from itertools import pairwise

import opentimelineio
import pytest

from mask2dit.errors import InputError
from mask2dit.production.timeline import Clip, Timeline, edl, otio, srt

LONG = "A red fox walks to the right in the meadow by day, and then it looks back at the owl that sits on the old tree. " * 3
STORY = Timeline(
    "The fox's day",
    8,
    768,
    512,
    (
        Clip(1, "A red fox walks to the right in the meadow by day.", 49, "scenes/scene-01.mp4"),
        Clip(2, "A red fox jumps.", 17, "scenes/scene-02.mp4"),
        Clip(4, LONG, 33, "scenes/scene-04.mp4"),
    ),
)
FRAMES = [(0, 49), (49, 66), (66, 99)]
ODD_TEXTS = [
    "🦊 漢字",
    "“Ünïcödé” — naïve…",
    "漢字かな交じり文" * 30,
    "x" * 500,
    "* FROM CLIP NAME: no",
    "1 --> 2",
    "M2 a\n\n3\nb\t\0c",
    "<b>&amp;",
]

# What timecode counts at each rate, and how much of it one frame of the film is.
COUNTED = {8: (24, 3), 12: (24, 2), 16: (48, 3), 10: (30, 3), 12.5: (25, 2), 23.976: (24000 / 1001, 1), 24: (24, 1), 25: (25, 1)}
COUNTED |= {29.97: (30000 / 1001, 1), 30: (30, 1), 59.94: (60000 / 1001, 1), 60: (60, 1)}
UNKNOWN = {7: 7, 23.98: 24, 18: 18}

EVENT = re.compile(r"(\d{3})  (\w{1,8}) +V     C        " + " ".join([r"(\d\d):(\d\d):(\d\d):(\d\d)"] * 4))


def events(text: str, whole: int) -> list[tuple[int, ...]]:
    """Source in and out, record in and out of every line of a cut list, in frames of timecode."""
    found = []
    for match in filter(None, map(EVENT.fullmatch, text.splitlines())):
        numbers = [int(number) for number in match.groups()[2:]]
        found.append(tuple((hour * 60 + minute) * 60 * whole + second * whole + rest for hour, minute, second, rest in quarters(numbers)))
    return found


def quarters(numbers: list[int]) -> list[list[int]]:
    return [numbers[place : place + 4] for place in range(0, len(numbers), 4)]


@pytest.mark.parametrize(("fps", "counted"), COUNTED.items())
def test_a_cut_list_has_the_films_frames(fps: float, counted: tuple[float, int]) -> None:
    rate, per_frame = counted
    text = edl(replace(STORY, fps=fps))
    expected = [tuple(frame * per_frame for frame in (0, end - start, start, end)) for start, end in FRAMES]
    assert events(text, round(rate)) == expected
    assert f"TIMES AT {rate:.3f}".rstrip("0").rstrip(".") in text


@pytest.mark.parametrize(("fps", "whole"), UNKNOWN.items())
def test_a_cut_list_says_that_timecode_lacks_a_rate(fps: float, whole: int) -> None:
    text = edl(replace(STORY, fps=fps))
    assert events(text, whole) == [(0, end - start, start, end) for start, end in FRAMES]
    assert "FEW READERS KNOW THIS RATE" in " ".join(text.replace("* COMMENT:", "").split())


@pytest.mark.parametrize(("fps", "counted"), COUNTED.items())
def test_the_published_reader_reads_the_cut_list(fps: float, counted: tuple[float, int]) -> None:
    pytest.importorskip("otio_cmx3600_adapter")
    rate, per_frame = counted
    read = opentimelineio.adapters.read_from_string(edl(replace(STORY, fps=fps)), "cmx_3600", rate=rate)
    (track,) = read.tracks
    assert read.name == STORY.title and [clip.name for clip in track] == ["scene-01.mp4", "scene-02.mp4", "scene-04.mp4"]
    assert [clip.media_reference.target_url for clip in track] == [clip.video for clip in STORY.clips]
    for clip, (start, end) in zip(track, FRAMES, strict=True):
        placed = track.range_of_child(clip)
        assert (placed.start_time.to_frames(), placed.end_time_exclusive().to_frames()) == (start * per_frame, end * per_frame)
        assert clip.source_range.start_time.to_frames() == 0


@pytest.mark.parametrize("text", ODD_TEXTS)
def test_a_cut_list_is_plain_and_narrow_whatever_is_written(text: str) -> None:
    written = edl(Timeline(text, 24, 96, 64, tuple(Clip(number, text, 9, f"scenes/scene-{number:02d}.mp4") for number in (1, 100, 1000))))
    assert written.isascii() and all(len(line) <= 80 and (line == "" or line.isprintable()) for line in written.split("\n"))
    lines = written.split("\n")
    assert lines[0].startswith("TITLE: ") and len(lines[0]) > len("TITLE: ") and lines[1] == "FCM: NON-DROP FRAME"
    assert [line for line in lines if line and not line.startswith("* ")][2:] == [line for line in lines if EVENT.fullmatch(line)]
    assert len(events(written, 24)) == 3 and written.count("* FROM CLIP NAME: scene-") == 3


@pytest.mark.parametrize("fps", [8, 12, 23.976, 24, 25, 29.97, 30, 7])
def test_the_otio_timeline_has_the_films_frames(fps: float) -> None:
    story = replace(STORY, fps=fps)
    read = opentimelineio.adapters.read_from_string(otio(story), "otio_json")
    (track,) = read.tracks
    assert read.name == story.title and read.duration().to_frames() == 99 and track.kind == "Video"
    for clip, shown, (start, end) in zip(story.clips, track, FRAMES, strict=True):
        placed = track.range_of_child(shown)
        assert (placed.start_time.to_frames(), placed.end_time_exclusive().to_frames()) == (start, end)
        assert placed.start_time.rate == pytest.approx(fps, rel=2e-5)
        assert shown.source_range == shown.available_range() and shown.source_range.start_time.value == 0
        assert shown.media_reference.target_url == clip.video
        facts = shown.metadata["mask2dit"]
        assert (facts["scene"], facts["caption"], facts["film_start_frame"], facts["film_end_frame"]) == (
            clip.number,
            clip.caption,
            start,
            end,
        )
        assert facts["film_end_seconds"] == pytest.approx(end / fps)
        assert shown.markers[0].comment == clip.caption


@pytest.mark.parametrize("text", ODD_TEXTS)
def test_the_otio_timeline_keeps_any_text_and_names_no_place_on_this_machine(text: str) -> None:
    written = otio(Timeline(text, 8, 96, 64, (Clip(1, text, 9, "scenes/scene 01 ü.mp4"),)))
    read = opentimelineio.adapters.read_from_string(written, "otio_json")
    assert read.name == read.tracks[0][0].metadata["mask2dit"]["caption"] == text.replace("\0", " ")
    urls = re.findall(r'"target_url": "([^"]*)"', written)
    assert urls == ["scenes/scene%2001%20%C3%BC.mp4"]
    assert json.loads(written)["OTIO_SCHEMA"].startswith("Timeline.")


def subtitles(text: str) -> list[tuple[Fraction, Fraction, list[str]]]:
    """Start, end in seconds, and lines of each subtitle, read in the strictest way."""
    found = []
    for number, block in enumerate(text.removesuffix("\n").split("\n\n") if text else [], start=1):
        first, span, *lines = block.split("\n")
        match = re.fullmatch(r"(\d\d):([0-5]\d):([0-5]\d),(\d{3}) --> (\d\d):([0-5]\d):([0-5]\d),(\d{3})", span)
        assert first == str(number) and match and lines and all(line.strip() and "-->" not in line for line in lines)
        times = [
            Fraction((hour * 60 + minute) * 60 + second) + Fraction(rest, 1000)
            for hour, minute, second, rest in quarters(list(map(int, match.groups())))
        ]
        found.append((*times, lines))
    return found


@pytest.mark.parametrize("fps", [8, 12, 23.976, 24, 25, 29.97, 30])
def test_subtitles_lie_on_their_scenes(fps: float) -> None:
    found = subtitles(srt(replace(STORY, fps=fps)))
    assert all(before[1] == after[0] for before, after in pairwise(found))
    starts = {float(start) for start, _, _ in found}
    for start, end in FRAMES:
        assert any(abs(time - start / fps) <= 0.0005 for time in starts)
        assert float(found[-1][1]) == pytest.approx(99 / fps, abs=0.0005) or end != 99
    assert all(
        end > start and float(time * Fraction(fps)) == pytest.approx(round(time * Fraction(fps)), abs=0.02)
        for start, end, _ in found
        for time in (start, end)
    )
    assert " ".join(line for _, _, lines in found for line in lines).split() == " ".join(clip.caption for clip in STORY.clips).split()
    assert all(len(line) <= 42 for _, _, lines in found for line in lines)


def test_a_long_caption_goes_on_two_lines_at_a_time_where_there_is_time() -> None:
    (clip,) = STORY.clips[2:]
    at_length = subtitles(srt(replace(STORY, clips=(replace(clip, num_frames=161),))))
    assert len(at_length) > 3 and all(len(lines) <= 2 for _, _, lines in at_length)
    assert len(subtitles(srt(replace(STORY, clips=(replace(clip, num_frames=9),))))) == 1
    assert len(subtitles(srt(replace(STORY, clips=(replace(clip, num_frames=1),))))) == 1


def test_lines_of_a_subtitle_are_about_as_long_as_each_other() -> None:
    ((_, _, lines),) = subtitles(srt(replace(STORY, clips=STORY.clips[:1])))
    assert len(lines) == 2 and abs(len(lines[0]) - len(lines[1])) < 8


@pytest.mark.parametrize("text", ODD_TEXTS)
def test_any_caption_is_a_subtitle_that_can_be_read_back(text: str) -> None:
    found = subtitles(srt(Timeline("", 8, 96, 64, (Clip(1, text, 81, "a.mp4"), Clip(2, text, 9, "b.mp4")))))
    assert found and found[-1][1] == Fraction(90, 8)


def test_a_scene_without_words_has_no_subtitle() -> None:
    assert srt(Timeline("", 8, 96, 64, (Clip(1, " ", 9, "a.mp4"),))) == ""
    assert len(subtitles(srt(Timeline("", 8, 96, 64, (Clip(1, "", 9, "a.mp4"), Clip(2, "a fox", 9, "b.mp4")))))) == 1


def test_an_hour_long_film_has_exact_times() -> None:
    film = Timeline("", 29.97, 96, 64, tuple(Clip(number, "a fox", 53_946, "a.mp4") for number in range(1, 5)))
    assert [start for start, _, _ in subtitles(srt(film))] == [0, 1800, 3600, 5400]
    assert events(edl(film), 30)[-1][2:] == (3 * 53_946, 4 * 53_946)


@pytest.mark.parametrize("video", ["/films/a.mp4", "../a.mp4", "C:/a.mp4", "scenes\\a.mp4", "file:///a.mp4"])
def test_a_clip_is_named_inside_the_films_folder(video: str) -> None:
    with pytest.raises(InputError, match="name in the film's folder"):
        Clip(1, "a fox", 9, video)


def test_an_impossible_timeline_is_refused() -> None:
    with pytest.raises(InputError, match="frames"):
        Clip(1, "a fox", 0, "a.mp4")
    for fps in (0, -8, float("nan"), float("inf")):
        with pytest.raises(InputError, match="fps"):
            replace(STORY, fps=fps)
    with pytest.raises(InputError, match="no scenes"):
        replace(STORY, clips=())
