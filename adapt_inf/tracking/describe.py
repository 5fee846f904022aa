"""A round in words, as Markdown: the description of its run and of its model's version."""

from __future__ import annotations

from typing import Any

from adapt_inf.project import Project
from adapt_inf.review.tables import Review
from adapt_inf.review.words import in_short


def round_note(project: Project, record: dict[str, Any]) -> str:
    """An answer to each question that a reader has, as far as the round came.

    Args:
        record: of the round as `adapt-inf lineage --json` lists it: round, status, and as far as they are known gate,
            pool_hash, commit and, of a round that failed, error.
    """
    review = Review(project, record["round"])
    params, gate = review.params, record.get("gate")
    head = f"**{record['round']}, {record['status']}**: {_plain(params.drop)} on {params.parent}."
    if gate:
        reasons = "; ".join(gate["reasons"])
        head += f" **Gate**: {gate['verdict']}{': ' + _plain(reasons) if reasons else ''}."
    if record.get("error") and record["status"] != "finished":
        head += f"\n\n**Why it stopped**: {_plain(str(record['error']))}"
    said = [f"- **{each.question}**: {_plain(each.answer)}" for each in in_short(review, record)]
    page = "Pictures, tables and samples: `report.html` among the artifacts of the run."
    return "\n\n".join([head, "\n".join(said), page])


def _plain(text: str) -> str:
    """Names of skills hold underscores and stars, which Markdown would take for emphasis."""
    for mark in "\\`*_[]<>|":
        text = text.replace(mark, f"\\{mark}")
    return text
