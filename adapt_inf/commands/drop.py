"""`adapt-inf drop`: bring a dataset in and queue it."""

from __future__ import annotations

import argparse
from pathlib import Path

from adapt_inf.commands import Commands, in_project


def add(commands: Commands) -> None:
    drop = in_project(commands, "drop", "bring a dataset in and queue it", _drop)
    drop.add_argument("path", metavar="PATH", help="a folder with dataset.yaml, or its URL: s3://bucket/path")
    drop.add_argument("--name", metavar="NAME", help="what to call it (default: `name` in its dataset.yaml)")
    drop.add_argument("--again", action="store_true", help="also where a round or a waiting drop has the same content")


def _drop(options: argparse.Namespace) -> None:
    from adapt_inf.data.drops import read_drop
    from adapt_inf.drop_queue import add_drop, pending_drops
    from adapt_inf.events import announce
    from adapt_inf.project import Project
    from adapt_inf.remote_drops import fetched, is_url

    project = Project.find(options.project)
    if is_url(options.path):
        with fetched(project, options.path) as folder:
            name = read_drop(folder, options.name).name
            add_drop(project, folder, name, again=options.again, ours=True)
    else:
        source = Path(options.path).resolve()
        in_place = source.parent == project.drops
        name = read_drop(source, source.name if in_place and options.name is None else options.name).name
        add_drop(project, source, name, again=options.again)
    announced = announce(project, name)
    waiting = pending_drops(project)
    place = f"waits as number {waiting.index(name) + 1}" if name in waiting else "a round has begun with it"
    next_step = "The server has been told." if announced else "`adapt-inf round` takes it in."
    print(f"{name} is in drops/ and {place}. {next_step}")
