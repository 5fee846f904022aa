"""Drops wait in one order whatever clocks and copies do, come in whole or not at all, and the same content once."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from bad_drop import NAME, describe, empty_project, good_drop, without_privileges
from serving import PATIENCE

from adapt_inf.data.drops import READY, drop_digest
from adapt_inf.drop_queue import add_drop, drop_content, mark_refused, pending_drops, refused_drops
from adapt_inf.errors import DropError
from adapt_inf.files import folder_digest, write_json
from adapt_inf.project import Project


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return empty_project(tmp_path / "project")


def source(project: Project, name: str) -> Path:
    """A folder outside with a drop of its own content."""
    folder = project.root.parent / "incoming" / name
    if not folder.exists():
        good_drop(folder)
        describe(folder, name=name, description=f"Content of {name}.")
    return folder


def add(project: Project, name: str) -> Path:
    return add_drop(project, source(project, name), name)


def copied(project: Project, name: str, ready_at: int) -> None:
    """Bring a drop in by other means, READY at that time."""
    shutil.copytree(source(project, name), project.drop(name))
    (project.drop(name) / READY).touch()
    os.utime(project.drop(name) / READY, ns=(ready_at, ready_at))


def take(project: Project, round_id: str, drop: str, **more: object) -> None:
    """Let a round have the drop."""
    write_json(project.round(round_id) / "round.json", {"round": round_id, "drop": drop, **more})


def test_drops_wait_in_the_order_in_which_they_came(project: Project) -> None:
    for name in ("c", "a", "b"):
        add(project, name)
    for name in "abc":  # clocks that stand still, or run backwards
        os.utime(project.drop(name) / READY, ns=(7, 7))
    assert pending_drops(project) == ["c", "a", "b"]
    take(project, "r001", "c")
    assert pending_drops(project) == ["a", "b"]


def test_what_was_copied_in_is_queued_when_it_is_first_seen(project: Project) -> None:
    add(project, "first")
    for name, time_ns in (("y", 20), ("x", 20), ("z", 10)):
        copied(project, name, time_ns)
    assert pending_drops(project) == ["first", "z", "x", "y"]
    copied(project, "early", 1)
    add(project, "last")
    assert pending_drops(project) == ["first", "z", "x", "y", "early", "last"]


def test_a_folder_without_ready_does_not_wait(project: Project) -> None:
    good_drop(project.drop("copying"))
    assert pending_drops(project) == []
    (project.drop("copying") / READY).touch()
    assert pending_drops(project) == ["copying"]


def test_who_may_only_look_sees_the_queue(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    add(project, "first")
    copied(project, "x", 1)
    monkeypatch.setattr(os, "access", lambda *_: False)
    assert pending_drops(project) == ["first", "x"]
    assert "x" not in json.loads((project.drops / ".queue.json").read_text())


def test_the_order_outlives_a_copy_of_the_project(project: Project) -> None:
    for name in ("c", "a", "b"):
        add(project, name)
    there = project.root.with_name("there")
    subprocess.run(["cp", "-r", project.root, there], check=True)
    assert pending_drops(Project(there)) == ["c", "a", "b"]


def test_commands_at_once_all_land_each_in_its_place(project: Project, tmp_path: Path) -> None:
    names = [f"d{number}" for number in range(5)]
    code = "import sys; from adapt_inf.cli import main; sys.exit(main(sys.argv[1:]))"
    environment = os.environ | {"PREFECT_HOME": str(tmp_path / "prefect"), "PREFECT_API_URL": ""}
    running = [
        subprocess.Popen(
            [sys.executable, "-c", code, "drop", str(source(project, name)), "-C", str(project.root)], env=environment
        )
        for name in names
    ]
    assert [process.wait(PATIENCE) for process in running] == [0] * 5
    queue = json.loads((project.drops / ".queue.json").read_text())
    assert sorted(place["number"] for place in queue.values()) == [1, 2, 3, 4, 5]
    assert sorted(pending_drops(project)) == names
    assert sorted(path.name for path in project.drops.iterdir()) == [".lock", ".queue.json", *names]


def test_killed_at_any_moment_a_drop_waits_or_is_not_there(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stopped at each of its steps in turn: what is left is the old queue or the new one, and it can go on."""
    whole = folder_digest(add(project, "first"))
    steps = 0
    while True:
        left = Kill(steps)
        with monkeypatch.context() as patch:
            left.arm(patch)
            child = os.fork()
            if not child:
                try:
                    add(project, "x")
                finally:
                    os._exit(0)
            status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        assert pending_drops(project) in (["first"], ["first", "x"])
        if not status:
            break
        steps += 1
        if pending_drops(project) == ["first", "x"]:
            with pytest.raises(DropError, match="there is a drop of that name"):
                add(project, "x")
            shutil.rmtree(project.drop("x"))
    assert steps > 10
    assert folder_digest(project.drop("first")) == whole
    assert drop_digest(project.drop("x"), "x") == drop_digest(source(project, "x"), "x")
    assert [path.name for path in project.drops.glob(".*.part")] == []


