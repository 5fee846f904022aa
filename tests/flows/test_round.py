"""Two rounds end to end: what they leave on disk, in DVC, in git, in MLflow; run twice."""

from __future__ import annotations

import shutil
from pathlib import Path

import pandas as pd
from machine import Machine, copy_project
from mlflow.tracking import MlflowClient

from adapt_inf import lineage
from adapt_inf.drop_queue import refused_drops
from adapt_inf.files import folder_digest, read_json
from adapt_inf.project import Project
from adapt_inf.stages.runner import STAGES
from adapt_inf.tracking.store import NOTE, ROUND, connect, find_runs


def test_both_rounds_end_on_a_line_from_base(machine: Machine, two_rounds: Project) -> None:
    first, second = machine.lineage(two_rounds)
    assert [first["round"], first["parent"], first["drop"]] == ["r001", "base", "first"]
    assert [second["round"], second["parent"], second["drop"]] == ["r002", "r001", "second"]
    for entry in (first, second):
        assert entry["status"] == "finished"
        assert entry["strategy"] == "adapt_inf"
        assert entry["pool_size"] <= 120
        assert 0 < entry["selected"] <= entry["candidates"] * 0.25
        assert entry["model_version"] is not None
        assert {"average_accuracy", "forgetting", "backward_transfer", "forward_transfer", "skills"} <= set(
            entry["metrics"]
        )
    assert lineage.head(two_rounds) == "r002"


def test_the_selection_is_exact(two_rounds: Project) -> None:
    for round_id in ("r001", "r002"):
        selected = pd.read_parquet(two_rounds.output(round_id, "select") / "selected.parquet")
        table = read_json(two_rounds.output(round_id, "select") / "selectors.json")
        assert selected["sample_id"].is_unique
        assert len(selected) == table["budget"] == sum(cluster["selected"] for cluster in table["clusters"])
        for cluster in table["clusters"]:
            entropies = {name: value for name, value in cluster["entropies"].items() if value is not None}
            if cluster["selector"] in entropies:
                assert entropies[cluster["selector"]] == max(entropies.values())


def test_what_was_pruned_stays_out_and_no_evaluation_image_is_in_a_pool(two_rounds: Project) -> None:
    first, second = (pd.read_parquet(two_rounds.output(r, "pool") / "manifest.parquet") for r in ("r001", "r002"))
    gone = set(first.loc[~first["live"], "sample_id"])
    assert gone, "the cap is meant to bite"
    assert gone.isdisjoint(second.loc[second["live"], "sample_id"])
    suites = two_rounds.output("r002", "pool") / "suites"
    hashes = {value for path in suites.glob("*.json") for values in read_json(path).values() for value in values}
    assert hashes
    assert hashes.isdisjoint({value for values in second["image_hashes"] for value in values})


def test_dvc_is_clean_and_shows_the_lineage(machine: Machine, two_rounds: Project) -> None:
    status = machine.run("dvc", "status", cwd=two_rounds.root)
    assert "up to date" in status.stdout
    dag = machine.run("dvc", "dag", "--dot", cwd=two_rounds.root).stdout
    assert '"rounds/r001/dvc.yaml:train" -> "rounds/r002/dvc.yaml:train"' in dag
    assert 'rounds/base/pool.dvc" -> "rounds/r001/dvc.yaml:ingest"' in dag


def test_each_round_is_a_commit_and_a_tag(machine: Machine, two_rounds: Project) -> None:
    assert machine.run("git", "tag", cwd=two_rounds.root).stdout.split() == ["round/base", "round/r001", "round/r002"]
    assert machine.run("git", "status", "--porcelain", cwd=two_rounds.root).stdout == ""
    shown = machine.run("git", "show", "--name-only", "--format=%s", "round/r002", cwd=two_rounds.root).stdout.split(
        "\n"
    )
    assert shown[0] == "Round r002: take in second (adapt_inf)"
    assert set(filter(None, shown[1:])) == {
        "rounds/head.json",
        "rounds/history.jsonl",
        *(f"rounds/r002/{name}" for name in (".gitignore", "dvc.lock", "dvc.yaml", "params.yaml", "round.json")),
    }


