"""What a process leaves to the kernel and to its children when it ends: nothing that works on without it."""

from __future__ import annotations

import os
import signal
from contextlib import suppress

import psutil

from adapt_inf.processes import end_with_parent

_RUNNER = "ADAPT_INF_RUNNER"


def mark_runner() -> None:
    """Let the processes that this one starts know, as `end_with_runner` asks, who it was."""
    os.environ[_RUNNER] = str(os.getpid())


def end_with_runner() -> bool:
    """Get SIGTERM when the runner that started this process ends; False: it ended while Python was still importing.

    A work pool's worker did not mark itself; it is taken to be there still.
    """
    return end_with_parent(int(os.environ.get(_RUNNER, os.getppid())), signal.SIGTERM)


def kill_children() -> None:
    """Kill what this process started, and what that did, but for those in a session of their own."""
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.Error, ProcessLookupError):
            if os.getsid(process.pid) == os.getsid(0):
                process.kill()
                process.wait(10)
