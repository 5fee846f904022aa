"""What `adapt-inf plan` prints of an estimate: a row per stage, what it comes to, and what it stands on."""

from __future__ import annotations

from collections.abc import Iterator

from adapt_inf.costs import WITH_MODEL, Estimate


def estimate_table(estimate: Estimate) -> str:
    """The estimate for people."""
    rows = [["stage", "samples", "time", "memory", "disk", "moved", "grows"]]
    for each in estimate.stages:
        figures = [_time(each.seconds), _bytes(each.memory_bytes), _bytes(each.disk_bytes), _bytes(each.moved_bytes)]
        rows.append([each.stage, f"{each.samples:,}", *figures, each.grows])
    rows.append(["between", "", _time(estimate.between_seconds), "", "", "", ""])
    total = estimate.to_json()
    sums = [_bytes(total[name]) for name in ("memory_bytes", "disk_bytes", "moved_bytes")]
    rows.append(["all", "", _time(estimate.seconds), *sums, ""])
    widths = [max(len(row[place]) for row in rows) for place in range(len(rows[0]))]
    lines = [
        "  ".join(
            [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        )
        for row in rows
    ]
    size, where = estimate.size, f"{estimate.gpus} GPUs" if estimate.gpus else "this machine"
    title = f"a round over {size.candidates:,} candidates, {size.new:,} of them new, with a model of "
    title += f"{estimate.model.parameters:.3g} parameters on {where}; {size.tokens:.0f} tokens a sample"
    return "\n".join([title, *(line.rstrip() for line in lines), *_remarks(estimate)])


def _remarks(estimate: Estimate) -> Iterator[str]:
    if estimate.gpus:
        yield f"{', '.join(WITH_MODEL)}: {estimate.tflops:g} TFLOP/s a GPU, an assumption; yours with --tflops."
        weights = _bytes(2 * estimate.model.parameters)
        yield f"weights: {weights} whole on each GPU; several can share them by accelerate's FSDP, see docs/scale.md."
    if estimate.measured:
        what = "ingest" if estimate.gpus else "ingest and the model"
        yield f"{what}: at the rates of {', '.join(estimate.measured)}."
    yield "memory: of a GPU, or of the process; moved: read and written, over the network if the project lies on one."
    if (cap := estimate.pool_cap) is None:
        yield "Nothing is pruned: every round looks at all that ever came. prune.pool_cap keeps rounds level."
    else:
        yield f"prune.pool_cap keeps {cap:,}: a round looks at that and its drop at most, however many came before."


def _time(seconds: float | None) -> str:
    if seconds is None:
        return "?"
    for size, unit in ((1, "s"), (60, "min"), (3600, "h")):
        if seconds < 100 * size or unit == "h":
            return f"{seconds / size:,.1f} {unit}"
    return ""


def _bytes(size: float) -> str:
    for power, unit in ((1e3, "kB"), (1e6, "MB"), (1e9, "GB"), (1e12, "TB")):
        if size < 1000 * power or unit == "TB":
            return f"{size / power:,.1f} {unit}"
    return ""