def test_mlflow_has_the_rounds_their_stages_and_the_champion(two_rounds: Project, machine: Machine) -> None:
    client = MlflowClient(f"sqlite:///{two_rounds.root / 'mlflow.db'}")
    (experiment,) = [each for each in client.search_experiments() if each.name != "Default"]
    runs = client.search_runs([experiment.experiment_id], max_results=200)
    by_round = {run.data.tags.get("adapt_inf.round"): run for run in runs if "mlflow.parentRunId" not in run.data.tags}
    for round_id in ("r001", "r002"):
        parent = by_round[round_id]
        children = [run for run in runs if run.data.tags.get("mlflow.parentRunId") == parent.info.run_id]
        assert {run.info.run_name.split()[-1] for run in children} == set(STAGES)
        assert {run.info.status for run in [parent, *children]} == {"FINISHED"}
        assert len(parent.inputs.dataset_inputs) >= 2
    (model,) = client.search_registered_models()
    entries = machine.lineage(two_rounds)
    assert int(client.get_model_version_by_alias(model.name, "champion").version) == entries[1]["model_version"]
    assert int(client.get_model_version_by_alias(model.name, "previous").version) == entries[0]["model_version"]
    version = client.get_model_version_by_alias(model.name, "champion")
    commit = machine.run("git", "rev-list", "-n1", "round/r002", cwd=two_rounds.root).stdout.strip()
    assert version.tags["commit"] == commit


def test_nothing_pending_means_nothing_is_done(machine: Machine, two_rounds: Project) -> None:
    before = folder_digest(two_rounds.rounds)
    assert "Nothing to do" in machine.run("adapt-inf", "round", cwd=two_rounds.root).stdout
    assert folder_digest(two_rounds.rounds) == before


def test_a_lost_output_comes_back_and_the_stages_before_it_do_not_run(machine: Machine, two_rounds: Project) -> None:
    entries = machine.lineage(two_rounds)
    before = folder_digest(two_rounds.output("r001", "select"))
    shutil.rmtree(two_rounds.output("r001", "select"))
    status = machine.here("status", cwd=two_rounds.root)
    assert "its select is gone" in status.stdout
    done = machine.run("adapt-inf", "round", cwd=two_rounds.root)
    for stage in ("ingest", "sketch", "cluster", "score"):
        assert f"r001 {stage:<9} up to date" in done.stderr
    assert folder_digest(two_rounds.output("r001", "select")) == before
    assert machine.lineage(two_rounds) == entries
    assert lineage.head(two_rounds) == "r002"


def test_a_finished_round_stands_when_a_lost_output_cannot_come_back(
    machine: Machine, two_rounds: Project, tmp_path: Path
) -> None:
    project = copy_project(two_rounds, tmp_path / "spoilt")
    before = machine.lineage(project)
    shutil.rmtree(project.output("r001", "ingest"))
    (project.drop("first") / "dataset.yaml").write_text("name: first\ntrain: t.csv\nformat: csv\n", encoding="utf-8")
    refused = machine.run("adapt-inf", "round", cwd=project.root, check=False)
    assert refused.returncode == 1
    assert "drop first: unknown format 'csv'" in refused.stderr
    assert machine.lineage(project) == before
    assert lineage.head(project) == "r002"


def test_a_drop_with_no_good_sample_changes_nothing(machine: Machine, two_rounds: Project, tmp_path: Path) -> None:
    project = copy_project(two_rounds, tmp_path / "refusing")
    drop = tmp_path / "broken"
    drop.mkdir()
    (drop / "dataset.yaml").write_text("name: broken\ntrain: train.jsonl\n", encoding="utf-8")
    (drop / "train.jsonl").write_text('{"id": "1", "image": "gone.png", "conversations": []}\n', encoding="utf-8")
    before = machine.lineage(project)
    machine.here("drop", str(drop), cwd=project.root)
    refused = machine.run("adapt-inf", "round", cwd=project.root, check=False)
    assert refused.returncode == 1
    assert "adapt-inf: drop broken: " in refused.stderr
    assert "Traceback" not in refused.stderr
    assert machine.lineage(project) == before
    assert lineage.head(project) == "r002"
    assert "broken" in refused_drops(project)
    by_status = {
        run.data.tags.get("adapt_inf.stage", "round"): run for run in find_runs(connect(project), {ROUND: "r003"})
    }
    assert {name: run.info.status for name, run in by_status.items()} == {"round": "FAILED", "ingest": "FAILED"}
    assert "drop broken" in by_status["ingest"].data.tags[NOTE]
    assert "**Why it stopped**: drop broken" in by_status["round"].data.tags[NOTE]
    assert "Nothing to do" in machine.run("adapt-inf", "round", cwd=project.root).stdout
