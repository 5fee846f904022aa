"""What a process leaves to the kernel and to its children when it ends: nothing that works on without it."""

from __future__ import annotations

import ctypes
import os
import signal
from contextlib import suppress

import psutil

_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_RUNNER = "ADAPT_INF_RUNNER"


def end_with_parent(parent: int, number: signal.Signals) -> bool:
    """Get the signal `number` when `parent` ends, however it ends; False: it has ended already.

    The kernel counts from the thread that started this process: `parent` must have done so in one that lasts.
    """
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, number)
    return os.getppid() == parent


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
