"""`adapt-inf compare` from its start, through a kill, to its table: against the rounds that `adapt-inf round` ran."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import time
from collections import Counter
from pathlib import Path
from typing import Any

import psutil
import pytest
from machine import Machine, copy_project

from adapt_inf.cli import main
from adapt_inf.comparison.plan import read_plan
from adapt_inf.comparison.run import store_of, walks_of
from adapt_inf.comparison.walk import Walk
from adapt_inf.files import folder_digest, read_json
from adapt_inf.project import Project

OPTIONS = ("--strategies", "adapt_inf,random", "--seeds", "1", "--vary", "prune.pool_cap=120,null")
BEFORE_KILL = 5  # results
PATIENCE = 300.0  # seconds, on a loaded machine too


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory, machine: Machine, two_rounds: Project) -> Project:
    """Two rounds (seed 0, a cap of 120), compared: killed on the way and begun again."""
    project = copy_project(two_rounds, tmp_path_factory.mktemp("compared") / "project")
    command = ["adapt-inf", "compare", *OPTIONS]
    process = subprocess.Popen(
        command, cwd=project.root, env=machine.environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    until = time.monotonic() + PATIENCE
    while len(_records(project)) < BEFORE_KILL:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < until
        time.sleep(0.01)
    others = psutil.Process(process.pid).children(recursive=True)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    assert psutil.wait_procs(others, timeout=10)[1] == []  # none works on
    done = machine.run(*command, cwd=project.root)
    (project.root / "printed").write_text(done.stdout + done.stderr)
    return project


def _records(project: Project) -> list[Path]:
    return sorted(store_of(project).folder.glob("*/record.json"))


def _walks(project: Project) -> dict[str, Walk]:
    plan = read_plan(project.root / "comparisons" / "compare")
    assert plan is not None
    return {str(walk.line): walk for walk in walks_of(project, plan)}


def _digests(walk: Walk) -> dict[str, str]:
    return {step.stage.out: result.digest for step, result in zip(walk.steps, walk.results, strict=True)}


def _results(project: Project) -> dict[str, Any]:
    return read_json(project.root / "comparisons" / "compare" / "results.json")


def test_a_lineage_is_that_of_the_rounds_by_hash(compared: Project) -> None:
    found = _digests(_walks(compared)["seed 0 adapt_inf prune.pool_cap=120"])
    for round_id in ("r001", "r002"):
        for name in ("ingest", "sketch", "cluster", "score", "select", "pool", "model", "evaluate"):
            assert found[f"rounds/{round_id}/{name}"] == folder_digest(compared.output(round_id, name)), (
                round_id,
                name,
            )


def test_a_strategy_without_sketches_trains_and_keeps_the_same(compared: Project) -> None:
    walks = _walks(compared)
    whole, short = (walks[f"seed 0 random prune.pool_cap={cap}"] for cap in ("120", "null"))
    assert {step.stage.name for step in short.steps} == {"ingest", "read", "draw", "prune", "train", "evaluate"}
    assert _digests(whole)["rounds/r001/model"] == _digests(short)["rounds/r001/model"]
    assert (
        _digests(short)["rounds/r002/pool"]
        == _digests(walks["seed 0 adapt_inf prune.pool_cap=null"])["rounds/r002/pool"]
    )


def test_what_lineages_share_is_computed_once(compared: Project) -> None:
    made = Counter((read_json(path)["stage"], read_json(path)["round"]) for path in _records(compared))
    assert made["ingest", "r001"] == made["sketch", "r001"] == made["cluster", "r001"] == 1
    assert made["ingest", "r002"] == 3  # after no pruning all pools are the same
    assert made["train", "r001"] == 3  # adapt_inf, random, and random with another list of the same samples
    left = {path.name for path in (compared.root / "comparisons").iterdir()}
    assert left == {".gitignore", ".lock", ".store", "compare"}  # no bench is left


def test_sketches_of_seeds_that_are_done_take_no_room(compared: Project) -> None:
    there = {read_json(path)["stage"] for path in _records(compared) if (path.parent / "out").is_dir()}
    assert there == {"ingest", "read", "select", "draw", "prune", "train", "evaluate"}


def test_the_project_is_as_it_was(compared: Project, two_rounds: Project, machine: Machine) -> None:
    for folder in ("rounds", "drops"):
        files = [
            {
                path.relative_to(project.root): path.read_bytes()
                for path in (project.root / folder).rglob("*")
                if path.is_file()
            }
            for project in (compared, two_rounds)
        ]
        assert files[0] == files[1]
    assert machine.run("git", "status", "--short", cwd=compared.root).stdout == "?? printed\n"


def test_the_table_has_a_row_for_each_and_says_what_is_missing(compared: Project) -> None:
    printed = (compared.root / "printed").read_text()
    rows = [line.split() for line in printed.splitlines()]
    for cap in ("120", "null"):
        for strategy in ("adapt_inf", "random"):
            (row,) = [row for row in rows if row[:3] == [cap, strategy, "1"]]
            assert row[4] == "-"  # the relative gain
    assert "No relative gain: it is relative to the strategy `full`, which is not among --strategies." in printed
    assert "No intervals: they need two seeds at least." in printed
    assert printed.count("against random") == printed.count("against prune.pool_cap=120") == 1
    assert len([row for row in rows if row[:3] == ["null", "adapt_inf", "average"]]) == 2, "against either"
    assert "4 lineages of 2 rounds, 0 of them done already" in printed


def test_results_hold_every_round_of_every_seed(compared: Project) -> None:
    results = _results(compared)
    assert results["missing"] == 0
    assert [(line["variant"], line["strategy"]) for line in results["lineages"]] == [
        ({"prune.pool_cap": cap}, strategy) for cap in (120, None) for strategy in ("adapt_inf", "random")
    ]
    for line in results["lineages"]:
        assert [each["round"] for each in line["rounds"]] == ["r001", "r002"]
        assert line["rounds"][0]["samples"] < line["rounds"][1]["samples"]
        assert 0 < line["rounds"][0]["seconds"] < line["rounds"][1]["seconds"]
    first = results["lineages"][0]["rounds"][1]
    figures = read_json(compared.output("r002", "evaluate") / "metrics.json")
    assert first["average_accuracy"] == figures["average_accuracy"]
    assert first["forgetting"] == figures["forgetting"]
    for walk, line in zip(_walks(compared).values(), results["lineages"], strict=True):
        took = [result.record["seconds"] for result in walk.results]
        assert line["rounds"][-1]["seconds"] == pytest.approx(sum(took), abs=0.1), "also what another had computed"
    short, whole = (results["lineages"][at]["rounds"][0]["cpu_seconds"] for at in (3, 1))
    assert short < whole, "without sketches it costs less"


def test_begun_again_it_computes_nothing_and_says_the_same(
    compared: Project, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    times = {path: path.stat().st_mtime_ns for path in _records(compared)}
    for more in ((), ("--so-far",)):
        assert main(["compare", "-C", str(compared.root), "--json", *more]) == 0
        assert json.loads(capsys.readouterr().out) == _results(compared)
    assert {path: path.stat().st_mtime_ns for path in _records(compared)} == times


def test_what_an_earlier_seed_threw_away_is_made_again_where_it_is_needed(
    compared: Project, tmp_path: Path, machine: Machine
) -> None:
    """One after the other: `full` with a cap needs the sketches of the first round, without only who is read."""
    project = copy_project(compared, tmp_path / "copy")
    options = ("--strategies", "full", "--seeds", "2", "--vary", "prune.pool_cap=120,null", "--drops", "first")
    done = machine.run("adapt-inf", "compare", "--name", "more", "--jobs", "1", "--json", *options, cwd=project.root)
    found = json.loads(done.stdout)
    assert [(line["seed"], line["variant"]["prune.pool_cap"]) for line in found["lineages"]] == [
        (seed, cap) for seed in (0, 1) for cap in (120, None)
    ]
    assert {line["rounds"][0]["samples"] for line in found["lineages"]} == {192}
    capped, whole = (line["rounds"][0] for line in found["lineages"][:2])
    assert capped["skills"] == whole["skills"]
    assert found["rows"][0]["means"]["average_accuracy"]["n"] == 2


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--seeds", "2"], "comparison compare was begun otherwise: "),
        (["--name", "other", "--so-far"], "There is no comparison other."),
        (["--so-far", "--seeds", "1"], "--so-far shows what was begun"),
        (["--name", "../x"], "--name ../x: that is no name"),
        (["--name", "other", "--seeds", "0"], "--seeds 0: there must be one at least"),
        (["--jobs", "0"], "--jobs 0: there must be one at least"),
        (["--name", "other", "--strategies", ","], "--strategies names nothing"),
        (["--name", "other", "--set", "train.steps"], "--set train.steps: that is no key with a value"),
        (["--name", "other", "--vary", "cluster.k="], "--vary cluster.k=: the values must be some"),
        (["--name", "other", "--vary", "cluster.k=3,3"], "the values must be some, and each another"),
        (["--name", "other", "--set", "cluster.k=[3"], "cluster.k=[3: the value cannot be read"),
    ],
)
def test_wrong_options_are_named(
    compared: Project, arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["compare", "-C", str(compared.root), *arguments]) == 1
    printed = capsys.readouterr()
    assert words in printed.err
    assert printed.err.count("\n") == 2  # what is wrong, and the mend
    assert printed.out == ""


def test_a_second_one_at_work_is_named(compared: Project, capsys: pytest.CaptureFixture[str]) -> None:
    with open(compared.root / "comparisons" / ".lock", "r+") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        lock.truncate(0)
        lock.write("compare (process 7)")
        lock.flush()
        assert main(["compare", "-C", str(compared.root)]) == 1
        assert "Comparison compare (process 7) is at work in" in capsys.readouterr().err
        assert main(["compare", "-C", str(compared.root), "--so-far"]) == 0


def test_without_mlflow_the_table_is_there_and_the_same_command_sends_it_later(
    compared: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    project = copy_project(compared, tmp_path / "copy")
    for uri, words in (("http://127.0.0.1:9", "MLflow has not got it ("), ("", "MLflow has it, too.")):
        monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
        assert main(["compare", "-C", str(project.root)]) == 0
        printed = capsys.readouterr()
        assert "prune.pool_cap  strategy" in printed.out
        assert words in printed.err
