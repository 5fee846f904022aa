"""Move the head and the champion: `rollback` and `promote`; take out a pool (`checkout`) or model (`export`)."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from adapt_inf.commands import Commands, in_project

if TYPE_CHECKING:
    from adapt_inf.project import Project

_WHY = "kept in the history"


def add(commands: Commands) -> None:
    rollback = in_project(
        commands, "rollback", "take head and champion to another round; nothing is deleted", _rollback
    )
    rollback.add_argument("round", metavar="ROUND", help="r003, or base")
    rollback.add_argument("--why", default="", metavar="TEXT", help=_WHY)

    promote = in_project(commands, "promote", "decide on a round that waits for approval or failed its gate", _promote)
    promote.add_argument("round", metavar="ROUND", help="r005")
    promote.add_argument("--decline", action="store_true", help="refuse it: head and champion stay where they are")
    promote.add_argument("--why", default="", metavar="TEXT", help=_WHY)

    export = in_project(commands, "export", "write a round's model out for PEFT, transformers or vLLM", _export)
    export.add_argument("round", metavar="ROUND", help="r003")
    export.add_argument("dir", type=Path, metavar="DIR", help="a folder that is not there yet, or empty")
    export.add_argument("--merge", action="store_true", help="adapter and base in one model, instead of the adapter")

    checkout = in_project(commands, "checkout", "write the samples of a round's pool out as a drop", _checkout)
    checkout.add_argument("round", metavar="ROUND", help="r003, or base")
    checkout.add_argument("dir", type=Path, metavar="DIR", help="a folder that is not there yet, or empty")
    checkout.add_argument(
        "--format", choices=("parquet", "llava"), default="parquet", help="pictures inside, or beside a JSON list"
    )


def _rollback(options: argparse.Namespace) -> None:
    from adapt_inf.project import Project
    from adapt_inf.promotion import rollback

    project = Project.find(options.project)
    move = rollback(project, options.round, why=options.why)
    if move is None:
        print(f"The head is at {options.round} already.")
    else:
        print(f"Head and champion moved from {move.origin} to {move.round}; the next round branches there.")
    _say_untracked(project)


def _promote(options: argparse.Namespace) -> None:
    from adapt_inf.project import Project
    from adapt_inf.promotion import decline, promote

    project = Project.find(options.project)
    if options.decline:
        declined = decline(project, options.round, why=options.why)
        print(f"{options.round} is declined{'; the head stays where it is' if declined else ' already'}.")
        _say_untracked(project)
        return
    move = promote(project, options.round, why=options.why)
    if move is None:
        print(f"The head is at {options.round} already.")
    else:
        print(f"Head and champion moved from {move.origin} to {move.round}.")
    _say_untracked(project)


def _say_untracked(project: Project) -> None:
    from adapt_inf.tracking.outbox import notice

    if missed := notice(project):
        print(missed)


def _export(options: argparse.Namespace) -> None:
    from adapt_inf.export import export
    from adapt_inf.project import Project

    export(Project.find(options.project), options.round, options.dir, merge=options.merge)
    print(f"The model of {options.round} is in {options.dir}; its README.md says how to load it.")


def _checkout(options: argparse.Namespace) -> None:
    from adapt_inf.checkout import checkout
    from adapt_inf.project import Project

    count = checkout(Project.find(options.project), options.round, options.dir, options.format)
    print(f"{count:,} samples of {options.round}'s pool are in {options.dir}, a drop by itself.")
