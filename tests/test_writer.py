"""One writer at a time, by name; what a killed one left is cleared, and what lives is left alone."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from dvc.exceptions import DvcException
from dvc.repo import Repo

from adapt_inf.project import Project
from adapt_inf.writer import BusyError, clear_locks, holder, kill_orphans, mark_run, writer_lock

WORKER = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'import time; time.sleep(600)'])"


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    for folder in ("rounds/base", ".dvc/tmp", ".git/refs/tags"):
        (tmp_path / folder).mkdir(parents=True)
    monkeypatch.setenv("ADAPT_INF_RUN", "")  # put back what the lock sets
    return Project(tmp_path)


def start_writer(project: Project, then: str = "time.sleep(600)") -> subprocess.Popen[str]:
    """A process that holds the project, has started another that works, and says so."""
    script = (
        "import subprocess, sys, time; from pathlib import Path\n"
        "from adapt_inf.writer import writer_lock; from adapt_inf.project import Project\n"
        f"with writer_lock(Project(Path({str(project.root)!r})), flow_run='a-run'):\n"
        f"    child = subprocess.Popen([sys.executable, '-c', {WORKER!r}])\n"
        f"    print(child.pid, flush=True); {then}"
    )
    process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    return process


def grandchildren(pid: int) -> list[psutil.Process]:
    until = time.monotonic() + 120
    while not (found := psutil.Process(pid).children()):
        assert time.monotonic() < until
        time.sleep(0.02)
    return [psutil.Process(pid), *found]


def gone(process: psutil.Process) -> bool:
    return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE


def test_a_second_writer_is_told_who_is_at_work(project: Project) -> None:
    first = start_writer(project)
    assert first.stdout is not None
    worker = int(first.stdout.readline())
    with pytest.raises(BusyError, match=rf"process {first.pid} of .* is at work here"), writer_lock(project):
        pass
    at_work = holder(project)
    assert at_work is not None
    assert (at_work.pid, at_work.flow_run) == (first.pid, "a-run")
    assert kill_orphans(project) == [], "its processes belong to a living run"
    workers = grandchildren(worker)
    first.kill()
    first.wait()
    assert holder(project) is None
    with writer_lock(project) as dead:
        assert [writer.flow_run for writer in dead] == ["a-run"]
        assert all(gone(process) for process in workers), "the processes of the dead are killed, theirs too"
    with pytest.raises(ValueError, match="its own"), writer_lock(project):
        raise ValueError("its own")
    with writer_lock(project) as dead:
        assert [writer.flow_run for writer in dead] == ["a-run"], "until somebody has ended its run"
        dead.clear()
    with writer_lock(project) as dead:
        assert dead == []


def test_a_writer_that_was_told_to_stop_leaves_what_it_had_open_to_the_next(project: Project) -> None:
    with pytest.raises(KeyboardInterrupt), writer_lock(project, flow_run="stopped"):
        raise KeyboardInterrupt
    with writer_lock(project) as dead:
        assert [writer.flow_run for writer in dead] == ["stopped"]
        dead.clear()
    with pytest.raises(ValueError, match="its own"), writer_lock(project):
        raise ValueError("its own")
    with writer_lock(project) as dead:
        assert dead == [], "one that failed has said so itself"


def test_a_writer_that_waits_comes_next(project: Project) -> None:
    first = start_writer(project, then="time.sleep(1)")
    assert first.stdout is not None
    worker = psutil.Process(int(first.stdout.readline()))
    with writer_lock(project, wait=True) as dead:
        assert dead == [], "the first ended properly"
    first.wait()
    with writer_lock(project):
        assert gone(worker), "even then no process of its outlives it"


def test_a_writer_that_was_killed_while_it_cleared_hides_nobody(project: Project) -> None:
    for _ in range(2):
        process = start_writer(project)
        assert process.stdout is not None
        process.stdout.readline()
        process.kill()
        process.wait()
    with writer_lock(project) as dead:
        assert [writer.flow_run for writer in dead] == ["a-run", "a-run"]


def test_another_project_s_processes_are_left_alone(project: Project, tmp_path_factory: pytest.TempPathFactory) -> None:
    other = Project(tmp_path_factory.mktemp("other"))
    (other.rounds / "base").mkdir(parents=True)
    process = start_writer(other)
    assert process.stdout is not None
    worker = psutil.Process(int(process.stdout.readline()))
    process.kill()
    process.wait()
    assert kill_orphans(project) == []
    assert worker.is_running()
    assert worker.pid in kill_orphans(other)


def test_the_mark_names_this_process(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    mark_run(project)
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    assert kill_orphans(project) == []
    monkeypatch.setenv("ADAPT_INF_RUN", f"{os.getpid()} 1.00 {project.root}")  # a process of this number, long ago
    orphan = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    assert kill_orphans(project) == [orphan.pid]
    assert orphan.poll() is not None
    child.kill()
    child.wait()


@pytest.mark.parametrize(
    ("text", "stays"),
    [
        ('{"write": {"rounds/r001/model": {"pid": 1, "cmd": "adapt-inf round"}}, "read": {}}', False),
        ('{"write": {"rounds/r001/mod', False),
        ("LIVING", True),
    ],
    ids=["the number is another process's", "cut off as it was written", "its process is at work"],
)
def test_locks_of_dvc(project: Project, text: str, stays: bool) -> None:
    if stays:
        info = {"pid": os.getpid(), "cmd": " ".join(sys.argv)}
        text = json.dumps({"write": {}, "read": {"drops/a": [info]}})
    lock = project.root / ".dvc" / "tmp" / "rwlock"
    lock.write_text(text, encoding="utf-8")
    clear_locks(project)
    assert lock.exists() == stays


def test_locks_of_git(project: Project) -> None:
    locks = [project.root / ".git" / name for name in ("index.lock", "HEAD.lock", "refs/tags/r001.lock")]
    for lock in locks:
        lock.touch()
    at_work = subprocess.Popen(["git", "hash-object", "--stdin"], cwd=project.root, stdin=subprocess.PIPE)
    clear_locks(project)
    assert all(lock.exists() for lock in locks), "a git that is at work may hold them"
    at_work.communicate(b"")
    clear_locks(project)
    assert not any(lock.exists() for lock in locks)


def test_a_record_of_a_run_that_dvc_did_not_finish_writing(project: Project) -> None:
    """DVC reads it as one that it may use, and fails with `'outs'`."""
    folder = project.root / ".dvc" / "cache" / "runs" / "e7" / "e752"
    folder.mkdir(parents=True)
    for name in (".EoFqY6xDcYiNVcOP0XNZog.tmp", "9f3a"):
        (folder / name).write_text("cmd: true\n", encoding="utf-8")
    clear_locks(project)
    assert [path.name for path in folder.iterdir()] == ["9f3a"]


def test_a_record_of_a_run_that_dvc_did_not_begin_to_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """DVC has made its folder, looks for the newest record in it ever after, and fails at there being none."""
    monkeypatch.chdir(tmp_path)
    with Repo.init(str(tmp_path), no_scm=True):
        (tmp_path / "a").write_text("a", encoding="utf-8")
    stage = {"cmd": "cp a b", "deps": ["a"], "outs": ["b"]}
    (tmp_path / "dvc.yaml").write_text(json.dumps({"stages": {"copy": stage}}), encoding="utf-8")
    with Repo(".") as repo:
        repo.reproduce()
    (record,) = (tmp_path / ".dvc" / "cache" / "runs").glob("*/*/*")
    for done in (record, tmp_path / "dvc.lock", tmp_path / "b"):
        done.unlink()
    with pytest.raises(DvcException), Repo(".") as repo:
        repo.reproduce()
    clear_locks(Project(tmp_path))
    with Repo(".") as repo:
        repo.reproduce()
    assert (tmp_path / "b").read_text(encoding="utf-8") == "a"
