"""Tables that stages exchange: about the round's candidates, in their order, or refused; and who can be read.

Ids are compared as Arrow strings, never as a million Python objects.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from adapt_inf.errors import StageInputError
from adapt_inf.selection.arrays import BoolArray
from adapt_inf.stages.context import StageContext


def table_of(sample_ids: pd.Series, path: Path, columns: Sequence[str] | None = None) -> pd.DataFrame:
    """The Parquet table at `path`, which must be about `sample_ids`, in that order.

    Args:
        sample_ids: of the candidates; its index runs from 0.
        path: the table, with a column sample_id.
        columns: those that are wanted beside sample_id; all when left out.

    Raises:
        StageInputError: it is about other samples, or in another order.
    """
    table = pd.read_parquet(path, columns=None if columns is None else ["sample_id", *columns])
    if not table["sample_id"].equals(sample_ids):
        raise StageInputError(path, "its samples are not the round's candidates")
    return table


def readable(ctx: StageContext, sample_ids: pd.Series) -> BoolArray:
    """Which candidates the model can read: those that the sketch pass did not set down in faults.parquet.

    Raises:
        StageInputError: that file is not there, or names a sample that is no candidate.
    """
    path = ctx.input("sketch") / "faults.parquet"
    if not path.is_file():
        raise StageInputError(path, "is not there")
    faults = pd.read_parquet(path, columns=["sample_id"])["sample_id"]
    faulty = sample_ids.isin(faults).to_numpy(dtype=bool)
    if int(faulty.sum()) != len(faults):
        raise StageInputError(path, "its samples are not the round's candidates")
    return ~faulty
