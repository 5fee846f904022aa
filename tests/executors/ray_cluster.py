"""A Ray cluster of this machine, begun as an operator would."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from serving import until

from adapt_inf.config import Executor
from adapt_inf.executors import ray as ray_executor
from adapt_inf.executors.ray import TOKEN

ASKED_BY_RAY = {"169.254.169.254", "metadata.google.internal"}
"""Where a starting Ray looks to see in whose cloud it is, whatever it is told: see docs/scale.md."""

_PATIENT = {
    "RAY_agent_register_timeout_ms": "600000",
    "RAY_worker_register_timeout_seconds": "600",
    "RAY_gcs_server_request_timeout_seconds": "600",
    "RAY_health_check_failure_threshold": "100",
}
"""On a loaded machine what Ray takes for gone has only not had its turn."""


@contextmanager
def ray_cluster(seen: Path) -> Iterator[Executor]:
    """A Ray of two CPUs; `seen` is where it is noted whom its processes ask."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    more = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0", "RAY_AUTH_MODE": "disabled", "SOCKETS_SEEN": str(seen)}
    more["RAY_worker_niceness"] = "0"  # else all that runs beside these tests comes before them
    more["HOLD"] = str(hold_of(port))
    more |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_USAGE_STATS_REPORT_URL": "http://127.0.0.1:1/"}
    command = [str(Path(sys.executable).with_name("ray")), "start", "--head", "--block", f"--port={port}"]
    command += ["--num-cpus=2", "--include-dashboard=false", "--object-store-memory=100000000"]
    environment = {**os.environ, **_PATIENT, **more, TOKEN: str(port)}
    head = subprocess.Popen(
        [*command, f"--temp-dir={folder_of(port)}"],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        until(lambda: _answers(port), "Ray is up")
        yield Executor(kind="ray", address=f"127.0.0.1:{port}")
    finally:
        ray_executor.clean_up(str(folder_of(port)), str(port))
        head.wait()


def port_of(cluster: Executor) -> int:
    return int(str(cluster.address).rpartition(":")[2])


def folder_of(port: int) -> Path:
    return Path(f"/tmp/adapt-inf-test-ray-{port}")


def hold_of(port: int) -> Path:
    """The file that makes the cluster's workers wait: see tests/watched/sitecustomize.py."""
    return folder_of(port) / "hold"


def asked_away(seen: Path) -> set[str]:
    """The hosts beyond this machine that tests/watched/sitecustomize.py noted."""
    return {line.split()[2] for line in seen.read_text().splitlines() if line.startswith("away")}


def _answers(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True
