"""The curves of a lineage in MLflow: one long-lived run that holds every figure with step = number of the round.

Logging the same lineage again adds no point. MLflow keeps every point that it was ever given, so when a round came out
otherwise than logged, or is no longer of the lineage, the run goes to MLflow's trash and a new one takes all points.
"""

from __future__ import annotations

from typing import Any

from adapt_inf.files import fingerprint
from adapt_inf.project import BASE, Project
from adapt_inf.tracking.reports import COUNTS, FIGURES, round_number
from adapt_inf.tracking.store import KIND, NOTE, connect, find_runs, now_ms, write
from adapt_inf.tracking.summary import lineage_table

ROOT = "adapt_inf.root"  # the round that the lineage starts at

_LOGGED = "adapt_inf.logged."  # + round: the fingerprint of the figures that were logged for it


def log_timeline(project: Project, lineage: list[dict[str, Any]]) -> str | None:
    """Bring the timeline run up to date with `lineage`.

    Args:
        lineage: rounds as `adapt-inf lineage --json` lists them, in order; those without metrics give no point.

    Returns:
        The run's id, or None where there is nothing to show.
    """
    points = {
        entry["round"]: (round_number(entry["round"], position), timeline_metrics(entry))
        for position, entry in enumerate(lineage)
        if entry.get("metrics")
    }
    if not points:
        return None
    marks = {f"{_LOGGED}{name}": fingerprint([step, figures]) for name, (step, figures) in points.items()}
    root = _root(lineage)
    store = connect(project)
    run = next(iter(find_runs(store, {KIND: "timeline", ROOT: root})), None)
    logged = {key: value for key, value in run.data.tags.items() if key.startswith(_LOGGED)} if run else {}
    if run is not None and any(marks.get(key) != value for key, value in logged.items()):
        store.client.delete_run(run.info.run_id)
        run, logged = None, {}
    if run is None:
        tags = {KIND: "timeline", ROOT: root, "mlflow.source.name": "adapt-inf round", "mlflow.source.type": "LOCAL"}
        run = store.client.create_run(store.experiment_id, now_ms(), tags, f"timeline from {root}")
    run_id = run.info.run_id
    for name, (step, figures) in points.items():
        if f"{_LOGGED}{name}" not in logged:
            # The timestamp follows from the step: a point that a killed process left unmarked is the same point again.
            write(store, run_id, figures, step=step, timestamp=run.info.start_time + step)
    pictures = project.round(lineage[-1]["round"]) / "pictures"
    if pictures.is_dir():
        store.client.log_artifacts(run_id, str(pictures), "pictures")
    note = f"Every figure over the rounds: step = number of the round.\n\n```\n{lineage_table(lineage)}\n```"
    write(store, run_id, tags={**{k: v for k, v in marks.items() if k not in logged}, NOTE: note})
    if run.info.status != "FINISHED":
        store.client.set_terminated(run_id)
    return run_id


def timeline_metrics(entry: dict[str, Any]) -> dict[str, Any]:
    """The figures of one round of the lineage under the names that its own run has them."""
    metrics = entry.get("metrics") or {}
    figures = {name: metrics.get(name) for name in FIGURES} | {name: entry.get(name) for name in COUNTS}
    return figures | {f"skills/{skill}": score for skill, score in (metrics.get("skills") or {}).items()}


def _root(lineage: list[dict[str, Any]]) -> str:
    """The round that the lineage starts at: the first one that is nobody's child, or the first one's parent."""
    first = lineage[0]
    return str(first.get("parent") or first["round"] or BASE)
