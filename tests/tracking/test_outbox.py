"""Where MLflow does not answer, what it misses is set down, one delay is paid, and faults of our own are not hidden."""

from __future__ import annotations

import errno
import math
import socket
from contextlib import suppress
from pathlib import Path

import pytest
from mlflow.exceptions import MlflowException
from tracked_project import empty_project

from adapt_inf.errors import RoundError
from adapt_inf.project import Project
from adapt_inf.tracking import outbox
from adapt_inf.tracking.outbox import HEAD, attempt, notice, strike_off, tell, untracked
from adapt_inf.tracking.store import connect


@pytest.fixture
def garden(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """A project whose MLflow refuses every connection."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:1")
    monkeypatch.setattr(outbox, "_failed", {})
    return empty_project(tmp_path / "garden")


def test_after_a_failure_nothing_more_is_tried_of_a_round(garden: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[str] = []

    def send() -> None:
        tried.append("once")
        connect(garden)

    assert tell(garden, "r001", send) is None
    assert list(untracked(garden)) == ["r001"]
    assert "MLflow at http://127.0.0.1:1 does not answer" in untracked(garden)["r001"]
    monkeypatch.setattr(outbox, "_QUIET_SECONDS", 0.0)
    assert tell(garden, "r001", send) is None
    assert tried == ["once"]
    assert tell(garden, "r002", send) is None
    assert tried == ["once", "once"]
    assert list(untracked(garden)) == ["r001", "r002"]


def test_a_move_is_not_tried_while_the_round_that_it_points_at_is_missed(
    garden: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox, "_QUIET_SECONDS", 0.0)
    tell(garden, "r001", lambda: connect(garden))
    assert tell(garden, HEAD, lambda: pytest.fail("it was tried")) is None
    assert list(untracked(garden)) == ["r001", HEAD]


def test_for_a_minute_nothing_is_tried_at_all(garden: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbox, "_QUIET_SECONDS", max(outbox._QUIET_SECONDS, 600))
    assert attempt(garden, lambda: connect(garden)) is not None
    tried: list[str] = []
    assert tell(garden, "r001", lambda: tried.append("once")) is None
    assert tried == []
    assert list(untracked(garden)) == ["r001"]


def asked(server: socket.socket) -> int:
    """How many connections nobody has taken yet."""
    count = 0
    with suppress(BlockingIOError):
        while True:
            server.accept()[0].close()
            count += 1
    return count


def test_a_server_that_accepts_and_says_nothing_costs_one_delay(
    garden: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{silent.getsockname()[1]}")
        monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
        monkeypatch.setattr(outbox, "_QUIET_SECONDS", math.inf)
        monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
        silent.setblocking(False)
        assert tell(garden, "r001", lambda: connect(garden)) is None
        assert asked(silent) == 1, "one delay"
        for name in ("r001", "r001", HEAD):
            assert tell(garden, name, lambda: connect(garden)) is None
        assert asked(silent) == 0
    assert list(untracked(garden)) == ["r001", HEAD]


@pytest.mark.parametrize("error", [MlflowException("gone"), ConnectionResetError("gone"), TimeoutError("gone")])
def test_a_server_that_dies_in_between_is_no_fault_of_the_round(garden: Project, error: Exception) -> None:
    def send() -> None:
        raise error

    assert tell(garden, "r001", send) is None
    assert untracked(garden) == {"r001": "MLflow at http://127.0.0.1:1: gone"}


@pytest.mark.parametrize(
    "error",
    [
        KeyError("typo"),
        RoundError("r001", "it is no more"),
        FileNotFoundError("rounds/r001/select/selectors.json"),
        OSError(errno.ENOSPC, "No space left on device"),
        MlflowException("database or disk is full"),
    ],
)
def test_a_fault_of_ours_and_a_full_disk_are_not_taken_for_mlflows(garden: Project, error: Exception) -> None:
    def send() -> None:
        raise error

    with pytest.raises(type(error)):
        tell(garden, "r001", send)
    assert untracked(garden) == {}


def test_a_password_in_the_address_is_not_told(garden: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://lead:hidden@127.0.0.1:1")
    assert tell(garden, "r001", connect, garden) is None
    assert "MLflow at http://lead:***@127.0.0.1:1 does not answer" in untracked(garden)["r001"]
    monkeypatch.setattr(outbox, "_QUIET_SECONDS", 0.0)

    def send() -> None:
        raise ConnectionError("no answer from http://lead:hidden@127.0.0.1:1/api")

    assert "hidden" not in (attempt(garden, send) or "hidden")


def test_what_was_sent_is_struck_off(garden: Project) -> None:
    assert tell(garden, "r001", lambda: 7) == 7
    assert notice(garden) is None
    for name in ("r001", HEAD):
        tell(garden, name, lambda: connect(garden))
    assert "MLflow has not got r001, moves of the head (MLflow at http://127.0.0.1:1" in (notice(garden) or "")
    strike_off(garden, "r001")
    assert list(untracked(garden)) == [HEAD]
    strike_off(garden, HEAD)
    assert not (garden.rounds / ".untracked.json").exists()