class Kill:
    """End the process before its n-th call that changes a file."""

    CALLS = ("rename", "replace", "mkdir", "symlink", "sync", "fsync", "open", "unlink", "rmdir")

    def __init__(self, after: int) -> None:
        self.left = after

    def arm(self, patch: pytest.MonkeyPatch) -> None:
        for name in self.CALLS:
            patch.setattr(os, name, self._wrap(getattr(os, name)))

    def _wrap(self, call):  # type: ignore[no-untyped-def]
        def counted(*args, **keys):  # type: ignore[no-untyped-def]
            if not self.left:
                os.kill(os.getpid(), 9)
            self.left -= 1
            return call(*args, **keys)

        return counted


# A file so large that it is never copied whole.
COPIES_FOREVER = """
import shutil, sys, time
from adapt_inf.cli import main
copy = shutil.copyfile

def copyfile(*names, **options):
    copy(*names, **options)
    if str(names[0]).endswith("more.bin"):
        time.sleep(600)

shutil.copyfile = copyfile
sys.exit(main())
"""


def test_ctrl_c_leaves_nothing_half_copied(project: Project) -> None:
    (source(project, "large") / "more.bin").touch()
    command = [sys.executable, "-c", COPIES_FOREVER, "drop", str(source(project, "large")), "-C", str(project.root)]
    with subprocess.Popen(
        command,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell's background ignores it
    ) as running:
        while not list(project.drops.glob(".large.*.part/more.bin")):
            assert running.poll() is None
            time.sleep(0.005)
        running.send_signal(signal.SIGINT)
        said = running.communicate()[1]
    assert (running.returncode, "stopped" in said, "Traceback" in said) == (130, True, False)
    assert pending_drops(project) == []
    assert [path.name for path in project.drops.iterdir()] == [".lock"]


def test_what_a_killed_copy_left_goes_and_what_is_being_copied_stays(project: Project) -> None:
    for name in (".dead.1.part", ".alive.2.part"):
        (project.drops / name).mkdir()
    held = os.open(project.drops / ".alive.2.part", os.O_RDONLY)
    fcntl.flock(held, fcntl.LOCK_EX)
    add(project, "a")
    assert [path.name for path in project.drops.glob(".*.part")] == [".alive.2.part"]
    os.close(held)


def test_a_folder_around_the_project_is_no_drop(project: Project) -> None:
    describe(project.root.parent)
    with pytest.raises(DropError, match=r"the project .* lies in it"):
        add_drop(project, project.root.parent, "a")
    assert [path.name for path in project.drops.iterdir()] == []


# The same content


def test_the_same_content_waits_once(project: Project) -> None:
    add(project, "a")
    with pytest.raises(DropError, match=r"the drop a, which waits, holds the same content(.|\n)*--again"):
        add_drop(project, source(project, "a"), "other")
    assert pending_drops(project) == ["a"]
    add_drop(project, source(project, "a"), "other", again=True)
    assert pending_drops(project) == ["a", "other"]


