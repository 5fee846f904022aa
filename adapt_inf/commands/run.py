"""Run rounds: `round` works off the queue now, `stage` runs one stage by hand."""

from __future__ import annotations

import argparse

from adapt_inf.commands import Commands, in_project


def add(commands: Commands) -> None:
    in_project(commands, "round", "run a round for every drop that waits", _round)
    stage = in_project(commands, "stage", "run one stage of a round by hand", _stage)
    stage.add_argument("name", metavar="NAME", help="ingest, sketch, cluster, score, select, prune, train or evaluate")
    stage.add_argument("round", metavar="ROUND", help="r007, or scratch")


def _round(options: argparse.Namespace) -> None:
    from adapt_inf.lineage import has_work
    from adapt_inf.project import Project

    project = Project.find(options.project)
    if not has_work(project):
        print("Nothing to do: no drop waits and every round is done. `adapt-inf drop PATH` brings one in.")
        return
    from adapt_inf.writer import mark_run

    mark_run(project)  # before Prefect starts a server of its own, which must not outlive this process for ever
    from flows.drain import drain

    done = drain(str(project.root))
    print(f"Done: {', '.join(done)}. `adapt-inf lineage` shows the figures.")


def _stage(options: argparse.Namespace) -> None:
    from adapt_inf.project import Project
    from adapt_inf.stages.runner import run_stage

    run_stage(Project.find(options.project), options.round, options.name)
