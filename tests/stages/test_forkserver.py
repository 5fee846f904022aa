"""Stages in forks of one process: nobody can tell, whoever is killed, and nothing is left."""

from __future__ import annotations

import fcntl
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import pytest
from machine import Machine, copy_project
from serving import PATIENCE, until

from adapt_inf.project import SCRATCH, Project
from adapt_inf.stages.forkserver import ADDRESS, forkserver
from adapt_inf.versions import quiet_environment

MODULE = "adapt_inf.stages.forkserver"
STAGE = "stage select"  # as `ps` shows it


@pytest.fixture(scope="module")
def project(two_rounds: Project, tmp_path_factory: pytest.TempPathFactory) -> Project:
    return copy_project(two_rounds, tmp_path_factory.mktemp("forked") / "project")


@contextmanager
def a_forkserver() -> Iterator[psutil.Process]:
    """A forkserver of this process."""
    with pytest.MonkeyPatch.context() as environment:
        for key, value in quiet_environment().items():
            environment.setenv(key, value)
        me, outer = psutil.Process(), os.environ.get(ADDRESS)
        others = me.children()
        with forkserver():
            (server,) = until(  # just begun, a process has no command line yet
                lambda: [each for each in me.children() if each not in others and MODULE in each.cmdline()],
                "the forkserver",
            )
            yield server
        if outer is not None:
            os.environ[ADDRESS] = outer


@pytest.fixture(scope="module")
def served() -> Iterator[psutil.Process]:
    """One for many tests: its imports take seconds."""
    with a_forkserver() as server:
        yield server
        assert server.is_running()


@contextmanager
def held_up(project: Project) -> Iterator[None]:
    """Let a stage of the scratch round wait at its beginning, as for one that has outlived its run."""
    lock = project.work(SCRATCH) / ".lock"
    lock.parent.mkdir(parents=True, exist_ok=True)
    with open(lock, "w", encoding="utf-8") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextmanager
