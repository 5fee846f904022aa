"""Parts on a Ray cluster: Ray Data hands them to actors, each of which holds what it takes to do one.

Ray places the actors, begins those anew that are killed and does their part again, and holds no more parts in flight
than the actors can take. What comes back of a part is a small table or nothing: its files the actor writes itself, into
the project's folder, which every node must see at the same place.

With no address a Ray of this machine's own is begun, listening on loopback alone, and gone when the block ends, also
where this process is killed.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
import logging
import os
import platform
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import psutil
import pyarrow as pa
import torch

from adapt_inf.config import Executor
from adapt_inf.errors import AdaptInfError
from adapt_inf.executors.faults import error_of, fault_of
from adapt_inf.executors.parts import Table
from adapt_inf.files import file_digest, fingerprint, write_beside_others
from adapt_inf.selection.blocks import limit_cores

Work = Callable[[int], Table]

TOKEN = "ADAPT_INF_RAY"
"""In the environment of all that belongs to a Ray of this machine's own: by it what a kill left is found."""

# A round that is computed with other versions of these is another round.
DECIDING = (
    *("adapt-inf", "torch", "torchvision", "transformers", "tokenizers", "peft"),
    *("numpy", "pandas", "pyarrow", "pillow"),
)
CODE = "adapt-inf's code"  # whose version says nothing of commits

_REASON = 400  # characters of what Ray says
_LAG = 2.0  # seconds until a cluster counts as free what the stage before has left
_ANSWER_SECONDS = 10.0  # that an address may take
_OBJECTS = 256 << 20  # bytes that parts in flight may take: they are small
_ATTEMPTS = 3  # at an actor, and at a part: one that kills whoever does it must not be tried for ever
_WHERE = "in rounds/<round>/params.yaml, and in params.yaml for the rounds after"
_IN_FLIGHT = 2  # parts that an actor has before it: one is at hand when one is done
_LOOPBACK = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"  # whatever its name says: 0 is a Ray of one machine, on loopback


def on_ray(executor: Executor, make: Callable[[], Work], parts: Sequence[int]) -> Iterator[tuple[int, Table]]:
    """Do every part on the actors of a cluster; (part, its table) as they come, in any order.

    Args:
        executor: where the cluster is, and what an actor takes of it.
        make: called in each actor; must pickle, and hold little: the actor reads the rest from the project.
        parts: their numbers.

    Raises:
        AdaptInfError: no Ray here, none at the address, no room for one actor; a node with other versions, that cannot
            start a worker, does not see files, or has no room for what workers hand back; or what a worker raised, if
            it raised such a one.
        OSError: what a worker met of that kind, as a full disk.
        ChildProcessError: Ray gave up on an actor or a node that was lost.
        RuntimeError: a worker failed otherwise, with its traceback.
    """
    with connected(executor) as ray:
        from ray import data

        count = _actors(executor, [node["Resources"] for node in ray.nodes() if node["Alive"]])
        if executor.address is not None:
            _say_if_waiting(ray.available_resources, executor)
        logging.getLogger("ray.data").setLevel(logging.CRITICAL)  # of what is raised it would print a traceback first
        context = data.DataContext.get_current()
        context.enable_progress_bars = False
        context.max_consecutive_actor_init_deaths = _ATTEMPTS
        dataset = data.from_items([{"part": part} for part in parts], override_num_blocks=len(parts)).map_batches(
            _actor(make, versions(), bool(executor.gpus_per_worker)),
            batch_size=1,
            batch_format="numpy",
            compute=data.ActorPoolStrategy(
                min_size=1, max_size=min(count, len(parts)), max_tasks_in_flight_per_actor=_IN_FLIGHT
            ),
            num_cpus=1,
            num_gpus=executor.gpus_per_worker,
            max_restarts=_ATTEMPTS,
            max_task_retries=_ATTEMPTS,
        )
        try:
            # Without looking ahead: else a part shows when the next is there.
            for batch in dataset.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0):
                for row in batch.to_pylist():
                    if row["fault"]:
                        raise error_of(json.loads(row["fault"]))
                    yield row["part"], _unpacked(row["table"])
        except (ray.exceptions.ObjectStoreFullError, ray.exceptions.OutOfDiskError) as error:  # RayTaskErrors as well
            raise _no_room(error, executor, ray.nodes()) from error
        except ray.exceptions.RayTaskError:  # the actor could not even take the part up, and would not another time
            raise
        except ray.exceptions.RayError as error:
            if getattr(error, "actor_init_failed", False):
                raise AdaptInfError(
                    f"Ray's node {_place(error)} cannot start a worker: {_last_line(error)}.",
                    "Install the same on every node, adapt_inf as well: the versions of constraints.txt.",
                ) from error
            raise ChildProcessError(f"Ray gave up: {error}") from error


