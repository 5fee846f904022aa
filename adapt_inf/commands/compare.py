"""`adapt-inf compare`: strategies against each other over the same drops, several seeds each."""

from __future__ import annotations

import argparse
import json
import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adapt_inf.commands import Commands, in_project

if TYPE_CHECKING:
    from adapt_inf.comparison.plan import Plan
    from adapt_inf.project import Project

_KEY = "KEY=VALUE"


def add(commands: Commands) -> None:
    compare = in_project(commands, "compare", "strategies against each other on the same drops", _compare, json=True)
    compare.add_argument(
        "--strategies", metavar="A,B", help="as select.strategy takes them (default: adapt_inf,random,sequential,full)"
    )
    compare.add_argument("--seeds", type=int, metavar="N", help="how many (default: 5)")
    compare.add_argument("--first-seed", type=int, metavar="M", help="the first of them (default: 0)")
    compare.add_argument("--drops", metavar="A,B", help="in this order (default: the head's line, then those waiting)")
    compare.add_argument("--set", action="append", metavar=_KEY, help="a value of params.yaml for all; repeatable")
    compare.add_argument(
        "--vary", action="append", metavar="KEY=V1,V2", help="values to compare each strategy under; repeatable"
    )
    compare.add_argument("--name", default="compare", help="comparisons/NAME is its folder (default: compare)")
    compare.add_argument("--jobs", type=int, metavar="N", help="results computed at a time (default: one per core)")
    compare.add_argument("--so-far", action="store_true", help="only the table of what is done; also while it runs")


def _compare(options: argparse.Namespace) -> None:
    from adapt_inf.comparison import figures, run, table
    from adapt_inf.comparison.pictures import write_pictures
    from adapt_inf.comparison.plan import check_sources, keep_plan
    from adapt_inf.files import write_json
    from adapt_inf.project import Project
    from adapt_inf.tracking.comparison import log_comparison
    from adapt_inf.tracking.outbox import attempt

    project = Project.find(options.project)
    folder = run.folder_of(project, options.name)
    plan = _plan(project, folder, options)
    if options.so_far:
        walks = run.walks_of(project, plan)
    else:
        with run.one_at_a_time(project, options.name):
            keep_plan(folder, plan)
            check_sources(project, plan)
            walks = run.run(project, plan, _jobs(options), lambda line: print(line, file=sys.stderr, flush=True))
    first = plan.variants[0]
    outcomes = figures.outcomes(figures.read_rounds(walks, run.store_of(project)), first)
    rows = figures.rows(outcomes, first)
    result, text = table.as_json(plan, rows, outcomes), table.comparison_text(plan, rows)
    print(json.dumps(result, indent=2, ensure_ascii=False) if options.json else text, flush=True)
    if not options.so_far:
        write_json(folder / "results.json", result)
        write_pictures(folder / "pictures", rows, outcomes)
        why = attempt(project, log_comparison, project, folder, plan, rows, outcomes, text)
        told = "MLflow has it, too." if why is None else f"MLflow has not got it ({why}): the same command sends it."
        print(f"\n{folder} has every round of every seed, and the pictures. {told}", file=sys.stderr)


def _plan(project: Project, folder: Path, options: argparse.Namespace) -> Plan:
    """The plan that the options name, or that stands in the comparison's folder where they name none."""
    from adapt_inf.comparison.plan import SEEDS, STRATEGIES, make_plan, read_plan
    from adapt_inf.data.drops import is_name
    from adapt_inf.errors import AdaptInfError

    if not is_name(options.name):
        raise AdaptInfError(f"--name {options.name}: that is no name for a folder.", "Letters and digits will do.")
    told = (options.strategies, options.seeds, options.first_seed, options.drops, options.set, options.vary)
    known = read_plan(folder)
    if known is not None and all(option is None for option in told):
        return known
    if options.so_far:
        if known is None:
            raise AdaptInfError(f"There is no comparison {options.name}.", "`adapt-inf compare` begins one.")
        raise AdaptInfError("--so-far shows what was begun, and takes no more than --name.", "Leave the others out.")
    if options.seeds is not None and options.seeds < 1:
        raise AdaptInfError(f"--seeds {options.seeds}: there must be one at least.", "Five tell more.")
    first = options.first_seed or 0
    return make_plan(
        project,
        _list(options.strategies, "--strategies") if options.strategies is not None else STRATEGIES,
        range(first, first + (options.seeds or SEEDS)),
        {key: value for key, value in map(_setting, options.set or [])},
        dict(map(_variation, options.vary or [])),
        _list(options.drops, "--drops") if options.drops is not None else None,
    )


def _jobs(options: argparse.Namespace) -> int:
    from adapt_inf.errors import AdaptInfError

    if options.jobs is not None and options.jobs < 1:
        raise AdaptInfError(f"--jobs {options.jobs}: there must be one at least.", "Leave it out for one per core.")
    return options.jobs or len(os.sched_getaffinity(0))


def _list(text: str, option: str) -> list[str]:
    from adapt_inf.errors import AdaptInfError

    names = list(dict.fromkeys(filter(None, (name.strip() for name in text.split(",")))))
    if not names:
        raise AdaptInfError(f"{option} names nothing.", "Names stand with commas between them: a,b.")
    return names


def _setting(text: str) -> tuple[str, Any]:
    key, value = _pair(text, "--set", "--set train.steps=200")
    return key, _yaml(value, text)


def _variation(text: str) -> tuple[str, list[Any]]:
    from adapt_inf.errors import AdaptInfError

    key, value = _pair(text, "--vary", "--vary select.budget=0.1,0.25")
    values = _yaml(f"[{value}]", text)
    if not values or len({json.dumps(each) for each in values}) != len(values):
        raise AdaptInfError(f"--vary {text}: the values must be some, and each another.", "Such as cluster.k=10,20.")
    return key, values


def _pair(text: str, option: str, example: str) -> tuple[str, str]:
    from adapt_inf.errors import AdaptInfError

    key, mark, value = text.partition("=")
    if not mark or not key.strip():
        raise AdaptInfError(f"{option} {text}: that is no key with a value.", f"Such as {example}.")
    return key.strip(), value.strip()


def _yaml(value: str, text: str) -> Any:
    import yaml

    from adapt_inf.errors import AdaptInfError

    with suppress(ValueError):
        return json.loads(value)  # YAML takes 2e-3 for a word
    try:
        return yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise AdaptInfError(f"{text}: the value cannot be read.", "Write it as in params.yaml.") from error
