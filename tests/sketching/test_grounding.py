"""The answer without its image, against plain forwards of one sample at a time."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import numpy as np
import pytest
import torch

from adapt_inf.data.samples import Sample
from adapt_inf.models.batches import collate
from adapt_inf.models.vlm import VLM
from adapt_inf.sketching.grounding import blank_image_features, nll_without_image
from adapt_inf.sketching.signals import AnswerPass


def slow_nll(vlm: VLM, sample: Sample, without: Literal["blank", "drop"]) -> float:
    if not sample.images:
        return float("nan")
    if without == "drop":
        turns = [{**m, "content": [p for p in m["content"] if p["type"] != "image"]} for m in sample.messages]
        batch = collate(vlm, [replace(sample, images=(), messages=turns)])
    else:
        batch = collate(vlm, [sample])
        batch.inputs["pixel_values"] = torch.zeros_like(batch.inputs["pixel_values"])
    with torch.no_grad():
        logits = vlm.model(**batch.inputs).logits[0, :-1]
    told = batch.answers[0, 1:]
    return float(torch.nn.functional.cross_entropy(logits[told], batch.input_ids[0, 1:][told]))


@pytest.mark.parametrize("without", ["blank", "drop"])
@pytest.mark.parametrize("which", ["vlm", "adapted"])
def test_is_the_forward_of_a_sample_without_its_image(
    which: str, without: Literal["blank", "drop"], samples: list[Sample], request: pytest.FixtureRequest
) -> None:
    model = request.getfixturevalue(which)
    ours = nll_without_image(model, AnswerPass(model), samples, without, batch_size=5)
    slow = [slow_nll(model, sample, without) for sample in samples]
    np.testing.assert_allclose(ours, slow, rtol=1e-5)
    assert np.isnan(ours).sum() == sum(not sample.images for sample in samples) > 0


def test_the_vision_tower_runs_once_for_all_blank_images(vlm: VLM, samples: list[Sample]) -> None:
    runs = []
    handle = vlm.network.base_model.vision_tower.register_forward_hook(lambda *_: runs.append(1))
    nll_without_image(vlm, AnswerPass(vlm), samples, "blank", batch_size=4)
    nll_without_image(vlm, AnswerPass(vlm), samples, "drop", batch_size=4)
    handle.remove()
    assert len(runs) == 1


def test_the_model_sees_its_images_again_afterwards(vlm: VLM, samples: list[Sample]) -> None:
    batch, answers = collate(vlm, samples[:4]), AnswerPass(vlm)
    before = answers(batch).nll
    with blank_image_features(vlm):
        blank = answers(batch).nll
    assert not torch.equal(blank, before)
    assert torch.equal(answers(batch).nll, before)


def test_features_that_need_more_than_pixels_come_from_the_tower(vlm: VLM) -> None:
    """A family that passes sizes along (here by hand) has them respected: its tower runs on zeros."""
    network = vlm.network.base_model
    pixels = torch.randn(2, 3, 32, 32)
    runs = []
    handle = network.vision_tower.register_forward_hook(lambda *_: runs.append(1))
    with blank_image_features(vlm), torch.no_grad():
        plain = network.get_image_features(pixels, vision_feature_layer=-1, vision_feature_select_strategy="default")
        network.get_image_features(pixels, vision_feature_layer=-1, vision_feature_select_strategy="default")
        assert len(runs) == 1
        flag = torch.ones(1)
        sized = network.get_image_features(
            pixels, vision_feature_layer=-1, vision_feature_select_strategy="default", unused=flag
        )
    handle.remove()
    assert len(runs) == 2
    torch.testing.assert_close(torch.stack(list(sized.pooler_output)), torch.stack(list(plain.pooler_output)))


def test_only_text(vlm: VLM, samples: list[Sample]) -> None:
    text = [sample for sample in samples if not sample.images]
    assert np.isnan(nll_without_image(vlm, AnswerPass(vlm), text, "blank", 4)).all()
