"""Sketches and hidden states on disk: fp16 `.npy` files of a few MB each, in candidate order, read back by rows.

A part is one file that appears whole, so a killed pass goes on at the first that is missing. Reading maps the files
into memory: a block of rows costs its own size, whatever the number of samples.
"""

from __future__ import annotations

import os
import resource
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from adapt_inf.errors import AdaptInfError, StageInputError
from adapt_inf.files import read_array, read_json, write_array, write_json

FloatArray = NDArray[np.float32]


def spans(rows: int, size: int) -> list[tuple[int, int]]:
    """(start, stop) of each part of `rows` rows, `size` rows a part."""
    return [(start, min(start + size, rows)) for start in range(0, rows, size)]


_SPARE_FILES = 256  # beside those that are open: libraries, shards, what a stage writes

Features = Literal["gradient", "hidden"]
_FOLDERS = {"gradient": "sketches", "hidden": "hidden"}


def part_path(folder: Path, part: int, features: Features = "gradient") -> Path:
    return folder / _FOLDERS[features] / f"part-{part:05d}.npy"


def write_part(folder: Path, part: int, rows: FloatArray, features: Features = "gradient") -> None:
    """Write the (rows, dim) vectors of one part, each divided by its L2 norm, as fp16. A row of zeros stays zero."""
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    unit = np.divide(rows, norms, out=np.zeros_like(rows), where=norms > 0)
    write_array(part_path(folder, part, features), unit.astype(np.float16))


def write_index(folder: Path, dims: dict[Features, int], parts_rows: list[int], about: dict[str, Any]) -> None:
    """Write sketch.json: rows, and per kind of features its dim and its parts; `about` (layers, plan) as it is."""
    features = {
        kind: {
            "dim": dim,
            "parts": [
                {"file": part_path(folder, part, kind).relative_to(folder).as_posix(), "rows": count}
                for part, count in enumerate(parts_rows)
            ],
        }
        for kind, dim in dims.items()
    }
    write_json(folder / "sketch.json", {"rows": sum(parts_rows), "features": features, **about})


def _allow_files(more: int) -> None:
    """Let this process hold `more` files open beside those that it has: a part that is mapped is one.

    Raises:
        AdaptInfError: the machine does not allow as many.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = len(os.listdir("/dev/fd")) + more + _SPARE_FILES
    if soft == resource.RLIM_INFINITY or needed <= soft:
        return
    if hard != resource.RLIM_INFINITY and needed > hard:
        raise AdaptInfError(
            f"A round of this size needs {needed:,} open files, and a process may have {hard:,} here.",
            f"Raise the limit to {needed:,} or more (`ulimit -Hn`, or LimitNOFILE= of a service).",
        )
    resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))


class SketchStore:
    """The sketches of a round, or the hidden states that the same pass left, in candidate order.

    Args:
        folder: rounds/<round>/sketch.
        features: which of the two.

    Raises:
        StageInputError: the pass left no such features, or a part has not the shape that sketch.json states.
        AdaptInfError: this machine does not let a process hold so many files open.
    """

    def __init__(self, folder: Path, features: Features = "gradient") -> None:
        index = read_json(folder / "sketch.json")
        if features not in index["features"]:
            raise StageInputError(folder / "sketch.json", f"has no {features} features")
        kind = index["features"][features]
        self.dim: int = kind["dim"]
        self.rows: int = index["rows"]
        _allow_files(len(kind["parts"]))
        # As plain arrays: np.memmap costs several microseconds more for each access to a part.
        self._parts = [np.asarray(read_array(folder / part["file"], mmap=True)) for part in kind["parts"]]
        for part, array in zip(kind["parts"], self._parts, strict=True):
            if array.shape != (part["rows"], self.dim):
                raise StageInputError(folder / part["file"], f"has shape {array.shape}, not that of sketch.json")
        self._starts = np.concatenate([[0], np.cumsum([len(array) for array in self._parts], dtype=np.int64)])

    def __len__(self) -> int:
        return self.rows

    def block(self, start: int, stop: int) -> FloatArray:
        """Rows start .. stop as a new (stop - start, dim) float32 array."""
        stop = min(stop, self.rows)
        block = np.empty((max(stop - start, 0), self.dim), dtype=np.float32)
        for first, part in zip(self._starts, self._parts, strict=False):
            low, high = max(start, first), min(stop, first + len(part))
            if low < high:
                block[low - start : high - start] = part[low - first : high - first]
        return block

    def all(self) -> FloatArray:
        """Every row: (rows, dim) float32."""
        return self.block(0, self.rows)

    def take(self, rows: NDArray[np.int64]) -> FloatArray:
        """`rows`, in that order, as a new (len(rows), dim) float32 array; only those rows are read."""
        taken = np.empty((len(rows), self.dim), dtype=np.float32)
        part_of = np.searchsorted(self._starts, rows, side="right") - 1
        by_part = np.argsort(part_of, kind="stable")
        present, first = np.unique(part_of[by_part], return_index=True)
        for part, here in zip(present, np.split(by_part, first[1:]), strict=False):
            taken[here] = self._parts[part][rows[here] - self._starts[part]]
        return taken
