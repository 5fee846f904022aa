"""Models load as bases and as adapters, and an adapter's folder is the same bytes whenever its weights are."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file

from adapt_inf.data.samples import Sample
from adapt_inf.errors import ModelError
from adapt_inf.files import folder_digest, read_json
from adapt_inf.models import vlm as vlm_module
from adapt_inf.models.batches import collate
from adapt_inf.models.generation import with_adapter_named
from adapt_inf.models.vlm import VLM, add_adapter, load_vlm, save_adapter


@pytest.fixture
def project(tmp_path: Path, miniature_model: Path) -> Path:
    """A project's rounds with a base model."""
    shutil.copytree(miniature_model, tmp_path / "rounds" / "base" / "model")
    return tmp_path


def adapted(project: Path, seed: int = 0) -> VLM:
    vlm = load_vlm(project / "rounds" / "base" / "model")
    torch.manual_seed(seed)
    config = LoraConfig(r=4, target_modules=["q_proj", "v_proj", "linear_1"], init_lora_weights=False)
    return VLM(get_peft_model(vlm.model, config).eval(), vlm.processor, vlm.device, True, vlm.base)


def test_a_base_loads_frozen_and_in_eval_mode(vlm: VLM) -> None:
    assert not vlm.adapted
    assert not vlm.model.training
    assert not any(parameter.requires_grad for parameter in vlm.model.parameters())
    assert len(vlm.decoder().layers) == 4


def test_an_adapter_comes_back_with_the_same_logits(project: Path, samples: list[Sample]) -> None:
    before = adapted(project)
    folder = project / "rounds" / "r001" / "model"
    save_adapter(before, folder)
    after = load_vlm(folder, trainable=True)
    batch = collate(before, samples)
    assert torch.equal(before.model(**batch.inputs).logits, after.model(**batch.inputs).logits)
    trained = [name for name, parameter in after.model.named_parameters() if parameter.requires_grad]
    assert trained
    assert all("lora_" in name for name in trained)
    assert len(after.decoder().layers) == 4


def test_two_adapters_share_a_base_and_do_not_mix(project: Path, samples: list[Sample]) -> None:
    alone = {}
    for seed, name in enumerate(("r001", "r002")):
        save_adapter(adapted(project, seed), project / "rounds" / name / "model")
        vlm = load_vlm(project / "rounds" / name / "model")
        batch = collate(vlm, samples)
        alone[name] = vlm.model(**batch.inputs).logits
    add_adapter(vlm, project / "rounds" / "r001" / "model", "parent")
    assert torch.equal(vlm.model(**batch.inputs).logits, alone["r002"])
    with with_adapter_named(vlm, "parent") as other:
        assert torch.equal(other.model(**batch.inputs).logits, alone["r001"])
    assert torch.equal(vlm.model(**batch.inputs).logits, alone["r002"])
    assert not torch.equal(alone["r001"], alone["r002"])
    (project / "rounds" / "r001" / "model" / "adapter_model.safetensors").write_bytes(b"no")
    with pytest.raises(ModelError, match="its adapter does not load"):
        add_adapter(vlm, project / "rounds" / "r001" / "model", "broken")


def test_an_adapter_folder_is_the_same_bytes_again(project: Path, tmp_path: Path) -> None:
    folders = [project / "rounds" / name / "model" for name in ("r001", "r002")]
    for folder in folders:
        save_adapter(adapted(project), folder)
    assert folder_digest(folders[0]) == folder_digest(folders[1])


def test_the_base_is_named_from_where_the_adapter_will_stand(project: Path) -> None:
    home = project / "rounds" / "r001" / "model"
    work = project / "rounds" / "r001" / ".work" / "model-0"
    save_adapter(adapted(project), work, home=home)
    work.rename(home)
    card = read_json(home / "model.json")
    assert card["base"] == "../../base/model"
    assert card["base_digest"] == folder_digest(project / "rounds" / "base" / "model")
    assert read_json(home / "adapter_config.json")["base_model_name_or_path"] == "../../base/model"
    assert load_vlm(home).base == project / "rounds" / "base" / "model"
    assert all("lora" in name for name in load_file(home / "adapter_model.safetensors"))


def test_a_project_may_be_moved(project: Path) -> None:
    save_adapter(adapted(project), project / "rounds" / "r001" / "model")
    moved = project / "elsewhere"
    moved.mkdir()
    (project / "rounds").rename(moved / "rounds")
    assert load_vlm(moved / "rounds" / "r001" / "model").adapted


def test_a_lost_base_is_named(project: Path) -> None:
    folder = project / "rounds" / "r001" / "model"
    save_adapter(adapted(project), folder)
    shutil.rmtree(project / "rounds" / "base")
    with pytest.raises(ModelError, match=r"its base .* is not there"):
        load_vlm(folder)


@pytest.mark.parametrize("verified", [True, False])
def test_another_base_than_the_adapters_own_is_refused(
    project: Path, verified: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Above some size by the number of bytes alone, for hashing would take as long as loading."""
    folder, base = project / "rounds" / "r001" / "model", project / "rounds" / "base" / "model"
    save_adapter(adapted(project), folder)
    if not verified:
        monkeypatch.setattr(vlm_module, "VERIFIED_BYTES", 10)
    weights = (base / "model.safetensors").read_bytes()
    (base / "model.safetensors").write_bytes(weights[:-1] + bytes([weights[-1] ^ 1]))
    if verified:
        with pytest.raises(ModelError, match=r"is not the one that it was trained on\.\n  Bring it back"):
            load_vlm(folder)
    else:
        assert load_vlm(folder).adapted
    (base / "README.txt").write_text("more")
    with pytest.raises(ModelError, match="is not the one that it was trained on"):
        load_vlm(folder)


@pytest.mark.parametrize("broken", ["config.json", "model.safetensors"])
def test_a_damaged_base_is_one_line(project: Path, broken: str) -> None:
    folder = project / "rounds" / "base" / "model"
    (folder / broken).write_bytes(b"no such thing")
    with pytest.raises(ModelError) as error:
        load_vlm(folder)
    assert len(error.value.message.splitlines()) == 1
    assert str(folder) in error.value.message


def test_an_adapter_that_does_not_fit_is_one_line(project: Path) -> None:
    folder = project / "rounds" / "r001" / "model"
    save_adapter(adapted(project), folder)
    (folder / "adapter_model.safetensors").write_bytes(b"no such thing")
    with pytest.raises(ModelError, match="its adapter does not load"):
        load_vlm(folder)
