"""A round in words: an answer to each question that a reader has, from the JSON that the stages left."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

from adapt_inf.project import PROXY
from adapt_inf.review.round_files import total
from adapt_inf.review.tables import Review
from adapt_inf.stages.runner import STAGES

_LISTED = 6  # skills or datasets named before the rest is counted


@dataclass(frozen=True)
class Said:
    """A question, its answer, and the part of the page that tells more."""

    question: str
    answer: str
    anchor: str


def in_short(review: Review, facts: dict[str, Any]) -> list[Said]:
    """The round in a sentence a question; questions that it did not come as far as are left out.

    Args:
        facts: pool_hash and commit, where they are known.
    """
    said = [
        Said("What came in", _came(review), "came"),
        Said("What the model knew", _knew(review), "knew"),
        Said("Who chose what", _chosen(review), "chosen"),
        Said("What was thrown away", _thrown(review), "thrown"),
        Said("What it gained", _moved(review, 1), "learned"),
        Said("What it forgot", _moved(review, -1), "learned"),
        Said("Where it stands", _stands(review), "learned"),
        Said("Where it came from", _origin(review, facts), "origin"),
    ]
    return [each for each in said if each.answer]


def _came(review: Review) -> str:
    report = review.files.ingest
    if not report:
        return ""
    bad, twice = review.files.counts["rejected"], total(report.get("duplicates"))
    parts = [f"{count(report['train'])} training samples and {count(report['eval'])} for evaluation"]
    parts += [f"{count(bad)} set aside as bad"] if bad else []
    parts += [f"{count(twice)} left out as duplicates"] if twice else []
    return f"{review.params.drop}: {', '.join(parts)}."


def _knew(review: Review) -> str:
    """The parent's scores on what the round brought."""
    new = new_skills(review)
    scores = {skill: review.known[skill] for skill in new if skill in review.known}
    if not scores:
        return ""
    mean = sum(scores.values()) / len(scores)
    named = ", ".join(f"{skill.partition('/')[2]} {score:.2f}" for skill, score in list(scores.items())[:_LISTED])
    rest = f" and {len(scores) - _LISTED} more" if len(scores) > _LISTED else ""
    return f"{review.params.parent} scored {mean:.2f} on the new skills, before any training on them: {named}{rest}."


def _chosen(review: Review) -> str:
    selectors = review.files.selectors
    if not selectors:
        return ""
    winners = Counter(cluster["selector"] for cluster in review.clusters).most_common()
    by = ", ".join(f"{name} in {number}" for name, number in winners)
    text = (
        f"{count(selectors['selected'])} of {count(selectors['candidates'])} candidates by the strategy "
        f"{selectors['strategy']}, over {count(len(review.clusters))} clusters ({by})."
    )
    text += _looked(review)
    # The new one, which comes last, and of the others those of which most was chosen.
    *others, newest = list(selectors.get("drops", {}).items()) or [("", {})]
    if not newest[1]:
        return text
    others.sort(key=lambda each: -each[1]["selected"])
    named = [newest, *others[: _LISTED - 1]]
    shares = [f"{name} {count(n['selected'])} of {count(n['candidates'])}" for name, n in named]
    rest = f" and {len(others) + 1 - len(named)} more" if len(others) + 1 > len(named) else ""
    return f"{text} By dataset: {', '.join(shares)}{rest}."


def _looked(review: Review) -> str:
    """Which model judged the candidates, where it was not the parent's, and what that took of the round."""
    model = review.files.log("sketch").get("report", {}).get("model", {})
    if model.get("name") != PROXY:
        return ""
    seconds = {stage: review.files.log(stage).get("seconds", 0.0) for stage in STAGES}
    looking = seconds["sketch"] + seconds["score"]
    return (
        f" A proxy ({model['model_type']}, {count(model['parameters'])} parameters) judged them in the model's place: "
        f"{looking:,.0f} s of the round's {sum(seconds.values()):,.0f} s."
    )


def _thrown(review: Review) -> str:
    pool = review.files.pool
    if not pool:
        return ""
    if not pool["pruned"]:
        return f"Nothing was pruned: the pool holds {count(pool['live'])} samples."
    cap = review.params.prune.pool_cap
    return (
        f"{count(pool['pruned'])} samples pruned for good, the most redundant of each cluster that was over its part "
        f"of the pool's cap ({count(cap)}); {count(pool['live'])} stay."
    )


def _moved(review: Review, sign: int) -> str:
    """The skills that rose or fell against the parent's model, the farthest first."""
    after, before = review.files.metrics.get("skills", {}), review.known
    if not after:
        return ""
    moved = sorted(
        ((sign * (after[skill] - before[skill]), skill) for skill in after if before.get(skill) is not None),
        key=lambda pair: (-pair[0], pair[1]),
    )
    moved = [(change, skill) for change, skill in moved if change > 0]
    if not moved:
        return "Nothing rose." if sign > 0 else "Nothing fell."
    named = [f"{skill} {before[skill]:.2f} → {after[skill]:.2f}" for _, skill in moved[:_LISTED]]
    rest = len(moved) - len(named)
    return ", ".join(named) + (f" and {rest} more." if rest else ".")


def _stands(review: Review) -> str:
    metrics = review.files.metrics
    if not metrics:
        return ""
    text = f"Average accuracy {score(metrics['average_accuracy'])}, forgetting {score(metrics['forgetting'])}."
    rare = metrics.get("rare") or {}
    if rare.get("average_accuracy") is None:
        return text
    return f"{text} Rare skills: {score(rare['average_accuracy'])} and {score(rare.get('forgetting'))}."


def _origin(review: Review, facts: dict[str, Any]) -> str:
    line = " → ".join(["base", *(entry["round"] for entry in review.line[-5:])])
    line = line.replace("base → ", "base → … → ", 1) if len(review.line) > 5 else line
    marks = [("pool version", facts.get("pool_hash")), ("commit", facts.get("commit"))]
    hashes = ", ".join(f"{label} {value}" for label, value in marks if value)
    return f"Model and pool of {review.params.parent} ({line})" + (f"; {hashes}." if hashes else ".")


def new_skills(review: Review) -> list[str]:
    """The skills that the round brought, as "<suite>/<skill>"."""
    entries = review.files.matrix.get("skills", [])
    return [f"{entry['suite']}/{entry['skill']}" for entry in entries if entry["round"] == review.round]


def count(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int) else "?"


def score(value: Any) -> str:
    return "none yet" if value is None else f"{value:.3f}"
