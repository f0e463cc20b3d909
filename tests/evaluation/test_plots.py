"""Plots: whatever the numbers and names are, every mark lies inside and every text fits."""

import itertools
import math
import re
import xml.etree.ElementTree as ElementTree

import pytest

from mask2dit.evaluation.plots import (
    DifferenceRow,
    DotRow,
    Row,
    difference_plot,
    film_plot,
    interval_plot,
    shortened,
    text_width,
    wrapped,
)
from mask2dit.page_parts import LARGEST, axis_of, cut_short, digits_of, shown

NAN, INF = math.nan, math.inf
VALUES = [
    [0.5],
    [0.0, 0.0],
    [0.7, 0.7, 0.7 + 1e-12],
    [1e12, 1.0002e12, 3.1e12],
    [1e-9, -2e-9, 3e-9],
    [-1e299, 1e299],
    [5e-324, 0.0],
    [1e-4, 5e3, 123456.7],
    [999.9995, 1000.0],
    [12.3, NAN, INF, -INF, None],
    [None],
    [],
]
NAMES = ["a", "<b>&\"'", "a plan with quite a long name, number 7", "漢字の計画" * 9, "", "half \ud800 and \x00", "W" * 200, "🦊 é"]


def coordinates(tree: ElementTree.Element) -> list[float]:
    names = {"x", "y", "x1", "x2", "y1", "y2", "cx", "cy", "r", "width", "height"}
    texts = [text for each in tree.iter() for name, text in each.attrib.items() if name in names]
    return [float(text.removesuffix("%")) for text in texts]


@pytest.mark.parametrize("values", VALUES, ids=str)
def test_an_axis_has_three_to_five_distinct_labels_and_shows_all(values: list[float | None]) -> None:
    axis = axis_of(values)
    finite = [value for value in values if value is not None and math.isfinite(value)]
    assert len(axis.ticks) == len(axis.labels) == len(set(axis.labels)) and (3 <= len(axis.ticks) <= 5 or not finite)
    assert all(axis.low <= number <= axis.high for number in (*axis.ticks, *finite))
    assert all(0 <= axis.at(number) <= 1 for number in finite) and all(len(label) <= 9 for label in axis.labels)


def test_ticks_are_where_their_labels_say() -> None:
    axis = axis_of([61.2, 78.9])
    assert axis.labels == ("65", "70", "75") and axis.ticks == (65.0, 70.0, 75.0)
    large = axis_of([1.2e7, 4.4e7])
    assert large.power == "× 10⁶" and large.ticks == pytest.approx([1e6 * float(label) for label in large.labels])
    assert "0" in axis_of([-2.0, 3.0]).labels


def test_numbers_have_three_to_four_figures_and_never_look_like_zero() -> None:
    def text(value: float, sign: bool = False) -> str:
        return shown(value, digits_of([value]), sign)

    assert [text(value) for value in (78.314, 6.3102, 0.9531, 123.42, 41234.6, 0.0)] == [
        "78.31",
        "6.310",
        "0.953",
        "123.4",
        "41235",
        "0.00",
    ]
    assert text(1.234e-9) == "1.23·10⁻⁹" and text(-2.5e12) == "−2.5·10¹²" and text(1.5, sign=True) == "+1.500"
    assert shown(0.0004, 2) == "0.0004" and shown(-0.0004, 1) == "−0.0004" and shown(-0.0, 1, sign=True) == "0.0"
    assert digits_of([None, NAN, INF]) == 2


@pytest.mark.parametrize("values", VALUES, ids=str)
@pytest.mark.parametrize("names", [NAMES, NAMES[:1]], ids=["hard names", "one name"])
def test_every_plot_is_xml_with_finite_coordinates(values: list[float | None], names: list[str]) -> None:
    usual = [(value, None if value is None else value - abs(value) / 9, value and value * 1.2) for value in values]
    drawn = list(zip(itertools.cycle(names), usual, strict=False)) if len(names) < len(usual) else list(zip(names, usual, strict=False))
    rows = [Row(name, group, *numbers) for name, numbers in drawn for group in ("measure", *names[:3])]
    dots = tuple(value for value in values if value is not None)
    films = [DotRow(name, *numbers, dots=dots, dot_names=("a <film>",) * len(dots), colour=10) for name, numbers in drawn]
    differences = [DifferenceRow(name, *numbers, reach=numbers[0] or 0.0) for name, numbers in drawn]
    for text in (
        interval_plot(rows, "A title <that> is long " * 12, "%"),
        interval_plot(rows, columns=1, width=300),
        film_plot(films, "% & more"),
        difference_plot(differences, "← <one>", "other →"),
    ):
        tree = ElementTree.fromstring(text)
        assert all(math.isfinite(number) and abs(number) < 5000 for number in coordinates(tree))
        assert "nan" not in re.sub(r"<title>.*?</title>|measure", "", text) and "inf" not in text
        shares = [float(share) for share in re.findall(r'"([-\d.]+)%"', text)]
        assert all(0 <= share <= 100 for share in shares)


