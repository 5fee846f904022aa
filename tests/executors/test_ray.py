"""Parts on a Ray cluster of this machine: what comes out is what this process alone comes to, whoever is killed."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from machine import Machine, copy_project
from serving import until

from adapt_inf.config import Executor, set_values
from adapt_inf.errors import AdaptInfError
from adapt_inf.executors import ray as ray_executor
from adapt_inf.executors.parts import Table
from adapt_inf.executors.ray import TOKEN, on_ray
from adapt_inf.files import folder_digest
from adapt_inf.project import Project
from adapt_inf.stages.runner import OUTPUTS

PARTS = 8
ASKED_BY_RAY = {"169.254.169.254", "metadata.google.internal"}
"""Where a starting Ray looks to see in whose cloud it is, whatever it is told: see docs/scale.md."""


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Executor]:
    """A Ray of two CPUs, begun as an operator would; gone afterwards."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    folder = Path(f"/tmp/adapt-inf-test-ray-{port}")
    seen = tmp_path_factory.mktemp("cluster") / "seen"
    more = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0", "RAY_AUTH_MODE": "disabled", "SOCKETS_SEEN": str(seen)}
    more["RAY_worker_niceness"] = "0"  # else all that runs beside these tests comes before them
    more |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_USAGE_STATS_REPORT_URL": "http://127.0.0.1:1/"}
    command = [str(Path(sys.executable).with_name("ray")), "start", "--head", "--block", f"--port={port}"]
    command += ["--num-cpus=2", "--include-dashboard=false", "--object-store-memory=100000000", f"--temp-dir={folder}"]
    environment = {**os.environ, **more, TOKEN: str(port)}
    head = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        until(lambda: _answers(port), "Ray is up")
        yield Executor(kind="ray", address=f"127.0.0.1:{port}")
    finally:
        ray_executor.clean_up(str(folder), str(port))
        head.wait()
    assert asked_away(seen) <= ASKED_BY_RAY


def asked_away(seen: Path) -> set[str]:
    """The hosts beyond this machine that tests/watched/sitecustomize.py noted."""
    return {line.split()[2] for line in seen.read_text().splitlines() if line.startswith("away")}


def _answers(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


def squares(count: int = 1) -> Callable[[], Callable[[int], Table]]:
    def make() -> Callable[[int], Table]:
        def work(part: int) -> Table:
            return {"square": np.full(count, part * part), "half": np.full(count, part / 2, dtype=np.float32)}

        return work

    return make


def actors() -> list[psutil.Process]:
    return [each for each in psutil.process_iter(["cmdline"]) if "MapWorker" in " ".join(each.info["cmdline"] or [])]


@contextmanager
def killing(when: Callable[[], bool]) -> Iterator[list[int]]:
    """Kill one actor once `when` holds."""
    killed: list[int] = []
    leave = threading.Event()

    def kill() -> None:
        while not leave.is_set():
            if when() and (there := actors()):
                there[0].kill()
                killed.append(there[0].pid)
                return
            time.sleep(0.01)

    thread = threading.Thread(target=kill)
    thread.start()
    try:
        yield killed
    finally:
        leave.set()
        thread.join()


def test_every_stage_on_ray_with_a_worker_killed_is_that_of_this_machine(
    cluster: Executor, machine: Machine, two_rounds: Project, tmp_path: Path
) -> None:
    project = copy_project(two_rounds, tmp_path / "on-ray")
    params = project.params_of("r002")  # of a round that prunes
    values = {"executor.kind": "ray", "executor.address": cluster.address, "executor.workers": 2}
    params.write_text(set_values(params.read_text(), values))
    for stage in ("sketch", "cluster", "score", "prune"):
        shutil.rmtree(project.output("r002", OUTPUTS[stage]))
    with killing(lambda: any(project.work("r002").glob("sketch-*/sketches/part-*.npy"))) as killed:
        machine.run("adapt-inf", "stage", "sketch", "r002", cwd=project.root)
    assert len(killed) == 1
    for stage in ("cluster", "score", "prune"):
        machine.run("adapt-inf", "stage", stage, "r002", cwd=project.root)
    for output in OUTPUTS.values():
        here, there = (folder_digest(each.output("r002", output)) for each in (two_rounds, project))
        assert here == there, output


def test_every_part_comes_once_also_where_their_tables_overfill_the_object_store(cluster: Executor) -> None:
    count = 2_000_000  # 24 MB a part, 192 MB in all, where 100 MB fit
    parts = []
    for part, table in on_ray(cluster, squares(count), range(PARTS)):
        parts.append(part)
        assert table["square"].shape == (count,)
        assert (table["square"] == part * part).all()
        assert table["half"].dtype == np.float32
        assert (table["half"] == part / 2).all()
    assert sorted(parts) == list(range(PARTS))


def test_a_node_with_other_versions_is_refused(cluster: Executor, monkeypatch: pytest.MonkeyPatch) -> None:
    found = ray_executor.versions() | {"torch": "1.0"}
    monkeypatch.setattr(ray_executor, "versions", lambda: found)
    told = r"127\.0\.0\.1 has other versions.*: torch 2\.\S* \(here 1\.0\)\.[\s\S]*constraints"
    with pytest.raises(AdaptInfError, match=told):
        list(on_ray(cluster, squares(), range(2)))


@pytest.fixture
def fault_of(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], Callable[[int], Table]]], Exception]:
    """What comes of a worker's fault, by an actor in this process."""
    monkeypatch.setattr(ray_executor, "limit_cores", lambda _: None)

    def fault_of(make: Callable[[], Callable[[int], Table]]) -> Exception:
        row = ray_executor._actor(make, ray_executor.versions())()({"part": [1]})
        return ray_executor._fault(**json.loads(row["fault"][0]))

    return fault_of


