"""Files and folders appear whole or not at all."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from adapt_inf import files
from adapt_inf.errors import AdaptInfError


def test_a_writer_that_fails_leaves_the_old_file(tmp_path: Path) -> None:
    files.write_text(tmp_path / "a.txt", "old")

    def fail(part: Path) -> None:
        part.write_text("half", encoding="utf-8")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        files.write_whole(tmp_path / "a.txt", fail)
    assert (tmp_path / "a.txt").read_text() == "old"


def test_a_hard_linked_name_keeps_its_content_when_the_other_is_written(tmp_path: Path) -> None:
    files.write_text(tmp_path / "a.txt", "old")
    files.link_or_copy(tmp_path / "a.txt", tmp_path / "b.txt")
    assert os.stat(tmp_path / "a.txt").st_ino == os.stat(tmp_path / "b.txt").st_ino
    files.write_text(tmp_path / "b.txt", "new")
    assert (tmp_path / "a.txt").read_text() == "old"


def test_json_refuses_nan(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        files.write_json(tmp_path / "a.json", {"x": float("nan")})
    assert not (tmp_path / "a.json").exists()


def test_arrays_and_tables_come_back(tmp_path: Path) -> None:
    array = np.arange(6, dtype=np.float16).reshape(2, 3)
    files.write_array(tmp_path / "a.npy", array)
    assert np.array_equal(files.read_array(tmp_path / "a.npy", mmap=True), array)
    frame = pd.DataFrame({"a": [1, 2], "b": ["x", None]})
    files.write_parquet(tmp_path / "a.parquet", frame)
    first = files.file_digest(tmp_path / "a.parquet")
    files.write_parquet(tmp_path / "a.parquet", frame)
    assert files.file_digest(tmp_path / "a.parquet") == first


def test_a_published_folder_takes_the_place_of_the_old_one(tmp_path: Path) -> None:
    for name in ("old", "new"):
        files.write_text(tmp_path / name / f"{name}.txt", name)
    files.publish_folder(tmp_path / "old", tmp_path / "out")
    files.publish_folder(tmp_path / "new", tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["new.txt"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out"]


def test_a_folder_digest_stands_for_names_and_contents(tmp_path: Path) -> None:
    files.write_text(tmp_path / "a" / "x", "1")
    files.write_text(tmp_path / "b" / "x", "1")
    assert files.folder_digest(tmp_path / "a") == files.folder_digest(tmp_path / "b")
    files.write_text(tmp_path / "b" / "y", "")
    assert files.folder_digest(tmp_path / "a") != files.folder_digest(tmp_path / "b")


def test_a_folder_is_gone_or_whole_whenever_its_removal_is_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = tmp_path / "state"
    files.remove_folder(state)
    state.mkdir()
    for number in range(3):
        (state / f"part-{number}").touch()
    remove = shutil.rmtree

    def dying(folder: Path, **options: Any) -> None:
        if folder.exists():
            (folder / "part-1").unlink()
            raise KeyboardInterrupt
        remove(folder, **options)

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", dying)
        with pytest.raises(KeyboardInterrupt):
            files.remove_folder(state)
    assert not state.exists()
    state.mkdir()
    files.remove_folder(state)
    assert list(tmp_path.iterdir()) == []


def test_a_new_folder_does_not_take_the_place_of_the_current_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(AdaptInfError, match="is the current folder"), files.new_folder(Path(".")):
        pass
    assert Path.cwd() == tmp_path