def test_texts_of_a_file_fit_into_it() -> None:
    labels = ["a plan with quite a long name indeed", "b", "漢字の計画" * 5]
    rows = [Row(label, group, value * 1e5, 0.0, 2e6) for value, label in enumerate(labels, 1) for group in ("One", "W" * 80, "c")]
    for columns, width in itertools.product((1, 2, 3), (420, 800)):
        tree = ElementTree.fromstring(interval_plot(rows, "long " * 90, "a rather long unit of something", columns, width))
        for group, (left, upper) in [
            (tree, (0.0, 0.0)),
            *(
                (each, tuple(map(float, re.findall(r"[-\d.]+", each.attrib["transform"]))))
                for each in tree.iter()
                if "transform" in each.attrib
            ),
        ]:
            for text in group.findall("{*}text"):
                words = "".join(text.itertext()) if len(text) == 0 else text[0].tail or ""
                size, x = float(text.attrib["font-size"]), left + float(text.attrib["x"])
                room = text_width(words, size)
                start = x - {"start": 0, "middle": room / 2, "end": room}[text.attrib.get("text-anchor", "start")]
                assert start >= -0.5 and start + room <= width + 0.5, (columns, width, words)
                assert upper + float(text.attrib["y"]) < float(tree.attrib["height"])


def test_one_label_has_one_colour_in_all_panels_and_a_file_needs_nothing_else() -> None:
    text = interval_plot([Row(label, group, 1.0, 0.5, 1.5) for group in "xy" for label in "abc"], "Title", {"x": "%", "y": "frames"})
    colours = re.findall(r'<circle[^>]* fill="(#\w+)"', text)
    assert colours[:3] == colours[3:] and len(set(colours)) == 3
    assert ">%<" in text and ">frames<" in text and "http" not in text.replace("http://www.w3.org/2000/svg", "")
    assert "href" not in text and "<style" not in text


def test_a_row_without_a_value_is_a_dash() -> None:
    words = "".join(ElementTree.fromstring(interval_plot([Row("a", "m", None), Row("b", "m", NAN)])).itertext())
    assert words.count("–") == 2
    assert "<circle" not in film_plot([DotRow("a", None, words="")]) and "–" in film_plot([DotRow("a", None)])


def test_dots_are_where_their_values_are_and_always_the_same() -> None:
    row = DotRow("a", 2.0, 1.5, 2.5, dots=(1.0, 2.0, 3.0), dot_names=("one", "two", "three"))
    text = film_plot([row])
    assert text == film_plot([row]) and "<title>two</title>" in text
    places = [float(share) for share in re.findall(r'class="dot" cx="([\d.]+)%"', text)]
    assert places[1] - places[0] == pytest.approx(places[2] - places[1], abs=0.02)
    assert float(re.findall(r'class="mean" cx="([\d.]+)%"', text)[0]) == places[1]
    many = film_plot([DotRow("a", 2.0, dots=(2.0,) * 200, dot_names=("name",) * 200)])
    assert many.count('class="dot"') == 200 and "<title>" not in many


def test_a_difference_is_sure_where_its_interval_leaves_out_zero() -> None:
    assert DifferenceRow("a", 1.0, 0.1, 2.0).is_sure and DifferenceRow("a", -1.0, -2.0, -0.1).is_sure
    for row in (
        DifferenceRow("a", 1.0, -0.1, 2.0),
        DifferenceRow("a", 1.0, 0.0, 2.0),
        DifferenceRow("a", 1.0),
        DifferenceRow("a", 1.0, NAN, NAN),
    ):
        assert not row.is_sure
    assert "50%" in difference_plot([DifferenceRow("a", 0.0, reach=0.0)])


def test_long_texts_are_shortened_to_their_room() -> None:
    for text, room in itertools.product(NAMES, (30.0, 80.0, 300.0)):
        short = shortened(text, room, 12)
        assert short == text or (short.endswith("…") and text_width(short, 12) <= room)
        assert all(text_width(line, 12) <= room for line in wrapped(text + " words " * 30, room, 12))
    assert wrapped("", 100, 12) == [] and len(wrapped("words " * 90, 100, 12)) == 3
    assert cut_short("short") == "short" and cut_short("a plan with quite a long name, number 7").endswith("number 7")
    assert len(cut_short("W" * 200)) <= 26


def test_numbers_beyond_all_measure_are_not_drawn() -> None:
    assert axis_of([LARGEST, -LARGEST, 1.0]) == axis_of([1.0])
