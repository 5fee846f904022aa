"""A disk of our own that is full to the last few pages: the drop and the round's first stage meet it at every write.

Runs in a process of its own with a file system in memory that only it sees. Says for each amount of room that was left
what `adapt-inf drop` and the stage said, and what they left.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from bad_drop import NAME, empty_project
from safetensors.numpy import save_file

from adapt_inf import files, lineage
from adapt_inf.drop_queue import add_drop, pending_drops
from adapt_inf.errors import AdaptInfError
from adapt_inf.files import folder_digest
from adapt_inf.project import Project
from adapt_inf.stages.runner import run_stage
from adapt_inf.versions import create_repository, reproduce

PAGE = 4096
STAGE = """\
stages:
  ingest:
    wdir: ../..
    cmd: mkdir -p rounds/r001/ingest && touch rounds/r001/ingest/empty
    outs: [rounds/r001/ingest]
"""


@contextmanager
def pages_left(disk: Path, pages: int) -> Iterator[None]:
    """Leave that much room on the disk."""
    filler = disk / "filler"
    free = shutil.disk_usage(disk).free
    filler.write_bytes(bytes(max(free - pages * PAGE, 0)))
    try:
        yield
    finally:
        filler.unlink()


def attempt(what: Callable[[], Any]) -> str:
    """What came of it: nothing, or the error's message. Any other error than ours ends this process."""
    try:
        what()
    except AdaptInfError as error:
        return str(error)
    return ""


def try_drop(project: Project, source: Path, pages: int) -> dict[str, Any]:
    """Drop with so much room, and again with all of it."""
    with pages_left(project.root.parent, pages):
        said = attempt(lambda: add_drop(project, source, NAME))
        left = sorted(path.name for path in project.drops.iterdir() if not path.name.startswith(".lock"))
    if said:
        add_drop(project, source, NAME)
    outcome = {"said": said, "left": left, "digest": folder_digest(project.drop(NAME)), "waits": pending_drops(project)}
    shutil.rmtree(project.drop(NAME))
    (project.drops / ".queue.json").unlink()
    return outcome


def try_stage(project: Project, pages: int) -> dict[str, Any]:
    """Run ingest with so much room, and again with all of it."""
    output = project.output("r001", "ingest")
    with pages_left(project.root.parent, pages):
        said = attempt(lambda: run_stage(project, "r001", "ingest"))
        left = output.exists()
    if said:
        run_stage(project, "r001", "ingest")
    outcome = {"said": said, "left": left, "digest": folder_digest(output)}
    for folder in (output, project.work("r001"), project.log("r001")):
        shutil.rmtree(folder)
    return outcome


def try_dvc(project: Project, pages: int) -> dict[str, Any]:
    """Let DVC run a small stage and take its output into the cache with so much room, and again with all of it."""
    output = project.output("r001", "ingest")
    with pages_left(project.root.parent, pages):
        said = attempt(lambda: reproduce(project, "r001", "ingest"))
    if said:
        reproduce(project, "r001", "ingest")
    outcome = {"said": said, "hash": lineage.output_hash(project, "r001", "ingest")}
    for folder in (output, project.root / ".dvc" / "cache"):
        shutil.rmtree(folder)
    (project.round("r001") / "dvc.lock").unlink()
    return outcome


def try_writers(disk: Path) -> dict[str, str]:
    """What each way of writing a file says on a disk with no room at all."""
    values = np.random.default_rng(0).random(100_000)
    (disk / "source").write_bytes(bytes(3 * PAGE))
    writers: dict[str, Callable[[], Any]] = {
        "text": lambda: files.write_text(disk / "w", "x" * 100_000),
        "array": lambda: files.write_array(disk / "w", values),
        "Parquet": lambda: files.write_parquet(disk / "w", pd.DataFrame({"a": values})),
        "safetensors": lambda: files.write_whole(disk / "w", lambda part: save_file({"a": values}, part)),
        "copy": lambda: shutil.copyfile(disk / "source", disk / "copy"),
    }

    def write(writer: Callable[[], Any]) -> None:
        with files.room_for(disk):
            writer()

    said = {}
    for name, writer in writers.items():
        with pages_left(disk, 0):
            said[name] = attempt(lambda writer=writer: write(writer))  # type: ignore[misc]
        for file in disk.glob(".w*"):
            file.unlink()
    return said


def main(disk: Path, source: Path) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(disk)], check=True)
    found: dict[str, Any] = {"writers": try_writers(disk)}
    project = empty_project(disk / "project")
    found["drop"] = [try_drop(project, source, pages) for pages in range(0, 26)]
    add_drop(project, source, NAME)
    lineage.begin_round(project, NAME)
    found["stage"] = [try_stage(project, pages) for pages in range(0, 26)]
    create_repository(project.root, git=False)
    (project.round("r001") / "dvc.yaml").write_text(STAGE, encoding="utf-8")
    found["DVC"] = [try_dvc(project, pages) for pages in range(0, 6)]
    print(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
