"""Run the product's commands as a user would: in processes of their own, apart from any other run's files."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adapt_inf.cli import main
from adapt_inf.project import Project


@dataclass(frozen=True)
class Machine:
    """Runs commands of ours as a user would, with Prefect's files apart from any other run's."""

    home: Path

    def environment(self) -> dict[str, str]:
        return os.environ | {
            "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
            "PREFECT_HOME": str(self.home / "prefect"),
            "HOME": str(self.home),
            "OMP_NUM_THREADS": "1",
            "MLFLOW_TRACKING_URI": "",
        }

    def run(self, *command: str, cwd: Path | None = None, check: bool = True) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            command, cwd=cwd or self.home, env=self.environment(), capture_output=True, text=True, check=False
        )
        if check and done.returncode:
            raise AssertionError(f"{' '.join(command)} left with {done.returncode}:\n{done.stdout}\n{done.stderr}")
        return done

    def here(self, *words: str, cwd: Path, check: bool = True) -> subprocess.CompletedProcess[str]:
        """`adapt-inf` with those words in this process, where what it imports is there already."""
        out, err, before, environment = io.StringIO(), io.StringIO(), Path.cwd(), dict(os.environ)
        os.environ.update(self.environment())
        os.chdir(cwd)
        try:
            with redirect_stdout(out), redirect_stderr(err):
                status = main([*words])
        finally:
            os.chdir(before)
            os.environ.clear()
            os.environ.update(environment)
        if check and status:
            raise AssertionError(f"adapt-inf {' '.join(words)} left with {status}:\n{out.getvalue()}\n{err.getvalue()}")
        return subprocess.CompletedProcess(words, status, out.getvalue(), err.getvalue())

    def lineage(self, project: Project) -> list[dict[str, Any]]:
        return json.loads(self.here("lineage", "--json", cwd=project.root).stdout)


def copy_project(project: Project, target: Path) -> Project:
    """The project as it is, its hard links too: half of it is DVC's cache."""
    subprocess.run(["cp", "-a", project.root, target], check=True)
    return Project(target)
