"""Watches where a Python process connects to and binds: Python imports this by itself, as it stands on PYTHONPATH.

What leads off this machine is refused as if no network were there, and noted in the file that SOCKETS_SEEN names; so
is loopback, which shows that the process was watched. A line each, once a process.

Where HOLD names a file, a process that would finish any part of a stage but the first waits for as long as it is there.
"""

from __future__ import annotations

import errno
import ipaddress
import os
import socket
import sys
import time
from pathlib import Path
from typing import Any

_NAMES = {None, "", "localhost", socket.gethostname()}
_EVENTS = {"socket.connect", "socket.bind", "socket.sendto", "socket.getaddrinfo"}
_noted: set[str] = set()


def _see(event: str, arguments: tuple[Any, ...]) -> None:
    if event not in _EVENTS:
        return
    address = arguments if event == "socket.getaddrinfo" else arguments[1]
    if not isinstance(address, tuple) or not address:  # a socket of this machine's, by its path
        return
    host = address[0].decode() if isinstance(address[0], bytes) else address[0]
    away = not _is_here(host) or (event == "socket.bind" and host == "" and address[1] != 0)
    line = f"{'away' if away else 'here'} {event} {host}"
    if line not in _noted:
        _noted.add(line)
        note = f"{line} {os.getpid()} {' '.join(sys.argv)[:200]!r}\n"
        descriptor = os.open(os.environ["SOCKETS_SEEN"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        os.write(descriptor, note.encode())
        os.close(descriptor)
    if away:
        raise OSError(errno.ENETUNREACH, f"the tests have no network: {event} {host}")


def _hold(event: str, arguments: tuple[Any, ...]) -> None:
    if event != "os.rename" or not isinstance(arguments[1], str | Path):
        return
    name = Path(arguments[1]).name
    while name.startswith("part-") and not name.startswith("part-00000") and os.path.exists(os.environ["HOLD"]):
        time.sleep(0.05)


def _is_here(host: str | None) -> bool:
    if host in _NAMES:
        return True
    try:
        return ipaddress.ip_address(host or "").is_loopback
    except ValueError:
        return False


if "SOCKETS_SEEN" in os.environ:
    sys.addaudithook(_see)
if "HOLD" in os.environ:
    sys.addaudithook(_hold)
