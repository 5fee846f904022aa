"""A drop that is bad as a whole: refused with its reason, by `adapt-inf drop` and by the round, and nothing changes."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import pickle
import socket
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from bad_drop import GOOD, NAME, add_line, ask, describe, empty_project, good_drop, take_in, without_privileges
from dvc.repo import Repo

from adapt_inf.cli import main
from adapt_inf.config import Ingest, Params, Select
from adapt_inf.data.drops import READY, read_drop
from adapt_inf.drop_queue import add_drop, pending_drops, refused_drops
from adapt_inf.errors import AdaptInfError, DropError
from adapt_inf.files import folder_digest
from adapt_inf.project import Project
from adapt_inf.stages import ingest
from adapt_inf.stages.context import StageContext
from adapt_inf.versions import create_repository


def described(**changes: Any) -> Callable[[Path], None]:
    return lambda folder: describe(folder, **changes)


def written(text: str | bytes, file: str = "dataset.yaml") -> Callable[[Path], object]:
    return lambda folder: (folder / file).write_bytes(text.encode() if isinstance(text, str) else text)


def linked(target: str) -> Callable[[Path], None]:
    return lambda folder: (folder / "images" / "link.png").symlink_to(target)


def with_socket(folder: Path) -> None:
    here = Path.cwd()
    os.chdir(folder)  # a socket's whole path has at most 107 bytes
    try:
        with socket.socket(socket.AF_UNIX) as bound:
            bound.bind("socket.png")
    finally:
        os.chdir(here)


def all_parquet(table: pa.Table) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        pq.write_table(table, folder / "train.parquet")
        describe(folder, train="train.parquet")

    return spoil


def pickled(folder: Path) -> None:
    (folder / "train.parquet").write_bytes(pickle.dumps([ask("What?")]))
    describe(folder, train="train.parquet")


def zipped(folder: Path) -> None:
    with zipfile.ZipFile(folder / "train.zip", "w") as file:
        file.write(folder / "train.jsonl", "train.jsonl")
    describe(folder, train="train.zip")


def listed(text: bytes) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        (folder / "train.json").write_bytes(text)
        describe(folder, train="train.json")

    return spoil


def nested() -> str:
    """dataset.yaml in some hundred bytes, whose `name` has 9 ** 8 elements."""
    keys = ("description", "license", "skill", "metric", "format", "eval", "train", "name")
    lines = ["description: &description [x]"]
    lines += [f"{key}: &{key} [{', '.join([f'*{last}'] * 9)}]" for last, key in itertools.pairwise(keys)]
    return "\n".join(lines)


AT_THE_BORDER: dict[str, tuple[Callable[[Path], object], str]] = {
    "no description": (lambda folder: (folder / "dataset.yaml").unlink(), "it has no dataset.yaml"),
    "no YAML": (written("a: ["), "no YAML"),
    "objects in YAML": (written("!!python/object/apply:os.system ['true']"), "no YAML"),
    "YAML of 100 MB": (written("x" * 100_000_000), "more than 64 KB"),
    "YAML too deep": (written("name: " + "[" * 5000), "no YAML"),
    "YAML that unfolds": (written(nested()), "`name` is [[["),
    "unknown key": (described(titel="x"), "unknown key `titel`"),
    "unknown metric": (described(metric="bleu"), "`metric` is 'bleu'"),
    "unknown format": (described(format="webdataset"), "unknown format 'webdataset'"),
    "list as license": (described(license=["a"]), "`license` is ['a'], no text"),
    "name that climbs": (described(name="../up"), "no name"),
    "name with a line break": (described(name="a\nb"), "no name"),
    "name of 300 bytes": (described(name="x" * 300), "no name"),
    "no train": (described(train=None), "names no `train`"),
    "split that is missing": (described(train="none.json"), "'none.json' is not in the drop"),
    "split outside": (described(eval="/etc/passwd"), "absolute"),
    "split of no records": (written("", "train.jsonl"), "the train split is empty"),
    "archive": (zipped, "unknown format"),
    "pickle": (pickled, "is no Parquet file"),
    "Parquet of other columns": (all_parquet(pa.table({"a": [1]})), "unknown format"),
    "an object, no list": (listed(b'{"data": []}'), "is no JSON list"),
    "list that is no UTF-8": (listed(b'[{"question": "\xff", "answer": "a"}]'), "is no UTF-8 text"),
    "list of one endless sample": (listed(b'[{"question": "' + b"x" * 20_000_000), "longer than 16 MB"),
    "link out of the drop": (linked("/etc/passwd"), "images/link.png is a link that leads out of the drop"),
    "link to a folder outside": (linked("/etc"), "leads out of the drop"),
    "link to a device": (linked("/dev/zero"), "leads out of the drop"),
    "link that climbs": (linked("../../secret.png"), "leads out of the drop"),
    "link to nothing": (linked("none.png"), "leads nowhere"),
    "link to itself": (linked("link.png"), "leads nowhere"),
    "pipe": (lambda folder: os.mkfifo(folder / "images" / "pipe.png"), "images/pipe.png is a pipe"),
    "socket": (with_socket, "socket.png is a socket"),
    "unreadable picture": (lambda folder: (folder / "images" / "0.png").chmod(0), "images/0.png cannot be read"),
    "unreadable folder": (lambda folder: (folder / "images").chmod(0), "images cannot be read"),
    "name that is no text": (lambda folder: (folder / os.fsdecode(b"\xff.png")).touch(), "no UTF-8"),
    "files of DVC": (written("*.png", ".dvcignore"), ".dvcignore is DVC's"),
}


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path / "prefect"))
    return empty_project(tmp_path / "project")


def digests(project: Project) -> tuple[str, list[str]]:
    queue = sorted(path.name for path in project.drops.iterdir() if path.name != ".lock")
    return folder_digest(project.rounds), queue


@pytest.mark.parametrize("case", AT_THE_BORDER)
def test_a_bad_drop_does_not_come_in(
    project: Project, tmp_path: Path, capsys: pytest.CaptureFixture[str], case: str
) -> None:
    spoil, reason = AT_THE_BORDER[case]
    spoil(good_drop(tmp_path / "come" / NAME))
    before = digests(project)
    with without_privileges():
        assert main(["drop", str(tmp_path / "come" / NAME), "-C", str(project.root)]) == 1
    said = capsys.readouterr().err
    assert said.startswith("adapt-inf: drop ")
    assert reason in said
    assert len(said) < 600
    assert digests(project) == before


@pytest.mark.parametrize("case", AT_THE_BORDER)
def test_a_bad_drop_that_was_copied_in_is_refused_by_its_round(project: Project, case: str) -> None:
    spoil, reason = AT_THE_BORDER[case]
    spoil(good_drop(project.drop(NAME)))
    before = digests(project)
    with without_privileges(), pytest.raises(DropError) as caught:
        take_in(project)
    assert reason in str(caught.value)
    assert digests(project) == before


def too_many_bad(folder: Path) -> None:
    for number in range(GOOD + 2):
        add_line(folder, json.dumps(ask(f"<image> {number}?")).encode())


def only_bad(folder: Path) -> None:
    (folder / "train.jsonl").write_text(json.dumps(ask("<image>")) + "\n", encoding="utf-8")


def only_duplicates(folder: Path) -> None:
    """What the pool holds already, under other ids."""
    text = (folder / "train.jsonl").read_text(encoding="utf-8")
    (folder / "train.jsonl").write_text(text.replace("good-", "again-"), encoding="utf-8")
    describe(folder, name="other", eval=None)


def breaks_off(folder: Path) -> None:
    rows = [json.loads(line) for line in (folder / "train.jsonl").read_text().splitlines()]
    (folder / "train.json").write_text(json.dumps(rows)[:-20], encoding="utf-8")
    describe(folder, train="train.json")


IN_THE_ROUND: dict[str, tuple[Callable[[Path], object], Params, str]] = {
    "too many bad samples": (too_many_bad, Params(), "6 of 11 samples are bad"),
    "no good sample": (only_bad, Params(ingest=Ingest(max_reject_fraction=1.0)), "no training sample is good"),
    "a list that breaks off": (breaks_off, Params(), "train.json is no valid JSON list"),
    "a budget above the pool": (describe, Params(select=Select(budget=5)), "5 samples of the 4 that this round has"),
}


@pytest.mark.parametrize("case", IN_THE_ROUND)
def test_what_only_the_whole_drop_shows_refuses_it(project: Project, case: str) -> None:
    spoil, params, reason = IN_THE_ROUND[case]
    spoil(good_drop(project.drop(NAME)))
    before = digests(project)
    values = Params(round="r001", parent="base", drop=NAME, ingest=params.ingest, select=params.select)
    with pytest.raises(AdaptInfError) as caught:
        take_in(project, values)
    assert reason in str(caught.value)
    assert not project.output("r001", "ingest").exists()
    assert digests(project)[1] == before[1]
    assert not project.output("r001", "pool").exists()


def test_a_budget_of_just_what_there_is_is_none_too_many(project: Project) -> None:
    good_drop(project.drop(NAME))
    report, _ = take_in(project, Params(round="r001", parent="base", drop=NAME, select=Select(budget=GOOD)))
    assert report["train"] == GOOD


def test_a_drop_of_duplicates_only_is_refused(project: Project) -> None:
    good_drop(project.drop(NAME))
    _, pool = take_in(project)
    only_duplicates(good_drop(project.drop("other")))
    before = folder_digest(pool)
    with pytest.raises(DropError, match="Every training sample is in the pool already"):
        ingest.run(StageContext(project, "r002", Params(round="r002", parent="r001", drop="other")))
    assert not project.output("r002", "ingest").exists()
    assert folder_digest(pool) == before


def test_a_link_within_the_drop_comes_along(project: Project, tmp_path: Path) -> None:
    folder = good_drop(tmp_path / "come")
    (folder / "images" / "same.png").symlink_to(folder / "images" / "0.png")
    (folder / "pictures").symlink_to("images")
    add_line(folder, json.dumps(ask("Why?", image="pictures/same.png")).encode())
    target = add_drop(project, folder, read_drop(folder).name)
    assert os.readlink(target / "images" / "same.png") == "0.png"
    folder.rename(tmp_path / "elsewhere")
    assert take_in(project)[0]["train"] == GOOD + 1


def test_what_git_keeps_beside_a_dataset_stays_there(project: Project, tmp_path: Path) -> None:
    folder = good_drop(tmp_path / "come")
    (folder / ".git").mkdir()
    (folder / ".git" / "HEAD").write_text("ref: x")
    assert not (add_drop(project, folder, NAME) / ".git").exists()


@pytest.mark.parametrize("text", ["stages: [broken", "stages: {evil: {cmd: touch evil}}"])
def test_stages_that_a_drop_brings_are_not_the_projects(project: Project, text: str) -> None:
    create_repository(project.root, git=False)
    (project.root / "dvc.yaml").unlink()
    folder = good_drop(project.drop(NAME))
    (folder / "dvc.yaml").write_text(text)
    (folder / "images.dvc").write_text("outs: [")
    with contextlib.chdir(project.root), contextlib.closing(Repo(".")) as repo:
        assert repo.reproduce(all_pipelines=True) == []
        assert repo.status() == {}
    assert not list(project.root.rglob("evil"))


@pytest.mark.parametrize("name", ["a b", "a\nselect: {budget: 1.0}", "é", "x" * 65, "-a"])
def test_a_folder_with_no_name_for_a_drop_never_begins_a_round(project: Project, name: str) -> None:
    good_drop(project.drop(name))
    (project.drop(name) / READY).touch()
    assert pending_drops(project) == []
    assert "rename it" in refused_drops(project)[name]


@pytest.mark.parametrize("name", ["a b", "../up", "", ".hidden", "a/b", "x" * 65, "a\n"])
def test_a_name_that_is_none_is_refused(
    project: Project, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    folder = good_drop(tmp_path / "come")
    before = digests(project)
    assert main(["drop", str(folder), f"--name={name}", "-C", str(project.root)]) == 1
    assert "that is no name for a drop" in capsys.readouterr().err
    assert digests(project) == before
