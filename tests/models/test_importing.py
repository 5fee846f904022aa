"""Only a complete image-text-to-text model enters a project, without code; all else is one line and leaves nothing."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from miniature import make_miniature
from safetensors.torch import load_file, save_file
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.utils import is_torchvision_available

from adapt_inf.errors import ModelError
from adapt_inf.files import folder_digest, read_json, write_json
from adapt_inf.models.importing import import_model
from adapt_inf.models.vlm import load_vlm


@pytest.fixture
def source(tmp_path: Path, miniature_model: Path) -> Path:
    return Path(shutil.copytree(miniature_model, tmp_path / "source"))


def refused(source: Path | str, tmp_path: Path, mend: str = "") -> str:
    out = tmp_path / "out"
    with pytest.raises(ModelError) as error:
        import_model(str(source), out)
    assert not out.exists()
    assert len(error.value.message.splitlines()) == 1
    assert str(source) in error.value.message
    assert str(out) not in error.value.message
    assert mend in error.value.mend
    return error.value.message


def test_a_folder_is_copied_without_code_or_pickles(source: Path, tmp_path: Path) -> None:
    for name in ("modeling_evil.py", "pytorch_model.bin", ".cache/data.json"):
        (source / name).parent.mkdir(exist_ok=True)
        (source / name).write_text("{}")
    out = tmp_path / "out"
    about = import_model(str(source), out)
    assert about["model_type"] == "llava"
    assert about["parameters"] > 50_000
    assert about["digest"] == folder_digest(out)
    assert {path.suffix for path in out.rglob("*")} <= {".json", ".safetensors", ".jinja"}
    assert load_vlm(out).processor.chat_template


def test_a_missing_folder_is_refused(tmp_path: Path) -> None:
    assert "no such folder" in refused(tmp_path / "nothing", tmp_path)


def test_a_file_is_refused(source: Path, tmp_path: Path) -> None:
    assert "a file" in refused(source / "config.json", tmp_path)


def test_a_hub_id_out_of_reach_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert "hub does not give it" in refused("nobody/no-such-model", tmp_path)


def test_a_language_model_is_refused(tmp_path: Path) -> None:
    config = LlamaConfig(vocab_size=8, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1)
    LlamaForCausalLM(config).save_pretrained(tmp_path / "llama")
    assert "no image-text-to-text model (model_type llama)" in refused(tmp_path / "llama", tmp_path)


def test_remote_code_is_refused(source: Path, tmp_path: Path) -> None:
    config = read_json(source / "config.json")
    config |= {"model_type": "evil", "auto_map": {"AutoConfig": "evil.EvilConfig"}}
    write_json(source / "config.json", config)
    (source / "evil.py").write_text("raise SystemExit('ran')")
    refused(source, tmp_path)


def test_pickled_weights_are_refused(source: Path, tmp_path: Path) -> None:
    (source / "model.safetensors").rename(source / "pytorch_model.bin")
    assert "no safetensors" in refused(source, tmp_path)


def test_missing_weights_are_refused(source: Path, tmp_path: Path) -> None:
    weights = load_file(source / "model.safetensors")
    weights.pop("multi_modal_projector.linear_2.weight", None)
    weights.pop("model.multi_modal_projector.linear_2.weight", None)
    save_file(weights, source / "model.safetensors", metadata={"format": "pt"})
    assert "lack" in refused(source, tmp_path)


def test_a_processor_without_a_chat_template_is_refused(source: Path, tmp_path: Path) -> None:
    (source / "chat_template.jinja").unlink()
    assert "no chat template" in refused(source, tmp_path, mend="Put a chat_template.jinja into its folder")


def test_a_model_without_an_image_processor_is_refused(source: Path, tmp_path: Path) -> None:
    config = read_json(source / "processor_config.json")
    del config["image_processor"]
    write_json(source / "processor_config.json", config)
    mend = "Copy its processor_config.json or preprocessor_config.json"
    assert "its processor does not load (Can't load image processor" in refused(source, tmp_path, mend)


def test_a_processor_that_is_not_there_is_refused(source: Path, tmp_path: Path) -> None:
    (source / "processor_config.json").unlink()
    refused(source, tmp_path, mend="Copy its processor_config.json")


def test_a_processor_that_needs_a_package_says_which(source: Path, tmp_path: Path) -> None:
    """A processor for videos, too, needs torchvision; where that is, this one lacks the numbers that it counts with."""
    config = read_json(source / "processor_config.json")
    video = {"video_processor_type": "LlavaOnevisionVideoProcessor"}
    write_json(
        source / "processor_config.json",
        config | {"processor_class": "LlavaOnevisionProcessor", "video_processor": video},
    )
    if is_torchvision_available():
        refused(source, tmp_path)
    else:
        mend = "the extra `torchvision` of adapt-inf brings torchvision"
        assert "requires the Torchvision library" in refused(source, tmp_path, mend)


@pytest.mark.parametrize("method", ["bitsandbytes", "gptq"])
def test_a_quantised_model_whose_packages_are_not_there_is_refused(source: Path, tmp_path: Path, method: str) -> None:
    config = read_json(source / "config.json")
    config["quantization_config"] = {"quant_method": method, "load_in_4bit": True, "bits": 4}
    write_json(source / "config.json", config)
    assert "requires" in refused(source, tmp_path, mend="name a copy of the model in bf16 or fp32")


def test_a_template_that_drops_the_answer_is_refused(tmp_path: Path) -> None:
    source = make_miniature(tmp_path / "source", template="{% generation %}{% endgeneration %}{{ messages|length }}")
    assert "shows no assistant turn" in refused(source, tmp_path)


def test_an_adapter_is_refused(source: Path, tmp_path: Path) -> None:
    (source / "adapter_config.json").write_text("{}")
    assert "an adapter" in refused(source, tmp_path)
