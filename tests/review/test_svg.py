"""Drawings as text: always well-formed, whatever the words in them, and of the same bytes for the same data."""

from __future__ import annotations

from itertools import pairwise
from xml.etree import ElementTree

from hypothesis import given, settings
from hypothesis import strategies as st

from adapt_inf.review import svg
from adapt_inf.review.svg import Panel, cut, document, inline, spread, text_width


@settings(deadline=None)
@given(st.text(max_size=60))
def test_any_words_make_a_well_formed_file(words: str) -> None:
    body = svg.text(1, 2, words) + svg.rect(0, 0, 5, 5, "#000000", words) + svg.legend(0, 0, [(words, "")], 80)[0]
    panel = Panel(100, 20, body)
    tree = ElementTree.fromstring(document(words, [panel, panel], columns=1))
    assert not list(tree.iter("{http://www.w3.org/2000/svg}script"))
    ElementTree.fromstring(inline(panel, "a < b"))


def test_a_file_shows_its_panels_in_rows() -> None:
    panel = Panel(100, 50, svg.line(0, 0, 1, 1))
    one, two = (ElementTree.fromstring(document("", [panel] * 4, columns)) for columns in (4, 2))
    assert float(one.attrib["width"]) > float(two.attrib["width"])
    assert float(one.attrib["height"]) < float(two.attrib["height"])
    places = [each.attrib["transform"] for each in two.iter("{http://www.w3.org/2000/svg}g")]
    assert len(set(places)) == 4


@settings(deadline=None)
@given(st.text(max_size=80), st.floats(30, 300))
def test_cut_words_fit(words: str, width: float) -> None:
    assert text_width(cut(words, width)) <= width
    assert cut("short", 200) == "short"


def test_the_share_at_the_end_of_a_name_is_not_cut_off() -> None:
    name = cut("12 languages/a skill of a very long name 34%", 160)
    assert name.startswith("12 languages/")
    assert name.endswith("… 34%")
    assert text_width(name) <= 160
    assert cut("12 languages/a skill", 30).endswith("…")


def test_a_gap_breaks_a_line() -> None:
    assert svg.path([(0, 0), (1, 1), None, (2, 2)]).count("M") == 2
    assert svg.path([None]) == svg.dots([], "#000000") == ""


@settings(deadline=None)
@given(st.lists(st.floats(20, 120), max_size=30))
def test_labels_stay_apart_in_order_and_inside(heights: list[float]) -> None:
    placed = spread(sorted(heights), 13, 20, 120)
    assert len(placed) == len(heights)
    gap = min(13, 100 / max(1, len(heights) - 1))
    assert all(below - above > gap - 1e-6 for above, below in pairwise(placed))
    assert all(20 - 1e-6 <= height <= 120 + 1e-6 for height in placed)
