"""Which sample is meant, and what it is: trained on, asked in an evaluation, or set aside when its drop came.

A sample is known by its id, "<drop>/<id>", or by an end of it that no other has. What a line of rounds knows stands in
few files: the manifest and the suites of its newest pool, and what later rounds took in. Ids are compared as Arrow
strings; a million of them take about a second.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import Literal

import pandas as pd
import pyarrow.parquet as pq

from adapt_inf.data.intake import REJECTS, SUITE, SUITES
from adapt_inf.data.manifest import MANIFEST
from adapt_inf.errors import AdaptInfError
from adapt_inf.project import BASE, Project

Kind = Literal["training", "evaluation", "rejected", "duplicate"]

_LISTED = 10  # candidates of an ambiguous name
_CLOSEST = 3


class SampleNameError(AdaptInfError):
    """A name that fits no sample, or several."""


@dataclass(frozen=True)
class Table:
    """A file with a row a sample.

    Attributes:
        kind: what its samples are.
        round: that wrote it.
        path: Parquet, with a column sample_id.
    """

    kind: Kind
    round: str
    path: Path

    def ids(self) -> pd.Series:
        return pd.read_parquet(self.path, columns=["sample_id"])["sample_id"]

    def row(self, sample_id: str) -> dict[str, object]:
        """What the table says of one sample, Python values; None where a cell is null."""
        (row,) = pq.read_table(self.path, filters=[("sample_id", "=", sample_id)], partitioning=None).to_pylist()
        return dict(row)


def tables_of(project: Project, line: Sequence[str]) -> list[Table]:
    """The files on this machine that name the samples of a line of rounds, base first; each sample is in one of them.

    Rejects of the base are not kept.
    """
    found: list[Table] = []
    pools = [place for place, name in enumerate(line) if project.output(name, "pool").is_dir()]
    newest = pools[-1] if pools else -1
    if pools:
        pool = project.output(line[newest], "pool")
        found.append(Table("training", line[newest], pool / MANIFEST))
        found += [Table("evaluation", line[newest], path) for path in sorted((pool / SUITES).glob("*.parquet"))]
    for place, name in enumerate(line):
        ingest = project.output(name, "ingest")
        new: list[tuple[Kind, str]] = [("training", MANIFEST), ("evaluation", SUITE)] if place > newest else []
        listed: list[tuple[Kind, str]] = [*new, ("rejected", REJECTS)]
        found += [Table(kind, name, ingest / file) for kind, file in listed if (ingest / file).is_file()]
    return found


def find_sample(name: str, tables: Sequence[Table]) -> tuple[str, Table] | None:
    """The id that `name` stands for, and the table that has it; None where no table has one.

    A whole id comes first, then an end of one after its drop's name, then any end.

    Raises:
        SampleNameError: it is the end of several.
    """
    ends: dict[str, Table] = {}
    for table in tables:
        ids = table.ids()
        if (ids == name).any():
            return name, table
        ends |= dict.fromkeys(ids[ids.str.endswith(name)].tolist(), table)
    whole = [sample_id for sample_id in ends if sample_id.endswith(f"/{name}")]
    fits = sorted(whole if len(whole) == 1 else ends)
    if len(fits) > 1:
        rest = f" and {len(fits) - _LISTED:,} more" if len(fits) > _LISTED else ""
        listed = ", ".join(fits[:_LISTED])
        raise SampleNameError(f"{name} is the end of {len(fits):,} samples' ids.", f"Name one: {listed}{rest}.")
    return (fits[0], ends[fits[0]]) if fits else None


def closest(name: str, ids: Iterable[str]) -> list[str]:
    """The ids that share most with `name` at their two ends, and more than they do not."""

    def shared(other: str) -> int:
        front = _in_common(name, other)
        return 2 * (front + _in_common(name[front:][::-1], other[front:][::-1])) - len(other)

    return [other for other in heapq.nlargest(_CLOSEST, ids, key=shared) if shared(other) > 0]


def _in_common(one: str, other: str) -> int:
    """How many characters two texts begin with alike."""
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False)))


def unknown(name: str, tip: str, tables: Sequence[Table]) -> SampleNameError:
    """The error for a name that nothing fits, with the ids that are nearest to it."""
    near = closest(name, (sample_id for table in tables for sample_id in table.ids()))
    mend = f"The closest: {', '.join(near)}." if near else "A sample is called <drop>/<id>, as in its drop."
    where = "the base" if tip == BASE else f"the line to {tip}"
    return SampleNameError(f"there is no sample {name} on {where}.", mend)
