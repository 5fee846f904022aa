"""A drop that lies elsewhere, by its URL: s3://bucket/path, or whatever else fsspec reads, fetched to be checked here.

It is fetched into a hidden folder of drops/, on the project's own disk, which goes when the block ends or, after a
kill, with the next command. From there it is a drop like any other. Names are checked before anything is fetched: not
all that a store calls an object may be written here.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any

from adapt_inf.drop_queue import part_folder
from adapt_inf.errors import AdaptInfError, DropError, NoRoomError
from adapt_inf.files import is_full, room_for
from adapt_inf.progress import progress
from adapt_inf.project import Project
from adapt_inf.remote_faults import causes, in_our_words

_AT_A_TIME = 256  # files asked for together: what is on its way at once, and how often the progress moves


def is_url(source: str) -> bool:
    return "://" in source


@contextmanager
def fetched(project: Project, url: str) -> Iterator[Path]:
    """A folder that holds what lies under `url`, for as long as the block lasts.

    Raises:
        DropError: nothing is there, a name that is none, or why the store does not give it.
        NoRoomError: it does not fit on the disk.
    """
    project.drops.mkdir(exist_ok=True)
    with room_for(project.drops), part_folder(project, "fetched") as folder:
        try:
            _fetch(url, folder)
        except AdaptInfError:
            raise
        # What a store raises depends on its library (fsspec, botocore, ...): none shares a class with another.
        except Exception as error:
            if is_full(error):
                raise
            raise DropError(url, *in_our_words(list(causes(error)))) from error
        yield folder


def _fetch(url: str, folder: Path) -> None:
    from fsspec.core import url_to_fs

    store, root = url_to_fs(url)
    # Stores that have no folders stand them in by empty files whose names end in a slash.
    found: dict[str, Any] = {
        path: about
        for path, about in store.find(root, detail=True).items()
        if not path.endswith("/") or about.get("size")
    }
    files = {path: _inside(url, str(root), path) for path in found}
    if not files:
        raise DropError(url, "there is nothing", "A drop is a folder with dataset.yaml; docs/drops.md says more.")
    needed = sum(about.get("size") or 0 for about in found.values())
    if needed > (free := shutil.disk_usage(folder).free):
        raise NoRoomError(folder.parent, free, needed)
    for place in files.values():
        (folder / place).parent.mkdir(parents=True, exist_ok=True)
    with progress("fetch", len(files), unit="files") as bar:
        for some in _batches(list(files)):
            store.get(some, [str(folder / files[path]) for path in some])
            bar.update(len(some))
    for path, about in found.items():  # a store that breaks off need not say so
        size = (folder / files[path]).stat().st_size
        if about.get("size") not in (None, size):
            raise DropError(url, f"{files[path]} came with {size:,} of {about['size']:,} bytes", "Fetch it again.")


def _inside(url: str, root: str, path: str) -> PurePosixPath:
    """Where a file goes in the drop's folder, by its name in the store."""
    name = PurePosixPath(path[len(root) :].lstrip("/") or PurePosixPath(path).name)
    if name.is_absolute() or ".." in name.parts or "//" in path[len(root) :] or "\0" in path:
        raise DropError(url, f"{path!r} is no name for a file in a folder", "Give it another there.")
    return name


def _batches(paths: Sequence[str]) -> Iterator[list[str]]:
    for start in range(0, len(paths), _AT_A_TIME):
        yield list(paths[start : start + _AT_A_TIME])
