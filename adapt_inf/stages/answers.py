"""Marked answers to evaluation suites, part by part, as whoever does the work takes them up.

Three models may be asked: the round's own, on every suite; the base and the parent's, on the suites that are new. They
are one base with two adapters on it, so a worker holds all three for little more than one. A part is a few batches of
one suite by one model and a file of its own: a killed run keeps what it finished, and no more than some batches are in
memory. Prompts of similar length share a batch inside a part only: what a part answers does not depend on the others,
nor on how many processes share them.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import pyarrow.parquet as pq
import torch

from adapt_inf.data.intake import SUITES
from adapt_inf.data.samples import Sample
from adapt_inf.data.shards import SampleStore
from adapt_inf.errors import SampleError
from adapt_inf.evaluation.metrics import METRICS
from adapt_inf.executors.parts import Advance, over_parts
from adapt_inf.files import read_json, write_parquet
from adapt_inf.models.batches import Batch, first_readable
from adapt_inf.models.generation import answer, as_base, with_adapter_named
from adapt_inf.models.sharding import shares_weights, spread
from adapt_inf.models.vlm import VLM, add_adapter, load_vlm
from adapt_inf.project import BASE
from adapt_inf.sketching.store import spans
from adapt_inf.stages.context import StageContext

OWN, THE_BASE, THE_PARENT = "round", "base", "parent"
MATRIX = "accuracy_matrix.json"
PARTS = ".parts"
COLUMNS = ("suite", "sample_id", "skill", "metric", "prediction", "answers", "score", "fault")


class Part(NamedTuple):
    """Samples start .. stop of a suite, and which model is asked: OWN, THE_BASE or THE_PARENT."""

    who: str
    suite: str
    path: Path
    start: int
    stop: int


class Answers:
    """Answers parts of what a round's models are asked, a file each in the folder `out`."""

    def __init__(self, ctx: StageContext, out: Path) -> None:
        self._knobs = ctx.params.evaluate
        self._out = out
        self._parts = parts_for(ctx)
        self.vlm = load_vlm(ctx.input("model"), device="auto", staged=shares_weights())
        if any(part.who == THE_PARENT for part in self._parts):
            add_adapter(self.vlm, ctx.parent_input("model"), THE_PARENT)
        spread(self.vlm)

    def __call__(self, part: int, advance: Advance) -> None:
        who, suite = self._parts[part].who, self._parts[part].suite
        samples = _samples(self._parts[part])
        faults: dict[str, str] = {}

        def refuse(error: SampleError) -> None:
            faults[error.sample_id] = error.problem

        with self._asking(who) as vlm:
            texts = answer(vlm, samples, self._knobs.max_new_tokens, self._knobs.batch_size, advance, refuse)
        marked = [
            {
                "suite": suite,
                "sample_id": sample.sample_id,
                "skill": sample.skill,
                "metric": sample.metric,
                "prediction": text,
                "answers": list(sample.answers),
                "score": METRICS[sample.metric](text, sample.answers),
                "fault": faults.get(sample.sample_id, ""),
            }
            for sample, text in zip(samples, texts, strict=True)
        ]
        write_parquet(_file(self._out, part), _frame(marked))

    def idle(self) -> object:
        with torch.no_grad():
            return self.vlm.network.base_model(**self._some.inputs, use_cache=False)

    @cached_property
    def _some(self) -> Batch:
        samples = (sample for part in self._parts for sample in _samples(part))
        return first_readable(self.vlm, samples)

    def _asking(self, who: str) -> AbstractContextManager[VLM]:
        if who == THE_BASE:
            return as_base(self.vlm)
        return with_adapter_named(self.vlm, THE_PARENT) if who == THE_PARENT else nullcontext(self.vlm)


def _samples(part: Part) -> list[Sample]:
    rows = pd.DataFrame({"shard": str(part.path), "row": range(part.start, part.stop)})
    return SampleStore(rows).samples(0, len(rows))


def suites_of(ctx: StageContext) -> dict[str, Path]:
    """The suites of the round's pool, by name."""
    return {path.stem: path for path in sorted((ctx.input("pool") / SUITES).glob("*.parquet"))}


def new_suites(ctx: StageContext) -> dict[str, Path]:
    """Those that the parent was not asked; all of the base's."""
    known: set[str] = set()
    if ctx.round != BASE:
        matrix: Mapping[str, Any] = read_json(ctx.parent_input("evaluate") / MATRIX)
        known = {entry["suite"] for entry in matrix["skills"]}
    return {name: path for name, path in suites_of(ctx).items() if name not in known}


def parts_for(ctx: StageContext) -> list[Part]:
    """What the models are asked, in the order of models, suites and samples."""
    asked = [(OWN, suites_of(ctx))]
    if ctx.round != BASE:
        others = [THE_BASE] if ctx.parent == BASE else [THE_BASE, THE_PARENT]
        asked += [(who, new_suites(ctx)) for who in others]
    return [
        Part(who, name, path, start, stop)
        for who, suites in asked
        for name, path in suites.items()
        for start, stop in spans(pq.read_metadata(path).num_rows, ctx.params.evaluate.part_samples)
    ]


def marked_answers(ctx: StageContext, out: Path) -> tuple[dict[str, pd.DataFrame], int]:
    """By model, its answers, a row each in order; and how many an earlier, killed run had finished."""
    parts = parts_for(ctx)
    missing = [part for part in range(len(parts)) if not _file(out, part).exists()]
    done = over_parts("evaluate", ctx, out, Answers, [(part.start, part.stop) for part in parts], missing)
    found: dict[str, list[pd.DataFrame]] = {who: [] for who in (OWN, THE_BASE, THE_PARENT)}
    for number, part in enumerate(parts):
        found[part.who].append(pd.read_parquet(_file(out, number)))
    return {who: pd.concat(some, ignore_index=True) if some else _frame([]) for who, some in found.items()}, done


def _file(out: Path, part: int) -> Path:
    return out / PARTS / f"part-{part:05d}.parquet"


def _frame(rows: list[dict[str, Any]]) -> pd.DataFrame:
    frame = pd.DataFrame(rows, columns=list(COLUMNS))
    texts = {name: "str" for name in COLUMNS if name not in ("answers", "score")}
    return frame.astype({**texts, "score": "float64"})
