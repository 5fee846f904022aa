"""The score stage: a column per expert, one more pass only where it is asked for, and going on after a kill."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from killing import kill_midway
from sketch_project import ROUND, context, make_round

from adapt_inf.data.manifest import candidates
from adapt_inf.data.shards import SampleStore
from adapt_inf.errors import ConfigError, StageInputError
from adapt_inf.files import folder_digest, read_json
from adapt_inf.models.vlm import load_vlm
from adapt_inf.sketching.grounding import WithoutImage
from adapt_inf.sketching.signals import AnswerPass
from adapt_inf.stages import score, sketch

SMALL = {"dim": 64, "batch_size": 8, "shard_samples": 8}
ALL = ["perplexity", "el2n", "entropy", "grand", "image_grounding", "random"]


def scores_of(ctx: score.StageContext) -> pd.DataFrame:
    return pd.read_parquet(ctx.input("score") / "scores.parquet")


@pytest.mark.parametrize("without", ["blank", "drop"])
def test_columns_are_the_scores_of_the_signals(tmp_path: Path, miniature_model: Path, without: str) -> None:
    knobs = {"without_image": without, "batch_size": 5}
    ctx = make_round(tmp_path, miniature_model, sketch=SMALL, score=knobs, select={"scores": ALL})
    sketch.run(ctx)
    report = score.run(ctx)
    frame, table = candidates(ctx), scores_of(ctx)
    signals = pd.read_parquet(ctx.input("sketch") / "signals.parquet")
    assert table.columns.tolist() == ["sample_id", *ALL]
    assert table["sample_id"].tolist() == frame["sample_id"].tolist()
    for name, signal in (("perplexity", "nll"), ("el2n", "el2n"), ("entropy", "entropy"), ("grand", "grand")):
        np.testing.assert_array_equal(table[name], signals[signal])
    vlm = load_vlm(ctx.parent_input("model"))
    samples = SampleStore(frame).samples(0, len(frame))
    run = WithoutImage(vlm, AnswerPass(vlm), without, 1)  # type: ignore[arg-type]
    slow = [run([sample])[0] for sample in samples]
    np.testing.assert_allclose(table["image_grounding"], np.array(slow) - signals["nll"], rtol=1e-4, atol=1e-5)
    assert table["random"].between(0, 1).all()
    assert report["scores"]["image_grounding"] == (frame["n_images"] > 0).sum()


def test_the_newer_scores_read_sketches_and_hidden_states(tmp_path: Path, miniature_model: Path) -> None:
    newer = ["visnec", "rds_plus", "crds_w", "oasis"]
    ctx = make_round(tmp_path, miniature_model, sketch={**SMALL, "hidden": True}, select={"scores": newer})
    sketch.run(ctx)
    report = score.run(ctx)
    frame, table = candidates(ctx), scores_of(ctx)
    assert table.columns.tolist() == ["sample_id", *newer]
    assert report["scores"] == {"visnec": (frame["n_images"] > 0).sum(), **dict.fromkeys(newer[1:], len(frame))}
    assert set(read_json(ctx.input("score") / "draws.json").values()) == {"highest"}
    for name in newer:
        assert table[name].nunique() > len(frame) / 4, name


def test_hidden_states_that_were_not_kept_are_named(tmp_path: Path, miniature_model: Path) -> None:
    ctx = make_round(tmp_path, miniature_model, sketch=SMALL, select={"scores": ["rds_plus"]})
    sketch.run(ctx)
    with pytest.raises(StageInputError, match="has no hidden features"):
        score.run(ctx)


def test_text_only_samples_have_null_and_the_folder_two_files(tmp_path: Path, miniature_model: Path) -> None:
    ctx = make_round(tmp_path, miniature_model, sketch=SMALL)
    sketch.run(ctx)
    score.run(ctx)
    column = pq.read_table(ctx.input("score") / "scores.parquet")["image_grounding"]
    assert column.null_count == (candidates(ctx)["n_images"] == 0).sum() > 0
    assert column.type == "double"
    assert sorted(path.name for path in ctx.input("score").iterdir()) == ["draws.json", "scores.parquet"]


def test_no_pass_where_no_score_needs_it(tmp_path: Path, miniature_model: Path) -> None:
    ctx = make_round(tmp_path, miniature_model, sketch=SMALL, select={"scores": ["el2n", "perplexity"]})
    sketch.run(ctx)
    report = score.run(ctx)
    assert "resumed" not in report
    assert scores_of(ctx).columns.tolist() == ["sample_id", "el2n", "perplexity"]


def test_a_strategy_that_names_a_score_gets_its_column(tmp_path: Path, miniature_model: Path) -> None:
    ctx = make_round(tmp_path, miniature_model, select={"scores": ["el2n"], "strategy": "grand"})
    assert score.score_names(ctx) == ["el2n", "grand"]
    ctx = make_round(tmp_path / "other", miniature_model, select={"scores": ["el2n"], "strategy": "random"})
    assert score.score_names(ctx) == ["el2n"]


def test_random_depends_on_the_seed_and_not_on_the_other_scores(tmp_path: Path, miniature_model: Path) -> None:
    columns = []
    for name, seed, names in (("a", 5, ["random"]), ("b", 5, ["el2n", "random"]), ("c", 6, ["random"])):
        ctx = make_round(tmp_path / name, miniature_model, sketch=SMALL, select={"scores": names}, seed=seed)
        sketch.run(ctx)
        score.run(ctx)
        columns.append(scores_of(ctx)["random"].to_numpy())
    np.testing.assert_array_equal(columns[0], columns[1])
    assert (columns[0] != columns[2]).all()


def test_goes_on_after_a_kill_with_the_same_bytes(tmp_path: Path, miniature_model: Path) -> None:
    outputs = []
    for name in ("undisturbed", "killed"):
        ctx = make_round(tmp_path / name, miniature_model, new=60, sketch={**SMALL, "shard_samples": 1})
        sketch.run(ctx)
        if name == "killed":
            left = kill_midway(tmp_path / name, ROUND, "score", "nll_without_image/part-*.npy")
            ctx = context(tmp_path / name)
        report = score.run(ctx)
        outputs.append(folder_digest(ctx.input("score")))
    assert report["resumed"] == len(left) >= 2
    assert outputs[0] == outputs[1]


def test_an_unknown_score_is_named(tmp_path: Path, miniature_model: Path) -> None:
    ctx = make_round(tmp_path, miniature_model, sketch=SMALL, select={"scores": ["perplexty"]})
    sketch.run(ctx)
    with pytest.raises(ConfigError, match="perplexty"):
        score.run(ctx)


def test_signals_of_other_candidates_are_refused(tmp_path: Path, miniature_model: Path) -> None:
    ctx = make_round(tmp_path, miniature_model, sketch=SMALL)
    sketch.run(ctx)
    path = ctx.input("sketch") / "signals.parquet"
    pd.read_parquet(path).iloc[1:].to_parquet(path, index=False)
    with pytest.raises(StageInputError, match=r"signals\.parquet"):
        score.run(ctx)
