"""What was computed for any comparison of a project, each result once, under its name.

A folder per result: `out` is what the stage wrote, record.json the stage, the digest of `out`, the time that it took
and the stage's report. It appears whole. A record may outlive its `out`: names of later results follow from digests, so
what nothing reads any more takes no room, and is computed again where something does.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adapt_inf.files import folder_digest, link_or_copy, read_json, write_json

_RECORD, _OUT = "record.json", "out"


@dataclass(frozen=True)
class Result:
    """A stage's result: its name, and `digest` of its content. The record says the rest."""

    name: str
    record: Mapping[str, Any]

    @property
    def digest(self) -> str:
        return str(self.record["digest"])

    @property
    def seconds(self) -> float:
        """That passed while it was computed, on its share of the cores."""
        return float(self.record["seconds"])

    @property
    def cpu_seconds(self) -> float:
        """Of all cores that worked on it: what others do on the machine changes it little."""
        return float(self.record["cpu_seconds"])

    @property
    def report(self) -> Mapping[str, Any]:
        found: Mapping[str, Any] = self.record["report"]
        return found


@dataclass(frozen=True)
class Store:
    folder: Path

    def get(self, name: str) -> Result | None:
        path = self.folder / name / _RECORD
        return Result(name, read_json(path)) if path.is_file() else None

    def content(self, name: str) -> Path:
        """Where the content of a result lies, if it is there."""
        return self.folder / name / _OUT

    def put(self, name: str, out: Path, outcome: Mapping[str, Any]) -> None:
        """Move the folder `out` in as the result `name`.

        Args:
            outcome: `stage`, `round`, `seconds`, `cpu_seconds` and `report`.
        """
        part = self.folder / f".{name}.part"
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
        os.rename(out, part / _OUT)
        facts = {key: outcome[key] for key in ("stage", "round", "seconds", "cpu_seconds", "report")}
        write_json(part / _RECORD, facts | {"digest": folder_digest(part / _OUT)})
        os.rename(part, self.folder / name)

    def forget(self, name: str) -> None:
        self._remove(self.folder / name)

    def drop_content(self, name: str) -> None:
        self._remove(self.content(name))

    def _remove(self, path: Path) -> None:
        """Remove a folder; a kill on the way leaves none of it in place."""
        if path.exists():
            away = self.folder / f".{path.parent.name}.{path.name}.gone"
            shutil.rmtree(away, ignore_errors=True)
            os.rename(path, away)
            shutil.rmtree(away)


def link_folder(source: Path, target: Path) -> None:
    """Give every file of `source` a second name in the new folder `target`."""
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    for path in sorted(source.rglob("*")):
        place = target / path.relative_to(source)
        if path.is_dir():
            place.mkdir(parents=True, exist_ok=True)
        else:
            link_or_copy(path, place)
