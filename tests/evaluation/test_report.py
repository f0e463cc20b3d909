"""The report: whatever films are called and whatever is missing, one file says it all, by itself and safely."""

import base64
import hashlib
import math
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Sequence
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mask2dit.evaluation.measuring import Comparison, FilmResult, GroupResult, MetricAbout, Number, Results
from mask2dit.evaluation.metrics import METRICS, FilmMetric
from mask2dit.evaluation.report import report
from mask2dit.evaluation.statistics import mean_interval
from page_tree import Tree

EVIL = "<script>alert('x')</script> \"quoted\" & </title></p>--> ' onload='x' $title ${film} 🦊 漢字 <img src=http://example.com/a.png>"
WITHOUT = "needs an extractor; add --extractor with one of clip, dinov2"


def abouts() -> tuple[MetricAbout, ...]:
    return tuple(
        MetricAbout(
            name=metric.name,
            title=metric.title,
            unit=metric.unit,
            better=metric.better,
            about=metric.about,
            parts=metric.parts,
            scale=metric.scale,
            instrument=f"instrument of {metric.name}",
        )
        for metric in METRICS.values()
    )


def film_of(name: str, value: float = 0.5, **other: object) -> FilmResult:
    values = {
        metric: Number(value=None, reason=WITHOUT)
        if metric == "background-consistency"
        else Number(value=value + place / 100, num_films=1, count=3)
        for place, metric in enumerate(metric for metric in METRICS if isinstance(METRICS[metric], FilmMetric))
    }
    usual = {
        "captions": ("a fox walks", "a fox sleeps"),
        "scenes": ((0, 9), (9, 20)),
        "fps": 8.0,
        "cuts_are": "asked",
        "found_cuts": (9,),
        "values": values,
    }
    return FilmResult(**{"name": name, "video": f"films/{name}.mp4", **usual, **other})


def group_of(name: str, films: Sequence[FilmResult]) -> GroupResult:
    values = {}
    for metric in METRICS:
        found = [film.values[metric].value for film in films if film.values.get(metric) and film.values[metric].value is not None]
        interval = mean_interval(found) if np.isfinite(found).all() else (math.nan, math.inf)
        values[metric] = (
            Number(value=float(np.mean(found)), interval=interval, num_films=len(found), count=3 * len(found))
            if found
            else Number(value=None, reason=WITHOUT if isinstance(METRICS[metric], FilmMetric) else "one film: there is no other")
        )
    return GroupResult(name=name, values=values, films=tuple(films))


def results_of(*groups: GroupResult, **other: object) -> Results:
    difference = Number(value=0.021, interval=(0.011, 0.031), num_films=2)
    differences = {name: difference for name, metric in METRICS.items() if isinstance(metric, FilmMetric)}
    differences["sca"] = Number(value=-0.01, interval=(-0.03, 0.01), num_films=2)
    differences["background-consistency"] = Number(value=None, reason="no film of one name was measured in both")
    comparisons = tuple(Comparison(one=one.name, other=two.name, differences=differences) for one, two in combinations(groups, 2))
    usual = {"date": "2026-11-23T06:20:23+00:00", "machine": {"machine": "two cores"}, "metrics": abouts(), "comparisons": comparisons}
    return Results(**{**usual, "groups": groups, **other})


def two_groups() -> Results:
    films = [film_of(f"film-{number}", 0.5 + number / 50) for number in range(3)]
    return results_of(
        group_of("symmetric", films), group_of("isolated", [*films[:2], film_of("broken", problem="ends too early", values={}, scenes=())])
    )


