"""Run a round for every drop that waits, oldest first, until none does: what a schedule, event or command means.

Prefect's own queues are not first in, first out; ours is the order, and a run in Prefect says no more than "look". Of
two runs at once one works and the other leaves: the one at work looks again after it has given up its place, so a drop
that came in between is not left behind.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

from prefect import flow, runtime
from prefect.client.schemas.objects import State
from prefect.settings import PREFECT_FLOWS_HEARTBEAT_FREQUENCY, Settings, temporary_settings
from prefect.states import Completed

from adapt_inf import drop_queue, lineage, promotion
from adapt_inf.errors import AdaptInfError, DropError
from adapt_inf.project import Project
from adapt_inf.stages.forkserver import forkserver
from adapt_inf.tracking import rounds as tracked
from adapt_inf.tracking.outbox import attempt, untracked
from adapt_inf.tracking.process import tracking_process
from adapt_inf.tracking.sending import catch_up
from adapt_inf.writer import BusyError, writer_lock
from flows.approval import match_forms
from flows.processes import end_with_runner
from flows.round import lifelong_round, say
from flows.stale import crash_runs_of


def _name() -> str:
    return f"drain {Path(runtime.flow_run.parameters['root']).name}"


@flow(name="drain", flow_run_name=_name)
def drain(root: str, served: bool = False) -> list[str] | State[Any]:
    """Work off the queue of the project at `root`; the rounds that were done.

    Args:
        served: begun by a schedule or an event: where another process is at work, or a person has to look at a round
            that failed, there is nothing to do and no fault.

    Raises:
        BusyError: another process is at work here.
        AdaptInfError: a round failed (the rounds before it stand), or a drop was refused (the ones after it are done).
    """
    if served and not end_with_runner():  # the next one begins with a look of its own, and goes on with the round
        return Completed(data=[], message="The runner that began this has ended.")
    project = Project(Path(root))
    done: list[str] = []
    refused: list[str] = []
    while True:
        try:
            with writer_lock(project, flow_run=runtime.flow_run.id) as dead:
                needed = bool(dead) or lineage.has_work(project)
                crash_runs_of(dead)
                dead.clear()
                with forkserver(), tracking_process(project) if needed else nullcontext():
                    if needed:
                        attempt(project, tracked.fail_stale, project)
                    held = _work_off(project, done, refused, served=served)
                if served:
                    match_forms(project)
                seen = set(drop_queue.pending_drops(project))
        except BusyError as busy:
            if not served:
                raise
            return Completed(data=done, message=busy.message)
        if set(drop_queue.pending_drops(project)) <= seen:
            break
    if refused:
        raise AdaptInfError("\n".join(refused))
    return Completed(data=done, message=held or (f"Done: {', '.join(done)}." if done else "Nothing waited."))


def _work_off(project: Project, done: list[str], refused: list[str], *, served: bool) -> str | None:
    """Run rounds until there is none to run; why not, where a person has to look first."""
    promotion.settle(project)  # a move of the head that a killed process began
    while (round_id := lineage.next_round(project)) is not None:
        record = lineage.read_round(project, round_id)
        if served and record.status == "failed":
            return f"{round_id} failed, and what waits holds behind it: {record.error}"
        try:
            with without_heartbeats():
                lifelong_round(str(project.root), round_id)
        except DropError as error:
            if project.round(round_id).exists():
                raise
            say(f"  {round_id} refused, and taken back: {error.message}")
            refused.append(str(error))
        else:
            done.append(round_id)
    if done and done[-1] not in untracked(project):  # MLflow answers: what earlier rounds missed can go now
        catch_up(project)
    waiting = lineage.awaiting(project)
    return f"{', '.join(waiting)} waits for approval, and what waits holds behind it." if waiting else None


def without_heartbeats() -> AbstractContextManager[Settings]:
    """Flows begun in this block do not say every few minutes that they live.

    The thread that would sleeps by the second, and the end of a flow waits for it. Dead runs are found by the writer's
    list, see `flows.stale`.
    """
    return temporary_settings(set_defaults={PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None})
