"""The first stage: the drop's samples become shards and a suite, or rejects with a reason each."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from adapt_inf.data.drops import read_drop
from adapt_inf.data.intake import SUITES, Known, take_in
from adapt_inf.data.manifest import MANIFEST
from adapt_inf.files import file_digest
from adapt_inf.stages.context import StageContext


def run(ctx: StageContext) -> dict[str, Any]:
    """Take in the drop that the round names, against the parent's pool; writes ingest/.

    Returns:
        Counts: read, train and eval (accepted), rejected, leaks, duplicates.

    Raises:
        DropError: the drop is refused; nothing is written.
    """
    drop = read_drop(ctx.project.drop(ctx.params.drop))
    pool = ctx.parent_input("pool")
    # What a killed run left is only good for the same files: names, sizes and times tell, without reading them.
    files = sorted(
        (file.relative_to(drop.root).as_posix(), file.stat().st_size, file.stat().st_mtime_ns)
        for file in drop.root.rglob("*")
        if file.is_file()
    )
    known = [file_digest(file) for file in (pool / MANIFEST, *sorted((pool / SUITES).glob("*.json")))]
    depends_on = [ctx.round, files, known, asdict(ctx.params.ingest)]
    with ctx.output("ingest", depends_on) as out:
        report = take_in(drop, Known.of_pool(pool), out, ctx.params.ingest, ctx.round)
    return {key: report[key] for key in ("read", "train", "eval", "rejected", "leaks", "duplicates")}
