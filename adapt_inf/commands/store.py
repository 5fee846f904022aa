"""Keep what rounds left: `push` and `pull` it, `verify` it, and free what is not needed (`gc`)."""

from __future__ import annotations

import argparse
import json

from adapt_inf.commands import Commands, in_project


def add(commands: Commands) -> None:
    for name, text, run in (("push", "send rounds to the remote", _push), ("pull", "fetch rounds from it", _pull)):
        command = in_project(commands, name, text, run)
        command.add_argument("rounds", nargs="*", metavar="ROUND", help="r003 (default: the head)")
    verify = in_project(commands, "verify", "check every hash of what rounds left", _verify, json=True)
    verify.add_argument("rounds", nargs="*", metavar="ROUND", help="r003, or base (default: all that are here)")
    gc = in_project(commands, "gc", "show what is not needed any more, and remove it", _gc, json=True)
    gc.add_argument("-y", "--yes", action="store_true", help="without asking")


def _push(options: argparse.Namespace) -> None:
    from adapt_inf.config import load_params
    from adapt_inf.project import Project
    from adapt_inf.sharing import push
    from adapt_inf.versions import commit_files
    from adapt_inf.writer import writer_lock

    project = Project.find(options.project)
    with writer_lock(project):
        sent = push(project, options.rounds)
        if load_params(project.params_file).git.commit:
            commit_files(project, "Say where the remote is")
    print(f"Sent {sent} files; what the remote had already was not sent again. `git push` carries the rest.")


def _pull(options: argparse.Namespace) -> None:
    from adapt_inf.project import Project
    from adapt_inf.sharing import pull
    from adapt_inf.writer import writer_lock

    project = Project.find(options.project)
    with writer_lock(project):
        fetched = pull(project, options.rounds)
    print(f"Fetched {fetched} files. `adapt-inf drop` and `adapt-inf round` go on from here.")


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


def _gc(options: argparse.Namespace) -> None:
    from adapt_inf.project import Project
    from adapt_inf.promotion import settle
    from adapt_inf.room import find_room, free, room_table
    from adapt_inf.writer import writer_lock

    project = Project.find(options.project)
    rooms = find_room(project)
    if not options.json:
        print(room_table(project, rooms))
    go = bool(rooms) and (options.yes or (not options.json and _agreed()))
    freed = 0
    if go:
        with writer_lock(project):
            settle(project)  # a round whose end was cut off still reads what may go
            freed = free(find_room(project))  # what it is now: a round may have ended since the question
    if options.json:
        parts = [{"round": each.round, "what": each.what, "bytes": each.bytes} for each in rooms]
        print(json.dumps({"parts": parts, "bytes": sum(each.bytes for each in rooms), "freed": freed}, indent=2))
    elif go:
        print(f"Freed {freed / 1e6:,.1f} MB.")
    elif rooms:
        print("Nothing was removed; `adapt-inf gc --yes` does it without asking.")


def _agreed() -> bool:
    try:
        return input("Remove this? [y/N] ").strip().lower() in ("y", "yes")
    except EOFError:
        print()
        return False
