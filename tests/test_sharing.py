"""Rounds over a remote: a second clone goes on as the first would have; S3; what is wrong with a remote, by name."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import boto3
import fsspec
import pytest
from killing import kill_at
from machine import Machine, copy_project
from s3 import Between, between, s3_server, settings_of
from third_round import facts_of

from adapt_inf import lineage
from adapt_inf.errors import AdaptInfError, RoundError
from adapt_inf.project import Project
from adapt_inf.sharing import RemoteError, pull, push
from adapt_inf.stages.runner import OUTPUTS
from adapt_inf.storage import Cache, records
from adapt_inf.verification import Verifier
from adapt_inf.versions import commit_files, head_commit, open_repository


@pytest.fixture
def project(two_rounds: Project, tmp_path: Path) -> Project:
    return copy_project(two_rounds, tmp_path / "project")


@pytest.fixture
def clone(third_round: Path, tmp_path: Path) -> Project:
    """A fresh clone, as git makes it, of the project whose head before the third round is on the remote."""
    subprocess.run(["git", "clone", "--quiet", third_round / "project", tmp_path / "clone"], check=True)
    return Project(tmp_path / "clone")


def set_remote(project: Project, url: str, **options: str) -> None:
    with open_repository(project.root) as repo, repo.config.edit() as config:
        config["core"]["remote"] = "store"
        config["remote"]["store"] = {"url": url, **options}


def objects(project: Project, round_id: str) -> set[Path]:
    """The objects of the cache that a round's pool, model, evaluation and selection are."""
    known, cache = records(project), Cache.of(project)
    names = [f"rounds/{round_id}/{name}" for name in ("pool", "model", "evaluate", "select")]
    return {cache.object(md5) for name in names for md5 in cache.hashes(known[name].md5)}


def test_a_second_clone_goes_on_as_the_first_does(third_round: Path) -> None:
    here, there = facts_of(third_round)["lineage"]
    assert [entry["round"] for entry in there] == ["r001", "r002", "r003"]
    own = ("model_version",)  # of each machine's MLflow
    assert [{k: v for k, v in entry.items() if k not in own} for entry in there] == [
        {k: v for k, v in entry.items() if k not in own} for entry in here
    ]
    project, clone = Project(third_round / "project"), Project(third_round / "clone")
    for name in OUTPUTS.values():
        assert lineage.output_hash(clone, "r003", name) == lineage.output_hash(project, "r003", name)
    assert not clone.output("r001", "pool").exists()
    assert lineage.unfinished(clone) == []
    verifier = Verifier(clone)
    assert not any(verifier.check(each).faults for each in ("base", "r002", "r003"))


def test_where_the_remote_is_travels_by_git(third_round: Path) -> None:
    log = subprocess.run(
        ["git", "log", "--format=%s", "--", ".dvc/config"],
        cwd=third_round / "clone",
        capture_output=True,
        text=True,
        check=True,
    )
    assert log.stdout.splitlines()[0] == "Say where the remote is"


def test_what_is_there_is_not_sent_again_and_any_round_can_be(project: Project, tmp_path: Path) -> None:
    set_remote(project, str(tmp_path / "store"))
    first = push(project, [])
    assert first > 20
    assert push(project, []) == 0
    assert 0 < push(project, ["r001"]) < first
    assert push(project, ["base"]) == 0


def test_a_killed_pull_is_completed_by_the_next(machine: Machine, clone: Project, third_round: Path) -> None:
    code = "from adapt_inf.cli import main; main(['pull', 'r002'])"
    kill_at(clone.root / ".dvc", "cache/files/md5/*/*", code, cwd=clone.root, env=machine.environment())
    machine.run("adapt-inf", "pull", "r002", cwd=clone.root)
    assert Verifier(clone).check("r002").faults == []
    for path in list(objects(clone, "r002"))[::2]:  # the same, as a kill at the worst moments would leave it
        path.unlink(missing_ok=True)
    shutil.rmtree(clone.output("r002", "model"))
    pull(clone, ["r002"])
    assert Verifier(clone).check("r002").faults == []
    assert clone.drops.is_dir()


