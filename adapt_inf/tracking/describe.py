"""A round in words, as Markdown: what came, what was chosen, what was gained and what was forgotten."""

from __future__ import annotations

from collections import Counter
from typing import Any

from adapt_inf.tracking.reports import RoundFiles, total

_LISTED = 6  # skills named on each side before the rest is counted


def round_note(files: RoundFiles, status: str, facts: dict[str, Any]) -> str:
    """The description of a round's run and of its model version.

    Args:
        files: what the round left; a part that is not there is left out.
        status: of the round in the lineage.
        facts: parent, drop, strategy, pool_hash, commit, gate.
    """
    drop, parent = facts.get("drop") or "?", facts.get("parent") or "?"
    parts = [f"{files.round}, {status}: {drop} on {parent}."]
    parts += [part for part in (_came(files), _chosen(files), _kept(files)) if part]
    parts += _learned(files, parent)
    gate = facts.get("gate")
    parts += [f"**Gate**: {': '.join([gate['verdict'], *filter(None, ['; '.join(gate['reasons'])])])}."] if gate else []
    marks = [("Pool version", facts.get("pool_hash")), ("commit", facts.get("commit"))]
    hashes = ", ".join(f"{label} `{value}`" for label, value in marks if value)
    return "\n\n".join([*parts, hashes] if hashes else parts)


def _came(files: RoundFiles) -> str:
    report = files.ingest
    if not report:
        return ""
    counts = [f"{_count(report['train'])} training samples", f"{_count(report['eval'])} for evaluation"]
    counts += [f"{_count(files.counts['rejected'])} set aside"] if files.counts["rejected"] else []
    counts += [f"{_count(count)} duplicates left out" for count in (total(report.get("duplicates")),) if count]
    return f"**Came**: {', '.join(counts)}."


def _chosen(files: RoundFiles) -> str:
    selectors = files.selectors
    if not selectors:
        return ""
    clusters = selectors.get("clusters", [])
    winners = Counter(cluster["selector"] for cluster in clusters).most_common()
    by = ", ".join(f"{name} in {count}" for name, count in winners)
    text = (
        f"**Chosen**: {_count(selectors['selected'])} of {_count(selectors['candidates'])} candidates "
        f"by `{selectors['strategy']}`, over {_count(len(clusters))} clusters ({by})."
    )
    drops = selectors.get("drops", {})
    shares = [f"{name} {_count(n['selected'])} of {_count(n['candidates'])}" for name, n in drops.items()]
    return f"{text} By drop: {', '.join(shares)}." if shares else text


def _kept(files: RoundFiles) -> str:
    if not files.pool:
        return ""
    return (
        f"**Kept**: {_count(files.pool['live'])} samples in the pool, {_count(files.pool['pruned'])} pruned for good."
    )


def _learned(files: RoundFiles, parent: str) -> list[str]:
    """Two lines of skills, sorted by how far they moved against the parent's model, and the line of the averages."""
    metrics, values = files.metrics, files.matrix.get("values", {})
    if not metrics:
        return []
    before, after = values.get(parent, {}), metrics.get("skills", {})
    moved = sorted((after[skill] - before[skill], skill) for skill in after if before.get(skill) is not None)
    lost = [(change, skill) for change, skill in moved if change < 0]
    won = [(change, skill) for change, skill in reversed(moved) if change > 0]
    overall = (
        f"**Now**: average accuracy {_score(metrics['average_accuracy'])}, forgetting {_score(metrics['forgetting'])}."
    )
    lines = [
        f"**{title}**: {_moves(moves, before, after)}." for title, moves in (("Gained", won), ("Lost", lost)) if moves
    ]
    return [*lines, overall]


def _moves(moves: list[tuple[float, str]], before: dict[str, float], after: dict[str, float]) -> str:
    named = [f"{skill} {before[skill]:.2f} → {after[skill]:.2f}" for _, skill in moves[:_LISTED]]
    rest = len(moves) - len(named)
    return ", ".join(named) + (f" and {rest} more" if rest else "")


def _count(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int) else "?"


def _score(value: Any) -> str:
    return "none yet" if value is None else f"{value:.3f}"
