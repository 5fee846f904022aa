"""The `adapt-inf` command: reads the arguments, calls the library, prints. Imports wait until a command needs them."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from adapt_inf import __version__


def main(arguments: list[str] | None = None) -> int:
    """Run one command; 0, or 1 after one line that names the fault and one that mends it."""
    options = _parser().parse_args(arguments)
    from adapt_inf.errors import AdaptInfError
    from adapt_inf.versions import set_environment

    set_environment()
    try:
        return options.run(options) or 0
    except AdaptInfError as error:
        print(f"adapt-inf: {error}", file=sys.stderr)
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="adapt-inf",
        description="Keep a vision-language model learning while instruction datasets keep arriving.",
    )
    parser.add_argument("--version", action="version", version=f"adapt-inf {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    init = commands.add_parser("init", help="make a project")
    init.add_argument("dir", type=Path, metavar="DIR", help="a folder that is not there yet, or empty")
    init.add_argument(
        "--model", metavar="NAME_OR_PATH", help="where the lineage starts (default: the tiny one shipped)"
    )
    init.add_argument("--pool", type=Path, metavar="DROP", help="a drop with what the model was trained on")
    init.add_argument("--params", type=Path, metavar="FILE", help="a params.yaml (default: the commented one shipped)")
    init.set_defaults(run=_init)

    demo = commands.add_parser("demo", help="make a project with the shipped continuum and run its rounds")
    demo.add_argument("--dir", type=Path, default=Path("demo"), help="where (default: demo)")
    demo.add_argument("--drops", type=int, default=5, metavar="N", help="how many of the continuum's six (default: 5)")
    demo.add_argument("--strategy", default="adapt_inf", metavar="S", help="select.strategy (default: adapt_inf)")
    demo.add_argument("--seed", type=int, default=0, help="of the rounds (default: 0)")
    demo.set_defaults(run=_demo)

    drop = _in_project(commands, "drop", "bring a dataset in and queue it", _drop)
    drop.add_argument("path", type=Path, metavar="PATH", help="a folder with dataset.yaml")

    _in_project(commands, "round", "run a round for every drop that waits", _round)

    stage = _in_project(commands, "stage", "run one stage of a round by hand", _stage)
    stage.add_argument("name", metavar="NAME", help="ingest, sketch, cluster, score, select, prune, train or evaluate")
    stage.add_argument("round", metavar="ROUND", help="r007, or scratch")

    for name, text, run in (
        ("status", "where the project stands and what waits", _status),
        ("lineage", "the rounds and their figures", _lineage),
    ):
        command = _in_project(commands, name, text, run)
        command.add_argument("--json", action="store_true", help="for programs")
    return parser


def _in_project(commands: argparse._SubParsersAction, name: str, text: str, run: object) -> argparse.ArgumentParser:
    command: argparse.ArgumentParser = commands.add_parser(name, help=text)
    command.add_argument("-C", "--project", type=Path, metavar="DIR", help="the project (default: the one around here)")
    command.set_defaults(run=run)
    return command


def _init(options: argparse.Namespace) -> None:
    from adapt_inf.creation import create_project, definition, shipped_model

    text = options.params.read_text(encoding="utf-8") if options.params else definition("params.yaml")
    project = create_project(options.dir, options.model or shipped_model(), options.pool, text)
    print(f"{project.root} is a project. Next, in it: adapt-inf drop PATH, then adapt-inf round.")


def _demo(options: argparse.Namespace) -> None:
    from adapt_inf.demo.run import run_demo

    print(run_demo(options.dir, options.drops, options.strategy, options.seed))


def _drop(options: argparse.Namespace) -> None:
    from adapt_inf.lineage import add_drop, pending_drops
    from adapt_inf.project import Project

    project = Project.find(options.project)
    from adapt_inf.data.drops import read_drop

    source = options.path.resolve()
    name = read_drop(source).name
    add_drop(project, source, name)
    print(f"{name} is in drops/ and waits as number {len(pending_drops(project))}. `adapt-inf round` takes it in.")


def _round(options: argparse.Namespace) -> None:
    from adapt_inf.lineage import has_work
    from adapt_inf.project import Project

    project = Project.find(options.project)
    if not has_work(project):
        print("Nothing to do: no drop waits and every round is done. `adapt-inf drop PATH` brings one in.")
        return
    from flows.drain import drain

    done = drain(str(project.root))
    print(f"Done: {', '.join(done)}. `adapt-inf lineage` shows the figures.")


def _stage(options: argparse.Namespace) -> None:
    from adapt_inf.project import Project
    from adapt_inf.stages.runner import run_stage

    run_stage(Project.find(options.project), options.round, options.name)


def _status(options: argparse.Namespace) -> None:
    from adapt_inf import lineage
    from adapt_inf.config import load_params
    from adapt_inf.project import Project

    project = Project.find(options.project)
    strategy = load_params(project.params_file).select.strategy
    state = {
        "project": str(project.root),
        "head": lineage.head(project),
        "rounds": {record.round: record.status for record in lineage.rounds(project)},
        "waiting": lineage.pending_drops(project),
        "refused": lineage.refused_drops(project),
        "strategy": strategy,
    }
    if options.json:
        print(json.dumps(state, indent=2, ensure_ascii=False))
        return
    print(f"project   {project.root}\nhead      {state['head']}\nstrategy  {strategy} (of the next round)")
    for record in lineage.rounds(project):
        gone = lineage.missing_outputs(project, record.round) if record.status == "finished" else []
        lost = f" (its {', '.join(gone)} is gone: `adapt-inf round` brings it back)" if gone else ""
        print(
            f"{record.round}      {record.status}: {record.drop}{lost}" + (f"\n{record.error}" if record.error else "")
        )
    print(f"waiting   {', '.join(lineage.pending_drops(project)) or 'no drop'}")
    for name, reason in lineage.refused_drops(project).items():
        print(f"refused   {name}: {reason}")


def _lineage(options: argparse.Namespace) -> None:
    from adapt_inf import lineage
    from adapt_inf.project import Project

    project = Project.find(options.project)
    entries = [record.to_json() for record in lineage.rounds(project)]
    if options.json:
        print(json.dumps(entries, indent=2, ensure_ascii=False))
        return
    from adapt_inf.tracking.summary import lineage_table

    print(lineage_table(entries) if entries else "No round yet. `adapt-inf drop PATH`, then `adapt-inf round`.")


if __name__ == "__main__":
    sys.exit(main())
