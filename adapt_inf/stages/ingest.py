"""The first stage: the drop's samples become shards and a suite, or rejects with a reason each."""

from __future__ import annotations

import os
from dataclasses import asdict
from typing import Any

from adapt_inf.data.drops import drop_files, read_drop
from adapt_inf.data.intake import SUITES, Known, take_in
from adapt_inf.data.manifest import MANIFEST
from adapt_inf.drop_queue import drop_content
from adapt_inf.errors import ConfigError
from adapt_inf.files import file_digest
from adapt_inf.stages.context import StageContext


def run(ctx: StageContext) -> dict[str, Any]:
    """Take in the drop that the round names, against the parent's pool; writes ingest/.

    Returns:
        Counts: read, train and eval (accepted), rejected, leaks, duplicates, untested_skills.

    Raises:
        DropError: the drop is refused; nothing is written.
        ConfigError: `select.budget` is a count of more samples than the round has; nothing is written.
    """
    name = ctx.params.drop
    drop = read_drop(ctx.project.drop(name), name)
    pool = ctx.parent_input("pool")
    content = drop_content(ctx.project, name, ctx.round)
    # What a killed run left is only good for the same files: names, sizes and times tell, without reading them.
    files = [(path.relative_to(drop.root).as_posix(), os.lstat(path)) for path in drop_files(drop.root, name)]
    times = [(path, status.st_size, status.st_mtime_ns) for path, status in files]
    known = [file_digest(file) for file in (pool / MANIFEST, *sorted((pool / SUITES).glob("*.json")))]
    depends_on = [ctx.round, times, known, content, asdict(ctx.params.ingest)]
    with ctx.output("ingest", depends_on) as out:
        lineage = Known.of_pool(pool)
        report = take_in(drop, lineage, out, ctx.params.ingest, ctx.round, content)
        _check_budget(ctx, len(lineage.live) + report["train"])
    counts = ("read", "train", "eval", "rejected", "leaks", "duplicates")
    return {key: report[key] for key in counts} | {"untested_skills": len(report["untested_skills"])}


def _check_budget(ctx: StageContext, candidates: int) -> None:
    """Refuse a count that no selection can reach here, before the passes over every sample that come next."""
    select = ctx.params.select
    if select.strategy != "full" and isinstance(select.budget, int) and select.budget > candidates:
        problem = (
            f"{select.budget:,} samples of the {candidates:,} that this round has to choose from; "
            "take fewer, or a fraction such as 0.25"
        )
        raise ConfigError(ctx.project.params_of(ctx.round), "select.budget", problem)
