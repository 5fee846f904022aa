"""A person's word on a round, in Prefect's page: a run that waits, without a process, until its form is filled in.

`adapt-inf promote` says the same. Whichever comes first counts; the form of a round that was decided elsewhere is ended
by the next drain.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from prefect import flow, get_client
from prefect.client.schemas.filters import (
    FlowFilter,
    FlowFilterName,
    FlowRunFilter,
    FlowRunFilterState,
    FlowRunFilterStateType,
)
from prefect.client.schemas.objects import State, StateType
from prefect.flow_runs import suspend_flow_run
from prefect.input import RunInput
from prefect.states import Completed

from adapt_inf import lineage, promotion
from adapt_inf.errors import RoundError
from adapt_inf.project import Project
from adapt_inf.review.round_files import RoundFiles

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
    """What the form says of the round, as Markdown: what it took in, its average and the parent's, what fell."""
    record = lineage.read_round(project, round_id)
    figures, parent = record.gate["figures"] if record.gate else {}, record.parent
    values = RoundFiles(project, round_id).matrix.get("values", {})
    after = values.get(round_id, {})
    before = [score for skill, score in values.get(parent, {}).items() if skill in after]
    average = f"average accuracy of {round_id}" + (f", over {len(after)} skills" if after else "")
    rows = {average: _figure(figures.get("average_accuracy"))}
    if before:
        rows[f"average accuracy of {parent}, over {len(before)} of these"] = _figure(sum(before) / len(before))
    rows |= {
        f"largest fall of a skill against {parent} (below 0: it rose)": _figure(figures.get("max_forgetting")),
        "that skill": (figures.get("max_forgetting_skill") or "-").replace("|", "\\|"),
        f"score of a skill against {parent}'s, mean in %": _figure(figures.get("relative_gain"), 1),
    }
    title = f"**{round_id}** took in {record.drop} on top of {parent}. Its model becomes champion if you say so."
    table = [f"| {name} | {said} |" for name, said in rows.items()]
    return "\n".join([title, "", "| figure | value |", "|---|---|", *table])


def _figure(value: float | None, digits: int = 3) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def match_forms(project: Project) -> None:
    """See that each round that waits has an open form, and no other has one, where forms are deployed."""
    awaiting, root = set(lineage.awaiting(project)), str(project.root)
    of_approve = FlowFilter(name=FlowFilterName(any_=[approve.name]))
    with get_client(sync_client=True) as client:
        found = client.read_deployments(flow_filter=of_approve)
        deployed = [each for each in found if each.parameters.get("root") == root]
        if not deployed:
            return
        is_open = FlowRunFilter(state=FlowRunFilterState(type=FlowRunFilterStateType(any_=_OPEN)))
        forms = client.read_flow_runs(flow_filter=of_approve, flow_run_filter=is_open)
        forms = [form for form in forms if form.parameters.get("root") == root]
        for form in forms:
            round_id = form.parameters["round_id"]
            if round_id not in awaiting and form.state and form.state.is_paused():
                try:
                    said = f"{lineage.read_round(project, round_id).verdict} elsewhere"
                except RoundError:  # of a project that stood here before
                    said = f"there is no {round_id} any more"
                client.set_flow_run_state(form.id, Completed(message=said), force=True)
        for round_id in awaiting - {form.parameters["round_id"] for form in forms}:
            parameters = {"root": root, "round_id": round_id}
            client.create_flow_run_from_deployment(deployed[0].id, parameters=parameters, name=f"approve {round_id}")
