"""The sketch stage on a miniature model: order, bytes, and going on after a kill."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from killing import kill_midway
from sketch_project import ROUND, context, make_round

from adapt_inf.data.manifest import candidates
from adapt_inf.data.samples import Sample
from adapt_inf.data.shards import SampleStore, read_shard, write_shard
from adapt_inf.errors import ModelError
from adapt_inf.files import folder_digest, read_json
from adapt_inf.models.batches import collate
from adapt_inf.models.vlm import load_vlm
from adapt_inf.sketching.gradients import Sketcher
from adapt_inf.sketching.store import SketchStore
from adapt_inf.stages import sketch
from adapt_inf.stages.runner import run_stage

SMALL = {"dim": 256, "batch_size": 4, "shard_samples": 8}


def test_every_candidate_has_its_own_sketch_and_signals_in_order(tmp_path: Path, miniature_model: Path) -> None:
    ctx = make_round(tmp_path, miniature_model, sketch=SMALL)
    report = sketch.run(ctx)
    out = ctx.input("sketch")
    frame, table, store = candidates(ctx), pd.read_parquet(out / "signals.parquet"), SketchStore(out)
    assert report["samples"] == len(frame) == len(store) == 33
    assert table["sample_id"].tolist() == frame["sample_id"].tolist()
    assert table["has_image"].tolist() == (frame["n_images"] > 0).tolist()
    assert table.dtypes.astype(str).to_dict() == {
        "sample_id": "str",
        **dict.fromkeys(("nll", "el2n", "entropy", "grand"), "float64"),
        "answer_tokens": "int32",
        "has_image": "bool",
    }
    vlm = load_vlm(ctx.parent_input("model"))
    sketcher = Sketcher(vlm, dim=256, seed=5)
    for row, sample in enumerate(SampleStore(frame).samples(0, 33)):
        alone = sketcher(collate(vlm, [sample]))
        unit = (alone.sketches / alone.sketches.norm()).numpy()
        np.testing.assert_allclose(store.block(row, row + 1), unit, atol=2e-3)  # fp16
        assert table["nll"][row] == pytest.approx(float(alone.signals.nll), rel=1e-5)
        assert table["grand"][row] == pytest.approx(float(alone.grand), rel=1e-4)


def test_files_are_as_stated(tmp_path: Path, miniature_model: Path) -> None:
    ctx = make_round(tmp_path, miniature_model, sketch={**SMALL, "layers": [0, 2]})
    sketch.run(ctx)
    out = ctx.input("sketch")
    files = sorted(path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file())
    assert files == [
        "faults.parquet",
        "signals.parquet",
        "sketch.json",
        *(f"sketches/part-{i:05d}.npy" for i in range(5)),
    ]
    index = read_json(out / "sketch.json")
    assert (index["rows"], index["layers"], index["params"]) == (33, [0, 2], "full")
    assert list(index["features"]) == ["gradient"]
    assert index["features"]["gradient"]["dim"] == 256
    assert [part["rows"] for part in index["features"]["gradient"]["parts"]] == [8, 8, 8, 8, 1]
    assert len(index["plan"]["maps"]) == 14


def test_the_same_bytes_twice_and_others_for_another_seed(tmp_path: Path, miniature_model: Path) -> None:
    digests = []
    for name, seed in (("one", 5), ("two", 5), ("three", 6)):
        ctx = make_round(tmp_path / name, miniature_model, sketch=SMALL, seed=seed)
        sketch.run(ctx)
        digests.append(folder_digest(ctx.input("sketch")))
    assert digests[0] == digests[1] != digests[2]


def test_batches_and_parts_move_nothing_but_the_last_bits(tmp_path: Path, miniature_model: Path) -> None:
    tables, sketches = [], []
    for name, knobs in (("one", SMALL), ("two", {"dim": 256, "batch_size": 11, "shard_samples": 30})):
        ctx = make_round(tmp_path / name, miniature_model, sketch=knobs)
        sketch.run(ctx)
        tables.append(pd.read_parquet(ctx.input("sketch") / "signals.parquet"))
        sketches.append(SketchStore(ctx.input("sketch")).all())
    pd.testing.assert_frame_equal(*tables, rtol=1e-4)
    np.testing.assert_allclose(*sketches, atol=1e-3)


def test_goes_on_after_a_kill_with_the_same_bytes(tmp_path: Path, miniature_model: Path) -> None:
    knobs = {**SMALL, "shard_samples": 1}
    undisturbed = make_round(tmp_path / "undisturbed", miniature_model, new=40, sketch=knobs)
    sketch.run(undisturbed)
    make_round(tmp_path / "killed", miniature_model, new=40, sketch=knobs)
    left = kill_midway(tmp_path / "killed", ROUND, "sketch", "sketches/part-*.npy")
    assert not (tmp_path / "killed/rounds" / ROUND / "sketch").exists()
    written = {path: path.stat().st_mtime_ns for path in left}
    killed = context(tmp_path / "killed")
    moved = killed.project.output(ROUND, "sketch")
    report = sketch.run(killed)
    assert report["resumed"] == len(left)
    assert {path: (moved / "sketches" / path.name).stat().st_mtime_ns for path in left} == written
    assert folder_digest(moved) == folder_digest(undisturbed.input("sketch"))


def test_work_left_under_another_seed_is_not_used(tmp_path: Path, miniature_model: Path) -> None:
    ctx = make_round(tmp_path, miniature_model, sketch={**SMALL, "shard_samples": 1}, new=40)
    kill_midway(tmp_path, ROUND, "sketch", "sketches/part-*.npy")
    path = ctx.project.params_of(ROUND)
    path.write_text(path.read_text().replace("seed: 5", "seed: 6"))
    assert sketch.run(context(tmp_path))["resumed"] == 0


@pytest.mark.parametrize("section", ["cluster", "prune"])
def test_hidden_states_where_they_are_asked_for(tmp_path: Path, miniature_model: Path, section: str) -> None:
    ctx = make_round(tmp_path, miniature_model, sketch=SMALL, **{section: {"features": "hidden"}})
    sketch.run(ctx)
    out = ctx.input("sketch")
    assert len(list((out / "hidden").iterdir())) == 5
    vlm = load_vlm(ctx.parent_input("model"))
    sample = SampleStore(candidates(ctx)).samples(9, 10)
    hidden = Sketcher(vlm, dim=256, hidden=True)(collate(vlm, sample)).hidden
    assert hidden is not None
    np.testing.assert_allclose(
        SketchStore(out, "hidden").block(9, 10), (hidden / hidden.norm()).numpy(), atol=2e-3
    )  # fp16


def test_samples_that_the_model_cannot_read_are_set_down_and_end_nothing(tmp_path: Path, miniature_model: Path) -> None:
    whole = make_round(tmp_path / "whole", miniature_model, sketch=SMALL)
    sketch.run(whole)
    ctx = make_round(tmp_path / "some", miniature_model, sketch=SMALL)
    frame = candidates(ctx)
    for path in frame["shard"].unique():
        samples = read_shard(Path(path))
        write_shard(Path(path), [too_long(s) if s.sample_id in BAD else s for s in samples])
    report = sketch.run(ctx)
    out = ctx.input("sketch")
    faults = pd.read_parquet(out / "faults.parquet")
    assert set(faults["sample_id"]) == BAD
    assert faults["sample_id"].tolist() == [name for name in frame["sample_id"] if name in BAD]
    assert faults["fault"].str.contains("256").all()  # the length that the model takes
    assert report["unreadable"] == 2
    table = pd.read_parquet(out / "signals.parquet")
    bad = table["sample_id"].isin(BAD).to_numpy()
    assert table.loc[bad, ["nll", "el2n", "entropy", "grand"]].isna().all(axis=None)
    assert (table.loc[bad, "answer_tokens"] == 0).all()
    sketches, others = SketchStore(out).all(), SketchStore(whole.input("sketch")).all()
    assert not sketches[bad].any()
    np.testing.assert_allclose(sketches[~bad], others[~bad], atol=2e-3)


def test_a_gradient_that_is_not_finite_spoils_no_other(tmp_path: Path, miniature_model: Path) -> None:
    ctx = make_round(tmp_path, miniature_model, sketch=SMALL)
    vlm = load_vlm(ctx.parent_input("model"))
    samples = SampleStore(candidates(ctx)).samples(0, 33)
    sketcher = Sketcher(vlm, dim=256, hidden=True)
    whole = sketch.sketch_samples(vlm, sketcher, samples, 4)
    word = vlm.tokenizer(" green")["input_ids"][0]  # breaks the model from here on
    vlm.network.get_input_embeddings().register_forward_hook(
        lambda _, ids, out: out.masked_fill((ids[0] == word)[..., None], torch.inf)
    )
    spoilt = sketch.sketch_samples(vlm, sketcher, samples, 4)
    bad = spoilt.signals["nll"].isna().to_numpy()
    assert 0 < bad.sum() < 33
    assert spoilt.faults["sample_id"].tolist() == whole.signals["sample_id"][bad].tolist()
    assert set(spoilt.faults["fault"]) == {sketch.NOT_FINITE}
    for kind, rows in spoilt.features.items():
        assert not rows[bad].any()
        np.testing.assert_allclose(rows[~bad], whole.features[kind][~bad], rtol=1e-3, atol=1e-4)


BAD = {"old/train-0001", "new/train-0007"}


def too_long(sample: Sample) -> Sample:
    more = {"role": "user", "content": [{"type": "text", "text": "colour " * 400}]}
    return replace(sample, messages=[more, *sample.messages[1:]], images=())


def test_no_candidate_at_all(tmp_path: Path, miniature_model: Path) -> None:
    ctx = make_round(tmp_path, miniature_model, old=0, new=0, sketch=SMALL)
    assert sketch.run(ctx)["samples"] == 0
    assert len(SketchStore(ctx.input("sketch"))) == 0
    assert pd.read_parquet(ctx.input("sketch") / "signals.parquet")["nll"].dtype == np.float64


def test_layers_that_the_model_lacks_are_named(tmp_path: Path, miniature_model: Path) -> None:
    ctx = make_round(tmp_path, miniature_model, sketch={**SMALL, "layers": [9]})
    with pytest.raises(ModelError, match=r"sketch\.layers .* 4 layers"):
        run_stage(ctx.project, ROUND, "sketch")
    assert not ctx.project.output(ROUND, "sketch").exists()
