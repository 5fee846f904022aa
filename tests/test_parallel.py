"""Workers share the work, sum what they must, and fail and die together."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from multiprocessing import get_context
from pathlib import Path

import psutil
import pytest
import torch
from serving import PATIENCE, until

from adapt_inf.errors import AdaptInfError
from adapt_inf.parallel import MeetingPlace, SharedProgress, alone, run_workers, worker_count


def apart(body: Callable[[], None]) -> None:
    """Run `body` in a fork, as a stage is a process of its own.

    gloo leaves threads behind; a worker that is forked after them, from the same process, may crash.
    """
    process = get_context("fork").Process(target=body)
    process.start()
    try:
        process.join(PATIENCE)
        assert process.exitcode == 0
    finally:
        process.kill()
        process.join()


def test_there_are_as_many_workers_as_cores_and_no_more_than_units() -> None:
    cores = len(os.sched_getaffinity(0))
    assert worker_count(torch.device("cpu"), 10**6) == cores
    assert worker_count(torch.device("cpu"), 1) == worker_count(torch.device("cpu"), 0) == 1
    assert worker_count(torch.device("cuda"), 10**6) == 1


@pytest.mark.parametrize("count", [1, 2, 3])
def test_every_rank_works_and_rank_0_answers(count: int, tmp_path: Path) -> None:
    def work(rank: int) -> int:
        (tmp_path / str(rank)).write_text(str(os.getpid()), encoding="utf-8")
        return rank + 7

    assert run_workers(count, work) == 7
    assert len({path.read_text(encoding="utf-8") for path in tmp_path.iterdir()}) == count


def test_progress_counts_what_all_workers_do() -> None:
    with SharedProgress("work", 10, 1) as shown:
        run_workers(3, lambda rank: shown.update(3))
        shown.update(0)
        assert shown._bar.n == 10


@pytest.mark.parametrize("count", [1, 2, 3])
def test_gradients_become_their_sum_over_workers(count: int, tmp_path: Path) -> None:
    def work(rank: int) -> None:
        weights = [torch.zeros(2, 3), torch.zeros(4)]
        weights[0].grad = torch.full((2, 3), float(rank + 1))
        if rank == 0:  # a worker without samples has no gradient
            weights[1].grad = torch.ones(4)
        totals = meeting.gradients(rank)(weights, torch.tensor([float(rank), 1.0]))
        assert totals.tolist() == [sum(range(count)), count]
        assert torch.equal(weights[0].grad, torch.full((2, 3), float(sum(range(1, count + 1)))))
        assert weights[1].grad is not None
        assert torch.equal(weights[1].grad, torch.ones(4))

    def body() -> None:
        with meeting:
            run_workers(count, work)

    meeting = MeetingPlace(count)
    apart(body)


def test_a_worker_that_fails_fails_the_work() -> None:
    def work(rank: int) -> None:
        if rank == 1:
            raise ValueError("no")

    with pytest.raises(RuntimeError, match="worker 1 of 2"):
        run_workers(2, work)


@pytest.mark.parametrize("meets", [False, True])
def test_a_worker_that_is_killed_is_named_as_such(meets: bool) -> None:
    """So that the stage is tried again, as one that was killed itself."""

    def work(rank: int) -> None:
        add_up = meeting.gradients(rank) if meets else alone
        if rank == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        add_up([], torch.ones(1))

    def body() -> None:
        with pytest.raises(OSError, match=r"worker 1 of 2 was killed by SIGKILL, .* memory"), meeting:
            run_workers(2, work)

    meeting = MeetingPlace(2)
    apart(body)


@pytest.mark.parametrize("meets", [False, True])
def test_a_fault_with_a_mend_comes_up_as_itself(capfd: pytest.CaptureFixture[str], meets: bool) -> None:
    """Also where the others wait for the one that has it, who is gone."""

    def work(rank: int) -> None:
        add_up = meeting.gradients(rank) if meets else alone
        if rank == 1:
            raise AdaptInfError("It is broken.", "Mend it.")
        add_up([], torch.ones(1))

    def body() -> None:
        with pytest.raises(AdaptInfError, match="It is broken") as caught, meeting:
            run_workers(2, work)
        assert caught.value.mend == "Mend it."

    meeting = MeetingPlace(2)
    for _ in range(3):
        apart(body)
    assert capfd.readouterr().err == ""


def test_workers_die_with_the_process_that_made_them(tmp_path: Path) -> None:
    script = f"""
import os, time
from pathlib import Path
from adapt_inf.parallel import run_workers
def work(rank):
    Path({str(tmp_path)!r}, str(rank)).write_text(str(os.getpid()))
    time.sleep(600)
run_workers(2, work)
"""
    parent = subprocess.Popen([sys.executable, "-c", script])
    try:
        until(lambda: (tmp_path / "1").is_file() and (tmp_path / "1").read_text(), "the worker is at work")
        worker = psutil.Process(int((tmp_path / "1").read_text()))
    finally:
        parent.kill()
        parent.wait()
    until(lambda: not worker.is_running() or worker.status() == psutil.STATUS_ZOMBIE, "the worker is dead", 300)
