"""What a drop says of itself: dataset.yaml, read strictly, every path held inside the drop's folder.

A drop is untrusted. This module decides which files of it may be opened; what is in them is the business of
adapt_inf.data.records and adapt_inf.data.formats.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from adapt_inf.data import formats, records
from adapt_inf.data.paths import confined
from adapt_inf.data.samples import METRICS, BadSample
from adapt_inf.errors import DropError

DESCRIPTION = "dataset.yaml"
SPLITS = ("train", "eval")
_KEYS = ("name", "license", "description", "skill", "metric", "train", "eval", "format")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")  # becomes part of file names and tags
_DOCS = "docs/drops.md says what a drop is."


@dataclass(frozen=True)
class Drop:
    """A drop's description, with defaults filled in.

    Attributes:
        root: the drop's folder, resolved.
        name: unique in a lineage.
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


def read_drop(path: Path) -> Drop:
    """Read and check a drop's dataset.yaml, and that the first records of its splits have a known form.

    Raises:
        DropError: naming the drop and the first thing wrong with it.
    """
    folder = path.name or str(path)
    if not path.is_dir():
        archive = path.is_file()
        raise DropError(folder, "is no folder", "Unpack archives yourself: none is opened here." if archive else _DOCS)
    root = Path(os.path.realpath(path))
    values = _load(root, folder)
    unknown = [str(key) for key in values if key not in _KEYS]
    if unknown:
        raise DropError(folder, f"{DESCRIPTION} has the unknown key `{unknown[0]}`", f"Keys are {', '.join(_KEYS)}.")
    name = _text(values, "name", folder)
    if not _NAME.fullmatch(name):
        mend = "Up to 64 letters, digits, `.`, `-` and `_`, a letter or digit first."
        raise DropError(folder, f"{DESCRIPTION}: `name` is {name!r}, which is no name", mend)
    metric = _text(values, "metric", folder, METRICS[0])
    if metric not in METRICS:
        raise DropError(folder, f"{DESCRIPTION}: `metric` is {metric!r}", f"Metrics are {', '.join(METRICS)}.")
    form = _text(values, "format", folder, formats.AUTO)
    if form not in formats.FORMATS:
        raise DropError(folder, f"unknown format {form!r}", f"Formats are {', '.join(formats.FORMATS)}. {_DOCS}")
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


def _load(root: Path, folder: str) -> dict[str, Any]:
    file = root / DESCRIPTION
    if not file.is_file():
        raise DropError(folder, f"it has no {DESCRIPTION}", _DOCS)
    try:
        values = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
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
        raise DropError(folder, f"{DESCRIPTION}: `{key}` is {value!r}, no text", "Put it in quotes.")
    return value.strip()


def _split(value: Any, split: str, root: Path, folder: str) -> tuple[Path, ...]:
    names = [value] if isinstance(value, str) else value
    if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
        raise DropError(folder, f"{DESCRIPTION}: `{split}` is {value!r}, no file or list of files", _DOCS)
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
