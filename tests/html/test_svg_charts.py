"""Charts are parsed as XML: what a browser could not draw, or what text could break out of, fails here."""

from __future__ import annotations

import math
from xml.etree import ElementTree

import pytest

from ocrmem.html import svg_charts


def parsed(svg: str) -> ElementTree.Element:
    return ElementTree.fromstring(svg)


def test_bars_are_as_long_as_their_values() -> None:
    root = parsed(svg_charts.bar_chart([("a", 1.0), ("b", 0.5), ("c", 0.0)], title="t", top=1.0))
    tracks = [float(r.get("width")) for r in root.iter("rect") if r.get("class") == "track"]
    bars = [float(r.get("width")) for r in root.iter("rect") if r.get("class") != "track"]
    assert bars == pytest.approx([tracks[0], tracks[0] / 2, 0.0], abs=0.1)


@pytest.mark.parametrize("value", [math.nan, math.inf, -1.0, 7.0])
def test_no_bar_leaves_its_track(value: float) -> None:
    root = parsed(svg_charts.bar_chart([("a", value)], title="t", top=1.0))
    widths = {r.get("class"): float(r.get("width")) for r in root.iter("rect")}
    assert 0 <= widths["bar first"] <= widths["track"]


def test_labels_cannot_break_out() -> None:
    root = parsed(svg_charts.bar_chart([("<script>&\"'", 1.0)], title='"><script>'))
    assert root.get("aria-label") == '"><script>'
    assert next(root.iter("text")).text == "<script>&\"'"
    assert "script" not in {element.tag for element in root.iter()}


def test_histogram_writes_each_count_over_its_bar() -> None:
    root = parsed(svg_charts.histogram([0.0, 1.0, 2.0, 3.0], [2, 0, 4], title="t", unit="a < b"))
    assert [t.text for t in root.iter("text") if t.get("class") == "value"] == ["2", "4"]
    assert [float(r.get("height")) for r in root.iter("rect")] == [64.0, 0.0, 128.0]


def test_bounds_are_drawn_where_they_lie_between_the_bins_and_nowhere_else() -> None:
    root = parsed(
        svg_charts.histogram([0.0, 5.0, 10.0], [1, 1], title="t", unit="u", marks=[("least", 2.5), ("most", 11.0)])
    )
    (mark,) = [line for line in root.iter("line") if line.get("class") == "mark"]
    left, middle = [float(bar.get("x")) - 1 for bar in root.iter("rect")]
    assert float(mark.get("x1")) == pytest.approx((left + middle) / 2, abs=0.1)
    assert [text.text for text in root.iter("text") if text.text in ("least", "most")] == ["least"]


def test_bins_of_one_value_are_named_by_it() -> None:
    root = parsed(svg_charts.histogram([1, 2, 3, 4], [5, 6, 7], title="t", unit="u", single=True))
    assert [t.text for t in root.iter("text") if t.get("class") == "label"] == ["1", "2", "3", "u"]


def test_all_bars_of_an_empty_histogram_are_flat() -> None:
    assert {r.get("height") for r in parsed(svg_charts.histogram([0, 1], [0], title="t", unit="u")).iter("rect")} == {
        "0.0"
    }


def test_a_curve_runs_through_its_points_and_skips_what_is_not_finite() -> None:
    root = parsed(svg_charts.line_chart([(1, 4.0), (2, math.nan), (3, 2.0), (5, 0.0)], title="t", x_name="step"))
    (line,) = root.iter("polyline")
    points = [tuple(map(float, point.split(","))) for point in line.get("points").split()]
    assert len(points) == 3
    assert points[0][0] < points[1][0] < points[2][0]
    assert points[0][1] < points[1][1] < points[2][1]  # y grows downwards


def test_a_curve_of_one_value_is_flat() -> None:
    (line,) = parsed(svg_charts.line_chart([(1, 0.0), (2, 0.0)], title="t", x_name="x")).iter("polyline")
    assert len({point.split(",")[1] for point in line.get("points").split()}) == 1


@pytest.mark.parametrize("points", [[], [(1, 1.0)], [(1, math.nan), (2, 1.0)]])
def test_too_few_points_are_no_curve(points: list) -> None:
    with pytest.raises(ValueError, match="two finite points"):
        svg_charts.line_chart(points, title="t", x_name="x")
