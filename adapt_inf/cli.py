"""The `adapt-inf` command: reads the arguments, hands them to a module of adapt_inf.commands, prints its faults."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from adapt_inf import __version__
from adapt_inf.commands import compare, create, drop, explain, move, plan, report, review, run, store, track


def main(arguments: list[str] | None = None) -> int:
    """Run one command; 0, or 1 after one line that names the fault and one that mends it."""
    options = parser().parse_args(arguments)
    from adapt_inf.errors import AdaptInfError
    from adapt_inf.files import room_for
    from adapt_inf.versions import set_environment

    set_environment()
    try:
        with room_for(getattr(options, "project", None) or Path.cwd()):
            status = options.run(options) or 0
            sys.stdout.flush()
            return status
    except AdaptInfError as error:
        print(f"adapt-inf: {error}", file=sys.stderr)
        return 1
    except BrokenPipeError:  # `| head` has read enough; what is left in the buffer must not fail at the end, too
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        print("\nadapt-inf: stopped. The same command begins anew or goes on.", file=sys.stderr)
        return 130


def parser() -> argparse.ArgumentParser:
    """Of all commands and their arguments."""
    top = argparse.ArgumentParser(
        prog="adapt-inf",
        description="Keep a vision-language model learning while instruction datasets keep arriving.",
    )
    top.add_argument("--version", action="version", version=f"adapt-inf {__version__}")
    commands = top.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for module in (create, drop, plan, run, review, report, explain, compare, move, store, track):
        module.add(commands)
    return top


if __name__ == "__main__":
    sys.exit(main())
