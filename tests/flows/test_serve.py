"""`adapt-inf serve` on a real server: rounds that begin by themselves, one at a time, whatever is killed or stopped."""

from __future__ import annotations

import json
import re
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import datetime
from itertools import pairwise
from typing import Any

import pytest
from browser import Page, browser, find_browser
from make_drop import make_drop
from prefect.settings import PREFECT_API_URL, temporary_settings
from serving import PATIENCE, ServedMachine, prefect_server, processes_in, serving, until

from adapt_inf import events, history, lineage
from adapt_inf.errors import AdaptInfError
from adapt_inf.events import announce
from adapt_inf.project import Project
from adapt_inf.tracking.store import connect
from benchmarks.noop_project import make_noop_project, wait_drop
from flows.serve import serve

PRESSES = 5  # of the form's button before it is dead

LOG = "rounds/${round}/log/ingest.log"
# The first stage ends at once; the next ones are at work for as long as the file `held` is there.
HOLDS = "while test -e rounds/${round}/ingest && test -e held; do sleep 0.1; done"
OFF = {"schedule__poll_seconds": None, "schedule__cron": None}


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServedMachine]:
    with prefect_server(tmp_path_factory.mktemp("served")) as machine:
        yield machine


@pytest.fixture(scope="module")
def make(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Project]:
    """`make_noop_project`, with MLflow's tables laid out already: that takes seconds a project."""
    home = tmp_path_factory.mktemp("projects")
    laid_out = make_noop_project(home / "laid-out")
    connect(laid_out)

    def make(name: str, **params: Any) -> Project:
        project = make_noop_project(home / name, **params)
        shutil.copy(laid_out.root / "mlflow.db", project.root)
        return project

    return make


def drop(machine: ServedMachine, project: Project, *names: str) -> None:
    """What `adapt-inf drop` comes to for a drop of each of `names`."""
    for name in names:
        wait_drop(project, name)
    with temporary_settings({PREFECT_API_URL: machine.api}), pytest.MonkeyPatch.context() as patch:
        patch.setenv("PREFECT_API_URL", machine.api)
        patch.setattr(events, "_SECONDS", PATIENCE)
        assert all([announce(project, name) for name in names or ("nothing",)])


def statuses(project: Project) -> list[str]:
    return [record.status for record in lineage.rounds(project)]


def rounds_of(machine: ServedMachine, project: Project) -> list[dict[str, Any]]:
    return [run for run in machine.runs("round") if run["parameters"]["root"] == str(project.root)]


def drains_of(machine: ServedMachine, project: Project) -> list[dict[str, Any]]:
    return [run for run in machine.runs("drain") if run["parameters"]["root"] == str(project.root)]


def when(text: str) -> datetime:
    return datetime.fromisoformat(text)


def test_five_drops_at_once_are_five_rounds_in_order(served: ServedMachine, make: Callable[..., Project]) -> None:
    project = make("five", stage=HOLDS, schedule__poll_seconds=30, schedule__cron="* * * * *")
    held = project.root / "held"
    held.touch()
    with serving(served, project):
        until(lambda: drains_of(served, project), "the first drain")
        folder = make_drop(served.home / "zero", "zero", train=8, eval=0, form="llava_jsonl")
        served.run("adapt-inf", "drop", str(folder), cwd=project.root)
        until(lambda: statuses(project), "the first round begins")
        names = [f"drop-{number}" for number in (3, 1, 4, 5, 2)]
        drop(served, project, *names)
        assert statuses(project) == ["running"], "all five wait behind it"
        held.unlink()
        until(lambda: statuses(project) == ["finished"] * 6, "six rounds")
        ids = {each["name"].rpartition("-")[2]: each["id"] for each in served.ask("deployments/filter")}
        ended = {"state": {"name": {"any_": ["Completed"]}}}
        for kind in ("event", "poll", "cron"):
            query = {"flow_runs": ended, "deployments": {"id": {"any_": [ids[kind]]}}}
            until(lambda query=query: served.ask("flow_runs/filter", **query), f"a run by {kind}")
        assert {run["state_type"] for run in drains_of(served, project)} <= {"COMPLETED", "RUNNING"}
    records = lineage.rounds(project)
    assert [record.drop for record in records] == ["zero", *names]
    assert [record.parent for record in records] == ["base", *(record.round for record in records[:-1])]
    runs = rounds_of(served, project)
    assert [run["name"] for run in runs] == [record.round for record in records]
    assert all(when(one["end_time"]) <= when(next_["start_time"]) for one, next_ in pairwise(runs))


