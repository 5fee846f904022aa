"""Read what happened: `status`, `lineage` and `history`."""

from __future__ import annotations

import argparse
import json
from collections import Counter
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from adapt_inf.commands import Commands, in_project

if TYPE_CHECKING:
    from adapt_inf.project import Project


def add(commands: Commands) -> None:
    in_project(commands, "status", "where the project stands, what runs and what waits", _status, json=True)
    in_project(commands, "lineage", "the tree of rounds and their figures", _lineage, json=True)
    in_project(commands, "history", "every move of head and champion, the newest last", _history, json=True)


def _status(options: argparse.Namespace) -> None:
    from adapt_inf.project import Project

    state = _standing(Project.find(options.project))
    print(json.dumps(state, indent=2, ensure_ascii=False) if options.json else "\n".join(_lines(state)))


def _standing(project: Project) -> dict[str, Any]:
    """What `status --json` prints."""
    from adapt_inf import drop_queue, history, lineage
    from adapt_inf.config import load_params
    from adapt_inf.tracking.outbox import untracked
    from adapt_inf.writer import holder

    records, writer = lineage.rounds(project), holder(project)
    running = [record for record in records if record.status == "running"]
    lost = {
        record.round: gone
        for record in records
        if record.status == "finished" and (gone := lineage.missing_outputs(project, record.round))
    }
    return {
        "project": str(project.root),
        "head": lineage.head(project),
        "strategy": load_params(project.params_file).select.strategy,
        "rounds": {record.round: record.status for record in records},
        "writer": asdict(writer) if writer else None,
        "running": [{"round": r.round, "drop": r.drop, "stage": _stage(project, r.round)} for r in running],
        "failed": {
            record.round: {"stage": _stage(project, record.round), "error": record.error}
            for record in records
            if record.status == "failed"
        },
        "awaiting_approval": lineage.awaiting(project),
        "lost": lost,
        "unfinished_move": history.half_done(project) is not None and writer is None,
        "untracked": untracked(project),
        "waiting": drop_queue.pending_drops(project),
        "refused": drop_queue.refused_drops(project),
    }


def _stage(project: Project, round_id: str) -> str | None:
    """The stage that a round failed in or has come to; None once all eight have run."""
    from adapt_inf.stages.runner import OUTPUTS, STAGES, stage_fault

    failed = [stage for stage in STAGES if stage_fault(project, round_id, stage) is not None]
    ahead = [stage for stage in STAGES if not project.output(round_id, OUTPUTS[stage]).exists()]
    return next(iter([*failed, *ahead]), None)


def _lines(state: dict[str, Any]) -> list[str]:
    from adapt_inf.writer import Writer

    counts = Counter(state["rounds"].values())
    writer = state["writer"]
    lines = [
        ("project", state["project"]),
        ("head", state["head"]),
        ("strategy", f"{state['strategy']} (of the next round)"),
        ("rounds", ", ".join(f"{count} {status}" for status, count in counts.items()) or "none"),
    ]
    lines += [("writer", str(Writer(**writer)))] if writer else []
    for entry in state["running"]:
        at = f"at {entry['stage']}" if entry["stage"] else "all stages done"
        cut = "" if writer else "; no process is at work on it: `adapt-inf round` goes on from there"
        lines.append(("running", f"{entry['round']}: {entry['drop']}, {at}{cut}"))
    for name, failed in state["failed"].items():
        lines.append(("failed", f"{name}{' at ' + failed['stage'] if failed['stage'] else ''}: {failed['error']}"))
    for name in state["awaiting_approval"]:
        words = f"`adapt-inf promote {name}`, or the same with --decline"
        lines.append(("approval", f"{name} passed its gate and waits for {words}; no round begins before that"))
    for name, gone in state["lost"].items():
        lines.append(("lost", f"{name}: its {', '.join(gone)} is gone: `adapt-inf round` brings it back"))
    if state["unfinished_move"]:
        lines.append(("move", "a move of the head was cut off: the next `adapt-inf round` or move completes it"))
    for name, why in state["untracked"].items():
        lines.append(("untracked", f"{name}: {why}: `adapt-inf track` sends it to MLflow"))
    lines.append(("waiting", ", ".join(state["waiting"]) or "no drop"))
    lines += [("refused", f"{name}: {reason}") for name, reason in state["refused"].items()]
    return [f"{key:<9} {value}" for key, value in lines]


def _lineage(options: argparse.Namespace) -> None:
    from adapt_inf import lineage
    from adapt_inf.project import Project

    entries = lineage.entries(Project.find(options.project))
    if options.json:
        print(json.dumps(entries, indent=2, ensure_ascii=False))
        return
    from adapt_inf.tracking.summary import lineage_table

    print(lineage_table(entries) if entries else "No round yet. `adapt-inf drop PATH`, then `adapt-inf round`.")


def _history(options: argparse.Namespace) -> None:
    from adapt_inf import history
    from adapt_inf.project import Project
    from adapt_inf.tracking.summary import table

    moves = [move.to_json() for move in history.moves(Project.find(options.project))]
    if options.json:
        print(json.dumps(moves, indent=2, ensure_ascii=False))
        return
    columns = ["time", "round", "from", "kind", "by", "why"]
    rows = [[move[column] or "-" for column in columns] for move in moves]
    print(table([columns, *rows], left=len(columns)) if moves else "The head has not moved yet: it is at the base.")
