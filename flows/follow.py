"""The lines of a stage's log in Prefect's page while the stage runs: it is another process, behind DVC."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_SECONDS = 0.5  # between looks

Logger = logging.Logger | logging.LoggerAdapter[logging.Logger]


@contextmanager
def following(path: Path, logger: Logger) -> Iterator[None]:
    """Log the lines that come into the file at `path` from now on, until the block ends.

    A file that stands there now is an earlier attempt's: the stage replaces it.
    """
    earlier = path.stat().st_ino if path.exists() else None
    ended = threading.Event()

    def follow() -> None:
        seen, rest = 0, ""
        while True:
            last = ended.wait(_SECONDS)
            if path.exists() and path.stat().st_ino != earlier:
                with open(path, encoding="utf-8", errors="replace") as file:
                    file.seek(seen)
                    *lines, rest = (rest + file.read()).split("\n")
                    seen = file.tell()
                for line in lines:
                    logger.info(line)
            if last:
                return

    thread = threading.Thread(target=follow, daemon=True, name=f"follow {path.name}")
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
