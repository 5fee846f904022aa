"""A process that speaks to MLflow in the run's place: nobody can tell, whoever is killed, and nothing is left."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import NoReturn

import psutil
import pytest
import sends
from serving import until
from tracked_project import empty_project

from adapt_inf.errors import RoundError
from adapt_inf.project import Project
from adapt_inf.tracking.outbox import tell, untracked
from adapt_inf.tracking.process import call, tracking_process
from adapt_inf.tracking.store import connect

TESTS = Path(__file__).parents[1]


@pytest.fixture
def garden(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(TESTS), os.environ["PYTHONPATH"]]))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:1")  # it need not wait for a store to be made
    return empty_project(tmp_path / "garden")


def test_one_process_does_it_until_the_block_ends(garden: Project) -> None:
    with tracking_process(garden):
        there = call(os.getpid)
        with tracking_process(garden):
            assert call(os.getpid) == there
        assert call(os.getpid) == there
    assert there != os.getpid()
    assert not psutil.pid_exists(there)
    assert call(os.getpid) == os.getpid()


def test_faults_come_back_as_they_are(garden: Project) -> None:
    with tracking_process(garden):
        with pytest.raises(RoundError) as raised:
            call(sends.fail_round)
        assert str(raised.value) == "round r007: it is no more.\n  Make it anew."
        assert raised.value.mend == "Make it anew."
        assert "in fail_round" in raised.value.__notes__[0]
        with pytest.raises(FileNotFoundError, match="nowhere") as missing:
            call(os.stat, "nowhere")
        assert missing.value.filename == "nowhere"
        with pytest.raises(RuntimeError, match="LockedError: locked"):
            call(sends.fail_locked)
        assert call(os.getpid) != os.getpid()


def test_what_mlflow_misses_is_set_down_as_without_it(garden: Project) -> None:
    with tracking_process(garden):
        call(sends.be_quiet_for_ever)
        assert tell(garden, "r001", connect, garden) is None
        assert tell(garden, "r002", sends.linger, garden.root / "tried") is None
    assert not (garden.root / "tried").exists(), "not within a minute"
    assert list(untracked(garden)) == ["r001", "r002"]
    assert "MLflow at http://127.0.0.1:1 does not answer" in untracked(garden)["r001"]


def test_killed_or_with_a_result_that_cannot_travel_the_run_does_it_itself(garden: Project) -> None:
    with tracking_process(garden):
        os.kill(call(os.getpid), signal.SIGKILL)
        assert call(os.getpid) == os.getpid()
        assert call(os.getpid) == os.getpid()
    with tracking_process(garden):
        assert call(sends.lock) is not None
        assert call(os.getpid) == os.getpid()


def test_an_answer_that_nobody_waited_for_is_not_taken_for_the_next_ones(garden: Project) -> None:
    def interrupt(_: int, __: object) -> NoReturn:
        raise KeyboardInterrupt

    def call_and_leave() -> None:
        signal.setitimer(signal.ITIMER_REAL, 0.2)
        call(time.sleep, 0.5)

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        with tracking_process(garden):
            call(os.getpid)
            with pytest.raises(KeyboardInterrupt):
                call_and_leave()
            time.sleep(0.5)
            assert call(os.getpid) == os.getpid()
    finally:
        signal.signal(signal.SIGALRM, before)


def test_it_is_gone_with_the_run_in_the_midst_of_a_call(garden: Project, tmp_path: Path) -> None:
    path = tmp_path / "pid"
    program = (
        "import sys, sends; from pathlib import Path; from adapt_inf.project import Project\n"
        "from adapt_inf.tracking.process import call, tracking_process\n"
        "with tracking_process(Project(Path(sys.argv[1]))): call(sends.linger, Path(sys.argv[2]))"
    )
    run = subprocess.Popen([sys.executable, "-c", program, str(garden.root), str(path)])
    try:
        until(lambda: run.poll() is not None or (path.is_file() and path.read_text() != ""), "it is at work")
        assert run.poll() is None
        tracking = psutil.Process(int(path.read_text()))
        assert tracking.pid != run.pid
    finally:
        run.kill()
        run.wait()
    until(lambda: not tracking.is_running() or tracking.status() == psutil.STATUS_ZOMBIE, "it is gone")