def _say_if_waiting(free: Callable[[], Mapping[str, float]], executor: Executor) -> None:
    """Let a person know where no actor has room until others leave some: Ray waits in silence."""
    gpus, since = executor.gpus_per_worker, time.monotonic()
    while (now := free()).get("CPU", 0) < 1 or now.get("GPU", 0) < gpus:
        if time.monotonic() - since > _LAG:
            left = f"{now.get('CPU', 0):g} CPU and {now.get('GPU', 0):g} GPU"
            print(
                f"Waiting for room on the Ray cluster at {executor.address}: a worker takes 1 CPU and {gpus:g} GPU, "
                f"and others leave {left}.",
                file=sys.stderr,
                flush=True,
            )
            return
        time.sleep(0.1)


def _no_room(error: Exception, executor: Executor, nodes: Sequence[Mapping[str, Any]]) -> AdaptInfError:
    """Of a node whose object store is full and cannot spill."""
    place = _place(error)
    sockets = [node["ObjectStoreSocketName"] for node in nodes if node["NodeManagerAddress"] == place]
    session = Path(sockets[0]).parents[1] if sockets else "its session's folder"
    more = "begin its Ray with more: `ray start --object-store-memory BYTES`, or `--temp-dir` on a larger disk"
    if executor.address is None:
        more = f"set `executor.address` to a cluster that has more, {_WHERE}"
    told = str(getattr(error, "cause", error)).splitlines()[0].rstrip(".")
    return AdaptInfError(
        f"The object store of Ray's node {place} is full, and what it spills finds no room in {session}: {told}.",
        f"Free some room there, or {more}.",
    )


def _place(error: Exception) -> str:
    """The address of the node that Ray names in what it says."""
    found = re.search(r"\bip[=:]\s*([^\s,)]+)", str(error))
    return found[1] if found else "(it does not say which)"


def _last_line(error: Exception) -> str:
    """Of a traceback: what it comes to."""
    return str(error).rstrip().splitlines()[-1].strip().rstrip(".")[:_REASON]


def _actor(make: Callable[[], Work], expected: Mapping[str, str], gpu: bool = False) -> type:
    """The class of which Ray makes actors. It has no arguments: Ray would have to keep them to begin one anew."""

    class Parts:
        def __init__(self) -> None:
            self._fault, self._work = "", None
            if not gpu:  # where an actor asks for none, Ray hides none
                os.environ["CUDA_VISIBLE_DEVICES"] = ""
            limit_cores(1)  # as many as Ray counts for an actor; the others have actors of their own
            torch.set_num_threads(1)
            write_beside_others()  # as one that Ray holds for lost may still do
            with self._told():
                check_versions(expected)
                self._work = make()

        def __call__(self, batch: dict[str, Any]) -> dict[str, list[Any]]:
            part, table = int(batch["part"][0]), Table()
            if self._work is not None:
                with self._told():
                    table = self._work(part)
            return {"part": [part], "fault": [self._fault], "table": [_packed(table)]}

        @contextlib.contextmanager
        def _told(self) -> Iterator[None]:
            """A fault becomes a row: Ray would begin the actor anew, only to meet it again."""
            try:
                yield
            except Exception as error:
                self._fault = json.dumps(fault_of(error, f"Ray's node {_node()}"))

    return Parts


def versions() -> dict[str, str]:
    """What a result depends on, by name."""
    home = Path(__file__).parents[1]
    code = fingerprint([path.relative_to(home).as_posix(), file_digest(path)] for path in sorted(home.rglob("*.py")))
    found = {"python": platform.python_version(), CODE: code}
    for name in DECIDING:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


def check_versions(expected: Mapping[str, str]) -> None:
    """Refuse to work here with other versions than those of the machine that asks.

    Raises:
        AdaptInfError: naming this node and what differs.
    """
    here = versions()
    other = [
        f"{name} {here.get(name, 'missing')} (here {expected.get(name, 'missing')})"
        for name in sorted({*here, *expected})
        if here.get(name) != expected.get(name)
    ]
    if other:
        raise AdaptInfError(
            f"Ray's node {_node()} has other versions than this machine: {', '.join(other)}.",
            "Results would depend on who computed them: install the same on every node (constraints.txt).",
        )


def _node() -> str:
    import ray.util

    return str(ray.util.get_node_ip_address())


def _packed(table: Table) -> bytes:
    sink = pa.BufferOutputStream()
    arrow = pa.table(table)
    with pa.ipc.new_stream(sink, arrow.schema) as stream:
        stream.write_table(arrow)
    return sink.getvalue().to_pybytes()


