"""The size of a model, told from a number or from its files."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from adapt_inf.config import Params
from adapt_inf.errors import AdaptInfError
from adapt_inf.files import read_json, write_json
from adapt_inf.models.sizes import OPERATIONS, activations, shape_of
from adapt_inf.models.vlm import load_vlm

LLAVA_7B = {"parameters": 7.06e9, "layers": 32, "width": 4096, "inner": 11008}


@pytest.mark.parametrize(("text", "layers", "width"), [("7b", 33, 4224), ("13B", 40, 5120), ("350m", 12, 1536)])
def test_a_number_has_the_shape_of_a_llama(text: str, layers: int, width: int) -> None:
    shape = shape_of(text)
    assert (shape.layers, shape.width) == (layers, width)
    assert 12 * shape.layers * shape.width**2 == pytest.approx(shape.parameters, rel=0.1)


def test_a_folder_says_what_its_files_say(miniature_model: Path) -> None:
    vlm, shape = load_vlm(miniature_model), shape_of(str(miniature_model))
    assert shape.parameters == sum(weight.numel() for weight in vlm.network.parameters())
    config = vlm.network.config.text_config
    assert (shape.layers, shape.width) == (config.num_hidden_layers, config.hidden_size)
    assert shape.inner == config.intermediate_size


def test_what_a_configuration_leaves_out_is_the_family_s_default(miniature_model: Path, tmp_path: Path) -> None:
    shutil.copytree(miniature_model, tmp_path / "model")
    path = tmp_path / "model" / "config.json"
    told = read_json(path)
    for name in ("hidden_size", "num_hidden_layers", "intermediate_size", "vocab_size"):
        del told["text_config"][name]
    write_json(path, told)
    shape = shape_of(str(tmp_path / "model"))
    assert (shape.layers, shape.width, shape.inner) == (32, 4096, 11008)


@pytest.mark.parametrize("text", ["big", "7", "b", "-7b", "7bb", "/nowhere"])
def test_what_is_no_model_is_refused(text: str) -> None:
    with pytest.raises(AdaptInfError, match=r"is no model whose size can be told\.\n.*such as 7b or 350m"):
        shape_of(text)


def test_memory_is_that_of_the_page() -> None:
    """What docs/models.md works out for LLaVA 1.5 7B at 640 tokens."""
    llava = replace(shape_of("7b"), **LLAVA_7B)
    params = Params()

    def of(stage: str, **values: object) -> float:
        section = replace(getattr(params, stage), **values)
        return activations(stage, replace(params, **{stage: section}), llava, 640) / 1e9

    assert of("sketch", batch_size=8) == pytest.approx(11.8, rel=0.02)
    assert of("sketch", batch_size=32) == pytest.approx(47.0, rel=0.02)
    assert of("sketch", batch_size=32, layers="last") == pytest.approx(6.6, rel=0.02)
    assert of("train", micro_batch=4) == pytest.approx(16.6 + 0.6, rel=0.02)
    assert of("train", micro_batch=32, gradient_checkpointing=True) == pytest.approx(9.5 + 0.6, rel=0.02)
    assert of("evaluate", batch_size=64) == pytest.approx(22.5, rel=0.02)


def test_operations_are_those_that_a_pass_makes() -> None:
    params = Params()
    assert OPERATIONS["sketch"](params) / 6 == pytest.approx(0.484, abs=0.03)  # of forward and backward, as measured
    assert OPERATIONS["score"](params) == 2
    assert OPERATIONS["score"](replace(params, select=replace(params.select, scores=["el2n"]))) == 0
    assert OPERATIONS["score"](replace(params, select=replace(params.select, scores=["el2n"], strategy="visnec"))) == 2
    assert OPERATIONS["train"](replace(params, train=replace(params.train, gradient_checkpointing=True))) == 6
