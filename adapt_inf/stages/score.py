"""Stage score: one column per selector expert, from the signals of the sketch pass.

Scores that need only those signals cost nothing, or a read of the sketches. One that needs `nll_without_image` costs a
forward pass, which is resumed like the sketch pass, part by part, and not made where no score asks for it.
"""

from __future__ import annotations

from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from adapt_inf.data.manifest import candidates
from adapt_inf.data.shards import SampleStore
from adapt_inf.errors import StageInputError
from adapt_inf.executors.parts import Advance, device_kind, over_parts
from adapt_inf.files import file_digest, read_array, remove_folder, write_array, write_json, write_parquet
from adapt_inf.models.batches import Batch, first_readable
from adapt_inf.models.sharding import shares_weights, spread
from adapt_inf.models.vlm import load_vlm
from adapt_inf.selection.scores import NLL_WITHOUT_IMAGE, Signals, available, compute, draw_of, resolve, without_value
from adapt_inf.sketching.grounding import WithoutImage
from adapt_inf.sketching.signals import AnswerPass
from adapt_inf.sketching.store import Features, SketchStore, spans
from adapt_inf.stages.context import StageContext
from adapt_inf.stages.sketch import SIGNALS, what_is_seen

DRAWS = "draws.json"
NOT_SCORES = ("adapt_inf", "sequential", "random", "cluster_random", "full")  # strategies that read no single score


def run(ctx: StageContext) -> dict[str, Any]:
    """Write rounds/<round>/score/: scores.parquet, and draws.json, how each score selects.

    scores.parquet has sample_id and a float64 column per score, null where it has none.
    The report counts, per score, the samples that have a value, and under `without_value` those that have none although
    the signals that the score needs are there.

    Raises:
        ConfigError: a score that does not exist or is none.
        ScoreError: a score that raised, or gave back what no score may.
        StageInputError: signals of other samples than the round's candidates, or no such vectors as a score needs.
    """
    frame = candidates(ctx)
    scores = resolve(score_names(ctx), ctx.project.params_of(ctx.round))
    sketch = ctx.input("sketch")
    table = pd.read_parquet(sketch / "signals.parquet")
    if not table["sample_id"].equals(frame["sample_id"].reset_index(drop=True)):
        raise StageInputError(sketch / "signals.parquet", "its samples are not the round's candidates")
    needs = {need for score in scores for need in score.needs}
    signals = _known(sketch, frame, table, needs)
    depends_on = [
        device_kind(ctx.params.executor),
        asdict(ctx.params.score),
        [score.name for score in scores],
        ctx.params.seed,
        file_digest(sketch / "signals.parquet"),
        *what_is_seen(ctx, frame),
    ]
    report: dict[str, Any] = {"samples": len(frame), "scores": {}, "without_value": {}}
    with ctx.output("score", depends_on) as out:
        if NLL_WITHOUT_IMAGE in needs:
            without, report["resumed"] = _without_image(ctx, frame, out)
            signals = {**signals, NLL_WITHOUT_IMAGE: without}
        columns = {"sample_id": frame["sample_id"].to_numpy()}
        for score in scores:
            columns[score.name] = compute(score, signals, ctx.params.seed)
            report["scores"][score.name] = int(np.isfinite(columns[score.name]).sum())
            if none := without_value(score, signals, columns[score.name]):
                report["without_value"][score.name] = none
        write_parquet(out / "scores.parquet", pd.DataFrame(columns))
        write_json(out / DRAWS, {score.name: draw_of(score) for score in scores})
        remove_folder(out / NLL_WITHOUT_IMAGE)
    return report


def _known(sketch: Path, frame: pd.DataFrame, table: pd.DataFrame, needs: set[str]) -> Signals:
    """The signals that the sketch pass left, as far as some score needs them."""
    kinds: tuple[Features, ...] = ("gradient", "hidden")
    return {
        **{name: table[name].to_numpy(dtype=np.float64) for name in SIGNALS},
        "skill": pd.factorize(frame["drop"] + "/" + frame["skill"])[0],
        **{kind: SketchStore(sketch, kind) for kind in kinds if kind in needs},
    }


class WithoutImageWorker:
    """Computes `nll_without_image` for parts of a round's candidates, a file each in the folder `out`."""

    def __init__(self, ctx: StageContext, out: Path) -> None:
        knobs = ctx.params.score
        self._out = out
        self.vlm = spread(load_vlm(ctx.looking_model(), device="auto", staged=shares_weights()))
        self._answers = AnswerPass(self.vlm)
        self._nll = WithoutImage(self.vlm, self._answers, knobs.without_image, knobs.batch_size)
        self._store = SampleStore(candidates(ctx))
        self._parts = spans(len(self._store), ctx.params.sketch.shard_samples)

    def __call__(self, part: int, advance: Advance) -> None:
        samples = self._store.samples(*self._parts[part])
        write_array(_part_file(self._out, part), self._nll(samples))
        advance(len(samples))

    def idle(self) -> object:
        return self._answers(self._some)

    @cached_property
    def _some(self) -> Batch:
        return first_readable(self.vlm, self._store)


def _part_file(out: Path, part: int) -> Path:
    return out / NLL_WITHOUT_IMAGE / f"part-{part:05d}.npy"


def score_names(ctx: StageContext) -> list[str]:
    """`select.scores`, and the score that `select.strategy` names where it names one more."""
    names, strategy = list(ctx.params.select.scores), ctx.params.select.strategy
    if strategy not in (*NOT_SCORES, *names) and strategy in available():
        names.append(strategy)
    return names


def _without_image(ctx: StageContext, frame: pd.DataFrame, out: Path) -> tuple[NDArray[np.float64], int]:
    """(n,) nll without images, nan for text-only samples; and how many an earlier, killed run had finished."""
    parts = spans(len(frame), ctx.params.sketch.shard_samples)
    files = [_part_file(out, part) for part in range(len(parts))]
    missing = [part for part, file in enumerate(files) if not file.exists()]
    done = over_parts("score", ctx, out, WithoutImageWorker, parts, missing)
    values = np.concatenate([read_array(file) for file in files]) if files else np.empty(0)
    return values, done
