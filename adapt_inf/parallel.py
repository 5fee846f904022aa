"""Use the cores of a machine without a GPU: the same work in several forked processes, one thread each.

Threads inside small matrix products gain a fifth on two cores and lose a factor of six when anything else runs;
processes gain nearly a factor of two and lose nothing. A fork shares the loaded model, so the memory is that of one
process plus what each batch needs. With a GPU, or a single core, the work runs in this process alone.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkProcess
from pathlib import Path
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from adapt_inf.errors import AdaptInfError
from adapt_inf.processes import end_with_parent
from adapt_inf.progress import progress

T = TypeVar("T")

_END_SECONDS = 10.0  # in which one whose connection has broken must be gone; a fault of rank 0's own waits as long


def worker_count(device: torch.device, units: int) -> int:
    """How many processes share `units` of work on `device`: the cores that this process may use, at most one a unit."""
    if device.type != "cpu":
        return 1
    return max(1, min(len(os.sched_getaffinity(0)), units))


class WorkerKilledError(ChildProcessError):
    """A worker was killed from without: another attempt may come out better."""

    def __init__(self, rank: int, count: int, number: int) -> None:
        name = signal.Signals(number).name
        super().__init__(
            f"worker {rank} of {count} was killed by {name}, as the kernel does when memory runs out: a smaller "
            "batch_size of the stage, or train.micro_batch, needs less"
        )


def run_workers(count: int, work: Callable[[int], T]) -> T:
    """Run `work(rank)` for every rank below `count`, rank 0 in this process, and return what that one returns.

    Raises:
        AdaptInfError: what another rank raised, if it raised such a one.
        WorkerKilledError: another rank was killed.
        RuntimeError: another rank failed otherwise; it has printed why.
    """
    if count == 1:
        return work(0)
    torch.set_num_threads(1)
    context = get_context("fork")
    pipes = [context.Pipe(duplex=False) for _ in range(1, count)]
    children = [
        context.Process(target=_child, args=(work, rank, tell, os.getpid()), daemon=True)
        for rank, (_, tell) in enumerate(pipes, start=1)
    ]
    for child in children:
        child.start()
    try:
        result = work(0)
        for child in children:
            child.join()
    except RuntimeError as error:
        # A rank that waits for one that is gone fails of the broken connection; the other's fault is the reason.
        if (fault := _fault(pipes) or _killed(children)) is not None:
            raise fault from error
        raise
    finally:
        for child in children:
            child.kill()
    if (fault := _fault(pipes) or _killed(children)) is not None:
        raise fault
    failed = [rank for rank, child in enumerate(children, start=1) if child.exitcode]
    if failed:
        raise RuntimeError(f"worker {failed[0]} of {count} ended with {children[failed[0] - 1].exitcode}")
    return result


def _child(work: Callable[[int], object], rank: int, tell: Connection, parent: int) -> None:
    if not end_with_parent(parent):
        return
    try:
        work(rank)
    except AdaptInfError as error:
        tell.send_bytes(json.dumps([error.message, error.mend]).encode())
        sys.exit(1)


def _fault(pipes: list[tuple[Connection, Connection]]) -> AdaptInfError | None:
    """What the first of the other ranks that had something to tell has told."""
    told = (AdaptInfError(*json.loads(hear.recv_bytes())) for hear, _ in pipes if hear.poll())
    return next(told, None)


def _killed(children: list[ForkProcess]) -> WorkerKilledError | None:
    """The first of the other ranks that a signal ended, if one did; on a busy machine its end may show later."""
    until = time.monotonic() + _END_SECONDS
    while True:
        for rank, child in enumerate(children, start=1):
            if child.exitcode is not None and child.exitcode < 0:
                return WorkerKilledError(rank, len(children) + 1, -child.exitcode)
        at_work = [child.sentinel for child in children if child.exitcode is None]
        if not at_work or not wait(at_work, until - time.monotonic()):
            return None


class SharedProgress:
    """A progress bar that all workers move and the process that made it shows."""

    def __init__(self, name: str, total: int, done: int) -> None:
        self._done = get_context("fork").Value("q", done)
        self._bar = progress(name, total, done=done)
        self._owner = os.getpid()

    def __enter__(self) -> SharedProgress:
        return self

    def update(self, number: int) -> None:
        with self._done.get_lock():
            self._done.value += number
        self._show()

    def __exit__(self, *_: object) -> None:
        self._show()
        self._bar.close()

    def _show(self) -> None:
        if os.getpid() == self._owner:
            self._bar.update(self._done.value - self._bar.n)


AddUp = Callable[[list[Tensor], Tensor], Tensor]
"""Replaces each weight's gradient by its sum over workers, and returns the sum of a short vector of figures.

A weight that nothing in the batch went through, as a projector where no sample has an image, has a gradient of zeros:
left without one, AdamW would pass it over, and its moments would fall behind those of the others.
"""


def alone(weights: list[Tensor], figures: Tensor) -> Tensor:
    """The sum over one worker."""
    for weight in weights:
        if weight.grad is None:
            weight.grad = torch.zeros_like(weight)
    return figures


@dataclass(frozen=True)
class Team:
    """Which of the processes that a launcher began, and that share a training run, this one is."""

    rank: int
    count: int


class MeetingPlace:
    """Where the workers of one training run find one another: gloo, over a file and loopback.

    Those that a launcher began find one another as their environment says, over NCCL where there are GPUs.

    They part only when it is left, after the last of them has ended: one that stops early must not break the others'
    connection before it has told why.
    """

    def __init__(self, workers: int, team: Team | None = None) -> None:
        self._workers = workers
        self._team = team

    def __enter__(self) -> MeetingPlace:
        self._folder = tempfile.TemporaryDirectory(prefix="adapt-inf-")
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        # One of a team that fails leaves the others waiting until it has told why: its end breaks their connection.
        if dist.is_initialized() and (self._team is None or kind is None):
            dist.destroy_process_group()
        self._folder.cleanup()

    def gradients(self, rank: int) -> AddUp:
        """How worker `rank`, which calls this once, adds up with the others."""
        if self._workers == 1:
            return alone
        if self._team is not None:
            if not dist.is_initialized():  # they have met where they share the weights, too
                dist.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
            return _sum_over_workers
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")  # else it listens on whatever this machine's name stands for
        store = dist.FileStore(str(Path(self._folder.name) / "store"), self._workers)
        dist.init_process_group("gloo", store=store, rank=rank, world_size=self._workers)
        return _sum_over_workers


def _sum_over_workers(weights: list[Tensor], figures: Tensor) -> Tensor:
    parts = [(torch.zeros_like(weight) if weight.grad is None else weight.grad).flatten() for weight in weights]
    flat = torch.cat([*parts, figures])
    dist.all_reduce(flat)
    start = 0
    for weight in weights:
        weight.grad = flat[start : start + weight.numel()].view_as(weight).clone()
        start += weight.numel()
    return flat[start:]
