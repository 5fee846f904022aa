"""What a stage prints stands in a file beside its round, whole lines of it, whatever moved about the terminal."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from adapt_inf.project import Project
from adapt_inf.stages.log import last_lines, log_file

PRINTS = """
import sys
from pathlib import Path
from adapt_inf import progress
from adapt_inf.project import Project
from adapt_inf.stages import log
log.LOG_SECONDS = 600.0  # on a loaded machine the bar may move for longer than ten seconds
log.keep_log(Project(Path(sys.argv[1])), "r001", "sketch")
with progress.progress("sketch", 1000) as bar:
    for _ in range(1000):
        bar.update(1)
        bar.refresh()
print("\\x1b[31mone line\\x1b[0m", file=sys.stderr)
raise ValueError("what went wrong")
"""


def run(project: Project) -> str:
    """What the stage shows at the terminal."""
    command = [sys.executable, "-c", PRINTS, str(project.root)]
    return subprocess.run(command, capture_output=True, check=False).stderr.decode()


def test_the_log_has_whole_lines_and_the_terminal_has_all(tmp_path: Path) -> None:
    project = Project(tmp_path)
    project.round("r001").mkdir(parents=True)
    shown = run(project)
    kept = log_file(project, "r001", "sketch").read_text(encoding="utf-8").splitlines()
    assert shown.count("\r") > 500
    assert len([line for line in kept if line.startswith("sketch:")]) <= 2, "a frame of the bar, and its end"
    assert any("1000/1000" in line for line in kept)
    assert "one line" in kept
    assert last_lines(project, "r001", "sketch", 2)[-1] == "ValueError: what went wrong"
    assert "ValueError: what went wrong" in shown


def test_work_goes_on_when_whoever_read_the_terminal_has_gone(tmp_path: Path) -> None:
    project = Project(tmp_path)
    project.round("r001").mkdir(parents=True)
    command = [sys.executable, "-c", PRINTS, str(project.root)]
    with subprocess.Popen(command, stderr=subprocess.PIPE) as process:
        assert process.stderr is not None
        process.stderr.close()
    assert process.returncode == 1
    kept = log_file(project, "r001", "sketch").read_text(encoding="utf-8")
    assert "1000/1000" in kept
    assert kept.endswith("ValueError: what went wrong\n")


def test_the_next_attempt_has_a_file_of_its_own(tmp_path: Path) -> None:
    project = Project(tmp_path)
    project.round("r001").mkdir(parents=True)
    run(project)
    first = log_file(project, "r001", "sketch").stat().st_ino
    size = log_file(project, "r001", "sketch").stat().st_size
    run(project)
    assert log_file(project, "r001", "sketch").stat().st_ino != first
    assert log_file(project, "r001", "sketch").stat().st_size < 2 * size


def test_no_round_comes_of_a_wrong_name(tmp_path: Path) -> None:
    run(Project(tmp_path))
    assert list(tmp_path.iterdir()) == []
    assert last_lines(Project(tmp_path), "r001", "sketch") == []
