"""What a stage prints, kept beside its round as rounds/<round>/log/<stage>.log: for whoever reads why it failed.

The terminal sees all as before; the file has whole lines, and of a bar that moves on one line a frame now and then.
What a process writes past Python's own stderr (a library of C that aborts) is on the terminal only.
"""

from __future__ import annotations

import re
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, TextIO

from adapt_inf.progress import LOG_SECONDS
from adapt_inf.project import Project

_ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")  # how a bar moves about a terminal


def log_file(project: Project, round_id: str, stage: str) -> Path:
    return project.log(round_id) / f"{stage}.log"


def keep_log(project: Project, round_id: str, stage: str) -> None:
    """Write what this process prints to stderr to the stage's log, too, from here to its end."""
    path = log_file(project, round_id, stage)
    if not path.parent.parent.is_dir():
        return  # there is no such round, as the stage will say
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.part")
    file = open(beside, "w", encoding="utf-8", buffering=1)  # noqa: SIM115 open until the process ends
    beside.replace(path)  # a file of its own, so that a reader of the last attempt's knows one from the other
    sys.stderr = _Both(sys.stderr, file)


class _Both:
    """A terminal or pipe, and a file that gets its lines."""

    def __init__(self, stream: TextIO, file: TextIO) -> None:
        self._stream = stream
        self._file = file
        self._line = ""
        self._framed = 0.0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        for part in re.split(r"([\r\n])", text):
            if part == "\n":
                self._keep()
            elif part == "\r":
                if time.monotonic() - self._framed >= LOG_SECONDS:
                    self._keep()
                self._line = ""
            else:
                self._line += part
        with suppress(BrokenPipeError):  # whoever read the terminal has gone; the work has not
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        with suppress(BrokenPipeError):
            self._stream.flush()

    def _keep(self) -> None:
        line = _ESCAPES.sub("", self._line).rstrip()
        if line:
            self._file.write(f"{line}\n")
            self._framed = time.monotonic()
        self._line = ""


def last_lines(project: Project, round_id: str, stage: str, count: int = 8) -> list[str]:
    """The end of a stage's log; nothing where there is none."""
    path = log_file(project, round_id, stage)
    return path.read_text(encoding="utf-8", errors="replace").splitlines()[-count:] if path.is_file() else []
