"""Run a stage in a process of its own and kill it -9 once it has finished some parts."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from adapt_inf.project import Project
from adapt_inf.stages.runner import OUTPUTS

PATIENCE = 120.0  # seconds until the first parts must be there, on a loaded machine too


def kill_midway(root: Path, round_id: str, stage: str, parts: str, after: int = 2) -> list[Path]:
    """Start `stage`, kill it when `after` files match `parts` in its work folder, and return those that it left.

    Raises:
        AssertionError: it ended before, or nothing came.
    """
    work = Project(root).work(round_id)
    here = Path(__file__).parent
    paths = [str(here), str(here.parent), str(here.parent.parent), os.environ.get("PYTHONPATH", "")]
    process = subprocess.Popen(
        [sys.executable, str(here.parent / "sketch_project.py"), str(root), stage],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        stderr=subprocess.DEVNULL,
    )
    until = time.monotonic() + PATIENCE
    while len(list(work.glob(f"{OUTPUTS[stage]}-*/{parts}"))) < after:
        assert process.poll() is None, f"{stage} ended before it could be killed"
        assert time.monotonic() < until, f"{stage} finished no part in {PATIENCE} s"
        time.sleep(0.001)
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL, f"{stage} ended before it could be killed"
    return sorted(work.glob(f"{OUTPUTS[stage]}-*/{parts}"))
