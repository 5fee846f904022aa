"""Sketches written in parts come back by rows."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from adapt_inf.errors import StageInputError
from adapt_inf.sketching.store import SketchStore, part_path, spans, write_index, write_part


@pytest.fixture
def filled(tmp_path: Path) -> tuple[Path, np.ndarray]:
    rows = np.random.default_rng(0).normal(size=(10, 6)).astype(np.float32)
    rows[4] = 0
    for part, (start, stop) in enumerate(spans(10, 4)):
        write_part(tmp_path, part, rows[start:stop])
    write_index(tmp_path, {"gradient": 6}, [4, 4, 2], {"layers": [2]})
    return tmp_path, rows


def test_rows_come_back_normalised_in_order(filled: tuple[Path, np.ndarray]) -> None:
    folder, rows = filled
    store = SketchStore(folder)
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    unit = rows / np.where(norms == 0, 1, norms)
    assert (len(store), store.rows, store.dim) == (10, 10, 6)
    assert store.all().dtype == np.float32
    np.testing.assert_allclose(store.all(), unit, atol=6e-4)  # fp16 keeps 11 bits
    assert not store.all()[4].any()


@pytest.mark.parametrize("rows", [[], [9], [0, 4, 8], [7, 1, 1, 9, 3]])
def test_single_rows_come_back_in_the_order_asked_for(filled: tuple[Path, np.ndarray], rows: list[int]) -> None:
    store = SketchStore(filled[0])
    np.testing.assert_array_equal(store.take(np.array(rows, dtype=np.int64)), store.all()[rows])


@pytest.mark.parametrize(("start", "stop"), [(0, 10), (3, 9), (4, 8), (9, 10), (5, 5), (7, 99)])
def test_a_block_is_that_slice(filled: tuple[Path, np.ndarray], start: int, stop: int) -> None:
    store = SketchStore(filled[0])
    np.testing.assert_array_equal(store.block(start, stop), store.all()[start:stop])


def test_spans_cover_every_row_once() -> None:
    assert spans(10, 4) == [(0, 4), (4, 8), (8, 10)]
    assert spans(8, 4) == [(0, 4), (4, 8)]
    assert spans(0, 4) == []


def test_no_rows(tmp_path: Path) -> None:
    write_index(tmp_path, {"gradient": 6}, [], {})
    assert SketchStore(tmp_path).all().shape == (0, 6)


def test_a_part_of_another_shape_is_refused(filled: tuple[Path, np.ndarray]) -> None:
    write_part(filled[0], 1, np.ones((3, 6), dtype=np.float32))
    with pytest.raises(StageInputError, match="part-00001"):
        SketchStore(filled[0])


def test_more_parts_than_files_may_be_open_raise_the_limit_or_say_so(tmp_path: Path) -> None:
    for part in range(100):
        write_part(tmp_path, part, np.eye(2, 4, dtype=np.float32))
    write_index(tmp_path, {"gradient": 4}, [2] * 100, {})
    program = f"""
import resource, sys
from pathlib import Path
from adapt_inf.errors import AdaptInfError
from adapt_inf.sketching.store import SketchStore
resource.setrlimit(resource.RLIMIT_NOFILE, (64, int(sys.argv[1])))
try:
    print(SketchStore(Path({str(tmp_path)!r})).all().shape, resource.getrlimit(resource.RLIMIT_NOFILE)[0])
except AdaptInfError as error:
    print(error)
"""
    said = [subprocess.check_output([sys.executable, "-c", program, hard], text=True) for hard in ("4096", "90")]
    assert said[0].startswith("(200, 4) 3"), "100 parts, 256 to spare"
    assert re.match(r"A round of this size needs 3\d\d open files, and a process may have 90 here\.", said[1])
    assert "ulimit -Hn" in said[1]


def test_parts_are_half_precision(filled: tuple[Path, np.ndarray]) -> None:
    assert np.load(part_path(filled[0], 0)).dtype == np.float16


def test_hidden_states_lie_beside_sketches(tmp_path: Path) -> None:
    rows = np.eye(3, 4, dtype=np.float32)
    write_part(tmp_path, 0, rows)
    write_part(tmp_path, 0, 2 * rows[:, :2] + 1, "hidden")
    write_index(tmp_path, {"gradient": 4, "hidden": 2}, [3], {})
    np.testing.assert_array_equal(SketchStore(tmp_path).all(), rows)
    hidden = SketchStore(tmp_path, "hidden")
    assert hidden.dim == 2
    np.testing.assert_allclose(np.linalg.norm(hidden.all(), axis=1), 1, atol=1e-3)


def test_features_that_the_pass_did_not_leave(filled: tuple[Path, np.ndarray]) -> None:
    with pytest.raises(StageInputError, match="no hidden features"):
        SketchStore(filled[0], "hidden")
