"""The commands of `adapt-inf`, a module per thing that a user does; each adds its own to the parser by `add(commands)`.

A command imports what it needs inside its function: `adapt-inf status` must not wait for Prefect or torch.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

Commands = argparse._SubParsersAction  # what add_subparsers returns; argparse gives it no public name
Run = Callable[[argparse.Namespace], int | None]


def in_project(commands: Commands, name: str, text: str, run: Run, *, json: bool = False) -> argparse.ArgumentParser:
    """A command of one project, which is the one around the current folder unless -C says otherwise."""
    command: argparse.ArgumentParser = commands.add_parser(name, help=text)
    command.add_argument("-C", "--project", type=Path, metavar="DIR", help="the project (default: the one around here)")
    if json:
        command.add_argument("--json", action="store_true", help="for programs")
    command.set_defaults(run=run)
    return command
