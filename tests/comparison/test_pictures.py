"""Pictures of a comparison: what stands in them, and that they are drawn where the numbers say."""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree

import pytest
from scored_lineages import FULL, RANDOM, found_of, left, line

from adapt_inf.comparison.figures import outcomes, rows
from adapt_inf.comparison.pictures import bar_panel, curve_panel, curves, write_pictures
from adapt_inf.comparison.statistics import Mean

SVG = "{http://www.w3.org/2000/svg}"


def _words(path: Path) -> list[str]:
    root = ElementTree.parse(path).getroot()
    return [element.text or "" for element in root.iter(f"{SVG}text")]


def test_every_strategy_stands_in_every_picture(tmp_path: Path) -> None:
    found = found_of([0.1, 0.2, 0.15])
    paths = write_pictures(tmp_path, rows(found), found)
    assert [path.name for path in paths] == ["figures.svg", "average_accuracy.svg", "forgetting.svg"]
    for path in paths:
        assert {"adapt_inf", "random"} <= set(_words(path))
    assert "relative gain" not in _words(paths[0])  # nobody has one
    again = write_pictures(tmp_path / "again", rows(found), found)
    assert [path.read_bytes() for path in again] == [path.read_bytes() for path in paths]


def test_a_variant_has_a_panel_of_its_own_and_a_figure_that_some_lack_is_left_out(tmp_path: Path) -> None:
    found = outcomes({line("random", 0, (("cluster.k", k),)): left(RANDOM) for k in ("4", "8")})
    found += outcomes({line("full", 0, (("cluster.k", "4"),)): left(FULL)})
    figures, average, _ = (_words(path) for path in write_pictures(tmp_path, rows(found), found))
    assert {"random k 4", "random k 8", "full k 4"} <= set(figures)
    assert [word for word in average if word in ("k 4", "k 8")] == ["k 4", "k 8"]


def test_curves_are_means_over_the_seeds() -> None:
    rounds, lines = curves(found_of([0.1, 0.2]), (), "average_accuracy")
    assert rounds == ["r001", "r002"]
    first, last = lines["random"]
    assert first == Mean(0.6, 0.0, 2)
    assert last is not None
    assert last.mean == pytest.approx(1.4 / 3 + 0.05)
    assert curves(found_of([0.1]), (), "rare_accuracy")[1]["random"] == [None, Mean(0.3, None, 1)]


def test_a_bar_is_as_long_as_its_number_and_a_whisker_as_its_interval() -> None:
    bars = [("one", Mean(0.5, 0.1, 3), "#111111"), ("two", Mean(-0.25, None, 1), "#222222"), ("three", None, "#333333")]
    body = bar_panel("forgetting", bars).body
    boxes = dict(re.findall(r'<rect x="[\d.]+" y="[\d.]+" width="([\d.]+)"[^>]*fill="(#\d+)"', body))
    long, short = (float(width) for width in boxes)
    assert long == pytest.approx(2 * short, abs=0.2)
    whiskers = [(float(a), float(b)) for a, b in re.findall(r'd="M([\d.]+) ([\d.]+)L', body)]
    ends = re.findall(r'd="M([\d.]+) [\d.]+L([\d.]+) [\d.]+"', body)
    across = max(float(b) - float(a) for a, b in ends)
    assert across == pytest.approx(long * 2 * 0.1 / 0.5, abs=0.2)
    assert len(whiskers) == 3  # the interval and its two ends, of the one that has an interval
    assert "one: 0.5 ± 0.1" in body


def test_a_band_is_as_high_as_its_interval() -> None:
    lines: dict[str, list[Mean | None]] = {"one": [Mean(0.5, 0.25, 3), Mean(1.0, 0.0, 3)], "none": [None, None]}
    body = curve_panel("t", ["r001", "r002"], lines, {"one": "#111111", "none": "#222222"}).body
    (outline,) = re.findall(r'<polygon points="([^"]+)" fill="#111111"', body)
    heights = [float(point.split(",")[1]) for point in outline.split()]
    upper_first, upper_last, lower_last, lower_first = heights
    assert upper_last == lower_last
    assert lower_first - upper_first == pytest.approx(lower_first - upper_last - (upper_first - upper_last), abs=0.2)
    assert (lower_first - upper_last) / (upper_first - upper_last) == pytest.approx(0.75 / 0.25, rel=0.01)
