"""What a round of another size would cost, from what two rounds took."""

from __future__ import annotations

import json
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from machine import copy_project

from adapt_inf import costs, earlier_rounds
from adapt_inf.cli import main
from adapt_inf.config import Params, load_params, set_values
from adapt_inf.costs import Estimate, estimate_round, pool_seconds
from adapt_inf.earlier_rounds import EarlierRounds
from adapt_inf.errors import AdaptInfError, RoundError
from adapt_inf.files import read_json, write_json
from adapt_inf.project import Project
from adapt_inf.stages.runner import STAGES


def by_stage(estimate: Estimate) -> dict[str, costs.StageCost]:
    assert tuple(each.stage for each in estimate.stages) == STAGES
    return {each.stage: each for each in estimate.stages}


def test_on_this_machine_it_goes_by_the_rates_of_its_rounds(two_rounds: Project) -> None:
    earlier = EarlierRounds(two_rounds, load_params(two_rounds.params_file))
    small, large = (by_stage(estimate_round(two_rounds, pool=n)) for n in (1000, 4000))
    for stage in ("sketch", "score"):
        fixed, each = earlier.line(stage)  # type: ignore[misc]
        assert small[stage].seconds == pytest.approx(fixed + earlier.span(stage, 1000) * each)
        assert large[stage].seconds == pytest.approx(fixed + earlier.span(stage, 4000) * each)
    assert large["ingest"].samples == 400  # a tenth is new
    assert large["evaluate"].seconds == small["evaluate"].seconds
    estimate = estimate_round(two_rounds, pool=1000)
    assert estimate.measured == ["r001", "r002"]
    assert estimate.seconds == pytest.approx(
        sum(each.seconds or 0 for each in estimate.stages) + (estimate.between_seconds or 0)
    )


def test_training_goes_by_the_samples_that_its_seconds_were_of(two_rounds: Project, tmp_path: Path) -> None:
    project = copy_project(two_rounds, tmp_path / "trained")
    for name, samples, speed in (("r001", 200, 250.0), ("r002", 600, 180.0)):  # the loop's own speed does not matter
        path = project.log(name) / "train.json"
        log = read_json(path)
        log["report"] |= {"trained_samples": samples, "samples_per_second": speed}
        write_json(path, log | {"seconds": 1.5 + 0.004 * samples})
    earlier = EarlierRounds(project, load_params(project.params_file))
    assert earlier.line("train") == pytest.approx((1.5, 0.004))
    assert earlier.seconds("train", 300) == pytest.approx(300 * (2.3 / 200 + 3.9 / 600) / 2)
    for name in ("r001", "r002"):  # all of both was done before a kill
        path = project.log(name) / "train.json"
        log = read_json(path)
        log["report"]["trained_samples"] = 0
        write_json(path, log)
    assert EarlierRounds(project, load_params(project.params_file)).line("train") is None


def test_a_round_whose_log_does_not_say_what_was_trained_gives_no_rate(two_rounds: Project, tmp_path: Path) -> None:
    project = copy_project(two_rounds, tmp_path / "older")
    path = project.log("r001") / "train.json"
    log = read_json(path)
    del log["report"]["trained_samples"]
    write_json(path, log)
    params = load_params(project.params_file)
    seconds, report = (read_json(project.log("r002") / "train.json")[key] for key in ("seconds", "report"))
    assert EarlierRounds(project, params).line("train") == (0.0, seconds / report["trained_samples"])


def test_a_proxy_looks_and_stays_what_it_is(two_rounds: Project, tmp_path: Path) -> None:
    project = copy_project(two_rounds, tmp_path / "proxied")
    own = by_stage(estimate_round(project, pool=1000, model="7b", gpus=1, tokens=640))
    subprocess.run(["cp", "-a", project.output("base", "model"), project.output("base", "proxy")], check=True)
    project.params_file.write_text(set_values(project.params_file.read_text(), {"sketch.model": "proxy"}))
    shape = estimate_round(project, pool=1000).model  # the proxy's, too
    found = by_stage(estimate_round(project, pool=1000, model="7b", gpus=1, tokens=640))
    for stage in ("sketch", "score"):
        times = 7e9 / shape.parameters
        assert found[stage].seconds == pytest.approx((own[stage].seconds or 0) / times)
        assert found[stage].memory_bytes < own[stage].memory_bytes / 10
    assert found["train"] == own["train"]
    here = by_stage(estimate_round(project, pool=1000, model="7b"))
    assert here["sketch"].seconds == by_stage(estimate_round(project, pool=1000))["sketch"].seconds
    shutil.rmtree(project.output("base", "proxy"))
    with pytest.raises(RoundError, match="its proxy is not here"):
        estimate_round(project, pool=1000)