def test_a_killed_runner_and_one_told_to_stop(served: ServedMachine, make: Callable[..., Project]) -> None:
    project = make("stopped", stage=HOLDS, **OFF)
    held = project.root / "held"
    held.touch()
    with serving(served, project) as runner:
        until(lambda: [run["state_type"] for run in drains_of(served, project)] == ["COMPLETED"], "the first drain")
        drop(served, project, "first")
        until(lambda: (project.round("r001") / "ingest").exists(), "the event alone begins a round")
        runner.kill()
        runner.wait()
    until(lambda: processes_in(project) == [], "what it started ends with it")
    assert statuses(project) == ["running"]
    held.unlink()
    with serving(served, project) as runner:
        until(lambda: statuses(project) == ["finished"], "the next runner goes on with the round")
        held.touch()
        drop(served, project, "second")
        until(lambda: (project.round("r002") / "ingest").exists(), "the next round is at work")
        runner.terminate()
        assert runner.wait(PATIENCE) == 0
    assert processes_in(project) == []
    assert statuses(project) == ["finished", "running"]
    held.unlink()
    mine = [each for each in served.ask("deployments/filter") if each["name"].startswith("stopped-")]
    assert [each["paused"] for each in mine] == [True, True]
    assert "Done: r002" in served.run("adapt-inf", "round", cwd=project.root).stdout
    assert {run["state_type"] for run in rounds_of(served, project)} <= {"COMPLETED", "CRASHED", "CANCELLED"}


SAY = """
const say = (kind, at, text) => {
    const field = document.querySelectorAll(`.p-modal ${kind}`)[at];
    Object.getOwnPropertyDescriptor(Object.getPrototypeOf(field), "value").set.call(field, text);
    for (const event of ["input", "change"]) field.dispatchEvent(new Event(event, {bubbles: true}));
};
"""


def fill_in(machine: ServedMachine, form: str, *, decision: str, why: str, by: str) -> None:
    """Fill in the form as a person would, in Prefect's page; by Prefect's API where there is no browser."""
    if find_browser() is None:
        said = {"decision": decision, "why": why, "by": by}
        assert machine.ask(f"flow_runs/{form}/resume", run_input=said)["status"] == "ACCEPT"
        return
    with browser() as debugger, Page(debugger) as page:
        page.open(machine.api.removesuffix("/api") + f"/runs/flow-run/{form}")
        button = "[...document.querySelectorAll('button')].find(each => each.innerText.trim().startsWith('%s'))"
        page.wait(f"!!{button % 'Resume'}")
        page.ask(f"({button % 'Resume'}).click()")
        page.wait_for_text("took in first on top of base", "average accuracy", "Decision")
        texts = json.dumps([decision, why, by])
        fill = (
            f"(() => {{{SAY} const [decision, why, by] = {texts};"
            "say('select', 0, decision); say('textarea', 0, why); say('textarea', 1, by); })()"
        )

        def sent() -> bool:
            (run,) = machine.ask("flow_runs/filter", flow_runs={"id": {"any_": [form]}})
            return "Flow run resumed" in page.text() or run["state_type"] != "PAUSED"

        for _ in range(PRESSES):
            if sent():
                return
            with suppress(AssertionError):  # on a busy machine the page may draw the form anew under the hand
                page.ask(fill)
                time.sleep(1)  # the page takes note of what is typed a moment later
                page.ask(f"({button % 'Submit'}).click()")
                until(sent, "the form is sent", 60)
                return
        raise AssertionError(f"the form was never sent; the page says:\n{page.text()}")


