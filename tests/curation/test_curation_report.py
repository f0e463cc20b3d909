"""The report of a set: whatever its rows say stands in the page, safely, and the page stays small."""

import base64
import io
import re
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from curated_rows import CAST, CHECKS, EVIL, pictures_in, shot_row, video_row, write_set
from mask2dit.curation.contact_sheets import contact_sheet, group_sheet
from mask2dit.curation.curated_set import CuratedSet, clock
from mask2dit.curation.histograms import Kind, Threshold, histogram
from mask2dit.curation.report import report
from mask2dit.curation.report_groups import evenly
from mask2dit.curation.rows import (
    CaptionRow,
    CheckRow,
    ClipRow,
    GroupRow,
    PairRow,
    ReviewRow,
    ShotRow,
    StepSummary,
    VideoRow,
    read_rows,
    write_rows,
    write_summary,
)
from mask2dit.errors import InputError
from page_tree import Tree


def no_pictures(shot: str) -> list[Path]:
    return []


def check_page(text: str) -> Tree:
    """What holds for every report: it is well formed, runs nothing, loads nothing, and its links lead somewhere."""
    tree = Tree(text)
    for tag, attributes in tree.elements:
        assert not {name for name in attributes if name.startswith("on")} and not set(attributes) & {"srcset", "action"}, (tag, attributes)
        assert tag not in ("script", "link", "iframe", "object", "embed", "base", "form", "video")
        assert attributes.get("src", "data:image/jpeg;base64,").startswith("data:image/jpeg;base64,")
        assert attributes.get("href", "#").startswith("#")
    assert not re.search(r"url\(|@import", text)
    policy = next(attributes["content"] for tag, attributes in tree.elements if attributes.get("http-equiv") == "Content-Security-Policy")
    assert policy == "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    ids = [attributes["id"] for _, attributes in tree.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert {attributes["href"][1:] for tag, attributes in tree.elements if tag == "a"} <= set(ids)
    assert "$" not in re.sub(r"\$title|\$\{film\}", "", tree.text)
    for place in re.findall(r'\b(?:x|x1|x2|width)="([^"%]*)%"', text):
        assert 0 <= float(place) <= 100
    return tree


def step(text: str, name: str) -> str:
    """The words of one step's article."""
    (article,) = re.findall(rf'<article class="step" id="step-{name}">.*?</article>', text, re.DOTALL)
    return Tree(article).text


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    folder = tmp_path_factory.mktemp("set")
    write_set(folder)
    return folder, report(folder, no_pictures, "Three films")


def test_every_count_reason_and_bad_file_is_told_as_the_rows_have_it(whole: tuple[Path, str]) -> None:
    folder, text = whole
    curated, tree = CuratedSet.read(folder), check_page(text)
    kept = sum(check.kept for check in curated.checks.values())
    clips = [clip for group in curated.clips_of.values() for clip in group]
    captioned = sum(not row.problem for row in curated.captions.values())
    head = f"5 videos 4 min of footage 60 shots {kept} kept {len(curated.groups)} groups {captioned} with captions {len(clips)} clips: "
    train = sum(clip.split == "train" for clip in clips)
    assert f"Three films {head}{train} to train, {len(clips) - train} to validate 3 bad files" in tree.text
    assert "5 videos → 3 usable" in step(text, "pieces") and "cannot be read 2" in step(text, "pieces")
    assert "3 videos → 60 shots" in step(text, "shots") and "not read to the end 1" in step(text, "shots")
    assert f"60 shots → {kept} kept" in step(text, "checks")
    assert f"{kept} shots → {len(curated.groups_of)} in {len(curated.groups)} groups" in step(text, "groups")
    assert f"in no group {kept - len(curated.groups_of)}" in step(text, "groups")
    assert f"{len(curated.groups)} groups → {captioned} with captions" in step(text, "captions")
    assert f"the answer is not JSON {len(curated.groups) - captioned}" in step(text, "captions")
    assert f"→ {len(clips)} clips: {train} train, {len(clips) - train} validation" in step(text, "export")
    for name, rows in (("checks", curated.checks.values()), ("reviews", curated.reviews.values())):
        counts = Counter(kind for row in rows for kind, _ in row.reasons)
        assert counts
        for kind, count in counts.items():
            assert re.search(rf"{kind} [a-z ]*{count}\b", step(text, name)), (kind, count)
    for verdict, count in Counter(pair.verdict for pair in curated.pairs.values()).items():
        assert f"{count} {verdict}" in step(text, "groups")
    for video in curated.videos:
        assert " ".join(video.name.split()) in tree.text and " ".join(curated.problem(video).split()) in tree.text
    for row in curated.checks.values():
        assert all(what in tree.text for _, what in row.reasons)
    assert "mask2dit curate --explain VIDEO" in tree.text


def test_captions_of_groups_that_are_no_more_do_not_count(whole: tuple[Path, str], tmp_path: Path) -> None:
    write_set(tmp_path)
    for kind in (CaptionRow, ReviewRow, ClipRow):
        rows = read_rows(tmp_path, kind)
        write_rows(tmp_path, kind, [*rows, *(replace(row, group=f"old {row.group}") for row in rows)])
    assert report(tmp_path, no_pictures, "Three films") == whole[1]


