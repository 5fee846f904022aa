"""Stage evaluate: what the round's model answers on every suite of the lineage, and the figures over time.

Three models answer: this round's, on all suites; the parent's and the base model, on the suites that are new, since
what was known before the round is part of the figures. Scores of earlier rounds come from the parent's matrix and are
never computed again. Who answers, and how a killed run goes on, is in `adapt_inf.stages.answers`. A sample that the
model cannot read counts as answered with nothing; `fault` in predictions.parquet says why.
"""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Any

import pandas as pd

from adapt_inf.config import Executor, Params
from adapt_inf.data.pool import POOL
from adapt_inf.evaluation.figures import Accuracies, figures, rare_skills
from adapt_inf.executors.parts import device_kind
from adapt_inf.files import file_digest, folder_digest, read_json, remove_folder, write_json, write_parquet
from adapt_inf.project import BASE, Project
from adapt_inf.stages.answers import MATRIX, OWN, PARTS, THE_BASE, THE_PARENT, marked_answers, new_suites, suites_of
from adapt_inf.stages.context import StageContext

PREDICTIONS = "predictions.parquet"
BEFORE = "before.parquet"
FIGURES = "metrics.json"

Matrix = dict[str, Any]


def run(ctx: StageContext) -> dict[str, Any]:
    """Write rounds/<round>/evaluate: predictions.parquet, accuracy_matrix.json and metrics.json.

    before.parquet has the columns of predictions.parquet: the parent's model on the suites that are new.
    """
    before: Matrix = read_json(ctx.parent_input("evaluate") / MATRIX)
    return _evaluate(ctx, before, parent=ctx.parent)


def evaluate_base(project: Project, params: Params) -> dict[str, Any]:
    """Write rounds/base/evaluate: the base model on the suites of the base pool, possibly none; by this machine."""
    ctx = StageContext(project, BASE, replace(params, executor=Executor()))
    report = _evaluate(ctx, {"skills": [], "rounds": [], "values": {}, "base": {}}, parent=None)
    if not any(project.work(BASE).iterdir()):
        project.work(BASE).rmdir()
    return report


def _evaluate(ctx: StageContext, before: Matrix, parent: str | None) -> dict[str, Any]:
    pool, suites, new = ctx.input("pool"), suites_of(ctx), new_suites(ctx)
    depends_on = [device_kind(ctx.params.executor), asdict(ctx.params.evaluate), before, read_json(pool / POOL)]
    depends_on += [folder_digest(ctx.input("model"))]
    depends_on += [folder_digest(ctx.parent_input("model"))] if parent is not None else []
    depends_on += [[name, file_digest(path)] for name, path in suites.items()]
    with ctx.output("evaluate", depends_on) as out:
        answers, resumed = marked_answers(ctx, out)
        own, base = answers[OWN], answers[THE_BASE]
        inherited = base if parent == BASE else answers[THE_PARENT]
        if parent is None:
            base = own
        matrix = _matrix(ctx.round, parent, before, own, inherited, base, read_json(pool / POOL))
        write_parquet(out / PREDICTIONS, own)
        if parent is not None:
            write_parquet(out / BEFORE, inherited)
        write_json(out / MATRIX, matrix)
        metrics = _metrics(ctx.round, parent, matrix)
        write_json(out / FIGURES, metrics)
        remove_folder(out / PARTS)
    return {
        "samples": len(own),
        "answers": sum(map(len, answers.values())),
        "resumed": resumed,
        "unreadable": int((own["fault"] != "").sum()),
        "suites": len(suites),
        "new_suites": len(new),
        "skills": len(matrix["skills"]),
        "average_accuracy": metrics["average_accuracy"],
        "forgetting": metrics["forgetting"],
    }


def _scores(answers: pd.DataFrame) -> dict[str, float]:
    """Mean score of each "<suite>/<skill>", in the order of suites, then of names."""
    means = answers.groupby(answers["suite"] + "/" + answers["skill"])["score"].mean()
    return {str(key): float(value) for key, value in means.sort_index().items()}


def _matrix(
    round_id: str,
    parent: str | None,
    before: Matrix,
    own: pd.DataFrame,
    inherited: pd.DataFrame,
    base: pd.DataFrame,
    pool: dict[str, Any],
) -> Matrix:
    """The parent's matrix with this round's row and, on what is new, the parent's and the base model's scores."""
    earlier = [{**entry, "pool_share": _share(entry, pool)} for entry in before["skills"]]
    known = {_key(entry) for entry in earlier}
    entries = []
    for (suite, skill), rows in own.groupby(["suite", "skill"], sort=True):
        entry = {"skill": str(skill), "suite": str(suite), "round": round_id, "samples": len(rows)}
        if _key(entry) not in known:
            entries.append({**entry, "pool_share": _share(entry, pool)})
    values = {at: dict(scores) for at, scores in before["values"].items()}
    if parent is not None:
        values[parent] |= _scores(inherited)
    values[round_id] = _scores(own)
    return {
        "skills": earlier + entries,
        "rounds": [*before["rounds"], round_id],
        "values": values,
        "base": {**before["base"], **_scores(base)},
    }


def _key(entry: dict[str, Any]) -> str:
    return f"{entry['suite']}/{entry['skill']}"


def _share(entry: dict[str, Any], pool: dict[str, Any]) -> float:
    """Of the pool's live samples, how many train this skill; 0 in an empty pool."""
    return pool["skills"].get(_key(entry), 0) / pool["live"] if pool["live"] else 0.0


def _metrics(round_id: str, parent: str | None, matrix: Matrix) -> dict[str, Any]:
    accuracies = Accuracies(
        rounds=matrix["rounds"],
        brought={_key(entry): entry["round"] for entry in matrix["skills"]},
        values=matrix["values"],
        base=matrix["base"],
    )
    rare = rare_skills({_key(entry): entry["pool_share"] for entry in matrix["skills"]})
    return {
        "round": round_id,
        "parent": parent,
        **figures(accuracies),
        "rare": figures(accuracies.of(rare)) if rare else None,
        "skills": {skill: matrix["values"][round_id][skill] for skill in accuracies.brought},
    }
