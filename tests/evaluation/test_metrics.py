"""Marks against cases worked out by hand."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapt_inf.data import samples
from adapt_inf.evaluation.metrics import METRICS, exact_match, iou, iou_50, normalised, parse_box, token_f1

BOXES = st.tuples(*[st.integers(0, 50)] * 4).map(
    lambda b: (min(b[0], b[2]), min(b[1], b[3]), max(b[0], b[2]), max(b[1], b[3]))
)


def test_every_metric_that_a_sample_may_name_is_here() -> None:
    assert set(METRICS) == set(samples.METRICS)


@pytest.mark.parametrize(
    ("prediction", "answers", "score"),
    [
        ("red", ["red"], 1),
        (" Red. ", ["red"], 1),
        ("the  second", ["The second"], 1),
        ("Straße", ["STRASSE"], 1),
        ("e\u0301te\u0301", ["été"], 1),
        ("blue", ["red", "Blue!"], 1),
        ("red square", ["red"], 0),
        ("", ["red"], 0),
        ("-3", ["3"], 0),
        ("3.5", ["35"], 0),
        ("5", [".5"], 0),
        ("(.5).", [".5"], 0),
        ("'.5'", [".5"], 1),
        ("...5", ["5"], 1),
        ("", ["?"], 0),
        ("!", ["?"], 0),
        ("?", ["?"], 1),
        ("红。", ["红"], 1),
    ],
)
def test_exact_match(prediction: str, answers: list[str], score: float) -> None:
    assert exact_match(prediction, answers) == score


@pytest.mark.parametrize(
    ("prediction", "answers", "score"),
    [
        ("a red square", ["a red square"], 1),
        ("square, red", ["red square"], 1),
        ("red", ["red square"], 2 / 3),  # precision 1, recall 1/2
        ("red red", ["red"], 2 / 3),  # the second red has no partner
        ("red", ["blue", "red circle", "red one two"], 2 / 3),
        ("green", ["red"], 0),
        ("", ["red"], 0),
        ("red", [""], 0),
        ("", [""], 1),
        ("...", ["!"], 1),
        ("की", ["का"], 0),  # another vowel sign
        ("हिन्दी भाषा", ["हिन्दी"], 2 / 3),
        ("ที่นี่", ["ที่นี่"], 1),
    ],
)
def test_token_f1(prediction: str, answers: list[str], score: float) -> None:
    assert token_f1(prediction, answers) == pytest.approx(score)


@pytest.mark.parametrize(
    ("prediction", "answers", "score"),
    [
        ("[0, 0, 10, 10]", ["[0, 0, 10, 10]"], 1),
        ("0 0 10 10", ["[0, 0, 10, 5]"], 1),  # exactly one half
        ("0 0 10 10", ["[0, 0, 10, 4.9]"], 0),
        ("10 10 0 0", ["0 0 10 10"], 1),  # corners in the other order
        ("0.1, 0.1, 0.5, 0.5", ["0.1 0.1 0.5 0.55"], 1),
        ("[.1, .2, .5, .6]", ["0.1 0.2 0.5 0.6"], 1),
        ("the box is at 3 3 6 6", ["0 0 1 1", "3 3 6 6"], 1),
        ("3 3 6", ["3 3 6 6"], 0),
        ("3 3 6 6 9", ["3 3 6 6"], 0),
        ("none", ["3 3 6 6"], 0),
        ("5 5 5 5", ["5 5 5 5"], 0),  # no area, so no union
    ],
)
def test_iou_50(prediction: str, answers: list[str], score: float) -> None:
    assert iou_50(prediction, answers) == score


@given(BOXES, BOXES)
def test_iou_counts_unit_squares(one: tuple[int, ...], other: tuple[int, ...]) -> None:
    def squares(box: tuple[int, ...]) -> set[tuple[int, int]]:
        return {(x, y) for x in range(box[0], box[2]) for y in range(box[1], box[3])}

    union = len(squares(one) | squares(other))
    expected = len(squares(one) & squares(other)) / union if union else 0
    assert iou(one, other) == pytest.approx(expected)


@given(st.text(max_size=20), st.lists(st.text(max_size=20), min_size=1, max_size=3), st.sampled_from(sorted(METRICS)))
def test_marks_lie_between_0_and_1_whatever_is_said(prediction: str, answers: list[str], metric: str) -> None:
    assert 0 <= METRICS[metric](prediction, answers) <= 1


@given(st.text(max_size=30))
def test_normalising_twice_is_normalising_once(text: str) -> None:
    assert normalised(normalised(text)) == normalised(text)


def test_boxes_are_read_from_text() -> None:
    assert parse_box("x1=-4 y1=2.5 (9, 7)") is None  # x1 and y1 hold numbers too
    assert parse_box("from (-4, 2.5) to (9, 7)") == (-4, 2.5, 9, 7)
