"""No connection leaves the machine but to the servers that are set, and what listens does so on loopback."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import psutil
from machine import Machine

from benchmarks.noop_project import make_noop_project, wait_drop


def test_the_watch_sees_and_refuses_what_leaves(machine: Machine, tmp_path: Path) -> None:
    seen = tmp_path / "seen"
    for call in ("create_connection(('192.0.2.1', 9), 5)", "getaddrinfo('example.org', 80)"):
        done = subprocess.run(
            [sys.executable, "-c", f"import socket; socket.{call}"],
            env=machine.environment() | {"SOCKETS_SEEN": str(seen)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert "the tests have no network" in done.stderr
    assert [line.split()[:3] for line in seen.read_text().splitlines() if line.startswith("away")] == [
        ["away", "socket.getaddrinfo", "192.0.2.1"],
        ["away", "socket.getaddrinfo", "example.org"],
    ]


def test_a_round_with_no_server_set_speaks_and_listens_on_loopback_only(machine: Machine, tmp_path: Path) -> None:
    project = make_noop_project(tmp_path / "quiet")
    wait_drop(project, "first")
    seen = tmp_path / "seen"
    environment = machine.environment() | {"SOCKETS_SEEN": str(seen)}
    process = subprocess.Popen(["adapt-inf", "round"], cwd=project.root, env=environment, stderr=subprocess.DEVNULL)
    listening: set[str] = set()
    while process.poll() is None:
        try:
            for each in [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]:
                found = each.net_connections("inet")
                listening |= {held.laddr.ip for held in found if held.status == psutil.CONN_LISTEN}
        except psutil.Error:
            continue  # it ended as we looked
        time.sleep(0.1)
    assert process.returncode == 0
    assert listening == {"127.0.0.1"}
    lines = seen.read_text().splitlines()
    assert [line for line in lines if not line.startswith("here")] == []
    assert any("here socket.connect 127.0.0.1" in line and "round" in line for line in lines), "the flow was watched"
