"""`adapt-inf plan`: what the next round would do, before anything runs."""

from __future__ import annotations

import argparse
import json

from adapt_inf.commands import Commands, in_project


def add(commands: Commands) -> None:
    plan = in_project(commands, "plan", "what the next round would do: samples, time, memory, disk", _plan, json=True)
    plan.add_argument("drop", nargs="?", metavar="DROP", help="a drop that waits, or a path (default: what comes next)")


def _plan(options: argparse.Namespace) -> None:
    from adapt_inf.planning import plan_round, plan_table
    from adapt_inf.project import Project

    plan = plan_round(Project.find(options.project), options.drop)
    print(json.dumps(plan.to_json(), indent=2, ensure_ascii=False) if options.json else plan_table(plan))
