"""One writer per project: the lock that whoever runs a round or moves the head holds, with the holder's identity."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager

from adapt_inf.errors import AdaptInfError
from adapt_inf.project import Project


@contextmanager
def writer_lock(project: Project) -> Iterator[None]:
    """Hold the project's one writer's place; it is free again when this process ends, however it ends.

    Raises:
        AdaptInfError: another process holds it, naming that process.
    """
    with open(project.rounds / ".lock", "a+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise AdaptInfError(
                f"{project.root}: process {file.read().strip()} is running a round here.",
                "One at a time: wait for it, or stop it and run the same command again.",
            ) from None
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield
