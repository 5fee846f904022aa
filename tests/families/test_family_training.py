"""What spares memory or time in training changes no family's gradient, and bf16 by no more than its rounding."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from training_steps import first_step

from adapt_inf.config import Train
from adapt_inf.data.samples import Sample
from adapt_inf.models import precision
from adapt_inf.models.batches import collate
from adapt_inf.models.lora import with_adapter
from adapt_inf.models.vlm import VLM, load_vlm

KNOBS = Train(rank=3, alpha=6)  # the shape of the trained adapter


def gradient(project: Path, samples: list[Sample], **knobs: Any) -> Tensor:
    """Of a step that the trained adapter takes next, all weights in a row."""
    settings = replace(KNOBS, **knobs)
    vlm = with_adapter(load_vlm(project / "rounds" / "r001" / "model", trainable=True), settings, seed=0)
    size = settings.micro_batch or len(samples)
    parts = (collate(vlm, samples[at : at + size]) for at in range(0, len(samples), size))
    _, found = first_step(vlm, settings, parts, len(samples))
    return torch.cat([one.flatten() for one in found])


@pytest.fixture(scope="module")
def whole(project: Path, adapted: VLM, samples: list[Sample]) -> Tensor:
    return gradient(project, samples)


@pytest.mark.parametrize("knobs", [{"micro_batch": 2}, {"gradient_checkpointing": True}], ids=["parts", "again"])
def test_what_spares_memory_leaves_the_gradient(
    project: Path, samples: list[Sample], whole: Tensor, knobs: dict[str, Any]
) -> None:
    torch.testing.assert_close(gradient(project, samples, **knobs), whole, rtol=1e-4, atol=1e-5 * float(whole.norm()))


def test_bf16_changes_the_gradient_by_its_rounding(
    project: Path, samples: list[Sample], whole: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a GPU does, on the CPU's own bf16."""
    monkeypatch.setattr(precision, "precision", lambda _: "bfloat16")
    got = gradient(project, samples)
    assert got.dtype == torch.float32
    assert 0 < float((got - whole).norm()) < 0.05 * float(whole.norm())
