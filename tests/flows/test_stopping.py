"""Rounds at the terminal: begun twice at once, stopped by Ctrl-C, killed, a stage that dies: one round comes of it."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

from machine import Machine
from serving import PATIENCE, processes_in, until

from adapt_inf import lineage
from adapt_inf.project import Project
from benchmarks.noop_project import make_noop_project, wait_drop

# The first stage ends at once; the others wait until the file `quick` is there before they begin.
WAITS = "(test ! -e rounds/${round}/ingest || test -e quick || (touch waiting && sleep 600))"
DIES_ONCE = "(test -e died || (test -e deadly && touch died && kill -9 $$ || true))"


def begin(machine: Machine, project: Project) -> subprocess.Popen[str]:
    """`adapt-inf round`, in a session of its own as at a terminal."""
    return subprocess.Popen(
        ["adapt-inf", "round"],
        cwd=project.root,
        env=machine.environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell's background ignores it
    )


def servers_in(project: Project) -> list[int]:
    return [process.pid for process in processes_in(project) if "flows.server" in process.cmdline()]


def test_one_round_comes_of_many_starts(machine: Machine, tmp_path: Path) -> None:
    project = make_noop_project(tmp_path / "stubborn", stage=f"{WAITS} && {DIES_ONCE}", retries__delay_seconds=0.1)
    wait_drop(project, "first")

    first = begin(machine, project)
    until((project.root / "waiting").exists, "the second stage is at work")
    second = machine.run("adapt-inf", "round", cwd=project.root, check=False)
    assert second.returncode == 1
    assert f"process {first.pid} of" in second.stderr
    assert "is at work here" in second.stderr
    assert first.poll() is None

    os.killpg(first.pid, signal.SIGINT)
    _, said = first.communicate(timeout=PATIENCE)
    assert first.returncode == 130, said
    assert "Stopped. `adapt-inf round` goes on from here." in said
    assert "Traceback" not in said
    assert processes_in(project) == []

    (project.root / "waiting").unlink()
    third = begin(machine, project)
    until((project.root / "waiting").exists, "it goes on with the second stage")
    assert servers_in(project), "a server of its own"
    third.kill()
    third.wait()
    until(lambda: servers_in(project) == [], "the server ends with a killed run")

    (project.root / "quick").touch()
    (project.root / "deadly").touch()
    done = machine.run("adapt-inf", "round", cwd=project.root)
    assert "r001 ingest    up to date" in done.stderr
    assert "failed:" in done.stderr
    assert (project.root / "died").exists(), "a stage was killed once, and tried again"
    assert "Done: r001" in done.stdout
    assert processes_in(project) == []
    assert [record.status for record in lineage.rounds(project)] == ["finished"]
