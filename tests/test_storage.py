"""What DVC has on record: read from locks and .dvc files, of today and of any commit; its cache, by names."""

from __future__ import annotations

import hashlib
import json
import subprocess
from pathlib import Path

import pytest

from adapt_inf.errors import AdaptInfError
from adapt_inf.project import Project
from adapt_inf.storage import Cache, Record, all_records, parse_records, records

LOCK = """\
schema: '2.0'
stages:
  prune:
    cmd: adapt-inf stage prune r001
    deps: [{path: rounds/r001/ingest, hash: md5, md5: aa.dir, size: 1}]
    outs: [{path: rounds/r001/pool, hash: md5, md5: bb.dir, size: 12, nfiles: 2}]
"""
ADDED = "outs:\n- {md5: cc.dir, size: 7, hash: md5, path: pool}\n"


@pytest.fixture
def project(tmp_path: Path) -> Project:
    for path, text in (("rounds/r001/dvc.lock", LOCK), ("rounds/base/pool.dvc", ADDED), (".dvc/config", "")):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text, encoding="utf-8")
    return Project(tmp_path)


def test_a_lock_names_paths_from_the_root_and_a_dvc_file_from_where_it_is() -> None:
    assert list(parse_records(LOCK, Path("rounds/r001/dvc.lock"))) == [Record("rounds/r001/pool", "bb.dir", 12)]
    assert list(parse_records(ADDED, Path("rounds/base/pool.dvc"))) == [Record("rounds/base/pool", "cc.dir", 7)]
    assert list(parse_records("- a list", Path("a.dvc"))) == []


def test_records_of_any_commit_count_and_broken_ones_of_the_past_do_not(project: Project) -> None:
    root = project.root
    own = ["-c", "user.name=a", "-c", "user.email=a@localhost"]

    def git(*arguments: str) -> None:
        subprocess.run(["git", *own, *arguments], cwd=root, check=True, capture_output=True)

    git("init", "--initial-branch", "main")
    for text in ("outs:\n- {md5: old, path: own.bin}\n", "outs: [", ADDED):
        (root / "own.dvc").write_text(text, encoding="utf-8")
        git("add", "own.dvc", ".dvc/config")
        git("commit", "--message", "One more")
    git("rm", "own.dvc")
    git("commit", "--message", "Gone")
    found = set(all_records(project))
    assert {record.md5 for record in found} == {"bb.dir", "cc.dir", "old"}
    assert set(records(project)) == {"rounds/r001/pool", "rounds/base/pool"}
    (project.round("r001") / "dvc.lock").write_text("stages: [", encoding="utf-8")
    with pytest.raises(AdaptInfError, match=r"dvc\.lock is no YAML"):
        list(all_records(project))


def test_the_cache_lists_a_folder_only_while_the_list_is_sound(project: Project) -> None:
    cache = Cache.of(project)
    content = json.dumps([{"md5": "f" * 32, "relpath": "a/b"}]).encode()
    name = hashlib.md5(content, usedforsecurity=False).hexdigest() + ".dir"
    assert cache.listing(name) is None
    path = cache.object(name)
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    assert path == project.root / ".dvc" / "cache" / "files" / "md5" / name[:2] / name[2:]
    assert cache.listing(name) == {"a/b": "f" * 32}
    assert cache.hashes(name) == {name, "f" * 32}
    assert [cache.name(each) for each in cache.objects()] == [name]
    path.write_bytes(content + b" ")
    assert cache.listing(name) is None
    assert cache.hashes(name) == {name}


def test_a_cache_that_the_user_moved_is_found(project: Project, tmp_path: Path) -> None:
    (project.root / ".dvc" / "config").write_text(f"[cache]\n    dir = {tmp_path / 'far'}\n", encoding="utf-8")
    assert Cache.of(project).folder == tmp_path / "far" / "files" / "md5"
