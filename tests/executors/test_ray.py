"""Parts on a Ray cluster of this machine: what comes out is what this process alone comes to, whoever is killed."""

from __future__ import annotations

import json
import os
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

import numpy as np
import psutil
import pytest
from machine import Machine, copy_project
from serving import until

from adapt_inf.config import Executor, set_values
from adapt_inf.errors import AdaptInfError
from adapt_inf.executors import ray as ray_executor
from adapt_inf.executors.faults import error_of
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
    for stage in ("sketch", "cluster", "score", "prune", "evaluate"):
        shutil.rmtree(project.output("r002", OUTPUTS[stage]))
    with killing(lambda: any(project.work("r002").glob("sketch-*/sketches/part-*.npy"))) as killed:
        machine.run("adapt-inf", "stage", "sketch", "r002", cwd=project.root)
    assert len(killed) == 1
    params.write_text(set_values(params.read_text(), {"executor.workers": 1}))  # to begin one takes seconds
    for stage in ("cluster", "score", "prune", "evaluate"):
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


def test_a_part_that_kills_whoever_does_it_is_given_up(cluster: Executor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_executor, "_ATTEMPTS", 1)  # each begins an actor, which imports torch

    def deadly() -> Callable[[int], Table]:
        def work(part: int) -> Table:
            os.kill(os.getpid(), signal.SIGKILL)
            return {}

        return work

    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(ChildProcessError, match="Ray gave up"):
        list(on_ray(cluster, deadly, range(1)))
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_node_with_other_versions_is_refused(cluster: Executor, monkeypatch: pytest.MonkeyPatch) -> None:
    found = ray_executor.versions() | {"torch": "1.0"}
    monkeypatch.setattr(ray_executor, "versions", lambda: found)
    told = r"127\.0\.0\.1 has other versions.*: torch 2\.\S* \(here 1\.0\)\.[\s\S]*constraints"
    with pytest.raises(AdaptInfError, match=told):
        list(on_ray(cluster, squares(), range(2)))


def test_a_fault_of_a_worker_becomes_a_row(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("limit_cores", "write_beside_others"):
        monkeypatch.setattr(ray_executor, name, lambda *_: None)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")

    def refusing() -> Callable[[int], Table]:
        raise AdaptInfError("model m: no.", "Mend it.")

    for make in (refusing, lambda: lambda part: refusing()(part)):  # as it is made, or at work
        row = ray_executor._actor(make, ray_executor.versions())()({"part": [1]})
        error = error_of(json.loads(row["fault"][0]))
        assert isinstance(error, AdaptInfError)
        assert (error.message, error.mend) == ("model m: no.", "Mend it.")


@pytest.mark.parametrize(
    ("gpus", "workers", "nodes", "count"),
    [
        (0, None, [{"CPU": 2.0}, {"CPU": 4.0, "GPU": 1.0}], 6),
        (0, 3, [{"CPU": 2.0}, {"CPU": 4.0}], 3),
        (0.5, None, [{"CPU": 8.0, "GPU": 1.0}, {"CPU": 1.0, "GPU": 2.0}], 3),
        (2, 9, [{"CPU": 8.0, "GPU": 3.0}, {"CPU": 8.0, "GPU": 1.0}], 1),
    ],
)
def test_as_many_actors_as_the_nodes_have_room_for(
    gpus: float, workers: int | None, nodes: list[dict[str, float]], count: int
) -> None:
    executor = Executor(kind="ray", gpus_per_worker=gpus, workers=workers)
    assert ray_executor._actors(executor, nodes) == count


def test_more_gpus_than_any_node_has_are_refused(cluster: Executor) -> None:
    asks = Executor(kind="ray", address=cluster.address, gpus_per_worker=0.5)
    with pytest.raises(AdaptInfError, match=r"has room for a worker of 1 CPU and 0\.5 GPU: they have 2 CPU, 0 GPU"):
        list(on_ray(asks, squares(), range(2)))


def test_no_ray_and_no_answer_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    told = r"The Ray cluster at 127\.0\.0\.1:1 cannot be used[\s\S]*executor\.address"
    with pytest.raises(AdaptInfError, match=told):
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
