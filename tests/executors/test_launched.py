"""Stages in the processes that a launcher begins: the same files, whoever of them is killed."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from contextlib import suppress
from multiprocessing import get_context
from pathlib import Path

import pandas as pd
import psutil
import pytest
from machine import Machine, copy_project
from serving import until
from torch.distributed.tensor import DTensor

from adapt_inf.config import Params, load_params, set_values
from adapt_inf.creation import definition
from adapt_inf.errors import AdaptInfError
from adapt_inf.executors import launched as launched_module
from adapt_inf.executors.launched import on_launched
from adapt_inf.executors.parts import Advance
from adapt_inf.files import folder_digest, read_json, write_json
from adapt_inf.models.sharding import spread
from adapt_inf.models.structure import decoder_layers
from adapt_inf.models.vlm import VLM
from adapt_inf.parallel import Team
from adapt_inf.project import Project
from adapt_inf.stages import train
from adapt_inf.stages.answers import Answers
from adapt_inf.stages.context import StageContext
from adapt_inf.stages.score import WithoutImageWorker
from adapt_inf.stages.sketch import SketchWorker

HERE = Path(__file__).parent
LAUNCHER = f"{Path(sys.executable).with_name('torchrun')} --standalone --nproc-per-node 2"
FORKED = f"{sys.executable} {HERE / 'forked.py'}"  # costs less where not the launcher is tested


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
    shutil.rmtree(project.output("r002", "evaluate"))  # of three models
    machine.run("adapt-inf", "stage", "evaluate", "r002", cwd=project.root)
    assert folder_digest(project.output("r002", "evaluate")) == folder_digest(two_rounds.output("r002", "evaluate"))
    shutil.rmtree(project.output("r001", "model"))
    machine.run("adapt-inf", "stage", "train", "r001", cwd=project.root)
    assert losses(project) == pytest.approx(losses(two_rounds), rel=1e-3)
    made, expected = ({path.name for path in each.output("r001", "model").iterdir()} for each in (project, two_rounds))
    assert made == expected


def test_accelerate_by_the_documented_file_comes_to_the_same(
    project: Project, two_rounds: Project, machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", f"{HERE}:{HERE.parent}:{os.environ['PYTHONPATH']}")
    told = (HERE.parents[1] / "docs" / "scale.md").read_text(encoding="utf-8")
    found = re.search(r"```yaml\n# eight_gpus\.yaml\n(.*?)```", told, re.DOTALL)
    assert found is not None
    file = tmp_path / "two.yaml"
    file.write_text(found[1].replace("num_processes: 8", "num_processes: 2"))
    accelerate = Path(sys.executable).with_name("accelerate")
    launcher = f"{accelerate} launch --config_file {file} --main_process_port 0"  # any that is free
    params = project.params_of("r001")
    params.write_text(set_values(params.read_text(), {"executor.launcher": launcher}))
    shutil.rmtree(project.output("r001", "score"))
    machine.run("adapt-inf", "stage", "score", "r001", cwd=project.root)
    assert folder_digest(project.output("r001", "score")) == folder_digest(two_rounds.output("r001", "score"))
    ctx = StageContext(project, "r001", load_params(params))
    list(on_launched(launcher, note_the_team, ctx, tmp_path, None))
    assert sorted(path.name for path in tmp_path.glob("process-*")) == ["process-0-of-2", "process-1-of-2"]


def note_the_team(ctx: StageContext, out: Path, team: Team) -> None:
    (out / f"process-{team.rank}-of-{team.count}").touch()


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
        with suppress(psutil.NoSuchProcess):
            each.kill()
        assert stage.wait() == os.EX_TEMPFAIL  # another attempt may come out better
    machine.run(*command, cwd=project.root)
    assert folder_digest(project.output("r001", "sketch")) == folder_digest(two_rounds.output("r001", "sketch"))


def tell_what_is_held(vlm: VLM, out: Path, rank: int) -> VLM:
    """Write down which part of the decoder's base weights this process holds in the midst of its passes."""
    layers = decoder_layers(vlm)

    def held(*_: object) -> None:
        """Of the layers before the last, when the last has run and activations are at their most."""
        base = [each for layer in layers[:-1] for name, each in layer.named_parameters() if "lora_" not in name]
        here = sum((each.to_local() if isinstance(each, DTensor) else each).numel() for each in base)
        write_json(out / f"held-{rank}.json", here / sum(each.numel() for each in base))

    layers[-1].register_forward_hook(held)
    return vlm


def held_by_two(out: Path) -> list[float]:
    return [read_json(out / f"held-{rank}.json") for rank in (0, 1)]


def tune_and_tell(ctx: StageContext, out: Path, team: Team) -> None:
    train.spread = lambda vlm: tell_what_is_held(spread(vlm), out, team.rank)
    train.tune(ctx, out, team)


