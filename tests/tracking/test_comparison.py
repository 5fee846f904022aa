"""A comparison in MLflow: one run that holds it, however often it is logged."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from mlflow.entities import Run
from scored_lineages import found_of, plan

from adapt_inf.comparison.figures import Outcome, rows
from adapt_inf.comparison.pictures import write_pictures
from adapt_inf.comparison.table import comparison_text
from adapt_inf.files import write_json
from adapt_inf.project import Project
from adapt_inf.tracking.comparison import COMPARISON, log_comparison
from adapt_inf.tracking.store import KIND, NOTE, connect, find_runs


def log(project: Project, found: list[Outcome], seeds: int = 2) -> str:
    folder = project.root / "comparisons" / "first"
    write_json(folder / "results.json", {})
    write_pictures(folder / "pictures", rows(found), found)
    told = plan("adapt_inf", "random", seeds=seeds)
    return log_comparison(project, folder, told, rows(found), found, comparison_text(told, rows(found)))


def runs(project: Project) -> list[Run]:
    return find_runs(connect(project), {KIND: "comparison", COMPARISON: "first"})


def artifact(project: Project, run_id: str, name: str) -> str:
    return Path(connect(project).client.download_artifacts(run_id, name)).read_text(encoding="utf-8")


def test_a_comparison_is_one_run_with_table_curves_and_pictures(project: Project) -> None:
    found = found_of([0.1, 0.2])
    run_id = log(project, found)
    (run,) = runs(project)
    assert (run.info.run_id, run.info.status, run.info.run_name) == (run_id, "FINISHED", "comparison first")
    assert run.data.params["strategies"] == "['adapt_inf', 'random']"
    assert "no difference shown" in run.data.tags[NOTE]
    client = connect(project).client
    curve = client.get_metric_history(run_id, "random.average_accuracy")
    assert [(point.step, point.value) for point in curve] == [(1, 0.6), (2, pytest.approx(1.4 / 3 + 0.05))]
    assert run.data.metrics["random.average_accuracy.half"] == pytest.approx(12.7062 * 0.05, abs=1e-4)
    table = json.loads(artifact(project, run_id, "comparison.json"))
    assert table["columns"][:4] == ["strategy", "seeds", "average_accuracy", "average_accuracy ±"]
    assert [row[:2] for row in table["data"]] == [["adapt_inf", 2], ["random", 2]]
    assert all(len(row) == len(table["columns"]) for row in table["data"])
    differences = json.loads(artifact(project, run_id, "against_random.json"))
    assert all(len(row) == len(differences["columns"]) for row in differences["data"])
    assert len(differences["data"]) > 3
    names = {file.path for folder in (None, "pictures") for file in client.list_artifacts(run_id, folder)}
    assert {"results.json", "pictures/figures.svg", "pictures/average_accuracy.svg", "pictures/forgetting.svg"} <= names


def test_logging_it_again_adds_nothing(project: Project) -> None:
    run_id = log(project, found_of([0.1, 0.2]))
    points = [len(connect(project).client.get_metric_history(run_id, name)) for name in runs(project)[0].data.metrics]
    assert log(project, found_of([0.1, 0.2])) == run_id
    (run,) = runs(project)
    assert [len(connect(project).client.get_metric_history(run_id, name)) for name in run.data.metrics] == points


def test_other_figures_of_the_same_comparison_take_its_place(project: Project) -> None:
    log(project, found_of([0.1, 0.2]))
    before = runs(project)[0].data.metrics["adapt_inf.average_accuracy"]
    second = log(project, found_of([0.05, 0.1]))
    (run,) = runs(project)
    assert run.info.run_id == second
    assert run.data.metrics["adapt_inf.average_accuracy"] < before, "of two at one step MLflow shows the larger"


def test_another_one_of_that_name_takes_its_place(project: Project) -> None:
    first = log(project, found_of([0.1, 0.2]))
    second = log(project, found_of([0.1, 0.2, 0.3]), seeds=3)
    (run,) = runs(project)
    assert run.info.run_id == second != first
