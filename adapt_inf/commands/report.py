"""`adapt-inf report`: a round on one page, for whoever decides on it."""

from __future__ import annotations

import argparse
from pathlib import Path

from adapt_inf.commands import Commands, in_project


def add(commands: Commands) -> None:
    report = in_project(commands, "report", "a round on one page: what came, was chosen, gained and forgotten", _report)
    report.add_argument("round", metavar="ROUND", help="r004")
    report.add_argument("--out", type=Path, metavar="FILE", help="a copy (the page itself lies in the round's folder)")


def _report(options: argparse.Namespace) -> None:
    from adapt_inf.errors import RoundError
    from adapt_inf.files import write_text
    from adapt_inf.lineage import read_round
    from adapt_inf.project import BASE, Project
    from adapt_inf.review.report import make_report
    from adapt_inf.tracking.summary import mlflow_command

    project = Project.find(options.project)
    if options.round == BASE:
        raise RoundError(BASE, "no dataset came and nothing was chosen there", "`adapt-inf lineage` lists the rounds.")
    path = make_report(project, read_round(project, options.round).to_json())
    if options.out is not None:
        write_text(options.out.absolute(), path.read_text(encoding="utf-8"))
        path = options.out
    print(f"{path.absolute().as_uri()}\n\nMLflow:\n{mlflow_command(project, options.round)}")
