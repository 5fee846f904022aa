"""`adapt-inf drop`: bring a dataset in and queue it."""

from __future__ import annotations

import argparse
from pathlib import Path

from adapt_inf.commands import Commands, in_project


def add(commands: Commands) -> None:
    drop = in_project(commands, "drop", "bring a dataset in and queue it", _drop)
    drop.add_argument("path", type=Path, metavar="PATH", help="a folder with dataset.yaml")


def _drop(options: argparse.Namespace) -> None:
    from adapt_inf.data.drops import read_drop
    from adapt_inf.drop_queue import add_drop, pending_drops
    from adapt_inf.project import Project

    project = Project.find(options.project)
    source = options.path.resolve()
    name = read_drop(source).name
    add_drop(project, source, name)
    print(f"{name} is in drops/ and waits as number {len(pending_drops(project))}. `adapt-inf round` takes it in.")
