"""A lineage for the terminal: plain tables of at most 120 columns, and the command that opens the MLflow UI.

Nothing heavy is imported, so `adapt-inf lineage` may use it.
"""

from __future__ import annotations

import os
import shlex
from itertools import accumulate
from typing import Any

from adapt_inf.project import Project

WIDTH = 120

_SKILL_WIDTH = 14  # most columns of one skill's heading
_SCORE_WIDTH = 5  # columns of a score
_HEAD = ("round", "drop", "strategy", "status", "average", "forgot", "pool", "selected", "pruned")


def lineage_table(rounds: list[dict[str, Any]]) -> str:
    """Two tables, one under the other: the rounds with their figures, then the score of each skill after each round.

    Skills that do not fit beside each other go on in a further table.

    Args:
        rounds: as `adapt-inf lineage --json` lists them.
    """
    if not rounds:
        return "no rounds yet"
    head = _table([list(_HEAD)] + [_figures(entry) for entry in rounds], left=4)
    return "\n\n".join([head, *_skill_tables(rounds)])


def mlflow_command(project: Project, host: str = "127.0.0.1", port: int = 5000) -> str:
    """The command that opens the project in the MLflow UI and the address to look at, on two lines.

    The UI opens in its GenAI mode unless the address says otherwise. Where MLFLOW_TRACKING_URI names a server, that
    server is the UI and only its address comes back.
    """
    page = "#/experiments?workflowType=machine_learning"
    told = os.environ.get("MLFLOW_TRACKING_URI", "")
    if told.startswith(("http://", "https://")):
        return f"{told.rstrip('/')}/{page}"
    uri = told or f"sqlite:///{project.root.resolve() / 'mlflow.db'}"
    command = f"mlflow ui --backend-store-uri {shlex.quote(uri)} --host {host} --port {port}"
    return f"{command}\nhttp://{host}:{port}/{page}"


def _figures(entry: dict[str, Any]) -> list[str]:
    metrics = entry.get("metrics") or {}
    return [
        str(entry["round"]),
        _cut(str(entry.get("drop") or "-"), 24),
        _cut(str(entry.get("strategy") or "-"), 16),
        _cut(str(entry.get("status") or "-"), 12),
        _score(metrics.get("average_accuracy")),
        _score(metrics.get("forgetting")),
        *(_count(entry.get(name)) for name in ("pool_size", "selected", "pruned")),
    ]


def _skill_tables(rounds: list[dict[str, Any]]) -> list[str]:
    scores = [(entry.get("metrics") or {}).get("skills") or {} for entry in rounds]
    skills = list(dict.fromkeys(skill for found in scores for skill in found))
    names = _short_names(skills)
    first = max(len("skills"), *(len(str(entry["round"])) for entry in rounds))
    tables = []
    while skills:
        ends = accumulate((2 + max(len(names[skill]), _SCORE_WIDTH) for skill in skills), initial=first)
        fit = max(1, sum(end <= WIDTH for end in ends) - 1)
        part, skills = skills[:fit], skills[fit:]
        rows = [["skills", *(names[skill] for skill in part)]]
        rows += [
            [str(e["round"]), *(_score(found.get(s)) for s in part)] for e, found in zip(rounds, scores, strict=True)
        ]
        tables.append(_table(rows, left=1))
    return tables


def _short_names(skills: list[str]) -> dict[str, str]:
    """A heading for each skill: its own name where that is enough, and its suite where two would look alike."""
    plain = {skill: skill.partition("/")[2] or skill for skill in skills}
    seen = [_cut(name, _SKILL_WIDTH) for name in plain.values()]
    short: dict[str, str] = {}
    for position, (skill, cut) in enumerate(zip(skills, seen, strict=True)):
        if seen.count(cut) > 1:
            suite, _, name = skill.partition("/")
            cut = f"{_cut(suite, 6)}/{_cut(name, 7)}"
        if cut in short.values():
            cut = f"{cut[: _SKILL_WIDTH - 3]}#{position}"
        short[skill] = cut
    return short


def _table(rows: list[list[str]], left: int) -> str:
    """Columns as wide as their widest cell; the first `left` flush left, the others flush right."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [
        "  ".join(
            cell.ljust(width) if column < left else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
    return "\n".join([lines[0], "  ".join("-" * width for width in widths), *lines[1:]])


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 1] + "…"


def _score(value: Any) -> str:
    return "-" if value is None else f"{value:.3f}"


def _count(value: Any) -> str:
    return "-" if value is None else f"{value:,}"