def asked(
    machine: Machine, project: Project, server: psutil.Process
) -> Iterator[tuple[subprocess.Popen[str], psutil.Process]]:
    """`adapt-inf stage` that waits for a fork, and the fork, which is held up; neither outlives the block."""
    with held_up(project):
        command = subprocess.Popen(
            ["adapt-inf", "stage", "select", SCRATCH],
            cwd=project.root,
            env=machine.environment() | {ADDRESS: os.environ[ADDRESS]},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        (fork,) = until(
            lambda: [each for each in server.children() if named(each) == STAGE], "the stage has been begun in a fork"
        )
        assert command.stderr is not None
        assert command.stderr.readline().startswith("Waiting for process"), "the fork has the command's stderr"
        try:
            yield command, fork
        finally:
            with suppress(ProcessLookupError):
                command.kill()
            until(lambda: not fork.is_running(), "the fork is gone: the next test sees its own alone")


def named(process: psutil.Process) -> str | None:
    try:
        return process.name()
    except psutil.NoSuchProcess:  # a fork that has ended since it was listed
        return None


def by_hand(machine: Machine, project: Project, *arguments: str) -> subprocess.CompletedProcess[str]:
    return machine.run("adapt-inf", "stage", *arguments, cwd=project.root, check=False)


@pytest.mark.parametrize("arguments", [("select", "r001"), ("select", "r009"), ("choose", "r001"), ("select", SCRATCH)])
def test_a_fork_ends_as_the_command_itself(
    machine: Machine,
    project: Project,
    served: psutil.Process,
    arguments: tuple[str, str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    forked = by_hand(machine, project, *arguments)
    with monkeypatch.context() as without:
        without.delenv(ADDRESS)
        alone = by_hand(machine, project, *arguments)
    assert (forked.returncode, forked.stdout, forked.stderr) == (alone.returncode, alone.stdout, alone.stderr)


def test_a_fork_has_the_folder_and_environment_of_who_asked(
    machine: Machine, project: Project, served: psutil.Process
) -> None:
    with asked(machine, project, served) as (_, fork):
        assert fork.cwd() == str(project.root)
        assert os.getpgid(fork.pid) != os.getpgid(0), "Ctrl-C at the terminal reaches it once"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_is_handed_on(
    machine: Machine, project: Project, served: psutil.Process, number: signal.Signals
) -> None:
    with asked(machine, project, served) as (command, fork):
        command.send_signal(number)
        _, said = command.communicate(timeout=PATIENCE)
        assert command.returncode == (130 if number is signal.SIGINT else -number), said
        assert ("stopped" in said) == (number is signal.SIGINT)
        assert not fork.is_running()


def test_ctrl_c_before_the_fork_is_there_is_not_lost(
    machine: Machine, project: Project, served: psutil.Process
) -> None:
    with held_up(project):
        served.suspend()
        command = subprocess.Popen(
            ["adapt-inf", "stage", "select", SCRATCH],
            cwd=project.root,
            env=machine.environment() | {ADDRESS: os.environ[ADDRESS]},
        )
        until(lambda: _catches(command.pid, signal.SIGTERM), "it has asked, and hands signals on")
        command.send_signal(signal.SIGINT)
        served.resume()
        assert command.wait(PATIENCE) == 130
    assert served.children() == []


def _catches(pid: int, number: signal.Signals) -> bool:
    status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    (mask,) = [line.split()[1] for line in status.splitlines() if line.startswith("SigCgt")]
    return bool(int(mask, 16) >> (number - 1) & 1)


def test_a_killed_fork_kills_the_command(machine: Machine, project: Project, served: psutil.Process) -> None:
    with asked(machine, project, served) as (command, fork):
        fork.kill()
        assert command.wait(PATIENCE) == -signal.SIGKILL


def test_a_fork_is_killed_with_who_asked(machine: Machine, project: Project, served: psutil.Process) -> None:
    with asked(machine, project, served) as (command, fork):
        command.kill()
        until(lambda: not fork.is_running(), "the fork is gone")
    assert by_hand(machine, project, "select", "r001").returncode == 0, "and the forkserver goes on"


def test_the_command_runs_the_stage_itself_when_the_forkserver_is_killed(machine: Machine, project: Project) -> None:
    with a_forkserver() as server:
        with asked(machine, project, server) as (command, fork):
            server.kill()
            until(lambda: not fork.is_running(), "the fork is gone")
            assert command.stderr is not None
            assert command.stderr.readline().startswith("Waiting for process"), "the command is at it"
        assert by_hand(machine, project, "select", "r001").returncode == 0


RUN = f"""
import os, time
from adapt_inf.stages.forkserver import forkserver
with forkserver():
    print(os.environ["{ADDRESS}"], flush=True)
    time.sleep(600)
"""


def test_all_end_with_a_run_that_is_killed(machine: Machine, project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", RUN], env=machine.environment(), stdout=subprocess.PIPE, text=True
    ) as run:
        assert run.stdout is not None
        monkeypatch.setenv(ADDRESS, run.stdout.readline().strip())
        (server,) = psutil.Process(run.pid).children()
        with asked(machine, project, server) as (_, fork):
            run.kill()
            until(lambda: not fork.is_running() and not server.is_running(), "both are gone")


WITH_GPU = """
import sys, torch
torch.cuda.is_available = lambda: True
from adapt_inf.stages.forkserver import main
main(int(sys.argv[1]))
"""


def test_with_a_gpu_stages_run_by_themselves(
    machine: Machine, project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """CUDA that one process has looked for cannot be used by its forks."""
    name = f"adapt-inf-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(f"\0{name}")
        listening.listen()
        command = [sys.executable, "-c", WITH_GPU, str(listening.fileno())]
        server = subprocess.Popen(command, stdin=subprocess.PIPE, pass_fds=[listening.fileno()])
    monkeypatch.setenv(ADDRESS, name)
    assert by_hand(machine, project, "select", "r001").returncode == 0
    assert server.wait(PATIENCE) == 0, "it has left"
    assert by_hand(machine, project, "select", "r001").returncode == 0
