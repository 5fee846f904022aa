"""Progress of long work: count, rate and time left, on one moving line or, in a log, a line every few seconds."""

from __future__ import annotations

import sys

from tqdm import tqdm

LOG_SECONDS = 10.0  # between lines where the output is no terminal


def progress(name: str, total: int, unit: str = "samples", done: int = 0, shown: bool = True) -> tqdm:
    """A tqdm bar called `name` over `total` units, `done` of which an earlier run finished.

    Use it as a context manager and call `update(n)`.
    """
    interactive = sys.stderr.isatty()
    return tqdm(
        desc=name,
        total=total,
        initial=done,
        unit=f" {unit}",
        file=sys.stderr,
        mininterval=0.2 if interactive else LOG_SECONDS,
        maxinterval=LOG_SECONDS,
        ncols=None if interactive else 90,
        leave=True,
        disable=not shown,
    )
