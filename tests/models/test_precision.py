"""bf16 only where a GPU has it; what it computes is float32's within its 8 bits, and sums stay float32."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity

from adapt_inf.config import Train
from adapt_inf.data.samples import Sample
from adapt_inf.models import precision as module
from adapt_inf.models.batches import collate
from adapt_inf.models.likelihood import answer_logits, sample_nll
from adapt_inf.models.lora import with_adapter
from adapt_inf.models.precision import autocast, make_repeatable, precision
from adapt_inf.models.vlm import load_vlm

CPU = torch.device("cpu")


def test_a_cpu_computes_in_float32() -> None:
    assert precision(CPU) == "float32"
    with autocast(CPU):
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.float32


@pytest.mark.parametrize(("has_it", "expected"), [(True, "bfloat16"), (False, "float32")])
def test_a_gpu_computes_in_bf16_where_it_can(monkeypatch: pytest.MonkeyPatch, has_it: bool, expected: str) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: has_it)
    assert precision(torch.device("cuda")) == expected


def test_losses_and_gradients_in_bf16_are_those_of_float32_within_its_tolerance(
    miniature_model: Path, samples: list[Sample], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The path that a GPU takes, on the CPU's own bf16."""

    def losses_and_gradients() -> tuple[Tensor, Tensor]:
        vlm = with_adapter(load_vlm(miniature_model), Train(rank=4, alpha=8), seed=0)
        weights = [weight for weight in vlm.model.parameters() if weight.requires_grad]
        with torch.no_grad():
            for weight in weights:
                weight.add_(0.05)  # a new adapter's second factors are zero, and so its first ones' gradients
        batch = collate(vlm, samples)
        with autocast(CPU):
            losses = sample_nll(*answer_logits(vlm, batch), n=len(batch))
        gradients = torch.autograd.grad(losses.mean(), weights)
        assert {weight.dtype for weight in (losses, *weights, *gradients)} == {torch.float32}
        return losses.detach(), torch.cat([gradient.flatten() for gradient in gradients])

    expected, exact = losses_and_gradients()
    monkeypatch.setattr(module, "precision", lambda _: "bfloat16")
    got, rounded = losses_and_gradients()
    assert not torch.equal(got, expected)
    torch.testing.assert_close(got, expected, rtol=2**-6, atol=0)
    assert cosine_similarity(rounded, exact, dim=0) > 0.999
    assert float(rounded.norm() / exact.norm()) == pytest.approx(1, rel=2**-6)


def test_a_gpu_adds_up_in_a_fixed_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    make_repeatable(CPU)
    assert not torch.are_deterministic_algorithms_enabled()
    try:
        make_repeatable(torch.device("cuda"))
        assert torch.are_deterministic_algorithms_enabled()
        assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
    finally:
        torch.use_deterministic_algorithms(False)
