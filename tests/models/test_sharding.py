"""What accelerate's configuration asks for: weights spread, or not, or what nobody does."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from adapt_inf.errors import AdaptInfError, ModelError
from adapt_inf.models import sharding
from adapt_inf.models.vlm import VLM


def asks(monkeypatch: pytest.MonkeyPatch, kind: str, **values: str) -> bool:
    """Whether weights are to be spread, under the environment that accelerate makes of its configuration."""
    monkeypatch.setenv(f"ACCELERATE_USE_{kind}", "true")
    for name, value in values.items():
        monkeypatch.setenv(f"ACCELERATE_DEEPSPEED_{name}", value)
    return sharding._is_asked_for()


def test_without_a_configuration_nothing_is_spread() -> None:
    assert not sharding._is_asked_for()
    assert not sharding.shares_weights()
    assert not sharding.join()


def test_fsdp_spreads(monkeypatch: pytest.MonkeyPatch) -> None:
    assert asks(monkeypatch, "FSDP")
    assert not sharding.shares_weights()  # before it has joined


@pytest.mark.parametrize(("stage", "spread"), [("0", False), ("1", False), ("2", False), ("3", True)])
def test_deepspeed_spreads_at_the_third_stage(monkeypatch: pytest.MonkeyPatch, stage: str, spread: bool) -> None:
    whole = {"OFFLOAD_PARAM_DEVICE": "none", "OFFLOAD_OPTIMIZER_DEVICE": "none"}
    assert asks(monkeypatch, "DEEPSPEED", ZERO_STAGE=stage, **whole) == spread


@pytest.mark.parametrize(("stage", "spread"), [(2, False), (3, True)])
def test_its_own_file_counts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, stage: int, spread: bool) -> None:
    file = tmp_path / "zero.json"
    file.write_text(json.dumps({"zero_optimization": {"stage": stage}, "bf16": {"enabled": True}}))
    assert asks(monkeypatch, "DEEPSPEED", CONFIG_FILE=str(file)) == spread


def test_what_nobody_does_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(AdaptInfError, match=r"has `offload_param` on cpu[\s\S]*Take that out"):
        asks(monkeypatch, "DEEPSPEED", ZERO_STAGE="3", OFFLOAD_PARAM_DEVICE="cpu")
    file = tmp_path / "zero.json"
    file.write_text(json.dumps({"zero_optimization": {"stage": 2, "offload_optimizer": {"device": "nvme"}}}))
    with pytest.raises(AdaptInfError, match="has `offload_optimizer` on nvme"):
        asks(monkeypatch, "DEEPSPEED", CONFIG_FILE=str(file))
    file.write_text(json.dumps({"zero_optimization": {"stage": 2, "offload_param": None}}))
    assert not asks(monkeypatch, "DEEPSPEED", CONFIG_FILE=str(file))
    for text in ("{", '{"zero_optimization": {"stage": "auto"}}', "[]"):
        file.write_text(text)
        with pytest.raises(AdaptInfError, match=r"zero\.json cannot be read[\s\S]*`deepspeed_config_file`"):
            asks(monkeypatch, "DEEPSPEED", CONFIG_FILE=str(file))
    monkeypatch.setenv("FSDP_OFFLOAD_PARAMS", "true")
    with pytest.raises(AdaptInfError, match="has `fsdp_offload_params` on cpu"):
        asks(monkeypatch, "FSDP")


@pytest.mark.parametrize("name", ["cross_attention_layers", "layerdrop"])
def test_a_model_that_skips_layers_is_refused(name: str, vlm: VLM, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sharding, "shares_weights", lambda: True)
    monkeypatch.setattr(vlm.network.config.get_text_config(), name, [1], raising=False)
    with pytest.raises(ModelError, match=r"not every pass goes through all[\s\S]*MULTI_GPU"):
        sharding.spread(vlm)
