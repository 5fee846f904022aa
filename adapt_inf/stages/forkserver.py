"""A process that has imported what stages need and forks for each: a stage begins at once, not seconds later.

torch, transformers and PEFT take longer to import than a small round takes to select. A run of rounds starts one such
process, idle until a stage has to run. `adapt-inf stage`, which DVC starts, asks it to run the stage in a fork that has
the caller's terminal, folder and environment, hands on what signals it gets, and ends as the fork ends. Where there is
no such process it runs the stage itself: nothing depends on it.

Nothing outlives what it belongs to: a fork is killed with whoever asked for it and with this process, and this process
ends with the run.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import selectors
import signal
import socket
import struct
import subprocess
import sys
import traceback
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, NoReturn

from adapt_inf.processes import end_with_parent, show_name, uncollected

ADDRESS = "ADAPT_INF_FORKSERVER"
"""In the environment of a run: the name of the socket that is listened on; an abstract one, of which no kill leaves a
file."""

_LENGTH = struct.Struct("!I")
_STATUS = struct.Struct("!i")
_STREAMS = 3  # stdin, stdout, stderr
_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_RUN = 0  # the descriptor whose other end the run holds: it ends when the run does
_NEEDED = (
    *(f"adapt_inf.stages.{stage}" for stage in ("sketch", "cluster", "score", "select", "prune", "train", "evaluate")),
    "peft",
)
"""What is imported while the first stage, ingest as a rule, is at work."""


@contextlib.contextmanager
def forkserver() -> Iterator[None]:
    """Have the stages that this process runs begun by forks of one process, until the block ends."""
    name = f"adapt-inf-{os.getpid()}-{os.urandom(8).hex()}"
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(f"\0{name}")
        listening.listen()
        command = [sys.executable, "-P", "-m", "adapt_inf.stages.forkserver", str(listening.fileno())]
        server = subprocess.Popen(command, stdin=subprocess.PIPE, pass_fds=[listening.fileno()])
    os.environ[ADDRESS] = name
    try:
        yield
    finally:
        del os.environ[ADDRESS]
        server.communicate()  # closes the pipe


def run_forked(arguments: Sequence[str]) -> int | None:
    """Have the run's forkserver do `adapt-inf` with `arguments`; the status, or None: it is not there, or not any more.

    Where a signal ended the fork it ends this process, too.
    """
    if (name := os.environ.get(ADDRESS)) is None:
        return None
    with socket.socket(socket.AF_UNIX) as connection:
        try:
            connection.connect(f"\0{name}")
            if not _ours(connection):
                return None
            request = json.dumps([list(arguments), os.getcwd(), dict(os.environ)]).encode()
            socket.send_fds(connection, [_LENGTH.pack(len(request))], range(_STREAMS))
            connection.sendall(request)
            with _handing_on(connection):
                (status,) = _STATUS.unpack(_receive(connection, _STATUS.size))
        except OSError:
            return None
    if status < 0:
        if -status != signal.SIGKILL:
            signal.signal(-status, signal.SIG_DFL)
        os.kill(os.getpid(), -status)
    return int(status)


@contextlib.contextmanager
def _handing_on(connection: socket.socket) -> Iterator[None]:
    def hand_on(number: int, _: object) -> None:
        with contextlib.suppress(OSError):  # it has just ended
            connection.sendall(bytes([number]))

    before = {number: signal.signal(number, hand_on) for number in _SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _ours(connection: socket.socket) -> bool:
    """Whether the other end is a process of this user: an abstract socket has no permissions."""
    who = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    return bool(struct.unpack("3i", who)[1] == os.getuid())


def _receive(connection: socket.socket, count: int) -> bytes:
    """`count` bytes.

    Raises:
        ConnectionError: the other end has closed before.
    """
    found = b""
    while len(found) < count:
        if not (part := connection.recv(count - len(found))):
            raise ConnectionResetError
        found += part
    return found


class _Request(NamedTuple):
    arguments: list[str]
    folder: str
    environment: dict[str, str]
    streams: list[int]


class _Server:
    """Serves until the run ends, or until there turns out to be a GPU: after a look at it a fork cannot use it."""

    def __init__(self, listening: socket.socket) -> None:
        self._listening = listening
        self._needed: list[str] = []
        self._leaving = False
        self._forks: set[int] = set()
        self._selector = selectors.DefaultSelector()
        self._selector.register(listening, selectors.EVENT_READ, self._accept)
        self._selector.register(_RUN, selectors.EVENT_READ, self._leave)

    def serve(self) -> None:
        while not self._leaving or self._forks:
            ready = self._selector.select(0 if self._needed else None)
            if ready:
                key, _ = ready[0]  # it may make what another stands for go away
                key.data()
            elif not self._leaving:
                with contextlib.suppress(Exception):  # the stage that needs it will say so
                    self._load(self._needed.pop(0))

    def _load(self, module: str) -> None:
        with uncollected():  # what is left out of the collector's rounds stays shared with the forks, too
            importlib.import_module(module)
        if (torch := sys.modules.get("torch")) is not None and torch.cuda.is_available():
            self._leaving, self._needed = True, []
            self._selector.unregister(self._listening)
            self._listening.close()

    def _leave(self) -> None:
        self._selector.unregister(_RUN)
        self._leaving, self._needed = True, []
        for pid in self._forks:
            os.kill(pid, signal.SIGKILL)

    def _accept(self) -> None:
        asked, _ = self._listening.accept()
        streams: list[int] = []
        try:
            if not _ours(asked):
                raise PermissionError
            length, streams, _, _ = socket.recv_fds(asked, _LENGTH.size, _STREAMS)
            arguments, folder, environment = json.loads(_receive(asked, *_LENGTH.unpack(length)))
            request = _Request(arguments, folder, environment, streams)
            self._needed = [each for each in _NEEDED if each not in sys.modules]
            self._load(f"adapt_inf.stages.{request.arguments[1]}")
            if self._leaving:
                raise ConnectionAbortedError
            self._fork(asked, request)
        except Exception:  # not begun: whoever asked runs it, and says what is wrong
            asked.close()
        finally:
            for stream in streams:
                os.close(stream)

    def _fork(self, asked: socket.socket, request: _Request) -> None:
        server = os.getpid()
        signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)  # until the fork can take them
        pid = os.fork()
        if pid == 0:
            asked.close()
            self._listening.close()
            _run(request, server)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
        ended = os.pidfd_open(pid)
        self._forks.add(pid)
        self._selector.register(asked, selectors.EVENT_READ, lambda: self._hear(asked, pid))
        self._selector.register(ended, selectors.EVENT_READ, lambda: self._end(asked, pid, ended))

    def _hear(self, asked: socket.socket, pid: int) -> None:
        """A signal to hand on, or whoever asked is gone."""
        try:
            told = asked.recv(1)
        except OSError:
            told = b""
        os.kill(pid, told[0] if told else signal.SIGKILL)
        if not told:
            self._selector.unregister(asked)
            asked.close()

    def _end(self, asked: socket.socket, pid: int, ended: int) -> None:
        self._selector.unregister(ended)
        os.close(ended)
        self._forks.remove(pid)
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        if asked.fileno() >= 0:
            self._selector.unregister(asked)
            with contextlib.suppress(OSError):
                asked.sendall(_STATUS.pack(status))
            asked.close()


def _run(request: _Request, server: int) -> NoReturn:
    """Be the stage, in a fork."""
    status: Any = 1
    try:
        os.setpgid(0, 0)  # the terminal's Ctrl-C comes by way of who asked, once
        signal.signal(signal.SIGTTOU, signal.SIG_IGN)  # and still it may write there
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
        if end_with_parent(server):
            for target, stream in enumerate(request.streams):
                os.dup2(stream, target)
            os.chdir(request.folder)
            os.environ.clear()
            os.environ.update(request.environment)
            del os.environ[ADDRESS]
            sys.argv[1:] = request.arguments
            show_name(f"stage {request.arguments[1]}")
            from adapt_inf.cli import main

            status = main(request.arguments)
    except SystemExit as error:
        status = error.code
    except KeyboardInterrupt:
        status = 128 + signal.SIGINT
    except BaseException:
        traceback.print_exc()
    finally:
        for printed in (sys.stdout, sys.stderr):
            with contextlib.suppress(Exception):
                printed.flush()
        os._exit(status if isinstance(status, int) else 1)


def main(descriptor: int) -> None:
    """Serve the listening socket `descriptor`."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the stage; the run says when to leave
    _Server(socket.socket(fileno=descriptor)).serve()


if __name__ == "__main__":
    main(int(sys.argv[1]))
