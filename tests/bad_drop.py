"""A drop with good samples, a place for one bad one beside them, and the pool that comes of it."""

from __future__ import annotations

import ctypes
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml
from make_drop import square

from adapt_inf.config import Params
from adapt_inf.creation import definition
from adapt_inf.data.manifest import empty_manifest, write_manifest
from adapt_inf.data.pool import build_pool, no_pruned
from adapt_inf.project import Project
from adapt_inf.stages import ingest
from adapt_inf.stages.context import StageContext

NAME = "squares"
GOOD = 4


def ask(question: str, answer: Any = "yes", image: Any = None, **more: Any) -> dict[str, Any]:
    """A LLaVA sample."""
    said = [{"from": "human", "value": question}, {"from": "gpt", "value": answer}]
    return {"conversations": said, **({"image": image} if image is not None else {}), **more}


def good_drop(folder: Path) -> Path:
    """Write a drop of `GOOD` training samples in JSON lines and an evaluation sample."""
    (folder / "images").mkdir(parents=True)
    rng = np.random.default_rng(7)
    rows = []
    for number in range(GOOD + 1):
        (folder / "images" / f"{number}.png").write_bytes(square("red", rng))
        rows.append(ask("What colour?", "red", f"images/{number}.png", id=f"good-{number}"))
    (folder / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows[:GOOD]), encoding="utf-8")
    (folder / "eval.json").write_text(json.dumps(rows[GOOD:]), encoding="utf-8")
    describe(folder)
    return folder


def describe(folder: Path, **changes: Any) -> None:
    """Write dataset.yaml; None takes a key out."""
    values = {"name": NAME, "train": "train.jsonl", "eval": "eval.json"} | changes
    text = yaml.safe_dump({key: value for key, value in values.items() if value is not None})
    (folder / "dataset.yaml").write_text(text, encoding="utf-8")


def add_line(folder: Path, line: bytes) -> None:
    """Put one more line at the end of the training split."""
    with open(folder / "train.jsonl", "ab") as file:
        file.write(line + b"\n")


def empty_project(root: Path) -> Project:
    """A project with an empty base pool: enough for the ingest stage."""
    project = Project(root)
    project.drops.mkdir(parents=True)
    for name in ("params.yaml", "dvc.yaml"):
        (root / name).write_text(definition(name), encoding="utf-8")
    empty, nothing = root / "empty", root / "nothing"
    for folder in (empty, nothing):
        write_manifest(folder / "manifest.parquet", empty_manifest())
    build_pool(project.output("base", "pool"), empty, nothing, "base", no_pruned())
    return project


def take_in(project: Project, params: Params | None = None) -> tuple[dict[str, Any], Path]:
    """Run the ingest stage on the drop that waits; its report, and the pool version with nothing pruned."""
    values = params or Params(round="r001", parent="base", drop=NAME)
    report = ingest.run(StageContext(project, "r001", values))
    pool = project.output("r001", "pool")
    build_pool(pool, project.output("base", "pool"), project.output("r001", "ingest"), "r001", no_pruned())
    return report, pool


def rejects(project: Project) -> list[dict[str, str]]:
    return pd.read_parquet(project.output("r001", "ingest") / "rejects.parquet").to_dict("records")


@contextmanager
def without_privileges() -> Iterator[None]:
    """Let file permissions hold for this thread even where it is root's."""
    dac_override, dac_read_search, version = 1, 2, 0x20080522
    libc = ctypes.CDLL(None, use_errno=True)
    header = (ctypes.c_uint32 * 2)(version, 0)
    before = (ctypes.c_uint32 * 6)()  # effective, permitted, inheritable, of the first 32 and of the others
    assert libc.capget(header, before) == 0
    fewer = (ctypes.c_uint32 * 6)(*before)
    fewer[0] &= ~(1 << dac_override | 1 << dac_read_search)
    assert libc.capset(header, fewer) == 0, os.strerror(ctypes.get_errno())
    try:
        yield
    finally:
        assert libc.capset(header, before) == 0


@contextmanager
def address_space(megabytes: int) -> Iterator[None]:
    """Let this process take at most that much more memory than it has."""
    import resource

    pages = int(Path("/proc/self/statm").read_text().split()[0])
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + (megabytes << 20), before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)
