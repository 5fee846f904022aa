"""A drop that comes is told to a Prefect server that is set, and comes all the same where none answers."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from bad_drop import NAME, empty_project, good_drop
from prefect.settings import PREFECT_API_URL, temporary_settings

from adapt_inf import events
from adapt_inf.cli import main
from adapt_inf.drop_queue import pending_drops
from adapt_inf.project import Project


@pytest.fixture
def project(tmp_path: Path) -> Project:
    good_drop(tmp_path / "come")
    return empty_project(tmp_path / "project")


@pytest.fixture
def listener() -> Iterator[tuple[str, list[tuple[str, object]]]]:
    """The address of a server that takes events, and what came."""
    came: list[tuple[str, object]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            came.append((self.path, json.loads(self.rfile.read(int(self.headers["content-length"])))))
            self.send_response(204)
            self.end_headers()

        def do_GET(self) -> None:  # a token, which a server without that protection has none of
            self.send_response(404)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/api", came
        server.shutdown()
        thread.join()


def drop(project: Project, monkeypatch: pytest.MonkeyPatch, server: str) -> int:
    monkeypatch.setenv("PREFECT_API_URL", server)
    with temporary_settings({PREFECT_API_URL: server}):
        return main(["drop", str(project.root.parent / "come"), "-C", str(project.root)])


def test_the_event_has_left_when_the_command_ends(
    project: Project, monkeypatch: pytest.MonkeyPatch, listener: tuple[str, list[tuple[str, list[dict[str, object]]]]]
) -> None:
    address, came = listener
    monkeypatch.setattr(events, "_SECONDS", 600.0)
    assert drop(project, monkeypatch, address) == 0
    ((path, (event,)),) = came
    assert (path, event["event"]) == ("/api/events", events.EVENT)
    assert event["resource"]["prefect.resource.id"] == events.project_resource(project)  # type: ignore[index]
    assert event["payload"] == {"project": str(project.root), "drop": NAME}


def test_a_server_that_is_down_only_warns(
    project: Project, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # nobody listens there
        assert drop(project, monkeypatch, f"http://127.0.0.1:{taken.getsockname()[1]}/api") == 0
    assert "was not told" in capsys.readouterr().err
    assert pending_drops(project) == [NAME]


def test_a_server_that_does_not_answer_costs_some_seconds(
    project: Project, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(events, "_SECONDS", 0.5)
    with socket.socket() as mute:
        mute.bind(("127.0.0.1", 0))
        mute.listen()
        mute.setblocking(False)
        assert drop(project, monkeypatch, f"http://127.0.0.1:{mute.getsockname()[1]}/api") == 0
        mute.accept()[0].close()
        with pytest.raises(BlockingIOError):  # asked once: the wait is one of `_SECONDS`
            mute.accept()
    assert "was not told (timed out)" in capsys.readouterr().err
    assert pending_drops(project) == [NAME]


def test_where_no_server_is_set_prefect_is_not_imported(project: Project) -> None:
    code = "import sys; from adapt_inf.cli import main; sys.exit(main(sys.argv[1:]) or 'prefect' in sys.modules)"
    environment = os.environ | {"PREFECT_HOME": str(project.root / "prefect"), "PREFECT_API_URL": ""}
    command = [sys.executable, "-c", code, "drop", str(project.root.parent / "come"), "-C", str(project.root)]
    assert subprocess.run(command, env=environment, check=False).returncode == 0


def test_a_project_is_told_by_its_whole_path(tmp_path: Path) -> None:
    names = {events.project_resource(Project(tmp_path / folder / "p")) for folder in ("a", "b")}
    assert len(names) == 2
    assert all(name.startswith("adapt-inf.project.p-") for name in names)
