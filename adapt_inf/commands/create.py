"""Make a project: `init`, and `demo`, which also runs the shipped continuum."""

from __future__ import annotations

import argparse
from pathlib import Path

from adapt_inf.commands import Commands


def add(commands: Commands) -> None:
    init = commands.add_parser("init", help="make a project")
    init.add_argument("dir", type=Path, metavar="DIR", help="a folder that is not there yet, or empty")
    init.add_argument(
        "--model", metavar="NAME_OR_PATH", help="where the lineage starts (default: the tiny one shipped)"
    )
    init.add_argument(
        "--proxy", metavar="NAME_OR_PATH", help="a smaller model that looks at the candidates in the model's place"
    )
    init.add_argument("--pool", type=Path, metavar="DROP", help="a drop with what the model was trained on")
    init.add_argument("--params", type=Path, metavar="FILE", help="a params.yaml (default: the commented one shipped)")
    init.set_defaults(run=_init)

    demo = commands.add_parser("demo", help="make a project with the shipped continuum and run its rounds")
    demo.add_argument("--dir", type=Path, default=Path("demo"), help="where (default: demo)")
    demo.add_argument("--drops", type=int, default=5, metavar="N", help="how many of the continuum's six (default: 5)")
    demo.add_argument("--strategy", default="adapt_inf", metavar="S", help="select.strategy (default: adapt_inf)")
    demo.add_argument("--seed", type=int, default=0, help="of the rounds (default: 0)")
    demo.add_argument("--no-rounds", action="store_true", help="let the drops wait: for `adapt-inf compare`")
    demo.add_argument(
        "--development", action="store_true", help="evaluate on a part of the training splits: to choose settings by"
    )
    demo.set_defaults(run=_demo)


def _init(options: argparse.Namespace) -> None:
    from adapt_inf.creation import create_project, definition, shipped_model

    text = options.params.read_text(encoding="utf-8") if options.params else definition("params.yaml")
    project = create_project(options.dir, options.model or shipped_model(), options.pool, text, options.proxy)
    print(f"{project.root} is a project. Next, in it: adapt-inf drop PATH, then adapt-inf round.")


def _demo(options: argparse.Namespace) -> None:
    from adapt_inf.demo.run import run_demo

    rounds, development = not options.no_rounds, options.development
    print(run_demo(options.dir, options.drops, options.strategy, options.seed, rounds=rounds, development=development))