class Telling:
    """Makes a worker of parts tell."""

    def __init__(self, ctx: StageContext, out: Path) -> None:
        super().__init__(ctx, out)  # type: ignore[call-arg]
        tell_what_is_held(self.vlm, out, int(os.environ["RANK"]))  # type: ignore[attr-defined]


class TellingSketches(Telling, SketchWorker): ...


class TellingScores(Telling, WithoutImageWorker): ...


class TellingAnswers(Telling, Answers): ...


class KilledAtItsSecondPart(SketchWorker):
    _begun = 0

    def __init__(self, ctx: StageContext, out: Path) -> None:
        super().__init__(ctx, out)
        self._out = out
        sys.modules["__main__"]._GONE = 600  # type: ignore[attr-defined]  # the launcher may be long in ending it

    def __call__(self, part: int, advance: Advance) -> None:
        self._begun += 1
        if os.environ["RANK"] == "1" and self._begun == 2:
            until((self._out / "sketches" / "part-00000.npy").exists, "the other's first part is there")
            os.kill(os.getpid(), signal.SIGKILL)
        super().__call__(part, advance)


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
        monkeypatch.setenv("ACCELERATE_USE_DEEPSPEED", "false" if name == "spread" else "true")  # ZeRO's second stage
        (tmp_path / name).mkdir()
        list(on_launched(FORKED, tune_and_tell, ctx, tmp_path / name, None))
        logs.append(
            [json.loads(line)["loss"] for line in (tmp_path / name / "train_log.jsonl").read_text().splitlines()]
        )
    assert logs[0] == logs[1]
    files = [(tmp_path / name / "adapter_model.safetensors").read_bytes() for name in ("whole", "spread")]
    assert files[0] == files[1]
    held = held_by_two(tmp_path / "spread")
    assert sum(held) == pytest.approx(1, abs=0.01)
    assert max(held) < 0.55
    assert held_by_two(tmp_path / "whole") == [1, 1]


@pytest.mark.parametrize("kind", [TellingSketches, TellingScores, TellingAnswers])
def test_who_shares_weights_comes_to_the_same_and_waits_for_the_others(
    kind: type, project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", f"{HERE}:{HERE.parent}:{os.environ['PYTHONPATH']}")
    if kind is TellingScores:
        monkeypatch.setenv("ACCELERATE_USE_DEEPSPEED", "true")
        monkeypatch.setenv("ACCELERATE_DEEPSPEED_ZERO_STAGE", "3")
    else:
        monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
        monkeypatch.setenv("FSDP_CPU_RAM_EFFICIENT_LOADING", "true")  # accelerate's own default
    ctx = StageContext(project, "r002", load_params(project.params_of("r002")))
    parts = [0, 1, 2] if kind is TellingAnswers else [0]  # of three models; else the second process has none
    shared, alone = tmp_path / "shared", tmp_path / "alone"
    for folder in (shared, alone):
        folder.mkdir()
    list(on_launched(FORKED, kind, ctx, shared, parts))
    held = held_by_two(shared)
    assert sum(held) == pytest.approx(1, abs=0.01)
    assert max(held) < 0.55
    for file in shared.glob("held-*"):
        file.unlink()
    worker = kind.__mro__[2](ctx, alone)
    for part in parts:
        worker(part, lambda _: None)
    assert folder_digest(shared) == folder_digest(alone)
    assert any(alone.iterdir())


def test_killed_among_those_who_share_it_may_be_tried_again(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", f"{HERE}:{HERE.parent}:{os.environ['PYTHONPATH']}")
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    ctx = StageContext(project, "r002", load_params(project.params_of("r002")))
    with pytest.raises(ChildProcessError, match="left with"):
        list(on_launched(LAUNCHER, KilledAtItsSecondPart, ctx, tmp_path, [0, 1, 2, 3]))
    assert (tmp_path / "sketches" / "part-00000.npy").exists()


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


def read_a_shard(ctx: StageContext, out: Path, team: Team) -> None:
    pd.read_parquet(out / "shard.parquet")


def test_what_a_process_does_not_see_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", f"{HERE}:{HERE.parent}:{os.environ['PYTHONPATH']}")
    project = Project(tmp_path)
    params = project.params_of("r001")
    params.parent.mkdir(parents=True)
    params.write_text(definition("params.yaml"))
    ctx = StageContext(project, "r001", Params())
    process = f"Process 0 of 1 on {re.escape(socket.gethostname())}"
    with pytest.raises(AdaptInfError, match=rf"{process} does not see a file: .*shard\.parquet[\s\S]*file system"):
        list(on_launched(sys.executable, read_a_shard, ctx, tmp_path, None))
    monkeypatch.setattr(launched_module, "write_json", lambda *_: None)
    with pytest.raises(AdaptInfError, match=rf"{process} does not see .*\.job\.part\.[\s\S]*file system"):
        list(on_launched(sys.executable, read_a_shard, ctx, tmp_path, None))