def test_settings_counts_and_notes_of_the_steps_are_told(whole: tuple[Path, str]) -> None:
    _, text = whole
    assert "one video ends early" in step(text, "shots") and "pyscenedetect-0.7" in step(text, "shots")
    assert "requests 61 dollars 0.42" in step(text, "captions")
    assert all(f"{name} {value:.6g}" in step(text, "checks") for name, value in CHECKS.items())


def test_thresholds_are_drawn_where_the_settings_have_them(whole: tuple[Path, str]) -> None:
    folder, text = whole
    tree = check_page(text)
    for words in ("related from 0.55", "same picture above 0.9", "at least 1", "at most 20", "at least 8", "at most 2", "at least 60"):
        assert f">{words}</text>" in text
    assert "Measured with clip:vit-b-32. A group has 4 shots." in tree.text
    curated = CuratedSet.read(folder)
    count = sum(pair.verdict == "related" for pair in curated.pairs.values())
    assert f"related {count} " in tree.text
    (folder / "4-groups.json").rename(folder / "aside")
    (folder / "3-checks.json").rename(folder / "aside-too")
    without = report(folder, no_pictures)
    check_page(without)
    assert "related from" not in without and "at least" not in re.sub(r"<section id=\"dropped.*", "", without, flags=re.DOTALL)
    (folder / "aside").rename(folder / "4-groups.json")
    (folder / "aside-too").rename(folder / "3-checks.json")


def test_groups_are_told_with_cast_captions_relevance_and_fate(whole: tuple[Path, str]) -> None:
    folder, text = whole
    curated, articles = CuratedSet.read(folder), re.findall(r'<article class="group".*?</article>', text, re.DOTALL)
    assert len(articles) == len(curated.groups) and len({curated.group_fate(group.group).word for group in curated.groups}) > 2
    for group, article in zip(curated.groups, articles, strict=True):
        words, fate = Tree(article).text, curated.group_fate(group.group)
        assert f"{fate.word} {group.group}" in words
        assert all(f"{kind} {what}" in words for kind, what in fate.reasons)
        assert all(f"{value:.3f}" in words for value in group.relevance)
        for index, shot in enumerate(group.shots):
            row = curated.shots[shot]
            assert f"{index + 1} {clock(row.start / row.fps)}–{clock(row.stop / row.fps)}" in words
        captions = curated.captions[group.group]
        assert captions.problem or f"Actor1 {CAST[0][1]} Actor2 {CAST[1][1]} Setting a snowy village at dusk" in words
        assert article.count('<span class="tag g0">Actor1</span>') == (0 if captions.problem else 1 + 2 * len(group.shots))


def test_a_tag_that_no_character_has_stands_out_and_longer_tags_are_whole(tmp_path: Path) -> None:
    write_rows(tmp_path, GroupRow, [GroupRow("g", "a.mp4", "", ("s",), ())])
    prompt = "Actor1, Actor12 and Actor3; no Actors, no XActor1."
    write_rows(tmp_path, CaptionRow, [CaptionRow("g", "", (("Actor1", "a fox"), ("Actor12", "a bear")), "", (prompt,), ())])
    text = report(tmp_path, no_pictures)
    check_page(text)
    spans = '<span class="tag g0">Actor1</span>, <span class="tag g1">Actor12</span> and <span class="tag unknown">Actor3</span>'
    assert f"{spans}; no Actors, no XActor1." in text


def test_whatever_is_written_stays_text(tmp_path: Path) -> None:
    shots = [shot_row(EVIL, index, 100 * index, 100 * index + 90) for index in range(3)]
    names = tuple(shot.shot for shot in shots)
    write_rows(tmp_path, VideoRow, [video_row(EVIL), video_row(f"b{EVIL}\x07", problem=EVIL)])
    write_rows(tmp_path, ShotRow, shots)
    write_rows(tmp_path, CheckRow, [CheckRow(names[0], True), CheckRow(names[1], True), CheckRow(names[2], False, ((EVIL, EVIL),))])
    write_rows(tmp_path, PairRow, [PairRow(names[0], names[1], 0.7, EVIL), PairRow(names[1], names[2], None, "dropped")])
    write_rows(tmp_path, GroupRow, [GroupRow(EVIL, EVIL, "", names[:2], (0.7,))])
    write_rows(tmp_path, CaptionRow, [CaptionRow(EVIL, EVIL, ((EVIL, EVIL),), EVIL, (EVIL, EVIL), (EVIL, EVIL))])
    write_rows(tmp_path, ReviewRow, [ReviewRow(EVIL, False, 9, ((EVIL, EVIL),))])
    write_summary(tmp_path, StepSummary("checks", {EVIL: 1}, {EVIL: 1}, {EVIL: EVIL, "min_seconds": None}, [EVIL]))
    tree = check_page(report(tmp_path, no_pictures, EVIL))
    assert "".join(tree.words).count(EVIL) > 15


