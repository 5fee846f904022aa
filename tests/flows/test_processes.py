"""A run that a runner started ends with it, also where the runner was killed before the run could ask for that."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

ASKS = "from flows.processes import end_with_runner; print(end_with_runner())"


@pytest.mark.parametrize(("runner", "there"), [("its parent", "True"), ("1", "False"), (None, "True")])
def test_a_run_knows_whether_its_runner_is_there(runner: str | None, there: str) -> None:
    """None: a work pool's worker, which does not mark itself."""
    environment = {key: value for key, value in os.environ.items() if key != "ADAPT_INF_RUNNER"}
    environment |= {"ADAPT_INF_RUNNER": str(os.getpid()) if runner == "its parent" else runner} if runner else {}
    done = subprocess.run([sys.executable, "-c", ASKS], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == there
