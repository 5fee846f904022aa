"""Run rounds: `round` works off the queue now, `serve` whenever a drop arrives, `stage` runs one stage by hand."""

from __future__ import annotations

import argparse
import os
import sys
import traceback

from adapt_inf.commands import Commands, in_project


def add(commands: Commands) -> None:
    in_project(commands, "round", "run a round for every drop that waits", _round)
    in_project(commands, "serve", "run rounds by themselves, as drops arrive and by `schedule` in params.yaml", _serve)
    stage = in_project(commands, "stage", "run one stage of a round by hand", _stage)
    stage.add_argument("name", metavar="NAME", help="ingest, sketch, cluster, score, select, prune, train or evaluate")
    stage.add_argument("round", metavar="ROUND", help="r007, or scratch")


def _round(options: argparse.Namespace) -> int | None:
    from adapt_inf.lineage import awaiting, has_work
    from adapt_inf.project import Project
    from adapt_inf.writer import BusyError, holder, mark_run

    project = Project.find(options.project)
    if not has_work(project):
        if held := ", ".join(awaiting(project)):
            print(f"Nothing to do before `adapt-inf promote {held}` (or the same with --decline): it awaits approval.")
        else:
            print("Nothing to do: no drop waits and every round is done. `adapt-inf drop PATH` brings one in.")
        return None
    if (other := holder(project)) is not None:  # asked here, too: Prefect takes seconds to come up
        raise BusyError(project, other)
    mark_run(project)
    try:
        from flows.command import drain_now

        done = drain_now(project)
    except KeyboardInterrupt:
        print("\nStopped. `adapt-inf round` goes on from here.", file=sys.stderr)
        return 130
    if not done:
        print("Done: what a killed process had begun is settled.")
        return None
    page = f"`adapt-inf report {done[-1]}` shows the last on one page, "
    print(f"Done: {', '.join(done)}. {page}`adapt-inf lineage` the figures of all.")
    return None


def _serve(options: argparse.Namespace) -> None:
    from adapt_inf.project import Project

    project = Project.find(options.project)
    from flows.serve import serve

    serve(project, lambda line: print(line, flush=True))


def _words(options: argparse.Namespace) -> list[str]:
    project = ["-C", str(options.project)] if options.project else []
    return ["stage", options.name, options.round, *project]


def _stage(options: argparse.Namespace) -> int | None:
    from adapt_inf.stages.forkserver import run_forked

    if (status := run_forked(_words(options))) is not None:
        return status
    from adapt_inf.lineage import check_frozen
    from adapt_inf.project import SCRATCH, Project
    from adapt_inf.stages.log import keep_log
    from adapt_inf.stages.runner import run_stage

    project = Project.find(options.project)
    if options.round != SCRATCH:
        check_frozen(project, options.round)
    keep_log(project, options.round, options.name)
    try:
        run_stage(project, options.round, options.name)
    except OSError:  # a full disk, a file system or a worker that went away: whoever started the stage may try again
        traceback.print_exc()
        return os.EX_TEMPFAIL
    return None
