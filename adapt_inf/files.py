"""Files that appear whole or not at all: write beside, fsync, rename.

A killed writer leaves at most a hidden temporary file, which the next writer of the same name replaces.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import socket
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import yaml

from adapt_inf.errors import AdaptInfError, NoRoomError

if TYPE_CHECKING:  # every command comes by here; only some need them
    import pandas as pd
    from numpy.typing import NDArray

_YAML_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

_FULL = (errno.ENOSPC, errno.EDQUOT)
_FULL_TEXTS = ("no space left on device", "os error 28", "disk quota exceeded", "database or disk is full")


@contextmanager
def room_for(folder: Path) -> Iterator[None]:
    """Say which disk is full where writing below `folder` fails for want of room, whichever library met it.

    Raises:
        NoRoomError: naming the folder, what is free there and the mend.
    """
    try:
        yield
    except AdaptInfError:
        raise
    except Exception as error:  # each library has an error of its own for it; any other goes on as it is
        if not is_full(error):
            raise
        raise NoRoomError(folder, shutil.disk_usage(folder).free) from error


def is_full(error: BaseException | None) -> bool:
    """Whether an error, or what caused it, is a full disk."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in _FULL:
            return True
        if any(text in str(error).lower() for text in _FULL_TEXTS):
            return True
        error = error.__cause__ or error.__context__
    return False


_own_mark = ""


def write_beside_others() -> None:
    """From now on give temporary files names of this process's own: another may be at the same file."""
    global _own_mark
    _own_mark = f".{socket.gethostname()}-{os.getpid()}"


def write_whole(path: Path, write: Callable[[Path], None]) -> None:
    """Let `write` fill a temporary file beside `path`, then put it in place in one step."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}{_own_mark}.part")
    try:
        write(beside)
        with open(beside, "rb") as file:
            os.fsync(file.fileno())
    except BaseException:
        beside.unlink(missing_ok=True)
        raise
    os.replace(beside, path)


def write_text(path: Path, text: str) -> None:
    write_whole(path, lambda part: _write_text(part, text))


def _write_text(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON; NaN is refused, since no other reader would take it."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def parse_yaml(text: str) -> Any:
    """What a YAML text of our own, DVC's or the project's owner holds; libyaml, where it is, takes a tenth of the time.

    Raises:
        yaml.YAMLError: it is none.
    """
    return yaml.load(text, _YAML_LOADER)


def write_parquet(path: Path, frame: pd.DataFrame) -> None:
    write_whole(path, lambda part: frame.to_parquet(part, index=False, compression="zstd"))


def write_array(path: Path, array: NDArray[Any]) -> None:
    import numpy as np

    def save(part: Path) -> None:
        with open(part, "wb") as file:
            np.lib.format.write_array(_Plain(file), array, allow_pickle=False)

    write_whole(path, save)


class _Plain:
    """A file by its `write` alone. NumPy writes past a real file object, and then hides why that failed."""

    def __init__(self, file: BinaryIO) -> None:
        self.write = file.write


def read_array(path: Path, mmap: bool = False) -> NDArray[Any]:
    import numpy as np

    return np.load(path, mmap_mode="r" if mmap else None, allow_pickle=False)


def link_or_copy(source: Path, target: Path) -> None:
    """Give `source` a second name; costs no room on one file system. Neither may be edited in place afterwards."""
    target.unlink(missing_ok=True)
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def publish_folder(work: Path, target: Path) -> None:
    """Put a finished folder in the place of `target` in one step; an older `target` is removed."""
    for file in work.rglob("*"):
        if file.is_file():
            with open(file, "rb") as handle:
                os.fsync(handle.fileno())
    target.parent.mkdir(parents=True, exist_ok=True)
    old = target.with_name(f".{target.name}.old")  # a killed run may have left one
    shutil.rmtree(old, ignore_errors=True)
    if target.exists():
        os.rename(target, old)
    os.rename(work, target)
    shutil.rmtree(old, ignore_errors=True)


def remove_folder(folder: Path) -> None:
    """Remove a folder that may not be there. Killed on the way, it is gone or whole; `.<name>.part` may be left."""
    away = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(away, ignore_errors=True)
    with suppress(FileNotFoundError):
        os.rename(folder, away)
        shutil.rmtree(away)


@contextmanager
def new_folder(target: Path) -> Iterator[Path]:
    """A folder to fill, which takes the place of `target` when the block ends, and is gone if the block fails.

    Args:
        target: not there yet, or empty.

    Raises:
        AdaptInfError: it holds something.
    """
    target = target.resolve()
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise AdaptInfError(f"{target} is not empty.", "Name a folder that is not there yet.")
    if target == Path.cwd():
        problem = f"{target} is the current folder, whose place another cannot take."
        raise AdaptInfError(problem, "Give the command from outside of it.")
    beside = target.with_name(f".{target.name}.part")
    shutil.rmtree(beside, ignore_errors=True)
    beside.mkdir(parents=True)
    try:
        yield beside
        publish_folder(beside, target)
    except BaseException:
        shutil.rmtree(beside, ignore_errors=True)
        raise


def sync_folder(folder: Path) -> None:
    """Let the names in a folder outlive a loss of power, as `fsync` does for what stands in a file."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def file_digest(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def folder_digest(folder: Path) -> str:
    """SHA-256 over the names and contents of a folder's files, in the order of their names."""
    digest = hashlib.sha256()
    for file in sorted(path for path in folder.rglob("*") if path.is_file()):
        digest.update(f"{file.relative_to(folder).as_posix()}\0{file_digest(file)}\n".encode())
    return digest.hexdigest()


def fingerprint(values: Iterable[Any]) -> str:
    """Sixteen hex digits that stand for `values` (JSON-able): the key under which unfinished work may be resumed."""
    return hashlib.sha256(json.dumps(list(values), sort_keys=True, default=str).encode()).hexdigest()[:16]
