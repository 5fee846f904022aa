"""A Prefect server and `adapt-inf serve` as a user would start them, for tests; both end with the block."""

from __future__ import annotations

import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil
from machine import Machine

from adapt_inf.project import Project

PATIENCE = 600.0  # seconds, on a machine that at times stands still


@dataclass(frozen=True)
class ServedMachine(Machine):
    """A machine whose PREFECT_API_URL is set."""

    api: str = ""

    def environment(self) -> dict[str, str]:
        return super().environment() | {"PREFECT_API_URL": self.api}

    def ask(self, path: str, **query: Any) -> Any:
        """POST to the server's API; the JSON that it answers."""
        deadline = time.monotonic() + PATIENCE
        while (answer := httpx.post(f"{self.api}/{path}", json=query, timeout=PATIENCE)).status_code == 503:
            assert time.monotonic() < deadline, answer.text  # another may hold its database for a while
            time.sleep(0.5)
        answer.raise_for_status()
        return answer.json() if answer.content else None

    def runs(self, flow: str, **filters: Any) -> list[dict[str, Any]]:
        """The runs of the flow of that name that have begun, in the order in which they did."""
        query: dict[str, Any] = {"flows": {"name": {"any_": [flow]}}, "flow_runs": {"start_time": {"is_null_": False}}}
        return self.ask("flow_runs/filter", sort="START_TIME_ASC", **(query | filters))


@contextmanager
def prefect_server(home: Path) -> Iterator[ServedMachine]:
    """`prefect server start` with files of its own below `home`, on a free port."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    machine = ServedMachine(home, f"http://127.0.0.1:{port}/api")
    settings = {"PREFECT_API_URL": "", "PREFECT_SERVER_ANALYTICS_ENABLED": "false", "PREFECT_UI_API_URL": machine.api}
    with open(home / "server.log", "wb") as log:
        server = subprocess.Popen(
            ["prefect", "server", "start", "--port", str(port)],
            env=machine.environment() | settings,
            stdout=log,
            stderr=log,
        )
        try:
            until(lambda: server.poll() is not None or answers(machine.api), "the server answers")
            assert server.poll() is None, (home / "server.log").read_text(encoding="utf-8", errors="replace")
            yield machine
        finally:
            _end(server)


def answers(address: str) -> bool:
    """Whether a server of Prefect or MLflow is up."""
    try:
        return httpx.get(f"{address}/health", timeout=5).status_code == 200
    except httpx.HTTPError:
        return False


@contextmanager
def serving(machine: ServedMachine, project: Project) -> Iterator[subprocess.Popen[bytes]]:
    """`adapt-inf serve` in the project, from when it says that it serves; what it says is in serve.log."""
    path = project.root.parent / f"{project.root.name}.serve.log"
    with open(path, "wb") as log:
        process = subprocess.Popen(
            ["adapt-inf", "serve"], cwd=project.root, env=machine.environment(), stdout=log, stderr=log
        )
        try:
            until(lambda: b"Serving" in path.read_bytes() or process.poll() is not None, "it serves")
            assert process.poll() is None, path.read_text(encoding="utf-8")
            yield process
        finally:
            _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(PATIENCE)
    except subprocess.TimeoutExpired:
        process.kill()
        raise


def until(true: Callable[[], Any], what: str, patience: float = PATIENCE) -> Any:
    """Wait until `true()` is; what it came to."""
    deadline = time.monotonic() + patience
    while not (found := true()):
        assert time.monotonic() < deadline, f"waited {patience:.0f} s in vain: {what}"
        time.sleep(0.1)
    return found


def processes_in(project: Project) -> list[psutil.Process]:
    """What runs in the project's folder."""
    found = []
    for process in psutil.process_iter():
        try:
            if Path(process.cwd()) == project.root and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except (psutil.Error, OSError):
            continue
    return found
