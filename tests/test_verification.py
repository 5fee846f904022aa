"""Every hash of what a round left: what is found where a file changed, is gone, or says other than its neighbours."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from machine import copy_project

from adapt_inf import cli, lineage, verification
from adapt_inf.data.manifest import MANIFEST, read_pool, write_manifest
from adapt_inf.errors import RoundError
from adapt_inf.files import read_json, write_json
from adapt_inf.project import Project
from adapt_inf.storage import Cache, records
from adapt_inf.verification import Verifier, mend, rounds_here
from adapt_inf.versions import open_repository


@pytest.fixture
def project(two_rounds: Project, tmp_path: Path) -> Project:
    return copy_project(two_rounds, tmp_path / "project")


def flip(path: Path, at: int = 2000) -> None:
    """Change one byte in place, as a bad disk does: the times stay, and so does every other name of the file."""
    times, mode = path.stat(), path.stat().st_mode
    path.chmod(0o644)
    with open(path, "r+b") as file:
        file.seek(at)
        byte = file.read(1)[0]
        file.seek(at)
        file.write(bytes([byte ^ 1]))
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    path.chmod(mode)


def faults(project: Project, round_id: str = "r002") -> list[tuple[str, str]]:
    return [(fault.file, fault.problem) for fault in Verifier(project).check(round_id).faults]


def record_again(project: Project, stage: str = "prune", round_id: str = "r002") -> None:
    """Let DVC record what is on disk, as if the stage had left it so."""
    with open_repository(project.root) as repo:
        repo.commit(f"rounds/{round_id}/dvc.yaml:{stage}", force=True)


def test_rounds_that_nobody_touched_are_right_and_each_file_is_read_once(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert rounds_here(project) == ["base", "r001", "r002"]
    read, looked = [], []
    digest, read_samples = verification.hashlib.file_digest, verification._read
    monkeypatch.setattr(verification.hashlib, "file_digest", lambda file, kind: read.append(file) or digest(file, kind))
    monkeypatch.setattr(verification, "_read", lambda path, threads: looked.append(path) or read_samples(path, threads))
    verifier = Verifier(project)
    verdicts = [verifier.check(round_id) for round_id in rounds_here(project)]
    assert not any(verdict.faults for verdict in verdicts)
    assert [verdict.samples for verdict in verdicts] == [96 + 16, 192 + 32, 288 + 48]
    files = [path for path in project.rounds.glob("*/*/**/*") if path.parts[-2] in ("shards", "suites")]
    shards = {path.stat().st_ino for path in files if path.suffix == ".parquet" and "ingest" not in path.parts}
    assert len(looked) == len(shards)
    assert len(read) == len({os.fstat(file.fileno()).st_ino if not file.closed else file.name for file in read})


def test_a_flipped_byte_is_found_in_every_pool_that_has_the_file_and_can_be_mended(
    third_round: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    project = copy_project(Project(third_round / "project"), tmp_path / "project")
    shards = [set(read_pool(project.output(each, "pool"))["shard"].dropna()) for each in ("r001", "r002")]
    name = sorted(shards[0] & shards[1])[0]
    flip(project.output("r001", "pool") / "shards" / name)
    assert cli.main(["verify", "-C", str(project.root), "base", "r001", "r002"]) == 1
    shown = capsys.readouterr().out
    for round_id in ("r001", "r002"):
        assert f"rounds/{round_id}/pool/shards/{name}: has other content than the round left" in shown
    assert re.search(r"^base +ok", shown, re.M)
    command = re.search(r"`(rm -rf [^`]*)`", shown)
    assert command
    assert ".dvc/cache/files/md5/" in command[1]
    machine_run = shlex.split(command[1])
    subprocess.run(machine_run, cwd=project.root, check=True)
    assert cli.main(["pull", "-C", str(project.root), "r002"]) == 0
    assert faults(project) == []


def test_a_sound_copy_in_the_cache_is_not_removed(
    project: Project, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = project.output("r002", "model") / "adapter_model.safetensors"
    content = path.read_bytes()
    path.unlink()  # another file from here on, not another name of the cache's
    path.write_bytes(content[:-1] + b"x")
    advice = mend(project, [Verifier(project).check("r002")])
    assert "`rm -rf rounds/r002/model`, then `adapt-inf pull r002`" in advice
    shutil.rmtree(project.output("r002", "model"))
    monkeypatch.chdir(project.root)
    assert cli.main(["pull", "r002"]) == 0
    assert path.read_bytes() == content
    assert faults(project) == []


def test_a_lost_record_is_brought_back_by_git(project: Project) -> None:
    (project.round("r002") / "dvc.lock").unlink()
    (project.root / "rounds" / "base" / "model.dvc").unlink()
    advice = mend(project, [Verifier(project).check(name) for name in ("base", "r002")])
    command = re.search(r"`(git checkout [^`]*)`", advice)
    assert command
    assert "rm -rf" not in advice
    subprocess.run(shlex.split(command[1]), cwd=project.root, check=True)
    assert faults(project) == faults(project, "base") == []


def test_what_is_gone_or_too_many_is_named(project: Project) -> None:
    (project.output("r002", "model") / "model.json").unlink()
    (project.output("r002", "pool") / "shards" / "more.parquet").write_bytes(b"more")
    shutil.rmtree(project.output("r002", "evaluate"))
    assert faults(project) == [
        ("rounds/r002/pool/shards/more.parquet", "is no part of what the round left"),
        ("rounds/r002/model/model.json", "is not there"),
        ("rounds/r002/evaluate", "is not there"),
    ]
    verdicts = [Verifier(project).check("r002")]
    assert "`rm -rf rounds/r002/pool`, then `adapt-inf pull r002`" in mend(project, verdicts)
    assert "`adapt-inf round`" in mend(project, verdicts)


def test_a_manifest_that_says_other_than_the_shards_is_found(project: Project) -> None:
    path = project.output("r002", "pool") / MANIFEST
    frame = read_pool(path.parent)
    row = int(frame.index[frame["live"]][3])
    for column, value in (
        ("content_hash", "0" * 32),
        ("image_hashes", ["f" * 32]),
        ("skill", "other"),
        ("n_images", 9),
    ):
        changed = frame.copy()
        changed.at[row, column] = value
        write_manifest(path, changed)
        record_again(project)
        ((file, problem),) = faults(project)
        assert file == f"rounds/r002/pool/shards/{frame.at[row, 'shard']}", column
        assert f"is not the {frame.at[row, 'sample_id']} of the manifest" in problem
    write_manifest(path, pd.concat([frame, frame.iloc[[row]]], ignore_index=True))
    record_again(project)
    problems = [problem for _, problem in faults(project)]
    assert problems[0] == f"names {frame.at[row, 'sample_id']} twice"
    assert "counts other samples than the manifest has" in problems
    assert any("rows for it" in problem for problem in problems)


def test_a_suite_that_says_other_than_its_hashes_is_found(project: Project) -> None:
    path = project.output("r002", "pool") / "suites" / "second.json"
    hashes = read_json(path)
    write_json(path, hashes | {"images": hashes["images"][1:]})
    record_again(project)
    assert faults(project) == [
        ("rounds/r002/pool/suites/second.parquet", "holds other samples than the hashes beside it say")
    ]


def test_dvcs_own_copy_and_list_are_checked_too(project: Project) -> None:
    record, cache = records(project)["rounds/r002/model"], Cache.of(project)
    listing = cache.listing(record.md5)
    assert listing is not None
    twin = cache.object(listing["model.json"])
    own = twin.read_bytes()
    twin.unlink()
    twin.write_bytes(own.replace(b"{", b"[", 1))
    file = str(twin.relative_to(project.root))
    assert faults(project) == [(file, "DVC's copy of rounds/r002/model/model.json has other content")]
    twin.write_bytes(own)
    cache.object(record.md5).unlink()
    assert faults(project) == []
    flip(project.output("r002", "model") / "adapter_model.safetensors")
    ((file, problem),) = faults(project)
    assert file == "rounds/r002/model"
    assert "which file is unknown" in problem


def test_for_programs_and_for_rounds_that_are_not_there(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["verify", "-C", str(project.root), "--json", "r001"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert [(each["round"], each["ok"], each["faults"]) for each in shown["rounds"]] == [("r001", True, [])]
    assert shown["mend"] is None
    with pytest.raises(RoundError, match="no such round"):
        Verifier(project).check("r009")
    lineage.write_round(project, replace(lineage.read_round(project, "r002"), status="running"))
    with pytest.raises(RoundError, match="not finished"):
        Verifier(project).check("r002")
