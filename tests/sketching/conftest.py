"""A miniature model, bare and adapted, and samples with none, one and two pictures."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from make_drop import Item, draw_items
from peft import LoraConfig, get_peft_model

from adapt_inf.data.samples import Sample
from adapt_inf.models.vlm import VLM, load_vlm


def to_sample(item: Item) -> Sample:
    question = [{"type": "image"}] * len(item.pictures) + [{"type": "text", "text": item.question}]
    messages = [
        {"role": "user", "content": question},
        {"role": "assistant", "content": [{"type": "text", "text": item.answer}]},
    ]
    return Sample(item.name, tuple(item.pictures), messages, item.skill, "exact_match", (item.answer,))


def second_turn(sample: Sample) -> Sample:
    """The same sample with one more question and a longer answer, so that it has two assistant turns."""
    more = [
        {"role": "user", "content": [{"type": "text", "text": "How many pictures are there?"}]},
        {
            "role": "assistant",
            "content": [{"type": "text", "text": "There are two pictures, the first and the second."}],
        },
    ]
    return Sample(sample.sample_id, sample.images, sample.messages + more, sample.skill, "exact_match", sample.answers)


@pytest.fixture(scope="session")
def samples() -> list[Sample]:
    """16 samples of uneven lengths: 10 with one picture, 4 with two, 2 without; every fifth has two assistant turns."""
    drawn = [to_sample(item) for item in draw_items("sketching", "train", 16, 0)]
    return [second_turn(sample) if i % 5 == 0 else sample for i, sample in enumerate(drawn)]


@pytest.fixture
def vlm(miniature_model: Path) -> VLM:
    return load_vlm(miniature_model)


@pytest.fixture
def adapted(miniature_model: Path) -> VLM:
    """The miniature with LoRA factors on its text decoder, both sides random, as after training."""
    base = load_vlm(miniature_model)
    config = LoraConfig(r=3, lora_alpha=6, target_modules=r".*language_model.*(q_proj|v_proj|up_proj|down_proj)")
    model = get_peft_model(base.model, config).eval()
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.2)
    return VLM(model, base.processor, base.device, True, base.base)