def test_a_pull_mends_what_is_broken(clone: Project) -> None:
    pull(clone, ["r002"])
    file = next(path for path in clone.output("r002", "pool").glob("shards/*"))
    file.chmod(0o644)
    file.write_bytes(b"broken")
    assert Verifier(clone).check("r002").faults
    pull(clone, ["r002"])
    assert Verifier(clone).check("r002").faults == []


def test_what_the_cache_still_has_comes_back_without_a_remote(project: Project) -> None:
    for name in ("pool", "model"):
        shutil.rmtree(project.output("r001", name))
    assert pull(project, ["r001"]) == 0
    assert Verifier(project).check("r001").faults == []


@pytest.mark.parametrize(
    ("url", "options", "named"),
    [
        ("s3://pools/line", {"secret_access_key": "hush"}, "secret_access_key"),
        ("ssh://pools/line", {"password": "hush"}, "password"),
        ("https://lead:hush@pools/line", {}, "url"),
    ],
)
def test_a_secret_is_not_committed(project: Project, url: str, options: dict[str, str], named: str) -> None:
    set_remote(project, url, **options)
    before = head_commit(project.root)
    with pytest.raises(AdaptInfError, match=rf"has a secret: `{named}` of remote(.|\n)*--local") as caught:
        commit_files(project, "Say where the remote is")
    assert "hush" not in str(caught.value)
    assert head_commit(project.root) == before
    set_remote(project, "s3://pools/line", access_key_id="known to all")
    assert commit_files(project, "Say where the remote is") != before


def test_what_cannot_be_sent_or_fetched_is_named(project: Project, tmp_path: Path) -> None:
    with pytest.raises(AdaptInfError, match=r"has no remote(.|\n)*dvc remote add -d store"):
        push(project, [])
    set_remote(project, str(tmp_path / "unmounted" / "store"))
    with pytest.raises(RemoteError, match="no such folder"):
        push(project, [])
    set_remote(project, str(tmp_path / "store"))
    with pytest.raises(RoundError, match="no such round"):
        push(project, ["r009"])
    lost = objects(project, "r001") - objects(project, "r002")
    shutil.rmtree(project.root / ".dvc" / "cache")
    with pytest.raises(RoundError, match=r"is not in DVC's cache(.|\n)*adapt-inf pull"):
        push(project, ["r001"])
    assert lost
    with pytest.raises(RemoteError, match=r"does not have all of(.|\n)*adapt-inf push r001` where that round was made"):
        pull(project, ["r001"])
    lineage.write_round(project, replace(lineage.read_round(project, "r002"), status="running"))
    with pytest.raises(RoundError, match="not finished"):
        push(project, ["r002"])


@pytest.fixture
def busy(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Between]]:
    """Before an S3 server on this machine that has a bucket `store`; the environment names it."""
    with s3_server() as server, between(server) as (handler, address):
        for name, value in settings_of(*address).items():
            monkeypatch.setenv(name, value)
        boto3.client("s3").create_bucket(Bucket="store")
        fsspec.get_filesystem_class("s3").clear_instance_cache()
        yield handler


def test_s3(project: Project, clone: Project, busy: type[Between], monkeypatch: pytest.MonkeyPatch) -> None:
    set_remote(project, "s3://store/rounds")
    busy.failing = 3
    assert push(project, []) > 20
    assert "PUT" in {verb for verb, _ in busy.seen}, "answered with 503 the first time"
    set_remote(clone, "s3://store/rounds")
    with monkeypatch.context() as without:
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            without.delenv(name)
        with pytest.raises(RemoteError, match="there are no credentials for it"):
            pull(clone, ["r002"])
    before = set(busy.seen)
    busy.failing = 10
    assert pull(clone, ["r002"]) > 20
    assert {verb for verb, _ in busy.seen - before} >= {"GET"}
    assert Verifier(clone).check("r002").faults == []
    set_remote(clone, "s3://elsewhere/rounds")
    with pytest.raises(RemoteError, match="bucket does not exist"):
        push(clone, ["r002"])
