"""Run a round for every drop that waits, oldest first, until none does: what a schedule, event or command means."""

from __future__ import annotations

from pathlib import Path

from prefect import flow, runtime

from adapt_inf import lineage, promotion
from adapt_inf.project import Project
from adapt_inf.tracking import rounds as tracked
from adapt_inf.writer import writer_lock
from flows.round import lifelong_round
from flows.stale import crash_runs_of


@flow(name="drain", flow_run_name="drain {root}")
def drain(root: str) -> list[str]:
    """Work off the queue of the project at `root`; the rounds that were done.

    Raises:
        BusyError: another process is at work here.
        AdaptInfError: a round failed (the rounds before it stand).
    """
    project = Project(Path(root))
    done = []
    with writer_lock(project, flow_run=runtime.flow_run.id) as dead:
        crash_runs_of(dead)
        tracked.fail_stale(project)
        promotion.settle(project)
        while (round_id := lineage.next_round(project)) is not None:
            lifelong_round(root, round_id)
            done.append(round_id)
    return done
