"""Faults on their way between processes."""

from __future__ import annotations

import errno
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest
from safetensors import safe_open

from adapt_inf.errors import AdaptInfError, NotAProjectError, StageInputError
from adapt_inf.executors.faults import error_of, fault_of


def there_and_back(error: Exception) -> Exception:
    return error_of(json.loads(json.dumps(fault_of(error, "Node n"))))


def test_what_can_be_mended_says_the_same() -> None:
    found = there_and_back(NotAProjectError(Path("/there")))
    assert isinstance(found, AdaptInfError)
    assert str(found) == str(NotAProjectError(Path("/there")))


def test_a_file_that_is_not_there_names_the_node_and_the_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as caught:
        (tmp_path / "shard").read_bytes()
    found = there_and_back(caught.value)
    assert isinstance(found, AdaptInfError)
    assert found.message == f"Node n does not see {tmp_path / 'shard'}."
    assert "file system" in found.mend


@pytest.mark.parametrize("read", [pd.read_parquet, pa.memory_map, lambda path: safe_open(path, "pt")])
def test_a_file_that_only_the_text_of_the_error_names(read: Callable[[str], Any], tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as caught:
        read(str(tmp_path / "shard"))
    assert caught.value.filename is None
    found = there_and_back(caught.value)
    assert isinstance(found, AdaptInfError)
    assert found.message.startswith("Node n does not see a file: ")
    assert str(tmp_path / "shard") in found.message
    assert "file system" in found.mend


def test_an_input_that_is_not_there_names_the_node_and_both_mends() -> None:
    error = StageInputError(Path("/there/sketch"), "is not there")
    found = there_and_back(error)
    assert isinstance(found, AdaptInfError)
    assert found.message == "Node n: /there/sketch: is not there."
    assert "file system" in found.mend
    assert error.mend in found.mend


def test_a_full_disk_stays_one() -> None:
    found = there_and_back(OSError(errno.ENOSPC, "No space left on device", "/there"))
    assert isinstance(found, OSError)
    assert (found.errno, found.filename) == (errno.ENOSPC, "/there")
    assert "Node n" in str(found)


def test_anything_else_brings_its_traceback() -> None:
    with pytest.raises(ZeroDivisionError) as caught:
        1 // 0  # noqa: B018
    found = there_and_back(caught.value)
    assert type(found) is RuntimeError
    assert "Node n" in str(found)
    assert "ZeroDivisionError" in str(found)
