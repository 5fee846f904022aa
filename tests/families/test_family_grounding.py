"""The answer without its image, for every family, against plain forwards of one sample at a time."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from family_models import Family

from adapt_inf.data.samples import Sample
from adapt_inf.models.batches import collate, encode_readable
from adapt_inf.models.vlm import VLM
from adapt_inf.sketching.grounding import WithoutImage
from adapt_inf.sketching.signals import AnswerPass

NOTHING = 1e-20  # pixels of zero; some families take a picture of exact zeros for padding, and leave it out


def nll(vlm: VLM, sample: Sample, pixels: float | None = None) -> float:
    batch = collate(vlm, [sample])
    if pixels is not None:
        batch.inputs["pixel_values"] = torch.full_like(batch.inputs["pixel_values"], pixels)
    with torch.no_grad():
        logits = vlm.model(**batch.inputs).logits[0, :-1]
    told = batch.answers[0, 1:]
    return float(torch.nn.functional.cross_entropy(logits[told], batch.input_ids[0, 1:][told]))


def bare(sample: Sample) -> Sample:
    turns = [{**m, "content": [p for p in m["content"] if p["type"] != "image"]} for m in sample.messages]
    return replace(sample, images=(), messages=turns)


@pytest.mark.parametrize("which", ["vlm", "adapted"])
@pytest.mark.parametrize("copies", [1, 5])
def test_blank(which: str, copies: int, family: Family, samples: list[Sample], request: pytest.FixtureRequest) -> None:
    """Also with many samples of one shape, which may share what they have in common."""
    vlm: VLM = request.getfixturevalue(which)
    many = [sample for sample in samples for _ in range(copies)]
    run = WithoutImage(vlm, AnswerPass(vlm), "blank", batch_size=3)
    ours = run(many)
    if copies == 5:
        assert run.shares_prefix is not family.reads_both_ways
    slow = [nll(vlm, sample, NOTHING) if sample.images else np.nan for sample in samples]
    np.testing.assert_allclose(ours, np.repeat(slow, copies), rtol=2e-5)
    own = [nll(vlm, sample) for sample in samples if sample.images]
    assert np.abs(np.array(own) - [value for value in slow if value == value]).max() > 1e-3


@pytest.mark.parametrize("which", ["vlm", "adapted"])
def test_drop(which: str, family: Family, samples: list[Sample], request: pytest.FixtureRequest) -> None:
    vlm: VLM = request.getfixturevalue(which)
    ours = WithoutImage(vlm, AnswerPass(vlm), "drop", batch_size=3)(samples)
    if family.text_only:
        slow = [nll(vlm, bare(sample)) if sample.images else np.nan for sample in samples]
        np.testing.assert_allclose(ours, slow, rtol=2e-5)
    else:  # the family cannot be asked
        assert np.isnan(ours).all()
        assert "images" in str(encode_readable(vlm, samples[:1], images="drop")[0])
