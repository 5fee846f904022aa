"""Read what happened: `status` and `lineage`."""

from __future__ import annotations

import argparse
import json

from adapt_inf.commands import Commands, in_project


def add(commands: Commands) -> None:
    in_project(commands, "status", "where the project stands and what waits", _status, json=True)
    in_project(commands, "lineage", "the rounds and their figures", _lineage, json=True)


def _status(options: argparse.Namespace) -> None:
    from adapt_inf import drop_queue, lineage
    from adapt_inf.config import load_params
    from adapt_inf.project import Project

    project = Project.find(options.project)
    strategy = load_params(project.params_file).select.strategy
    state = {
        "project": str(project.root),
        "head": lineage.head(project),
        "rounds": {record.round: record.status for record in lineage.rounds(project)},
        "waiting": drop_queue.pending_drops(project),
        "refused": drop_queue.refused_drops(project),
        "strategy": strategy,
    }
    if options.json:
        print(json.dumps(state, indent=2, ensure_ascii=False))
        return
    print(f"project   {project.root}\nhead      {state['head']}\nstrategy  {strategy} (of the next round)")
    for record in lineage.rounds(project):
        gone = lineage.missing_outputs(project, record.round) if record.status == "finished" else []
        lost = f" (its {', '.join(gone)} is gone: `adapt-inf round` brings it back)" if gone else ""
        print(
            f"{record.round}      {record.status}: {record.drop}{lost}" + (f"\n{record.error}" if record.error else "")
        )
    print(f"waiting   {', '.join(drop_queue.pending_drops(project)) or 'no drop'}")
    for name, reason in drop_queue.refused_drops(project).items():
        print(f"refused   {name}: {reason}")


def _lineage(options: argparse.Namespace) -> None:
    from adapt_inf import lineage
    from adapt_inf.project import Project

    project = Project.find(options.project)
    entries = [record.to_json() for record in lineage.rounds(project)]
    if options.json:
        print(json.dumps(entries, indent=2, ensure_ascii=False))
        return
    from adapt_inf.tracking.summary import lineage_table

    print(lineage_table(entries) if entries else "No round yet. `adapt-inf drop PATH`, then `adapt-inf round`.")
