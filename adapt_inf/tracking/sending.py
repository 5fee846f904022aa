"""Send MLflow what it has not got of a project's rounds and of the moves of its head: `adapt-inf track`.

Everything is written anew from what the stages left, by the functions that log a round as it runs, so a round that is
sent later looks like any other. One that MLflow has whole is left alone: sending twice changes nothing. The caller
holds the writer's place.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from adapt_inf import history, lineage, versions
from adapt_inf.config import load_params
from adapt_inf.lineage import Round
from adapt_inf.project import Project
from adapt_inf.review.round_files import ancestry
from adapt_inf.stages.runner import STAGES, stage_fault, stage_outcome
from adapt_inf.tracking import rounds as tracked
from adapt_inf.tracking.moves import show_moves
from adapt_inf.tracking.outbox import HEAD, attempt, strike_off, untracked
from adapt_inf.tracking.store import connect
from adapt_inf.tracking.timeline import log_timeline


def track(project: Project, names: Sequence[str] = ()) -> list[str]:
    """Send rounds, and the moves of the head; the rounds that MLflow had not got whole.

    Args:
        names: of rounds; all when left out. One that is not done is left to `adapt-inf round`, which logs it.

    Raises:
        RoundError: there is no such round.
        MLflowError: it does not answer.
    """
    records = [lineage.read_round(project, name) for name in names] or _here(project)
    sent = [each for each in records if each.status != "running" and not _has(project, each)]
    for record in sent:
        _send(project, record)
        strike_off(project, record.round)
    _send_moves(project)
    if any(lineage.read_round(project, record.round) != record for record in sent):
        _commit(project)
    return [record.round for record in sent]


def _here(project: Project) -> list[Round]:
    """The rounds that were run or fetched here: of others only the definition came, by git."""
    return [each for each in lineage.rounds(project) if project.output(each.round, "evaluate").is_dir() or each.error]


def catch_up(project: Project) -> None:
    """Send what waits, if MLflow answers now."""
    if waiting := untracked(project):
        known = [record.round for record in lineage.rounds(project) if record.round in waiting]
        attempt(project, *(track, project, known) if known else (_send_moves, project))


def _has(project: Project, record: Round) -> bool:
    """Whether MLflow has a round whole: its run and a run for each stage, ended, and what the gate came to."""
    if record.round in untracked(project):
        return False
    runs = tracked.runs_of(connect(project), record.round)
    own = runs.get("")
    if own is None or own.data.tags.get("status") != record.status:
        return False
    if any(run.info.status == "RUNNING" for run in runs.values()):
        return False
    if record.status != "finished":
        return True
    return set(STAGES) <= set(runs) and own.data.tags.get("gate") == record.verdict


def _send(project: Project, record: Round) -> None:
    from adapt_inf.review.report import make_report, report_path

    name = record.round
    tracked.begin_round(project, name)
    runs = tracked.runs_of(connect(project), name)
    for stage in STAGES:
        if record.status != "finished" and (fault := stage_fault(project, name, stage)):
            tracked.log_stage(project, name, stage, {"stage": stage, "error": fault["message"]})
            continue
        # A round that came from elsewhere has no logs: what its stages took is not known here.
        logged = (project.log(name) / f"{stage}.json").is_file()
        there = stage in runs and runs[stage].info.status == "FINISHED"
        if logged or record.status == "finished":
            tracked.log_stage(project, name, stage, stage_outcome(project, name, stage, cached=there or not logged))
    if not report_path(project, name).is_file():
        make_report(project, record.to_json())
    facts = {key: getattr(record, key) for key in ("pool_hash", "parent", "drop", "strategy", "error")}
    version = tracked.finish_round(project, name, record.status, facts)
    if record.status != "finished":
        return
    tracked.tag_gate(project, record.to_json())
    tracked.tag_commit(project, name, versions.commit_of_round(project, name))
    if record.model_version is None and version is not None:  # else it has the number that it got where it was run
        lineage.write_round(project, replace(record, model_version=version))


def _send_moves(project: Project) -> None:
    """The history, the aliases and the timeline of each branch that the head was on."""
    moves = [move.to_json() for move in history.moves(project)]
    if not moves:
        return
    entries = lineage.entries(project)
    for tip in _tips(entries, moves):
        log_timeline(project, ancestry(entries, tip))
    show_moves(project, lineage.head(project), entries, moves)
    strike_off(project, HEAD)


def _commit(project: Project) -> None:
    """Hold the model versions that the rounds have got, as the round itself would have."""
    if load_params(project.params_file).git.commit:
        versions.commit_files(project, "Note the model versions that MLflow gave")


def _tips(entries: list[dict[str, Any]], moves: list[dict[str, Any]]) -> list[str]:
    """The rounds that the head was at and that no other such round builds on, oldest first."""
    known = {entry["round"] for entry in entries}
    been = [name for name in dict.fromkeys(move["round"] for move in moves) if name in known]
    before = {entry["round"] for name in been for entry in ancestry(entries, name)[:-1]}
    return [name for name in been if name not in before]
