"""Parts on a Ray cluster of this machine: what comes out is what this process alone comes to, whoever is killed."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import ModuleType

import numpy as np
import pandas as pd
import psutil
import pytest
from machine import Machine, copy_project
from ray_cluster import ASKED_BY_RAY, asked_away, folder_of, hold_of, port_of, ray_cluster
from serving import until

from adapt_inf.config import Executor, set_values
from adapt_inf.errors import AdaptInfError
from adapt_inf.executors import ray as ray_executor
from adapt_inf.executors.faults import error_of
from adapt_inf.executors.parts import Table
from adapt_inf.executors.ray import CODE, on_ray
from adapt_inf.files import folder_digest
from adapt_inf.project import Project
from adapt_inf.stages.runner import OUTPUTS, run_stage

PARTS = 8


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Executor]:
    seen = tmp_path_factory.mktemp("cluster") / "seen"
    with ray_cluster(seen) as executor:
        yield executor
    assert asked_away(seen) <= ASKED_BY_RAY


def squares(count: int = 1) -> Callable[[], Callable[[int], Table]]:
    def make() -> Callable[[int], Table]:
        def work(part: int) -> Table:
            return {"square": np.full(count, part * part), "half": np.full(count, part / 2, dtype=np.float32)}

        return work

    return make


def actors() -> list[psutil.Process]:
    return [each for each in psutil.process_iter(["cmdline"]) if "MapWorker" in " ".join(each.info["cmdline"] or [])]


@contextmanager
def killing(when: Callable[[], bool], after: Callable[[], object] = lambda: None) -> Iterator[list[int]]:
    """Kill one actor once `when` holds, and do what is to be done `after` it."""
    killed: list[int] = []
    leave = threading.Event()

    def kill() -> None:
        while not leave.is_set():
            if when() and (there := actors()):
                with suppress(psutil.NoSuchProcess):
                    there[0].kill()
                    killed.append(there[0].pid)
                    after()
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
    hold = hold_of(port_of(cluster))
    hold.touch()  # whoever has another part waits with it, until one was killed
    with killing(lambda: any(project.work("r002").glob("sketch-*/sketches/part-*.npy")), hold.unlink) as killed:
        machine.run("adapt-inf", "stage", "sketch", "r002", cwd=project.root)
    assert len(killed) == 1
    for stage in ("cluster", "score", "prune", "evaluate"):
        run_stage(project, "r002", stage)
    for output in OUTPUTS.values():
        here, there = (folder_digest(each.output("r002", output)) for each in (two_rounds, project))
        assert here == there, output


def test_every_part_comes_once_also_where_their_tables_overfill_the_object_store(cluster: Executor) -> None:
    count = 1_000_000  # 12 MB a part, where 100 MB fit
    folder = folder_of(port_of(cluster))
    parts, held, spilled = [], list[object](), 0
    for part, table in on_ray(cluster, squares(count), range(PARTS)):
        if not held:  # of the store more than it has, so that what is there and what comes spills
            import ray  # not before: see adapt_inf.executors.ray.connected

            held = [ray.put(np.zeros(count * 3, dtype=np.int32)) for _ in range(9)]
        spilled = sum(file.stat().st_size for file in folder.rglob("ray_spilled_objects*/*"))  # before Ray clears them
        parts.append(part)
        assert table["square"].shape == (count,)
        assert (table["square"] == part * part).all()
        assert table["half"].dtype == np.float32
        assert (table["half"] == part / 2).all()
    assert sorted(parts) == list(range(PARTS))
    assert spilled > count * 12


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


def test_another_state_of_the_code_or_of_torchvision_is_another_version(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = ray_executor.versions()
    source = Path(ray_executor.__file__).parents[1]
    shutil.copytree(source, tmp_path / "there", ignore=lambda _, names: {n for n in names if n == "__pycache__"})
    monkeypatch.setattr(ray_executor, "_node", lambda: "10.0.0.7")
    monkeypatch.setattr(ray_executor, "__file__", str(tmp_path / "there" / "executors" / "ray.py"))
    ray_executor.check_versions(expected)
    with open(tmp_path / "there" / "selection" / "blocks.py", "a", encoding="utf-8") as file:
        file.write("# of another commit\n")
    with pytest.raises(AdaptInfError, match=rf"other versions than this machine: {CODE} \w+ \(here {expected[CODE]}\)"):
        ray_executor.check_versions(expected)
    monkeypatch.setattr("importlib.metadata.version", lambda name: "1.0")
    assert ray_executor.versions()["torchvision"] == "1.0"


def test_a_node_that_cannot_start_a_worker_is_named(cluster: Executor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_executor, "_ATTEMPTS", 0)
    here = ModuleType("only_here")  # as adapt_inf, where a node has none
    exec("def make():\n    return lambda part: {}\n", here.__dict__)
    monkeypatch.setitem(sys.modules, "only_here", here)
    told = r"node 127\.0\.0\.1 cannot start a worker: ModuleNotFoundError: No module named 'only_here'\.\n  Install"
    with pytest.raises(AdaptInfError, match=told):
        list(on_ray(cluster, here.make, range(1)))


def test_a_shard_that_an_actor_does_not_see_is_named(cluster: Executor, tmp_path: Path) -> None:
    shard = tmp_path / "shard.parquet"

    def reading() -> Callable[[int], Table]:
        def work(part: int) -> Table:
            return {"square": pd.read_parquet(shard)["square"].to_numpy()}

        return work

    with pytest.raises(
        AdaptInfError, match=rf"Ray's node 127\.0\.0\.1 does not see a file: {shard}\.\n  .*file system"
    ):
        list(on_ray(cluster, reading, range(1)))


HOLDING = """
import sys
import ray

