"""What the benchmarks run on: the shipped base model, and samples of the demo's drops as ingest makes them."""

from __future__ import annotations

from itertools import zip_longest
from pathlib import Path

import torch
from peft.tuners.lora import LoraLayer

from adapt_inf.config import Train
from adapt_inf.creation import shipped_model
from adapt_inf.data.samples import Sample
from adapt_inf.demo.compose import DROPS, PLANS
from adapt_inf.demo.drops.plan import draw
from adapt_inf.demo.probe_drops import as_sample
from adapt_inf.models.lora import with_adapter
from adapt_inf.models.vlm import VLM, load_vlm

BASE = Path(shipped_model())
LARGEST = 0.05  # of the random second factor: its spread, .03, is that after 120 steps at the demo's learning rate


def samples(count: int) -> list[Sample]:
    """The first training samples of every drop, in turn: one picture, two, or text alone, of each drop's own length."""
    share = -(-count // len(DROPS))
    parts = [[as_sample(name, item) for item in draw(PLANS[name], seed=0)["train"][:share]] for name in DROPS]
    return [sample for row in zip_longest(*parts) for sample in row if sample is not None][:count]


def bare_model(folder: Path = BASE) -> VLM:
    """The model of a lineage's first round: no adapter, so the layer's own weights are sketched."""
    return load_vlm(folder)


def adapted_model(folder: Path = BASE) -> VLM:
    """The model of a later round: an adapter of the default rank and targets, its second factor drawn as if trained."""
    vlm = with_adapter(load_vlm(folder), Train(), seed=0)
    generator = torch.Generator().manual_seed(0)
    for layer in vlm.model.modules():
        if isinstance(layer, LoraLayer):
            for factor in layer.lora_B.values():
                torch.nn.init.uniform_(factor.weight, -LARGEST, LARGEST, generator=generator)
    return vlm
