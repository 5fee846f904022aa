"""The Prefect server of a run that was given none: of this process alone, on loopback, and gone when this process is.

Prefect starts one by itself, but that one outlives a killed run. Ours is ended by the kernel with the thread that
started it, listens on a socket that is open before it starts (no port can be taken in between), leaves out what only a
page or a schedule needs, and starts while this process is still importing. It takes 3 to 6 s, more on a fresh database.
"""

from __future__ import annotations

import atexit
import os
import socket
import subprocess
import sys
import time
import urllib.request

from adapt_inf.errors import AdaptInfError
from adapt_inf.processes import end_with_parent, uncollected

_START_SECONDS = 120
_STOP_SECONDS = 10
_ANSWER_SECONDS = 60  # one that is not there is refused at once; a busy one may take a while


class NoServerError(AdaptInfError):
    """The Prefect server that is set, or has to be, is not there."""

    def __init__(self, problem: str, otherwise: str = "") -> None:
        super().__init__(
            f"{problem}.",
            "Run `prefect server start` in another terminal, then here "
            f"`export PREFECT_API_URL=http://127.0.0.1:4200/api`{otherwise}.",
        )


def configured_server() -> str | None:
    """The address of the Prefect server that the user has set, in the environment or Prefect's profile."""
    from prefect.settings import get_current_settings

    return get_current_settings().api.url or None


def check_server() -> None:
    """See that the server that is set answers.

    Raises:
        NoServerError: it does not.
    """
    server = configured_server()
    try:
        with urllib.request.urlopen(f"{server}/health", timeout=_ANSWER_SECONDS):
            return
    except OSError as error:  # which urllib's own are
        raise NoServerError(
            f"no Prefect server answers at {server} ({error})", "; `adapt-inf round` does without where none is set"
        ) from error


def begin_server() -> subprocess.Popen[bytes] | None:
    """Start a server and point this process at it, unless one is set; call `await_server` before anything needs it.

    Call it in the main thread: the server ends with the thread that started it.

    Raises:
        NoServerError: one is set and does not answer.
    """
    if os.environ.get("PREFECT_API_URL"):
        check_server()
        return None
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen(128)
        listening.set_inheritable(True)
        address = f"http://127.0.0.1:{listening.getsockname()[1]}/api"
        command = [sys.executable, "-m", "flows.server", str(listening.fileno()), str(os.getpid())]
        environment = os.environ | {"PREFECT_API_URL": address}
        # Before we know that none is set: reading Prefect's profile means importing it, as long as the server needs
        # for that. In a session of its own: Ctrl-C is for us, who still have to tell it how the run ended.
        server = subprocess.Popen(command, env=environment, pass_fds=[listening.fileno()], start_new_session=True)
    if configured_server() is not None:
        server.kill()
        server.wait()
        check_server()
        return None
    from prefect.context import refresh_global_settings_context

    os.environ.setdefault("PREFECT_CLIENT_MAX_RETRIES", "1")  # once gone, it does not come back: no minute a call
    os.environ["PREFECT_API_URL"] = address
    refresh_global_settings_context()
    atexit.register(_end, server)
    return server


def await_server(server: subprocess.Popen[bytes] | None) -> None:
    """Wait until the server that `begin_server` started answers.

    Raises:
        AdaptInfError: it ended, or said nothing for two minutes.
    """
    deadline = time.monotonic() + _START_SECONDS
    while server is not None and time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(os.environ["PREFECT_API_URL"] + "/health", timeout=_START_SECONDS):
                return
        except OSError:  # which urllib's own are
            if server.poll() is not None:
                break
            time.sleep(0.1)
    if server is not None:
        raise AdaptInfError(
            "Prefect's server did not start.",
            "Its reason stands above. Or run `prefect server start` elsewhere and set PREFECT_API_URL.",
        )


def _end(server: subprocess.Popen[bytes]) -> None:
    server.terminate()
    try:
        server.wait(_STOP_SECONDS)
    except subprocess.TimeoutExpired:
        server.kill()
        server.wait()


def main(descriptor: int, parent: int) -> None:
    """Serve on an open socket until told to stop, or until `parent` is no more."""
    if not end_with_parent(parent):
        return
    os.environ |= {
        "PREFECT_UI_ENABLED": "false",
        "PREFECT_API_BLOCKS_REGISTER_ON_START": "false",
        "PREFECT__SERVER_EPHEMERAL": "1",
        "PREFECT__SERVER_FINAL": "1",
    }
    with uncollected():
        import prefect.server.api.server
        import uvicorn

    uvicorn.run(prefect.server.api.server.create_app, factory=True, fd=descriptor, log_level="error", lifespan="on")


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
