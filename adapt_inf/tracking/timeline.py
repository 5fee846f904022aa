"""The curves of a lineage in MLflow: a run per branch that holds every figure with step = number of the round.

A round that the head moves to adds its point to the run that ends with its parent; where another round did so before, a
branch begins: a run of its own, from the first round on, and both stay to be compared. Logging the same lineage again
adds no point. MLflow keeps every point that it was ever given, so when a round came out otherwise than logged, its run
goes to MLflow's trash and a new one takes all points.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from adapt_inf.files import fingerprint
from adapt_inf.project import Project
from adapt_inf.review.round_files import COUNTS, FIGURES, round_number
from adapt_inf.tracking.store import KIND, NOTE, Store, connect, find_runs, now_ms, skill_key, write
from adapt_inf.tracking.summary import lineage_table

if TYPE_CHECKING:
    from mlflow.entities import Run

TIP = "adapt_inf.tip"  # the last round of the branch

_LOGGED = "adapt_inf.logged"  # how many rounds were logged, and the fingerprint of their figures


def log_timeline(project: Project, lineage: list[dict[str, Any]]) -> str | None:
    """Bring the timeline run of a branch up to date.

    Args:
        lineage: the rounds from the one after the base to the branch's last, as `adapt-inf lineage --json` lists them;
            those without metrics give no point.

    Returns:
        The run's id, or None where there is nothing to show.
    """
    points = [(round_number(entry["round"]), timeline_metrics(entry)) for entry in lineage if entry.get("metrics")]
    if not points:
        return None
    root, tip = lineage[0]["parent"], lineage[-1]["round"]
    name = f"timeline {root} to {tip}"
    store = connect(project)
    run = _run_of(store, [entry["round"] for entry in lineage])
    done = int(run.data.tags.get(_LOGGED, "0").split()[0]) if run is not None else 0
    if run is not None and done and run.data.tags[_LOGGED] != _mark(points[:done], done):
        store.client.delete_run(run.info.run_id)
        run, done = None, 0
    if run is None:
        tags = {KIND: "timeline", TIP: tip, "mlflow.source.name": "adapt-inf round", "mlflow.source.type": "LOCAL"}
        run = store.client.create_run(store.experiment_id, now_ms(), tags, name)
    run_id = run.info.run_id
    # Its name first: cut off in between, no other branch takes the run for one that still ends with the parent.
    write(store, run_id, tags={TIP: tip, "mlflow.runName": name})
    for step, figures in points[done:]:
        # The timestamp follows from the step: a point that a killed process left unmarked is the same point again.
        write(store, run_id, figures, step=step, timestamp=run.info.start_time + step)
    pictures = project.round(tip) / "pictures"
    if pictures.is_dir():
        store.client.log_artifacts(run_id, str(pictures), "pictures")
    # Not where the head is: it moves on, and this stays.
    table = lineage_table([{key: value for key, value in entry.items() if key != "head"} for entry in lineage])
    note = f"Every figure over the rounds: step = number of the round.\n\n```\n{table}\n```"
    write(store, run_id, tags={_LOGGED: _mark(points, len(points)), NOTE: note})
    if run.info.status != "FINISHED":
        store.client.set_terminated(run_id)
    return run_id


def _run_of(store: Store, rounds: list[str]) -> Run | None:
    """The run that ends with the last of `rounds`, or else the one that ends with the round before it."""
    for tip in rounds[:-3:-1]:
        for run in find_runs(store, {KIND: "timeline", TIP: tip}):
            return run
    return None


def timeline_metrics(entry: dict[str, Any]) -> dict[str, Any]:
    """The figures of one round of the lineage under the names that its own run has them."""
    metrics = entry.get("metrics") or {}
    figures = {name: metrics.get(name) for name in FIGURES} | {name: entry.get(name) for name in COUNTS}
    figures |= {f"rare.{name}": value for name, value in (metrics.get("rare") or {}).items()}
    return figures | {skill_key(skill): score for skill, score in (metrics.get("skills") or {}).items()}


def _mark(points: list[tuple[int, dict[str, Any]]], rounds: int) -> str:
    return f"{rounds} {fingerprint(points)}"
