"""Stage sketch: every candidate once through the parent's model, for its gradient sketch and its signals.

A part of `sketch.shard_samples` candidates is the unit of work: inside it samples are batched by length, results are
written back in candidate order, and its files appear whole. A killed pass goes on at the first part that is missing,
and what it then writes is what it would have written, since batches never span parts.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from adapt_inf.data.manifest import candidates
from adapt_inf.data.samples import Sample
from adapt_inf.data.shards import SampleStore
from adapt_inf.files import folder_digest, write_parquet
from adapt_inf.models.batches import collate, length_buckets, token_lengths
from adapt_inf.models.vlm import VLM, load_vlm
from adapt_inf.parallel import SharedProgress, run_workers, worker_count
from adapt_inf.sketching.gradients import Sketcher
from adapt_inf.sketching.store import part_path, spans, write_index, write_part
from adapt_inf.stages.context import StageContext

SIGNALS = ("nll", "el2n", "entropy", "grand")


def run(ctx: StageContext) -> dict[str, Any]:
    """Write rounds/<round>/sketch: sketches/part-*.npy, signals.parquet, sketch.json, all in candidate order."""
    frame = candidates(ctx)
    knobs = ctx.params.sketch
    with ctx.output("sketch", [asdict(knobs), ctx.params.seed, *what_is_seen(ctx, frame)]) as out:
        vlm = load_vlm(ctx.parent_input("model"), device="auto")
        sketcher = Sketcher(vlm, knobs.layers, knobs.params, knobs.dim, ctx.params.seed)
        store = SampleStore(frame)
        parts = spans(len(frame), knobs.shard_samples)
        missing = [part for part in range(len(parts)) if not part_path(out, part).exists()]
        done = len(frame) - sum(parts[part][1] - parts[part][0] for part in missing)
        workers = worker_count(vlm.device, len(missing))

        def work(rank: int) -> None:
            for part in missing[rank::workers]:
                samples = store.samples(*parts[part])
                sketches, signals = sketch_samples(vlm, sketcher, samples, knobs.batch_size, shown.update)
                write_parquet(_signals_part(out, part), signals)
                write_part(out, part, sketches)  # last: a part is whole when its sketches are there

        with SharedProgress("sketch", len(frame), done) as shown:
            run_workers(workers, work)
        _join_signals(out, len(parts))
        about = sketcher.plan.describe()
        write_index(out, knobs.dim, [stop - start for start, stop in parts], about)
    return {
        "samples": len(frame),
        "resumed": done,
        "layers": about["layers"],
        "params": about["params"],
        "coordinates": about["plan"]["coordinates"],
    }


def what_is_seen(ctx: StageContext, frame: pd.DataFrame) -> list[Any]:
    """Digests of the parent's model and of the candidates, in their order: what a pass over them depends on."""
    rows = hashlib.sha256("\n".join(frame["sample_id"] + "\t" + frame["content_hash"]).encode()).hexdigest()
    return [folder_digest(ctx.parent_input("model")), rows]


def sketch_samples(
    vlm: VLM, sketcher: Sketcher, samples: Sequence[Sample], batch_size: int, advance: Any = None
) -> tuple[NDArray[np.float32], pd.DataFrame]:
    """Sketch samples in batches of similar length.

    Args:
        vlm: the model.
        sketcher: over that model.
        samples: n samples.
        batch_size: samples in a batch.
        advance: called with the number of samples after each batch.

    Returns:
        (n, dim) sketches, not normalised, and a frame of n rows: sample_id, the signals (float64), answer_tokens
        (int32), has_image. Both in the order of `samples`.
    """
    sketches = np.empty((len(samples), sketcher.dim), dtype=np.float32)
    values = {name: np.empty(len(samples)) for name in SIGNALS}
    tokens = np.empty(len(samples), dtype=np.int32)
    for rows in length_buckets(token_lengths(vlm, samples), batch_size):
        result = sketcher(collate(vlm, [samples[int(row)] for row in rows]))
        sketches[rows] = result.sketches.numpy()
        values["grand"][rows] = result.grand.numpy()
        for name in ("nll", "el2n", "entropy"):
            values[name][rows] = getattr(result.signals, name).numpy()
        tokens[rows] = result.signals.answer_tokens.numpy()
        if advance is not None:
            advance(len(rows))
    frame = pd.DataFrame(
        {
            "sample_id": [sample.sample_id for sample in samples],
            **values,
            "answer_tokens": tokens,
            "has_image": [len(sample.images) > 0 for sample in samples],
        }
    )
    return sketches, frame


def _signals_part(out: Path, part: int) -> Path:
    return out / "signals" / f"part-{part:05d}.parquet"


def _join_signals(out: Path, parts: int) -> None:
    """One signals.parquet of all parts. Where a killed run had it already, its parts may be gone."""
    whole = out / "signals.parquet"
    if not whole.exists():
        frames = [pd.read_parquet(_signals_part(out, part)) for part in range(parts)]
        write_parquet(whole, pd.concat(frames, ignore_index=True) if frames else _no_signals())
    shutil.rmtree(out / "signals", ignore_errors=True)


def _no_signals() -> pd.DataFrame:
    types = {"sample_id": "str", **dict.fromkeys(SIGNALS, "float64"), "answer_tokens": "int32", "has_image": "bool"}
    return pd.DataFrame({name: pd.Series(dtype=kind) for name, kind in types.items()})
