"""Who does the parts, and how two at one file keep out of each other's way."""

from __future__ import annotations

from pathlib import Path

import pytest

from adapt_inf import files
from adapt_inf.config import Executor
from adapt_inf.executors.parts import device_kind
from adapt_inf.files import write_beside_others, write_text, write_whole
from adapt_inf.models.vlm import pick_device


def test_the_device_is_that_of_whoever_does_the_work() -> None:
    assert device_kind(Executor()) == pick_device().type
    assert device_kind(Executor(kind="ray")) == "cpu"
    assert device_kind(Executor(kind="ray", gpus_per_worker=0.5)) == "cuda"


def test_two_processes_at_one_file_both_end_with_a_whole_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "_own_mark", "")  # put back what the call below sets
    write_beside_others()

    def write(part: Path) -> None:
        part.write_text("ours")
        with monkeypatch.context() as other:
            other.setattr(files, "_own_mark", ".other-1")
            write_text(tmp_path / "file", "theirs")
        assert part.read_text() == "ours"

    write_whole(tmp_path / "file", write)
    assert (tmp_path / "file").read_text() == "ours"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
