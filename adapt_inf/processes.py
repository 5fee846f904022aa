"""What the kernel does for a process of ours: end it with the one that it belongs to, and show a name for it."""

from __future__ import annotations

import ctypes
import os
import signal

_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_PR_SET_NAME = 15


def end_with_parent(parent: int, number: signal.Signals = signal.SIGKILL) -> bool:
    """Get the signal `number` when `parent` ends, however it ends; False: it has ended already.

    The kernel counts from the thread that started this process: `parent` must have done so in one that lasts.
    """
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, number)
    return os.getppid() == parent


def show_name(name: str) -> None:
    """Let `ps` and `top` call this process by `name`, of which they show 15 bytes."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_NAME, name.encode())
