"""Kill -9 in the midst of a work, on a machine that stands still for a while just then, too."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from multiprocessing import get_context
from pathlib import Path

from serving import until

from adapt_inf.project import Project
from adapt_inf.stages.runner import OUTPUTS, run_stage

# It watches itself: where another process watched, it could come to its end before that one had another turn.
WATCH = """
import os, signal, sys, threading, time
from pathlib import Path

def watch(folder, pattern):
    while not any(Path(folder).glob(pattern)):
        time.sleep(0.001)
    os.kill(os.getpid(), signal.SIGKILL)

threading.Thread(target=watch, args=[sys.argv.pop(1), sys.argv.pop(1)], daemon=True).start()
"""


def kill_at(folder: Path, pattern: str, code: str, *arguments: str, cwd: Path, env: Mapping[str, str]) -> None:
    """Run Python `code` in a process that is killed once there is a file in `folder` that matches `pattern`.

    Raises:
        AssertionError: it ended before.
    """
    command = [sys.executable, "-c", WATCH + code, str(folder), pattern, *arguments]
    done = subprocess.run(command, cwd=cwd, env=env, check=False, capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr


def kill_midway(root: Path, round_id: str, stage: str, parts: str, after: int = 2) -> list[Path]:
    """Start `stage`, kill it when `after` files match `parts` in its work folder, and return those that it left.

    Raises:
        AssertionError: it ended before, or nothing came.
    """
    work, parts = Project(root).work(round_id), f"{OUTPUTS[stage]}-*/{parts}"
    process = get_context("fork").Process(target=_run, args=(root, round_id, stage, parts, after))
    process.start()
    until(lambda: len(list(work.glob(parts))) >= after or not process.is_alive(), f"{stage} finishes {parts}")
    process.kill()
    process.join()
    assert process.exitcode == -signal.SIGKILL, f"{stage} ended before it could be killed"
    return sorted(work.glob(parts))


def _run(root: Path, round_id: str, stage: str, parts: str, after: int) -> None:
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # standard error, also where pytest captures
    _stay_at(Project(root).work(round_id), parts, after)
    run_stage(Project(root), round_id, stage)


def _stay_at(work: Path, parts: str, after: int) -> None:
    """Have whoever finishes a file wait from the `after`th of `parts` on, so that a kill comes in time."""
    replace = os.replace

    def finish(*names: Path) -> None:
        replace(*names)
        while len(list(work.glob(parts))) >= after:
            time.sleep(0.05)

    os.replace = finish  # type: ignore[assignment]
