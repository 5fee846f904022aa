"""`adapt-inf plan`: what the next round would do, before anything runs; or what one of another size would cost."""

from __future__ import annotations

import argparse
import json

from adapt_inf.commands import Commands, in_project
from adapt_inf.errors import AdaptInfError

_AT_ANOTHER_SIZE = ("pool", "model", "gpus", "new", "tokens", "tflops")


def add(commands: Commands) -> None:
    plan = in_project(commands, "plan", "what the next round would do: samples, time, memory, disk", _plan, json=True)
    plan.add_argument("drop", nargs="?", metavar="DROP", help="a drop that waits, or a path (default: what comes next)")
    size = plan.add_argument_group("at another size", "what a round like those of this project would cost")
    size.add_argument("--pool", type=_count, metavar="N", help="candidates, the drop's included")
    size.add_argument("--model", metavar="SIZE", help="of the model: 7b, 350m, or a model's folder")
    size.add_argument("--gpus", type=_count, metavar="N", help="that share the work (default: this machine as it is)")
    size.add_argument("--new", type=_count, metavar="N", help="candidates that the drop brings (default: a tenth)")
    size.add_argument(
        "--tokens", type=_positive, metavar="N", help="of a sample, with its images (default: as measured)"
    )
    size.add_argument(
        "--tflops", type=_positive, metavar="N", help="that a GPU keeps up (default: 140, an A100 at 45%%)"
    )


def _positive(text: str) -> float:
    try:
        number = float(text.replace(",", ""))
    except ValueError:
        number = 0.0
    if not 0 < number < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is no number above 0")
    return number


def _count(text: str) -> int:
    number = _positive(text)
    if number != int(number):
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number")
    return int(number)


def _plan(options: argparse.Namespace) -> None:
    from adapt_inf.project import Project

    project = Project.find(options.project)
    asked = {name: getattr(options, name) for name in _AT_ANOTHER_SIZE if getattr(options, name) is not None}
    if asked and options.drop is not None:
        raise AdaptInfError("A drop has its own size.", f"Leave out {options.drop}, or --{next(iter(asked))}.")
    if asked:
        from adapt_inf.cost_table import estimate_table
        from adapt_inf.costs import estimate_round

        estimate = estimate_round(project, **asked)
        print(json.dumps(estimate.to_json(), indent=2) if options.json else estimate_table(estimate))
        return
    from adapt_inf.planning import plan_round, plan_table

    plan = plan_round(project, options.drop)
    print(json.dumps(plan.to_json(), indent=2, ensure_ascii=False) if options.json else plan_table(plan))
