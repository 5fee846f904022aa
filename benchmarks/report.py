"""What every benchmark prints beside its figures: the machine, the versions, the spread; a table; one line of JSON.

Scripts run as `python benchmarks/x.py`, which puts this folder first on the path: `from report import finish`.
"""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch

VERSIONS = ("torch", "transformers", "peft", "faiss-cpu", "numpy")


def machine() -> dict[str, Any]:
    """What the figures were taken on: processor, cores that may be used, memory, threads, GPU if any, and versions."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return {
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(memory, 1),
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "python": platform.python_version(),
        **{name.removesuffix("-cpu"): metadata.version(name) for name in VERSIONS},
    }


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def spread(values: Sequence[float]) -> dict[str, float]:
    """Smallest, median and largest of repeated measurements, to four significant digits, and how many there are."""
    found = {"min": np.min(values), "median": np.median(values), "max": np.max(values)}
    return {name: float(f"{value:.4g}") for name, value in found.items()} | {"n": len(values)}


def table(rows: Sequence[dict[str, Any]], columns: Sequence[str]) -> str:
    """Rows as aligned text: words to the left, numbers (and what is a spread: its median) to the right."""
    cells = [[_shown(row.get(column)) for column in columns] for row in rows]
    left = [any(isinstance(row.get(column), str) and not _is_number(row[column]) for row in rows) for column in columns]
    widths = [max(len(line[at]) for line in [list(columns), *cells]) for at in range(len(columns))]

    def line(texts: Sequence[str]) -> str:
        placed = zip(texts, widths, left, strict=True)
        return "  ".join(text.ljust(width) if words else text.rjust(width) for text, width, words in placed).rstrip()

    return "\n".join([line(columns), line(["-" * width for width in widths]), *(line(row) for row in cells)])


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        value = value["median"]
    if isinstance(value, float):
        return f"{value:.3g}" if abs(value) < 100 else f"{value:,.0f}"
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return "" if value is None else str(value)


def _is_number(text: str) -> bool:
    return text.replace(",", "").replace(".", "").replace("-", "").strip().isdigit()


def finish(name: str, found: dict[str, Any], file: Path | None) -> None:
    """Print one line of JSON, the benchmark's name first and the machine last, and write the same to `file`, if any."""
    whole = {"benchmark": name, **found, "machine": found.get("machine") or machine()}
    print("\n" + json.dumps(whole))
    if file is not None:
        file.write_text(json.dumps(whole, indent=2) + "\n", encoding="utf-8")