@pytest.mark.parametrize("steps", range(8))
def test_steps_that_have_not_run_are_told(tmp_path: Path, steps: int) -> None:
    write_set(tmp_path, steps=steps)
    text = report(tmp_path, no_pictures)
    assert check_page(text).text.count("This step has not run yet.") == 7 - steps
    assert ("Relevance" in text) == (steps > 3) and ("not checked" in text) == (steps == 2)


def test_rows_that_no_step_has_written_are_one_line(tmp_path: Path) -> None:
    (tmp_path / ShotRow.FILE).write_text("{}\n")
    with pytest.raises(InputError, match=r"2-shots.jsonl: line 1"):
        report(tmp_path, no_pictures)


def test_pictures_are_inside_and_missing_ones_are_blank(tmp_path: Path) -> None:
    write_set(tmp_path)
    curated = CuratedSet.read(tmp_path)
    paths = pictures_in(tmp_path / "pictures")
    (tmp_path / "no.jpg").write_text("no picture")
    first, second, third, *_ = curated.groups[0].shots + curated.groups[1].shots
    some = {first: paths, second: [tmp_path / "no.jpg", tmp_path], third: [path.read_bytes() for path in paths[:2]]}
    text = report(tmp_path, lambda shot: some.get(shot, []))
    check_page(text)
    images = [Image.open(io.BytesIO(base64.b64decode(data))) for data in re.findall(r"base64,([^\"]*)", text)]
    assert [image.size for image in images] == [(213 * 3 + 4, 120), (213 * 2 + 2, 120)]
    assert str(tmp_path) not in text
    assert text == report(tmp_path, lambda shot: some.get(shot, []))


def test_a_contact_sheet_has_the_first_and_the_last_picture_and_blanks_between(tmp_path: Path) -> None:
    for number, colour in enumerate(("red", "lime", "blue", "white", "black")):
        Image.new("RGB", (64, 48), colour).save(tmp_path / f"{number}.jpg")
    (tmp_path / "2.jpg").write_text("no picture")
    sheet = contact_sheet(sorted(tmp_path.glob("*.jpg")), height=24)
    assert sheet and sheet.size == (3 * 32 + 4, 24)
    left, middle, right = (sheet.getpixel((x, 12)) for x in (16, 50, 84))
    assert left[0] > 240 and right == (0, 0, 0) and middle == (0x8D, 0x88, 0x7C)
    assert contact_sheet([tmp_path / "2.jpg", tmp_path / "none.jpg"]) is None and contact_sheet([]) is None


def test_a_group_is_one_picture_whatever_it_lacks(tmp_path: Path) -> None:
    write_set(tmp_path)
    curated, paths = CuratedSet.read(tmp_path), pictures_in(tmp_path / "pictures")
    for group in curated.groups[:6]:
        sizes = [group_sheet(curated, group, pictures).size for pictures in (lambda shot: paths, no_pictures)]
        assert sizes[0][0] > 1000 and sizes[0][1] > 200 * len(group.shots)


@pytest.mark.slow
def test_two_thousand_shots_make_a_page_of_a_few_megabytes_in_a_few_seconds(tmp_path: Path) -> None:
    write_set(tmp_path, num_videos=10, num_shots=200, names="footage/day {}.mp4")
    curated, paths = CuratedSet.read(tmp_path), pictures_in(tmp_path / "pictures")
    assert len(curated.shots) == 2000 and len(curated.groups) > 350
    started = time.perf_counter()
    text = report(tmp_path, lambda shot: paths)
    assert time.perf_counter() - started < 20  # two seconds on an idle core
    assert len(text) < 6 * 2**20  # noise is the worst of pictures
    assert 30 < text.count('<article class="group"') <= 40
    assert f"of {len(curated.groups)} groups, evenly chosen" in text and 'class="badge out"' in text and 'class="badge in"' in text


def test_things_are_chosen_evenly_from_the_first_to_the_last() -> None:
    assert evenly(range(3), 5) == [0, 1, 2] and evenly(range(101), 5) == [0, 25, 50, 75, 100]
    assert evenly(range(9), 1) == [0] and evenly(range(9), 0) == []


@pytest.mark.parametrize("values", [[0.0] * 9, [1e-9, 5.0], [1.0] * 99 + [1e6], [float("nan"), 2.0, 3.0], [0.3, 0.55], [-4.0, 4.0, 1e308]])
def test_a_histogram_counts_every_number_once(values: list[float]) -> None:
    kinds = [Kind("a", "some", "g0"), Kind("b", "others", "g1")]
    text = histogram([(value, "ab"[index % 2]) for index, value in enumerate(values)], kinds, [Threshold(0.5, "at least")], "%")
    numbers = [value for value in values if abs(value) < 1e300]
    assert sum(map(int, re.findall(r"(\d+) (?:some|others)", text))) == len(numbers)
    assert all(0 <= float(place) <= 100 for place in re.findall(r'\b(?:x|x1|x2|width)="([^"%]*)%"', text))
    assert all(0 <= float(place) <= 130.5 for place in re.findall(r'\by="([^"]*)" height', text))
    assert "at least 0.5" in text
    if max(numbers) == 1e6:
        assert "The last bar has 1 more" in text
