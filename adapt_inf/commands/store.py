"""Keep what rounds left: `push` and `pull` it, `verify` it, and free what is not needed (`gc`)."""

from __future__ import annotations

import argparse
import json

from adapt_inf.commands import Commands, in_project

_HEAD = "rounds, r003 (default: the head)"


def add(commands: Commands) -> None:
    verify = in_project(commands, "verify", "check every hash of what rounds left", _verify, json=True)
    verify.add_argument("rounds", nargs="*", metavar="ROUND", help="r003, or base (default: all that are here)")


def _verify(options: argparse.Namespace) -> int:
    from adapt_inf.project import Project
    from adapt_inf.verification import Verifier, mend, rounds_here

    project = Project.find(options.project)
    verifier, verdicts = Verifier(project), []
    for round_id in options.rounds or rounds_here(project):
        verdicts.append(verdict := verifier.check(round_id))
        if not options.json:
            size = f"{verdict.files} files, {verdict.bytes / 1e6:,.1f} MB, {verdict.samples:,} samples"
            print(f"{round_id:<6} {'broken' if verdict.faults else 'ok':<7} {size}", flush=True)
            for fault in verdict.faults[:1]:
                print(f"       {fault.file}: {fault.problem}" + _others(len(verdict.faults)))
    broken = any(verdict.faults for verdict in verdicts)
    advice = mend(project, verdicts) if broken else None
    if options.json:
        print(json.dumps({"rounds": [each.to_json() for each in verdicts], "mend": advice}, indent=2))
    elif advice:
        print(advice)
    return int(broken)


def _others(faults: int) -> str:
    return f" (and {faults - 1} more)" if faults > 1 else ""
