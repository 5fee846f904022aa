"""Rounds over shared services: Prefect and MLflow on PostgreSQL, drops and pools in S3. `make production` runs this.

The servers are real and of this machine: Debian's PostgreSQL, Prefect's and MLflow's own, and moto for S3.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import boto3
import pytest
from machine import Machine
from make_drop import make_drop
from miniature import make_miniature
from mlflow import MlflowClient
from postgres import PASSWORD, Postgres, postgres
from projects import PARAMS
from s3 import s3_server, settings_of
from serving import ServedMachine, answers, prefect_server, until

from adapt_inf.config import set_values
from adapt_inf.creation import definition
from adapt_inf.project import Project

SECRET = "another-word-that-nobody-may-read"


@dataclass(frozen=True)
class Site(ServedMachine):
    """A machine whose environment names the services, with their secrets."""

    services: dict[str, str] = field(default_factory=dict)

    def environment(self) -> dict[str, str]:
        return super().environment() | self.services


@dataclass(frozen=True)
class Production:
    site: Site
    database: Postgres
    project: Project

    @property
    def mlflow(self) -> MlflowClient:
        return MlflowClient(self.site.services["MLFLOW_TRACKING_URI"])


@pytest.fixture(scope="module")
def production() -> Iterator[Production]:
    """Everything up, and a project with two rounds; PostgreSQL was killed and started again during the second."""
    # PostgreSQL is another user, who must be able to come here.
    with ExitStack() as stack:
        home = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="production-")))
        home.chmod(0o755)
        database = stack.enter_context(postgres(home / "postgres"))
        services = stack.enter_context(_s3())
        database.create("prefect")
        database.create("mlflow")
        services["MLFLOW_TRACKING_URI"] = stack.enter_context(_mlflow(home, database, services))
        stack.enter_context(
            _set("PREFECT_SERVER_DATABASE_CONNECTION_URL", database.address("prefect", "postgresql+asyncpg"))
        )
        machine = stack.enter_context(prefect_server(home))
        site = Site(home, machine.api, services)
        project = _project(site)
        site.run("adapt-inf", "drop", "s3://drops/first", cwd=project.root)
        site.run("adapt-inf", "round", cwd=project.root)
        site.run("adapt-inf", "drop", "s3://drops/second", cwd=project.root)
        _round_over_a_restart(site, database, project)
        site.run("adapt-inf", "push", "r001", "r002", cwd=project.root)
        yield Production(site, database, project)


@contextmanager
def _set(name: str, value: str) -> Iterator[None]:
    os.environ[name] = value
    try:
        yield
    finally:
        del os.environ[name]


@contextmanager
def _s3() -> Iterator[dict[str, str]]:
    with s3_server() as server:
        yield settings_of(*server, secret=SECRET)


def _bucket(services: dict[str, str]) -> Any:
    return boto3.client(
        "s3",
        endpoint_url=services["AWS_ENDPOINT_URL"],
        aws_access_key_id=services["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=services["AWS_SECRET_ACCESS_KEY"],
        region_name=services["AWS_DEFAULT_REGION"],
    )


@contextmanager
def _mlflow(home: Path, database: Postgres, services: dict[str, str]) -> Iterator[str]:
    """`mlflow server`, as docs/production.md starts it."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    settings = {
        "MLFLOW_BACKEND_STORE_URI": database.address("mlflow"),
        "MLFLOW_ARTIFACTS_DESTINATION": "s3://artifacts",
        "MLFLOW_DISABLE_TELEMETRY": "true",
    }
    address = f"http://127.0.0.1:{port}"
    _bucket(services).create_bucket(Bucket="artifacts")
    with open(home / "mlflow.log", "wb") as log:
        server = subprocess.Popen(
            ["mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"],
            env=Machine(home).environment() | services | settings,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        try:
            until(lambda: answers(address), "MLflow answers")
            yield address
        finally:
            os.killpg(server.pid, signal.SIGTERM)
            server.wait(30)


def _project(site: Site) -> Project:
    """A project whose remote is a bucket, and two drops in another."""
    model = make_miniature(site.home / "model")
    store = _bucket(site.services)
    store.create_bucket(Bucket="pools")
    store.create_bucket(Bucket="drops")
    for name in ("known", "first", "second"):
        folder = make_drop(site.home / name, name, train=96, eval=16, seed=len(name))
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                store.upload_file(str(path), "drops", f"{name}/{path.relative_to(folder).as_posix()}")
    params = site.home / "params.yaml"
    params.write_text(set_values(definition("params.yaml"), PARAMS), encoding="utf-8")
    root = site.home / "line"
    site.run("adapt-inf", "init", str(root), "--model", str(model), "--pool", "known", "--params", str(params))
    site.run("dvc", "remote", "add", "-d", "store", "s3://pools/line", cwd=root)
    return Project(root)


def _round_over_a_restart(site: Site, database: Postgres, project: Project) -> None:
    """A round in whose midst PostgreSQL is killed, and started again five seconds later."""
    with open(site.home / "round.log", "wb") as log:
        run = subprocess.Popen(["adapt-inf", "round"], cwd=project.root, env=site.environment(), stdout=log, stderr=log)
        until(lambda: project.output("r002", "cluster").exists(), "the second round is at work")
        database.stop("immediate")
        time.sleep(5)
        database.start()
        run.wait(300)
    print((site.home / "round.log").read_text(encoding="utf-8"))
    assert run.returncode == 0, "the round goes on"


def test_both_rounds_are_done_and_whole(production: Production) -> None:
    site, project = production.site, production.project
    entries = site.lineage(project)
    assert [(entry["round"], entry["status"], entry["drop"]) for entry in entries] == [
        ("r001", "finished", "first"),
        ("r002", "finished", "second"),
    ]
    assert [entry["round"] for entry in entries if entry["head"]] == ["r002"]
    lines = site.run("adapt-inf", "verify", cwd=project.root).stdout.splitlines()
    assert [line.split()[:2] for line in lines] == [[name, "ok"] for name in ("base", "r001", "r002")]


def test_mlflow_has_them_in_postgresql_and_their_files_in_s3(production: Production) -> None:
    production.site.run("adapt-inf", "track", cwd=production.project.root)  # what it missed meanwhile
    client = production.mlflow
    (experiment,) = [each for each in client.search_experiments() if each.name != "Default"]
    runs = client.search_runs([experiment.experiment_id], max_results=100)
    rounds = [run for run in runs if run.data.tags.get("adapt_inf.kind") == "round"]
    stages = [run for run in runs if run.data.tags.get("adapt_inf.kind") == "stage"]
    assert sorted(run.data.tags["adapt_inf.round"] for run in rounds) == ["r001", "r002"]
    assert len(stages) == 16
    assert {run.info.status for run in [*rounds, *stages]} == {"FINISHED"}
    assert {version.tags["round"] for version in client.search_model_versions()} == {"r001", "r002"}
    listed = _bucket(production.site.services).list_objects_v2(Bucket="artifacts")["Contents"]
    for name in ("report.html", "selectors.json", "adapter_model.safetensors"):
        assert sum(entry["Key"].endswith(f"/{name}") for entry in listed) >= 2, name
    assert f"adapt_inf.round\t{'r002'}" in production.database.dump("mlflow").replace("\\t", "\t")


def test_prefect_has_their_runs_in_postgresql(production: Production) -> None:
    runs = production.site.runs("round")
    assert {run["name"] for run in runs} >= {"r001", "r002"}
    assert runs[-1]["state_type"] == "COMPLETED"
    assert "r002" in production.database.dump("prefect")


def test_a_second_machine_goes_on_from_the_bucket(production: Production, tmp_path: Path) -> None:
    site, clone = production.site, Project(tmp_path / "clone")
    subprocess.run(["git", "clone", "--quiet", production.project.root, clone.root], check=True)
    site.run("adapt-inf", "pull", cwd=clone.root)
    lines = site.run("adapt-inf", "verify", "base", "r002", cwd=clone.root).stdout.splitlines()
    assert [line.split()[:2] for line in lines] == [["base", "ok"], ["r002", "ok"]]


def test_no_secret_is_in_a_file_a_log_or_a_run(production: Production) -> None:
    words = [PASSWORD.encode(), SECRET.encode()]
    home = production.site.home
    looked = [path for path in home.rglob("*") if path.is_file() and not path.is_symlink()]
    looked = [path for path in looked if home / "postgres" not in path.parents]
    assert any(path.name == "round.log" for path in looked)
    assert [path for path in looked for word in words if word in path.read_bytes()] == []
    store = _bucket(production.site.services)
    for bucket in ("pools", "artifacts"):
        stored = [each["Key"] for each in store.list_objects_v2(Bucket=bucket)["Contents"]]
        assert len(stored) > 10
        for key in stored:
            content = store.get_object(Bucket=bucket, Key=key)["Body"].read()
            assert not any(word in content for word in words), key
    objects = ["git", "cat-file", "--batch-all-objects", "--batch"]
    committed = subprocess.run(objects, cwd=production.project.root, capture_output=True, check=True).stdout
    assert len(committed) > 10_000
    assert not any(word in committed for word in words)
    for database in ("prefect", "mlflow"):
        dumped = production.database.dump(database).encode()
        assert len(dumped) > 10_000
        assert not any(word in dumped for word in words), database