def check_page(text: str) -> Tree:
    """What holds for every report: it is well formed, loads nothing, and draws only what is finite."""
    tree = Tree(text)
    for tag, attributes in tree.elements:
        assert not set(attributes) & {"onload", "onerror", "onclick", "srcset", "data", "action", "formaction"}, (tag, attributes)
        assert tag not in ("link", "iframe", "object", "embed", "base", "form", "video")
        assert attributes.get("src", "data:image/jpeg;base64,").startswith("data:image/jpeg;base64,")
        assert attributes.get("href", "#").startswith("#")
    assert not re.search(r"url\(|@import", text)
    policy = next(attributes["content"] for tag, attributes in tree.elements if attributes.get("http-equiv") == "Content-Security-Policy")
    (script,) = re.findall(r"<script>(.*?)</script>", text, re.DOTALL)
    assert f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'" in policy
    assert policy.startswith("default-src 'none'; img-src data:;") and "http" not in policy
    for drawing in re.findall(r"<svg.*?</svg>", text, re.DOTALL):
        for element in ElementTree.fromstring(drawing).iter():
            for name in {"x", "y", "x1", "x2", "y1", "y2", "cx", "cy", "r", "height"} & set(element.attrib):
                assert math.isfinite(float(element.attrib[name].removesuffix("%")))
    ids = [attributes["id"] for _, attributes in tree.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    targets = {attributes["href"][1:] for tag, attributes in tree.elements if tag == "a"}
    assert targets <= set(ids)
    assert "$" not in re.sub(r"\$title|\$\{film\}", "", tree.text)
    return tree


def test_every_metric_group_and_film_is_told_with_its_instrument() -> None:
    results = two_groups()
    tree = check_page(report(results, "Plans compared"))
    for words in ("Plans compared", "2 groups", "6 films", "10 scenes", "2026-11-23 06:20 UTC", "two cores", "How to read this"):
        assert words in tree.text
    for about in results.metrics:
        assert about.title in tree.text and about.about in tree.text
        if any(group.values[about.name].value is not None for group in results.groups):
            assert f"Measured with {about.instrument}." in tree.text
    for group in results.groups:
        assert group.name in tree.text and all(film.name in tree.text for film in group.films)


def test_values_are_scaled_and_stand_with_interval_and_number_of_films() -> None:
    results = two_groups()
    number = results.groups[0].values["visual-consistency"]
    assert number.value and number.interval
    text = check_page(report(results)).text
    assert f"{100 * number.value:.2f} [{100 * number.interval[0]:.2f}, {100 * number.interval[1]:.2f}] n = 3" in text
    assert "Transition deviation, frames" in text


def test_what_is_missing_has_its_reason_and_is_never_zero() -> None:
    films = [film_of("one", values={"sca": Number(value=None, reason="cuts are not known"), "colour-drift": Number(value=math.nan)})]
    tree = check_page(report(results_of(group_of("group", films), metrics=abouts())))
    assert WITHOUT in tree.text and "one film: there is no other" in tree.text
    cells = re.findall(r"<td[^>]*>(.*?)</td>", report(results_of(group_of("group", films))))
    assert cells and not any(re.search(r"\b0\b|nan", cell) for cell in cells)
    partly = group_of("group", [film_of("one"), film_of("two")])
    left_out = partly.values["sca"].model_copy(update={"reason": "not of 1: cuts are not known"})
    partly = partly.model_copy(update={"values": {**partly.values, "sca": left_out}})
    assert "not of 1: cuts are not known" in check_page(report(results_of(partly))).text


def test_problems_are_told_at_the_top_and_with_the_film() -> None:
    text = report(two_groups())
    assert check_page(text).text.count("ends too early") == 3  # the list, the film, the table
    assert '<a class="bad" href="#problems">1 film could not be measured</a>' in text


def test_differences_are_marked_where_the_interval_leaves_out_zero() -> None:
    text = report(two_groups())
    assert "+2.10 [+1.10, +3.10] · n = 2" in check_page(text).text
    rows = re.findall(r'<span class="value (sure|unsure)"><b>([^<]*)</b>', text)
    assert ("unsure", "−0.010") in rows and ("sure", "+2.10") in rows
    by_metric = dict(
        re.findall(r'<span class="name" title="([^"]*)">.*?<span class="verdict">(.*?)</span>(?=<span class="name"|</div>)', text)
    )
    assert "symmetric" in by_metric["Visual consistency, %"] and "better" in by_metric["Visual consistency, %"]
    assert "isolated" in by_metric["Transition deviation, frames"]
    assert "higher" in by_metric["Colour drift, ΔE"] and by_metric["Shot cut accuracy (SCA)"] == ""
    assert "no film of one name was measured in both" in check_page(text).text


@pytest.mark.parametrize(
    ("metric", "numbers", "best"),
    [
        ("visual-consistency", [(0.5, 0.4, 0.6), (0.8, 0.7, 0.9)], "0.8"),
        ("transition-deviation", [(0.5, 0.4, 0.6), (0.8, 0.7, 0.9)], "0.5"),
        ("dynamic-degree", [(0.5, 0.4, 0.6), (0.8, 0.7, 0.9)], None),
        ("visual-consistency", [(0.5, 0.4, 0.75), (0.8, 0.7, 0.9)], None),
        ("visual-consistency", [(0.5, 0.4, 0.6), (0.8, None, None)], None),
        ("visual-consistency", [(0.5, 0.4, 0.75), (0.6, 0.5, 0.65), (0.8, 0.7, 0.9)], None),
        ("visual-consistency", [(None, None, None), (0.8, 0.7, 0.9)], None),
    ],
)
def test_the_best_group_is_marked_where_its_interval_meets_no_other(
    metric: str, numbers: list[tuple[float, float, float]], best: str | None
) -> None:
    groups = [
        GroupResult(name=f"group {index}", films=(), values={metric: Number(value=value, interval=low and (low, high), num_films=9)})
        for index, (value, low, high) in enumerate(numbers)
    ]
    about = next(about for about in abouts() if about.name == metric).model_copy(update={"scale": 1.0})
    found = re.findall(r'<b class="best">([\d.]+)<', report(results_of(*groups, metrics=(about,), comparisons=())))
    assert found == ([f"{best}00"] if best else [])


def test_whatever_is_written_stays_text() -> None:
    films = [film_of(EVIL, captions=(EVIL, EVIL * 9), notes=(EVIL,), strips=(EVIL, "\x00")), film_of("b", problem=EVIL, captions=(EVIL,))]
    metrics = tuple(about.model_copy(update={"title": EVIL, "about": EVIL, "unit": EVIL, "instrument": EVIL}) for about in abouts())
    groups = [group_of(EVIL, films), group_of("half \ud800 and \x07", films)]
    results = results_of(*groups, metrics=metrics, machine={EVIL: EVIL}, date=EVIL, reference=EVIL)
    tree = check_page(report(results, EVIL))
    assert [tag for tag, _ in tree.elements].count("script") == 1
    assert EVIL in "".join(tree.words)


def test_pictures_are_inside_and_a_missing_one_is_blank(tmp_path: Path) -> None:
    strip = tmp_path / "strip.jpg"
    Image.new("RGB", (48, 16), "red").save(strip)
    (tmp_path / "other.jpg").write_text("no picture")
    films = [
        film_of("a", strips=(str(strip), "nowhere.jpg")),
        film_of("b", strips=(str(tmp_path / "other.jpg"), str(tmp_path))),
        film_of("c"),
    ]
    text = report(results_of(group_of("group", films)))
    assert check_page(text).text.count("9 frames, 1.12 s") == 3
    assert text.count(base64.b64encode(strip.read_bytes()).decode()) == 1 and text.count("<img ") == 1 and text.count('class="blank"') == 5
    assert str(tmp_path) not in text


def test_captions_are_told_once_where_all_groups_have_the_same() -> None:
    text = check_page(report(two_groups())).text
    assert text.count("a fox sleeps") == 4  # of three films that were measured, and one that was not
    other = results_of(group_of("one", [film_of("film")]), group_of("two", [film_of("film", captions=("a bear", "a bear"))]))
    assert check_page(report(other)).text.count("a fox walks") == 1 and "a bear" in report(other)
    amiss = results_of(group_of("one", [film_of("film", captions=("only one",), notes=("the storyboard has 1 scenes, the film has 2",))]))
    assert "only one" in check_page(report(amiss)).text and "the storyboard has 1 scenes" in report(amiss)
    long = check_page(report(results_of(group_of("one", [film_of("film", captions=("a fox " * 400, " " * 900))])))).text
    assert long.count("fox") == 400


def test_cuts_are_told() -> None:
    films = [
        film_of("a"),
        film_of("b", found_cuts=(10,)),
        film_of("c", found_cuts=()),
        film_of("d", cuts_are="detected"),
        film_of("e", scenes=((0, 9),), found_cuts=(), captions=None),
    ]
    text = check_page(report(results_of(group_of("group", films)))).text
    assert text.count("every cut found where it was asked for") == 1
    assert "asked for at frames 9; found at 10" in text and "found at none" in text and text.count("scenes as they were detected") == 1


def test_hundreds_of_films_have_all_values_and_sixty_have_pictures() -> None:
    films = [film_of(f"film-{number}", 0.5 + number / 900, captions=None) for number in range(200)]
    text = report(results_of(group_of("group", films)))
    tree = check_page(text)
    assert text.count('<article class="film"') == 60 and "140 more films without pictures" in tree.text
    (table,) = re.findall(r'<table class="films".*?</table>', text, re.DOTALL)
    assert table.count("<tr>") == 201 and all(f"film-{number}<" in table for number in range(200))
    assert len(text) < 3 * 2**20


@pytest.mark.parametrize(
    "results",
    [
        lambda: results_of(),
        lambda: results_of(group_of("empty", [])),
        lambda: results_of(group_of("one", [film_of("film")])),
        lambda: results_of(*(group_of(name, [film_of("film", problem="broken", values={}, scenes=())]) for name in ("a", "b"))),
        lambda: results_of(*(group_of(f"a group with quite a long name {n}", [film_of("a"), film_of("b")]) for n in range(12))),
        lambda: results_of(group_of("group", [film_of("film", 1e12), film_of("other", -1e-12), film_of("film", 3.0, fps=0.0)])),
        lambda: results_of(group_of("group", [film_of("film", math.inf), film_of("other", math.nan)])),
        lambda: results_of(group_of("group", [film_of("film")]), metrics=(), comparisons=()),
    ],
    ids=["nothing", "no films", "one film", "all broken", "twelve groups", "huge and tiny", "no numbers", "no metrics"],
)
def test_reports_of_all_sizes(results: Callable[[], Results]) -> None:
    check_page(report(results()))
