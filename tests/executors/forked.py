"""A launcher of two processes, as `torchrun` is one: from a process that has imported, so that each begins at once."""

from __future__ import annotations

import importlib
import os
import signal
import socket
import sys

import peft  # noqa: F401 as each process would by itself
import transformers  # noqa: F401

COUNT = 2


def main(module: str, job: str) -> int:
    work = importlib.import_module(module)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(COUNT)}
    begun = set()
    for rank in range(COUNT):
        if not (pid := os.fork()):
            os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank)}
            status = work.main(job)
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)
        begun.add(pid)
    while begun:
        pid, status = os.wait()
        begun.remove(pid)
        if status:
            for each in begun:
                os.kill(each, signal.SIGKILL)
            return 1
    return 0


if __name__ == "__main__":
    _, _, _module, _job = sys.argv
    sys.exit(main(_module, _job))
