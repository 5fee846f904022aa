"""Which number format matrices are multiplied in: bf16 on a GPU that has it, float32 everywhere else.

Sums, losses, LoRA factors and optimiser states stay in float32: bf16 keeps 8 bits of a product, which is enough for a
direction, not for a sum.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch


def precision(device: torch.device) -> str:
    """`bfloat16` or `float32`."""
    return "bfloat16" if device.type == "cuda" and torch.cuda.is_bf16_supported() else "float32"


def autocast(device: torch.device) -> AbstractContextManager[object]:
    """Inside, matrix products on `device` run in its `precision`; weights stay as they are."""
    return torch.autocast(device.type, torch.bfloat16) if precision(device) == "bfloat16" else nullcontext()
