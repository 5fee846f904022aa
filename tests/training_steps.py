"""What one step of training does, to be looked into."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import Tensor

from adapt_inf.config import Train
from adapt_inf.models.batches import Batch
from adapt_inf.models.training import Tuning, training_mode
from adapt_inf.models.vlm import VLM


def first_step(vlm: VLM, knobs: Train, parts: Iterable[Batch], count: int) -> tuple[dict[str, Any], list[Tensor]]:
    """The row of a first step on these micro-batches of `count` samples, and its gradient before clipping."""
    seen: list[Tensor] = []

    def look(weights: list[Tensor], figures: Tensor) -> Tensor:
        seen.extend(weight.grad.clone() for weight in weights if weight.grad is not None)
        return figures

    tuning = Tuning(vlm, knobs, steps=1)
    with training_mode(vlm, knobs):
        tuning.step(parts, count, look)
    return tuning.log[0], seen
