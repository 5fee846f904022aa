"""A process that speaks to MLflow for a run of rounds: importing MLflow, 2 s, then passes beside what the run imports.

What is to be sent is a function and its arguments, done there one at a time while the run waits; what it returns or
raises comes back. Where there is no such process, or not any more, the run does it itself: nothing depends on it, since
everything that is logged may be logged twice. It ends with the run, however that ends, even in the midst of a call.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import queue
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, TypeVar

from adapt_inf.processes import show_name, uncollected
from adapt_inf.project import Project

T = TypeVar("T")
_connection: Connection | None = None  # to the process of this run


@contextlib.contextmanager
def tracking_process(project: Project) -> Iterator[None]:
    """Have `call` done by a process of its own until the block ends; in another such block, by that one's."""
    global _connection
    if _connection is not None:
        yield
        return
    ours, theirs = Pipe()
    with theirs:
        command = [sys.executable, "-P", "-m", "adapt_inf.tracking.process", str(theirs.fileno()), str(project.root)]
        # In a session of its own: Ctrl-C is for us, who still have to tell it how the run ended.
        process = subprocess.Popen(command, pass_fds=[theirs.fileno()], start_new_session=True)
    _connection = ours
    try:
        yield
    finally:
        _connection = None
        ours.close()
        process.wait()


def call(function: Callable[..., T], *arguments: Any) -> T:
    """Do `function`, of a module's top level, with arguments that can be pickled, there or here.

    Raises:
        Exception: what `function` raised.
    """
    global _connection
    if (connection := _connection) is None:
        return function(*arguments)
    _connection = None  # an answer that nobody waited for would be taken for the next one's
    try:
        connection.send((function, arguments))
        result, error = connection.recv()
    except (OSError, EOFError):  # it was killed
        return function(*arguments)
    _connection = connection
    if error is not None:
        raise error
    return result


def main(descriptor: int, root: Path) -> None:
    """Do what is asked for over a connection until it is closed."""
    from adapt_inf.tracking.store import import_ahead

    show_name("tracking")
    connection = Connection(descriptor)
    asked: queue.SimpleQueue[tuple[Callable[..., Any], tuple[Any, ...]]] = queue.SimpleQueue()

    def work() -> None:
        with uncollected(), contextlib.suppress(Exception):  # whoever asks for something will hear of it
            import_ahead(Project(root))
        while True:
            try:
                connection.send(_done(*asked.get()))
            except BaseException:  # nobody is there any more, or the result cannot travel: who asked does it themselves
                os._exit(1)

    threading.Thread(target=work, daemon=True).start()
    with contextlib.suppress(OSError, EOFError):
        while True:
            asked.put(connection.recv())
    os._exit(0)  # the run has ended: what is at work here must not go on


def _done(function: Callable[..., Any], arguments: tuple[Any, ...]) -> tuple[Any, Exception | None]:
    try:
        return function(*arguments), None
    except Exception as error:
        error.add_note(traceback.format_exc())
        try:
            pickle.loads(pickle.dumps(error))
        except Exception:  # one that cannot travel
            return None, RuntimeError(traceback.format_exc())
        return None, error


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]))
