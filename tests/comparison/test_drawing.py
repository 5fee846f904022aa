"""The draw without sketches against the eight stages' own: the same samples, also where some cannot be read."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from sketch_project import context, make_round

from adapt_inf.comparison import drawing
from adapt_inf.config import Select
from adapt_inf.data.manifest import candidates
from adapt_inf.data.samples import Sample
from adapt_inf.data.shards import read_shard, write_shard
from adapt_inf.files import read_json, write_parquet
from adapt_inf.stages import cluster, score, select, sketch
from adapt_inf.stages.context import StageContext

UNREADABLE = {"old/train-0001", "new/train-0007"}
STRATEGIES = ("random", "sequential", "full")


@pytest.fixture(scope="module")
def scored(tmp_path_factory: pytest.TempPathFactory, miniature_model: Path) -> StageContext:
    """A round with two candidates that the model cannot read, up to its scores."""
    root = tmp_path_factory.mktemp("scored") / "round"
    ctx = make_round(root, miniature_model, sketch={"dim": 64}, cluster={"k": 3}, score={"batch_size": 8})
    for path in candidates(ctx)["shard"].unique():
        write_shard(Path(path), [_too_long(s) if s.sample_id in UNREADABLE else s for s in read_shard(Path(path))])
    for stage in (sketch, cluster, score):
        stage.run(ctx)
    return ctx


def _too_long(sample: Sample) -> Sample:
    more = {"role": "user", "content": [{"type": "text", "text": "colour " * 400}]}
    return replace(sample, messages=[more, *sample.messages[1:]], images=())


def _with(ctx: StageContext, **values: object) -> StageContext:
    return replace(ctx, params=replace(ctx.params, select=Select(**values)))  # type: ignore[arg-type]


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("budget", [0.25, 7, 30])
def test_the_same_samples_are_drawn(scored: StageContext, tmp_path: Path, strategy: str, budget: float | int) -> None:
    ctx = _with(scored, strategy=strategy, budget=budget)
    told = select.run(ctx)
    chosen = pd.read_parquet(ctx.input("select") / "selected.parquet")["sample_id"].tolist()
    shares = read_json(ctx.input("select") / "selectors.json")
    shutil.copytree(scored.project.root, tmp_path / "other")
    other = replace(ctx, project=context(tmp_path / "other").project)
    for name in ("sketch", "cluster", "score", "select"):
        shutil.rmtree(other.project.output(ctx.round, name))
    assert drawing.read(other) == {"samples": 33, "read": 33, "unreadable": 2}
    faults = pd.read_parquet(other.input("sketch") / "faults.parquet")
    pd.testing.assert_frame_equal(faults, pd.read_parquet(scored.input("sketch") / "faults.parquet"))
    report = drawing.draw(other)
    assert report.items() <= told.items()
    assert pd.read_parquet(other.input("select") / "selected.parquet")["sample_id"].tolist() == chosen
    drawn = read_json(other.input("select") / "selectors.json")
    assert drawn == {name: shares[name] for name in drawn}


def test_what_the_parent_read_is_not_read_again(scored: StageContext, tmp_path: Path) -> None:
    shutil.copytree(scored.project.root, tmp_path / "other")
    ctx = replace(scored, project=context(tmp_path / "other").project)
    faults = pd.read_parquet(ctx.input("sketch") / "faults.parquet")
    shutil.rmtree(ctx.input("sketch"))
    left = ctx.project.output("base", "sketch") / "faults.parquet"
    write_parquet(left, faults[faults["sample_id"].str.startswith("old/")])
    assert drawing.read(ctx) == {"samples": 33, "read": 20, "unreadable": 2}
    pd.testing.assert_frame_equal(pd.read_parquet(ctx.input("sketch") / "faults.parquet"), faults)
