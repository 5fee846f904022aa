"""The curves of a lineage in MLflow: one long-lived run that holds every figure with step = number of the round.

Logging the same lineage again adds no point. MLflow keeps every point that it was ever given, so when a round came out
otherwise than logged, or is no longer of the lineage, the run goes to MLflow's trash and a new one takes all points.
"""

from __future__ import annotations

from typing import Any

from adapt_inf.files import fingerprint
from adapt_inf.project import BASE, Project
from adapt_inf.tracking.reports import COUNTS, FIGURES, round_number
from adapt_inf.tracking.store import KIND, NOTE, connect, find_runs, now_ms, skill_key, write
from adapt_inf.tracking.summary import lineage_table

ROOT = "adapt_inf.root"  # the round that the lineage starts at

_LOGGED = "adapt_inf.logged"  # how many rounds were logged, and the fingerprint of their figures


def log_timeline(project: Project, lineage: list[dict[str, Any]]) -> str | None:
    """Bring the timeline run up to date with `lineage`.

    Args:
        lineage: rounds as `adapt-inf lineage --json` lists them, in order; those without metrics give no point.

    Returns:
        The run's id, or None where there is nothing to show.
    """
    points = [
        (round_number(entry["round"], position), timeline_metrics(entry))
        for position, entry in enumerate(lineage)
        if entry.get("metrics")
    ]
    if not points:
        return None
    root = _root(lineage)
    store = connect(project)
    run = next(iter(find_runs(store, {KIND: "timeline", ROOT: root})), None)
    done = int(run.data.tags.get(_LOGGED, "0").split()[0]) if run is not None else 0
    if run is not None and done and run.data.tags[_LOGGED] != _mark(points[:done], done):
        store.client.delete_run(run.info.run_id)
        run, done = None, 0
    if run is None:
        tags = {KIND: "timeline", ROOT: root, "mlflow.source.name": "adapt-inf round", "mlflow.source.type": "LOCAL"}
        run = store.client.create_run(store.experiment_id, now_ms(), tags, f"timeline from {root}")
    run_id = run.info.run_id
    for step, figures in points[done:]:
        # The timestamp follows from the step: a point that a killed process left unmarked is the same point again.
        write(store, run_id, figures, step=step, timestamp=run.info.start_time + step)
    pictures = project.round(lineage[-1]["round"]) / "pictures"
    if pictures.is_dir():
        store.client.log_artifacts(run_id, str(pictures), "pictures")
    note = f"Every figure over the rounds: step = number of the round.\n\n```\n{lineage_table(lineage)}\n```"
    write(store, run_id, tags={_LOGGED: _mark(points, len(points)), NOTE: note})
    if run.info.status != "FINISHED":
        store.client.set_terminated(run_id)
    return run_id


def timeline_metrics(entry: dict[str, Any]) -> dict[str, Any]:
    """The figures of one round of the lineage under the names that its own run has them."""
    metrics = entry.get("metrics") or {}
    figures = {name: metrics.get(name) for name in FIGURES} | {name: entry.get(name) for name in COUNTS}
    return figures | {skill_key(skill): score for skill, score in (metrics.get("skills") or {}).items()}


def _mark(points: list[tuple[int, dict[str, Any]]], rounds: int) -> str:
    return f"{rounds} {fingerprint(points)}"


def _root(lineage: list[dict[str, Any]]) -> str:
    """The round that the lineage starts at: the first one that is nobody's child, or the first one's parent."""
    first = lineage[0]
    return str(first.get("parent") or first["round"] or BASE)
