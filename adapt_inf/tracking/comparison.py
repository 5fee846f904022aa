"""A comparison in MLflow: one run with its table, its pictures and every figure as a curve over the rounds.

Logged from what the comparison came to, once all of it is done; the same again adds nothing, and another comparison
under the same name takes its place.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from adapt_inf.comparison.figures import COSTS, FIGURES, Outcome, Row
from adapt_inf.comparison.pictures import curves
from adapt_inf.comparison.plan import Plan, Variant
from adapt_inf.comparison.table import HEADINGS, difference_tables
from adapt_inf.files import fingerprint
from adapt_inf.project import Project
from adapt_inf.tracking.store import (
    KIND,
    NOTE,
    as_params,
    connect,
    ensure_run,
    find_runs,
    now_ms,
    write,
    write_curves,
    write_tables,
)

COMPARISON = "adapt_inf.comparison"  # its name
_LOGGED = "adapt_inf.logged"  # the fingerprint of what was, or is being


def log_comparison(
    project: Project, folder: Path, plan: Plan, rows: Sequence[Row], outcomes: Sequence[Outcome], text: str
) -> str:
    """Log the comparison in `folder`, whose results.json and pictures/ are written; the id of its run.

    Args:
        text: the tables, for the run's description.
    """
    store = connect(project)
    tags = {KIND: "comparison", COMPARISON: folder.name}
    found = next(iter(find_runs(store, tags)), None)
    params = as_params(
        {"strategies": plan.strategies, "seeds": plan.seeds, "drops": list(plan.drops), **plan.vary, **plan.params}
    )
    source = {"mlflow.source.name": "adapt-inf compare", "mlflow.source.type": "LOCAL"}
    mark = fingerprint([text])
    if found is not None and found.data.tags.get(_LOGGED) != mark:
        # MLflow keeps every point that it was ever given: of two at one step it would show the larger.
        store.client.delete_run(found.info.run_id)
        found = None
    begun = now_ms() if found is None else found.info.start_time
    run_id = ensure_run(store, found, f"comparison {folder.name}", tags | source | {_LOGGED: mark}, params, begun)
    if found is not None and found.info.run_id == run_id and found.info.status == "FINISHED":
        return run_id
    write_curves(store, run_id, points(rows, outcomes), begun)
    columns = [*plan.vary, "strategy", "seeds", *(f"{name}{end}" for name in HEADINGS for end in ("", " ±"))]
    tables = {"comparison.json": (columns, [_cells(row) for row in rows])}
    tables |= {f"{name}.json": found for name, found in difference_tables(plan, rows).items()}
    write_tables(store, run_id, tables)
    store.client.log_artifact(run_id, str(folder / "results.json"))
    store.client.log_artifacts(run_id, str(folder / "pictures"), "pictures")
    write(store, run_id, tags={NOTE: f"```\n{text}\n```"})
    store.client.set_terminated(run_id)
    return run_id


def points(rows: Sequence[Row], outcomes: Sequence[Outcome]) -> list[dict[str, Any]]:
    """Per round (`step`) the mean of each figure of each strategy over the seeds, and half its interval."""
    found: list[dict[str, Any]] = []
    for row in rows:
        for name in (*FIGURES, *COSTS):
            _, lines = curves(outcomes, row.variant, name)
            for step, mean in enumerate(lines[row.strategy], start=1):
                if mean is not None:
                    key = f"{_prefix(row.variant)}{row.strategy}.{name}"
                    found.append({"step": step, key: mean.mean, f"{key}.half": mean.half})
    return found


def _prefix(variant: Variant) -> str:
    return "".join(f"{key} {value} " for key, value in variant)


def _cells(row: Row) -> list[Any]:
    means = [row.means[name] for name in HEADINGS]
    numbers = [value for mean in means for value in ((mean.mean, mean.half) if mean else (None, None))]
    return [*(value for _, value in row.variant), row.strategy, len(row.seeds), *numbers]
