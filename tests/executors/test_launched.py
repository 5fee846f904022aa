"""Stages in the processes that a launcher begins: the same files, whoever of them is killed."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from multiprocessing import get_context
from pathlib import Path

import psutil
import pytest
from machine import Machine, copy_project
from serving import until
from torch.distributed.tensor import DTensor

from adapt_inf.config import Params, load_params, set_values
from adapt_inf.errors import AdaptInfError
from adapt_inf.executors import launched as launched_module
from adapt_inf.executors.launched import on_launched
from adapt_inf.files import folder_digest, read_json, write_json
from adapt_inf.models.sharding import shard
from adapt_inf.models.structure import decoder_layers
from adapt_inf.models.vlm import VLM
from adapt_inf.parallel import Team
from adapt_inf.project import Project
from adapt_inf.stages import train
from adapt_inf.stages.context import StageContext

HERE = Path(__file__).parent
LAUNCHER = f"{Path(sys.executable).with_name('torchrun')} --standalone --nproc-per-node 2"


@pytest.fixture
def project(two_rounds: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """A round whose stages are to be made again, by two processes."""
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "lo")
    project = copy_project(two_rounds, tmp_path / "launched")
    for params in (project.params_of("r001"), project.params_of("r002")):
        params.write_text(set_values(params.read_text(), {"executor.launcher": LAUNCHER}))
    return project


def launched(project: Project) -> list[psutil.Process]:
    """The processes that do the work, without their launcher."""
    found = []
    for each in psutil.process_iter(["cmdline"]):
        words = each.info["cmdline"] or []
        if "adapt_inf.executors.launched" in words and "torchrun" not in " ".join(words):
            found.append(each)
    return [each for each in found if str(project.root) in " ".join(each.info["cmdline"])]


def losses(project: Project) -> list[float]:
    log = project.output("r001", "model") / "train_log.jsonl"
    return [json.loads(line)["loss"] for line in log.read_text().splitlines()]


def test_two_processes_come_to_the_same(project: Project, two_rounds: Project, machine: Machine) -> None:
    shutil.rmtree(project.output("r001", "score"))
    machine.run("adapt-inf", "stage", "score", "r001", cwd=project.root)
    assert folder_digest(project.output("r001", "score")) == folder_digest(two_rounds.output("r001", "score"))
    shutil.rmtree(project.output("r002", "evaluate"))  # of three models
    machine.run("adapt-inf", "stage", "evaluate", "r002", cwd=project.root)
    assert folder_digest(project.output("r002", "evaluate")) == folder_digest(two_rounds.output("r002", "evaluate"))
    shutil.rmtree(project.output("r001", "model"))
    machine.run("adapt-inf", "stage", "train", "r001", cwd=project.root)
    assert losses(project) == pytest.approx(losses(two_rounds), rel=1e-3)
    made, expected = ({path.name for path in each.output("r001", "model").iterdir()} for each in (project, two_rounds))
    assert made == expected


def test_killed_it_leaves_nobody_and_goes_on(project: Project, two_rounds: Project, machine: Machine) -> None:
    shutil.rmtree(project.output("r001", "sketch"))
    command = ["adapt-inf", "stage", "sketch", "r001"]
    parts = lambda: list(project.work("r001").glob("sketch-*/sketches/part-*.npy"))  # noqa: E731
    stage = subprocess.Popen(command, cwd=project.root, env=machine.environment(), stderr=subprocess.DEVNULL)
    until(lambda: parts() or stage.poll() is not None, "the first part is there")
    stage.send_signal(signal.SIGKILL)
    stage.wait()
    until(lambda: launched(project) == [], "those that it began end with it")

    stage = subprocess.Popen(command, cwd=project.root, env=machine.environment(), stderr=subprocess.DEVNULL)
    until(lambda: launched(project) or stage.poll() is not None, "there is one to kill")
    for each in launched(project)[:1]:
        each.kill()
        assert stage.wait() == os.EX_TEMPFAIL  # another attempt may come out better
    machine.run(*command, cwd=project.root)
    assert folder_digest(project.output("r001", "sketch")) == folder_digest(two_rounds.output("r001", "sketch"))


def tune_and_tell(ctx: StageContext, out: Path, team: Team) -> None:
    """The train stage's share, and which part of the decoder's frozen weights this process holds in the midst of it."""

    def and_tell(vlm: VLM, count: int) -> None:
        shard(vlm, count)
        layers = decoder_layers(vlm)

        def held(*_: object) -> None:
            """Of the layers before the last, when the last has run and activations are at their most."""
            frozen = [each for layer in layers[:-1] for each in layer.parameters() if not each.requires_grad]
            here = sum((each.to_local() if isinstance(each, DTensor) else each).numel() for each in frozen)
            write_json(out / f"held-{team.rank}.json", here / sum(each.numel() for each in frozen))

        layers[-1].register_forward_hook(held)

    train.shard = and_tell  # type: ignore[assignment]
    train.tune(ctx, out, team)


def test_fsdp_spreads_the_frozen_weights_and_comes_to_the_same(
    project: Project, two_rounds: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", f"{HERE}:{HERE.parent}:{os.environ['PYTHONPATH']}")
    params = project.params_of("r001")
    # Of seven samples one process has four, the other three; and of what is left at an epoch's end, perhaps none.
    uneven = {"train.batch_size": 7, "train.micro_batch": 1, "train.gradient_checkpointing": True, "train.steps": 8}
    params.write_text(set_values(params.read_text(), uneven))
    ctx = StageContext(project, "r001", load_params(params))
    logs = []
    for name in ("whole", "spread"):
        monkeypatch.setenv("ACCELERATE_USE_FSDP", "true" if name == "spread" else "false")
        (tmp_path / name).mkdir()
        list(on_launched(LAUNCHER, tune_and_tell, ctx, tmp_path / name, None))
        logs.append(
            [json.loads(line)["loss"] for line in (tmp_path / name / "train_log.jsonl").read_text().splitlines()]
        )
    assert logs[0] == logs[1]
    files = [(tmp_path / name / "adapter_model.safetensors").read_bytes() for name in ("whole", "spread")]
    assert files[0] == files[1]
    held = [read_json(tmp_path / "spread" / f"held-{rank}.json") for rank in (0, 1)]
    assert sum(held) == pytest.approx(1, abs=0.01)
    assert max(held) < 0.55
    assert not (tmp_path / "whole" / "held-0.json").exists()
    monkeypatch.setenv("ACCELERATE_USE_DEEPSPEED", "true")
    with pytest.raises(AdaptInfError, match=r"asks for DeepSpeed.*\n.*MULTI_GPU`, or FSDP"):
        list(on_launched(LAUNCHER, tune_and_tell, ctx, tmp_path / "whole", None))


def test_what_several_processes_tell_does_not_mix(monkeypatch: pytest.MonkeyPatch) -> None:
    count, tellers = 1000, 4
    hears, tells = os.pipe()
    monkeypatch.setattr(launched_module, "_OUT", tells)
    children = [
        get_context("fork").Process(target=lambda: [launched_module._tell(n) for n in range(count)])
        for _ in range(tellers)
    ]
    for child in children:
        child.start()
    os.close(tells)
    faults: list[dict[str, object]] = []
    with open(hears, encoding="utf-8") as lines:
        told = list(launched_module._heard(lines, faults))
    for child in children:
        child.join()
    assert sorted(told) == sorted([*range(count)] * tellers)
    assert faults == []


def refuse(ctx: StageContext, out: Path, team: object) -> None:
    raise AdaptInfError("model m: no.", "Mend it.")


def test_what_a_process_says_is_said_here(tmp_path: Path, two_rounds: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", f"{HERE}:{HERE.parent}:{os.environ['PYTHONPATH']}")
    ctx = StageContext(two_rounds, "r001", Params())
    with pytest.raises(AdaptInfError, match=r"model m: no\.\n  Mend it\."):
        list(on_launched(LAUNCHER, refuse, ctx, tmp_path, None))
    with pytest.raises(AdaptInfError, match=r"--no-such-option`, which left with 2"):
        list(on_launched(f"{LAUNCHER} --no-such-option", refuse, ctx, tmp_path, None))
    with pytest.raises(AdaptInfError, match=r"`executor\.launcher` is `no-such --x`[\s\S]*torchrun"):
        list(on_launched("no-such --x", refuse, ctx, tmp_path, None))