ray.init(address=sys.argv[1], log_to_driver=False)

@ray.remote(num_cpus=2)
class Holding:
    def held(self): return True

actor = Holding.remote()
print(ray.get(actor.held.remote()), flush=True)
sys.stdin.read()
"""


def test_it_says_that_it_waits_for_what_others_hold(cluster: Executor, monkeypatch: pytest.MonkeyPatch) -> None:
    command = [sys.executable, "-c", HOLDING, str(cluster.address)]
    other = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert other.stdout is not None
    late = threading.Timer(600, other.kill)  # if it says nothing
    said: list[str] = []

    class Said:
        def write(self, text: str) -> None:
            said.append(text)
            if text.startswith("Waiting for room"):
                other.kill()

        def flush(self) -> None: ...

    try:
        assert other.stdout.readline() == "True\n"
        late.start()
        with monkeypatch.context() as patched:
            patched.setattr(sys, "stderr", Said())
            found = dict(on_ray(cluster, squares(), range(2)))
    finally:
        late.cancel()
        other.kill()
        other.communicate()
    lines = [line for line in "".join(said).splitlines() if line.startswith("Waiting")]
    told = "a worker takes 1 CPU and 0 GPU, and others leave 0 CPU and 0 GPU."
    assert lines == [f"Waiting for room on the Ray cluster at {cluster.address}: {told}"]
    assert sorted(found) == [0, 1]


def test_it_does_not_say_so_where_there_is_room(capsys: pytest.CaptureFixture[str]) -> None:
    came = iter([{}, {"CPU": 1.0}, {"CPU": 1.0, "GPU": 0.5}])  # as the cluster finds what is left
    ray_executor._say_if_waiting(lambda: next(came), Executor(kind="ray", address="10.0.0.5:1", gpus_per_worker=0.5))
    assert capsys.readouterr().err == ""
    assert list(came) == []


FULL = """
import numpy as np
from adapt_inf.config import Executor
from adapt_inf.executors import ray
from adapt_inf.errors import AdaptInfError

ray._OBJECTS = 80_000_000
ray._ATTEMPTS = 0

def make():
    return lambda part: {"zeros": np.zeros(11_000_000)}

try:
    list(ray.on_ray(Executor(kind="ray"), make, range(1)))
except AdaptInfError as error:
    print(error)
"""


def test_a_store_that_is_full_and_cannot_spill_is_named(tmp_path: Path) -> None:
    seen = tmp_path / "seen"
    environment = {**os.environ, "SOCKETS_SEEN": str(seen), "RAY_local_fs_capacity_threshold": "0.00001"}
    done = subprocess.run([sys.executable, "-c", FULL], env=environment, stdout=subprocess.PIPE, text=True, check=True)
    told = (
        r"object store of Ray's node 127\.0\.0\.1 is full, .* no room in /tmp/adapt-inf-ray-\w+/session\S+: Local disk"
    )
    assert re.search(told, done.stdout)
    assert "executor.address" in done.stdout
    assert asked_away(seen) <= ASKED_BY_RAY


def test_a_full_store_of_a_cluster_says_how_to_begin_it_with_more() -> None:
    node = {"NodeManagerAddress": "10.0.0.7", "ObjectStoreSocketName": "/big/ray/session_1/sockets/plasma_store"}
    full = RuntimeError("Object size is 9 bytes.\n(pid=1, ip=10.0.0.7, actor_id=2)")
    found = ray_executor._no_room(full, Executor(kind="ray", address="10.0.0.5:1"), [node])
    assert "Ray's node 10.0.0.7 is full" in found.message
    assert "no room in /big/ray/session_1: Object size is 9 bytes." in found.message
    assert "--object-store-memory" in found.mend
    assert "--temp-dir" in found.mend


def test_a_fault_of_a_worker_becomes_a_row(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("limit_cores", "write_beside_others", "_node"):
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
import time
from adapt_inf.config import Executor
from adapt_inf.executors.ray import on_ray

def make():
    return lambda part: {}

for place, _ in enumerate(on_ray(Executor(kind="ray"), make, range(2))):  # in any order
    print(place, flush=True)
    time.sleep(1000)
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
    heard: set[str] = set()
    words: list[str] = []
    for each in own:
        with suppress(psutil.NoSuchProcess):  # a starting Ray has some that soon end
            words += each.cmdline()
            heard |= {c.laddr.ip for c in each.net_connections("inet") if c.status == psutil.CONN_LISTEN}
    assert heard
    assert {ip.removeprefix("::ffff:") for ip in heard} <= {"127.0.0.1", "::1"}
    folder = next(word for word in words if word.startswith("/tmp/adapt-inf-ray-"))
    process.send_signal(signal.SIGKILL)
    process.wait()
    until(lambda: not any(each.is_running() and each.status() != psutil.STATUS_ZOMBIE for each in own), "all are gone")
    until(lambda: not Path(folder).exists(), "and their folder")
    assert asked_away(tmp_path / "seen") <= ASKED_BY_RAY
