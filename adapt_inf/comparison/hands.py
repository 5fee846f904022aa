"""Processes that compute results, each on its share of the cores.

They are forked from this one, once it has imported what they need, and end with it, however it ends. What one prints
goes to a log in its bench.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import traceback
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import connection, get_context
from multiprocessing.connection import Connection
from multiprocessing.context import ForkProcess

from adapt_inf.comparison.store import Store
from adapt_inf.comparison.work import LOG, Task, perform
from adapt_inf.errors import AdaptInfError
from adapt_inf.files import room_for
from adapt_inf.processes import end_with_parent

_SHOWN_LINES = 8  # of the log of a process that failed


@dataclass(frozen=True)
class _Hand:
    process: ForkProcess
    hear: Connection
    task: Task
    who: str
    slot: int


class Hands:
    """Processes at work, at most `count`.

    Attributes:
        cores: for each of them its share of this process's cores.
    """

    def __init__(self, store: Store, count: int) -> None:
        self._store = store
        cores = sorted(os.sched_getaffinity(0))
        each = max(1, len(cores) // count)
        self.cores = [{cores[(slot * each + i) % len(cores)] for i in range(each)} for slot in range(count)]
        self._hands: list[_Hand] = []

    def __enter__(self) -> Hands:
        return self

    def __exit__(self, *_: object) -> None:
        for hand in self._hands:
            hand.process.kill()
            hand.process.join()

    @property
    def busy(self) -> set[str]:
        """Names of the results that are being computed."""
        return {hand.task.name for hand in self._hands}

    @property
    def free(self) -> int:
        return len(self.cores) - len(self._hands)

    def begin(self, task: Task, who: str) -> None:
        taken = {hand.slot for hand in self._hands}
        slot = next(slot for slot in range(len(self.cores)) if slot not in taken)
        context = get_context("fork")
        hear, say = context.Pipe(duplex=False)
        process = context.Process(target=_work, args=(task, self._store, self.cores[slot], say, os.getpid()))
        process.start()
        say.close()
        self._hands.append(_Hand(process, hear, task, who, slot))

    def doing(self) -> str:
        """Who works on what, in words."""
        return "; ".join(f"{hand.who} {hand.task.round_id} {hand.task.stage.name}" for hand in self._hands)

    def wait(self, seconds: float | None = None) -> None:
        """Until a process ends, or as long as that.

        Raises:
            AdaptInfError: it failed.
        """
        ended = connection.wait([hand.process.sentinel for hand in self._hands], seconds)
        for hand in [hand for hand in self._hands if hand.process.sentinel in ended]:
            hand.process.join()
            self._hands.remove(hand)
            if hand.process.exitcode:
                raise _fault(hand)


def _work(task: Task, store: Store, cores: set[int], say: Connection, parent: int) -> None:
    if not end_with_parent(parent):
        return
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # of the terminal: the process that began this one ends it
    os.sched_setaffinity(0, cores)
    task.bench.mkdir(parents=True, exist_ok=True)
    log = os.open(task.bench / LOG, os.O_CREAT | os.O_WRONLY | os.O_TRUNC)
    os.dup2(log, sys.stdout.fileno())
    os.dup2(log, sys.stderr.fileno())
    try:
        with room_for(task.bench):
            perform(task, store)
    except AdaptInfError as error:
        say.send_bytes(json.dumps([error.message, error.mend]).encode())
        os._exit(1)
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
        os._exit(1)
    os._exit(0)


def _fault(hand: _Hand) -> AdaptInfError:
    where = f"{hand.who}, {hand.task.round_id} {hand.task.stage.name}"
    with suppress(EOFError):  # it ended without a word
        message, mend = json.loads(hand.hear.recv_bytes())
        return AdaptInfError(f"{where}: {message}", mend)
    log = hand.task.bench / LOG
    printed = log.read_text(encoding="utf-8", errors="replace").splitlines() if log.is_file() else []
    shown = "".join(f"\n  | {line}" for line in printed[-_SHOWN_LINES:])
    return AdaptInfError(
        f"{where}: the process ended with {hand.process.exitcode}.{shown}",
        f"All that it printed stands in {log}; the same command goes on from here.",
    )
