"""Stage sketch: every candidate once through the parent's model, or a proxy, for its gradient sketch and its signals.

A part of `sketch.shard_samples` candidates is the unit of work: inside it samples are batched by length, results are
written back in candidate order, and its files appear whole. A killed pass goes on at the first part that is missing,
and what it then writes is what it would have written, since batches never span parts. A candidate that the model cannot
read (longer than it takes, refused by its template or processor, or without a finite gradient) is set down with the
reason and never ends a pass.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from adapt_inf.data.manifest import candidates
from adapt_inf.data.samples import Sample
from adapt_inf.data.shards import SampleStore
from adapt_inf.errors import SampleError
from adapt_inf.executors.parts import Advance, device_kind, over_parts
from adapt_inf.files import folder_digest, read_json, remove_folder, write_json, write_parquet
from adapt_inf.models.batches import Batch, Encoded, encode_readable, first_readable, length_buckets, pad, token_lengths
from adapt_inf.models.sharding import shares_weights, spread
from adapt_inf.models.vlm import VLM, describe, load_reader, load_vlm
from adapt_inf.project import BASE
from adapt_inf.proxy import asks_proxy
from adapt_inf.sketching.gradients import Sketcher
from adapt_inf.sketching.store import Features, part_path, spans, write_index, write_part
from adapt_inf.stages.context import StageContext

SIGNALS = ("nll", "el2n", "entropy", "grand")
NOT_FINITE = "its loss or its gradient is not a finite number under this model"
SIGNALS_FILE, FAULTS_FILE = "signals.parquet", "faults.parquet"


@dataclass(frozen=True)
class Pass:
    """What a pass over n samples yields, in their order.

    Attributes:
        features: (n, dim) float32 rows by kind, not normalised; zeros for a sample that cannot be read.
        signals: sample_id, the signals (float64), answer_tokens (int32), has_image.
        faults: sample_id and fault of the samples that the model cannot read.
    """

    features: dict[Features, NDArray[np.float32]]
    signals: pd.DataFrame
    faults: pd.DataFrame


def run(ctx: StageContext) -> dict[str, Any]:
    """Write rounds/<round>/sketch, in candidate order.

    sketches/part-*.npy, hidden/part-*.npy where `sketch.hidden`, `cluster.features` or `prune.features` asks for it,
    signals.parquet, faults.parquet, and sketch.json, which says what was sketched and how.
    """
    frame = candidates(ctx)
    knobs = ctx.params.sketch
    how = [
        device_kind(ctx.params.executor),
        asdict(knobs),
        ctx.params.seed,
        ctx.params.memory_mb,
        ctx.params.keeps_hidden,
    ]
    with ctx.output("sketch", [*how, *what_is_seen(ctx, frame)]) as out:
        parts = spans(len(frame), knobs.shard_samples)
        missing = [part for part in range(len(parts)) if not part_path(out, part).exists()]
        done = over_parts("sketch", ctx, out, SketchWorker, parts, missing)
        first = _about_part(
            out, 0
        )  # all say the same; it is not there where no part was, or only the last step is left
        about = read_json(first) if first.exists() else SketchWorker(ctx, out).about
        for name, empty in ((SIGNALS_FILE, _no_signals()), (FAULTS_FILE, _no_faults())):
            _join(out, name, len(parts), empty)
        faults = pd.read_parquet(out / FAULTS_FILE)["fault"]
        if not (out / "sketch.json").exists():  # else all was done but the last step, and says how
            write_index(out, about["dims"], [stop - start for start, stop in parts], about["sketch"])
    return {
        "samples": len(frame),
        "resumed": done,
        "unreadable": len(faults),
        "first_faults": faults.head(10).tolist(),
        "model": {"name": knobs.model, **about["model"]},
        "layers": about["sketch"]["layers"],
        "params": about["sketch"]["params"],
        **{name: about["sketch"]["plan"][name] for name in ("coordinates", "block_bytes", "places", "precision")},
    }


class SketchWorker:
    """Sketches parts of a round's candidates into the folder `out`.

    Attributes:
        about: JSON-able: dims, sketch (layers, params, plan) and model, as the pass describes itself.
    """

    def __init__(self, ctx: StageContext, out: Path) -> None:
        knobs = ctx.params.sketch
        self._out = out
        self.vlm = spread(load_vlm(ctx.looking_model(), device="auto", staged=shares_weights()))
        self._reader = load_reader(ctx.project.output(BASE, "model")) if asks_proxy(ctx.params) else None
        self._sketcher = Sketcher(
            self.vlm,
            knobs.layers,
            knobs.params,
            knobs.dim,
            ctx.params.seed,
            hidden=ctx.params.keeps_hidden,
            memory_mb=ctx.params.memory_mb,
        )
        self._store = SampleStore(candidates(ctx))
        self._parts = spans(len(self._store), knobs.shard_samples)
        self._batch_size = knobs.batch_size
        sketcher = self._sketcher
        self.about: dict[str, Any] = {
            "dims": sketcher.dims,
            "sketch": sketcher.describe(),
            "model": describe(self.vlm),
        }

    def __call__(self, part: int, advance: Advance) -> None:
        samples = self._store.samples(*self._parts[part])
        result = sketch_samples(self.vlm, self._sketcher, samples, self._batch_size, advance, self._reader)
        write_json(_about_part(self._out, part), self.about)
        _write(self._out, part, result)

    def idle(self) -> object:
        return self._sketcher.differentiate(self._some)

    @cached_property
    def _some(self) -> Batch:
        return first_readable(self.vlm, self._store)


def what_is_seen(ctx: StageContext, frame: pd.DataFrame) -> list[Any]:
    """Digests of the model that looks and of the candidates, in their order: what a pass over them depends on."""
    rows = hashlib.sha256("\n".join(frame["sample_id"] + "\t" + frame["content_hash"]).encode()).hexdigest()
    return [folder_digest(ctx.looking_model()), rows]


def sketch_samples(
    vlm: VLM,
    sketcher: Sketcher,
    samples: Sequence[Sample],
    batch_size: int,
    advance: Callable[[int], object] = lambda _: None,
    reader: VLM | None = None,
) -> Pass:
    """Sketch samples in batches of similar length.

    Args:
        vlm: the model.
        sketcher: over that model.
        samples: n samples.
        batch_size: samples in a batch.
        advance: called with the number of samples after each batch.
        reader: of the model that is to learn from them, where that is another: what it cannot read is a fault, too.
    """
    n = len(samples)
    features = {kind: np.zeros((n, dim), dtype=np.float32) for kind, dim in sketcher.dims.items()}
    values = {name: np.full(n, np.nan) for name in SIGNALS}
    tokens = np.zeros(n, dtype=np.int32)
    faults: dict[int, str] = {}
    for bucket in length_buckets(token_lengths(vlm, samples), batch_size):
        found = encode_for_both(vlm, reader, [samples[int(row)] for row in bucket])
        readable = [item for item in found if isinstance(item, Encoded)]
        rows = bucket[[isinstance(item, Encoded) for item in found]]
        faults |= {
            int(row): item.problem for row, item in zip(bucket, found, strict=True) if not isinstance(item, Encoded)
        }
        if readable:
            result = sketcher(pad(vlm, readable))
            fine = np.isfinite(result.grand.numpy()) & np.isfinite(result.signals.nll.numpy())
            faults |= dict.fromkeys(rows[~fine].tolist(), NOT_FINITE)
            rows = rows[fine]
            features["gradient"][rows] = result.sketches.numpy()[fine]
            if result.hidden is not None:
                features["hidden"][rows] = result.hidden.numpy()[fine]
            values["grand"][rows] = result.grand.numpy()[fine]
            for name in ("nll", "el2n", "entropy"):
                values[name][rows] = getattr(result.signals, name).numpy()[fine]
            tokens[rows] = result.signals.answer_tokens.numpy()[fine]
        advance(len(bucket))
    ids = [sample.sample_id for sample in samples]
    pictured = [len(sample.images) > 0 for sample in samples]
    bad = sorted(faults)
    return Pass(
        features,
        pd.DataFrame({"sample_id": ids, **values, "answer_tokens": tokens, "has_image": pictured}),
        pd.DataFrame({"sample_id": [ids[row] for row in bad], "fault": [faults[row] for row in bad]}, dtype="str"),
    )


def encode_for_both(vlm: VLM, reader: VLM | None, samples: Sequence[Sample]) -> list[Encoded | SampleError]:
    """Samples as `vlm` takes them; the reason in the place of one that it, or `reader`, cannot read."""
    found = encode_readable(vlm, samples)
    if reader is None:
        return found
    learnt = encode_readable(reader, samples)
    return [other if isinstance(other, SampleError) else own for own, other in zip(found, learnt, strict=True)]


def _write(out: Path, part: int, result: Pass) -> None:
    write_parquet(_table_part(out, SIGNALS_FILE, part), result.signals)
    write_parquet(_table_part(out, FAULTS_FILE, part), result.faults)
    for kind in sorted(result.features, reverse=True):  # the sketches last: a part is whole when they are there
        write_part(out, part, result.features[kind], kind)


def _about_part(out: Path, part: int) -> Path:
    return out / ".about.part" / f"part-{part:05d}.json"  # the output is cleared of such names


def _table_part(out: Path, name: str, part: int) -> Path:
    return out / name.removesuffix(".parquet") / f"part-{part:05d}.parquet"


def _join(out: Path, name: str, parts: int, empty: pd.DataFrame) -> None:
    """One table of all parts. Where a killed run had it already, its parts may be gone."""
    if not (out / name).exists():
        frames = [pd.read_parquet(_table_part(out, name, part)) for part in range(parts)]
        filled = [frame for frame in frames if len(frame)]
        write_parquet(out / name, pd.concat(filled, ignore_index=True) if filled else empty)
    remove_folder(out / name.removesuffix(".parquet"))


def _no_signals() -> pd.DataFrame:
    types = {"sample_id": "str", **dict.fromkeys(SIGNALS, "float64"), "answer_tokens": "int32", "has_image": "bool"}
    return pd.DataFrame({name: pd.Series(dtype=kind) for name, kind in types.items()})


def _no_faults() -> pd.DataFrame:
    return pd.DataFrame({name: pd.Series(dtype="str") for name in ("sample_id", "fault")})
