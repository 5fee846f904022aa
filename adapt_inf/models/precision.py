"""How a device computes: bf16 products on a GPU that has them, float32 everywhere else, and the same bits each time.

Sums, losses, LoRA factors and optimiser states stay in float32: bf16 keeps 8 bits of a product, which is enough for a
direction, not for a sum.
"""

from __future__ import annotations

import os
from contextlib import AbstractContextManager, nullcontext

import torch


def precision(device: torch.device) -> str:
    """`bfloat16` or `float32`."""
    return "bfloat16" if device.type == "cuda" and torch.cuda.is_bf16_supported() else "float32"


def autocast(device: torch.device) -> AbstractContextManager[object]:
    """Inside, matrix products on `device` run in its `precision`; weights stay as they are."""
    return torch.autocast(device.type, torch.bfloat16) if precision(device) == "bfloat16" else nullcontext()


def make_repeatable(device: torch.device) -> None:
    """Have a GPU add up in a fixed order, so that the same seed gives the same sketches; a CPU does so anyway.

    Where CUDA has no such kernel torch warns and goes on.
    """
    if device.type == "cuda":
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read when cuBLAS starts
        torch.use_deterministic_algorithms(True, warn_only=True)
