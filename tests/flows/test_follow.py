"""Lines that another process writes come to a logger while it writes them, and none of an earlier attempt."""

from __future__ import annotations

import logging
import os
import time
from pathlib import Path

import pytest

from flows.follow import following


def test_lines_come_as_they_are_written(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    path = tmp_path / "sketch.log"
    path.write_text("of an earlier attempt\n")
    with following(path, logging.getLogger("followed")):
        beside = tmp_path / ".part"
        with open(beside, "w", buffering=1) as file:
            os.replace(beside, path)
            file.write("first\nsec")
            deadline = time.monotonic() + 120
            while caplog.messages != ["first"]:
                assert time.monotonic() < deadline
                time.sleep(0.05)
            file.write("ond\nü and last\n")
    assert caplog.messages == ["first", "second", "ü and last"]


def test_a_file_that_never_comes_is_no_fault(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    with following(tmp_path / "none.log", logging.getLogger("followed")):
        pass
    assert caplog.messages == []