def _unpacked(packed: bytes) -> Table:
    table = pa.ipc.open_stream(packed).read_all()
    return {name: table[name].to_numpy() for name in table.column_names}


def _actors(executor: Executor, nodes: Sequence[Mapping[str, float]]) -> int:
    """How many actors the nodes have room for, or as many as were asked for, if fewer."""
    gpus = executor.gpus_per_worker
    room = sum(
        min(int(node.get("CPU", 0)), int(node.get("GPU", 0) / gpus)) if gpus else int(node.get("CPU", 0))
        for node in nodes
    )
    if room == 0:
        has = "; ".join(", ".join(f"{node.get(kind, 0):g} {kind}" for kind in ("CPU", "GPU")) for node in nodes)
        raise AdaptInfError(
            f"No node of the Ray cluster has room for a worker of 1 CPU and {gpus:g} GPU: they have {has}.",
            f"Set `executor.gpus_per_worker` to what a node has, {_WHERE}, or add nodes.",
        )
    return min(room, executor.workers or room)


@contextlib.contextmanager
def connected(executor: Executor) -> Iterator[Any]:
    """The `ray` module, connected to the cluster that `executor` names, or to one of this machine's own."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    if executor.address is None or re.match(r"(ray://)?(localhost|127\.)", executor.address):
        os.environ[_LOOPBACK] = "0"  # Ray reads it as it is imported
    try:
        import ray
    except ImportError:
        raise AdaptInfError(
            "params.yaml: `executor.kind` is ray, and Ray is not installed here.", "pip install 'adapt-inf[ray]'"
        ) from None
    with _own(ray) if executor.address is None else _at(ray, executor.address):
        try:
            yield ray
        finally:
            ray.shutdown()


@contextlib.contextmanager
def _at(ray: Any, address: str) -> Iterator[None]:
    host, _, port = address.removeprefix("ray://").rpartition(":")
    os.environ.setdefault("RAY_gcs_server_port_wait_time_s", "1")  # else a wrong token is tried for ten minutes
    try:
        socket.create_connection((host, int(port)), timeout=_ANSWER_SECONDS).close()
        with _own_handler():
            ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    except (OSError, ValueError, RuntimeError, ray.exceptions.RayError) as error:
        reason = " ".join(str(error).split())[:_REASON] or type(error).__name__
        raise AdaptInfError(
            f"The Ray cluster at {address} cannot be used: {reason}.",
            f"Set `executor.address` to host:port of its head, {_WHERE}, or to null for a Ray of this machine's own. "
            "This machine must be a node of it (`ray start`), with RAY_AUTH_MODE and RAY_AUTH_TOKEN as they are there.",
        ) from error
    yield


@contextlib.contextmanager
def _own_handler() -> Iterator[None]:
    """Keep what this process does when it is told to stop: Ray puts something else in its place."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextlib.contextmanager
def _own(ray: Any) -> Iterator[None]:
    folder = tempfile.mkdtemp(prefix="adapt-inf-ray-", dir="/tmp")  # sockets need a short path
    os.environ[TOKEN] = token = secrets.token_hex(8)
    command = [sys.executable, "-P", "-m", "adapt_inf.executors.ray", folder]
    # Ends when this process does, and then cleans up; neither Ctrl-C nor whoever kills the stage's children reaches it.
    cleaner = subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True)
    try:
        with _own_handler():
            ray.init(
                address="local",
                num_cpus=len(os.sched_getaffinity(0)),
                include_dashboard=False,
                object_store_memory=_OBJECTS,
                log_to_driver=False,
                logging_level=logging.ERROR,
                _temp_dir=folder,
            )
        yield
    finally:
        cleaner.communicate(token.encode())
        del os.environ[TOKEN]


def clean_up(folder: str, token: str) -> None:
    """Kill what is left of a Ray of this machine's own, and remove its folder."""
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.pid not in (os.getpid(), os.getppid()) and _belongs(process, folder, token):
                process.kill()
    shutil.rmtree(folder, ignore_errors=True)


def _belongs(process: psutil.Process, folder: str, token: str) -> bool:
    """Some of Ray's processes write their name over their environment; all of those keep a log in its folder."""
    return process.environ().get(TOKEN) == token or any(
        file.path.startswith(f"{folder}/") for file in process.open_files()
    )


def main() -> None:
    """Wait until whoever began this process ends, however it ends; then clean up after it."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    sys.stdin.read()
    clean_up(sys.argv[1], os.environ[TOKEN])


if __name__ == "__main__":
    main()