def test_cores_share_whole_parts(two_rounds: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    earlier = EarlierRounds(two_rounds, load_params(two_rounds.params_file))
    size = load_params(two_rounds.params_file).sketch.shard_samples
    monkeypatch.setattr(earlier_rounds, "cores", lambda: 2)
    work = (1, size, size + 1, 2 * size, 2 * size + 5, 4 * size)
    assert [earlier.span("sketch", n) for n in work] == [1, size, size, size, size + 5, 2 * size]
    assert earlier.span("train", 12_345) == 12_345


def test_a_larger_model_takes_longer_by_its_parameters_and_tokens(two_rounds: Project) -> None:
    own = shape = estimate_round(two_rounds, pool=1000).model
    earlier = EarlierRounds(two_rounds, load_params(two_rounds.params_file))
    found = by_stage(estimate_round(two_rounds, pool=1000, model="7b", tokens=640))
    fixed, each = earlier.line("sketch")  # type: ignore[misc]
    times = 7e9 * 640 / (own.parameters * earlier.tokens())  # type: ignore[operator]
    assert found["sketch"].seconds == pytest.approx(fixed + earlier.span("sketch", 1000) * each * times)
    assert found["sketch"].memory_bytes > 4 * 7e9 > 1e3 * shape.parameters


def test_gpus_share_the_work_and_the_memory_is_of_one(two_rounds: Project) -> None:
    one, eight = (by_stage(estimate_round(two_rounds, pool=10_000_000, model="7b", gpus=n, tokens=640)) for n in (1, 8))
    assert one["sketch"].seconds == pytest.approx(10_000_000 * 3 * 7e9 * 640 / 140e12)
    for stage in ("sketch", "score", "train", "evaluate"):
        assert one[stage].seconds == pytest.approx(8 * (eight[stage].seconds or 0))
        assert one[stage].memory_bytes == eight[stage].memory_bytes > 14e9
    assert one["sketch"].disk_bytes == 10_000_000 * (2 * load_params(two_rounds.params_file).sketch.dim + 60)
    assert eight["train"].moved_bytes > one["train"].moved_bytes  # gradients go round
    fast = estimate_round(two_rounds, pool=10_000_000, model="7b", gpus=8, tokens=640, tflops=280)
    assert by_stage(fast)["train"].seconds == pytest.approx((eight["train"].seconds or 0) / 2)


@pytest.fixture
def steady(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that is as fast as the one of the constants, whatever else runs on it."""
    monkeypatch.setattr(costs, "_speed", lambda: 1.0)


@pytest.mark.usefixtures("steady")
def test_what_grows_and_what_does_not(two_rounds: Project) -> None:
    grows = {stage: each.grows for stage, each in by_stage(estimate_round(two_rounds, pool=9000)).items()}
    assert (grows["sketch"], grows["score"], grows["select"]) == ("n", "n", "n")
    assert (grows["ingest"], grows["evaluate"]) == ("-", "-")
    params = replace(Params(), prune=replace(Params().prune, pool_cap=1))
    small, large = (pool_seconds(params, n) for n in (10**8, 10**10))
    assert large["select"] / small["select"] == pytest.approx(100, rel=0.01)
    for stage in ("cluster", "prune"):
        assert 200 < large[stage] / small[stage] < 1500  # 100^1.25 and 100^1.5


@pytest.mark.usefixtures("steady")
def test_without_a_cap_nothing_is_pruned() -> None:
    assert pool_seconds(Params(), 1_000_000)["prune"] < 0.1  # to look at the manifests


def test_a_machine_has_some_speed() -> None:
    assert 0.01 < costs._speed() < 100


def test_what_cannot_be_estimated_is_said(two_rounds: Project, tmp_path: Path) -> None:
    with pytest.raises(AdaptInfError, match=r"A drop of 11 is not part of a pool of 10\.\n"):
        estimate_round(two_rounds, pool=10, new=11)
    project = copy_project(two_rounds, tmp_path / "young")
    for name in ("r001", "r002"):
        (project.log(name) / "train.json").unlink()
    with pytest.raises(AdaptInfError, match=r"How many tokens .*\n.*--tokens 700"):
        estimate_round(project, pool=1000)
    with pytest.raises(AdaptInfError, match=r"No round has ended on this machine.*\n.*--gpus"):
        estimate_round(project, pool=1000, tokens=640)
    found = estimate_round(project, pool=1000, tokens=640, model="7b", gpus=2)
    assert by_stage(found)["ingest"].seconds is None
    assert found.seconds is None


def test_scores_that_cost_nothing_are_no_fault(two_rounds: Project, tmp_path: Path) -> None:
    project = copy_project(two_rounds, tmp_path / "free")
    free = {"select.scores": ["perplexity", "el2n"], "sketch.hidden": True}
    project.params_file.write_text(set_values(project.params_file.read_text(), free))
    found = by_stage(estimate_round(project, pool=1000))
    assert found["score"].seconds is not None
    width = estimate_round(project, pool=1000).model.width
    dim = load_params(project.params_file).sketch.dim
    assert found["sketch"].disk_bytes == 1000 * (2 * (dim + width) + 60)
    assert by_stage(estimate_round(project, pool=1000, model="7b", gpus=1))["score"].seconds == 0


@pytest.mark.parametrize(
    ("asked", "problem"),
    [
        (["--pool", "0"], "'0' is no number above 0"),
        (["--gpus", "two"], "'two' is no number above 0"),
        (["--gpus", "1", "--tflops", "0"], "'0' is no number above 0"),
        (["--tokens", "-3"], "'-3' is no number above 0"),
        (["--tokens", "nan"], "'nan' is no number above 0"),
    ],
)
def test_a_number_that_is_none_is_named(
    two_rounds: Project, capsys: pytest.CaptureFixture[str], asked: list[str], problem: str
) -> None:
    with pytest.raises(SystemExit):
        main(["plan", "-C", str(two_rounds.root), *asked])
    assert problem in capsys.readouterr().err


def test_a_pool_that_is_elsewhere_is_named(two_rounds: Project, tmp_path: Path) -> None:
    project = copy_project(two_rounds, tmp_path / "elsewhere")
    (project.output("r002", "pool")).rename(tmp_path / "pool")
    with pytest.raises(RoundError, match=r"r002.*its pool is not here\.?\n.*adapt-inf pull r002"):
        estimate_round(project, pool=1000)


def test_the_command_prints_a_table_or_json(two_rounds: Project, capsys: pytest.CaptureFixture[str]) -> None:
    asked = ["plan", "-C", str(two_rounds.root), "--model", "7b", "--pool", "10_000_000", "--gpus", "8"]
    assert main(asked) == 0
    text = capsys.readouterr().out
    assert text.startswith(
        "a round over 10,000,000 candidates, 1,000,000 of them new, with a model of 7e+09 parameters"
    )
    assert [line.split()[0] for line in text.splitlines()[2:10]] == list(STAGES)
    assert "140 TFLOP/s a GPU, an assumption" in text
    assert main([*asked, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["gpus"] == 8
    assert told["seconds"] > 0
    assert main([*asked, "first"]) == 1
    assert "A drop has its own size" in capsys.readouterr().err


def test_the_cap_is_told(two_rounds: Project, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    project = copy_project(two_rounds, tmp_path / "capped")
    for cap, words in ((1000, "prune.pool_cap keeps 1,000"), (None, "prune.pool_cap keeps rounds level")):
        project.params_file.write_text(set_values(project.params_file.read_text(), {"prune.pool_cap": cap}))
        assert main(["plan", "-C", str(project.root), "--pool", "5000"]) == 0
        assert words in capsys.readouterr().out
