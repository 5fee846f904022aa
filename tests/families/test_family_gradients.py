"""Batched gradients and signals of every family against plain autograd, one sample at a time."""

from __future__ import annotations

from typing import Literal

import pytest
import torch

from adapt_inf.data.samples import Sample
from adapt_inf.models.batches import Batch, collate, encode, pad
from adapt_inf.models.vlm import VLM
from adapt_inf.sketching.gradients import Sketcher
from adapt_inf.sketching.signals import Signals

EXACT = 1e-5  # |batched - alone| / |alone|
ROUNDING = 1e-5  # the same for what must not matter: other samples, padding


def slow(vlm: VLM, sample: Sample, weights: list[torch.Tensor]) -> tuple[torch.Tensor, list[float]]:
    """(D,) gradient of one sample's mean nll by autograd on the whole model, and its nll, EL2N and entropy."""
    batch = collate(vlm, [sample])
    for weight in weights:
        weight.requires_grad_(True)
    logits = vlm.model(**batch.inputs).logits[0, :-1]
    told = batch.answers[0, 1:]
    labels = batch.input_ids[0, 1:][told]
    log_p = torch.log_softmax(logits[told], dim=-1)
    loss = torch.nn.functional.nll_loss(log_p, labels)
    parts = torch.autograd.grad(loss, weights)
    for weight in weights:
        weight.requires_grad_(False)
    p = log_p.exp()
    error = p - torch.nn.functional.one_hot(labels, p.shape[1])
    signals = [loss, error.norm(dim=1).mean(), -(p * log_p).sum(1).mean()]
    return torch.cat([part.flatten() for part in parts]), [signal.item() for signal in signals]


def batched(sketcher: Sketcher, batch: Batch) -> tuple[torch.Tensor, Signals]:
    """(B, D) gradients of a batch as they go into the sketch, and its signals."""
    signals, _ = sketcher.differentiate(batch)
    blocks = [block for _, block in sketcher.gradient_blocks(len(batch))]
    return torch.cat(blocks, dim=1), signals


def off(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    """The largest relative difference of rows."""
    return float(((ours - theirs).norm(dim=1) / theirs.norm(dim=1)).max())


@pytest.fixture(params=["full", "lora", "full under lora"])
def sketcher(request: pytest.FixtureRequest) -> tuple[VLM, Sketcher]:
    params: Literal["full", "lora"] = "lora" if request.param == "lora" else "full"
    model: VLM = request.getfixturevalue("vlm" if request.param == "full" else "adapted")
    return model, Sketcher(model, [1, -1] if params == "lora" else "middle", params, dim=256)


def test_batched_gradients_and_signals_are_those_of_one_sample_at_a_time(
    sketcher: tuple[VLM, Sketcher], samples: list[Sample]
) -> None:
    vlm, ours = sketcher
    batch = collate(vlm, samples)
    gradients, signals = batched(ours, batch)
    found = [slow(vlm, sample, [module.weight for module in ours.plan.modules]) for sample in samples]
    expected = torch.stack([gradient for gradient, _ in found])
    assert gradients.shape == expected.shape == (len(samples), ours.plan.coordinates)
    assert off(gradients, expected) < EXACT
    told = torch.stack([signals.nll, signals.el2n, signals.entropy], dim=1)
    torch.testing.assert_close(told, torch.tensor([s for _, s in found], dtype=torch.float64), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(ours(batch).grand, expected.norm(dim=1).double(), rtol=1e-4, atol=0)


def test_other_samples_and_padding_change_nothing(sketcher: tuple[VLM, Sketcher], samples: list[Sample]) -> None:
    vlm, ours = sketcher
    encoded = encode(vlm, samples)
    alone = torch.cat([batched(ours, pad(vlm, [item]))[0] for item in encoded])
    together, _ = batched(ours, pad(vlm, encoded))
    backwards, _ = batched(ours, pad(vlm, encoded[::-1]))
    assert off(together, alone) < ROUNDING
    assert off(backwards.flip(0), alone) < ROUNDING
    shortest = min(encoded, key=lambda item: len(item.ids))
    longest = max(encoded, key=lambda item: len(item.ids))
    pair, _ = batched(ours, pad(vlm, [shortest, longest]))
    twice, _ = batched(ours, pad(vlm, [shortest, shortest]))
    assert off(pair[:1], twice[:1]) < ROUNDING


def test_text_alone(sketcher: tuple[VLM, Sketcher], samples: list[Sample]) -> None:
    vlm, ours = sketcher
    texts = [sample for sample in samples if not sample.images]
    if texts:
        gradients, _ = batched(ours, collate(vlm, texts))
        expected, _ = slow(vlm, texts[0], [module.weight for module in ours.plan.modules])
        assert off(gradients, expected[None]) < EXACT
