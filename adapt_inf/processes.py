"""A process of ours: end it with the one that it belongs to, show a name for it, start it without the collector."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
import signal
from collections.abc import Iterator

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


@contextlib.contextmanager
def uncollected() -> Iterator[None]:
    """Import in this block without Python's collector of cycles, and leave what is there then out of its later rounds.

    It would walk through some hundred thousand new objects again and again, all of which stay: a sixth of what it
    takes to import Prefect and MLflow.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()
