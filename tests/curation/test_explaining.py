"""Why a shot was kept or dropped, told in lines."""

import itertools
import re
from pathlib import Path

import pytest

from curated_rows import EVIL, video_row, write_set
from mask2dit.curation.curated_set import CuratedSet, clock
from mask2dit.curation.explaining import explain
from mask2dit.curation.rows import VideoRow, write_rows
from mask2dit.errors import InputError


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("set")
    write_set(folder, num_shots=40, names="part {}/film {}.mp4".replace("/film {}", "/film"))
    return folder


def test_every_shot_pair_and_group_of_a_video_is_told_in_order(folder: Path) -> None:
    curated = CuratedSet.read(folder)
    lines = explain(folder, "part 1/film.mp4", width=140)
    shots = curated.shots_of("part 1/film.mp4")
    kept = sum(curated.checks[shot.shot].kept for shot in shots)
    groups = [group for group in curated.groups if group.name == "part 1/film.mp4"]
    assert lines[0] == "part 1/film.mp4 (/footage/part 1/film.mp4)"
    assert lines[1].startswith("1920×1080, 25 frames per second, 2:39.8, 2 pieces")
    assert lines[2] == f"40 shots: {kept} kept, {40 - kept} dropped; {len(groups)} groups"
    told = [line for line in lines if re.match(r" +\d+  \d+:", line)]
    assert len(told) == 40 and any("dropped" in line for line in told)
    for shot, line in zip(shots, told, strict=True):
        check = curated.checks[shot.shot]
        assert line.startswith(f"{shot.index + 1:5}  {clock(shot.start / 25)}–{clock(shot.stop / 25)}")
        assert f"{shot.begins} … {shot.ends}" in line
        assert ("kept" if check.kept else f"dropped: {check.reasons[0][0]} ({check.reasons[0][1]})") in line
        for group in curated.groups_of.get(shot.shot, ()):
            place = f"{group.shots.index(shot.shot) + 1} of {len(group.shots)} in {group.group}: {curated.group_fate(group.group).word}"
            assert place in line
    pairs = [curated.pairs[one.shot, two.shot] for one, two in itertools.pairwise(shots)]
    verdicts = [line.split("| ")[1] for line in lines if line.startswith("       | ")]
    limits = {"unrelated": " (lower threshold 0.55)", "same picture": " (upper threshold 0.9)"}
    assert verdicts == [
        pair.verdict + ("" if pair.relevance is None else f" {pair.relevance:.4g}{limits.get(pair.verdict, '')}") for pair in pairs
    ]
    text = "\n".join(lines)
    for group in groups:
        fate, clips = curated.group_fate(group.group), curated.clips_of.get(group.group, ())
        assert f"{group.group}: shots " in text and all(clip.clip in text for clip in clips)
        assert all(f"{fate.word}: {kind} ({what})" in text for kind, what in fate.reasons)
        assert all(prompt in text for prompt in curated.captions[group.group].prompts)
    assert max(map(len, lines)) <= 140


def test_lines_are_as_wide_as_asked(folder: Path) -> None:
    for width in (80, 100, 120):
        assert max(map(len, explain(folder, "part 0/film.mp4", width=width))) <= width


@pytest.mark.parametrize("video", ["part 1/film.mp4", "/footage/part 1/film.mp4", "/footage/x/../part 1/film.mp4"])
def test_a_video_is_found_by_name_and_path(folder: Path, video: str) -> None:
    assert explain(folder, video)[0].startswith("part 1/film.mp4 ")


def test_a_video_is_found_by_a_file_name_of_its_own_only(folder: Path, tmp_path: Path) -> None:
    write_rows(tmp_path, VideoRow, [video_row("a/one.mp4"), video_row("b/one.mp4"), video_row("b/two.mp4")])
    assert explain(tmp_path, "two.mp4")[0].startswith("b/two.mp4 ")
    with pytest.raises(InputError, match=r"^'one.mp4': 2 videos of .* name one of 'a/one.mp4', 'b/one.mp4'$"):
        explain(tmp_path, "one.mp4")
    with pytest.raises(InputError, match=r"^'tow.mp4': is no video of .*; close to it: 'b/two.mp4'"):
        explain(tmp_path, "tow.mp4")
    with pytest.raises(InputError, match=r"expected one of its 3, such as 'a/one.mp4'"):
        explain(tmp_path, "\x00")
    with pytest.raises(InputError, match="has no videos yet"):
        explain(tmp_path / "nowhere", "one.mp4")


def test_bad_files_and_steps_that_have_not_run_are_told(folder: Path, tmp_path: Path) -> None:
    assert explain(folder, "broken.mp4")[1] == "cannot be used: is no video (moov atom not found)"
    assert 'ends early, after "frame 9"' in "\n".join(explain(folder, "part 0/film.mp4"))
    for steps, words in (
        (1, "have not been looked for"),
        (2, "20 not checked"),
        (3, "dropped: "),
        (4, "no captions yet"),
        (5, "not reviewed"),
    ):
        write_set(tmp_path, steps=steps)
        assert words in "\n".join(explain(tmp_path, "film 1.mp4"))


def test_nothing_acts_on_a_terminal(tmp_path: Path) -> None:
    name = "\x1b[2Jwiped\r\n\u202e.mp4"
    write_rows(tmp_path, VideoRow, [video_row(name, problem=f"\x1b]0;title\x07{EVIL}")])
    lines = explain(tmp_path, name)
    assert not re.search(r"[\x00-\x1f\x7f-\x9f\u202e]", "".join(lines)) and EVIL[:20] in " ".join(lines)
    with pytest.raises(InputError) as caught:
        explain(tmp_path, "other")
    assert not re.search(r"[\x00-\x1f\u202e]", str(caught.value))
