"""The train stage on a miniature model: what it trains on, what it leaves, and going on after a kill."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from killing import kill_midway
from trained_project import begin_round, context, make_lineage, write_selection

from adapt_inf.data.manifest import candidates
from adapt_inf.errors import AdaptInfError, StageInputError
from adapt_inf.files import folder_digest, read_json
from adapt_inf.models.vlm import load_vlm
from adapt_inf.stages import train
from adapt_inf.stages.train import selected_rows


def test_the_adapter_processor_and_log_are_left(tmp_path: Path, miniature_model: Path) -> None:
    ctx = begin_round(make_lineage(tmp_path, miniature_model), "r001", "base", "fresh")
    report = train.run(ctx)
    out = ctx.input("model")
    files = {path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()}
    assert files >= {"adapter_config.json", "adapter_model.safetensors", "model.json", "train_log.jsonl"}
    assert files >= {"processor_config.json", "tokenizer.json", "chat_template.jinja"}
    assert not any("checkpoint" in file or file.endswith((".md", ".bin")) for file in files)
    rows = [json.loads(line) for line in (out / "train_log.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [1, 2, 3, 4, 5, 6]
    assert report["samples"] == len(selected_rows(ctx)) == 14
    assert report["steps"] == 6
    assert report["tokens_per_second"] > report["samples_per_second"] > 0
    assert report["trained_samples"] == sum(row["samples"] for row in rows)
    assert read_json(out / "model.json")["base"] == "../../base/model"
    assert load_vlm(out).adapted
    assert str(tmp_path) not in "".join(path.read_text(errors="ignore") for path in out.iterdir())


def test_the_next_round_goes_on_from_the_parents_weights(tmp_path: Path, miniature_model: Path) -> None:
    project = make_lineage(tmp_path, miniature_model)
    train.run(begin_round(project, "r001", "base", "first"))
    tiny_step = {"steps": 1, "learning_rate": 1e-7, "rank": 4, "alpha": 8}
    train.run(begin_round(project, "r002", "r001", "second", train=tiny_step))
    first, second = (load_vlm(project.output(name, "model")).model.state_dict() for name in ("r001", "r002"))
    factors = [name for name in first if "lora_B" in name]
    assert any(first[name].abs().max() > 1e-3 for name in factors)
    for name in factors:
        torch.testing.assert_close(first[name], second[name], atol=1e-5, rtol=0)
    assert load_vlm(project.output("r002", "model")).base == project.output("base", "model")


def test_the_same_bytes_twice_and_others_for_another_seed(tmp_path: Path, miniature_model: Path) -> None:
    digests = []
    for name, seed in (("one", 5), ("two", 5), ("three", 6)):
        ctx = begin_round(make_lineage(tmp_path / name, miniature_model, seed=seed), "r001", "base", "fresh")
        train.run(ctx)
        digests.append(folder_digest(ctx.input("model")))
    assert digests[0] == digests[1] != digests[2]


@pytest.mark.parametrize("micro_batch", [None, 3])
def test_goes_on_after_a_kill_with_the_same_bytes(
    tmp_path: Path, miniature_model: Path, micro_batch: int | None
) -> None:
    knobs = {"steps": 60, "batch_size": 4, "rank": 4, "alpha": 8, "checkpoint_steps": 1, "dropout": 0.1}
    knobs["micro_batch"] = micro_batch
    undisturbed = begin_round(
        make_lineage(tmp_path / "undisturbed", miniature_model, train=knobs), "r001", "base", "fresh"
    )
    whole = train.run(undisturbed)
    project = make_lineage(tmp_path / "killed", miniature_model, train=knobs)
    begin_round(project, "r001", "base", "fresh")
    kill_midway(project.root, "r001", "train", ".checkpoints/checkpoint.safetensors", after=1)
    assert not project.output("r001", "model").exists()
    killed = context(project, "r001")
    report = train.run(killed)
    assert folder_digest(killed.input("model")) == folder_digest(undisturbed.input("model"))
    assert 0 < report["trained_samples"] < whole["trained_samples"], "what came before the kill is not of these seconds"


def test_a_run_that_diverges_publishes_nothing(tmp_path: Path, miniature_model: Path) -> None:
    knobs = {"steps": 6, "batch_size": 4, "learning_rate": 1e30, "warmup": 0.0}
    ctx = begin_round(make_lineage(tmp_path, miniature_model, train=knobs), "r001", "base", "fresh")
    with pytest.raises(AdaptInfError, match=r"at step 2 of 6.\n.*Lower train\.learning_rate"):
        train.run(ctx)
    assert not ctx.project.output("r001", "model").exists()


def test_rows_stand_in_candidate_order_whatever_the_selections_order(tmp_path: Path, miniature_model: Path) -> None:
    ctx = begin_round(make_lineage(tmp_path, miniature_model), "r001", "base", "fresh")
    expected = candidates(ctx)["sample_id"].tolist()
    write_selection(ctx, expected[::-1])
    assert selected_rows(ctx)["sample_id"].tolist() == expected


@pytest.mark.parametrize(("names", "problem"), [([], "selects nothing"), (["fresh/none"], "nothing to train on")])
def test_a_selection_that_does_not_fit_is_refused(
    tmp_path: Path, miniature_model: Path, names: list[str], problem: str
) -> None:
    ctx = begin_round(make_lineage(tmp_path, miniature_model, base_eval=0), "r001", "base", "fresh")
    write_selection(ctx, names)
    with pytest.raises(StageInputError, match=problem):
        train.run(ctx)
    write_selection(ctx, [candidates(ctx)["sample_id"][0], "fresh/none"])
    with pytest.raises(StageInputError, match="1 of which are candidates"):
        train.run(ctx)
    assert not ctx.project.output("r001", "model").exists()
