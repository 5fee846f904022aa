"""One lifelong round: a Prefect task per stage, each a DVC stage, whose lock file is the only resume state.

A stage that DVC finds up to date does not run again; what it left is logged to MLflow all the same, so a round that was
cut off and started again looks in MLflow like one that was not.
"""

from __future__ import annotations

import sys
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from prefect import Task, flow, get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State, TaskRun

from adapt_inf import lineage, promotion, versions
from adapt_inf.config import load_params
from adapt_inf.errors import AdaptInfError, DropError
from adapt_inf.project import Project
from adapt_inf.stages.log import last_lines, log_file
from adapt_inf.stages.runner import STAGES, forget_fault, stage_fault, stage_outcome
from adapt_inf.tracking import outbox, rounds
from adapt_inf.versions import StageFailedError
from flows.follow import following
from flows.processes import kill_children


@flow(name="round", flow_run_name="{round_id}")
def lifelong_round(root: str, round_id: str) -> dict[str, Any]:
    """Run the eight stages of `round_id` in the project at `root`; the round's record.

    Raises:
        DropError: the drop was refused at ingest; the round is taken back.
        AdaptInfError: a stage failed; the round stays, marked, and the same call goes on from there.
    """
    project = Project(Path(root))
    if load_params(project.params_file).git.commit:
        versions.refuse_secrets(project)  # now, and not when all of it is done
    record = lineage.read_round(project, round_id)
    say(f"round {round_id}: drop {record.drop} on top of {record.parent}, strategy {record.strategy}")
    missed = outbox.untracked(project).keys() - {round_id}
    if record.status == "failed":  # mended, and begun again: killed now, it is one that was at work
        record = replace(record, status="running", error=None)
        lineage.write_round(project, record)
    if record.status != "finished":
        outbox.strike_off(project, round_id)  # an earlier attempt's: this one logs every stage
        outbox.tell(project, round_id, rounds.begin_round, project, round_id)
    retries = load_params(project.params_of(round_id)).retries
    try:
        for stage in STAGES:
            run_stage.with_options(name=stage, retries=retries.of(stage), retry_delay_seconds=retries.delay_seconds)(
                root, round_id, stage
            )
        if record.status == "finished":  # it had only lost an output: the head stays where it is
            return lineage.gather_facts(project, round_id).to_json()
        return complete(root, round_id)
    except AdaptInfError as error:
        if record.status == "finished":  # what it was stands, whatever kept its lost output from coming back
            raise
        from adapt_inf.review.report import make_report

        make_report(project, replace(record, status="failed", error=str(error)).to_json())
        facts = _facts(record) | {"error": str(error)}
        outbox.tell(project, round_id, rounds.finish_round, project, round_id, "failed", facts)
        if isinstance(error, DropError):
            lineage.refuse_drop(project, round_id, str(error))
            outbox.strike_off(project, round_id)
        else:
            lineage.fail_round(project, round_id, str(error))
        raise
    finally:
        if outbox.untracked(project).keys() - missed:
            say(f"  {outbox.notice(project)}")


def may_pass(_: Task[Any, Any], run: TaskRun, state: State[Any]) -> bool:
    """Whether a stage that failed is worth another attempt: it named nothing to mend."""
    try:
        state.result()
    except StageFailedError as error:
        again = error.may_pass
    except OSError:  # of ours, beside the stage: a disk that was full
        again = True
    except BaseException:  # whatever else it was is raised where the task was called
        again = False
    return again


@task(cache_policy=NO_CACHE, task_run_name="{stage}", retry_condition_fn=may_pass)
def run_stage(root: str, round_id: str, stage: str) -> dict[str, Any]:
    """Bring one stage up to date and log what it left; its outcome."""
    project = Project(Path(root))
    try:
        forget_fault(project, round_id, stage)
        with following(log_file(project, round_id, stage), get_run_logger()):
            ran = versions.reproduce(project, round_id, stage)
    except StageFailedError as error:
        if error.interrupted:
            kill_children()
            raise KeyboardInterrupt from error
        fault = stage_fault(project, round_id, stage)
        if fault is None:
            say(f"  {round_id} {stage} failed: {error.problem}")
            _tell_fault(project, round_id, stage, error.problem)
            printed = last_lines(project, round_id, stage)
            raise StageFailedError(round_id, stage, error.problem, printed) from error
        _tell_fault(project, round_id, stage, fault["message"])
        if fault["kind"] == DropError.__name__ and stage == "ingest":
            raise _with_message(DropError, fault["message"]) from error
        where = f"Stage {stage} of round {round_id} stopped there; `adapt-inf round` goes on from it."
        raise _with_message(AdaptInfError, f"{fault['message']}\n  {where}") from error
    except Exception:
        raise
    except BaseException:  # Ctrl-C, or told to stop: what we started must not work on
        kill_children()
        raise
    outcome = stage_outcome(project, round_id, stage, cached=not ran)
    outbox.tell(project, round_id, rounds.log_stage, project, round_id, stage, outcome)
    say(describe(round_id, outcome))
    return outcome


@task(cache_policy=NO_CACHE, task_run_name="complete")
def complete(root: str, round_id: str) -> dict[str, Any]:
    """Judge the round, register its model, move the head where it passed, write its record, commit."""
    record = promotion.conclude(Project(Path(root)), round_id)
    if record.gate and record.verdict != promotion.PASSED:
        say(f"  {round_id} gate {record.verdict}" + "".join(f": {reason}" for reason in record.gate["reasons"]))
    return record.to_json()


def _tell_fault(project: Project, round_id: str, stage: str, message: str) -> None:
    outcome = {"stage": stage, "error": message}
    outbox.tell(project, round_id, rounds.log_stage, project, round_id, stage, outcome)


def _facts(record: lineage.Round) -> dict[str, Any]:
    return {key: getattr(record, key) for key in ("pool_hash", "parent", "drop", "strategy")}


def _with_message(kind: type[AdaptInfError], message: str) -> AdaptInfError:
    """An error of `kind` that reads as `message`: it was raised in another process and stands written already."""
    error = kind.__new__(kind)
    AdaptInfError.__init__(error, message)
    return error


def describe(round_id: str, outcome: dict[str, Any]) -> str:
    """One line on a stage that has ended: seconds, peak memory, what it counted."""
    counts = ", ".join(f"{value:,} {name}" for name, value in outcome["report"].items() if isinstance(value, int))
    name = f"  {round_id} {outcome['stage']:<9}"
    if outcome["cached"]:
        return f"{name} up to date"
    return f"{name} {outcome['seconds']:6.1f} s {outcome['peak_memory_mb']:6,.0f} MB  {counts}"


def say(line: str) -> None:
    """Tell the person at the terminal and whoever reads the run in Prefect's page."""
    with suppress(BrokenPipeError):  # whoever read the terminal has gone; the round has not
        print(line, file=sys.stderr, flush=True)
    get_run_logger().info(line.strip())
