"""Drops that lie in a store elsewhere: they come as they are there, or not at all with the reason."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import boto3
import fsspec
import pytest
from machine import Machine
from make_drop import make_drop
from s3 import Between, between, s3_server, settings_of
from serving import until

from adapt_inf.cli import main
from adapt_inf.data.drops import drop_digest
from adapt_inf.drop_queue import pending_drops
from adapt_inf.errors import DropError, NoRoomError
from adapt_inf.project import Project
from adapt_inf.remote_drops import fetched
from benchmarks.noop_project import make_noop_project


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return make_noop_project(tmp_path / "project")


@pytest.fixture
def shapes(tmp_path: Path) -> Path:
    return make_drop(tmp_path / "shapes", "shapes", train=24, eval=8)


@pytest.fixture(scope="module")
def server() -> Iterator[tuple[str, int]]:
    """An S3 server on this machine: its host and port."""
    with s3_server() as found:
        yield found


@pytest.fixture
def s3(server: tuple[str, int], shapes: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Its address, with what `shapes` holds in s3://store/sets/shapes, as a user's environment names it."""
    settings = settings_of(*server)
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    client = boto3.client("s3")
    client.create_bucket(Bucket="store")
    for path in sorted(shapes.rglob("*")):
        if path.is_file():
            client.upload_file(str(path), "store", f"sets/shapes/{path.relative_to(shapes).as_posix()}")
    fsspec.get_filesystem_class("s3").clear_instance_cache()
    return settings["AWS_ENDPOINT_URL"]


def give(project: Project, *words: str) -> int:
    return main(["drop", *words, "-C", str(project.root)])


def hidden(project: Project) -> list[Path]:
    return list(project.drops.glob(".*.part"))


@pytest.mark.parametrize("end", ["", "/"])
def test_it_comes_as_it_is_there(project: Project, shapes: Path, s3: str, end: str) -> None:
    assert give(project, f"s3://store/sets/shapes{end}") == 0
    assert pending_drops(project) == ["shapes"]
    assert drop_digest(project.drop("shapes"), "shapes") == drop_digest(shapes, "shapes")
    assert hidden(project) == []
    assert all(path.stat().st_nlink == 1 for path in project.drop("shapes").rglob("*") if path.is_file())


def test_the_same_content_is_known_wherever_it_comes_from(
    project: Project, shapes: Path, s3: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert give(project, str(shapes)) == 0
    assert give(project, "s3://store/sets/shapes", "--name", "other") == 1
    assert "the drop shapes, which waits, holds the same content" in capsys.readouterr().err
    assert give(project, "s3://store/sets/shapes", "--name", "other", "--again") == 0
    assert pending_drops(project) == ["shapes", "other"]


def test_files_that_stand_for_folders_are_none(project: Project, s3: str, shapes: Path) -> None:
    """As a store's own page makes them by "create folder"."""
    for name in ("sets/shapes/", "sets/shapes/images/", "sets/shapes/empty/"):
        boto3.client("s3").put_object(Bucket="store", Key=name, Body=b"")
    with fetched(project, "s3://store/sets/shapes") as folder:
        assert drop_digest(folder, "shapes") == drop_digest(shapes, "shapes")


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("s3://store/sets/nothing", "there is nothing"),
        ("s3://elsewhere/sets", "bucket does not exist"),
        ("s3://store/sets/shapes/images", "dataset.yaml"),
        ("unheard://store/sets", "unheard"),
    ],
)
def test_what_is_not_there_is_named(
    project: Project, s3: str, url: str, reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert give(project, url) == 1
    said = capsys.readouterr().err
    assert reason in said
    assert len(said.splitlines()) - said.count("fetch") <= 2
    assert pending_drops(project) == []
    assert hidden(project) == []


def test_without_credentials(project: Project, s3: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    with pytest.raises(DropError, match="there are no credentials for it"), fetched(project, "s3://store/sets/shapes"):
        pass


def test_a_name_that_leads_out_of_the_folder_is_refused(project: Project) -> None:
    store = fsspec.filesystem("memory")
    store.pipe("/sets/shapes/dataset.yaml", b"name: shapes")
    store.store["/sets/shapes/../../../evil"] = store.store["/sets/shapes/dataset.yaml"]
    with pytest.raises(DropError, match=r"is no name for a file in a folder"), fetched(project, "memory://sets/shapes"):
        pass
    assert sorted(path.name for path in project.root.parent.iterdir()) == ["project"]
    del store.store["/sets/shapes/../../../evil"]


def test_what_does_not_fit_is_refused_before_it_comes(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    store = fsspec.filesystem("memory")
    store.pipe("/large/shapes/dataset.yaml", b"name: shapes")
    monkeypatch.setattr(type(store), "get", lambda *_: pytest.fail("it was fetched"))
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 5})())
    with pytest.raises(NoRoomError), fetched(project, "memory://large/shapes"):
        pass


def test_a_disk_that_fills_up_meanwhile_is_called_full(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    store = fsspec.filesystem("memory")
    store.pipe("/full/shapes/dataset.yaml", b"name: shapes")

    def get(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(type(store), "get", get)
    with pytest.raises(NoRoomError), fetched(project, "memory://full/shapes"):
        pass
    assert hidden(project) == []


@pytest.fixture
def busy(s3: str, server: tuple[str, int], monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Between]]:
    with between(server) as (handler, address):
        monkeypatch.setenv("AWS_ENDPOINT_URL", settings_of(*address)["AWS_ENDPOINT_URL"])
        fsspec.get_filesystem_class("s3").clear_instance_cache()
        yield handler


def test_a_store_that_is_busy_and_then_answers(project: Project, shapes: Path, busy: type[Between]) -> None:
    busy.failing = 5
    assert give(project, "s3://store/sets/shapes") == 0
    assert [verb for verb, _ in busy.seen].count("GET") == 5
    assert drop_digest(project.drop("shapes"), "shapes") == drop_digest(shapes, "shapes")


def test_a_killed_fetch_leaves_nothing_that_lasts(
    machine: Machine, project: Project, shapes: Path, busy: type[Between]
) -> None:
    busy.held = "/images/"
    said = machine.home / "fetch.log"
    with open(said, "wb") as log:
        process = subprocess.Popen(
            ["adapt-inf", "drop", "s3://store/sets/shapes"],
            cwd=project.root,
            env=machine.environment(),
            stdout=log,
            stderr=log,
        )

    def some_is_here() -> bool:
        assert process.poll() is None, said.read_text(encoding="utf-8")
        return any(path.is_file() for part in hidden(project) for path in part.rglob("*"))

    until(some_is_here, "some of it is here")
    process.kill()
    assert process.wait() == -signal.SIGKILL
    assert hidden(project) != []
    assert pending_drops(project) == []
    busy.held = None
    assert give(project, "s3://store/sets/shapes") == 0
    assert hidden(project) == []
    assert drop_digest(project.drop("shapes"), "shapes") == drop_digest(shapes, "shapes")