def test_a_round_is_approved_by_the_form_or_by_the_command(served: ServedMachine, make: Callable[..., Project]) -> None:
    project = make("approved", gate__approval="required", **OFF)

    def forms(state: str) -> list[str]:
        runs = [run for run in served.runs("approve") if run["parameters"]["root"] == str(project.root)]
        return [run["id"] for run in runs if run["state_name"] == state]

    with serving(served, project):
        drop(served, project, "first", "second")
        (form,) = until(lambda: forms("Suspended"), "a form")
        assert statuses(project) == ["finished"]
        assert lineage.head(project) == "base"
        fill_in(served, form, decision="promote", why="better at colours", by="Ada")
        until(lambda: statuses(project) == ["finished"] * 2, "the drop behind it goes on")
        move = history.moves(project)[-1]
        assert (move.round, move.kind, move.why, move.by) == ("r001", "promote", "better at colours", "Ada")
        until(lambda: forms("Completed") == [form] and forms("Suspended"), "the form of the next round")
        until(lambda: {run["state_type"] for run in drains_of(served, project)} == {"COMPLETED"}, "none is at work")
        served.run("adapt-inf", "promote", "r002", "--decline", cwd=project.root)
        drop(served, project)
        until(lambda: len(forms("Completed")) == 2, "the form of what was declined ends")
        assert lineage.awaiting(project) == []
        assert lineage.head(project) == "r001"


def test_what_waits_holds_behind_a_round_that_failed(served: ServedMachine, make: Callable[..., Project]) -> None:
    broken = f"(test -e mended || (echo broken > {LOG}; exit 1))"
    project = make("failing", stage=f"{broken} && cp rounds/${{round}}/round.json seen-${{round}}.json")
    looks = f"from flows.drain import drain; drain({str(project.root)!r}, served=True)"
    drop(served, project, "first", "second")
    assert served.run(sys.executable, "-c", looks, check=False).returncode == 1
    served.run(sys.executable, "-c", looks)
    said = drains_of(served, project)[-1]["state"]["message"]
    assert "r001 failed, and what waits holds behind it: round r001: stage ingest failed" in said
    assert "\n  Its last lines:\n  | broken\n" in said
    assert "`adapt-inf round` goes on from here" in said
    (project.root / "mended").touch()
    assert "Done: r001, r002" in served.run("adapt-inf", "round", cwd=project.root).stdout
    seen = json.loads((project.root / "seen-r001.json").read_text(encoding="utf-8"))
    assert (seen["status"], seen["error"]) == ("running", None), "killed now, the next run would have gone on with it"


@pytest.mark.parametrize(
    ("address", "values", "said"),
    [
        (None, {}, "no Prefect server is set"),
        ("http://127.0.0.1:9/api", {}, "no Prefect server answers at http://127.0.0.1:9/api"),
        ("the server", {"schedule__cron": "at three"}, "`schedule.cron`: 'at three' is no cron line"),
        ("the server", {"schedule__timezone": "Europe/Zuerich"}, "there is no timezone 'Europe/Zuerich'"),
    ],
)
def test_what_keeps_it_from_serving_is_named(
    served: ServedMachine, make: Callable[..., Project], address: str | None, values: dict[str, Any], said: str
) -> None:
    project = make(f"unserved-{len(said)}", **values)
    with (
        temporary_settings({PREFECT_API_URL: served.api if address == "the server" else address}),
        pytest.raises(AdaptInfError) as caught,
    ):
        serve(project, print)
    assert said in str(caught.value)
    assert re.search(r"prefect server start|comments in that file", str(caught.value))
