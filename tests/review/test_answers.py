"""Answers before and after a round: counted, and shown by what became of them."""

from __future__ import annotations

import pandas as pd
import pytest

from adapt_inf.review.answers import answers, skill_gallery
from adapt_inf.review.tables import Review


def test_every_answer_stands_beside_the_one_before_it(real: Review) -> None:
    frame = answers(real)
    after = pd.read_parquet(real.files.path("evaluate", "predictions.parquet"))
    assert frame["sample_id"].tolist() == after["sample_id"].tolist()
    earlier = pd.read_parquet(real.project.output("r001", "evaluate") / "predictions.parquet")
    known = frame.set_index("sample_id").loc[earlier["sample_id"]]
    assert known["before"].tolist() == earlier["prediction"].tolist()
    new = frame[frame["suite"] == "second"]
    assert new["before"].notna().all(), "the parent's answers on the new suite are known, too"
    for suite, rows in frame.groupby("suite"):
        ids = pd.read_parquet(real.files.path("pool", f"suites/{suite}.parquet"), columns=["sample_id"])["sample_id"]
        assert ids.iloc[rows["row"]].tolist() == rows["sample_id"].tolist()


@pytest.fixture
def staged(real: Review, monkeypatch: pytest.MonkeyPatch) -> pd.DataFrame:
    """The real answers with outcomes as a test wants them: a third each learned, forgotten, right twice."""
    frame = answers(real)
    frame["was_right"] = [place % 3 != 0 for place in range(len(frame))]
    frame["right"] = [place % 3 != 1 for place in range(len(frame))]
    monkeypatch.setattr("adapt_inf.review.answers.answers", lambda _: frame)
    return frame


def test_outcomes_are_counted_and_shown_where_they_belong(real: Review, staged: pd.DataFrame) -> None:
    found = {skill.name: skill for skill in skill_gallery(real)}
    for (suite, skill), rows in staged.groupby(["suite", "skill"]):
        each = found[f"{suite}/{skill}"]
        assert each.samples == len(rows)
        assert each.learned == (rows["right"] & ~rows["was_right"]).sum()
        assert each.forgotten == (~rows["right"] & rows["was_right"]).sum()
        for kind, shown in each.rows.items():
            states = {(answer.was_right, answer.is_right) for answer in shown}
            assert states == {
                {"learned": (False, True), "forgotten": (True, False), "right before and after": (True, True)}[kind]
            }
            assert all(answer.sample.question for answer in shown)


def test_without_the_parents_answers_only_the_rounds_are_counted(real: Review, staged: pd.DataFrame) -> None:
    staged["was_right"] = None
    staged["before"] = None
    for skill in skill_gallery(real):
        assert skill.before is skill.learned is skill.forgotten is None
        assert set(skill.rows) <= {"wrong", "right"}
