"""What more than one part of the tests needs; what takes long to make is made once for all worker processes."""

from __future__ import annotations

import fcntl
import importlib.util
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from machine import Machine, copy_project
from miniature import make_miniature
from projects import make_project
from third_round import make_third_round

from adapt_inf.project import Project

settings.register_profile("busy", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("busy")  # how long an example takes says more of the machine than of the code

WATCHED = Path(__file__).parent / "watched"


@pytest.fixture(scope="session", autouse=True)
def _no_network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Nothing that a test starts or does may leave this machine: see tests/watched/sitecustomize.py."""
    seen = tmp_path_factory.mktemp("sockets") / "seen"
    os.environ["SOCKETS_SEEN"] = str(seen)
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(WATCHED), os.environ.get("PYTHONPATH")]))
    spec = importlib.util.spec_from_file_location("watched", WATCHED / "sitecustomize.py")
    assert spec is not None
    assert spec.loader is not None
    spec.loader.exec_module(importlib.util.module_from_spec(spec))  # in this process, which has begun without it
    yield
    left = [line for line in seen.read_text().splitlines() if line.startswith("away")] if seen.exists() else []
    assert left == []


@pytest.fixture(scope="session")
def miniature_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A miniature LLaVA (see tests/miniature.py), made once; nobody writes into it."""
    return make_miniature(tmp_path_factory.mktemp("miniature") / "model")


@pytest.fixture(scope="session")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Machine:
    return Machine(tmp_path_factory.mktemp("machine"))


@pytest.fixture(scope="session")
def new_project(tmp_path_factory: pytest.TempPathFactory, machine: Machine, miniature_model: Path) -> Project:
    """A project with a base pool and two drops that wait; nobody runs a round in it: copy it."""

    def make(home: Path) -> None:
        make_project(Machine(home), miniature_model)

    return Project(_once(tmp_path_factory, "made", make) / "new")


@pytest.fixture(scope="session")
def two_rounds(tmp_path_factory: pytest.TempPathFactory, machine: Machine, new_project: Project) -> Project:
    """The same project after both rounds; tests that change it put things back."""

    def make(home: Path) -> None:
        project = copy_project(new_project, home / "project")
        machine.run("adapt-inf", "round", cwd=project.root)

    done = Project(_once(tmp_path_factory, "ran", make) / "project")
    return copy_project(done, machine.home / "project")


@pytest.fixture(scope="session")
def third_round(tmp_path_factory: pytest.TempPathFactory, machine: Machine, two_rounds: Project) -> Path:
    """A folder as `make_third_round` fills it; tests that change anything copy it."""
    return _once(tmp_path_factory, "third_round", lambda home: make_third_round(machine, two_rounds, home))


def _once(tmp_path_factory: pytest.TempPathFactory, name: str, make: Callable[[Path], None]) -> Path:
    """A folder that the first worker process to come here fills, while the others wait."""
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    home, done = shared / name, shared / f"{name}.done"
    with open(shared / f"{name}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not done.exists():
            shutil.rmtree(home, ignore_errors=True)  # of an attempt that failed
            home.mkdir()
            make(home)
            done.touch()
    return home


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Whole rounds first: the quick tests then even out what the worker processes have to do.

    The very first need no `two_rounds`, which one process makes while the others would wait.
    """
    slow = (
        "tests/faults/",
        "tests/flows/",
        "tests/executors/",
        "tests/comparison/test_compare",
        "tests/test_sharing",
        "tests/test_room",
        "tests/test_planning",
    )
    first = "tests/flows/test_serve"
    items.sort(key=lambda item: (not item.nodeid.startswith(first), not item.nodeid.startswith(slow)))
