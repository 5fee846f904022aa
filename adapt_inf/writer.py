"""One writer per project, and what a dead one left is cleared before the next begins.

Whoever runs a round or moves the head holds a lock of the kernel's, which is free again when its process ends, however
it ends. Beside it, rounds/.writers.json names the writers that have begun and not ended properly: the dead among them
left processes, locks and runs behind. Processes are known by RUN in their environment, which every child inherits: it
names the process that started the run, so what belongs to a living run is never touched.
"""

from __future__ import annotations

import fcntl
import getpass
import json
import os
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

import psutil

from adapt_inf.errors import AdaptInfError
from adapt_inf.files import read_json, write_json
from adapt_inf.project import Project

RUN = "ADAPT_INF_RUN"  # "<pid> <when it began> <project>" of the process that started a run
_SAME_START = 2.0  # seconds: two processes of one pid begin further apart; a clock that is set moves both


@dataclass(frozen=True)
class Writer:
    """Who holds a project: enough to find the process, and the flow run in Prefect where it has one."""

    pid: int
    began: float
    user: str
    host: str
    command: str
    since: str
    flow_run: str | None = None

    def __str__(self) -> str:
        return f"process {self.pid} of {self.user} on {self.host} (`{self.command}`, since {self.since})"


class BusyError(AdaptInfError):
    """Another process is at work in the project."""

    def __init__(self, project: Project, writer: Writer | None) -> None:
        super().__init__(
            f"{project.root}: {writer or 'another process'} is at work here.",
            "One at a time: what waits in drops/ is taken by it, too. Wait for it, or stop it and run the same command "
            "again.",
        )


@contextmanager
def writer_lock(project: Project, *, wait: bool = False, flow_run: str | None = None) -> Iterator[list[Writer]]:
    """Hold the project's one writer's place.

    Args:
        wait: until the other has ended, instead of raising.
        flow_run: the id of this process's flow run in Prefect.

    Yields:
        The writers before this one that died at work or were told to stop, whose processes and locks have been cleared
        here. Their runs in Prefect and MLflow are the caller's; those that it leaves in the list, and that have a run
        in Prefect, the next one is told of again.

    Raises:
        BusyError: another process holds it, naming that process.
    """
    with open(project.rounds / ".lock", "a", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            raise BusyError(project, holder(project)) from None
        dead, me = _writers(project), _this_process(flow_run)
        write_json(_list(project), [asdict(each) for each in (*dead, me)])
        try:
            mark_run(project)
            kill_orphans(project)
            clear_locks(project)
            yield dead
        except Exception:
            write_json(_list(project), [asdict(each) for each in dead if each.flow_run])
            raise
        # Told to stop, maybe twice, a writer cannot say what it still closed: it stays in the list as if it had died.
        write_json(_list(project), [asdict(each) for each in dead if each.flow_run])


def mark_run(project: Project) -> None:
    """Call the processes that this one starts from now on its own, so that they can be told when it is dead."""
    os.environ[RUN] = f"{os.getpid()} {psutil.Process().create_time():.2f} {project.root}"


def holder(project: Project) -> Writer | None:
    """The writer that is at work now, or None."""
    return next((each for each in reversed(_writers(project)) if _lives(each.pid, each.began)), None)


def kill_orphans(project: Project) -> list[int]:
    """Kill every process that a run of this project started and that outlived it; their ids."""
    killed = []
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            mark = process.environ().get(RUN, "").split(" ", 2)
            if len(mark) == 3 and mark[2] == str(project.root) and not _lives(int(mark[0]), float(mark[1])):
                process.kill()
                killed.append(process.pid)
                process.wait(10)  # one that waits for the disk ends with that, and does nothing more
    return killed


def clear_locks(project: Project) -> None:
    """Remove the locks that killed processes of DVC and git left; those of living ones stay.

    DVC clears a lock whose process is gone, but not one whose number another process has by now, and stops at a lock
    file that was cut off as it was written. git's locks are files that stay for ever.
    """
    rwlock = project.root / ".dvc" / "tmp" / "rwlock"
    with suppress(FileNotFoundError):
        try:
            entries = json.loads(rwlock.read_text(encoding="utf-8"))
            readers = [info for infos in entries.get("read", {}).values() for info in infos]
            held = any(_runs(info) for info in [*readers, *entries.get("write", {}).values()])
        except (ValueError, AttributeError, TypeError):
            held = False
        if not held:
            rwlock.unlink()
    # DVC takes a half-written record of a run, too, for one that it may use, and fails at what is missing in it; where
    # it had only made the folder for one, it fails at finding none, in every later run of the stage.
    runs = project.root / ".dvc" / "cache" / "runs"
    for part in runs.glob("*/*/.*.tmp"):
        part.unlink(missing_ok=True)
    for folder in runs.glob("*/*"):
        with suppress(OSError):  # it has records
            folder.rmdir()
    git = project.root / ".git"
    if git.is_dir() and (locks := list(_git_locks(git))) and not _git_at_work(project.root):
        for lock in locks:
            lock.unlink(missing_ok=True)


def _git_locks(git: Path) -> Iterator[Path]:
    yield from git.glob("*.lock")
    yield from (git / "refs").rglob("*.lock")


def _git_at_work(root: Path) -> bool:
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            if process.name() == "git" and Path(process.cwd()).is_relative_to(root):
                return True
    return False


def _runs(info: dict[str, object]) -> bool:
    """Whether the process that an entry of DVC's lock names is that process still."""
    with suppress(psutil.Error):
        script, *arguments = str(info["cmd"]).split()
        words = psutil.Process(int(str(info["pid"]))).cmdline()
        # DVC notes sys.argv, where a module that runs by `python -m` stands as its file.
        name = Path(script).parent.name if Path(script).stem == "__main__" else Path(script).stem
        return name in " ".join(words) and all(word in words for word in arguments)
    return False


def _lives(pid: int, began: float) -> bool:
    with suppress(psutil.Error):
        process = psutil.Process(pid)
        return abs(process.create_time() - began) < _SAME_START and process.status() != psutil.STATUS_ZOMBIE
    return False


def _this_process(flow_run: str | None) -> Writer:
    return Writer(
        pid=os.getpid(),
        began=psutil.Process().create_time(),
        user=getpass.getuser(),
        host=socket.gethostname(),
        command=" ".join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        since=datetime.now(UTC).isoformat(timespec="seconds"),
        flow_run=flow_run,
    )


def _list(project: Project) -> Path:
    return project.rounds / ".writers.json"


def _writers(project: Project) -> list[Writer]:
    """The writers that have begun and not ended, oldest first."""
    path = _list(project)
    return [Writer(**entry) for entry in read_json(path)] if path.is_file() else []
