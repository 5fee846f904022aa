"""The queue of drops: folders in drops/ that no round has taken yet, oldest first."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from adapt_inf.errors import DropError
from adapt_inf.files import read_json
from adapt_inf.project import Project

READY = "READY"  # a drop counts once this file stands in it
REFUSED = "REFUSED"  # why a drop was refused, in its folder


def add_drop(project: Project, source: Path, name: str) -> Path:
    """Copy the folder `source` into drops/<name>, whole or not at all, and queue it.

    Raises:
        DropError: a drop of that name is there already.
    """
    target = project.drop(name)
    if target.exists():
        raise DropError(name, f"there is a drop of that name in {project.drops}", "Give this one another `name`.")
    beside = project.drops / f".{name}.part"
    shutil.rmtree(beside, ignore_errors=True)
    shutil.copytree(source, beside, symlinks=True, ignore=shutil.ignore_patterns(READY, REFUSED))
    (beside / READY).touch()
    os.rename(beside, target)
    return target


def pending_drops(project: Project) -> list[str]:
    """Drops that no round has taken yet, oldest first."""
    taken = {read_json(path)["drop"] for path in project.rounds.glob("r*/round.json")}
    ready = [path for path in project.drops.glob(f"*/{READY}") if not (path.parent / REFUSED).exists()]
    waiting = [path for path in ready if path.parent.name not in taken and not path.parent.name.startswith(".")]
    return [path.parent.name for path in sorted(waiting, key=lambda path: (path.stat().st_mtime_ns, path.parent.name))]


def refused_drops(project: Project) -> dict[str, str]:
    """Drops that a round refused, with the reason."""
    found = sorted(project.drops.glob(f"*/{REFUSED}"))
    return {path.parent.name: path.read_text(encoding="utf-8").strip() for path in found}
