"""A round by hand under a server that is up, but cannot do its work."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

from concluded_project import make_project
from machine import Machine
from make_drop import make_drop

from adapt_inf.drop_queue import add_drop, pending_drops


class _Broken(BaseHTTPRequestHandler):
    """Says that it is well, and fails at all else, as Prefect's server does without its database."""

    def do_GET(self) -> None:
        self.send_response(200 if self.path.endswith("/health") else 500)
        self.end_headers()

    def do_POST(self) -> None:
        self.do_GET()

    def log_message(self, *_: object) -> None: ...


@contextmanager
def broken_server() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), _Broken) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/api"
        server.shutdown()


def test_a_server_without_its_database_is_named(tmp_path: Path, machine: Machine) -> None:
    project = make_project(tmp_path / "project")
    make_drop(tmp_path / "one", "one", train=4, eval=2)
    add_drop(project, tmp_path / "one", "one")
    with broken_server() as address:
        settings = {"PREFECT_API_URL": address, "PREFECT_CLIENT_MAX_RETRIES": "0"}
        environment = machine.environment() | settings
        done = subprocess.run(
            ["adapt-inf", "round"], cwd=project.root, env=environment, capture_output=True, text=True, check=False
        )
    assert done.returncode == 1
    assert "Prefect's server does not answer as it should (" in done.stderr
    assert "See that it and its database run; `adapt-inf round` goes on from here." in done.stderr
    assert "Traceback" not in done.stderr
    assert pending_drops(project)