def test_what_a_worker_cannot_do_is_told_as_it_would_be_here(fault_of: Any, tmp_path: Path) -> None:
    def refusing() -> Callable[[int], Table]:
        raise AdaptInfError("model m: no.", "Mend it.")

    error = fault_of(refusing)
    assert isinstance(error, AdaptInfError)
    assert (error.message, error.mend) == ("model m: no.", "Mend it.")

    error = fault_of(lambda: lambda part: {"bytes": np.frombuffer((tmp_path / "shard").read_bytes(), np.uint8)})
    assert isinstance(error, AdaptInfError)
    assert re.search(r"node \S+ does not see .*shard\.", error.message)
    assert "file system" in error.mend

    def full(part: int) -> Table:
        raise OSError(errno.ENOSPC, "No space left on device", "/there")

    error = fault_of(lambda: full)
    assert isinstance(error, OSError)
    assert error.errno == errno.ENOSPC

    error = fault_of(lambda: lambda part: {"never": np.zeros(1 // (part - part))})
    assert isinstance(error, RuntimeError)
    assert "ZeroDivisionError" in str(error)


def test_more_gpus_than_there_are_are_refused(cluster: Executor) -> None:
    asks = Executor(kind="ray", address=cluster.address, gpus_per_worker=0.5)
    with pytest.raises(AdaptInfError, match=r"no room for one worker of 1 CPU and 0\.5 GPU: it has 2 CPU, 0 GPU"):
        list(on_ray(asks, squares(), range(2)))


def test_no_ray_and_no_answer_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(AdaptInfError, match=r"No Ray cluster answers at 127\.0\.0\.1:1 [\s\S]*executor\.address"):
        list(on_ray(Executor(kind="ray", address="127.0.0.1:1"), squares(), range(2)))
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(AdaptInfError, match=r"Ray is not installed here\.[\s\S]*adapt-inf\[ray\]"):
        list(on_ray(Executor(kind="ray"), squares(), range(2)))


ALONE = """
import sys, time
from adapt_inf.config import Executor
from adapt_inf.executors.ray import on_ray

def make():
    def work(part):
        time.sleep(1000 * part)
        return {}
    return work

for part, _ in on_ray(Executor(kind="ray"), make, range(2)):
    print(part, flush=True)
"""


def test_a_ray_of_its_own_listens_on_loopback_and_goes_with_its_process(tmp_path: Path) -> None:
    script = tmp_path / "alone.py"
    script.write_text(ALONE)
    environment = {**os.environ, "SOCKETS_SEEN": str(tmp_path / "seen")}
    process = subprocess.Popen([sys.executable, str(script)], env=environment, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "0\n"
    own = psutil.Process(process.pid).children(recursive=True)
    assert len(own) > 6  # its servers, their agents, its actors
    heard = {c.laddr.ip for each in own for c in each.net_connections("inet") if c.status == psutil.CONN_LISTEN}
    assert heard
    assert {ip.removeprefix("::ffff:") for ip in heard} <= {"127.0.0.1", "::1"}
    folder = next(word for each in own for word in each.cmdline() if word.startswith("/tmp/adapt-inf-ray-"))
    process.send_signal(signal.SIGKILL)
    process.wait()
    until(lambda: not any(each.is_running() and each.status() != psutil.STATUS_ZOMBIE for each in own), "all are gone")
    until(lambda: not Path(folder).exists(), "and their folder")
    assert asked_away(tmp_path / "seen") <= ASKED_BY_RAY
