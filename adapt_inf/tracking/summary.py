"""A lineage for the terminal: plain tables of at most 120 columns, and the command that opens the MLflow UI.

Nothing heavy is imported, so `adapt-inf lineage` may use it.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator
from contextlib import suppress
from itertools import accumulate
from typing import Any

from adapt_inf.errors import shown
from adapt_inf.project import BASE, Project
from adapt_inf.tracking.store import MLflowError, address_of

WIDTH = 120

_SKILL_WIDTH = 14  # most columns of one skill's heading
_SCORE_WIDTH = 5  # columns of a score
_HEAD = ("round", "drop", "strategy", "status", "gate", "average", "forgot", "pool", "selected", "pruned")
_DROP = _HEAD.index("drop")
_DROP_WIDTH = 24  # most columns of a drop's name; fewer where the other columns need the room
_LEGEND = "* the head: the next round builds on it, and its model is the champion"


def lineage_table(rounds: list[dict[str, Any]]) -> str:
    """Two tables, one under the other: the rounds with their figures, then the score of each skill after each round.

    Rounds stand in the order of the tree: a side branch is set in, with lines, above the round with which the line goes
    on, to the head or else to the latest. Skills that do not fit beside each other go on in a further table.

    Args:
        rounds: as `adapt-inf lineage --json` lists them.
    """
    if not rounds:
        return "no rounds yet"
    rows = [[lines + _name(entry), *_figures(entry)] for lines, entry in _tree(rounds)]
    others = [column for column in range(len(_HEAD)) if column != _DROP]
    taken = sum(max(len(row[column]) for row in [list(_HEAD), *rows]) + 2 for column in others)
    for row in rows:
        row[_DROP] = _cut(row[_DROP], min(_DROP_WIDTH, WIDTH - taken))
    notes = [_LEGEND] if any("head" in entry for entry in rounds) else []
    held = [entry for entry in rounds if _held(entry) and entry["gate"]["reasons"]]
    notes += [_cut(f"{e['round']} {e['gate']['verdict']}: {'; '.join(e['gate']['reasons'])}", WIDTH) for e in held]
    head = "\n".join([table([list(_HEAD), *rows], left=5), *([""] if notes else []), *notes])
    return "\n\n".join([head, *_skill_tables(rounds)])


def _tree(rounds: list[dict[str, Any]]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each round with the lines that stand before it; the base as well where a branch begins there or the head is."""
    by_name = {entry["round"]: entry for entry in rounds}
    children: dict[str, list[dict[str, Any]]] = {}
    for entry in rounds:
        parent = str(entry.get("parent"))
        children.setdefault(parent if parent in by_name else BASE, []).append(entry)
    at = next((entry["round"] for entry in rounds if entry.get("head")), None)
    at_base = at is None and "head" in rounds[0]
    way = set()
    while at in by_name:
        way.add(at)
        at = by_name[at].get("parent")

    def branch(top: str, lines: str) -> Iterator[tuple[str, dict[str, Any]]]:
        while found := children.get(top):
            ahead = [entry for entry in found if entry["round"] in way]
            ahead = ahead or [entry for entry in found if not _held(entry)] or found
            for entry in found:
                if entry is not ahead[-1]:
                    yield f"{lines}├─ ", entry
                    yield from branch(entry["round"], f"{lines}│  ")
            yield lines, ahead[-1]
            top = ahead[-1]["round"]

    if at_base or len(children[BASE]) > 1:
        yield "", {"round": BASE, "head": at_base}
    yield from branch(BASE, "")


def _name(entry: dict[str, Any]) -> str:
    return f"{entry['round']} *" if entry.get("head") else str(entry["round"])


def _held(entry: dict[str, Any]) -> bool:
    """Whether its gate keeps the head from a round."""
    return bool(entry.get("gate")) and entry["gate"]["verdict"] not in ("passed", "promoted")


def mlflow_command(project: Project, round_id: str | None = None, host: str = "127.0.0.1", port: int = 5000) -> str:
    """The command that opens the project in the MLflow UI and the address to look at, on two lines.

    The address is that of the runs of the project, or of the run of a round; where MLFLOW_TRACKING_URI names a server,
    which is not asked, that of its experiments unless the round was logged there from here, and no command. The UI
    opens in its GenAI mode unless told otherwise.
    """
    told = os.environ.get("MLFLOW_TRACKING_URI", "")
    if told.startswith(("http://", "https://")):
        return f"{shown(told).rstrip('/')}/{_page(address_of(project, round_id))}"
    uri = told or f"sqlite:///{project.root.resolve() / 'mlflow.db'}"
    address = shlex.quote(uri) if shown(uri) == uri else '"$MLFLOW_TRACKING_URI"'  # no password on a screen
    command = f"mlflow ui --backend-store-uri {address} --host {host} --port {port}"
    place = address_of(project, round_id) if told else ""
    if not told and (project.root / "mlflow.db").is_file():
        with suppress(MLflowError):  # who looks will see that it cannot be opened
            place = _place(project, round_id)
    return f"{command}\nhttp://{host}:{port}/{_page(place)}"


def _page(place: str) -> str:
    return f"#/experiments{place}?workflowType=machine_learning"


def _place(project: Project, round_id: str | None) -> str:
    """Where in MLflow's own store the project's runs are, or a round's run."""
    from adapt_inf.tracking.rounds import runs_of
    from adapt_inf.tracking.store import connect

    store = connect(project)
    run = runs_of(store, round_id).get("") if round_id is not None else None
    return f"/{store.experiment_id}/runs" + (f"/{run.info.run_id}" if run is not None else "")


def _figures(entry: dict[str, Any]) -> list[str]:
    metrics = entry.get("metrics") or {}
    return [
        str(entry.get("drop") or "-"),
        _cut(str(entry.get("strategy") or "-"), 16),
        _cut(str(entry.get("status") or "-"), 12),
        str((entry.get("gate") or {}).get("verdict", "-")),
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
        tables.append(table(rows, left=1))
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


def table(rows: list[list[str]], left: int) -> str:
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