def test_the_same_content_is_refused_with_the_round_that_took_it(project: Project) -> None:
    add(project, "a")
    content = drop_content(project, "a", "r001")
    take(project, "r001", "a")
    take(project, "r002", "b", content="of another")
    renamed = good_drop(project.root.parent / "renamed")
    describe(renamed, name="renamed", description="Content of a.")
    with pytest.raises(DropError, match="drop renamed: round r001 took in the same content"):
        add_drop(project, renamed, "renamed")
    shutil.rmtree(project.drop("a"))  # the round keeps what it took
    take(project, "r001", "a", content=content)
    with pytest.raises(DropError, match="round r001 took in the same content"):
        add_drop(project, renamed, "renamed")
    describe(renamed, name="renamed", description="Other content.")
    add_drop(project, renamed, "renamed")


def test_the_same_content_by_other_means_is_refused_by_its_round(project: Project) -> None:
    add(project, "a")
    content = drop_content(project, "a", "r001")
    take(project, "r001", "a", content=content)
    shutil.copytree(project.drop("a"), project.drop("b"))
    assert pending_drops(project) == ["b"]
    with pytest.raises(DropError, match=r"round r001 took in the same content(.|\n)*drops/b --again"):
        drop_content(project, "b", "r002")
    assert drop_content(project, "a", "r001") == content, "its own round may run again"
    add_drop(project, project.drop("b"), "b", again=True)
    assert drop_content(project, "b", "r002") == content


# Names


def test_a_name_is_taken_once(project: Project) -> None:
    add(project, "a")
    describe(source(project, "b"), name="a", description="Another.")
    with pytest.raises(DropError, match=r"there is a drop of that name(.|\n)*--name"):
        add_drop(project, source(project, "b"), "a")
    take(project, "r001", "a")
    shutil.rmtree(project.drop("a"))
    with pytest.raises(DropError, match="round r001 took in a drop of that name"):
        add_drop(project, source(project, "b"), "a")


def test_a_refused_drop_is_replaced_by_a_better_one(project: Project) -> None:
    add(project, "a")
    mark_refused(project, "a", "drop a: no good sample.")
    assert (pending_drops(project), refused_drops(project)) == ([], {"a": "drop a: no good sample."})
    add(project, "b")
    describe(source(project, "a"), name="a", description="Mended.")
    add(project, "a")
    assert (pending_drops(project), refused_drops(project)) == (["a", "b"], {})
    assert "Mended" in (project.drop("a") / "dataset.yaml").read_text()


def test_another_users_drop_is_taken_and_refused_without_writing_into_it(project: Project) -> None:
    copied(project, "a", 1)
    (project.drop("a") / READY).chmod(0o444)
    project.drop("a").chmod(0o555)
    with without_privileges():
        assert pending_drops(project) == ["a"]
        assert drop_content(project, "a", "r001") == drop_digest(project.drop("a"), "a")
        mark_refused(project, "a", "no good sample")
    assert (pending_drops(project), refused_drops(project)) == ([], {"a": "no good sample"})


def test_a_refused_drop_that_was_mended_where_it_is_waits_again(project: Project) -> None:
    copied(project, "a", 1)
    mark_refused(project, "a", "no good sample")
    assert pending_drops(project) == []
    add_drop(project, project.drop("a"), "a")
    assert (pending_drops(project), refused_drops(project)) == (["a"], {})
    take(project, "r001", "a")
    with pytest.raises(DropError, match="round r001 took it in already"):
        add_drop(project, project.drop("a"), "a")


def test_the_digest_is_of_all_but_the_name(tmp_path: Path) -> None:
    folders = [good_drop(tmp_path / name) for name in "abc"]
    describe(folders[1], name="other")
    (folders[1] / READY).touch()
    (folders[2] / "images" / "0.png").write_bytes(b"other")
    first, same, other = (drop_digest(folder, NAME) for folder in folders)
    assert first == same
    assert first != other


def test_a_long_history_costs_little(project: Project) -> None:
    for number in range(200):
        take(project, f"r{number + 1:03d}", f"d{number}", content=str(number))
        project.drop(f"d{number}").mkdir()
        (project.drop(f"d{number}") / READY).touch()
    started = time.process_time()
    assert pending_drops(project) == []
    assert time.process_time() - started < 2  # a sanity bound; it takes 0.01 s
