"""Paths that a drop gives, held inside the drop."""

from __future__ import annotations

import os
import re
from pathlib import Path, PurePosixPath, PureWindowsPath

from adapt_inf.data.samples import BadSample

_LONGEST = 4096  # bytes of a path, on Linux; what is longer is no file, and takes long to look for
_LONGEST_PART = 255  # bytes of a file's name, on every file system in use


def confined(root: Path, text: str, *folders: Path) -> Path:
    """The file that a drop means by `text`: a path relative to one of `folders` (default: `root`), inside `root`.

    Args:
        root: the drop's folder, resolved.
        text: a relative path as the drop gives it.
        folders: where to look, in this order; all inside `root`.

    Raises:
        BadSample: kind `path` where it is absolute, a URL, climbs with `..` or leaves the drop through a link;
            `missing_image` where there is no such file.
    """
    shown = repr(text if len(text) <= 120 else text[:117] + "...")
    if text.splitlines() != [text] or any(character < " " for character in text):
        raise BadSample("path", f"{shown} is no path")
    if len(os.fsencode(text)) > _LONGEST:
        raise BadSample("path", f"{shown} is no path: one has at most {_LONGEST:,} bytes")
    if any(len(os.fsencode(part)) > _LONGEST_PART for part in text.split("/")):
        raise BadSample("path", f"{shown} is no path: a name has at most {_LONGEST_PART} bytes")
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]+:", text):
        raise BadSample("path", f"{shown} is a URL; every file must be inside the drop")
    if PurePosixPath(text).is_absolute() or PureWindowsPath(text).anchor:
        raise BadSample("path", f"{shown} is an absolute path; paths are relative to the drop")
    if ".." in PurePosixPath(text).parts or ".." in PureWindowsPath(text).parts:
        raise BadSample("path", f"{shown} climbs with `..`; paths stay inside the drop")
    for folder in folders or (root,):
        target = os.path.realpath(folder / text)
        if os.path.isfile(target):
            if not Path(target).is_relative_to(root):
                raise BadSample("path", f"{shown} leaves the drop through a link")
            return Path(target)
    if any(os.path.exists(folder / text) for folder in folders or (root,)):
        raise BadSample("missing_image", f"{shown} is no file")
    raise BadSample("missing_image", f"{shown} is not in the drop")
