"""Adapters sit on the text and the projector, start as nothing, and go on from the parent's."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from adapt_inf.config import Train
from adapt_inf.data.samples import Sample
from adapt_inf.errors import AdaptInfError, ModelError
from adapt_inf.models.batches import collate
from adapt_inf.models.lora import target_modules, with_adapter
from adapt_inf.models.vlm import VLM, load_vlm, save_adapter

KNOBS = Train(rank=4, alpha=8)


@pytest.fixture
def base(tmp_path: Path, miniature_model: Path) -> VLM:
    folder = shutil.copytree(miniature_model, tmp_path / "base" / "model")
    return load_vlm(Path(folder))


def test_text_is_every_linear_map_of_the_decoder_and_nothing_else(base: VLM) -> None:
    names = target_modules(base, "text")
    assert len(names) == 4 * 7
    assert all(".language_model.layers." in name for name in names)


def test_the_projector_comes_beside_it(base: VLM) -> None:
    more = set(target_modules(base, "text+projector")) - set(target_modules(base, "text"))
    assert more == {"model.multi_modal_projector.linear_1", "model.multi_modal_projector.linear_2"}


def test_a_regular_expression_names_modules_but_never_a_tied_head(base: VLM) -> None:
    assert target_modules(base, r".*layers\.0\.self_attn\.(q|v)_proj") == [
        "model.language_model.layers.0.self_attn.q_proj",
        "model.language_model.layers.0.self_attn.v_proj",
        "model.vision_tower.encoder.layers.0.self_attn.q_proj",
        "model.vision_tower.encoder.layers.0.self_attn.v_proj",
    ]
    assert "lm_head" not in target_modules(base, ".*")


@pytest.mark.parametrize("targets", ["lm_head", "nothing_like_this", "(unclosed"])
def test_targets_that_mean_nothing_are_refused(base: VLM, targets: str) -> None:
    with pytest.raises(ModelError, match=r"train\.targets"):
        target_modules(base, targets)


def test_a_new_adapter_changes_nothing_and_depends_on_its_seed(base: VLM, samples: list[Sample]) -> None:
    batch = collate(base, samples)
    before = base.model(**batch.inputs).logits
    adapted = with_adapter(base, KNOBS, seed=1)
    assert torch.equal(adapted.model(**batch.inputs).logits, before)
    drawn = {name: p.clone() for name, p in adapted.model.named_parameters() if p.requires_grad}
    assert all("lora_" in name for name in drawn)
    for seed, same in ((1, True), (2, False)):
        again = with_adapter(load_vlm(base.base), KNOBS, seed=seed)
        equal = [torch.equal(p, drawn[n]) for n, p in again.model.named_parameters() if "lora_A" in n]
        assert all(equal) == same


def test_the_parents_adapter_goes_on(base: VLM, samples: list[Sample], tmp_path: Path) -> None:
    first = with_adapter(base, KNOBS, seed=1)
    with torch.no_grad():
        for name, parameter in first.model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(generator=torch.Generator().manual_seed(0))
    save_adapter(first, tmp_path / "r001")
    second = with_adapter(load_vlm(tmp_path / "r001"), replace(KNOBS, dropout=0.5), seed=9)
    batch = collate(base, samples)
    assert torch.equal(first.model(**batch.inputs).logits, second.model(**batch.inputs).logits)
    assert sum(p.requires_grad for p in second.model.parameters()) == 2 * 30
    second.model.train()
    assert not torch.equal(first.model(**batch.inputs).logits, second.model(**batch.inputs).logits)


@pytest.mark.parametrize("other", [{"rank": 8}, {"alpha": 16}, {"targets": "text"}])
def test_another_shape_than_the_parents_is_refused(base: VLM, tmp_path: Path, other: dict[str, object]) -> None:
    save_adapter(with_adapter(base, KNOBS, seed=1), tmp_path / "r001")
    with pytest.raises(AdaptInfError, match=f"train.{next(iter(other))} does not fit"):
        with_adapter(load_vlm(tmp_path / "r001"), replace(KNOBS, **other), seed=1)
