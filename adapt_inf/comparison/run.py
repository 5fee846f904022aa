"""Compute what a comparison's lineages need, several results at a time, each in a process of its own.

This process hands out work and computes nothing. A lineage moves on when its next result is there, from whichever
lineage it came; where another lineage is just computing it, work goes to the next one meanwhile. Processes are forked
from this one once it has imported what they need, and each has its share of the cores: more lineages at a time waste
less than more cores for each. They end with this process, however it ends.
"""

from __future__ import annotations

import ctypes
import fcntl
import json
import os
import shutil
import signal
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import connection, get_context
from multiprocessing.connection import Connection
from multiprocessing.context import ForkProcess
from pathlib import Path

from adapt_inf.comparison.pace import Pace
from adapt_inf.comparison.pipeline import read_pipeline
from adapt_inf.comparison.plan import Plan
from adapt_inf.comparison.store import Store
from adapt_inf.comparison.walk import Walk
from adapt_inf.comparison.work import LOG, Task, load_stages, perform
from adapt_inf.errors import AdaptInfError
from adapt_inf.project import Project
from adapt_inf.stages.runner import WORKINGS

_PR_SET_PDEATHSIG = 1  # linux/prctl.h: have the kernel end this process with its parent
_SHOWN_LINES = 8  # of the log of a stage that failed

Tell = Callable[[str], None]


def folder_of(project: Project, name: str) -> Path:
    return project.root / "comparisons" / name


def store_of(project: Project) -> Store:
    """What all comparisons of a project share."""
    return Store(project.root / "comparisons" / ".store")


def walks_of(project: Project, plan: Plan) -> list[Walk]:
    """The plan's lineages in the order of work, each as far as its results are there."""
    pipeline, store = read_pipeline(project.root / "dvc.yaml"), store_of(project)
    walks = [Walk(project, plan, line, pipeline) for line in plan.lineages()]
    for walk in walks:
        walk.advance(store)
    return walks


@contextmanager
def one_at_a_time(project: Project, name: str) -> Iterator[None]:
    """Hold the place of the one comparison that is at work in a project: they share what they compute.

    Raises:
        AdaptInfError: another is at work.
    """
    home = project.root / "comparisons"
    home.mkdir(exist_ok=True)
    (home / ".gitignore").write_text("*\n", encoding="utf-8")  # a project that is older than this command
    with open(home / ".lock", "a+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise AdaptInfError(
                f"Comparison {file.read() or 'of another process'} is at work in {project.root}.",
                "One at a time: wait for it, or stop it and give the same command again. "
                "`adapt-inf compare --so-far` shows what is done.",
            ) from None
        file.truncate(0)
        file.write(f"{name} (process {os.getpid()})")
        file.flush()
        yield


def run(project: Project, plan: Plan, jobs: int, tell: Tell) -> list[Walk]:
    """Compute all that is missing; the lineages, each done.

    Args:
        jobs: results that are computed at the same time.
        tell: gets a line for every round that is done.

    Raises:
        AdaptInfError: a stage failed; what is done stays, and the same call goes on.
    """
    walks, store = walks_of(project, plan), store_of(project)
    benches = project.root / "comparisons" / ".work"
    open_ones = [walk for walk in walks if not walk.done]
    tell(f"{len(walks)} lineages of {len(plan.drops)} rounds, {len(walks) - len(open_ones)} of them done already")
    if open_ones:
        load_stages()
        pace = Pace(walks, jobs)
        with _Hands(store, jobs) as hands:
            while open_ones or hands.busy:
                _hand_out(open_ones, store, benches, hands)
                hands.wait()
                for walk in open_ones:
                    before = len(walk.results)
                    walk.advance(store)
                    pace.add(walk, before)
                    for line in pace.lines(walk, before):
                        tell(line)
                open_ones = [walk for walk in open_ones if not walk.done]
                _clear_workings(walks, open_ones, store)
    shutil.rmtree(benches, ignore_errors=True)
    return walks


def _hand_out(open_ones: Iterable[Walk], store: Store, benches: Path, hands: _Hands) -> None:
    """Give every free hand the next result that a lineage waits for and nobody computes."""
    for walk in open_ones:
        if not hands.free:
            return
        task = walk.task(store, benches)
        if task.name not in hands.busy:
            hands.begin(task, str(walk.line))


def _clear_workings(walks: Sequence[Walk], open_ones: Sequence[Walk], store: Store) -> None:
    """Remove sketches, clusters and scores of seeds that are done: other seeds have their own."""
    seeds = {walk.line.seed for walk in open_ones}
    needed = {result.name for walk in open_ones for result in walk.results}
    for walk in walks:
        if walk.line.seed not in seeds:
            for step, result in zip(walk.steps, walk.results, strict=True):
                if step.stage.name in WORKINGS and result.name not in needed:
                    store.drop_content(result.name)


@dataclass(frozen=True)
class _Hand:
    process: ForkProcess
    hear: Connection
    task: Task
    who: str
    slot: int


class _Hands:
    """Processes at work, at most `count`, each on its share of this process's cores."""

    def __init__(self, store: Store, count: int) -> None:
        self._store = store
        cores = sorted(os.sched_getaffinity(0))
        each = max(1, len(cores) // count)
        self._cores = [{cores[(slot * each + i) % len(cores)] for i in range(each)} for slot in range(count)]
        self._hands: list[_Hand] = []

    def __enter__(self) -> _Hands:
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
        return len(self._cores) - len(self._hands)

    def begin(self, task: Task, who: str) -> None:
        taken = {hand.slot for hand in self._hands}
        slot = next(slot for slot in range(len(self._cores)) if slot not in taken)
        context = get_context("fork")
        hear, say = context.Pipe(duplex=False)
        process = context.Process(target=_work, args=(task, self._store, self._cores[slot], say))
        process.start()
        say.close()
        self._hands.append(_Hand(process, hear, task, who, slot))

    def wait(self) -> None:
        """Until a process ends.

        Raises:
            AdaptInfError: it failed.
        """
        connection.wait([hand.process.sentinel for hand in self._hands])
        for hand in [hand for hand in self._hands if hand.process.exitcode is not None]:
            self._hands.remove(hand)
            if hand.process.exitcode:
                raise _fault(hand)


def _work(task: Task, store: Store, cores: set[int], say: Connection) -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # of the terminal: the process that began this one ends it
    os.sched_setaffinity(0, cores)
    task.bench.mkdir(parents=True, exist_ok=True)
    log = os.open(task.bench / LOG, os.O_CREAT | os.O_WRONLY | os.O_TRUNC)
    os.dup2(log, sys.stdout.fileno())
    os.dup2(log, sys.stderr.fileno())
    try:
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
    if hand.hear.poll():
        message, mend = json.loads(hand.hear.recv_bytes())
        return AdaptInfError(f"{where}: {message}", mend)
    log = hand.task.bench / LOG
    printed = log.read_text(encoding="utf-8", errors="replace").splitlines() if log.is_file() else []
    shown = "".join(f"\n  | {line}" for line in printed[-_SHOWN_LINES:])
    return AdaptInfError(
        f"{where}: the process ended with {hand.process.exitcode}.{shown}",
        f"All that it printed stands in {log}; the same command goes on from here.",
    )
