"""A person's word on a round, in Prefect's page: a run that waits, without a process, until its form is filled in.

`adapt-inf promote` says the same. Whichever comes first counts; the form of a round that was decided elsewhere is ended
by the next drain.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from prefect import flow, get_client
from prefect.client.schemas.filters import (
    DeploymentFilter,
    DeploymentFilterName,
    FlowRunFilter,
    FlowRunFilterState,
    FlowRunFilterStateType,
)
from prefect.client.schemas.objects import State, StateType
from prefect.flow_runs import suspend_flow_run
from prefect.input import RunInput
from prefect.states import Completed

from adapt_inf import lineage, promotion
from adapt_inf.project import Project
from flows.names import deployment_name

_DAYS = 365  # that a form stays open; the round waits on without it, for `adapt-inf promote`
_OPEN = [StateType.SCHEDULED, StateType.PENDING, StateType.RUNNING, StateType.PAUSED]


class Decision(RunInput):
    """The form."""

    decision: Literal["promote", "decline"]
    why: str = ""
    by: str = ""


@flow(name="approve", flow_run_name="approve {round_id}")
def approve(root: str, round_id: str) -> State[Any]:
    """Wait for a person's decision on `round_id` and carry it out; the drops behind it go on then."""
    project = Project(Path(root))
    if round_id not in lineage.awaiting(project):
        return Completed(message=f"{round_id} does not wait any more.")
    form = Decision.with_initial_data(description=describe(project, round_id))
    decision = suspend_flow_run(wait_for_input=form, timeout=_DAYS * 86400, key="decision")
    by = decision.by or "somebody at Prefect's page"
    if round_id in lineage.awaiting(project):
        act = promotion.promote if decision.decision == "promote" else promotion.decline
        act(project, round_id, by, decision.why, wait=True)
    from flows.drain import drain  # which ends forms, and so needs this module first

    drain(root, served=True)
    return Completed(message=f"{round_id}: {lineage.read_round(project, round_id).verdict} by {by}.")


def describe(project: Project, round_id: str) -> str:
    """What the form says of the round, as Markdown: what it took in, and its figures against the parent's."""
    record = lineage.read_round(project, round_id)
    figures = record.gate["figures"] if record.gate else {}
    rows = [f"| {name} | {f'{value:.3f}' if isinstance(value, float) else value} |" for name, value in figures.items()]
    title = f"**{round_id}** took in {record.drop} on top of {record.parent}. Its model becomes champion if you say so."
    return "\n".join([title, "", "| | |", "|---|---|", *rows])


def match_forms(project: Project) -> None:
    """See that each round that waits has an open form, and no other has one, where forms are served."""
    awaiting = set(lineage.awaiting(project))
    name = deployment_name(project, "approve")
    with get_client(sync_client=True) as client:
        served = client.read_deployments(
            deployment_filter=DeploymentFilter(name=DeploymentFilterName(any_=[name])), limit=1
        )
        if not served:
            return
        states = FlowRunFilter(state=FlowRunFilterState(type=FlowRunFilterStateType(any_=_OPEN)))
        forms = client.read_flow_runs(
            deployment_filter=DeploymentFilter(name=DeploymentFilterName(any_=[name])), flow_run_filter=states
        )
        for form in forms:
            if form.parameters["round_id"] not in awaiting and form.state and form.state.is_paused():
                verdict = lineage.read_round(project, form.parameters["round_id"]).verdict
                client.set_flow_run_state(form.id, Completed(message=f"{verdict} elsewhere"), force=True)
        for round_id in awaiting - {form.parameters["round_id"] for form in forms}:
            parameters = {"root": str(project.root), "round_id": round_id}
            client.create_flow_run_from_deployment(served[0].id, parameters=parameters, name=f"approve {round_id}")
