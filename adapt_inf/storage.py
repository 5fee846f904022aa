"""What DVC has on record of a project's outputs, and its cache as files.

A record is an entry of a dvc.lock or a .dvc file: a path and the hash of its content. A folder's hash names a list in
the cache, which names the hash of each file. Nothing is run and nothing is changed here, and DVC is imported only to
learn where its cache is: commands that look at a project must not wait for it.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import yaml

from adapt_inf.errors import AdaptInfError
from adapt_inf.files import parse_yaml
from adapt_inf.project import Project

DIRECTORY = ".dir"  # at the end of a folder's hash


@dataclass(frozen=True)
class Record:
    """An output as DVC knows it: its path below the project's root, its hash, and the bytes in it."""

    path: str
    md5: str
    size: int


@dataclass(frozen=True)
class Cache:
    """DVC's cache: a file for each content, named by its hash."""

    folder: Path

    @classmethod
    def of(cls, project: Project) -> Cache:
        from dvc.config import Config

        home = project.root / ".dvc"
        configured = Config(str(home), validate=False)["cache"].get("dir")
        return cls((Path(configured) if configured else home / "cache") / "files" / "md5")

    def object(self, md5: str) -> Path:
        return self.folder / md5[:2] / md5[2:]

    def objects(self) -> Iterator[Path]:
        return (path for path in self.folder.glob("*/*") if path.is_file())

    def name(self, path: Path) -> str:
        """The hash that an object of the cache is named by."""
        return path.parent.name + path.name

    def listing(self, md5: str) -> dict[str, str] | None:
        """The files of a folder by their path in it, with the hash of each; None where the cache has no sound list."""
        path = self.object(md5)
        if not path.is_file():
            return None
        content = path.read_bytes()
        if hashlib.md5(content, usedforsecurity=False).hexdigest() + DIRECTORY != md5:
            return None
        return {entry["relpath"]: entry["md5"] for entry in json.loads(content)}

    def hashes(self, md5: str) -> set[str]:
        """The names of all objects that a record needs: its own and, of a folder, its files'."""
        return {md5, *(self.listing(md5) or {}).values()} if md5.endswith(DIRECTORY) else {md5}


def records(project: Project) -> dict[str, Record]:
    """What DVC has on record now, by path."""
    root = project.root
    found: dict[str, Record] = {}
    for file in (*project.rounds.glob("*/*.dvc"), *project.rounds.glob("*/dvc.lock")):
        found |= {each.path: each for each in _read(root, file)}
    return found


def all_records(project: Project) -> Iterator[Record]:
    """Every record anywhere in the project, now or in any commit that a branch or tag of git still reaches.

    Raises:
        AdaptInfError: a file of today that cannot be read: what it names is not known.
    """
    root = project.root
    for folder, names, files in os.walk(root):
        inside = Path(folder) == project.drops  # of a dataset: perhaps a million pictures
        names[:] = [] if inside else [name for name in names if name not in (".git", ".dvc", "mlartifacts")]
        for name in filter(_holds_records, files):
            yield from _read(root, Path(folder) / name)
    if (root / ".git").exists():
        yield from _committed_records(root)


def _read(root: Path, file: Path) -> list[Record]:
    try:
        return list(parse_records(file.read_text(encoding="utf-8"), file.relative_to(root)))
    except (yaml.YAMLError, UnicodeDecodeError):
        mend = "`git checkout` that file, or remove it if `adapt-inf round` may compute its round again."
        raise AdaptInfError(f"{file} is no YAML.", mend) from None


def parse_records(text: str, file: Path) -> Iterator[Record]:
    """The outputs in a dvc.lock or .dvc file that lies at `file` below the root; nothing where it is neither."""
    content = parse_yaml(text)
    if not isinstance(content, dict):
        return
    home = file.parent if file.suffix == ".dvc" else Path()  # the paths in a round's lock are the root's
    for stage in content.get("stages", {"": content}).values():
        for out in stage.get("outs", []):
            if "md5" in out:
                yield Record((home / out["path"]).as_posix(), out["md5"], int(out.get("size", 0)))


def _holds_records(name: str) -> bool:
    return name == "dvc.lock" or (name.endswith(".dvc") and name != ".dvc")


def _committed_records(root: Path) -> Iterator[Record]:
    listed = subprocess.run(
        ["git", "rev-list", "--all", "--objects"], cwd=root, capture_output=True, text=True, check=True
    ).stdout
    named = [line.partition(" ")[::2] for line in listed.splitlines()]
    wanted = [(blob, Path(path)) for blob, path in named if _holds_records(path.rpartition("/")[2])]
    asked = "".join(f"{blob}\n" for blob, _ in wanted).encode()
    answer = subprocess.run(["git", "cat-file", "--batch"], cwd=root, input=asked, capture_output=True, check=True)
    at = 0
    for _, path in wanted:  # "<hash> <kind> <size>\n<content>\n" each
        start = answer.stdout.index(b"\n", at) + 1
        _, kind, size = answer.stdout[at:start].split()
        if kind == b"blob":
            with suppress(yaml.YAMLError, UnicodeDecodeError):  # DVC cannot read what it names either
                yield from parse_records(answer.stdout[start : start + int(size)].decode(), path)
        at = start + int(size) + 1


def md5_of(path: Path) -> str:
    """The hash by which DVC names a file's content."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
