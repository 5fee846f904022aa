"""What a drop says of itself: dataset.yaml, read strictly, every path held inside the drop's folder.

A drop is untrusted. This module decides which files of it may be opened; what is in them is the business of
adapt_inf.data.records and adapt_inf.data.formats.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import reprlib
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from adapt_inf.data import formats, records
from adapt_inf.data.paths import confined
from adapt_inf.data.samples import LONGEST_NAME, METRICS, BadSample, is_printable_name
from adapt_inf.errors import DropError
from adapt_inf.files import file_digest

DESCRIPTION = "dataset.yaml"
READY = "READY"  # a drop in drops/ counts once this file stands in it
SPLITS = ("train", "eval")
_KEYS = ("name", "license", "description", "skill", "metric", "train", "eval", "format")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")  # becomes part of file names and tags
_NAME_MEND = "Up to 64 letters, digits, `.`, `-` and `_`, a letter or digit first."
_DOCS = "docs/drops.md says what a drop is."
_BRIEF = reprlib.Repr()
_BRIEF.maxlevel = 2  # a few hundred bytes of YAML can stand for millions of values
_DESCRIPTION_BYTES = 1 << 16
_LEFT_OUT = (".git",)  # beside a dataset, not of it; DVC does not look at it either
_OF_DVC = (".dvc", ".dvcignore")  # would make DVC pass over files of the drop, and not see that they changed
_SPECIAL = {stat.S_IFIFO: "pipe", stat.S_IFSOCK: "socket", stat.S_IFCHR: "device", stat.S_IFBLK: "device"}


@dataclass(frozen=True)
class Drop:
    """A drop's description, with defaults filled in.

    Attributes:
        root: the drop's folder, resolved.
        name: unique in a lineage: that of its folder in drops/, else what dataset.yaml says.
        skill, metric: for samples that name none.
        train, eval: the files of each split, at least one for train; all exist and lie inside `root`.
        format: `auto`, `llava`, `messages` or `parquet`.
    """

    root: Path
    name: str
    license: str
    description: str
    skill: str
    metric: str
    train: tuple[Path, ...]
    eval: tuple[Path, ...]
    format: str


def read_drop(path: Path, name: str | None = None) -> Drop:
    """Read and check a drop's dataset.yaml, what lies in its folder, and that its splits begin in a known form.

    Args:
        path: the drop's folder.
        name: what the drop is called instead of what dataset.yaml says.

    Raises:
        DropError: naming the drop and the first thing wrong with it.
    """
    folder = path.name or str(path)
    if not path.is_dir():
        archive = path.is_file()
        raise DropError(folder, "is no folder", "Unpack archives yourself: none is opened here." if archive else _DOCS)
    root = Path(os.path.realpath(path))
    for _ in drop_files(root, folder):
        pass
    values = _load(root, folder)
    unknown = [str(key) for key in values if key not in _KEYS]
    if unknown:
        raise DropError(
            folder, f"{DESCRIPTION} has the unknown key `{unknown[0][:80]}`", f"Keys are {', '.join(_KEYS)}."
        )
    own = _text(values, "name", folder)
    if not is_name(own):
        raise DropError(folder, f"{DESCRIPTION}: `name` is {_BRIEF.repr(own)}, which is no name", _NAME_MEND)
    name = check_name(own if name is None else name)
    metric = _text(values, "metric", folder, METRICS[0])
    if metric not in METRICS:
        problem = f"{DESCRIPTION}: `metric` is {_BRIEF.repr(metric)}"
        raise DropError(folder, problem, f"Metrics are {', '.join(METRICS)}.")
    form = _text(values, "format", folder, formats.AUTO)
    if form not in formats.FORMATS:
        raise DropError(
            folder, f"unknown format {_BRIEF.repr(form)}", f"Formats are {', '.join(formats.FORMATS)}. {_DOCS}"
        )
    if values.get("train") is None:
        raise DropError(folder, f"{DESCRIPTION} names no `train` file", _DOCS)
    drop = Drop(
        root=root,
        name=name,
        license=_text(values, "license", folder, "unknown"),
        description=_text(values, "description", folder, ""),
        skill=_text(values, "skill", folder, name),
        metric=metric,
        train=_split(values["train"], "train", root, folder),
        eval=_split(values["eval"], "eval", root, folder) if values.get("eval") is not None else (),
        format=form,
    )
    for split in SPLITS:
        if getattr(drop, split):
            formats.check_split(drop, split)
    return drop


def is_name(text: str) -> bool:
    """Whether a drop may be called that."""
    return _NAME.fullmatch(text) is not None


def check_name(text: str) -> str:
    """`text`, which a drop may be called.

    Raises:
        DropError: it may not.
    """
    if not is_name(text):
        raise DropError(_BRIEF.repr(text), "that is no name for a drop", _NAME_MEND)
    return text


def drop_files(root: Path, name: str) -> Iterator[Path]:
    """Every file of the drop in `root`, and every link inside it, folder by folder in the order of names.

    Args:
        root: the drop's folder, resolved.
        name: what to call the drop in an error.

    Raises:
        DropError: something that no drop may hold: a link that leads outside or nowhere, a device, pipe or socket, a
            file or folder that cannot be read, or files by which DVC would pass over others.
    """
    folders = [root]
    while folders:
        folder = folders.pop()
        try:
            with os.scandir(folder) as found:
                entries = sorted(found, key=lambda entry: entry.name)
        except OSError as error:
            raise DropError(name, f"{_shown(folder, root)} cannot be read ({error.strerror})") from None
        for entry in entries:
            path = Path(entry.path)
            if entry.name in _LEFT_OUT or (folder == root and entry.name == READY):
                continue
            if entry.name in _OF_DVC:
                raise DropError(name, f"{_shown(path, root)} is DVC's, and would hide files from it", "Take it out.")
            if not _is_text(entry.name):
                raise DropError(name, f"{_shown(path, root)} has a name that is no UTF-8 text", "Rename it.")
            if entry.is_symlink():
                _check_link(path, root, name)
                yield path
            elif entry.is_dir():
                folders.append(path)
            elif not entry.is_file():
                kind = _SPECIAL.get(stat.S_IFMT(entry.stat().st_mode), "special file")
                raise DropError(name, f"{_shown(path, root)} is a {kind}", "A drop holds files and folders.")
            elif not os.access(path, os.R_OK, effective_ids=True):
                raise DropError(name, f"{_shown(path, root)} cannot be read", "Let this user read every file of it.")
            else:
                yield path


def drop_digest(root: Path, name: str) -> str:
    """SHA-256 over all that a drop holds, apart from what it is called.

    Raises:
        DropError: as `drop_files`.
    """
    digest = hashlib.sha256()
    for file in sorted(drop_files(root, name)):
        path = file.relative_to(root).as_posix()
        if path == DESCRIPTION:
            values = {key: value for key, value in _load(root, name).items() if key != "name"}
            content = json.dumps(values, sort_keys=True, default=str)
        elif file.is_dir():
            content = os.path.relpath(os.path.realpath(file), root)
        else:
            content = file_digest(file)
        digest.update(f"{path}\0{content}\n".encode())
    return digest.hexdigest()


def _check_link(path: Path, root: Path, name: str) -> None:
    target = Path(os.path.realpath(path))
    if not target.is_relative_to(root):
        problem = f"{_shown(path, root)} is a link that leads out of the drop"
        raise DropError(name, problem, "Put the files themselves there: nothing outside is read.")
    if not (target.is_file() or target.is_dir()):
        raise DropError(name, f"{_shown(path, root)} is a link that leads nowhere", "Mend it, or take it out.")


def _is_text(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _shown(path: Path, root: Path) -> str:
    text = path.relative_to(root).as_posix()
    return text if text.isprintable() and len(text) <= 120 else _BRIEF.repr(text)


def _load(root: Path, folder: str) -> dict[str, Any]:
    file = root / DESCRIPTION
    if not file.is_file():
        raise DropError(folder, f"it has no {DESCRIPTION}", _DOCS)
    if file.stat().st_size > _DESCRIPTION_BYTES:
        raise DropError(folder, f"{DESCRIPTION} has more than {_DESCRIPTION_BYTES >> 10} KB", _DOCS)
    try:
        values = yaml.safe_load(file.read_text(encoding="utf-8"))
    # YAML's own types raise what they like: a date that is none, a number of five thousand digits, `!!bool x`.
    except (yaml.YAMLError, ValueError, LookupError, AttributeError, TypeError, RecursionError) as error:
        raise DropError(folder, f"{DESCRIPTION} is no YAML ({_first_line(error)})", _DOCS) from error
    if not isinstance(values, dict):
        raise DropError(folder, f"{DESCRIPTION} holds no keys", _DOCS)
    return values


def _text(values: dict[str, Any], key: str, folder: str, default: str | None = None) -> str:
    value = values.get(key)
    if value is None and default is not None:
        return default
    if value is None:
        raise DropError(folder, f"{DESCRIPTION} has no `{key}`", _DOCS)
    if not isinstance(value, str) or (key in ("name", "skill") and not value.strip()):
        raise DropError(folder, f"{DESCRIPTION}: `{key}` is {_BRIEF.repr(value)}, no text", "Put it in quotes.")
    if not _is_text(value):
        raise DropError(folder, f"{DESCRIPTION}: `{key}` is {_BRIEF.repr(value)}, which is no UTF-8 text", _DOCS)
    if key == "skill" and not is_printable_name(value):
        problem = f"`skill` is {_BRIEF.repr(value)}, no printable text of at most {LONGEST_NAME} characters"
        raise DropError(folder, f"{DESCRIPTION}: {problem}", _DOCS)
    return value.strip()


def _split(value: Any, split: str, root: Path, folder: str) -> tuple[Path, ...]:
    names = [value] if isinstance(value, str) else value
    if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
        problem = f"{DESCRIPTION}: `{split}` is {_BRIEF.repr(value)}, no file or list of files"
        raise DropError(folder, problem, _DOCS)
    files = []
    for name in names:
        try:
            file = confined(root, name)
        except BadSample as error:
            raise DropError(folder, f"{DESCRIPTION}: `{split}`: {error.reason}") from None
        if file.suffix.lower() not in records.SUFFIXES:
            mend = f"A split is a file in {', '.join(records.SUFFIXES)}; archives and pickles are not opened."
            raise DropError(folder, f"{DESCRIPTION}: `{split}`: {name} has an unknown format", mend)
        files.append(file)
    return tuple(files)


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
