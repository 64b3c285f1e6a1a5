# SPDX-License-Identifier: BSD-2-Clause
"""Scales and charts: well-formed, nothing outside the picture, every value told to who cannot see it."""

import math
import re
from xml.etree import ElementTree

import pytest
from bench_document import ROOT
from hypothesis import given
from hypothesis import strategies as st
from report import svg

NS = "{http://www.w3.org/2000/svg}"
positive = st.floats(1e-6, 1e12)


@given(st.lists(positive, max_size=8))
def test_linear_scales_hold_their_values(values):
    scale = svg.linear(values)
    assert scale.low == 0
    assert scale.high >= max([*values, 0]) * (1 - 1e-9)
    assert 2 <= len(scale.ticks) <= 6
    places = [scale.at(value) for value, _ in scale.ticks]
    assert places == sorted(places)
    assert places[0] == 0
    assert math.isclose(places[-1], 1)


@given(st.lists(positive, max_size=8), st.sampled_from([2, 10]))
def test_logarithmic_scales_hold_their_values(values, base):
    scale = svg.logarithmic(values, base)
    for value in values:
        assert scale.low <= value * (1 + 1e-6)
        assert value <= scale.high * (1 + 1e-6)
    assert 2 <= len(scale.ticks) <= 9


def test_logarithmic_steps_are_equal():
    scale = svg.logarithmic([1, 128], base=2)
    assert [label for _, label in scale.ticks] == ["1", "2", "4", "8", "16", "32", "64", "128"]
    assert [scale.at(2**k) for k in range(8)] == pytest.approx([k / 7 for k in range(8)])


def test_what_has_no_logarithm_is_put_on_the_edge():
    assert svg.logarithmic([1, 10]).at(0) == 0


@pytest.mark.parametrize(
    ("value", "text"), [(0, "0"), (0.25, "0.25"), (999, "999"), (1000, "1k"), (850087, "850k"), (1.25e6, "1.25M")]
)
def test_numbers(value, text):
    assert svg.number(value) == text


def chart():
    points = tuple(svg.Point(x, x * 1000.0, x * 900.0, x * 1100.0, f"depth {x}") for x in (1, 2, 4))
    series = [svg.Line("one & only", 0, points), svg.Line("other", 1, points[:1])]
    return svg.lines("A <title>", "words", svg.logarithmic([1, 4], 2), svg.linear([4400]), "depth", "IOPS", series)


def bars():
    rows = [svg.Row("a label", (svg.Bar("srp", 0, 0.9, 0.8, 1.0, "0.90"), svg.Bar("blkif", 1, 1.2)))]
    return svg.bars("Bars", "words", svg.linear([1.2]), "share", rows, mark_at=1.0)


@pytest.mark.parametrize("make", [chart, bars])
def test_pictures_are_well_formed_and_say_what_they_show(make):
    for text in (make(), svg.standalone(make())):
        root = ElementTree.fromstring(text)
        assert root.tag == f"{NS}svg"
        assert root.find(f"{NS}title").text
        assert root.find(f"{NS}desc").text == "words"
        _, _, width, height = map(float, root.get("viewBox").split())
        for element in root.iter():
            for name, limit in (("x", width), ("x1", width), ("x2", width), ("y", height), ("y1", height)):
                if element.get(name) is not None:
                    assert 0 <= float(element.get(name)) <= limit


def test_a_chart_names_its_series_and_points():
    shown = "".join(ElementTree.fromstring(chart()).itertext())
    for words in ("one & only", "other", "one & only: depth 4", "A <title>"):
        assert words in shown


def test_a_picture_of_its_own_brings_its_colours():
    """Viewers that are no browsers know no variables, and take the first colour they understand."""
    text = svg.standalone(bars())
    assert "var(" not in text
    day, _, night = text.partition("@media screen and (prefers-color-scheme:dark)")
    assert ".f0{fill:#0072b2}" in day
    assert ".ground{fill:#ffffff}" in day
    assert ".f0{fill:#56b4e9}" in night
    assert "#" not in bars()


def test_every_class_that_is_drawn_has_a_colour():
    for picture in (chart(), bars()):
        for name in {name for found in re.findall('class="([^"]+)"', picture) for name in found.split()}:
            assert f"svg .{name}{{" in svg.style().replace(",svg", "{svg")


@pytest.mark.parametrize("path", sorted((ROOT / "docs").glob("*.svg")), ids=lambda path: path.stem)
def test_no_variable_is_without_a_fallback(path):
    for text in (path.read_text(), svg.style()):
        assert re.findall(r"var\(--\w+\)", text) == []


def test_labels_do_not_run_into_each_other():
    ticks = tuple((float(k), "a long label " * (1 + k % 2)) for k in range(6))
    drawn = svg.lines("A title", "words", svg.Scale(0.0, 5.0, ticks), svg.linear([1]), "x", "y", [])
    labels = [one for one in ElementTree.fromstring(drawn).iter(f"{NS}text") if "long" in (one.text or "")]
    assert 1 < len(labels) < 6
    edge = 0.0
    for one in labels:
        width = len(one.text) * float(one.get("font-size")) * svg.EM
        begins = float(one.get("x")) - width / (1 if one.get("text-anchor") == "end" else 2)
        assert begins > edge - 0.1
        edge = begins + width


def test_same_input_same_text():
    assert chart() == chart()
