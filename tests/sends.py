"""What a test has the tracking process do: functions that it finds by the name of this module."""

from __future__ import annotations

import math
import os
import threading
import time
from pathlib import Path
from typing import NoReturn

from adapt_inf.errors import RoundError
from adapt_inf.tracking import outbox


class LockedError(Exception):
    """One that cannot travel between processes."""

    def __init__(self) -> None:
        super().__init__("locked")
        self.lock = threading.Lock()


def fail_round() -> NoReturn:
    raise RoundError("r007", "it is no more", "Make it anew.")


def fail_locked() -> NoReturn:
    raise LockedError


def lock() -> object:
    return threading.Lock()


def be_quiet_for_ever() -> None:
    """After MLflow did not answer, ask it no more, however long this machine stands still."""
    outbox._QUIET_SECONDS = math.inf


def linger(path: Path) -> None:
    """Say which process it is, and stay."""
    path.write_text(str(os.getpid()))
    time.sleep(3600)  # longer than any test waits for its end
