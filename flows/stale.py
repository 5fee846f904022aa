"""Runs in Prefect that a killed process left `Running`: nothing else would ever end them."""

from __future__ import annotations

from uuid import UUID

from prefect import get_client
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterId,
    FlowRunFilterParentFlowRunId,
    TaskRunFilter,
    TaskRunFilterFlowRunId,
)
from prefect.states import Crashed

from adapt_inf.writer import Writer


def crash_runs_of(dead: list[Writer]) -> int:
    """Mark as Crashed the flow runs of writers that died, with the rounds and stages in them; how many were open."""
    ids = [UUID(writer.flow_run) for writer in dead if writer.flow_run]
    if not ids:
        return 0
    state = Crashed(message="Its process was killed; the next run went on from what it left.")
    with get_client(sync_client=True) as client:
        flows = client.read_flow_runs(flow_run_filter=FlowRunFilter(id=FlowRunFilterId(any_=ids)))
        flows += client.read_flow_runs(
            flow_run_filter=FlowRunFilter(parent_flow_run_id=FlowRunFilterParentFlowRunId(any_=ids))
        )
        open_flows = [run for run in flows if run.state is None or not run.state.is_final()]
        within = TaskRunFilter(flow_run_id=TaskRunFilterFlowRunId(any_=[run.id for run in flows]))
        tasks = client.read_task_runs(task_run_filter=within) if flows else []
        open_tasks = [run for run in tasks if run.state is None or not run.state.is_final()]
        for task in open_tasks:
            client.set_task_run_state(task.id, state, force=True)
        for run in open_flows:
            client.set_flow_run_state(run.id, state, force=True)
    return len(open_flows) + len(open_tasks)
