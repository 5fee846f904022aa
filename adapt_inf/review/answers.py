"""The evaluation, sample by sample: what was answered before and after the round, counted and by example."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pandas as pd

from adapt_inf.data.intake import SUITES
from adapt_inf.review.tables import Review
from adapt_inf.review.thumbnails import Shown, look_up

RIGHT = 0.5  # an answer with at least this score counts as right: metrics other than exact match give parts of 1

_SKILLS = 10  # whose answers are shown
_ANSWERS = 3  # of a kind in a skill


@dataclass(frozen=True)
class Answer:
    """An evaluation sample with what was answered before and after the round."""

    sample: Shown
    accepted: str
    before: str | None
    after: str
    was_right: bool | None
    is_right: bool


@dataclass(frozen=True)
class Skill:
    """A skill's answers, counted and by example; `learned` and the like are None where nothing is known from before."""

    name: str
    samples: int
    right: int
    before: int | None
    learned: int | None
    forgotten: int | None
    rows: dict[str, list[Answer]] = field(default_factory=dict)


def answers(review: Review) -> pd.DataFrame:
    """What the round's model answered, a row per sample, with what its parent's model did; empty before the evaluation.

    Columns: suite, sample_id, skill, answers, prediction, score, before, before_score (both missing where the parent's
    answers are), right, was_right (bool or missing), shard, row.
    """
    path = review.files.path("evaluate", "predictions.parquet")
    if not path.is_file():
        return pd.DataFrame(columns=["suite", "skill"])
    after = pd.read_parquet(path)
    parent = review.project.output(review.params.parent, "evaluate") / "predictions.parquet"
    parts = [part for part in (parent, review.files.path("evaluate", "before.parquet")) if part.is_file()]
    columns = ["suite", "sample_id", "prediction", "score"]
    before = pd.concat([pd.read_parquet(part, columns=columns) for part in parts]) if parts else after[columns].iloc[:0]
    before = before.rename(columns={"prediction": "before", "score": "before_score"})
    frame = after.merge(before.drop_duplicates(["suite", "sample_id"]), on=["suite", "sample_id"], how="left")
    frame["right"] = frame["score"] >= RIGHT
    frame["was_right"] = (frame["before_score"] >= RIGHT).where(frame["before_score"].notna())
    suites = str(review.files.path("pool", SUITES))
    frame["shard"] = suites + "/" + frame["suite"].astype(str) + ".parquet"
    frame["row"] = frame.groupby("suite").cumcount()  # predictions stand in the order of the suite
    return frame


def skill_gallery(review: Review) -> list[Skill]:
    """Every skill's answers counted, those that moved most first and with some answers to look at."""
    frame = answers(review)
    if frame.empty:
        return []
    skills, members = [], {}
    for (suite, skill), part in frame.groupby(["suite", "skill"], sort=True):
        known = part["was_right"].notna()
        was, right = part["was_right"].fillna(False).astype(bool), part["right"]
        whole = bool(known.all())
        found = Skill(
            f"{suite}/{skill}",
            len(part),
            int(right.sum()),
            int(was.sum()) if whole else None,
            int((right & ~was).sum()) if whole else None,
            int((~right & was).sum()) if whole else None,
        )
        skills.append(found)
        members[found.name] = part
    moved = sorted(skills, key=lambda each: -_movement(each))[:_SKILLS]
    picks = {each.name: _answers_to_show(members[each.name]) for each in moved}
    rows = [row for kinds in picks.values() for chosen in kinds.values() for row in chosen]
    shown = look_up(frame.loc[rows], review.params.ingest.max_pixels)
    full = {
        name: {kind: [_answer(frame.loc[row], shown) for row in chosen] for kind, chosen in kinds.items() if chosen}
        for name, kinds in picks.items()
    }
    return [replace(each, rows=full.get(each.name, {})) for each in sorted(skills, key=lambda each: -_movement(each))]


def _movement(skill: Skill) -> float:
    """The larger of the shares learned and forgotten, for a skill to be shown before others."""
    return max(skill.learned or 0, skill.forgotten or 0) / skill.samples


def _answers_to_show(part: pd.DataFrame) -> dict[str, Sequence[Any]]:
    was, right = part["was_right"], part["right"]
    kinds = {
        "learned": right & (was == False),  # noqa: E712 - missing where nothing is known from before
        "forgotten": ~right & (was == True),  # noqa: E712
        "still wrong": ~right & (was == False),  # noqa: E712
        "wrong": ~right & was.isna(),
        "right before and after": right & (was == True),  # noqa: E712
        "right": right & was.isna(),
    }
    return {kind: part.index[which.to_numpy(dtype=bool)][:_ANSWERS].tolist() for kind, which in kinds.items()}


def _answer(row: pd.Series, shown: dict[str, Shown]) -> Answer:
    known = isinstance(row["before"], str)
    return Answer(
        shown[row["sample_id"]],
        " / ".join(row["answers"]),
        row["before"] if known else None,
        row["prediction"],
        bool(row["was_right"]) if known else None,
        bool(row["right"]),
    )
