"""Plots: well-formed, escaped, inside their frame."""

from __future__ import annotations

import math
import re
import xml.etree.ElementTree as ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openautoglm.core.svg import Series, bar_chart, histogram, line_chart, nice_ticks, number

NASTY = '<script>alert("x")</script> & \'quote\''


def parse(svg: str) -> ElementTree.Element:
    return ElementTree.fromstring(svg)


def test_every_plot_is_well_formed_and_escapes_its_texts() -> None:
    plots = [
        line_chart([Series(NASTY, [(0, 1), (1, 2)]), Series("b", [(0, 2)])], title=NASTY, x_label=NASTY,
                   y_label=NASTY, markers=True),
        histogram([0, 1, 2], [Series(NASTY, [(0, 3), (1, 1)])], title=NASTY, x_label=NASTY),
        bar_chart([(NASTY, 3.0), ("b", 0.0)], title=NASTY, unit=NASTY),
    ]
    for plot in plots:
        root = parse(plot)
        assert root.attrib["aria-label"] == NASTY
        assert "<script" not in plot


def test_a_gap_breaks_the_line() -> None:
    svg = line_chart([Series("loss", [(0, 1.0), (1, math.nan), (2, 3.0)])], title="t")
    path = re.findall(r'class="line s0" d="([^"]*)"', svg)[0]
    assert path.count("M") == 2
    assert "nan" not in svg


def test_points_keep_their_order_on_both_axes() -> None:
    svg = line_chart([Series("a", [(1, 1.0), (10, 10.0), (100, 100.0)])], title="t", log_x=True, log_y=True)
    path = re.findall(r'class="line s0" d="([^"]*)"', svg)[0]
    points = [part[1:].split() for part in re.findall(r"[ML][\d.]+ [\d.]+", path)]
    xs, ys = [float(x) for x, _ in points], [float(y) for _, y in points]
    assert xs[1] - xs[0] == pytest.approx(xs[2] - xs[1], abs=0.2)
    assert ys[0] > ys[1] > ys[2]


@pytest.mark.parametrize("plot", [
    lambda: line_chart([], title="t"),
    lambda: line_chart([Series("a", [])], title="t", log_y=True),
    lambda: line_chart([Series("a", [(5, 5)])], title="t"),
    lambda: bar_chart([], title="t"),
    lambda: histogram([0, 1], [], title="t"),
])
def test_nothing_to_show_is_still_a_plot(plot) -> None:  # type: ignore[no-untyped-def]
    assert parse(plot()).tag.endswith("svg")


@given(st.floats(-1e9, 1e9), st.floats(1e-6, 1e9))
def test_ticks_lie_inside_and_rise(low: float, width: float) -> None:
    high = low + width
    ticks = nice_ticks(low, high)
    slack = max(abs(low), abs(high)) * 1e-6 + width * 1e-6
    assert ticks == sorted(ticks)
    assert len(ticks) <= 12
    assert all(low - slack <= tick <= high + slack for tick in ticks)


@pytest.mark.parametrize(("value", "text"), [
    (12345, "12,345"), (1_200_000, "1.2M"), (0.0312, "0.0312"), (1e-5, "1e-05"), (0, "0"),
    (-3, "-3"), (2.5e9, "2.5G"),
])
def test_number_labels(value: float, text: str) -> None:
    assert number(value) == text
