"""`adapt-inf track`: send MLflow what it has not got."""

from __future__ import annotations

import argparse

from adapt_inf.commands import Commands, in_project


def add(commands: Commands) -> None:
    track = in_project(commands, "track", "send MLflow what it has not got of rounds and moves of the head", _track)
    track.add_argument("rounds", nargs="*", metavar="ROUND", help="r004 (default: all that are here)")


def _track(options: argparse.Namespace) -> None:
    from adapt_inf.project import Project
    from adapt_inf.tracking.sending import track
    from adapt_inf.writer import writer_lock

    project = Project.find(options.project)
    with writer_lock(project):
        sent = track(project, options.rounds)
    what = f"Sent {', '.join(sent)}" if sent else "No round was missing"
    print(f"{what}; the timelines and the moves of the head are up to date.")
