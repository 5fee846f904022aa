"""A sample's life along a line of rounds: where it came from, what each round made of it, what became of it.

Evaluation samples are not candidates of any round: of them it says what each round's model answered.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd

from adapt_inf import drop_queue, lineage
from adapt_inf.config import load_params
from adapt_inf.data.manifest import read_pool
from adapt_inf.errors import AdaptInfError
from adapt_inf.explaining.names import Table, find_sample, tables_of, unknown
from adapt_inf.explaining.standing import standing
from adapt_inf.explaining.turned_away import Brought, look_up, said_before, shown_before, suite_sample
from adapt_inf.files import read_json
from adapt_inf.project import BASE, Project

_PREDICTIONS, _BEFORE = "evaluate/predictions.parquet", "evaluate/before.parquet"
_PRUNED = {"pruned_round": "round", "pruned_cluster": "cluster", "similarity": "similarity", "duplicate_of": "of"}


def explain(project: Project, name: str, tip: str | None = None) -> dict[str, Any]:
    """What happened to a sample on the line of rounds that ends with `tip`.

    Args:
        name: "<drop>/<id>", or an end of it that fits one sample only.
        tip: a round; the head when left out.

    Returns:
        sample, kind (training, evaluation, rejected or duplicate), drop, round (that brought or judged it), tip, head;
        then, None or empty where it does not apply: skill, live, pruned (round, cluster, similarity, of), rounds (see
        `standing.standing`), rejected (split, file, reason, kind, of), duplicate (split, file, of), answers (a row a
        round, from the one before it came: prediction, score, fault), missing (files not here that would say more).

    Raises:
        RoundError: there is no such round.
        AdaptInfError: no sample of the line is called so, or several are.
    """
    head = lineage.head(project)
    tip = tip or head
    line = line_of(project, tip)
    tables = tables_of(project, line)
    found = find_sample(name, tables)
    life: dict[str, Any] = {"sample": name, "kind": "", "tip": tip, "head": head}
    life |= {"skill": None, "live": None, "pruned": None, "rounds": [], "rejected": None, "duplicate": None}
    life |= {"answers": [], "missing": []}
    if found is None:
        return life | _duplicate(project, name, line, tables)
    sample_id, table = found
    life |= {"sample": sample_id, "kind": table.kind, "drop": sample_id.partition("/")[0]}
    row = table.row(sample_id)
    if table.kind == "training":
        return life | _trained(project, row, line)
    if table.kind == "evaluation":
        return life | _answers(project, sample_id, row, line)
    return life | _rejected(project, sample_id, table.round, row)


def line_of(project: Project, tip: str) -> list[str]:
    """The rounds from the base to `tip`.

    Raises:
        RoundError: one of them is not there.
    """
    line = [tip]
    while line[-1] != BASE:
        line.append(lineage.read_round(project, line[-1]).parent)
    return line[::-1]


def _trained(project: Project, row: dict[str, Any], line: Sequence[str]) -> dict[str, Any]:
    came, left = row["round"], row["pruned_round"]
    first = max(line.index(came), 1)  # what the base brought is a candidate from the first round on
    last = line.index(left) if left else len(line) - 1
    over = {record.round: record.status == "finished" for record in lineage.rounds(project)}
    rounds = [
        standing(project, name, row["sample_id"], new=name == came, over=over[name]) for name in line[first : last + 1]
    ]
    pruned = {new: row[old] for old, new in _PRUNED.items()} if left else None
    missing = [file for each in rounds for file in each.pop("missing")]
    live: bool | None = row["live"]
    pool = project.output(line[-1], "pool")
    if live and over.get(line[-1]) and not pool.is_dir():  # a later pool than those that are here
        live, missing = None, [*missing, str(pool.relative_to(project.root))]
    about = {"drop": row["drop"], "skill": row["skill"], "round": came, "live": live, "pruned": pruned}
    return {**about, "rounds": rounds, "missing": missing}


def _answers(project: Project, sample_id: str, row: dict[str, Any], line: Sequence[str]) -> dict[str, Any]:
    came = _took(project, line, sample_id.partition("/")[0])
    at = line.index(came)
    files = {name: project.round(name) / _PREDICTIONS for name in line[at:]}
    if came != BASE:  # what the parent's model answered before it had learned from the drop
        files = {line[at - 1]: project.round(came) / _BEFORE} | files
    answers, missing = [], []
    for name, path in files.items():
        if not path.is_file():
            missing.append(str(path.relative_to(project.root)))
            continue
        table = pd.read_parquet(path, filters=[("sample_id", "==", sample_id)])
        answers += [{"round": name, **each} for each in table[["prediction", "score", "fault"]].to_dict("records")]
    accepted = {"metric": row["metric"], "accepted": row["answers"]}
    return {"skill": row["skill"], "round": came, **accepted, "answers": answers, "missing": missing}


def _took(project: Project, line: Sequence[str], drop: str) -> str:
    """The round of a line that took in a drop; the base for what it began with."""
    return next((name for name in line[1:] if load_params(project.params_of(name)).drop == drop), BASE)


def _rejected(project: Project, sample_id: str, round_id: str, row: dict[str, Any]) -> dict[str, Any]:
    rejected: dict[str, Any] = {key: row[key] for key in ("split", "file", "reason", "kind")} | {"of": None}
    missing: list[str] = []
    if row["kind"] == "leak":
        brought = look_up(project, round_id, sample_id)
        if brought is None or brought.content is None:
            missing.append(f"drops/{sample_id.partition('/')[0]}")
        else:
            rejected["of"] = _original(project, round_id, brought, leak=True)
    return {"round": round_id, "rejected": rejected, "missing": missing}


def _duplicate(project: Project, name: str, line: Sequence[str], tables: Sequence[Table]) -> dict[str, Any]:
    """What a name stands for that no table has: a sample that ingest left out since it says what another says.

    Raises:
        AdaptInfError: it is none.
    """
    for round_id in line[1:]:
        report = project.output(round_id, "ingest") / "report.json"
        if not report.is_file() or not any(read_json(report)["duplicates"].values()):
            continue
        brought = look_up(project, round_id, name)
        if brought is not None and brought.content is not None:
            about = {"split": brought.split, "file": brought.file}
            of = _original(project, round_id, brought, leak=False)
            return {
                "kind": "duplicate",
                "drop": name.partition("/")[0],
                "round": round_id,
                "duplicate": about | {"of": of},
            }
    _elsewhere(project, name, line)
    raise unknown(name, line[-1], tables)


def _original(project: Project, round_id: str, brought: Brought, *, leak: bool) -> str | None:
    """The sample that a leak or a duplicate of a round repeats; None where what it was is not on this machine.

    Leaks are between the splits, duplicates within one.
    """
    params = load_params(project.params_of(round_id))
    if (brought.split == "train") == leak:
        return suite_sample(project, round_id, params.parent, brought, params.ingest.max_pixels)
    pool = project.output(params.parent, "pool")
    rows = [read_pool(pool)] if pool.is_dir() else []
    if leak:
        return next(filter(None, (shown_before(frame, brought) for frame in rows)), None)
    rows = [frame[frame["live"]] for frame in rows] + [read_pool(project.output(round_id, "ingest"))]
    return next(filter(None, (said_before(frame, brought) for frame in rows)), None)


def _elsewhere(project: Project, name: str, line: Sequence[str]) -> None:
    """Refuse a name that another branch knows, or one of a drop that no round has taken in.

    Raises:
        AdaptInfError: saying where it is.
    """
    drop = name.partition("/")[0]
    if (reason := drop_queue.refused_drops(project).get(drop)) is not None:
        raise AdaptInfError(f"drop {drop} was refused, and none of its samples was taken in: {reason}")
    if drop in drop_queue.pending_drops(project):
        raise AdaptInfError(f"drop {drop} waits: no round has looked at {name} yet.", "`adapt-inf round` takes it in.")
    for record in lineage.rounds(project):
        if record.round in line:
            continue
        if (found := find_sample(name, tables_of(project, [record.round]))) is not None:
            raise AdaptInfError(
                f"{found[0]} is on no round of the line to {line[-1]}; {record.round}, on another, has it.",
                f"`adapt-inf explain {found[0]} --round {record.round}` tells its life there.",
            )
