"""Charts: each is drawn from few, many and missing values, and shows the figures that it was given."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adapt_inf.review import charts
from adapt_inf.review.charts import Bar, Line, Marks, nice_ticks, number
from adapt_inf.review.svg import GREEN, Panel, document


def words_of(panel: Panel) -> list[str]:
    """Every text of a panel, which must be well-formed and begin no text outside its sides."""
    tree = ElementTree.fromstring(document("", [panel]))
    texts = list(tree.iter("{http://www.w3.org/2000/svg}text"))[1:]
    assert all(-1 <= float(each.attrib["x"]) <= panel.width + 1 for each in texts)
    assert all(0 <= float(each.attrib["y"]) <= panel.height + 1 for each in texts)
    return ["".join(each.itertext()) for each in texts]


def test_a_heat_map_has_a_figure_or_a_dash_a_cell_and_frames() -> None:
    panel = charts.heat_map(["a", "b"], ["one_two", "x"], [[0.25, None], [float("nan"), 1]], 0, 1, [(1, 1)], "what")
    words = words_of(panel)
    assert (words.count("0.25"), words.count("1.00"), words.count("–")) == (1, 1, 2)
    assert {"a", "b", "one", "two", "x", "what"} <= set(words)
    assert panel.body.count('fill="none"') == 1
    assert "a, one_two: 0.250" in panel.body


@pytest.mark.parametrize("rounds", [1, 2, 60])
def test_lines_are_drawn_for_few_and_many_rounds(rounds: int) -> None:
    names = [f"r{place:03d}" for place in range(rounds)]
    lines = [Line(f"skill {i}", [None, *[0.5] * (rounds - 1)], GREEN, since=min(1, rounds - 1)) for i in range(9)]
    words = words_of(charts.line_chart("a suite with a name that is far too long to fit above it", names, lines))
    assert sum(word.startswith("skill") for word in words) == (9 if rounds > 1 else 0)
    assert words.count("r000") == 1


def test_bars_stand_for_their_parts_and_carry_mark_and_note() -> None:
    panel = charts.bar_chart(
        [Bar("a", [(30, GREEN), (10, "")], 20, "el2n"), Bar("b", [])], [("x", GREEN)], mark="budget"
    )
    assert {"a", "b", "el2n", "budget", "x"} <= set(words_of(panel))
    widths = [float(each) for each in re.findall(r'width="([\d.]+)" height="14.0"', panel.body)]
    assert widths[0] == pytest.approx(3 * widths[1], rel=0.01)


def test_columns_show_what_is_known() -> None:
    panel = charts.column_chart("t", ["r001", "r002"], [("a", GREEN, [None, 1250]), ("b", GREEN, [0, 30])])
    words = words_of(panel)
    assert "1,250" in words
    assert "30" in words
    words_of(charts.column_chart("t", [f"r{i}" for i in range(40)], [("a", GREEN, [None] * 40)]))


def test_strata_and_histograms_have_a_column_a_bin() -> None:
    assert charts.strata_chart("t", "n", [0] * 52, [0] * 52, tails=1).body.count("<rect") == 104
    panel = charts.histogram("t", [0, 0.5, 1], [3, 0], "cosine")
    assert panel.body.count("<rect") == 2
    assert "cosine" in words_of(panel)


def test_a_map_draws_every_point_and_names_groups_in_their_middle() -> None:
    points = [(0.0, 0.0), (0.5, 0.5), (1.0, 1.0)]
    panel = charts.point_map("t", [Marks("a", points, GREEN, "7"), Marks("none", [], GREEN, "8")], named=True)
    assert panel.body.count("h0") == 3
    assert {"a", "7"} <= set(words_of(panel))
    assert "8" not in words_of(panel)


@settings(deadline=None)
@given(st.floats(-1e6, 1e6), st.floats(-1e6, 1e6), st.integers(2, 6))
def test_ticks_are_few_and_hold_the_values(one: float, other: float, count: int) -> None:
    low, high = sorted((one, other))
    ticks = nice_ticks(low, high, count)
    slack = 1e-6 * max(1.0, abs(low), abs(high))
    assert ticks == sorted(ticks)
    assert 2 <= len(ticks) <= count + 3
    assert ticks[0] <= low + slack
    assert ticks[-1] >= high - slack


@pytest.mark.parametrize(
    ("value", "shown"),
    [(0, "0"), (0.25, "0.25"), (80, "80"), (1250, "1,250"), (24000, "24k"), (2.5e6, "2.5M"), (123.4, "123")],
)
def test_figures_are_short(value: float, shown: str) -> None:
    assert number(value) == shown
