"""The store of a project: where it lies, that it opens again, and names that MLflow takes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from killing import kill_at
from mlflow import MlflowClient
from mlflow.utils.validation import _validate_metric_name
from tracked_project import empty_project

from adapt_inf.errors import AdaptInfError
from adapt_inf.files import write_json
from adapt_inf.project import BASE, SOURCE, Project
from adapt_inf.tracking.store import MLflowError, connect, metric_key, open_store, skill_key
from adapt_inf.tracking.summary import mlflow_command


def test_the_store_lies_in_the_project_and_opens_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    project = empty_project(tmp_path / "garden")
    client = open_store(project)
    (experiment,) = [each for each in client.search_experiments() if each.name != "Default"]
    assert experiment.name == "garden"
    assert experiment.artifact_location == (project.root / "mlartifacts").as_uri()
    assert (project.root / "mlflow.db").is_file()
    assert connect(Project(project.root)).experiment_id == experiment.experiment_id


def test_the_environment_names_another_store(project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'elsewhere.db'}")
    assert open_store(project).get_experiment_by_name("garden") is not None
    assert (tmp_path / "elsewhere.db").is_file()
    assert not MlflowClient(f"sqlite:///{project.root / 'mlflow.db'}").get_experiment_by_name("garden")


def test_projects_of_one_name_keep_apart_and_a_renamed_one_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'shared.db'}")
    stores = []
    for team in ("red", "blue"):
        project = empty_project(tmp_path / team / "garden")
        write_json(project.round(BASE) / SOURCE, {"project": team * 8})
        stores.append(connect(project))
    assert [store.name for store in stores] == ["garden", "garden-bluebl"]
    for team, store in zip(("red", "blue"), stores, strict=True):
        (tmp_path / team / "garden").rename(tmp_path / team / "orchard")
        again = connect(Project(tmp_path / team / "orchard"))
        assert (again.experiment_id, again.name) == (store.experiment_id, store.name)
    assert stores[0].experiment_id != stores[1].experiment_id


def test_a_database_is_laid_out_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its migrations cannot be taken again where a process is killed among them."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    project = empty_project(tmp_path / "killed")
    script = "import sys; from pathlib import Path; from adapt_inf.project import Project\n"
    script += "from adapt_inf.tracking.store import connect; connect(Project(Path(sys.argv[1])))"
    kill_at(project.rounds, ".mlflow.db", script, str(project.root), cwd=tmp_path, env=os.environ)
    assert not (project.root / "mlflow.db").exists()
    assert connect(project).name == "killed"
    assert [path.name for path in project.rounds.glob(".mlflow*")] == [".mlflow.lock"]


def test_a_database_that_cannot_be_used_is_named_with_the_mend(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    broken = empty_project(tmp_path / "broken")
    (broken.root / "mlflow.db").write_bytes(b"no database at all" * 100)
    with pytest.raises(MLflowError, match=r"cannot use .*mlflow\.db \(.*\n  Move that file away: `adapt-inf track`"):
        connect(broken)
    assert mlflow_command(broken, "r001").startswith("mlflow ui --backend-store-uri sqlite:")


def test_a_server_that_does_not_answer_is_named(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(AdaptInfError, match=r"MLflow at http://127.0.0.1:9 does not answer .*\n.*MLFLOW_TRACKING_URI"):
        open_store(project)


@settings(max_examples=200, deadline=None)
@given(st.text(min_size=1, max_size=300))
def test_every_name_becomes_a_metric_that_mlflow_takes(name: str) -> None:
    _validate_metric_name(metric_key(name))
    _validate_metric_name(skill_key(f"suite/{name}"))


@pytest.mark.parametrize(
    ("one", "other"), [("a/b?", "a/b!"), ("a.b/c", "a/b.c"), ("a/b/c", "a/b.c"), ("é" * 260, "é" * 261)]
)
def test_two_skills_never_share_a_metric(one: str, other: str) -> None:
    assert skill_key(one) != skill_key(other)


def test_the_orchestrators_imports_leave_torch_out() -> None:
    modules = ", ".join(f"adapt_inf.tracking.{name}" for name in ("rounds", "timeline", "summary"))
    code = f"import sys, {modules}, mlflow; sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
    code = "import sys; import adapt_inf.tracking.summary; sys.exit('mlflow' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
